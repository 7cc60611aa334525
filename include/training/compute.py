"""What a run computes on, as its plan reckons: how many processes, how fast each of them is, and what memory it has."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass

from include.errors import UserError
from include.jobs.instances import Accelerator, Instances, load_instances
from include.training.config import PretrainConfig
from include.training.presets import cpu_processes

GPU_MFU = 0.40
"""Share of the peak that training reaches: 33 to 39 % by torchtitan on eight H100, more on one; an assumption."""
CPU_MFU = 0.5
"""Of the rate of matrix products: 0.65 was measured for `tiny` and `mini` on one thread, held-out evaluations and
checkpoints beside it."""
TF32 = 0.5
"""Of the bfloat16 rate: what float32 products, taken as TF32, reach on a GPU."""
GPU_USABLE, CPU_USABLE = 0.9, 0.75
"""Of the memory, since it fragments: glibc's grew to 1.35 times what was in use within three steps of `mini`."""
MATRIX = 1024
MEASURED_S = 0.6
"""Long enough that a busy machine leaves a product alone once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """Where processes run, each on a device: a GPU, or a share of the cores."""

    name: str
    """An instance type, or `this machine`."""
    instances: int
    processes: int
    """On each instance."""
    device: str
    is_gpu: bool
    flops: float
    """Most operations a second of one device, in the precision of the run."""
    memory_gib: float
    """Of one device."""
    mfu: float
    basis: str
    """Where the rate is from."""

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.instances * self.processes

    @property
    def usable_gib(self) -> float:
        """Of one device's memory."""
        return self.memory_gib * (GPU_USABLE if self.is_gpu else CPU_USABLE)


def is_bf16(config: PretrainConfig, is_gpu: bool) -> bool:
    """Whether a plan reckons with bfloat16: `auto` takes it on GPUs. On CPUs with AMX the trainer does too, and gains
    little on small models, so the plan stays with float32."""
    return config.precision == "bf16" or (config.precision == "auto" and is_gpu)


def compute_of(config: PretrainConfig) -> Compute:
    """What the run's jobs get; measures this machine if they run here. UserError if it cannot be as asked for."""
    return _this_machine(config) if config.is_local else on_instances(config, config.instance_type)


def on_instances(config: PretrainConfig, instance_type: str, catalog: Instances | None = None) -> Compute:
    """By the catalog's figures."""
    catalog = catalog or load_instances()
    instance = catalog.get(instance_type)
    gpu = catalog.accelerator_of(instance)
    if gpu is not None:
        return _gpus(
            config, instance_type, config.instance_count, str(instance.accelerator), instance.accelerators, gpu
        )
    return _cpu(
        config,
        instance_type,
        config.instance_count,
        flops=instance.vcpus * catalog.fp32_gflops_per_vcpu * 1e9,
        memory_gib=instance.memory_gib,
        basis=f"{instance.vcpus} vCPUs of {catalog.fp32_gflops_per_vcpu:g} GFLOP/s in fp32, by the catalog",
    )


def measure_matmul_flops() -> float:
    """Operations a second of float32 products of this machine, with all threads that numpy takes: the fastest one's.

    The trainer's own measure (include/training/machine.py) by the library that Airflow's environment has.
    """
    import numpy as np

    left, right = (np.random.default_rng(seed).random((MATRIX, MATRIX), np.float32) for seed in (0, 1))
    left @ right
    first = begun = time.perf_counter()
    fastest_s = float("inf")
    while begun < first + MEASURED_S:
        left @ right
        ended = time.perf_counter()
        fastest_s, begun = min(fastest_s, ended - begun), ended
    return 2 * MATRIX**3 / fastest_s


def _gpus(config: PretrainConfig, name: str, instances: int, device: str, count: int, gpu: Accelerator) -> Compute:
    processes = config.processes or count
    if processes > count:
        raise UserError(f"processes={processes} is more than {name} has GPUs: at most {count}, one for each")
    in_bf16 = is_bf16(config, True)
    return _checked(
        config,
        Compute(
            name=name,
            instances=instances,
            processes=processes,
            device=device,
            is_gpu=True,
            flops=gpu.bf16_tflops * 1e12 * (1 if in_bf16 else TF32),
            memory_gib=gpu.memory_gib,
            mfu=config.mfu or GPU_MFU,
            basis=f"{device}'s peak in dense {'bf16' if in_bf16 else 'TF32'}, by the catalog",
        ),
    )


def _cpu(config: PretrainConfig, name: str, instances: int, *, flops: float, memory_gib: float, basis: str) -> Compute:
    processes = config.processes or cpu_processes(config.preset, config.parallelism, config.batch_tokens, instances)
    return _checked(
        config,
        Compute(
            name=name,
            instances=instances,
            processes=processes,
            device="CPU",
            is_gpu=False,
            flops=flops / processes,
            memory_gib=memory_gib / processes,
            mfu=config.mfu or CPU_MFU,
            basis=basis,
        ),
    )


def _checked(config: PretrainConfig, compute: Compute) -> Compute:
    """Whether the run's batch can be shared by the processes there are."""
    world, context = compute.world, config.preset.context
    if config.parallelism == "single" and world > 1:
        raise UserError(
            f"parallelism='single' is one process, but {compute.instances} x {compute.name} run {world}: write "
            "processes=1 and instance_count=1, or parallelism='ddp'"
        )
    if config.batch_tokens % (world * context):
        raise UserError(
            f"batch_tokens={config.batch_tokens} are {config.batch_tokens // context} rows of {context} tokens, which "
            f"the {world} processes of {compute.instances} x {compute.name} cannot share: write a multiple of "
            f"{world * context}"
        )
    return compute


def _this_machine(config: PretrainConfig) -> Compute:
    name = "this machine"
    if gpus := _visible_gpus():
        device, memory_gib = gpus[0]
        known = load_instances().accelerators
        # Of an unknown one the slowest known one is assumed.
        rate = known[device].bf16_tflops if device in known else min(one.bf16_tflops for one in known.values())
        return _gpus(config, name, 1, device, len(gpus), Accelerator(bf16_tflops=rate, memory_gib=memory_gib))
    return _cpu(
        config,
        name,
        1,
        flops=measure_matmul_flops(),
        memory_gib=_free_memory_gib(),
        basis=f"float32 products of {MATRIX} x {MATRIX}, measured now",
    )


def _free_memory_gib() -> float:
    import psutil

    free: int = psutil.virtual_memory().available
    return free / 2**30


def _visible_gpus() -> list[tuple[str, float]]:
    """The catalog's name and GiB of each NVIDIA GPU of this machine that jobs may see; none without a driver."""
    program = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if program is None or visible == "":
        return []
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []  # a driver that does not answer runs no job either
    return parse_gpus(done.stdout)[: visible.count(",") + 1 if visible else None]


def parse_gpus(listing: str) -> list[tuple[str, float]]:
    """(the catalog's name, or `unknown GPU`; GiB) of each line `NAME, MIB` that nvidia-smi writes."""
    found = []
    for line in filter(None, map(str.strip, listing.splitlines())):
        name, _, mib = line.rpartition(",")
        gib = float(mib) / 1024
        known = [one for one in load_instances().accelerators if one.split("-")[0] in name.replace(" ", "-").split("-")]
        fitting = [one for one in known if load_instances().accelerators[one].memory_gib <= gib + 1]
        found.append((fitting[-1] if fitting else "unknown GPU", gib))
    return found
