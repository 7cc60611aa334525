"""Span denoising: what the encoder-decoder learns from. NumPy alone; the same generator gives the same spans.

Raffel et al., arXiv 1910.10683, section 3.1.4 and appendix. Spans of tokens are left out, each marked by a sentinel of
its own; the target is the sentinels, each followed by what it stands for, and the end token.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]

NOISE, MEAN_SPAN = 0.15, 3.0
"""Share of tokens that are left out, and mean length of a span in tokens: the paper's choice."""


def corrupt(
    tokens: Tokens,
    rng: np.random.Generator,
    first_sentinel: int,
    num_sentinels: int,
    end_id: int,
    noise: float = NOISE,
    mean_span: float = MEAN_SPAN,
) -> tuple[Tokens, Tokens]:
    """Inputs and targets of one passage, both ended by the end token.

    tokens: (length,), neither sentinels nor end token among them. Left out are round(length * noise) tokens, at least
    one, in round(left out / mean_span) spans, at least one and at most as many as there are sentinels; each choice is
    as likely. Sentinels are used in ascending order. ValueError if there is no token.
    """
    length = len(tokens)
    if not length:
        raise ValueError("a passage needs at least one token")
    num_noise = min(max(1, round(length * noise)), max(1, length - 1))
    num_spans = min(max(1, round(num_noise / mean_span)), num_sentinels, num_noise, length - num_noise + 1)
    # Two spans have a token between them; before the first and after the last there may be none.
    kept = _parts(length - num_noise + 2, num_spans + 1, rng) - np.eye(1, num_spans + 1, dtype=np.int64)[0]
    kept[-1] -= 1
    lengths = np.zeros(2 * num_spans + 1, np.int64)
    lengths[::2], lengths[1::2] = kept, _parts(num_noise, num_spans, rng)
    is_left_out = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    starts = np.cumsum(lengths)[:-1:2]
    """Of the spans."""
    sentinels = first_sentinel + np.arange(num_spans)
    shown = np.array(tokens, dtype=np.int64)
    shown[starts] = sentinels
    is_shown = ~is_left_out
    is_shown[starts] = True
    ends_before = np.concatenate(([0], np.cumsum(lengths[1::2])[:-1]))
    spans = np.insert(np.asarray(tokens, dtype=np.int64)[is_left_out], ends_before, sentinels)
    return np.append(shown[is_shown], end_id), np.append(spans, end_id)


def _parts(total: int, num_parts: int, rng: np.random.Generator) -> Tokens:
    """A total as a sum of so many positive numbers, each such sum as likely."""
    cuts = 1 + np.sort(rng.choice(total - 1, num_parts - 1, replace=False)) if num_parts > 1 else np.empty(0, np.int64)
    return np.diff(np.concatenate(([0], cuts, [total]))).astype(np.int64)
