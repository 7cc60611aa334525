"""Batches out of a packed corpus, as a function of how many rows were taken before: the place is one number.

So a checkpoint holds that number and nothing else of the loader, and any number of processes reads the same rows. Files
are memory-mapped: the corpus may be larger than the memory. An order of rows is drawn anew for each epoch.

A document begins with the end token of the one before it, at position 0: so its first token, too, is predicted, and no
token sees another document.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from include.jobs.harness import BadInput
from include.training.denoise import corrupt

Tokens = npt.NDArray[np.int64]
Batch = dict[str, npt.NDArray[Any]]

SHORTEST_PIECE = 16
"""Tokens of a document's rest that is still worth a row of the encoder-decoder."""
NOISE, MEAN_SPAN = 0.15, 3.0
"""Share of tokens that are left out, and length of a span: Raffel et al., arXiv 1910.10683, section 3.1.4."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """A packed corpus: a folder that include/training/packing.py writes."""

    digest: str
    tokenizer_digest: str
    vocab_size: int
    end_id: int
    pad_id: int
    first_sentinel: int
    num_sentinels: int
    train: tuple[npt.NDArray[np.uint16], ...]
    """Memory-mapped."""
    held_out: dict[str, npt.NDArray[np.uint16]]
    """By source."""
    held_out_bytes: int
    """Of text, in UTF-8."""
    held_out_tokens: int
    train_bytes: int
    train_tokens: int


def open_corpus(folder: Path) -> Corpus:
    """The corpus of a folder; BadInput if it is none, or a file is not as long as its manifest says."""
    file = folder / "manifest.json"
    if not file.is_file():
        raise BadInput(f"channel corpus: {folder} holds no manifest.json, which is written last: pack the corpus first")
    manifest = json.loads(file.read_bytes())
    if manifest.get("schema_version") != 1:
        raise BadInput(f"channel corpus: schema_version {manifest.get('schema_version')} of the manifest is not 1")
    train, held_out = [], {}
    for one in manifest["files"]:
        tokens = _mapped(folder / one["path"], one["tokens"])
        if one["split"] == "train":
            train.append(tokens)
        else:
            held_out[one["source"]] = tokens
    return Corpus(
        digest=manifest["corpus_digest"],
        tokenizer_digest=manifest["tokenizer_digest"],
        vocab_size=manifest["vocab_size"],
        end_id=manifest["end_id"],
        pad_id=manifest["pad_id"],
        first_sentinel=manifest["sentinels"][0],
        num_sentinels=manifest["sentinels"][1],
        train=tuple(train),
        held_out=held_out,
        held_out_bytes=manifest["held_out"]["bytes"],
        held_out_tokens=manifest["held_out"]["tokens"],
        train_bytes=manifest["train"]["bytes"],
        train_tokens=manifest["train"]["tokens"],
    )


def _mapped(path: Path, tokens: int) -> npt.NDArray[np.uint16]:
    size = path.stat().st_size if path.is_file() else -1
    if size != 2 * tokens:
        raise BadInput(f"channel corpus: {path.name} has {max(size, 0):,} bytes, not {2 * tokens:,}: copy it anew")
    if not tokens:  # an empty file cannot be mapped
        return np.empty(0, np.uint16)
    return np.memmap(path, dtype="<u2", mode="r")


class Rows:
    """Rows of a corpus for the decoder: windows of one more token than the context, one after the other."""

    def __init__(self, files: tuple[npt.NDArray[np.uint16], ...], corpus: Corpus, context: int, seed: int) -> None:
        self._files, self._end_id, self._context, self._seed = files, corpus.end_id, context, seed
        self._counts = np.array([max(0, (len(file) - 1) // context) for file in files])
        self._firsts = np.cumsum(self._counts) - self._counts
        self.num_rows = int(self._counts.sum())
        """Of an epoch."""
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def batch(self, position: int, rows: int) -> Batch:
        """`rows` rows from the position on: tokens, positions and targets, each (rows, context)."""
        windows = np.stack([self._window(*divmod(position + row, self.num_rows)) for row in range(rows)])
        tokens, targets = windows[:, :-1], windows[:, 1:]
        steps = np.arange(self._context)
        begins = np.maximum.accumulate(np.where(tokens == self._end_id, steps, 0), axis=1)
        return {"tokens": tokens, "positions": steps - begins, "targets": targets}

    def _window(self, epoch: int, place: int) -> Tokens:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self.num_rows)
        number = int(self._order[place])
        file = int(np.searchsorted(self._firsts, number, side="right")) - 1
        tokens = self._files[file]
        # Windows begin elsewhere in each epoch, so that its rows are not those of the one before.
        spare = len(tokens) - 1 - self._counts[file] * self._context
        start = (number - self._firsts[file]) * self._context + epoch * 7919 % (spare + 1)
        return tokens[start : start + self._context + 1].astype(np.int64)


class Pieces:
    """Rows of a corpus for the encoder-decoder: pieces of single documents, with spans of them left out."""

    def __init__(self, files: tuple[npt.NDArray[np.uint16], ...], corpus: Corpus, context: int, seed: int) -> None:
        self._files, self._corpus, self._context, self._seed = files, corpus, context, seed
        self._pieces = np.concatenate(
            [_pieces(number, file, corpus.end_id, context) for number, file in enumerate(files)]
            or [np.empty((0, 3), np.int64)]
        )
        self.num_rows = len(self._pieces)
        self._target_length = longest_target(context)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def batch(self, position: int, rows: int) -> Batch:
        """`rows` rows from the position on: inputs, inputs_mask (rows, context), written, targets (rows, longest)."""
        pad, length = self._corpus.pad_id, self._target_length
        inputs = np.full((rows, self._context), pad, np.int64)
        written = np.full((rows, length), pad, np.int64)
        targets = np.full((rows, length), -100, np.int64)
        for row in range(rows):
            shown, spans = self._corrupted(*divmod(position + row, self.num_rows))
            inputs[row, : len(shown)] = shown
            targets[row, : len(spans)] = spans
            written[row, 1 : len(spans)] = spans[:-1]
        return {"inputs": inputs, "inputs_mask": inputs != pad, "written": written, "targets": targets}

    def _corrupted(self, epoch: int, place: int) -> tuple[Tokens, Tokens]:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self.num_rows)
        number = int(self._order[place])
        file, start, length = self._pieces[number]
        corpus = self._corpus
        tokens = self._files[file][start : start + length].astype(np.int64)
        rng = np.random.default_rng((self._seed, epoch, number))
        return corrupt(
            tokens, rng, corpus.first_sentinel, corpus.num_sentinels, corpus.end_id, noise=NOISE, mean_span=MEAN_SPAN
        )


def longest_target(context: int) -> int:
    """Tokens of the longest target: what is left out of a context, a sentinel for each span, and the end."""
    noise = round(context * NOISE)
    return noise + max(1, round(noise / MEAN_SPAN)) + 2


def _pieces(number: int, tokens: npt.NDArray[np.uint16], end_id: int, context: int) -> Tokens:
    """(file, start, length) of the pieces of each document, without its end token; one to a row, context - 1 at most.

    Room is left for the end token that the corrupted input gets.
    """
    ends = np.flatnonzero(np.asarray(tokens) == end_id)
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    size, found = context - 1, []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        found += [(number, at, min(size, end - at)) for at in range(start, end, size)]
    pieces = np.array(found, np.int64).reshape(-1, 3)
    return pieces[pieces[:, 2] >= SHORTEST_PIECE]


def open_rows(
    corpus: Corpus, files: tuple[npt.NDArray[np.uint16], ...], architecture: str, context: int, seed: int
) -> Rows | Pieces:
    """The rows of some files of a corpus; BadInput if they do not make one."""
    rows = (Rows if architecture == "decoder" else Pieces)(files, corpus, context, seed)
    if not rows.num_rows:
        tokens = sum(map(len, files))
        raise BadInput(f"the corpus has {tokens:,} tokens in a split: a row of {context + 1} cannot be made of them")
    return rows
