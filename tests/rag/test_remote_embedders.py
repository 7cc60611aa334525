"""An ingestion that embeds by a remote model which throttles, lies, and is replaced by another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.errors import EmbeddingError
from include.models.embeddings import get_embedder, lasting_name
from include.rag import pipeline
from include.rag.search import search
from tests.models.model_server import DIMENSION, THROTTLE, Fault, ModelServer
from tests.rag.ingestion import Ingestion, write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    write_corpus(folder, 12)
    return folder


@pytest.fixture
def ours(ingestion: Ingestion, server: ModelServer) -> Ingestion:
    ingestion.params |= {"embedder": "openai", "chunk_tokens": 100, "documents_per_shard": 50}
    return ingestion


def models(server: ModelServer) -> list[Any]:
    return list(dict.fromkeys(body["model"] for body in server.requests))


def test_a_throttled_model_embeds_everything_and_answers(ours: Ingestion, server: ModelServer) -> None:
    server.faults = [THROTTLE] * 3
    counts = ours.run("run-1")
    assert (counts["added"], counts["chunks_total"]) == (12, len(ours.rows()))
    row = ours.rows()[0]
    server.requests.clear()
    assert search(row["text"], index="test", k=1, mode="dense")
    assert server.texts == [row["text"]]


@pytest.mark.parametrize(
    "lie",
    [
        Fault(spoil=lambda vectors: [[float("nan")] * DIMENSION for _ in vectors]),
        Fault(spoil=lambda vectors: [vector[:-1] for vector in vectors]),
    ],
    ids=["NaN", "another dimension"],
)
def test_an_answer_that_cannot_be_the_vectors_stops_the_batch_and_leaves_the_index(
    ours: Ingestion, server: ModelServer, corpus: Path, lie: Fault
) -> None:
    ours.run("run-1")
    before = ours.rows()
    (corpus / "new.md").write_text("# New\n\nwords that were never embedded")
    server.faults = [lie]
    config = ours.prepare("run-2")
    shards = pipeline.plan(config)
    with pytest.raises(EmbeddingError):
        ours.embed(config, shards)
    assert ours.rows() == before
    ours.embed(config, shards)
    ours.settle(config)
    assert pipeline.commit(config)["documents"] == 1


def test_when_the_settings_name_another_model_the_live_version_is_asked_with_its_own(
    ours: Ingestion, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.run("run-1")
    monkeypatch.setenv("FMOPS_EMBEDDING_MODEL", "second")
    server.requests.clear()
    assert search("word4x3", index="test")
    assert models(server) == ["first:latest"]
    config = ours.prepare("run-2")
    assert config["version"] == 2
    ours.embed(config, pipeline.plan(config))
    assert models(server) == ["first:latest", "second"]


def test_a_lasting_name_opens_the_same_model(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    name = lasting_name("openai")
    assert name == f"openai:first:latest:{DIMENSION}"
    monkeypatch.setenv("FMOPS_EMBEDDING_MODEL", "second")
    assert get_embedder(name).name == f"openai-first:latest-{DIMENSION}" != get_embedder("openai").name
    assert lasting_name(name) == name
    assert lasting_name("hashing") == "hashing"
