"""What this machine can do: its threads, its precision, and the rate of its matrix product."""

from __future__ import annotations

import time

import torch

from include.jobs.harness import BadInput

PRECISIONS = ("auto", "fp32", "bf16")
MEASURED_S = 0.3


def is_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: where asked for, or by `auto` where the hardware multiplies it faster.

    That is on GPUs, and on CPUs with matrix instructions for it (AMX).
    """
    if precision not in PRECISIONS:
        raise BadInput(f"precision={precision!r} must be one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision == "bf16"
    return device.type == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))


def matmul_flops(device: torch.device, size: int, dtype: torch.dtype) -> float:
    """Floating-point operations a second of size x size matrix products, measured now, with the threads that are set.

    A product counts 2 x size^3 operations.
    """
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    _wait(device)
    count, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < MEASURED_S or not count:
        for _ in range(4):
            left @ right
        _wait(device)
        count += 4
    return count * 2 * size**3 / passed


def reference_flops(device: torch.device) -> float:
    """What utilisation is measured against: of a GPU bfloat16 8192 x 8192, of a CPU float32 1024 x 1024."""
    if device.type == "cuda":
        return matmul_flops(device, 8192, torch.bfloat16)
    return matmul_flops(device, 1024, torch.float32)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
