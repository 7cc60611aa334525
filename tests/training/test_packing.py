"""Packing: what is read back out of the files is what went in, whatever the texts; repeated, the same bytes."""

from __future__ import annotations

import errno
import functools
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from upath import UPath

from include.errors import DriftError, UserError
from include.storage import list_files, location, read_json, read_parquet
from include.training import packing as module
from include.training.corpus_manifest import CorpusManifest, read_corpus
from include.training.loader import open_corpus
from include.training.packing import ORIGIN, finish_corpus, pack_part
from include.training.tokenizer import ODD_TEXTS, SPECIAL, open_tokenizer, train_tokenizer
from tests.training.curated_parts import Given, prose, write_part

DIGEST = "0123456789abcdef" * 4
REPORT = {"steps": [{"name": "filter", "kept": 5, "dropped": {"short": 1}}]}


@functools.cache
def tokenizer_files() -> dict[str, bytes]:
    """tokenizer.json and its report, trained once."""
    with tempfile.TemporaryDirectory() as name:
        folder = location(Path(name).as_uri())
        part, kept = write_part(folder, 0, [Given(f"d{number}", prose(number)) for number in range(10)])
        train_tokenizer([part], [kept], folder / "corpus", vocab_size=400, sample_bytes=10**6, seed=1)
        return {file.name: file.read_bytes() for file in (folder / "corpus").iterdir()}


def new_corpus(folder: UPath) -> UPath:
    """A corpus folder that has its tokenizer and nothing else."""
    for name, data in tokenizer_files().items():
        (folder / "corpus").mkdir(parents=True, exist_ok=True)
        (folder / "corpus" / name).write_bytes(data)
    return folder / "corpus"


def pack(folder: UPath, parts: Sequence[Sequence[Given]], rows: int = 3) -> CorpusManifest:
    """All steps, over parts of documents."""
    target = new_corpus(folder)
    for number, documents in enumerate(parts):
        place = write_part(folder, number, documents, rows)
        pack_part(*place, target / "tokenizer.json", target, number)
    return finish_corpus(target, num_parts=len(parts), corpus_digest=DIGEST, report=REPORT)


def texts_of(tokens: np.ndarray, tokenizer: Tokenizer, end_id: int) -> list[str]:
    """The texts between end tokens, of which one ends the file."""
    ends = np.flatnonzero(tokens == end_id)
    assert not len(tokens) or ends[-1] == len(tokens) - 1
    return [
        tokenizer.decode(one[one != end_id].tolist(), skip_special_tokens=False)
        for one in np.split(tokens, ends + 1)[:-1]
    ]


def files_of(folder: UPath) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in list_files(folder)}


LICENCES = (None, "MIT", "CC BY 4.0 <|end|>")
TEXTS = st.lists(
    st.text(max_size=30) | st.sampled_from([*ODD_TEXTS, *SPECIAL, "<extra_id_99>", "👍🏽", "word " * 50]), max_size=5
).map("".join)
DOCUMENTS = st.builds(
    Given,
    doc_id=st.just(""),
    text=TEXTS,
    source=st.sampled_from(("a", "b-1", "b")),
    licence=st.sampled_from(LICENCES),
    split=st.sampled_from(("train", "train", "held_out", None)),
)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.lists(DOCUMENTS, max_size=8), min_size=1, max_size=3), rows=st.integers(1, 4))
def test_what_is_packed_is_read_back_and_counted(parts: list[list[Given]], rows: int) -> None:
    parts = [
        [Given(f"{number}-{place}", d.text, d.source, d.licence, d.split) for place, d in enumerate(documents)]
        for number, documents in enumerate(parts)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = location(Path(name).as_uri())
        manifest = pack(folder, parts, rows)
        corpus = open_corpus(Path(name) / "corpus")
        tokenizer = open_tokenizer(folder / "corpus" / "tokenizer.json")
        files = {file.path: file for file in manifest.files}
        trained = [(f"train-{n:05d}.bin", [d for d in part if d.split == "train"]) for n, part in enumerate(parts)]
        wanted = {path: documents for path, documents in trained if documents}
        for source in ("a", "b", "b-1"):
            mine = [d for part in parts for d in part if (d.split, d.source) == ("held_out", source)]
            wanted |= {f"held_out-{source}.bin": mine} if mine else {}
        assert list(files) == list(wanted)
        mapped = dict(zip(files, [*corpus.train, *corpus.held_out.values()], strict=True))
        for path, documents in wanted.items():
            assert texts_of(mapped[path], tokenizer, manifest.end_id) == [d.text for d in documents]
            check_table(folder / "corpus" / files[path].table, mapped[path], documents, manifest.end_id)
            check_counts(manifest, path, folder / "corpus")
        kept = [d for part in parts for d in part if d.split]
        assert manifest.train.documents + manifest.held_out.documents == len(kept)
        assert manifest.train.bytes + manifest.held_out.bytes == sum(len(d.text.encode()) for d in kept)
        assert read_corpus(str(folder / "corpus"), with_digests=True) == manifest


def check_table(path: UPath, tokens: np.ndarray, documents: list[Given], end_id: int) -> None:
    """Each row tells where its document lies and where it comes from."""
    table = read_parquet(path)
    assert table.column_names == [*ORIGIN, "offset", "tokens", "bytes"]
    rows = table.to_pylist()
    assert [(row["doc_id"], row["source"], row["licence"], row["path"], row["bytes"]) for row in rows] == [
        (d.doc_id, d.source, d.licence, f"{d.doc_id}.md", len(d.text.encode())) for d in documents
    ]
    assert [row["offset"] + row["tokens"] - 1 for row in rows] == np.flatnonzero(tokens == end_id).tolist()
    assert [row["offset"] for row in rows] == [0, *np.cumsum([row["tokens"] for row in rows[:-1]]).tolist()][
        : len(rows)
    ]


def check_counts(manifest: CorpusManifest, path: str, folder: UPath) -> None:
    """A file's counts are those of its table."""
    (file,) = (file for file in manifest.files if file.path == path)
    rows = read_parquet(folder / file.table).to_pylist()
    sources, licences = Counter[str](), Counter[str]()
    for row in rows:
        sources[row["source"]] += row["tokens"]
        licences[row["licence"] or "unknown"] += row["tokens"]
    assert (file.sources, file.licences) == (sources, licences)
    assert (file.tokens, file.documents) == (sum(row["tokens"] for row in rows), len(rows))


PARTS = [
    [
        Given("a", prose(1)),
        Given("b", prose(2), "code", None, "held_out"),
        Given("c", "", "code"),
        Given("d", "dropped", split=None),
    ],
    [Given("e", "dropped", split=None)],
    [
        Given("f", prose(3), "code", "MIT", "held_out"),
        Given("g", prose(4), split="held_out"),
        Given("h", prose(5), "code"),
    ],
]


def test_on_every_storage_the_bytes_are_the_same(any_root: str, tmp_path: Path) -> None:
    here, there = location(f"{tmp_path.as_uri()}/here"), location(any_root)
    assert pack(here, PARTS) == pack(there, PARTS)
    found = files_of(there / "corpus")
    assert found == files_of(here / "corpus")
    assert sorted(found) == [
        "documents-00000.parquet", "documents-00002.parquet", "documents-held_out-code.parquet",
        "documents-held_out-docs.parquet", "held_out-code.bin", "held_out-docs.bin", "manifest.json", "report.json",
        "tokenizer.json", "tokenizer_report.json", "train-00000.bin", "train-00002.bin",
    ]  # fmt: skip


def test_the_report_tells_what_packing_made_beside_what_curation_told(tmp_path: Path) -> None:
    folder = location(tmp_path.as_uri())
    manifest = pack(folder, PARTS)
    report = read_json(folder / "corpus" / "report.json")
    assert report["steps"] == REPORT["steps"] and report["schema_version"] == 1
    held_out = report["packing"]["held_out"]
    assert held_out["tokens"] == manifest.held_out.tokens == sum(held_out["sources"].values())
    assert set(held_out["licences"]) == {"Apache-2.0", "MIT", "unknown"}


def test_a_repeated_task_leaves_the_same_bytes(tmp_path: Path) -> None:
    folder = location(tmp_path.as_uri())
    target = new_corpus(folder)
    places = [write_part(folder, number, documents) for number, documents in enumerate(PARTS)]
    packed = [pack_part(*place, target / "tokenizer.json", target, number) for number, place in enumerate(places)]
    before = files_of(target)
    assert pack_part(*places[2], target / "tokenizer.json", target, 2) == packed[2]
    assert files_of(target) == before
    finish_corpus(target, num_parts=3, corpus_digest=DIGEST, report=REPORT)
    whole = files_of(target)
    assert pack_part(*places[2], target / "tokenizer.json", target, 2) is None
    finish_corpus(target, num_parts=3, corpus_digest=DIGEST, report={"other": "report"})
    assert files_of(target) == whole
    (target / "manifest.json").unlink()
    assert pack(folder, PARTS) and files_of(target) == whole


class Failing:
    """Functions of the module, the n-th call of which, whichever it is, finds the disk full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        for name in ("encode", "write_bytes", "write_json", "new_file", "_open_table", "_join_tables"):
            monkeypatch.setattr(module, name, functools.partial(self._call, getattr(module, name)))

    def _call(self, original: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        self.left -= 1
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args, **keywords)


def test_a_task_that_fails_anywhere_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched = location(f"{tmp_path.as_uri()}/untouched")
    wanted, whole = pack(untouched, PARTS), files_of(untouched / "corpus")
    failing = Failing(monkeypatch)
    for at in range(1, 1000):
        folder = location(f"{tmp_path.as_uri()}/{at}")
        failing.left = at
        try:
            pack(folder, PARTS)
        except OSError as error:
            assert error.errno == errno.ENOSPC
        else:
            break
        left = list_files(folder / "corpus")
        assert "manifest.json" not in left and not [name for name in left if name.endswith(".tmp")]
        assert pack(folder, PARTS) == wanted
        assert files_of(folder / "corpus") == whole
    assert at > 30


def test_what_a_killed_task_left_is_removed_at_the_end(tmp_path: Path) -> None:
    folder = location(tmp_path.as_uri())
    new_corpus(folder)
    (tmp_path / "corpus" / "train-00000.bin.0af3.tmp").write_bytes(b"torn")
    pack(folder, PARTS)
    assert not list((tmp_path / "corpus").glob("*.tmp"))
    assert not (tmp_path / "corpus" / "pieces").exists()


def test_a_part_that_is_missing_or_of_another_tokenizer_is_told(tmp_path: Path) -> None:
    folder = location(tmp_path.as_uri())
    target = new_corpus(folder)
    pack_part(*write_part(folder, 0, PARTS[0]), target / "tokenizer.json", target, 0)
    with pytest.raises(DriftError, match="part 1 is not packed"):
        finish_corpus(target, num_parts=2, corpus_digest=DIGEST, report={})
    other = Tokenizer.from_str((target / "tokenizer.json").read_text())
    other.add_special_tokens(["<|more|>"])
    (target / "tokenizer.json").write_text(other.to_str())
    with pytest.raises(DriftError, match="part 0 was packed with another tokenizer"):
        finish_corpus(target, num_parts=1, corpus_digest=DIGEST, report={})
    assert not (target / "manifest.json").exists()


@pytest.mark.parametrize("name", ["train-00000.bin", "pieces/00000/held_out-code.bin"])
def test_a_file_that_was_cut_is_told(tmp_path: Path, name: str) -> None:
    folder = location(tmp_path.as_uri())
    target = new_corpus(folder)
    pack_part(*write_part(folder, 0, PARTS[0]), target / "tokenizer.json", target, 0)
    (target / name).write_bytes((target / name).read_bytes()[:-2])
    with pytest.raises(DriftError, match="clear the task that packed it"):
        finish_corpus(target, num_parts=1, corpus_digest=DIGEST, report={})
    assert not (target / "manifest.json").exists()


def test_a_folder_holds_one_corpus(tmp_path: Path) -> None:
    folder = location(tmp_path.as_uri())
    pack(folder, PARTS)
    with pytest.raises(DriftError, match="not ffff"):
        finish_corpus(folder / "corpus", num_parts=3, corpus_digest="f" * 64, report={})


@pytest.mark.parametrize("source", ["../up", "A", "", "a.b"])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_source_whose_name_cannot_be_a_files_is_refused(tmp_path: Path, source: str, split: str) -> None:
    folder = location(tmp_path.as_uri())
    with pytest.raises(UserError, match="source="):
        pack(folder, [[Given("a", "text"), Given("b", "text", source, split=split)]])
    assert sorted(list_files(folder / "corpus")) == sorted(tokenizer_files())


def test_documents_lie_in_the_table_in_row_groups_as_they_were_read(tmp_path: Path) -> None:
    folder = location(tmp_path.as_uri())
    pack(folder, [[Given(str(number), prose(number)) for number in range(7)]], rows=3)
    assert pq.ParquetFile(tmp_path / "corpus" / "documents-00000.parquet").num_row_groups == 3
