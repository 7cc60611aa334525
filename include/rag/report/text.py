"""How the page and the terminal write names and numbers; what comes from documents is cut and escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

SHOWN_TEXT = 160
"""Characters of a question, a reason or a document's name that are shown."""
MODES = {"full_text": "full text", "dense": "dense", "hybrid": "hybrid"}
_MEASURES = {"mrr": "MRR", "ndcg_at_10": "nDCG@10"}


def short(text: str) -> str:
    """Text of others as HTML: cut, escaped, and without what no encoding takes (half of a surrogate pair)."""
    cut = text if len(text) <= SHOWN_TEXT else text[: SHOWN_TEXT - 3] + "..."
    return escape(cut.encode("utf-8", "replace").decode())


def short_path(text: str) -> str:
    """A document's name as HTML, cut in the middle: names that share a folder differ at their end."""
    half = (SHOWN_TEXT - 3) // 2
    return short(text if len(text) <= SHOWN_TEXT else f"{text[:half]}...{text[-half:]}")


def name_of(doc_id: str, names: Mapping[str, str]) -> str:
    """What to call a document, as HTML."""
    return short_path(names.get(doc_id, f"{doc_id} (not in the index)"))


def mode_name(mode: str) -> str:
    """A way of searching in words."""
    return MODES.get(mode, mode)


def measure_name(measure: str) -> str:
    """A measure as the literature writes it."""
    return _MEASURES.get(measure, measure.replace("_at_", "@"))


def plural(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def usd(amount: float) -> str:
    """An amount in dollars, small ones with as many digits as they need."""
    if 0 < amount < 1e-6:
        return "under $0.000001"
    if amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.6f}".rstrip("0").rstrip(".")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """A table of cells that are HTML already. `figures` scrolls on a narrow screen, `stacked` puts cells below it."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(map(_cell, head, row))}</tr>" for row in rows)
    return f'<div class="{kind}"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(title: str, content: str) -> str:
    return f'<td data-title="{escape(title)}">{content}</td>'
