"""Documents in two made-up dialects, which a small model learns in some dozens of steps and no n-gram of order 3 does.

Each word is drawn from those of the document's dialect, and `of the` stands before it: so the two tokens before a word
tell nothing of the dialect, and whoever looks further back saves a bit a word.
"""

from __future__ import annotations

import json
import random
from typing import Any

DIALECTS = (
    ("worker", "bucket", "manifest", "letter", "garden", "river"),
    ("teacher", "market", "village", "engine", "paper", "station"),
)
WORDS = 25
"""Of a document, beside `of the`: some 300 characters, above what curation leaves out."""
VOCAB_SIZE = 431
"""All that such documents support: a token for each word."""
LEARNT: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "steps": 40,
    "batch_tokens": 512,
    "learning_rate": 5e-3,
    "held_out_share": 0.05,
}
"""Params by which `tiny` beats the n-gram by a fifth; seconds on two cores."""


def write_documents(documents: int = 240) -> bytes:
    """JSON lines, of each dialect as many; of which a twentieth is held out, so that the gate has 12 to judge by."""
    lines = []
    for number in range(documents):
        draw = random.Random(number)
        text = " ".join(f"{draw.choice(DIALECTS[number % 2])} of the" for _ in range(WORDS))
        lines.append(json.dumps({"text": text}).encode())
    return b"\n".join(lines) + b"\n"
