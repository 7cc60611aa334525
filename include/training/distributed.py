"""Several processes that train one model: DDP where it fits each of them, FSDP where it is spread over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

PORT = 29_500
"""On the first host, where the processes of several hosts find each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What one process is among the others."""

    rank: int = 0
    world: int = 1
    device: torch.device
    parallelism: str = "single"
    """single, ddp or fsdp."""

    @property
    def is_first(self) -> bool:
        """Whether it writes and tells for all."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of each weight."""
        return self.parallelism == "fsdp"

    def mean(self, *values: torch.Tensor) -> list[float]:
        """The mean of each value over all processes; waits for the device."""
        joined = torch.stack([value.detach().float() for value in values])
        if self.world > 1:
            torch.distributed.all_reduce(joined)
            joined /= self.world
        return [float(value) for value in joined.tolist()]

    def agreed(self, flag: bool) -> bool:
        """The first process's answer, on all of them."""
        if self.world == 1:
            return flag
        answer = torch.tensor([int(flag)], device=self.device)
        torch.distributed.broadcast(answer, 0)
        return bool(answer.item())

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            torch.distributed.barrier()


def first_device(local_rank: int = 0) -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def launch(work: Callable[..., None], arguments: tuple[Any, ...], *, processes: int, hosts: list[str]) -> None:
    """Run work(*arguments) in so many processes on each host, as torchrun does; an error of one ends all.

    Each of them finds its place by join().
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=len(hosts),
        max_nodes=len(hosts),
        nproc_per_node=processes,
        run_id="pretrain",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0" if len(hosts) == 1 else f"{hosts[0]}:{PORT}",
        max_restarts=0,
        # Forked, they need not import torch again, 3 seconds; what holds a GPU cannot be forked.
        start_method="spawn" if torch.cuda.is_available() else "fork",
    )
    try:
        elastic_launch(config, work)(*arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        message = failure.message if isinstance(failure.message, str) else str(failure.message.get("message"))
        raise RuntimeError(f"process {rank} failed: {message.strip().splitlines()[-1]}") from None


@contextmanager
def join(parallelism: str) -> Iterator[Place]:
    """This process's place among those that launch() started."""
    device = first_device(int(os.environ["LOCAL_RANK"]))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Place(
            rank=torch.distributed.get_rank(),
            world=torch.distributed.get_world_size(),
            device=device,
            parallelism=parallelism,
        )
    finally:
        torch.distributed.destroy_process_group()


def spread(model: nn.Module, place: Place, *, is_bf16: bool) -> nn.Module:
    """The model as this process runs it; what is passed in keeps the weights' names."""
    if place.parallelism == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model)
    if place.is_sharded:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if is_bf16 else None, reduce_dtype=torch.float32)
        for part in model.modules():
            if type(part).__name__ == "Block":
                fully_shard(part, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
    return model


def gather_sharded(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """As state.gather(), of a sharded model; empty on all but the first process."""
    weights, moments = _state(model, optimiser)
    tensors = {f"model.{name}": value for name, value in weights.items()}
    for name, kinds in moments.get("state", {}).items():
        tensors |= {f"optimiser.{kind}.{name}": torch.as_tensor(value) for kind, value in kinds.items()}
    return {name: value.contiguous() for name, value in tensors.items()}


def restore_sharded(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """As state.restore(), of a sharded model: each process takes its part of each tensor."""
    from torch.distributed.checkpoint import state_dict

    options = state_dict.StateDictOptions(full_state_dict=True)
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    moments: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, kind, weight = name.split(".", 2)
            moments.setdefault(weight, {})[kind] = value
    if not moments:  # asking the optimiser for its state would count a step
        optimiser.state.clear()
        state_dict.set_model_state_dict(model, weights, options=options)
        return
    _, known = _state(model, optimiser, is_complete=False)
    state_dict.set_state_dict(
        model,
        optimiser,
        model_state_dict=weights,
        optim_state_dict={"state": moments, "param_groups": known["param_groups"]},
        options=options,
    )


def _state(model: nn.Module, optimiser: torch.optim.Optimizer, *, is_complete: bool = True) -> tuple[Any, Any]:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    return get_state_dict(
        model, optimiser, options=StateDictOptions(full_state_dict=is_complete, cpu_offload=is_complete)
    )
