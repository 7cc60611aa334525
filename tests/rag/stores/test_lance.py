"""What of LanceDB's store the tests of all stores do not see."""

from __future__ import annotations

import itertools

import pyarrow as pa

from include.rag.stores import search_text
from include.rag.stores.lance import _search_texts


def test_what_is_searched_is_the_same_column_by_column_and_row_by_row() -> None:
    titles, headings, texts = (None, "", "T"), (None, [], ["T"], ["a", "", "b", "a"]), ("", "text", "é\n")
    rows = list(itertools.product(titles, headings, texts))
    types = (pa.string(), pa.list_(pa.string()), pa.string())
    columns = [pa.array(list(column), kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    table = pa.table(columns, names=["title", "headings", "text"])
    assert _search_texts(table).to_pylist() == [search_text(*row) for row in rows]
