"""The benchmarks' corpus, how a system is judged, and that this project's own process is measured whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import corpus, memory, step
from benchmarks.ingestion import write_small
from benchmarks.peers import common, compare
from benchmarks.peers.compare import OURS, PEERS


def folder(place: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def contents_of(place: Path) -> dict[str, str]:
    return dict(common.read(place))


def test_the_corpus_is_of_abstracts_and_the_same_each_time(tmp_path: Path) -> None:
    characters = corpus.make(tmp_path / "one", 40)
    corpus.make(tmp_path / "two", 40)
    made = contents_of(tmp_path / "one")
    assert made == contents_of(tmp_path / "two")
    assert len(set(made.values())) == 40
    assert characters == sum(map(len, made.values()))
    assert all(len(text) in corpus.CHARACTERS and "<" not in text for text in made.values())


def test_a_corpus_that_is_too_small_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="1,000,000 are wanted"):
        corpus.make(tmp_path, 1_000_000)


def test_a_store_is_judged_by_its_source(tmp_path: Path) -> None:
    source = folder(tmp_path, {"a/1.txt": "one two\n\nthree", "a/2.txt": "four", "b.txt": "five"})
    sound = [("a/1.txt", "one two three"), ("a/2.txt", "four"), ("b.txt", "five")]
    assert common.judge(sound, source) == {"chunks": 3, "stale": 0, "duplicates": 0, "missing": 0}
    wrong = [("a/1.txt", "one"), ("a/1.txt", " one"), ("a/2.txt", "old"), ("gone.txt", "x")]
    assert common.judge(wrong, source) == {"chunks": 4, "stale": 2, "duplicates": 1, "missing": 1}


def test_a_changed_document_leaves_none_of_its_chunks_as_it_was(tmp_path: Path) -> None:
    path = folder(tmp_path, {"a.txt": "first half, second half"}) / "a.txt"
    before = [("a.txt", path.read_text())]
    compare.change(path)
    assert "second half" in path.read_text()
    assert common.judge(before, tmp_path)["stale"] == 1


def test_this_project_is_measured_in_its_own_process(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", {f"{n}.txt": f"Document {n}.\n" for n in range(5)})
    found = compare.run_system(OURS, Path(sys.executable), source, tmp_path / "home")
    assert (found["embedded"], found["chunks"], found["stale"], found["duplicates"], found["missing"]) == (
        5,
        5,
        0,
        0,
        0,
    )
    assert found["cpu_s"] > 0
    assert found["peak_mb"] >= found["imports_mb"] > 0
    compare.change(source / "0.txt")
    (source / "1.txt").unlink()
    found = compare.run_system(OURS, Path(sys.executable), source, tmp_path / "home")
    assert (found["embedded"], found["chunks"], found["stale"], found["missing"]) == (1, 4, 0, 0)


def test_the_table_names_every_system_and_the_best_peer(capsys: pytest.CaptureFixture[str]) -> None:
    def passes(cpu_s: float) -> compare.Passes:
        one = {"cpu_s": cpu_s, "wall_s": 1.0, "peak_mb": 9.0, "embedded": 1, "chunks": 2, "stale": 3, "duplicates": 4}
        return dict.fromkeys(("cold", "unchanged", "changed"), one)

    compare.print_table({system: passes(1.0) for system in (OURS, *PEERS)}, 100)
    shown = capsys.readouterr().out
    assert all(system.name in shown for system in (OURS, *PEERS))


def test_the_ratios_are_those_of_the_best_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    best = {OURS: {"cpu_s": 2.0, "wall_s": 2.0}, compare.SHARED: {"cpu_s": 1.0, "wall_s": 1.0}}
    best |= {peer: {"cpu_s": 5.0, "wall_s": 6.0} for peer in PEERS}
    best[PEERS[1]] = {"cpu_s": 3.0, "wall_s": 4.0}
    assert compare.print_ratios(best) == 4.0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-3:] for line in lines if line.startswith(PEERS[1].name)] == [["1.50", "2.00", "4.00"]]


def test_every_peer_has_a_module_and_its_requirements_are_pinned() -> None:
    assert all((Path(compare.__file__).parent / f"{system.module}.py").exists() for system in (OURS, *PEERS))
    lines = compare.REQUIREMENTS.read_text().splitlines()
    assert all("==" in line for line in lines if line and not line.startswith("#"))


def test_peers_environment_is_kept_until_its_requirements_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def uv(command: list[str], **_: object) -> None:
        ran.append(command)
        (tmp_path / "env").mkdir(exist_ok=True)

    monkeypatch.setattr(compare.subprocess, "run", uv)
    python = compare.peers_python(tmp_path / "env")
    assert python == tmp_path / "env" / "bin" / "python"
    assert [command[4] for command in ran] == ["venv", "pip"]
    compare.peers_python(tmp_path / "env")
    assert len(ran) == 2
    other = tmp_path / "other.txt"
    other.write_text("numpy==2.5.5\n")
    monkeypatch.setattr(compare, "REQUIREMENTS", other)
    compare.peers_python(tmp_path / "env")
    assert len(ran) == 4


@pytest.mark.slow
def test_each_step_runs_in_a_process_and_tells_its_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", (tmp_path / "storage").as_uri())
    found = memory.peaks(tmp_path / "work", 3)
    assert found.keys() >= {"plan", "embed", "commit", "check", "evaluate", "plan, unchanged"}
    assert all(peak > 10 for peak in found.values())
    with pytest.raises(subprocess.CalledProcessError):
        step.run("plan", {})


def test_a_large_source_is_unchanged_to_the_plan(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "--files", "30", "--scratch", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=compare.PROJECT)
    assert done.returncode == 0, done.stderr
    assert "found 30, unchanged 30, 0 shards" in done.stdout


def test_small_documents_are_as_many_as_wanted(tmp_path: Path) -> None:
    write_small(tmp_path, 3)
    assert len(list(tmp_path.rglob("*.txt"))) == 3
    assert json.dumps(sorted(contents_of(tmp_path))) == '["000/000000.txt", "000/000001.txt", "000/000002.txt"]'
