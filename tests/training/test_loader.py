"""Batches are a function of the place: every window once an epoch, documents apart, nothing lost on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.jobs.harness import BadInput
from include.training.loader import Corpus, Pieces, Rows, longest_target, open_corpus, open_rows
from tests.training.toy import END, FIRST_WORD, PAD, SENTINELS, VOCAB, WORDS, write_toy_corpus

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=12)


def corpus_of(*documents: list[int]) -> Corpus:
    """A corpus of one train file whose words are numbered through, so that a token tells where it was."""
    tokens = np.concatenate([np.array([*document, END], np.uint16) for document in documents])
    return Corpus(
        digest="d",
        tokenizer_digest="t",
        vocab_size=VOCAB,
        end_id=END,
        pad_id=PAD,
        first_sentinel=60_000,
        num_sentinels=SENTINELS,
        train=(tokens,),
        held_out={},
        held_out_bytes=0,
        held_out_tokens=0,
        train_bytes=len(tokens),
        train_tokens=len(tokens),
    )


def numbered(sizes: list[int]) -> list[list[int]]:
    """Documents of these sizes; no word comes twice."""
    ends = np.cumsum(sizes)
    return [list(range(2 + end - size, 2 + end)) for size, end in zip(sizes, ends.tolist(), strict=True)]


@given(sizes=lengths, context=st.integers(2, 16), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_each_window_once_and_next_tokens_are_targets(sizes: list[int], context: int, seed: int) -> None:
    corpus = corpus_of(*numbered(sizes))
    rows = Rows(corpus.train, corpus, context, seed)
    (file,) = corpus.train
    assert rows.num_rows == max(0, (len(file) - 1) // context)
    if not rows.num_rows:
        return
    batch = rows.batch(0, rows.num_rows)
    # In the first epoch windows begin at the file's begin: put in order they are the file.
    order = np.argsort([int(np.flatnonzero(file == row[row != END][0])[0]) if (row != END).any() else -1
                        for row in batch["tokens"]])  # fmt: skip
    if all((row != END).any() for row in batch["tokens"]):
        joined = batch["tokens"][order].reshape(-1)
        assert sorted(joined.tolist()) == sorted(file[: len(joined)].tolist())
    for tokens, targets in zip(batch["tokens"], batch["targets"], strict=True):
        assert tokens[1:].tolist() == targets[:-1].tolist()


@given(sizes=lengths, context=st.integers(2, 16))
@settings(max_examples=60, deadline=None)
def test_positions_begin_anew_with_each_document(sizes: list[int], context: int) -> None:
    corpus = corpus_of(*numbered(sizes))
    rows = Rows(corpus.train, corpus, context, 0)
    if not rows.num_rows:
        return
    batch = rows.batch(0, rows.num_rows)
    for tokens, positions in zip(batch["tokens"], batch["positions"], strict=True):
        place = -1
        for token, position in zip(tokens.tolist(), positions.tolist(), strict=True):
            place = 0 if token == END else place + 1
            assert position == place


@given(place=st.integers(0, 300), parts=st.lists(st.integers(1, 7), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("kind", [Rows, Pieces])
def test_a_batch_is_the_same_however_it_is_cut(kind: type[Rows] | type[Pieces], place: int, parts: list[int]) -> None:
    corpus = corpus_of(*numbered([40, 33, 20, 55]))
    rows = kind(corpus.train, corpus, 24, 3)
    whole = rows.batch(place, sum(parts))
    fresh = kind(corpus.train, corpus, 24, 3)  # another process
    firsts = np.cumsum([0, *parts[:-1]]).tolist()
    for first, size in reversed(list(zip(firsts, parts, strict=True))):
        for name, values in fresh.batch(place + first, size).items():
            assert (values == whole[name][first : first + size]).all()


def test_epochs_differ_in_order_and_in_where_windows_begin() -> None:
    corpus = corpus_of(*numbered([58]))
    rows = Rows(corpus.train, corpus, 12, 3)
    first, second = rows.batch(0, rows.num_rows)["tokens"], rows.batch(rows.num_rows, rows.num_rows)["tokens"]
    assert {tuple(row) for row in first.tolist()} != {tuple(row) for row in second.tolist()}


def test_pieces_are_of_one_document_and_their_spans_come_back() -> None:
    documents = numbered([40, 17, 5])
    corpus = corpus_of(*documents)
    pieces = Pieces(corpus.train, corpus, 24, 0)
    batch = pieces.batch(0, pieces.num_rows)
    assert batch["targets"].shape == (pieces.num_rows, longest_target(24))
    for row in range(pieces.num_rows):
        shown = batch["inputs"][row][batch["inputs_mask"][row]].tolist()
        targets = [token for token in batch["targets"][row].tolist() if token != -100]
        assert targets[-1] == END and shown[-1] == END
        assert batch["written"][row, : len(targets)].tolist() == [PAD, *targets[:-1]]
        spans: dict[int, list[int]] = {}
        for token in targets[:-1]:
            if token >= 60_000:
                spans[token] = []
            else:
                spans[max(spans)].append(token)
        whole = [word for token in shown[:-1] for word in spans.get(token, [token])]
        assert any(whole == document[at : at + len(whole)] for document in documents for at in range(len(document)))


def test_a_corpus_of_several_files_is_read_whole(tmp_path: Path) -> None:
    corpus = open_corpus(write_toy_corpus(tmp_path))
    assert len(corpus.train) == 2 and set(corpus.held_out) == {"toy"}
    rows = open_rows(corpus, corpus.train, "decoder", 32, 0)
    seen = rows.batch(0, rows.num_rows)["tokens"]
    assert seen.size == sum((len(file) - 1) // 32 * 32 for file in corpus.train)
    assert ((seen == END) | ((seen >= FIRST_WORD) & (seen < FIRST_WORD + WORDS))).all()


def test_a_corpus_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no manifest\.json, which is written last"):
        open_corpus(tmp_path)
    write_toy_corpus(tmp_path)
    (tmp_path / "train-00001.bin").write_bytes(b"12")
    with pytest.raises(BadInput, match=r"train-00001\.bin has 2 bytes, not .*: copy it anew"):
        open_corpus(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 2}))
    with pytest.raises(BadInput, match="schema_version 2"):
        open_corpus(tmp_path)


def test_too_little_for_a_row_is_refused(tmp_path: Path) -> None:
    corpus = open_corpus(write_toy_corpus(tmp_path))
    for architecture in ("decoder", "encoder_decoder"):
        with pytest.raises(BadInput, match="cannot be made of them"):
            open_rows(corpus, (corpus.train[0][:10],), architecture, 32, 0)
