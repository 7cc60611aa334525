"""Builds the model of a preset, with its weights drawn from a seed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from include.training import decoder, encoder_decoder
from include.training.presets import Architecture, Preset


def build_model(preset: Preset, architecture: Architecture, vocab_size: int, seed: int) -> nn.Module:
    """The model on the default device; the same seed gives the same weights on the same kind of device."""
    torch.manual_seed(seed)
    if architecture == "decoder":
        return decoder.Decoder(preset, vocab_size)
    return encoder_decoder.EncoderDecoder(preset, vocab_size)


def hugging_face_config(
    preset: Preset, architecture: Architecture, vocab_size: int, end_id: int, pad_id: int
) -> dict[str, Any]:
    """The configuration by which transformers builds the same model; weights have the same names there."""
    module = decoder if architecture == "decoder" else encoder_decoder
    return module.hugging_face_config(preset, vocab_size, end_id, pad_id)
