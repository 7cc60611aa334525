"""The encoder-decoder transformer, T5 1.1's: plain PyTorch whose weights have the names that transformers gives them.

The encoder reads a passage with spans left out, the decoder writes the spans (Raffel et al., arXiv 1910.10683). Its
self-attention is masked, and cross-attention lets it look at what the encoder made. Positions are a learnt bias on the
distance, shared by the layers of a side; attention is not scaled, its initial weights are.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from include.training.decoder import INITIAL_STD
from include.training.presets import RELATIVE_BUCKETS, Preset

MAX_DISTANCE = 128
"""Beyond it all distances count as one."""
NORM_EPSILON = 1e-6


class Attention(nn.Module):
    """Of queries to keys and values, which come from `memory`."""

    def __init__(self, preset: Preset, *, has_positions: bool = False) -> None:
        super().__init__()
        self.heads = preset.heads
        self.q, self.k, self.v, self.o = (nn.Linear(preset.width, preset.width, bias=False) for _ in range(4))
        if has_positions:
            self.relative_attention_bias = nn.Embedding(RELATIVE_BUCKETS, preset.heads)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (self._split(layer(y)) for layer, y in ((self.q, x), (self.k, memory), (self.v, memory)))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=1.0)
        out: Tensor = self.o(y.transpose(1, 2).reshape(x.shape))
        return out

    def _split(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        return x.view(rows, length, self.heads, -1).transpose(1, 2)


class SelfAttentionLayer(nn.Module):
    """Normalise, look at oneself, add."""

    def __init__(self, preset: Preset, has_positions: bool) -> None:
        super().__init__()
        self.SelfAttention = Attention(preset, has_positions=has_positions)
        self.layer_norm = nn.RMSNorm(preset.width, eps=NORM_EPSILON)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        normed = self.layer_norm(x)
        return x + self.SelfAttention(normed, normed, bias)


class CrossAttentionLayer(nn.Module):
    """Normalise, look at what the encoder made, add."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.EncDecAttention = Attention(preset)
        self.layer_norm = nn.RMSNorm(preset.width, eps=NORM_EPSILON)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        return x + self.EncDecAttention(self.layer_norm(x), memory, bias)


class GatedFeedForward(nn.Module):
    """GELU-gated, with transformers' name."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(preset.width, preset.hidden, bias=False)
        self.wi_1 = nn.Linear(preset.width, preset.hidden, bias=False)
        self.wo = nn.Linear(preset.hidden, preset.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))
        return out


class FeedForwardLayer(nn.Module):
    """Normalise, transform, add."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.DenseReluDense = GatedFeedForward(preset)
        self.layer_norm = nn.RMSNorm(preset.width, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.DenseReluDense(self.layer_norm(x))
        return out


class Block(nn.Module):
    """Self-attention, in the decoder cross-attention, then feed-forward."""

    def __init__(self, preset: Preset, *, is_first: bool, is_decoder: bool) -> None:
        super().__init__()
        cross = [CrossAttentionLayer(preset)] if is_decoder else []
        self.layer = nn.ModuleList([SelfAttentionLayer(preset, is_first), *cross, FeedForwardLayer(preset)])


class Side(nn.Module):
    """The encoder, or the decoder."""

    def __init__(self, preset: Preset, *, is_decoder: bool) -> None:
        super().__init__()
        count = preset.side_layers
        self.block = nn.ModuleList(Block(preset, is_first=n == 0, is_decoder=is_decoder) for n in range(count))
        self.final_layer_norm = nn.RMSNorm(preset.width, eps=NORM_EPSILON)
        self.is_decoder = is_decoder

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor | None = None, outer: Tensor | None = None) -> Tensor:
        """`mask` and `outer` are added to the scores of self- and cross-attention: 0, or minus infinity."""
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias
        buckets = relative_buckets(x.shape[1], both_ways=not self.is_decoder, device=x.device)
        bias = table(buckets).permute(2, 0, 1)[None] + mask
        for block in self.block:
            layers = list(block.layer)
            x = layers[0](x, bias)
            if self.is_decoder:
                x = layers[1](x, memory, outer)
            x = layers[-1](x)
        out: Tensor = self.final_layer_norm(x)
        return out


class EncoderDecoder(nn.Module):
    """The model; input and output embeddings are one matrix, drawn small as the decoder-only model's.

    T5 draws it from 1 and scales the output, which AdamW's equal steps then move too slowly.
    """

    def __init__(self, preset: Preset, vocab_size: int) -> None:
        super().__init__()
        self.shared = nn.Embedding(vocab_size, preset.width)
        self.encoder = Side(preset, is_decoder=False)
        self.decoder = Side(preset, is_decoder=True)
        self._initialise(preset)

    def forward(self, inputs: Tensor, inputs_mask: Tensor, written: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats a target token; `written` is what the decoder has seen, -100 marks no target.

        inputs, inputs_mask (true where there is a token): (rows, input length); written, targets: (rows, target
        length).
        """
        logits = self.logits(inputs, inputs_mask, written)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100)

    def logits(self, inputs: Tensor, inputs_mask: Tensor, written: Tensor) -> Tensor:
        """(rows, target length, vocabulary)."""
        padding = torch.zeros(inputs.shape, device=inputs.device).masked_fill(~inputs_mask, -math.inf)[:, None, None]
        length = written.shape[1]
        causal = torch.full((length, length), -math.inf, device=written.device).triu(1)
        memory = self.encoder(self.shared(inputs), padding)
        out = self.decoder(self.shared(written), causal, memory, padding.expand(-1, -1, length, -1))
        return F.linear(out, self.shared.weight)

    def _initialise(self, preset: Preset) -> None:
        """Normal, by the width; queries besides by the heads', whose products are not scaled; outputs by the depth."""
        std = INITIAL_STD * preset.width**-0.5
        head_width = preset.width // preset.heads
        factors = {"q": head_width**-0.5, "o": (4 * preset.side_layers) ** -0.5, "wo": (4 * preset.side_layers) ** -0.5}
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=std * factors.get(name.split(".")[-2], 1.0))


def relative_buckets(length: int, *, both_ways: bool, device: torch.device) -> Tensor:
    """Which bias each distance from query to key has, (length, length): near ones each their own, far ones shared."""
    distance = torch.arange(length, device=device)[None] - torch.arange(length, device=device)[:, None]
    buckets, offset = RELATIVE_BUCKETS, torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        offset = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    scale = (buckets - exact) / math.log(MAX_DISTANCE / exact)
    far = exact + ((distance.clamp(min=1).float() / exact).log() * scale).long()
    return offset + torch.where(distance < exact, distance, far.clamp(max=buckets - 1))


def hugging_face_config(preset: Preset, vocab_size: int, end_id: int, pad_id: int) -> dict[str, Any]:
    """What transformers' T5Config takes to build the same model."""
    return {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": vocab_size,
        "d_model": preset.width,
        "d_kv": preset.width // preset.heads,
        "d_ff": preset.hidden,
        "num_layers": preset.side_layers,
        "num_decoder_layers": preset.side_layers,
        "num_heads": preset.heads,
        "relative_attention_num_buckets": RELATIVE_BUCKETS,
        "relative_attention_max_distance": MAX_DISTANCE,
        "layer_norm_epsilon": NORM_EPSILON,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "tie_word_embeddings": False,  # to T5Config it says that the output is not scaled; they are tied all the same
        "decoder_start_token_id": pad_id,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
        "dtype": "float32",
    }
