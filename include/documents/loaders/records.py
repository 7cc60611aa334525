"""Records of JSON lines, JSON and Parquet: each with a text of its own, or named values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from include.documents.document import Document, Reject
from include.documents.loaders.common import Builder, decode, packed, rows_locator
from include.errors import DocumentError

_TEXT_FIELDS = ("text", "content", "body")


def load_jsonl(data: bytes, stem: str) -> Document:
    """A section for each line's object: its first field of text, content or body, under its `title`, located by its
    `id` or its line; of one without such a text its title. Other fields are left out.

    A line that cannot be used is a Reject; DocumentError, with the first one's reason, if none can.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = decode(data).encode()
    # Only \n ends a record: a JSON string may hold other line separators as they are.
    lines = enumerate(data.split(b"\n"), start=1)
    return _records(((f"line {number}", line) for number, line in lines if line.strip(b" \t\r\xef\xbb\xbf")), stem)


def load_json(data: bytes, stem: str) -> Document:
    """A list of objects of which any has a text is read as JSON lines are; any other JSON as its values, one a line,
    after their paths (`path.to.key: value`), a list's entries packed to sections of moderate size."""
    text = decode(data)
    if not text.strip():
        return Document(title=stem, text="", sections=())
    value = _parse(text)
    if not isinstance(value, list):
        builder = Builder()
        builder.add("\n".join(f"{path}: {leaf}" if path else leaf for path, leaf in _leaves(value)))
        return builder.build(stem)
    if any(_text_field(entry) for entry in value if isinstance(entry, dict)):
        return _records(((f"item {number}", entry) for number, entry in enumerate(value, start=1)), stem)
    return _rows(value, stem, "item")


def load_parquet(data: bytes, stem: str) -> Document:
    """A section for each row as for a line of JSON where there is a column of strings named text, content or body; else
    rows as `column: value; column: value`, packed to sections of moderate size. Columns of bytes are left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(data))
    schema = file.schema_arrow
    names = [field.name for field in schema if not _is_binary(field.type)]
    rows = (row for batch in file.iter_batches(batch_size=1024, columns=names) for row in batch.to_pylist())
    strings = {field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)}
    if strings.isdisjoint(_TEXT_FIELDS):
        return _rows(rows, stem, "row")
    return _records(((f"row {number}", row) for number, row in enumerate(rows, start=1)), stem)


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"not JSON ({error})") from None


def _records(entries: Iterable[tuple[str, Any]], stem: str) -> Document:
    builder = Builder()
    first: DocumentError | None = None
    good = 0
    for locator, entry in entries:
        try:
            text, headings, key = _record(_parse(decode(entry)) if isinstance(entry, bytes) else entry)
        except DocumentError as error:
            first = first or DocumentError(f"{locator}: {error}", error.fault)
            builder.rejects.append(Reject(locator=locator, reason=str(error)))
            continue
        builder.add(text, headings=headings, locator=key or locator)
        good += 1
    if first and not good:
        raise first
    return builder.build(stem)


def _text_field(record: dict[str, Any]) -> str | None:
    return next((name for name in _TEXT_FIELDS if record.get(name) is not None), None)


def _record(record: Any) -> tuple[str, tuple[str, ...], str | None]:
    """Text, headings and id; a title alone is the text."""
    if not isinstance(record, dict):
        raise DocumentError(f"{type(record).__name__} where an object was expected")
    field, title, key = _text_field(record), record.get("title"), record.get("id")
    text = record[field] if field else ""
    if not isinstance(text, str):
        raise DocumentError(f"field {field!r} is {type(text).__name__}, must be a string")
    title = " ".join(title.split()) if isinstance(title, str) else ""
    if field is None and not title:
        raise DocumentError(f"none of the fields {', '.join(_TEXT_FIELDS)}, title")
    key = " ".join(str(key).split()) if isinstance(key, str | int) else ""
    try:
        " ".join((text, title, key)).encode()
    except UnicodeEncodeError as error:
        raise DocumentError(f"half a surrogate pair at character {error.start}, no text", "not_text") from None
    return (text, (title,) if title else (), key or None) if text.strip() else (title, (), key or None)


def _rows(rows: Iterable[Any], stem: str, of: Literal["item", "row"]) -> Document:
    builder = Builder()
    lines = (
        (number, "; ".join(f"{path}: {leaf}" if path else leaf for path, leaf in _leaves(row)))
        for number, row in enumerate(rows, start=1)
    )
    for first, last, text in packed((number, line) for number, line in lines if line):
        builder.add(text, locator=rows_locator(first, last, of))
    return builder.build(stem)


def _leaves(value: Any) -> Iterator[tuple[str, str]]:
    """Paths and texts of the values in nested lists and objects; null, NaN, bytes and blanks have no text."""
    stack = [("", value)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            stack.extend((f"{path}.{key}" if path else str(key), child) for key, child in reversed(value.items()))
        elif isinstance(value, list):
            # Entries of a list share its path: their numbers say nothing that a question would ask for.
            stack.extend((path, child) for child in reversed(value))
        elif text := _shown(value):
            yield path, text


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bytes) or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(str(value).split())
