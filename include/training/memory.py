"""What a process of training needs of its device's memory, estimated before anything runs.

The method is that of Korthikanti et al., arXiv 2205.05198, section 4: add up what the backward pass needs of each
layer. Their 34 bytes a token and unit of width are of GPT's blocks in 16 bits; ours are what autograd keeps of the
blocks in decoder.py and encoder_decoder.py, on a CPU, where no fused kernel saves any of it; a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass

from include.training.compute import Compute, is_bf16
from include.training.config import PretrainConfig
from include.training.presets import Preset, num_parameters

STATE_BYTES = 16
"""Of a parameter: weight, gradient and AdamW's two moments, each in float32."""
BF16_COPY_BYTES = 2
"""Of a parameter, that autocast keeps of it for the length of a step."""
DDP_BUCKET_BYTES = 4
"""Of a parameter, since DDP keeps gradients once more to exchange them."""
CHECKPOINT_BYTES = 12
"""Of a parameter, on disk: weight and moments."""
LOGIT_BYTES = 16
"""Of a token and an entry of the vocabulary at the begin of the backward pass: logits, their logarithms as
probabilities, and the gradients of both, each in float32."""
BLOCK_BYTES = {
    ("decoder", "fp32"): (40, 16),
    ("decoder", "bf16"): (34, 8),
    ("encoder_decoder", "fp32"): (40, 16),
    ("encoder_decoder", "bf16"): (44, 8),
}
"""Of a token in a block, for each unit of the width and of the feed-forward's: 10 tensors of the one (inputs, norms,
queries, keys, values, what attention gives) and 4 of the other. In bfloat16 the residual stream and its norms stay in
float32, and so does attention with a learnt bias."""
GPU_RUNTIME_GIB, CPU_RUNTIME_GIB = 1.0, 0.75
"""Of a process before it has a model: CUDA's context and work spaces; torch itself, measured."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Of one process, in GiB."""

    state: float
    """Weights, gradients, optimiser."""
    activations: float
    """At the begin of the backward pass, with the logits."""
    runtime: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.state + self.activations + self.runtime


def parallelism(config: PretrainConfig, world: int) -> str:
    """single, ddp or fsdp, as the trainer takes `auto`."""
    if config.parallelism == "auto":
        return "single" if world == 1 else "ddp"
    return config.parallelism


def micro_rows(config: PretrainConfig, world: int) -> int:
    """Sequences that a process computes at once: the most that divide its share of a batch."""
    share = config.batch_tokens // config.preset.context // world
    most = max(1, config.micro_batch_tokens // config.preset.context)
    return max(rows for rows in range(1, min(share, most) + 1) if share % rows == 0)


def memory_of(config: PretrainConfig, compute: Compute) -> Memory:
    """What one process needs."""
    preset, in_bf16 = config.preset, is_bf16(config, compute.is_gpu)
    parameters = num_parameters(preset, config.architecture, config.vocab_size)
    how = parallelism(config, compute.world)
    if how == "fsdp":
        # Its share, and what is gathered at once: the embedding, two blocks, and as much of gradients.
        block = (parameters - config.vocab_size * preset.width) / preset.layers
        gathered = 2 * (2 if in_bf16 else 4) * (config.vocab_size * preset.width + 2 * block)
        state = STATE_BYTES * parameters / compute.world + gathered
    else:
        copies = (BF16_COPY_BYTES if in_bf16 else 0) + (DDP_BUCKET_BYTES if how == "ddp" else 0)
        state = parameters * (STATE_BYTES + copies)
    tokens = micro_rows(config, compute.world) * preset.context
    return Memory(
        state=state / GIB,
        activations=tokens * (kept_bytes_per_token(config, in_bf16) + _logits_bytes_per_token(config)) / GIB,
        runtime=GPU_RUNTIME_GIB if compute.is_gpu else CPU_RUNTIME_GIB,
    )


def kept_bytes_per_token(config: PretrainConfig, in_bf16: bool) -> float:
    """What all layers keep of a token of the batch for the backward pass, without the logits."""
    preset, size = config.preset, 2 if in_bf16 else 4
    of_width, of_hidden = BLOCK_BYTES[config.architecture, "bf16" if in_bf16 else "fp32"]
    block = of_width * preset.width + of_hidden * preset.hidden
    if config.architecture == "decoder":
        # Scaled dot-product attention keeps no scores, but in each layer the mask that parts documents. Outside the
        # layers: the embedding, and the last norm's input and output.
        return preset.layers * (block + size * preset.context) + 3 * 4 * preset.width
    scores = 4 * preset.heads * preset.context  # kept by attention with a learnt bias
    memory = 2 * size * preset.width  # keys and values of what the encoder made, in each layer of the decoder
    decoder = 1.5 * block * _target_share(preset)  # whose blocks have two attentions
    return preset.side_layers * (block + scores + memory + decoder)


def _logits_bytes_per_token(config: PretrainConfig) -> float:
    share = 1.0 if config.architecture == "decoder" else _target_share(config.preset)
    return LOGIT_BYTES * config.vocab_size * share


def _target_share(preset: Preset) -> float:
    """Tokens that the encoder-decoder writes for each that it reads."""
    from include.training.loader import longest_target

    return longest_target(preset.context) / preset.context
