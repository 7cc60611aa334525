"""A zero-shot task made from held-out documents: which of four continuations is the passage's own?

The other three stand in other documents of the same source. A model answers with the continuation that the passage
makes more likely by most, log p(continuation | passage) - log p(continuation): else whatever is likely anywhere would
win (Holtzman et al., Surface Form Competition, arXiv 2104.08315). All continuations have as many tokens, so their
lengths need no correction. Chance is 1/4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from include.training.held_out import Document

if TYPE_CHECKING:
    import torch

Ids = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

TASK = "which of four continuations is the passage's own"
NUM_CHOICES = 4
PROMPT_TOKENS, CHOICE_TOKENS = 48, 16
MAX_ITEMS = 100
BATCH_ITEMS = 16
Z95 = 1.959964
"""Half of a 95 % interval, in standard deviations of a normal distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One question."""

    prompt: Ids
    """(PROMPT_TOKENS,)."""
    choices: Ids
    """(NUM_CHOICES, CHOICE_TOKENS)."""
    answer: int


def make_items(documents: Sequence[Document], end_id: int, seed: int, max_items: int = MAX_ITEMS) -> list[Item]:
    """Questions out of the documents, drawn by the seed; a document gives one for each of its passages.

    None from a source with fewer than NUM_CHOICES documents that hold a passage, and none whose continuation stands in
    another of the documents that were drawn for it.
    """
    passages = {number: found for number, one in enumerate(documents) if (found := _passages(one, end_id))}
    by_source: dict[str, list[int]] = {}
    for number in passages:
        by_source.setdefault(documents[number].source, []).append(number)
    places = [(number, place) for number in passages for place in range(len(passages[number]))]
    rng = np.random.default_rng(seed)
    items: list[Item] = []
    for number, place in (places[one] for one in rng.permutation(len(places))):
        others = [other for other in by_source[documents[number].source] if other != number]
        if len(items) == max_items or len(others) < NUM_CHOICES - 1:
            continue
        drawn = [passages[other] for other in rng.choice(others, NUM_CHOICES - 1, replace=False)]
        choices = [found[rng.integers(len(found))][PROMPT_TOKENS:] for found in drawn]
        prompt, own = np.split(passages[number][place], [PROMPT_TOKENS])
        answer = int(rng.integers(NUM_CHOICES))
        choices.insert(answer, own)
        if len(np.unique(choices, axis=0)) == NUM_CHOICES:
            items.append(Item(prompt=prompt, choices=np.stack(choices), answer=answer))
    return items


def _passages(document: Document, end_id: int) -> list[Ids]:
    """Pieces of one length that do not overlap; the first begins with the end token of the document before."""
    size = PROMPT_TOKENS + CHOICE_TOKENS
    tokens = np.concatenate(([end_id], document.tokens[document.tokens != end_id]))
    return [tokens[at : at + size] for at in range(0, len(tokens) - size + 1, size)]


def answers(items: Sequence[Item], score: Callable[[Ids, Ids], Floats], nothing: Ids) -> list[int]:
    """The choice that a model takes of each item.

    `score` gives the log-probabilities, (items, choices), of choices (items, choices, tokens) after prompts (items,
    tokens); `nothing` is the prompt that says nothing.
    """
    found: list[int] = []
    for batch in _batches(items):
        prompts, choices = np.stack([one.prompt for one in batch]), np.stack([one.choices for one in batch])
        known = score(np.tile(nothing, (len(batch), 1)), choices)
        found += (score(prompts, choices) - known).argmax(axis=1).tolist()
    return found


def decoder_score(model: Any, prompts: Ids, choices: Ids, device: torch.device) -> Floats:
    """Log-probabilities of choices after prompts, by a decoder."""
    import torch

    items, count, length = choices.shape
    following = choices.reshape(items * count, length)
    tokens = torch.from_numpy(np.concatenate((prompts.repeat(count, axis=0), following), axis=1)).to(device)
    with torch.inference_mode():
        logits = model(input_ids=tokens).logits[:, -length - 1 : -1]
        return _chosen(logits, tokens[:, -length:]).reshape(items, count)


def encoder_decoder_score(
    model: Any, prompts: Ids, choices: Ids, device: torch.device, first_sentinel: int, end_id: int, pad_id: int
) -> Floats:
    """The same by an encoder-decoder: the choice is the span that a sentinel behind the prompt stands for."""
    import torch

    items, count, length = choices.shape
    left_out = np.tile([first_sentinel, end_id], (items, 1))
    inputs = torch.from_numpy(np.concatenate((prompts, left_out), axis=1)).to(device)
    following = torch.from_numpy(choices.reshape(items * count, length)).to(device)
    begun = torch.tensor([[pad_id, first_sentinel]], device=device).expand(items * count, -1)
    with torch.inference_mode():
        memory = model.get_encoder()(input_ids=inputs).last_hidden_state.repeat_interleave(count, dim=0)
        written = torch.cat((begun, following[:, :-1]), dim=1)
        logits = model(encoder_outputs=(memory,), decoder_input_ids=written).logits[:, 1:]
        return _chosen(logits, following).reshape(items, count)


def wilson(correct: int, asked: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, JASA 22, 1927); (0, 1) if nothing was asked."""
    if not asked:
        return 0.0, 1.0
    share, z2 = correct / asked, Z95**2
    middle = share + z2 / (2 * asked)
    half = Z95 * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked**2))
    return max(0.0, (middle - half) / (1 + z2 / asked)), min(1.0, (middle + half) / (1 + z2 / asked))


def summary(items: Sequence[Item], chosen: Sequence[int]) -> dict[str, Any]:
    """What evaluation.json says of the task; accuracy is None if no question could be made."""
    correct = sum(one.answer == choice for one, choice in zip(items, chosen, strict=True))
    low, high = wilson(correct, len(items))
    accuracy = correct / len(items) if items else None
    return {
        "task": TASK, "items": len(items), "accuracy": accuracy, "low": low, "high": high, "chance": 1 / NUM_CHOICES,
    }  # fmt: skip


def _chosen(logits: torch.Tensor, tokens: torch.Tensor) -> Floats:
    """Sum of the tokens' log-probabilities, (rows,)."""
    import torch

    of_all = torch.log_softmax(logits.float(), dim=-1)
    found: Floats = of_all.gather(2, tokens[..., None]).sum(dim=(1, 2)).double().cpu().numpy()
    return found


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), BATCH_ITEMS):
        yield items[first : first + BATCH_ITEMS]
