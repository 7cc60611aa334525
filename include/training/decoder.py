"""The decoder-only transformer, Llama's: plain PyTorch whose weights have the names that transformers gives them.

Pre-normalised blocks of causal self-attention with rotary positions (Su et al., arXiv 2104.09864) and a gated
feed-forward (Shazeer, arXiv 2002.05202). A process that trains need not import transformers, which takes 9 seconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from include.training.presets import Preset

ROPE_THETA = 10_000.0
NORM_EPSILON = 1e-5
INITIAL_STD = 0.7
"""Of a matrix, times the root of the width: 0.05 for `tiny`, which learns a quarter slower from GPT-2's 0.02."""


class Attention(nn.Module):
    """Causal self-attention with as many key-value heads as the preset shares."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.heads, self.kv_heads = preset.heads, preset.kv_heads
        self.head_width = preset.width // preset.heads
        shared = self.kv_heads * self.head_width
        self.q_proj = nn.Linear(preset.width, preset.width, bias=False)
        self.k_proj = nn.Linear(preset.width, shared, bias=False)
        self.v_proj = nn.Linear(preset.width, shared, bias=False)
        self.o_proj = nn.Linear(preset.width, preset.width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        rows, length, _ = x.shape
        q = rotate(self.q_proj(x).view(rows, length, self.heads, -1).transpose(1, 2), rotation)
        k = rotate(self.k_proj(x).view(rows, length, self.kv_heads, -1).transpose(1, 2), rotation)
        v = self.v_proj(x).view(rows, length, self.kv_heads, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=self.heads != self.kv_heads
        )
        projected: Tensor = self.o_proj(y.transpose(1, 2).reshape(rows, length, -1))
        return projected


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(preset.width, preset.hidden, bias=False)
        self.up_proj = nn.Linear(preset.width, preset.hidden, bias=False)
        self.down_proj = nn.Linear(preset.hidden, preset.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """Attention, then feed-forward, each added to what came in."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.self_attn = Attention(preset)
        self.mlp = FeedForward(preset)
        self.input_layernorm = nn.RMSNorm(preset.width, eps=NORM_EPSILON)
        self.post_attention_layernorm = nn.RMSNorm(preset.width, eps=NORM_EPSILON)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """All but the output, under the name `model` as in transformers."""

    def __init__(self, preset: Preset, vocab_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, preset.width)
        self.layers = nn.ModuleList(Block(preset) for _ in range(preset.layers))
        self.norm = nn.RMSNorm(preset.width, eps=NORM_EPSILON)


class Decoder(nn.Module):
    """The language model; the output embedding is the input's."""

    def __init__(self, preset: Preset, vocab_size: int) -> None:
        super().__init__()
        self.model = Body(preset, vocab_size)
        self.head_width = preset.width // preset.heads
        self._initialise(preset)

    def forward(self, tokens: Tensor, positions: Tensor, targets: Tensor, is_packed: bool = True) -> Tensor:
        """Mean cross-entropy in nats a token; all (rows, context).

        `positions` begin anew with each document; with is_packed false each row is known to be of one.
        """
        logits = self.logits(tokens, positions, is_packed)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def logits(self, tokens: Tensor, positions: Tensor, is_packed: bool = True) -> Tensor:
        """(rows, context, vocabulary)."""
        mask = document_mask(positions) if is_packed else None
        x = self.model.embed_tokens(tokens)
        rotation = rotations(positions, self.head_width, x.dtype)
        for block in self.model.layers:
            x = block(x, rotation, mask)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def _initialise(self, preset: Preset) -> None:
        """Normal; what is added to the residual stream is scaled down with depth (Radford et al., GPT-2, 2019)."""
        std = initial_std(preset)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                is_output = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=std / (2 * preset.layers) ** 0.5 if is_output else std)


def initial_std(preset: Preset) -> float:
    """Standard deviation of the first weights."""
    return INITIAL_STD * preset.width**-0.5


def document_mask(positions: Tensor) -> Tensor:
    """Which tokens a token may look at: itself and what came before it in its own document.

    (rows, 1, context, context), true where it may.
    """
    document = (positions == 0).cumsum(1)
    length = positions.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=positions.device).tril()
    return ((document[:, :, None] == document[:, None, :]) & causal)[:, None]


def rotations(positions: Tensor, head_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angles, (rows, 1, context, head_width)."""
    halves = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    angles = positions[..., None].float() * ROPE_THETA**-halves
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair of a head's halves by its position's angle; (rows, heads, context, head_width)."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


def hugging_face_config(preset: Preset, vocab_size: int, end_id: int, pad_id: int) -> dict[str, Any]:
    """What transformers' LlamaConfig takes to build the same model."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": preset.width,
        "intermediate_size": preset.hidden,
        "num_hidden_layers": preset.layers,
        "num_attention_heads": preset.heads,
        "num_key_value_heads": preset.kv_heads,
        "head_dim": preset.width // preset.heads,
        "max_position_embeddings": preset.context,
        "rms_norm_eps": NORM_EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "initializer_range": initial_std(preset),
        "tie_word_embeddings": True,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
        "dtype": "float32",
    }
