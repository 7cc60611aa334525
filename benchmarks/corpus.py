"""Documents like abstracts, made of what is installed: the prose of botocore's service descriptions.

botocore is there wherever the project is, and a few of its services describe themselves in more words than thousands of
abstracts have. The same botocore gives the same files.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHARACTERS = range(800, 2200)
"""Of a document: an abstract has about 1,500. What is longer is cut after a paragraph."""
_BLOCK = re.compile(r"</?(?:p|li|ul|ol|dl|dt|dd|div|note|important|h\d)[^>]*>")
_TAG = re.compile(r"<[^>]+>")


def make(folder: Path, count: int) -> int:
    """Write `count` documents, a folder for each service; returns their characters, RuntimeError if there are fewer."""
    made = characters = 0
    for service, name, text in _texts():
        file = folder / service / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        made, characters = made + 1, characters + len(text)
        if made == count:
            return characters
    raise RuntimeError(f"the installed botocore describes {made:,} operations at such length, {count:,} are wanted")


def _texts() -> Iterator[tuple[str, str, str]]:
    """(service, name, text), each text once: an operation or shape, then the members of what it takes."""
    spec = importlib.util.find_spec("botocore")
    assert spec and spec.origin
    seen: set[str] = set()
    for path in sorted((Path(spec.origin).parent / "data").glob("*/*/service-2.json.gz")):
        service, version = path.parts[-3:-1]
        described: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        shapes = described["shapes"]
        for kind in ("operations", "shapes"):
            for name, value in sorted(described[kind].items()):
                takes = shapes.get(value.get("input", {}).get("shape"), value).get("members", {})
                parts = [name, value.get("documentation", "")]
                parts += [
                    f"{member}: {about['documentation']}" for member, about in takes.items() if "documentation" in about
                ]
                text = _cut("\n\n".join(map(_plain, parts)))
                if len(text) in CHARACTERS and text not in seen:
                    seen.add(text)
                    yield service, f"{version}-{kind}-{name}", text


def _cut(text: str) -> str:
    """As many whole paragraphs as there is room for."""
    if len(text) >= CHARACTERS.stop:
        text = text[: CHARACTERS.stop].rpartition("\n\n")[0]
    return f"{text.strip()}\n"


def _plain(markup: str) -> str:
    """Paragraphs without their tags."""
    blocks = (" ".join(html.unescape(_TAG.sub("", block)).split()) for block in _BLOCK.split(markup))
    return "\n\n".join(block for block in blocks if block)
