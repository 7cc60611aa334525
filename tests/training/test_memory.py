"""What a process of training needs: by hand, and against what autograd keeps of the real models."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from include.training.compute import compute_of, on_instances
from include.training.memory import GIB, kept_bytes_per_token, memory_of, micro_rows, parallelism
from include.training.presets import ARCHITECTURES, Architecture
from tests.training.in_jobs import run_in_jobs
from tests.training.planning import here, on_aws

KEPT = """
import json
import torch
from include.training.loader import longest_target
from include.training.model import build_model
from include.training.presets import ARCHITECTURES, PRESETS

ROWS = 3  # so that no activation has a shape of a weight
torch.set_num_threads(1)

def kept_bytes_per_token(preset, architecture, in_bf16):
    model = build_model(preset, architecture, preset.vocab_size, 0)
    weights = {weight.data_ptr() for weight in model.parameters()}
    copies = {tuple(shape) for weight in model.parameters() for shape in (weight.shape, weight.shape[::-1])}
    kept = {}

    def keep(tensor):
        is_copy = tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in copies  # autocast's, of a weight
        is_logits = preset.vocab_size in tensor.shape
        if tensor.data_ptr() not in weights and not is_copy and not is_logits:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.randint(0, preset.vocab_size, (ROWS, preset.context))
    written = tokens[:, : longest_target(preset.context)]
    positions = (torch.arange(preset.context) % 97).expand(ROWS, -1)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=in_bf16),
    ):
        if architecture == "decoder":
            model(tokens, positions, tokens)
        else:
            model(tokens, torch.ones_like(tokens, dtype=torch.bool), written, written)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / tokens.numel()

print(json.dumps({
    f"{size} {architecture} {in_bf16}": kept_bytes_per_token(PRESETS[size], architecture, in_bf16)
    for size in ("tiny", "mini") for architecture in ARCHITECTURES for in_bf16 in (False, True)
}))
"""


def test_tiny_by_hand() -> None:
    # 2 layers, width 192, hidden 512, context 256, vocabulary 2,048, 1,278,912 parameters; 8 rows at once, float32.
    # State: 1,278,912 x 16 bytes. A block keeps 40 x 192 + 16 x 512 = 15,872 bytes a token, and a mask of 4 x 256.
    # Outside the blocks 3 x 4 x 192 = 2,304 bytes a token.
    # Activations: 2,048 tokens x (2 x (15,872 + 1,024) + 2,304 + logits 16 x 2,048) = 2,048 x 68,864.
    config = on_aws(processes=1)
    memory = memory_of(config, compute_of(config))
    assert memory.state * GIB == pytest.approx(20_462_592)
    assert memory.activations * GIB == pytest.approx(141_033_472)
    assert memory.total == pytest.approx(0.0191 + 0.1313 + 0.75, abs=1e-3)


def test_1b_by_hand() -> None:
    # 18 layers, width 2,048, hidden 5,504, context 2,048, vocabulary 65,536, 931,735,552 parameters; DDP on 8 GPUs.
    # State: 16 bytes a parameter, 2 of its bfloat16 copy, 4 of DDP's buckets: x 22. Each process takes
    # 2,097,152 / 8 = 262,144 tokens of a step, 16,384 of them at once: 8 rows.
    # A block: 34 x 2,048 + 8 x 5,504 = 113,664 bytes a token, and a mask of 2 x 2,048.
    # Outside the blocks 3 x 4 x 2,048 = 24,576 bytes a token.
    # Activations: 16,384 x (18 x (113,664 + 4,096) + 24,576 + logits 16 x 65,536) = 16,384 x 3,192,832.
    config = on_aws(size="1b")
    memory = memory_of(config, compute_of(config))
    assert memory.state * GIB == pytest.approx(20_498_182_144)
    assert memory.activations * GIB == pytest.approx(52_311_359_488)
    assert memory.total == pytest.approx(19.09 + 48.72 + 1.0, abs=0.01)


def test_fsdp_by_hand() -> None:
    # As above. An eighth of 931,735,552 x 16, and gathered at once in bfloat16, with gradients: the embedding of
    # 134,217,728 and two blocks of (931,735,552 - 134,217,728) / 18 = 44,306,545.8 parameters: 2 x 2 x 222,830,819.6.
    config = on_aws(size="1b", parallelism="fsdp")
    memory = memory_of(config, compute_of(config))
    assert memory.state * GIB == pytest.approx(931_735_552 * 2 + 891_323_278, abs=1)


def test_more_processes_need_less_each_with_fsdp_and_the_same_with_ddp() -> None:
    state = {
        (how, count): memory_of(config, compute_of(config)).state
        for how in ("ddp", "fsdp")
        for count in (1, 2, 4)
        for config in [on_aws(size="1b", parallelism=how, instance_count=count)]
    }
    assert state["fsdp", 1] > state["fsdp", 2] > state["fsdp", 4]
    assert state["ddp", 1] == state["ddp", 2] == state["ddp", 4] > state["fsdp", 1]


def test_auto_is_single_for_one_process_and_ddp_for_several() -> None:
    assert [parallelism(on_aws(), world) for world in (1, 2)] == ["single", "ddp"]
    assert parallelism(on_aws(parallelism="fsdp"), 8) == "fsdp"


def test_what_fits_at_once_is_less_on_a_smaller_part_of_the_batch() -> None:
    config = on_aws(size="small")
    gpu = on_instances(config, "ml.p5.4xlarge")
    smaller = memory_of(config.model_copy(update={"micro_batch_tokens": 16_384}), gpu)
    assert smaller.activations == pytest.approx(memory_of(config, gpu).activations / 2)


@settings(deadline=None)
@given(rows=st.integers(1, 512), micro=st.integers(1, 64), world=st.integers(1, 64))
def test_rows_at_once_divide_a_processes_share(rows: int, micro: int, world: int) -> None:
    assume(rows % world == 0)
    tokens = {"batch_tokens": rows * 256, "micro_batch_tokens": micro * 256}
    found = micro_rows(here().model_copy(update=tokens), world)
    share = rows // world
    assert share % found == 0 and found <= micro
    assert not any(share % more == 0 for more in range(found + 1, min(share, micro) + 1)), "it is the most"


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    """Bytes a token that autograd keeps, by `size architecture in_bf16`."""
    done = run_in_jobs(KEPT)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("size", ["tiny", "mini"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("in_bf16", [False, True])
def test_the_estimate_is_what_autograd_keeps(
    measured: dict[str, float], size: str, architecture: Architecture, in_bf16: bool
) -> None:
    estimated = kept_bytes_per_token(here(size=size, architecture=architecture), in_bf16)
    assert estimated == pytest.approx(measured[f"{size} {architecture} {in_bf16}"], rel=0.1)
