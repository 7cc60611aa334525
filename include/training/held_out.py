"""What a model makes of documents that it has not seen: the cost of each token, document by document.

Of a decoder each document is read from its beginning; one that is longer than the context in windows that overlap by
half, so that every token but a document's first has at least half a context before it. Of an encoder-decoder it is the
spans that were left out (see denoise.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from include.jobs.harness import BadInput
from include.training.denoise import corrupt
from include.training.loader import SHORTEST_PIECE, Corpus

if TYPE_CHECKING:
    import torch

Ids = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Told = Callable[[int], None]
"""Called with the number of tokens that were computed since the last call."""

LOGITS = 2**24
"""Numbers of one batch's output: 64 MB in single precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One held-out document, or its beginning."""

    source: str
    number: int
    """Its place in the source's file, from 0; the corpus' table of that file tells where it comes from."""
    tokens: Ids
    """Its end token is among them, if it is there to its end."""
    text: str

    @property
    def num_bytes(self) -> int:
        """Of its text in UTF-8."""
        return len(self.text.encode())


def read_documents(corpus: Corpus, tokenizer: Any, max_tokens: int, seed: int) -> list[Document]:
    """Documents of each source, at most max_tokens tokens together: if there are more, a share of each source's.

    They are drawn by the seed; the last that is drawn of a source is cut. `tokenizer` is one of `tokenizers`. BadInput
    if there is no document, or the tokens' text is not as long as the manifest says.
    """
    if not any(len(tokens) for tokens in corpus.held_out.values()):
        raise BadInput("channel corpus: no document was held out, so there is nothing to evaluate on")
    is_all = corpus.held_out_tokens <= max_tokens
    share = min(1.0, max_tokens / max(1, corpus.held_out_tokens))
    found = []
    for source, tokens in sorted(corpus.held_out.items()):
        documents = list(enumerate(_split(np.asarray(tokens), corpus.end_id)))
        if not is_all:
            documents = _drawn(documents, max(2, int(share * len(tokens))), seed)
        for number, one in documents:
            shown = one[:-1] if one[-1] == corpus.end_id else one
            text = tokenizer.decode(shown.tolist(), skip_special_tokens=False)
            found.append(Document(source=source, number=number, tokens=one.astype(np.int64), text=text))
    num_bytes = sum(document.num_bytes for document in found)
    if is_all and num_bytes != corpus.held_out_bytes:
        raise BadInput(
            f"channel corpus: its held-out tokens are {num_bytes:,} bytes of text by tokenizer.json, not "
            f"{corpus.held_out_bytes:,} as manifest.json says: it is not the tokenizer that packed it"
        )
    return found


def token_nats(
    model: Any, documents: Sequence[Ids], end_id: int, context: int, device: torch.device, told: Told
) -> list[Floats]:
    """What each token costs a decoder, -ln of its probability; one array for each document, as long as it is."""
    import torch
    from torch.nn import functional as F

    inputs = [np.concatenate(([end_id], document[:-1])) for document in documents]
    found = [np.full(len(document), np.nan) for document in documents]
    rows = [(number, *window) for number, one in enumerate(documents) for window in windows(len(one), context)]
    for batch in _batches(rows, [end - start for _, start, _, end in rows], model.config.vocab_size):
        starts_ends = [(number, start, end) for number, start, _, end in batch]
        tokens = _padded([inputs[number][start:end] for number, start, end in starts_ends], end_id).to(device)
        targets = _padded([documents[number][start:end] for number, start, end in starts_ends], end_id).to(device)
        with torch.inference_mode():  # what is padded stands behind, where no token looks
            logits = model(input_ids=tokens).logits.float()
            nats = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").double().cpu().numpy()
        for row, (number, start, first, end) in zip(nats, batch, strict=True):
            found[number][first:end] = row[first - start : end - start]
        told(sum(end - start for _, start, end in starts_ends))
    return found


def windows(length: int, context: int) -> Iterator[tuple[int, int, int]]:
    """(start, first that is new, end) of windows that cover a document: each token is new in exactly one."""
    start, done = 0, min(length, context)
    yield start, 0, done
    while done < length:
        end = min(done + max(1, context // 2), length)
        yield end - context, done, end
        done = end


def computed_tokens(documents: Sequence[Document], context: int) -> int:
    """Tokens that token_nats() computes."""
    return sum(end - start for one in documents for start, _, end in windows(len(one.tokens), context))


@dataclass(frozen=True, kw_only=True, slots=True)
class Spans:
    """A piece of a document with spans left out."""

    document: int
    inputs: Ids
    targets: Ids


def leave_out(documents: Sequence[Document], corpus: Corpus, context: int, seed: int) -> list[Spans]:
    """Pieces of the documents as in training, with spans left out that the seed draws; too short ones are skipped.

    BadInput if all are too short.
    """
    found = []
    for number, document in enumerate(documents):
        tokens = document.tokens[document.tokens != corpus.end_id]
        for start in range(0, len(tokens), context - 1):
            piece = tokens[start : start + context - 1]
            if len(piece) >= SHORTEST_PIECE:
                rng = np.random.default_rng((seed, number, start))
                made = corrupt(piece, rng, corpus.first_sentinel, corpus.num_sentinels, corpus.end_id)
                found.append(Spans(document=number, inputs=made[0], targets=made[1]))
    if not found:
        raise BadInput(f"channel corpus: no held-out document has {SHORTEST_PIECE} tokens, so no span can be left out")
    return found


def span_nats(model: Any, pieces: Sequence[Spans], pad_id: int, device: torch.device, told: Told) -> list[Floats]:
    """What each target token costs an encoder-decoder, -ln of its probability; one array for each piece."""
    import torch
    from torch.nn import functional as F

    found: list[Floats] = [np.empty(0)] * len(pieces)
    lengths = [len(one.inputs) + len(one.targets) for one in pieces]
    for batch in _batches(list(enumerate(pieces)), lengths, model.config.vocab_size):
        inputs = _padded([one.inputs for _, one in batch], pad_id).to(device)
        targets = _padded([one.targets for _, one in batch], pad_id).to(device)
        written = torch.nn.functional.pad(targets[:, :-1], (1, 0), value=pad_id)
        with torch.inference_mode():
            made = model(input_ids=inputs, attention_mask=(inputs != pad_id).long(), decoder_input_ids=written)
            logits = made.logits.float().transpose(1, 2)
            nats = F.cross_entropy(logits, targets, reduction="none").double().cpu().numpy()
        for row, (number, one) in zip(nats, batch, strict=True):
            found[number] = row[: len(one.targets)]
        told(sum(len(one.inputs) + len(one.targets) for _, one in batch))
    return found


def _split(tokens: Ids, end_id: int) -> list[Ids]:
    """Documents, each with its end token."""
    ends = np.flatnonzero(tokens == end_id) + 1
    return [one for one in np.split(tokens, ends) if len(one)]


def _drawn(documents: Sequence[tuple[int, Ids]], max_tokens: int, seed: int) -> list[tuple[int, Ids]]:
    found, left = [], max_tokens
    for place in np.random.default_rng(seed).permutation(len(documents)):
        if left < 2:
            break
        number, tokens = documents[place]
        found.append((number, tokens[:left]))
        left -= len(found[-1][1])
    return found


def _batches(rows: Sequence[Any], lengths: Sequence[int], vocab_size: int) -> Iterator[list[Any]]:
    """Rows of about the same length together, as many as their output may be large."""
    order = sorted(range(len(rows)), key=lambda number: -lengths[number])
    while order:
        size = max(1, LOGITS // (vocab_size * lengths[order[0]]))
        yield [rows[number] for number in order[:size]]
        order = order[size:]


def _padded(rows: Sequence[Ids], value: int) -> torch.Tensor:
    """(rows, longest), filled up behind."""
    import torch

    found = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return torch.from_numpy(found)
