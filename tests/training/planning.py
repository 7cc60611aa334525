"""Runs to plan: on AWS by the catalog's figures, here on a machine whose figures are given instead of measured."""

from __future__ import annotations

from typing import Any

from include.config import Settings
from include.training.compute import Compute
from include.training.config import PretrainConfig, resolve

MACHINE = Compute(
    name="this machine",
    instances=1,
    processes=1,
    device="CPU",
    is_gpu=False,
    flops=1e11,
    memory_gib=16,
    mfu=0.5,
    basis="given by a test",
)


def on_aws(root: str = "s3://bucket/fmops", **params: Any) -> PretrainConfig:
    return resolve(params, "run-1", Settings(target="aws", storage_root=root))


def here(root: str = "memory://plans", **params: Any) -> PretrainConfig:
    return resolve(params, "run-1", Settings(target="local", storage_root=root))
