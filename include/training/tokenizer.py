"""A byte-level BPE tokenizer, trained on a sample of the train documents: any text comes back as it was.

| ids                        | tokens                                                    |
|----------------------------|-----------------------------------------------------------|
| 0 to 3                     | `<|end|>`, `<|pad|>`, `<|user|>`, `<|assistant|>`         |
| 4 to 259                   | the bytes                                                 |
| 260 to vocab_size - 101    | what training merged, most frequent first                 |
| the last 100               | `<extra_id_0>` to `<extra_id_99>`, sentinels of denoising |

A document that contains the text of a special token has it as plain text: encode() never makes a special id.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from include.errors import PermanentError, UserError
from include.storage import digest, write_bytes
from include.training.kept import kept_documents

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from upath import UPath

log = logging.getLogger(__name__)

END, PAD, USER, ASSISTANT = "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"
SPECIAL = (END, PAD, USER, ASSISTANT)
"""Of the first ids, in this order."""
NUM_SENTINELS = 100
SMALLEST = len(SPECIAL) + 256 + NUM_SENTINELS
LARGEST = 2**16
"""What an unsigned number of 16 bits can tell apart."""

# GPT-4's pattern, with marks beside letters (else scripts such as Devanagari fall apart) and each digit by itself.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)"
    r"|[^\r\n\p{L}\p{M}\p{N}]?+[\p{L}\p{M}]+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
MIN_FREQUENCY = 2
"""How often a pair must stand in the sample to be merged: once is not a habit."""

BATCH_CHARACTERS = 2**20
"""Encoded at once, some 30 MB; a longer text is encoded in pieces of this length."""
MEASURED_BYTES = 2**20
"""Of each source, at most, for the report and the round trip."""

_BINS = 2**16

ODD_TEXTS = (
    "",
    " \t\r\n\n\r  x \u00a0\u2003\u3000\u2028\u0085",
    "\x00\x07\x1b\x7f\ufeff\ufffe\ufffd\U0010ffff\ue000",
    "e\u0301 \u00e9 \u1e9e\u00df \u0130i \u01c5 \ufb01 \u212b",
    "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 🇨🇭 #️⃣ 漢字かな 한국어 ภาษาไทย हिन्दी \u202eעברית العربية\u202c",
    "<|end|><|pad|> <|user|>\n<|assistant|><extra_id_0><extra_id_99> <|END|> < |end|>",
    "it's IT'S we'Ll 0123456789 ١٢٣ ½ x=-1e-9;\n\n\n    return  f'{x!r:>{w}}'  # \\u00e9",
)


class SourceFigures(BaseModel):
    """How the tokenizer fares on documents of one source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: int
    bytes: int
    words: int
    """Between blanks."""
    tokens: int
    tokens_per_word: float | None
    """Also called fertility; None without a word."""
    bytes_per_token: float | None


class TokenizerReport(BaseModel):
    """What a tokenizer was made of and how it fares, on train documents alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    tokenizer_digest: str
    """Of vocabulary and merges."""
    vocab_size: int
    seed: int
    sample_documents: int
    sample_bytes: int
    file_bytes: int
    """Of tokenizer.json."""
    library: str
    sources: dict[str, SourceFigures]
    """Measured on MEASURED_BYTES of each, at most."""


def check_vocab_size(vocab_size: int) -> None:
    """UserError if no vocabulary can have that size."""
    if not SMALLEST <= vocab_size <= LARGEST:
        raise UserError(
            f"vocab_size={vocab_size} must be from {SMALLEST} (256 bytes, {SMALLEST - 256} special tokens) to {LARGEST}"
        )


def train_tokenizer(
    parts: Sequence[UPath], kept: Sequence[UPath], target: UPath, *, vocab_size: int, sample_bytes: int, seed: int
) -> TokenizerReport:
    """Train on about sample_bytes of train documents; writes tokenizer.json and tokenizer_report.json into `target`.

    The same documents, in whatever parts, draw the same sample; the same sample in the same order makes the same bytes.
    UserError if there is no train document, or the sample supports no vocabulary of that size; PermanentError if a text
    does not come back as it was.
    """
    import tokenizers

    check_vocab_size(vocab_size)
    if sample_bytes < 1:
        raise UserError(f"sample_bytes={sample_bytes} must be 1 or more")
    if (target / "manifest.json").exists():  # the corpus is whole, and nothing of it changes any more
        return read_report(target)
    sample = _Sample(parts, kept, sample_bytes, seed)
    tokenizer = _trained(sample, vocab_size)
    check_round_trip(tokenizer, sample.measured)
    data = tokenizer.to_str(pretty=True).encode()
    report = TokenizerReport(
        tokenizer_digest=vocabulary_digest(data),
        vocab_size=vocab_size,
        seed=seed,
        sample_documents=sample.num_documents,
        sample_bytes=sample.num_bytes,
        file_bytes=len(data),
        library=f"tokenizers {tokenizers.__version__}",
        sources={source: _figures(tokenizer, texts) for source, texts in sorted(sample.measured.items())},
    )
    write_bytes(target / "tokenizer.json", data)
    write_bytes(target / "tokenizer_report.json", report.model_dump_json(indent=1).encode())
    return report


def read_report(folder: UPath) -> TokenizerReport:
    """The report on the tokenizer of a corpus; UserError if there is none of a known version."""
    try:
        return TokenizerReport.model_validate_json((folder / "tokenizer_report.json").read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise UserError(f"{folder} has no tokenizer_report.json of a known version: {error}") from None


def open_tokenizer(path: UPath) -> Tokenizer:
    """A tokenizer.json that takes the text of special tokens for plain text; UserError if it is none."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(path.read_bytes().decode())
    except FileNotFoundError:
        raise UserError(f"{path} is not there: train the tokenizer first") from None
    except Exception as error:  # the library raises nothing more precise
        raise UserError(f"{path} is no tokenizer.json: {error}") from None
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[npt.NDArray[np.uint16]]:
    """The token ids of each text, in their order, no special one among them; in the memory of one batch."""
    if not tokenizer.encode_special_tokens:
        raise ValueError("this tokenizer would read special tokens out of texts: open it by open_tokenizer()")
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > BATCH_CHARACTERS:
            yield from _encoded(tokenizer, batch)
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    yield from _encoded(tokenizer, batch)


def _encoded(tokenizer: Tokenizer, batch: list[str]) -> Iterator[npt.NDArray[np.uint16]]:
    if len(batch) == 1 and len(text := batch[0]) > BATCH_CHARACTERS:
        pieces = (text[at : at + BATCH_CHARACTERS] for at in range(0, len(text), BATCH_CHARACTERS))
        yield np.concatenate([ids for piece in pieces for ids in _encoded(tokenizer, [piece])])
        return
    for one in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
        yield np.array(one.ids, np.uint16)


def check_round_trip(tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]]) -> None:
    """PermanentError unless each text, by source, and each odd one comes back as it was."""
    for source, mine in {**texts, "odd texts": ODD_TEXTS}.items():
        for number, (text, ids) in enumerate(zip(mine, encode(tokenizer, mine), strict=True)):
            back = tokenizer.decode(ids.tolist(), skip_special_tokens=False)
            if back != text:
                raise PermanentError(
                    f"the tokenizer is not lossless: text {number} of {source}, {len(text):,} characters, comes back "
                    f"as another of {len(back):,}"
                )


def vocabulary_digest(data: bytes) -> str:
    """SHA-256 of the canonical JSON of a tokenizer.json's vocabulary, special tokens included, and merges."""
    held = json.loads(data)
    vocabulary = held["model"]["vocab"] | {one["content"]: one["id"] for one in held["added_tokens"]}
    canonical = {"vocab": vocabulary, "merges": held["model"]["merges"]}
    return hashlib.sha256(json.dumps(canonical, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _trained(sample: _Sample, vocab_size: int) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(  # type: ignore[no-untyped-call]
        vocab_size=vocab_size - NUM_SENTINELS,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample.texts(), trainer)
    if not sample.num_bytes:
        raise UserError("the corpus has no train document with text: give more documents, or hold out fewer")
    tokenizer.add_special_tokens([f"<extra_id_{number}>" for number in range(NUM_SENTINELS)])
    if (reached := tokenizer.get_vocab_size()) != vocab_size:
        raise UserError(
            f"vocab_size={vocab_size} is more than a sample of {sample.num_bytes:,} bytes supports: it made {reached} "
            f"tokens before no pair stood in it twice. Allowed are {SMALLEST} to {reached}, or give more documents"
        )
    tokenizer.encode_special_tokens = True
    return tokenizer


def _figures(tokenizer: Tokenizer, texts: Sequence[str]) -> SourceFigures:
    num_bytes, words = sum(len(text.encode()) for text in texts), sum(len(text.split()) for text in texts)
    tokens = sum(map(len, encode(tokenizer, texts)))
    return SourceFigures(
        documents=len(texts),
        bytes=num_bytes,
        words=words,
        tokens=tokens,
        tokens_per_word=round(tokens / words, 4) if words else None,
        bytes_per_token=round(num_bytes / tokens, 4) if tokens else None,
    )


class _Sample:
    """Train documents that a seed draws, some for training and some of each source for measuring.

    A document's digest puts it into a bin; taken are the first bins that hold enough bytes. So what is drawn depends
    neither on the order of documents nor on their parts, and no list of them is held.
    """

    def __init__(self, parts: Sequence[UPath], kept: Sequence[UPath], sample_bytes: int, seed: int) -> None:
        self._places, self._seed, self._max_bytes = list(zip(parts, kept, strict=True)), str(seed), sample_bytes
        self.num_documents = self.num_bytes = 0
        """Given to training so far."""
        self.measured: dict[str, list[str]] = {}
        """By source; filled as texts() is read."""
        sizes: dict[str, npt.NDArray[np.int64]] = {}
        for source, number, size in self._rows("bytes"):
            sizes.setdefault(source, np.zeros(_BINS, np.int64))[number] += size
        self._last_bin = _last_bin(sum(sizes.values(), np.zeros(_BINS, np.int64)), sample_bytes)
        self._last_bins = {source: _last_bin(mine, MEASURED_BYTES) for source, mine in sizes.items()}

    def texts(self) -> Iterator[str]:
        """The texts to train on, the last one cut if they are too many."""
        left = dict.fromkeys(self._last_bins, MEASURED_BYTES)
        for source, number, text in self._rows("text"):
            if number <= self._last_bins[source] and left[source] > 0:
                cut = _cut(text, left[source])
                left[source] -= len(cut.encode())
                self.measured.setdefault(source, []).append(cut)
            if number <= self._last_bin and self.num_bytes < self._max_bytes:
                cut = _cut(text, self._max_bytes - self.num_bytes)
                self.num_documents, self.num_bytes = self.num_documents + 1, self.num_bytes + len(cut.encode())
                yield cut

    def _rows(self, column: str) -> Iterator[tuple[str, int, Any]]:
        """Source, bin and one column of each train document."""
        for part, kept in self._places:
            for table in kept_documents(part, kept, ["source", column]):
                rows = zip(*(table[name].to_pylist() for name in ("split", "source", "doc_id", column)), strict=True)
                for split, source, doc_id, value in rows:
                    if split == "train":
                        yield source, int(digest(self._seed, doc_id)[:4], 16), value


def _last_bin(sizes: npt.NDArray[np.int64], wanted: int) -> int:
    """The first bin up to which there are as many bytes as wanted; one behind the last if there are not."""
    return int(np.searchsorted(np.cumsum(sizes), wanted))


def _cut(text: str, max_bytes: int) -> str:
    """The beginning of a text, whole characters alone."""
    return text if len(text) * 4 <= max_bytes else text.encode()[:max_bytes].decode(errors="ignore")
