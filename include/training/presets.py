"""One dial, the size preset, from which everything else of a model and its training is derived.

Parameters are counted exactly (a test compares with the models themselves). FLOPs of training are 6 x parameters x
tokens (Kaplan et al., arXiv 2001.08361, section 2.1) plus the attention products, 12 x layers x context x width a token
(as in PaLM's MFU, Chowdhery et al., arXiv 2204.02311, appendix B; halved where attention is causal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from include.errors import UserError

Architecture = Literal["decoder", "encoder_decoder"]
ARCHITECTURES: tuple[Architecture, ...] = ("decoder", "encoder_decoder")

HEAD_WIDTH = 64
"""Of one attention head, where the width allows several; what GPUs' attention kernels are fastest at."""
RELATIVE_BUCKETS = 32
"""Of T5's relative positions, per head."""
ENCODER_DECODER_RATE = 1e-3
"""The highest learning rate that an encoder-decoder has by default: at 0.005, the decoder's, four layers of
`tiny`'s width were no better than the unigram after 180 steps; after 250 they came to 5.38 nats a token from 0.0025 and
to 5.22 from this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A size: what the model is, and how it is trained by default."""

    name: str
    layers: int
    """Blocks of the decoder-only model; the encoder-decoder has half of them on each side."""
    width: int
    """Of the residual stream."""
    vocab_size: int
    context: int
    """Tokens of one training sequence."""
    kv_heads: int
    """Heads of keys and values that the query heads share (grouped-query attention)."""
    batch_tokens: int
    """Tokens of one optimiser step, over all processes."""
    micro_batch_tokens: int
    """Tokens that one process computes at once; the rest of its share is accumulated."""
    steps: int
    learning_rate: float
    """Of the decoder, at its peak."""
    weight_decay: float
    """Of matrices, a step, times the learning rate; more where the corpus is small and seen several times."""
    cpu_processes: int
    """That share a CPU's cores. Threads of one process wait for each other after each product, processes once a step:
    where products are small, two took 5,400 tokens/s on two cores for 4,300."""
    image: Literal["torch-cpu", "torch-gpu"]
    """What a training container holds (include/catalog/images.yaml)."""
    instance_type: str
    instance_count: int

    @property
    def heads(self) -> int:
        """Query heads."""
        return max(1, self.width // HEAD_WIDTH)

    @property
    def hidden(self) -> int:
        """Width inside the gated feed-forward: 8/3 of the model's, so that it costs as much as an ungated one of 4."""
        return -(-self.width * 8 // 3 // 64) * 64

    @property
    def side_layers(self) -> int:
        """Layers of the encoder, and of the decoder, of the encoder-decoder model."""
        return max(1, self.layers // 2)

    @property
    def tokens(self) -> int:
        """Of all steps."""
        return self.steps * self.batch_tokens


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="tiny",
            layers=2,
            width=192,
            vocab_size=2048,
            context=256,
            kv_heads=3,
            batch_tokens=2048,
            micro_batch_tokens=2048,
            steps=1000,
            learning_rate=5e-3,
            weight_decay=1.0,
            cpu_processes=2,
            image="torch-cpu",
            instance_type="ml.c7i.2xlarge",
            instance_count=1,
        ),
        Preset(
            name="mini",
            layers=8,
            width=384,
            vocab_size=8192,
            context=512,
            kv_heads=6,
            batch_tokens=4096,
            micro_batch_tokens=4096,
            steps=16_000,
            learning_rate=2e-3,
            weight_decay=0.3,
            cpu_processes=1,
            image="torch-cpu",
            instance_type="ml.c7i.8xlarge",
            instance_count=1,
        ),
        Preset(
            name="small",
            layers=12,
            width=768,
            vocab_size=32_768,
            context=1024,
            kv_heads=12,
            batch_tokens=524_288,
            micro_batch_tokens=32_768,
            steps=5000,
            learning_rate=6e-4,
            weight_decay=0.1,
            cpu_processes=1,
            image="torch-gpu",
            instance_type="ml.p5.4xlarge",
            instance_count=1,
        ),
        Preset(
            name="1b",
            layers=18,
            width=2048,
            vocab_size=65_536,
            context=2048,
            kv_heads=8,
            batch_tokens=2_097_152,
            micro_batch_tokens=16_384,
            steps=10_000,
            learning_rate=3e-4,
            weight_decay=0.1,
            cpu_processes=1,
            image="torch-gpu",
            instance_type="ml.p5.48xlarge",
            instance_count=1,
        ),
    )
}


def get_preset(name: str) -> Preset:
    """The preset of that name; UserError if there is none."""
    if name not in PRESETS:
        raise UserError(f"size={name!r} is no preset: write one of {', '.join(PRESETS)}")
    return PRESETS[name]


def learning_rate_of(preset: Preset, architecture: str) -> float:
    """The default at its peak."""
    most = ENCODER_DECODER_RATE if architecture == "encoder_decoder" else preset.learning_rate
    return min(preset.learning_rate, most)


def cpu_processes(preset: Preset, parallelism: str, batch_tokens: int, hosts: int) -> int:
    """Processes that share the cores of each host where a number is not asked for; 1 if a batch cannot be parted."""
    if parallelism == "single":
        return 1
    return preset.cpu_processes if batch_tokens % (preset.cpu_processes * hosts * preset.context) == 0 else 1


def num_parameters(preset: Preset, architecture: Architecture, vocab_size: int | None = None) -> int:
    """Weights of the model; input and output embeddings are the same matrix in both architectures."""
    width, vocab = preset.width, vocab_size or preset.vocab_size
    feed_forward = 3 * width * preset.hidden
    if architecture == "decoder":
        attention = 2 * width * width + 2 * width * preset.kv_heads * (width // preset.heads)
        return vocab * width + preset.layers * (attention + feed_forward + 2 * width) + width
    attention = 4 * width * width
    side = preset.side_layers
    positions = 2 * RELATIVE_BUCKETS * preset.heads
    encoder = side * (attention + feed_forward + 2 * width)
    decoder = side * (2 * attention + feed_forward + 3 * width)
    return vocab * width + encoder + decoder + 2 * width + positions


def flops_per_token(preset: Preset, architecture: Architecture, vocab_size: int | None = None) -> float:
    """Of training, forward and backward, for one token of a batch.

    Of the encoder-decoder a token passes one of the two sides; the embedding is counted once, as the output it is.
    """
    parameters = num_parameters(preset, architecture, vocab_size)
    attention = 12 * preset.layers * preset.width * preset.context / 2
    if architecture == "decoder":
        return 6 * parameters + attention
    return 6 * parameters / 2 + attention
