"""The manifest: what contradicts itself or its files is told; and how small a corpus may be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from include.errors import DriftError, UserError
from include.training.corpus_manifest import check_enough, read_corpus
from include.training.loader import open_corpus, open_rows

TOKENIZER = {"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": []}


def write_corpus(folder: Path, train: tuple[int, ...] = (300, 10), held_out: tuple[int, ...] = (80,)) -> dict[str, Any]:
    """A corpus of so many tokens in its files; its manifest."""
    import hashlib

    from include.training.tokenizer import vocabulary_digest

    files: list[dict[str, Any]] = []
    for split, counts in (("train", train), ("held_out", held_out)):
        for number, count in enumerate(counts):
            source = f"s{number}"
            path = f"train-{number:05d}.bin" if split == "train" else f"held_out-{source}.bin"
            data = np.full(count, 7, "<u2").tobytes()
            (folder / path).write_bytes(data)
            table = f"{number:05d}" if split == "train" else f"held_out-{source}"
            (folder / f"documents-{table}.parquet").write_bytes(b"")
            files.append({
                "path": path, "split": split, "source": None if split == "train" else source, "tokens": count,
                "documents": 1, "bytes": 3 * count, "sha256": hashlib.sha256(data).hexdigest(),
                "sources": {source: count}, "licences": {"MIT": count - 1, "unknown": 1},
            })  # fmt: skip
    for name in ("tokenizer_report.json", "report.json"):
        (folder / name).write_text("{}")
    tokenizer = json.dumps(TOKENIZER).encode()
    (folder / "tokenizer.json").write_bytes(tokenizer)
    manifest = {
        "schema_version": 1, "corpus_digest": "ab" * 32, "tokenizer_digest": vocabulary_digest(tokenizer),
        "vocab_size": 400, "end_id": 0, "pad_id": 1, "sentinels": [300, 100], "dtype": "uint16", "files": files,
        "train": {"tokens": sum(train), "documents": len(train), "bytes": 3 * sum(train)},
        "held_out": {"tokens": sum(held_out), "documents": len(held_out), "bytes": 3 * sum(held_out)},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest


def test_a_corpus_is_read(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path)
    found = read_corpus(tmp_path.as_uri(), with_digests=True)
    assert found.model_dump(mode="json") == manifest
    assert [file.table for file in found.files] == [
        "documents-00000.parquet", "documents-00001.parquet", "documents-held_out-s0.parquet"
    ]  # fmt: skip


def test_no_manifest_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no manifest.json, which is written last"):
        read_corpus(tmp_path.as_uri())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version: Input should be 1"),
        ({"more": 1}, "more: Extra inputs"),
        ({"vocab_size": 65_537}, "vocab_size: "),
        ({"dtype": "uint32"}, "dtype: "),
        ({"sentinels": [299, 100]}, "not the last 100 of 400 ids"),
        ({"sentinels": [300, 99]}, "not the last 100 of 400 ids"),
        ({"train": {"tokens": 311, "documents": 2, "bytes": 930}}, "the files of split train hold"),
        ({"held_out": {"tokens": 80, "documents": 2, "bytes": 240}}, "the files of split held_out hold"),
        ({"tokenizer_digest": "x"}, "tokenizer_digest: "),
    ],
)
def test_a_manifest_that_is_of_another_version_or_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(write_corpus(tmp_path) | changes))
    with pytest.raises(UserError, match=message) as error:
        read_corpus(tmp_path.as_uri())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "../train-00000.bin"}, "path: "),
        ({"path": "held_out-s0.bin"}, "cannot be of split train"),
        ({"path": "held_out-s1.bin", "source": "s0", "split": "held_out"}, "cannot be of split held_out"),
        ({"split": "held_out"}, "cannot be of split held_out"),
        ({"source": "s0"}, "cannot be of split train and source s0"),
        ({"sources": {"s0": 299}}, "299 by sources"),
        ({"licences": {"MIT": 301}}, "301 by licences"),
        ({"path": "train-00001.bin"}, "named twice"),
        ({"tokens": -1}, "tokens: "),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    manifest = write_corpus(tmp_path)
    manifest["files"][0] |= changes
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        read_corpus(tmp_path.as_uri())


def test_files_that_are_not_what_was_packed_are_told(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    file = tmp_path / "train-00000.bin"
    data = file.read_bytes()
    for wrong in (data[:-1], data + b"\0"):
        file.write_bytes(wrong)
        with pytest.raises(DriftError, match=f"train-00000.bin has {len(wrong)} bytes, not 600"):
            read_corpus(tmp_path.as_uri())
    file.unlink()
    with pytest.raises(DriftError, match="train-00000.bin has no bytes"):
        read_corpus(tmp_path.as_uri())
    file.write_bytes(b"\1" + data[1:])
    read_corpus(tmp_path.as_uri())
    with pytest.raises(DriftError, match="train-00000.bin is not what was packed"):
        read_corpus(tmp_path.as_uri(), with_digests=True)


def test_another_tokenizer_or_a_missing_table_is_told(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(TOKENIZER | {"added_tokens": [{"content": "b", "id": 1}]}))
    with pytest.raises(DriftError, match="tokenizer.json is not the one"):
        read_corpus(tmp_path.as_uri(), with_digests=True)
    (tmp_path / "documents-held_out-s0.parquet").unlink()
    with pytest.raises(DriftError, match="lacks documents-held_out-s0.parquet"):
        read_corpus(tmp_path.as_uri())


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        ((256,), (65,), "256 train tokens in 1 documents make 3 rows of 64; one batch of 256 tokens needs 4, .* 257 "),
        ((60, 60, 60, 60, 60), (65,), "make 0 rows"),
        ((257,), (64,), "64 held_out tokens in 1 documents make 0 rows of 64; an evaluation needs 1, .* 65 "),
        ((257,), (64, 64), "128 held_out tokens in 2 documents"),
        ((257,), (), "0 held_out tokens in 0 documents"),
        ((), (65,), "0 train tokens in 0 documents"),
    ],
)
def test_a_corpus_that_is_too_small_is_refused(
    tmp_path: Path, train: tuple[int, ...], held_out: tuple[int, ...], message: str
) -> None:
    write_corpus(tmp_path, train, held_out)
    with pytest.raises(UserError, match=message) as error:
        check_enough(read_corpus(tmp_path.as_uri()), batch_tokens=256, context=64)
    assert "smaller size preset" in str(error.value) and "more documents" in str(error.value)


@pytest.mark.parametrize("train", [(257,), (129, 129), (65, 65, 65, 65)])
def test_a_corpus_that_just_suffices_is_taken_by_the_loader_too(tmp_path: Path, train: tuple[int, ...]) -> None:
    write_corpus(tmp_path, train, (10, 65))
    check_enough(read_corpus(tmp_path.as_uri()), batch_tokens=256, context=64)
    corpus = open_corpus(tmp_path)
    assert open_rows(corpus, corpus.train, "decoder", 64, 1).num_rows == 256 // 64
    assert open_rows(corpus, tuple(corpus.held_out.values()), "decoder", 64, 1).num_rows == 1
