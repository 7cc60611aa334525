"""Embedders that are services: Bedrock's Titan and Cohere models, and any OpenAI-compatible server.

They are cheap to make: nothing is imported, read or asked before the first text is embedded.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from include.aws import aws_client
from include.config import Settings, load_settings
from include.errors import EmbeddingError, UserError
from include.models.client import Client, Policy, TransientError, aws_errors, connection_errors, refusal

if TYPE_CHECKING:
    import numpy as np

    Vectors = np.ndarray[Any, np.dtype[np.float32]]
    Call = Callable[[Sequence[str]], Awaitable[Vectors]]


@dataclass(kw_only=True, slots=True)
class Usage:
    """What embedding some texts took; counted while the calls are made, so that it holds for a failure as well."""

    requests: int = 0
    """Calls made, those that were refused included."""
    tokens: int = 0
    exact: bool = True
    """Whether the service reported all of the tokens; else some are estimates."""


class RemoteEmbedder(ABC):
    """What embedders that are services share: batches, the limits on a text, and the check of every answer.

    Tokens are estimated by estimate_tokens(), as no service publishes its tokenizer.
    """

    name: str
    dimension: int
    limit_tokens: int
    packages: tuple[str, ...] = ()
    texts_per_call: int

    def count_tokens(self, text: str) -> int:
        """An estimate of the tokens of a text, above the true number for ordinary text."""
        return estimate_tokens(text)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of documents, float32 (len(texts), dimension); raises as embed_counted()."""
        return self.embed_counted(texts, Usage(), query=False)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of questions, to be compared with those of documents."""
        return self.embed_counted(texts, Usage(), query=True)

    def embed_counted(self, texts: Sequence[str], usage: Usage, *, query: bool) -> Vectors:
        """Unit vectors, float32 (len(texts), dimension); what it takes is added to `usage`.

        Raises UserError for a text that the model does not read whole and for what no retry helps, EmbeddingError for
        an answer that cannot be the vectors, and BusyError, TimeoutError or ConnectionError at the policy's deadline.
        """
        import numpy as np

        for number, text in enumerate(texts):
            self._check_length(number, text)
        size = self.texts_per_call
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        answers = self._client.map(lambda: self._connect(usage, query), batches, tokens=self._count_batch)
        return np.concatenate([np.zeros((0, self.dimension), dtype=np.float32), *answers])

    @abstractmethod
    def _connect(self, usage: Usage, query: bool) -> AbstractAsyncContextManager[Call]:
        """A connection, which yields what embeds one batch."""

    @cached_property
    def _client(self) -> Client:
        return Client(self.name, Policy.of(load_settings()))

    def _count_batch(self, batch: Sequence[str]) -> int:
        return sum(map(self.count_tokens, batch))

    def _check_length(self, number: int, text: str) -> None:
        if not text.strip():
            raise UserError(f"text {number} is empty: {self.name} embeds no empty text")
        if (tokens := self.count_tokens(text)) > self.limit_tokens:
            raise UserError(
                f"text {number} has about {tokens} tokens, but {self.name} reads {self.limit_tokens}: "
                "shorten it, it would be cut in silence"
            )

    def _read(self, data: bytes, batch: Sequence[str], usage: Usage, reported: int | None = None) -> Vectors:
        """The vectors of one answer; its tokens are counted as it reports them, or else as estimated."""
        answer = self._parse(data)
        try:
            rows, tokens = self._rows(answer)
        except (AttributeError, KeyError, TypeError) as error:
            raise EmbeddingError(f"{self.name} answered no embeddings but {str(answer)[:80]!r}") from error
        counted = tokens if isinstance(tokens, int) else reported
        usage.tokens += self._count_batch(batch) if counted is None else counted
        usage.exact = usage.exact and counted is not None
        return self._vectors(rows, len(batch))

    @abstractmethod
    def _rows(self, answer: Any) -> tuple[list[object], object]:
        """An answer's vectors in the order of the texts, and how many tokens it says they had, if it does."""

    def _parse(self, data: bytes) -> Any:
        """An answer's JSON; one that ends early may be whole the next time."""
        try:
            return json.loads(data)
        except ValueError as error:
            if data.lstrip()[:1] in (b"{", b""):
                raise TransientError(f"truncated answer of {len(data)} bytes", "network") from error
            raise EmbeddingError(f"{self.name} answered no JSON but {data[:80]!r}") from error

    def _vectors(self, rows: list[object], wanted: int) -> Vectors:
        """The rows of an answer as unit vectors."""
        import numpy as np

        if len(rows) != wanted:
            raise EmbeddingError(f"{self.name} answered {len(rows)} vectors for {wanted} texts")
        for number, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != self.dimension:
                found = f"{len(row)} numbers" if isinstance(row, list) else type(row).__name__
                raise EmbeddingError(f"{self.name} answered {found} for text {number}, must be {self.dimension}")
        try:
            vectors = np.asarray(rows, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise EmbeddingError(f"{self.name} answered something other than numbers: {error}") from error
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        usable = np.isfinite(lengths) & (lengths > 0)
        if not usable.all():
            worst = int(np.argmin(usable))
            raise EmbeddingError(f"{self.name} answered a vector of length {lengths[worst, 0]} for text {worst}")
        unit: Vectors = (vectors / lengths).astype(np.float32)
        return unit


class Bedrock(RemoteEmbedder):
    """A model of Amazon Bedrock, in the region and with the credentials of the environment."""

    def __init__(self, model: str, dimension: int) -> None:
        self.model = model
        self.dimension = dimension
        self.name = f"{model}-{dimension}"

    @abstractmethod
    def _body(self, batch: Sequence[str], query: bool) -> dict[str, Any]:
        """What the model is sent."""

    @asynccontextmanager
    async def _connect(self, usage: Usage, query: bool) -> AsyncIterator[Call]:
        policy = self._client.policy
        with aws_errors(self.name):
            async with aws_client(
                "bedrock-runtime", timeout_s=policy.attempt_s, connections=policy.concurrency
            ) as client:

                async def call(batch: Sequence[str]) -> Vectors:
                    usage.requests += 1
                    body = json.dumps(self._body(batch, query))
                    with aws_errors(self.name):
                        reply = await client.invoke_model(
                            modelId=self.model, body=body, contentType="application/json", accept="application/json"
                        )
                        async with reply["body"] as stream:  # or a broken answer would keep its connection
                            data = await stream.read()
                    tokens = reply["ResponseMetadata"]["HTTPHeaders"].get("x-amzn-bedrock-input-token-count", "")
                    return self._read(data, batch, usage, int(tokens) if tokens.isdecimal() else None)

                yield call


class Titan(Bedrock):
    """Titan Text Embeddings V2: 1024 dimensions, texts of 8192 tokens, one text a call."""

    limit_tokens = 8192
    texts_per_call = 1

    def __init__(self) -> None:
        super().__init__("amazon.titan-embed-text-v2:0", 1024)

    def _body(self, batch: Sequence[str], query: bool) -> dict[str, Any]:
        return {"inputText": batch[0], "dimensions": self.dimension, "normalize": True}

    def _rows(self, answer: Any) -> tuple[list[object], object]:
        return [answer["embedding"]], answer.get("inputTextTokenCount")


class Cohere(Bedrock):
    """Cohere Embed v3: 1024 dimensions, texts of 512 tokens, 96 texts a call; questions are embedded as such."""

    limit_tokens = 512
    texts_per_call = 96

    def __init__(self, language: str) -> None:
        super().__init__(f"cohere.embed-{language}-v3", 1024)

    def _body(self, batch: Sequence[str], query: bool) -> dict[str, Any]:
        kind = "search_query" if query else "search_document"
        return {"texts": list(batch), "input_type": kind, "truncate": "NONE", "embedding_types": ["float"]}

    def _rows(self, answer: Any) -> tuple[list[object], object]:
        return list(answer["embeddings"]["float"]), None


class OpenAICompatible(RemoteEmbedder):
    """The model of the settings embedding_*, on any server that speaks POST /embeddings of OpenAI's API."""

    texts_per_call = 32  # what Hugging Face's server takes by default

    def __init__(self, settings: Settings | None = None, named: str = "") -> None:
        """`named` is a `key` of such a model, and stands for the settings' model and dimension."""
        settings = settings or load_settings()
        if named:
            model, _, size = named.removeprefix("openai:").rpartition(":")
            settings = settings.model_copy(update={"embedding_model": model, "embedding_dimension": int(size or 0)})
        self._url, model, dimension = _complete(settings)
        self.key = f"openai:{model}:{dimension}"
        self._key = settings.embedding_api_key.get_secret_value()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UserError(
                "FMOPS_EMBEDDING_API_KEY holds a character that no HTTP header may hold, such as a line end"
            )
        self._model = model
        self.name = f"openai-{model}-{dimension}"
        self.dimension = dimension
        self.limit_tokens = settings.embedding_limit_tokens

    @asynccontextmanager
    async def _connect(self, usage: Usage, query: bool) -> AsyncIterator[Call]:
        import httpx

        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(headers=headers, timeout=self._client.policy.attempt_s) as client:

            async def call(batch: Sequence[str]) -> Vectors:
                usage.requests += 1
                # As ASCII, which can also say half of a surrogate pair.
                body = json.dumps({"model": self._model, "input": list(batch)})
                with connection_errors(f"{self.name} at FMOPS_EMBEDDING_URL"):
                    reply = await client.post(f"{self._url}/embeddings", content=body)
                if not reply.is_success:
                    said = reply.text.replace(self._key, "***")
                    raise refusal(f"{self.name} at FMOPS_EMBEDDING_URL", reply.status_code, said, reply.headers)
                return self._read(reply.content, batch, usage)

            yield call

    def _rows(self, answer: Any) -> tuple[list[object], object]:
        rows = {row["index"]: row["embedding"] for row in answer["data"]}
        if set(rows) != set(range(len(answer["data"]))):
            raise EmbeddingError(f"{self.name} answered vectors of the texts {sorted(rows, key=str)[:10]}")
        return [rows[number] for number in range(len(rows))], (answer.get("usage") or {}).get("prompt_tokens")


def _complete(settings: Settings) -> tuple[str, str, int]:
    """URL, model and dimension; UserError naming the variables that are not set."""
    url, model, dimension = settings.embedding_url, settings.embedding_model, settings.embedding_dimension
    if url and model and dimension:
        return url.rstrip("/"), model, dimension
    found = {"FMOPS_EMBEDDING_URL": url, "FMOPS_EMBEDDING_MODEL": model, "FMOPS_EMBEDDING_DIMENSION": dimension}
    missing = ", ".join(name for name, value in found.items() if not value)
    raise UserError(f"embedder 'openai' needs {', '.join(found)}: set {missing}")


_PIECES = re.compile(r"[A-Za-z]+|[\t\n\r\f\v]+|[^\x00-\x7f]+|[^A-Za-z\s]")


def estimate_tokens(text: str) -> int:
    """A number of tokens that ordinary text of any language stays below, for any tokenizer in use.

    One for each three letters begun of an ASCII word, one for another ASCII character or a run of line ends and tabs,
    three for each five bytes of UTF-8 outside ASCII; and never less than one for four characters, the services' own
    rule. Measured on prose, code, tables and messages in 21 languages, it says 1.02 to 4 times what the tokenizers of
    BERT, GPT-4, GPT-4o, Llama 3 and Qwen 3 say, 1.4 to 1.8 times for English. A model made for English alone may
    find a tenth more in a German sentence; strings of random letters have more anywhere.
    """
    count = 0
    for piece in _PIECES.findall(text):
        if not piece.isascii():
            count += (3 * len(piece.encode(errors="replace")) + 4) // 5
        else:
            count += (len(piece) + 2) // 3 if piece.isalpha() else 1
    return max(count, (len(text) + 3) // 4)
