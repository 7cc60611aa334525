"""AdamW, as all runs have it."""

from __future__ import annotations

import torch
from torch import nn

BETAS = (0.9, 0.95)
"""GPT-3's, Brown et al., arXiv 2005.14165, appendix B."""


def make_optimiser(model: nn.Module, peak: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW in its fused form, which updates all weights in one pass; embeddings and norms do not decay."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        is_matrix = weight.ndim == 2 and not any(part in name for part in ("embed_tokens", "shared", "bias"))
        (decayed if is_matrix else others).append(weight)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=BETAS, fused=True)
