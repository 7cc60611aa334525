"""Embedders that are services, against a server on loopback that throttles, stalls and lies."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from include.errors import BusyError, EmbeddingError, UserError
from include.models import client
from include.models.embeddings import MiniLM, embed_metered, get_embedder
from include.models.metering import Caller, Meter
from include.models.remote_embeddings import RemoteEmbedder, estimate_tokens
from tests.models.model_server import DIMENSION, STALL, THROTTLE, Fault, ModelServer, serving, vector

REMOTE = ["cohere-english-v3", "cohere-multilingual-v3", "openai", "titan-v2"]
TEXTS = [f"text number {number}" for number in range(100)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with serving() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", running.url)
        monkeypatch.setenv("FMOPS_EMBEDDING_URL", f"{running.url}/v1/")
        monkeypatch.setenv("FMOPS_EMBEDDING_MODEL", "some/embedder")
        monkeypatch.setenv("FMOPS_EMBEDDING_DIMENSION", str(DIMENSION))
        monkeypatch.setattr(client, "FIRST_WAIT_S", 0.01)
        yield running


@pytest.fixture(params=REMOTE)
def embedder(request: pytest.FixtureRequest, server: ModelServer) -> RemoteEmbedder:
    found = get_embedder(request.param)
    assert isinstance(found, RemoteEmbedder)
    return found


@pytest.fixture(params=["openai", "titan-v2"])
def either(request: pytest.FixtureRequest, server: ModelServer) -> RemoteEmbedder:
    """One of each transport."""
    found = get_embedder(request.param)
    assert isinstance(found, RemoteEmbedder)
    return found


def expected(texts: list[str]) -> Any:
    return np.array([vector(text) for text in texts], dtype=np.float32)


def a_meter(root: str) -> Meter:
    return Meter(root=root, caller=Caller(tenant="t", use_case="u"))


def test_vectors_come_in_order_under_a_throttle_of_one_in_five(
    embedder: RemoteEmbedder, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(embedder), "texts_per_call", min(embedder.texts_per_call, 2))
    server.period = 5
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected(TEXTS), atol=1e-6)
    asked = -(-len(TEXTS) // embedder.texts_per_call)
    refused = len(server.requests) // 5
    assert refused >= 10
    assert len(server.requests) == asked + refused


def test_as_many_calls_are_in_flight_as_allowed_and_no_more(
    either: RemoteEmbedder, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_MODEL_CONCURRENCY", "3")
    monkeypatch.setattr(type(either), "texts_per_call", 1)
    server.together = 3
    either.embed(TEXTS[:30])
    assert server.most_together == 3


def test_what_each_service_is_sent(server: ModelServer) -> None:
    titan, english, openai = (get_embedder(name) for name in ("titan-v2", "cohere-english-v3", "openai"))
    titan.embed(["a", "b"])
    english.embed(TEXTS[:97])
    openai.embed(TEXTS[:33])
    assert sorted(server.paths) == sorted(
        2 * ["/model/amazon.titan-embed-text-v2%3A0/invoke"]
        + 2 * ["/model/cohere.embed-english-v3/invoke"]
        + 2 * ["/v1/embeddings"]
    )
    assert {"inputText": "a", "dimensions": 1024, "normalize": True} in server.requests
    of_cohere = [body for body in server.requests if "texts" in body]
    assert sorted(len(body["texts"]) for body in of_cohere) == [1, 96]
    settings = {"input_type": "search_document", "truncate": "NONE", "embedding_types": ["float"]}
    assert all(body == {"texts": body["texts"], **settings} for body in of_cohere)
    of_openai = [body for body in server.requests if "model" in body]
    assert sorted(len(body["input"]) for body in of_openai) == [1, 32]
    assert {body["model"] for body in of_openai} == {"some/embedder"}
    assert "fmops-airflow" in server.headers[0]["user-agent"]


def test_a_question_is_sent_as_one_where_the_model_tells_them_apart(
    embedder: RemoteEmbedder, server: ModelServer
) -> None:
    np.testing.assert_allclose(embedder.embed_queries(["who?"]), expected(["who?"]), atol=1e-6)
    assert server.requests[0].get("input_type", "search_query") == "search_query"


def test_names_carry_model_and_dimension_and_not_where_it_is(server: ModelServer) -> None:
    assert [get_embedder(name).name for name in REMOTE] == [
        "cohere.embed-english-v3-1024",
        "cohere.embed-multilingual-v3-1024",
        "openai-some/embedder-1024",
        "amazon.titan-embed-text-v2:0-1024",
    ]


@pytest.mark.parametrize(
    "fault",
    [
        THROTTLE,
        Fault(status=429, headers={"Retry-After": "0"}),
        Fault(status=429, code="ModelNotReadyException"),
        Fault(status=500),
        Fault(status=503, say=b"<html>busy</html>", headers={"Content-Type": "text/html"}),
        Fault(reset=True),
        Fault(cut=200),
        Fault(cut=0),
        Fault(say=b'{"embedding": [0.1, 0.'),
        Fault(say=b""),
    ],
    ids=["throttle", "retry-after", "not-ready", "500", "503-html", "reset", "cut", "cut-at-0", "half", "nothing"],
)
def test_what_may_pass_is_tried_again(either: RemoteEmbedder, server: ModelServer, fault: Fault) -> None:
    server.faults = [fault, fault]
    np.testing.assert_allclose(either.embed(["x"]), expected(["x"]), atol=1e-6)
    assert len(server.requests) == 3


def test_a_connection_that_died_in_silence_is_given_up_and_the_call_made_again(
    either: RemoteEmbedder, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_MODEL_DEADLINE_S", "6")
    server.faults = [STALL]
    np.testing.assert_allclose(either.embed(["x"]), expected(["x"]), atol=1e-6)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (THROTTLE, BusyError),
        (Fault(status=500), ConnectionError),
        (Fault(cut=9), ConnectionError),
        (STALL, TimeoutError),
    ],
)
def test_what_does_not_pass_is_an_error_that_the_task_is_tried_again_for(
    either: RemoteEmbedder, server: ModelServer, fault: Fault, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_MODEL_DEADLINE_S", "3")
    server.faults = [fault] * 1000
    with pytest.raises(raised, match=f"^{either.name}: .*gave up after .* within model_deadline_s=3"):
        either.embed(["x"])


def test_a_server_that_is_not_there_is_a_connection_error(
    either: RemoteEmbedder, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_MODEL_DEADLINE_S", "0.5")
    monkeypatch.setenv("FMOPS_EMBEDDING_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:9")
    name = "openai" if either.name.startswith("openai") else "titan-v2"
    with pytest.raises(ConnectionError, match="gave up"):
        get_embedder(name).embed(["x"])


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "ValidationException"), (401, "UnrecognizedClientException"), (403, "AccessDeniedException"),
     (404, "ResourceNotFoundException")],
)  # fmt: skip
def test_a_refusal_that_stays_is_not_tried_again(
    either: RemoteEmbedder, server: ModelServer, status: int, code: str
) -> None:
    server.faults = [Fault(status=status, code=code)]
    with pytest.raises(UserError, match=f"^{either.name}.* refused: {status} .*refused.*: check"):
        either.embed(["x"])
    assert len(server.requests) == 1


def test_one_refusal_ends_the_calls_beside_it(
    either: RemoteEmbedder, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(either), "texts_per_call", 1)
    server.together = 4
    server.faults = [STALL, STALL, STALL, Fault(status=400)]
    before = threading.active_count()
    with pytest.raises(UserError, match="refused: 400"):
        either.embed(TEXTS)
    assert len(server.requests) == 4
    server.released.set()
    waiting = [thread for thread in threading.enumerate() if "process_request" not in thread.name]
    assert len(waiting) <= before, "no thread of the client's own is left"


LIES: dict[str, tuple[Fault, str]] = {
    "nan": (Fault(spoil=lambda rows: [[float("nan"), *rows[0][1:]], *rows[1:]]), "vector of length nan for text 0"),
    "null": (Fault(spoil=lambda rows: [[None, *rows[0][1:]], *rows[1:]]), "vector of length nan for text 0"),
    "infinite": (Fault(spoil=lambda rows: [[1e300] * len(row) for row in rows]), "vector of length inf for text 0"),
    "zero": (Fault(spoil=lambda rows: [[0.0] * len(row) for row in rows]), "vector of length 0.0 for text 0"),
    "dimension": (
        Fault(spoil=lambda rows: [row[:-1] for row in rows]),
        "answered 1023 numbers for text 0, must be 1024",
    ),
    "words": (Fault(spoil=lambda rows: [["a"] * len(row) for row in rows]), "something other than numbers"),
    "base64": (Fault(spoil=lambda rows: ["AACAPw==" for _ in rows]), "answered str for text 0, must be 1024"),
    "not-json": (Fault(say=b"<html>welcome</html>"), "answered no JSON but b'<html>"),
    "other-json": (Fault(say=b'{"hello": 1}'), "answered no embeddings but .*hello"),
    "list": (Fault(say=b'{"data": [1], "embedding": 1, "embeddings": 1}'), "answered (no embeddings|int for text 0)"),
    "error": (Fault(say=b'{"error": "model not loaded"}'), "answered no embeddings but .*not loaded"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_stops_the_batch_at_once(either: RemoteEmbedder, server: ModelServer, root: str, lie: str) -> None:
    fault, message = LIES[lie]
    server.faults = [fault]
    with a_meter(root) as meter, pytest.raises(EmbeddingError, match=message):
        try:
            embed_metered(either, ["x"], meter)
        finally:
            assert [(event.status, event.num_requests) for event in meter.events] == [("error", 1)]
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["openai", "cohere-english-v3"])
@pytest.mark.parametrize("change", [lambda rows: rows[:-1], lambda rows: [*rows, rows[0]]], ids=["fewer", "more"])
def test_one_vector_for_each_text(server: ModelServer, name: str, change: Callable[[Any], Any]) -> None:
    server.faults = [Fault(spoil=change)]
    with pytest.raises(EmbeddingError, match=r"answered (9|11) vectors for 10 texts"):
        get_embedder(name).embed(TEXTS[:10])


@pytest.mark.parametrize("name", REMOTE)
def test_the_same_vector_for_all_is_refused(server: ModelServer, root: str, name: str) -> None:
    server.faults = [Fault(spoil=lambda rows: [vector("one")] * len(rows))] * 10
    with a_meter(root) as meter, pytest.raises(EmbeddingError, match="the same vector for 10 different texts"):
        embed_metered(get_embedder(name), TEXTS[:10], meter)


def test_openai_rows_are_put_in_order_by_their_index(server: ModelServer) -> None:
    def backwards(rows: list[list[float]]) -> list[list[float]]:
        return rows[::-1]

    server.faults = [Fault(spoil=backwards, number=lambda place: 9 - place)]
    np.testing.assert_allclose(get_embedder("openai").embed(TEXTS[:10]), expected(TEXTS[:10]), atol=1e-6)


@pytest.mark.parametrize(
    "number", [lambda place: 0, lambda place: place + 1, lambda place: None, lambda place: [place]]
)
def test_openai_rows_without_a_usable_index_are_refused(server: ModelServer, number: Callable[[int], Any]) -> None:
    server.faults = [Fault(number=number)]
    with pytest.raises(EmbeddingError, match="answered (vectors of the texts|no embeddings)"):
        get_embedder("openai").embed(TEXTS[:10])


def test_vectors_of_any_length_become_unit_vectors(embedder: RemoteEmbedder, server: ModelServer) -> None:
    server.scale = 37.5
    np.testing.assert_allclose(embedder.embed(TEXTS[:3]), expected(TEXTS[:3]), atol=1e-6)


def test_tokens_are_metered_as_the_service_reports_them(
    embedder: RemoteEmbedder, server: ModelServer, root: str
) -> None:
    with a_meter(root) as meter:
        embed_metered(embedder, TEXTS[:40], meter)
        event = meter.events[0]
        assert (event.status, event.tokens_in, event.tokens_exact) == ("ok", 400, True)
        assert (event.model, event.num_requests) == (embedder.name, len(server.requests))


def test_tokens_are_estimated_where_it_does_not_say(embedder: RemoteEmbedder, server: ModelServer, root: str) -> None:
    server.reports_usage = False
    with a_meter(root) as meter:
        embed_metered(embedder, TEXTS[:3], meter, query=True)
        event = meter.events[0]
        assert (event.tokens_in, event.tokens_exact) == (sum(map(estimate_tokens, TEXTS[:3])), False)


def test_what_was_used_before_a_failure_is_metered(server: ModelServer, root: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("FMOPS_MODEL_CONCURRENCY", "1")
    server.faults = [Fault(), THROTTLE, Fault(), Fault(status=400)]
    with a_meter(root) as meter:
        with pytest.raises(UserError):
            embed_metered(get_embedder("titan-v2"), TEXTS, meter)
        event = meter.events[0]
        assert (event.status, event.num_requests, event.tokens_in) == ("error", 4, 20)


def test_a_text_beyond_the_limit_or_without_words_is_refused_and_not_cut(
    embedder: RemoteEmbedder, server: ModelServer
) -> None:
    with pytest.raises(UserError, match=rf"text 1 has about \d+ tokens, but .* reads {embedder.limit_tokens}: shorten"):
        embedder.embed(["fine", "word " * embedder.limit_tokens])
    with pytest.raises(UserError, match="text 1 is empty"):
        embedder.embed(["fine", " \n"])
    assert server.requests == []
    assert embedder.embed([]).shape == (0, 1024)
    longest = "a" * (3 * embedder.limit_tokens)
    assert embedder.embed([longest]).shape == (1, 1024), "at the limit"
    assert server.texts == [longest]


def test_odd_texts_arrive_as_they_are(embedder: RemoteEmbedder, server: ModelServer) -> None:
    odd = ["NUL \x00 in it", "half of a pair \ud800 alone", "☃ Zürich 東京 👩\u200d👩", '{"json": "{{ nor this }}"}\n']
    assert embedder.embed(odd).shape == (4, 1024)
    assert sorted(server.texts, key=repr) == sorted(odd, key=repr)


def test_it_embeds_where_an_event_loop_runs(either: RemoteEmbedder) -> None:
    async def task() -> Any:
        return either.embed(["x"])

    np.testing.assert_allclose(asyncio.run(task()), expected(["x"]), atol=1e-6)


def test_making_one_costs_no_library_and_no_settings() -> None:
    code = "import sys; from include.models.embeddings import get_embedder; e = get_embedder('titan-v2'); "
    code += "e.count_tokens('x'), e.name, e.dimension, e.limit_tokens; "
    code += "print([m for m in ('aiobotocore', 'botocore', 'boto3', 'httpx', 'numpy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("missing", ["URL", "MODEL", "DIMENSION"])
def test_missing_settings_are_named(server: ModelServer, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"FMOPS_EMBEDDING_{missing}")
    with pytest.raises(UserError, match=f"embedder 'openai' needs .*: set FMOPS_EMBEDDING_{missing}$"):
        get_embedder("openai")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://there/v1", "cannot be asked"),
        ("localhost:1/v1", "cannot be asked"),
        ("http://127.0.0.1:port/v1", "cannot be asked"),
    ],
)
def test_a_url_that_cannot_be_asked_is_the_users(
    server: ModelServer, url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_EMBEDDING_URL", url)
    with pytest.raises(UserError, match=message):
        get_embedder("openai").embed(["x"])


def test_no_region_and_no_credentials_are_the_users(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(UserError, match="credentials"):
        get_embedder("titan-v2").embed(["x"])
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(UserError, match="region.*AWS_DEFAULT_REGION"):
        get_embedder("titan-v2").embed(["x"])
    assert server.requests == []


def test_the_key_reaches_the_server_and_no_message(
    server: ModelServer, root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FMOPS_EMBEDDING_API_KEY", "sk-very-secret")
    server.faults = [Fault(status=503, say=b"sk-very-secret"), Fault(status=401, say=b"wrong key: sk-very-secret")]
    with (
        a_meter(root) as meter,
        pytest.raises(UserError, match=r"401 wrong key: \*\*\*: check the credentials") as found,
    ):
        try:
            embed_metered(get_embedder("openai"), ["x"], meter)
        finally:
            assert "very-secret" not in str(meter.events)
    assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert "very-secret" not in str(found.value) + caplog.text
    assert "again in" in caplog.text, "the throttle was logged"
    monkeypatch.setenv("FMOPS_EMBEDDING_API_KEY", "sk-very-secret\n")
    with pytest.raises(UserError, match="FMOPS_EMBEDDING_API_KEY holds a character") as found:
        get_embedder("openai")
    assert "very-secret" not in str(found.value)


# In languages that the one tokenizer at hand, made for English, takes apart no more than one made for them would.
PROSE = {
    "english": "Retries should wait a random time, because clients refused together would come back together.",
    "code": "def embed(self, texts: Sequence[str]) -> Vectors:\n    return np.zeros((len(texts), 384))",
    "numbers": "| 2026-01-31T12:00:59Z | 1,024.75 | 0x7f3a | 10.0.0.12:8080 |\n|---|---|---|---|\n",
    "french": "Les modèles réutilisent les vecteurs déjà calculés, sauf si le découpage a été modifié entre-temps.",
    "polish": "Każdy dokument jest najpierw dzielony na fragmenty, a następnie zamieniany na wektory liczb.",
    "russian": "Каждый документ сначала делится на части, а затем превращается в векторы чисел.",
    "greek": "Κάθε έγγραφο χωρίζεται πρώτα σε τμήματα και μετά μετατρέπεται σε διανύσματα.",
    "hebrew": "כל מסמך מחולק תחילה לקטעים ולאחר מכן מומר לווקטורים של מספרים.",
    "arabic": "يتم تقسيم كل مستند أولا إلى أجزاء ثم تحويله إلى متجهات من الأرقام.",
    "hindi": "प्रत्येक दस्तावेज़ को पहले भागों में बाँटा जाता है और फिर सदिशों में बदला जाता है।",
    "chinese": "每个文档首先被分成若干片段,然后转换为数字向量,以便检索。",
    "japanese": "それぞれの文書はまず断片に分割され、その後ベクトルに変換されます。",
    "korean": "각 문서는 먼저 조각으로 나뉜 다음 숫자 벡터로 변환됩니다.",
}


@pytest.mark.parametrize("language", PROSE)
def test_the_estimate_is_not_below_a_real_tokenizers_count(language: str) -> None:
    text = PROSE[language]
    counted = MiniLM().count_tokens(text)
    estimate = estimate_tokens(text)
    assert counted <= estimate
    assert estimate <= 3 * counted, "close enough to plan with"
    assert estimate_tokens(text * 50) == pytest.approx(50 * estimate, rel=0.1)


def test_the_estimate_knows_no_free_text() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens(" " * 4000) == 1000
    assert estimate_tokens("👩" * 100) >= 200
    assert [estimate_tokens(text) for text in ("a", "abc", "abcd", "a-b", "a\n\nb", "\ud800")] == [1, 1, 2, 3, 3, 1]
