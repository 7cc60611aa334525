"""Index versions: built beside the live one, compared, swapped, taken back, removed."""

from __future__ import annotations

import json
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest

from include.config import load_settings
from include.errors import GateError, StateMovedError, UserError
from include.models import embeddings
from include.models.embeddings import Hashing
from include.rag import manage, pipeline
from include.rag.search import search
from include.rag.versions import Live, Spec, Versions
from include.storage import location, read_json
from tests.rag.ingestion import Ingestion

WORDS = ("amber", "basalt", "cedar", "dune", "ember", "fjord", "garnet", "harbor", "island", "jasper", "kelp", "lagoon")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Documents of which each says something of its own, so that questions can be made of them."""
    folder = tmp_path / "source"
    folder.mkdir()
    for n in range(30):
        one, two, three = (WORDS[(n * step + step) % len(WORDS)] for step in (1, 5, 7))
        text = f"The {one} keeper number {n} carries {two} across every {three} in winter. It rests at noon."
        (folder / f"{n:02d}.md").write_text(f"# Keeper {n}\n\n{text}\n")
    return folder


@pytest.fixture
def ours(ingestion: Ingestion) -> Ingestion:
    """Golden questions that full text and words answer alike."""
    lines = [
        json.dumps({"question": f"keeper number {n}", "relevant": [f"{n:02d}.md"]}) for n in range(30)
    ]  # fmt: skip
    golden = Path(ingestion.source).parent / "golden.jsonl"
    golden.write_text("\n".join(lines))
    ingestion.params |= {"golden": str(golden), "min_recall_at_5": 0, "min_mrr": 0, "documents_per_shard": 50}
    return ingestion


def whole(ingestion: Ingestion, run_id: str, **params: Any) -> dict[str, Any]:
    """All of the DAG's steps; the run's configuration."""
    config = Ingestion(ingestion.root, ingestion.source, {**ingestion.params, **params}).prepare(run_id)
    ingestion.embed(config, pipeline.plan(config))
    ingestion.settle(config)
    pipeline.commit(config)
    pipeline.check(config)
    pipeline.gate(pipeline.evaluate(config, dag_id="test", task_id="evaluate"))
    pipeline.switch(config)
    return config


class Better(Hashing):
    """The same words under another name."""

    name = "hashing-2"


class Blind(Hashing):
    """Every text points in a direction that has nothing to do with it."""

    name = "blind-1"

    def embed(self, texts: Any) -> Any:
        return super().embed([f"document {zlib.crc32(text.encode())}" for text in texts])

    def embed_queries(self, texts: Any) -> Any:
        return super().embed([f"query {zlib.crc32(text.encode())}" for text in texts])


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embeddings.EMBEDDERS, "better", Better)
    monkeypatch.setitem(embeddings.EMBEDDERS, "blind", Blind)


def test_another_embedder_builds_the_next_version_and_goes_live_by_the_gate(ours: Ingestion) -> None:
    whole(ours, "run-1")
    before = ours.rows(1)
    config = whole(ours, "run-2", embedder="better")
    assert (config["version"], ours.versions.live().version) == (2, 2)
    assert ours.versions.live() == Live(version=2, former=(1,), by="run-2", at=ours.versions.live().at)
    assert ours.rows(1) == before
    assert {row["embedder"] for row in ours.rows(2)} == {"hashing-2"}


def test_readers_see_the_old_version_until_the_new_one_is_whole(ours: Ingestion) -> None:
    """A reader asks all the while: every answer is of one version alone, and the order is old, then new."""
    whole(ours, "run-1")
    settings, seen, ended = load_settings(), [], threading.Event()

    def poll() -> None:
        while not ended.is_set():
            found = search("keeper number 7", index="test", k=30, settings=settings)
            seen.append(frozenset(passage.id for passage in found))

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        whole(ours, "run-2", embedder="better")
        asked = len(seen)
        while len(seen) < asked + 3 and reader.is_alive():
            ended.wait(0.01)
    finally:
        ended.set()
        reader.join()
    old, new = (frozenset(row["id"] for row in ours.rows(number)) for number in (1, 2))
    assert not old & new
    answers = list(dict.fromkeys("old" if ids <= old else "new" if ids <= new else "mixed" for ids in seen))
    assert answers == ["old", "new"]
    assert all(seen)


def test_a_worse_embedder_is_refused_and_the_live_version_is_untouched(ours: Ingestion) -> None:
    whole(ours, "run-1")
    before, pointer = ours.rows(1), ours.versions.live()
    with pytest.raises(GateError, match=r"mrr changed by -.* from the live version 1.*more than the allowed drop"):
        whole(ours, "run-2", embedder="blind")
    assert (ours.rows(1), ours.versions.live()) == (before, pointer)
    assert {hit.id for hit in search("keeper number 7", index="test")} <= {row["id"] for row in before}


def test_a_roll_back_is_one_step_and_stays_until_a_person_says_otherwise(ours: Ingestion) -> None:
    whole(ours, "run-1")
    whole(ours, "run-2", embedder="better")
    told = manage.manage({"action": "roll-back", "index": "test", "tenant": None}, by="ann")
    assert told[0] == "v0001 is live again instead of v0002"
    assert [line.split()[:2] for line in told[1:]] == [["v0001", "live"], ["v0002", "rolled"]]
    assert {hit.id for hit in search("keeper number 7", index="test")} <= {row["id"] for row in ours.rows(1)}
    with pytest.raises(UserError, match=r"v0002 was built by these Params .* and rolled back: take those of the"):
        whole(ours, "run-3", embedder="better")
    assert whole(ours, "run-4")["version"] == 1
    assert whole(ours, "run-5", embedder="better", rebuild=True)["version"] == 3
    assert ours.versions.live().former == (1,)


def test_a_rolled_back_version_may_be_named_and_one_that_was_never_live_may_not(ours: Ingestion) -> None:
    whole(ours, "run-1")
    whole(ours, "run-2", embedder="better")
    Ingestion(ours.root, ours.source, {**ours.params, "embedder": "blind"}).prepare("run-3")
    manage.manage({"action": "roll-back", "index": "test"}, by="ann")
    manage.manage({"action": "roll-back", "index": "test", "version": 2}, by="ann")
    live = ours.versions.live()
    assert (live.version, live.former, live.rolled_back) == (2, (1,), ())
    for never in (3, 9):
        with pytest.raises(UserError, match=r"never live, or is gone; versions to go back to: v0001"):
            manage.manage({"action": "roll-back", "index": "test", "version": never}, by="ann")


def test_clean_up_keeps_the_live_one_and_those_asked_for(ours: Ingestion, capsys: pytest.CaptureFixture[str]) -> None:
    whole(ours, "run-1")
    whole(ours, "run-2", embedder="better")
    config = whole(ours, "run-3", rebuild=True)
    assert pipeline.clean_up(config) == ["v0001"]
    assert [one.number for one in ours.versions.all()] == [2, 3]
    assert not ours.versions.home_of(1).exists()
    assert pipeline.clean_up(config) == []
    assert manage.main(["clean-up", "--index", "test", "--keep", "1"]) == 0
    assert "removed: v0002\nv0003  live" in capsys.readouterr().out
    assert manage.main(["roll-back", "--index", "test"]) == 2
    assert "no former version is there; versions to go back to: none" in capsys.readouterr().err
    assert search("keeper number 7", index="test")


def test_a_build_that_died_is_taken_up_by_the_next_run(ours: Ingestion) -> None:
    whole(ours, "run-1")
    died = Ingestion(ours.root, ours.source, {**ours.params, "embedder": "better", "documents_per_shard": 10})
    config = died.prepare("run-2")
    died.embed(config, pipeline.plan(config)[:2])
    later = whole(ours, "run-3", embedder="better", documents_per_shard=10)
    assert (later["version"], ours.versions.live().version) == (2, 2)


def test_a_repeated_prepare_stays_with_its_version(ours: Ingestion) -> None:
    whole(ours, "run-1")
    config = whole(ours, "run-2", rebuild=True)
    again = Ingestion(ours.root, ours.source, {**ours.params, "rebuild": True}).prepare("run-2")
    assert again["version"] == config["version"] == 2


def test_another_chunk_size_takes_the_vectors_of_equal_texts_from_the_live_version(ours: Ingestion) -> None:
    whole(ours, "run-1")
    config = Ingestion(ours.root, ours.source, {**ours.params, "chunk_tokens": 64}).prepare("run-2")
    (shard, *_) = pipeline.plan(config)
    counts = pipeline.embed(config, shard, dag_id="test", task_id="embed")
    assert (config["version"], counts["chunks_embedded"], counts["chunks_reused"]) == (2, 0, counts["chunks"])


def test_a_version_that_lacks_a_source_waits_for_it(ours: Ingestion, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "more.md").write_text("# More\n\nwords of another source")
    second = Ingestion(ours.root, str(other), {name: v for name, v in ours.params.items() if name != "golden"})
    whole(ours, "run-1")
    whole(second, "run-2")
    config = whole(ours, "run-3", embedder="better")
    assert pipeline.switch(config) == {"version": "v0002", "is_live": False, "missing": [f"file://{other}"]}
    assert ours.versions.live().version == 1
    assert pipeline.publish(config) is None
    assert pipeline.switch(whole(second, "run-4", embedder="better"))["is_live"]
    assert ours.versions.live().version == 2


@pytest.mark.parametrize(("decision", "live"), [("keep", 1), ("delete", 2)])
def test_a_version_built_from_half_a_source_needs_a_yes(
    ours: Ingestion, corpus: Path, decision: str, live: int
) -> None:
    """Nothing is deleted from a version that is new, and yet readers would miss what the live one has."""
    whole(ours, "run-1")
    for file in sorted(corpus.iterdir())[:10]:
        file.unlink()
    lines = (corpus.parent / "golden.jsonl").read_text().splitlines()[10:]
    (corpus.parent / "golden.jsonl").write_text("\n".join(lines))
    config = whole(ours, "run-2", embedder="better", on_many_deletions=decision)
    assert (config["version"], ours.versions.live().version) == (2, live)
    assert pipeline.switch(config).get("held", 0) == (10 if decision == "keep" else 0)


def test_a_version_does_not_follow_one_that_it_was_not_compared_with(ours: Ingestion) -> None:
    whole(ours, "run-1")
    late = Ingestion(ours.root, ours.source, {**ours.params, "embedder": "better"})
    config = late.prepare("run-2")
    late.embed(config, pipeline.plan(config))
    late.settle(config)
    pipeline.commit(config)
    pipeline.check(config)
    pipeline.evaluate(config, dag_id="test", task_id="evaluate")
    whole(ours, "run-3", rebuild=True, chunk_tokens=64)
    with pytest.raises(StateMovedError, match="another version went live since v0002 was compared: clear"):
        pipeline.switch(config)
    pipeline.gate(pipeline.evaluate(config, dag_id="test", task_id="evaluate"))
    assert pipeline.switch(config)["is_live"]


def test_an_index_of_the_earlier_layout_is_read_until_the_next_version_replaces_it(ours: Ingestion) -> None:
    whole(ours, "run-1")
    home = Path(ours.versions.home.path)
    for path in Path(ours.home(1).path).iterdir():
        if path.name != "version.json":
            path.rename(home / path.name)
    (home / "LIVE.json").unlink()
    (home / "versions" / "v0001" / "version.json").unlink()
    current = home / "ledger" / "CURRENT.json"
    earlier = {"store": "lancedb", "embedder": "hashing", "embedder_version": "hashing-1", "schema_version": 1}
    current.write_text(json.dumps({**read_json(location(current.as_uri())), **earlier}))
    assert search("keeper number 7", index="test")
    config = whole(ours, "run-2")
    assert (config["version"], ours.versions.live().version) == (1, 1)
    assert ours.versions.live().former == (0,)
    assert search("keeper number 7", index="test")
    assert manage.manage({"action": "roll-back", "index": "test"}, by="ann")[0].startswith("v0000 is live again")
    manage.manage({"action": "roll-back", "index": "test", "version": 1}, by="ann")
    assert manage.manage({"action": "clean-up", "index": "test", "keep": 1}, by="ann")[0] == "removed: v0000"
    assert not current.exists() and search("keeper number 7", index="test")


def test_an_index_that_is_not_there_and_a_version_that_is_not_there_are_one_line(ours: Ingestion) -> None:
    with pytest.raises(UserError, match="index 'nowhere' of tenant .* is not there"):
        manage.manage({"action": "show", "index": "nowhere"}, by="ann")
    versions = Versions(ours.root, "default", "test")
    with pytest.raises(UserError, match="has no version 3; there is none"):
        versions.get(3)


def test_the_live_version_cannot_be_removed(ours: Ingestion) -> None:
    whole(ours, "run-1")
    with pytest.raises(UserError, match="v0001 is live and cannot be removed"):
        ours.versions.remove(ours.versions.get(1))


def test_a_version_whose_model_is_another_here_says_so(ours: Ingestion, monkeypatch: pytest.MonkeyPatch) -> None:
    whole(ours, "run-1", embedder="better")
    monkeypatch.setattr(Better, "name", "hashing-3")
    with pytest.raises(UserError, match="was built with embedder hashing-2, which here is hashing-3: put back"):
        search("keeper number 7", index="test")


def test_specs_differ_by_whatever_makes_other_rows() -> None:
    spec = Spec(store="lancedb", embedder="hashing", embedder_version="hashing-1", chunker="c")
    assert spec != Spec(store="opensearch", embedder="hashing", embedder_version="hashing-1", chunker="c")
    assert str(spec) == "store=lancedb, embedder=hashing (hashing-1), chunker=c"
