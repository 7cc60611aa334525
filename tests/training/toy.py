"""A small packed corpus for tests: documents of words that follow each other by habit, so there is much to learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

END, PAD, FIRST_WORD, WORDS, SENTINELS = 0, 1, 4, 40, 100
VOCAB = FIRST_WORD + WORDS + SENTINELS


def write_toy_corpus(folder: Path, *, documents: int = 60, length: int = 120, seed: int = 0) -> Path:
    """Pack documents of about `length` tokens into two train files and one held-out file; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    habits = rng.permutation(WORDS)
    files = []
    for name, split, source, count in (
        ("train-00000.bin", "train", None, documents),
        ("train-00001.bin", "train", None, documents // 2),
        ("held_out-toy.bin", "held_out", "toy", max(1, documents // 4)),
    ):
        tokens = np.concatenate([_document(rng, habits, length) for _ in range(count)]).astype("<u2")
        tokens.tofile(folder / name)
        files.append(
            {"path": name, "split": split, "source": source, "tokens": len(tokens), "documents": count,
             "bytes": 3 * len(tokens)}
        )  # fmt: skip
    manifest = {
        "schema_version": 1,
        "corpus_digest": f"toy-{documents}-{length}-{seed}",
        "tokenizer_digest": "toy",
        "vocab_size": VOCAB,
        "end_id": END,
        "pad_id": PAD,
        "sentinels": [FIRST_WORD + WORDS, SENTINELS],
        "dtype": "uint16",
        "files": files,
        "train": _sums(files, "train"),
        "held_out": _sums(files, "held_out"),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _document(rng: np.random.Generator, habits: np.ndarray, length: int) -> np.ndarray:
    """Each word is followed by its habitual one three times in four, by any other else."""
    words = [int(rng.integers(WORDS))]
    for _ in range(int(rng.integers(length // 2, length * 3 // 2))):
        words.append(int(habits[words[-1]]) if rng.random() < 0.75 else int(rng.integers(WORDS)))
    return np.array([*(FIRST_WORD + word for word in words), END])


def _sums(files: list[dict[str, object]], split: str) -> dict[str, int]:
    mine = [file for file in files if file["split"] == split]
    return {name: sum(int(str(file[name])) for file in mine) for name in ("tokens", "documents", "bytes")}
