"""What a run will take before anything is spent: tokens, FLOPs, memory, hours, dollars, and what the budget allows.

| figure          | how                                                                                            |
|-----------------|------------------------------------------------------------------------------------------------|
| FLOPs           | 6 x parameters x tokens + attention: include/training/presets.py                               |
| compute-optimal | 20 tokens a parameter (Hoffmann et al., arXiv 2203.15556)                                      |
| memory          | include/training/memory.py                                                                     |
| hours           | FLOPs / (devices x peak x MFU), the peak and MFU of include/training/compute.py                |
| dollars         | (hours + start of each job) x instances x price; evaluation counts as one more start           |
| longest runtime | SAFETY x (a segment's hours + its start)                                                       |
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from include.errors import UserError
from include.jobs.instances import load_instances
from include.jobs.spec import LONGEST_RUNTIME_S
from include.storage import digest
from include.training.compute import Compute, compute_of, is_bf16, on_instances
from include.training.config import SEGMENTS, PretrainConfig
from include.training.memory import CHECKPOINT_BYTES, GIB, Memory, memory_of, parallelism
from include.training.presets import flops_per_token, num_parameters

BYTES_PER_TOKEN = 4
"""Of text, before its tokenizer exists: 3 for a vocabulary of 2,048, 4 and more for 32,768 and English."""
OPTIMAL_TOKENS = 20
"""A parameter."""
WORTHWHILE_EPOCHS = 4
"""Up to about so many, seeing text again is nearly as good as new text: Muennighoff et al., arXiv 2305.16264."""
LOCAL_START_S, SAGEMAKER_START_S = 30, 300
"""Of a job, before its first step and after its last: SageMaker charges for loading image and corpus."""
SAFETY = 3
"""Times its estimate, a segment may run: the estimate is one."""
SHORTEST_RUNTIME_S = 900
STATES_ON_DISK = 5
"""The previous segment's, two checkpoints, one that is being written, and the output."""
SMALLEST_VOLUME_GB = 30


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Work(_Figures):
    """What is computed."""

    architecture: str
    size: str
    parameters: int
    vocab_size: int
    steps: int
    tokens: int
    """That are trained on, repeated ones included."""
    corpus_bytes: int
    corpus_tokens: int
    """By BYTES_PER_TOKEN, before anything is left out."""
    epochs: float
    flops: float
    optimal_tokens: int
    checkpoint_gib: float
    volume_gb: int
    """Of disk for a training job: JobSpec's resources.volume_gb."""


class Cost(_Figures):
    """How long it takes, and what that costs."""

    segment_hours: tuple[float, ...]
    """Of training, on all instances at once."""
    start_hours: float
    """Of all jobs together."""
    max_runtime_s: tuple[int, ...]
    """Of each segment's job."""
    usd_per_hour: float | None
    """Of one instance; None: not known."""
    usd: float | None
    """Of the run on demand; None: not known, which is not free."""
    basis: str
    """Of the price."""
    budget_usd: float | None
    budget_steps: int | None
    """That the budget allows; None: no budget, or nothing to pay."""

    @property
    def hours(self) -> float:
        """Of training, all segments."""
        return sum(self.segment_hours)


class Plan(_Figures):
    """All figures of a run; small enough for an XCom."""

    work: Work
    compute: Compute
    parallelism: str
    precision: str
    memory: Memory
    cost: Cost
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of all figures: what somebody agreed to is this plan and no other."""
        return digest(self.model_dump_json())


def plan(config: PretrainConfig, corpus_bytes: int, *, compute: Compute | None = None) -> Plan:
    """The run's figures; nothing is spent.

    corpus_bytes: of the sources' files; compute: None is what the run's jobs get. UserError if the model does not fit
    into memory, a segment into the longest runtime, or the run into its budget, with what would.
    """
    if corpus_bytes < config.batch_tokens:  # a token has a byte at least
        raise UserError(
            f"the sources hold {corpus_bytes:,} bytes, less than one batch of batch_tokens={config.batch_tokens}: "
            "give more documents, or a smaller batch"
        )
    compute = compute or compute_of(config)
    memory = memory_of(config, compute)
    if memory.total > compute.usable_gib:
        raise UserError(_does_not_fit(config, compute, memory))
    work = _work(config, corpus_bytes)
    made = Plan(
        work=work,
        compute=compute,
        parallelism=parallelism(config, compute.world),
        precision="bf16" if is_bf16(config, compute.is_gpu) else "fp32",
        memory=memory,
        cost=_cost(config, compute, work.flops),
        notes=tuple(_notes(config, work.epochs)),
    )
    _check_budget(made, config)
    return made


def _work(config: PretrainConfig, corpus_bytes: int) -> Work:
    parameters = num_parameters(config.preset, config.architecture, config.vocab_size)
    tokens = config.steps * config.batch_tokens
    corpus_tokens = max(1, corpus_bytes // BYTES_PER_TOKEN)
    return Work(
        architecture=config.architecture,
        size=config.size,
        parameters=parameters,
        vocab_size=config.vocab_size,
        steps=config.steps,
        tokens=tokens,
        corpus_bytes=corpus_bytes,
        corpus_tokens=corpus_tokens,
        epochs=tokens / corpus_tokens,
        flops=tokens * flops_per_token(config.preset, config.architecture, config.vocab_size),
        optimal_tokens=OPTIMAL_TOKENS * parameters,
        checkpoint_gib=CHECKPOINT_BYTES * parameters / GIB,
        volume_gb=_volume_gb(parameters, corpus_tokens),
    )


def _cost(config: PretrainConfig, compute: Compute, flops: float) -> Cost:
    step_hours = flops / config.steps / (compute.world * compute.flops * compute.mfu) / 3600
    ends = [config.steps_until(segment) for segment in range(SEGMENTS + 1)]
    segment_hours = tuple((end - begin) * step_hours for begin, end in zip(ends, ends[1:], strict=False))
    start_hours = (SEGMENTS + 1) * _start_s(config) / 3600
    price, basis = _price(config)
    usd = None if price is None else (sum(segment_hours) + start_hours) * compute.instances * price
    budget_steps = None
    if price and config.budget_usd is not None:
        hours = config.budget_usd / (compute.instances * price) - start_hours
        budget_steps = max(0, math.floor(hours / step_hours))
    return Cost(
        segment_hours=segment_hours,
        start_hours=start_hours,
        max_runtime_s=_max_runtimes(config, compute, segment_hours),
        usd_per_hour=price,
        usd=usd,
        basis=basis,
        budget_usd=config.budget_usd,
        budget_steps=budget_steps,
    )


def _price(config: PretrainConfig) -> tuple[float | None, str]:
    """Of one instance for an hour, and who says so."""
    if config.usd_per_hour is not None:
        return config.usd_per_hour, "Param usd_per_hour"
    if config.is_local:
        return 0.0, "this machine: nothing is charged for it; Param usd_per_hour prices it"
    catalog = load_instances()
    price = catalog.get(config.instance_type).usd_per_hour
    if price is None:
        return None, f"no price of {config.instance_type} is known: give Param usd_per_hour"
    elsewhere = "" if config.region == catalog.region else f"; the run is in {config.region}, where it may differ"
    return price, f"catalog: on demand in {catalog.region}, as of {catalog.prices_as_of}{elsewhere}"


def _start_s(config: PretrainConfig) -> int:
    return LOCAL_START_S if config.is_local else SAGEMAKER_START_S


def _max_runtimes(config: PretrainConfig, compute: Compute, segment_hours: tuple[float, ...]) -> tuple[int, ...]:
    """Of each segment's job, in seconds; UserError if one needs longer than a job may run."""
    wanted = [math.ceil(SAFETY * (hours * 3600 + _start_s(config))) for hours in segment_hours]
    if max(wanted) > LONGEST_RUNTIME_S:
        allowed_hours = (LONGEST_RUNTIME_S / SAFETY - _start_s(config)) / 3600
        steps = SEGMENTS * math.floor(allowed_hours * config.steps / sum(segment_hours))
        raise UserError(
            f"steps={config.steps}: a segment on {compute.instances} x {compute.name} takes about "
            f"{max(segment_hours):,.1f} hours, which with a margin of {SAFETY} times is more than the "
            f"{LONGEST_RUNTIME_S / 3600:g} hours that a job may run: take "
            + ("" if config.is_local else "a larger instance_type or instance_count, or ")
            + (f"steps={steps} at most" if steps else "a smaller size")
        )
    return tuple(max(SHORTEST_RUNTIME_S, one) for one in wanted)


def _check_budget(made: Plan, config: PretrainConfig) -> None:
    """UserError if the run costs more than its budget, or nobody knows whether it does."""
    cost, compute = made.cost, made.compute
    if cost.budget_usd is None:
        return
    if cost.usd is None or cost.usd_per_hour is None:
        raise UserError(f"budget_usd={cost.budget_usd:g} cannot be kept: {cost.basis}")
    if cost.usd <= cost.budget_usd:
        return
    steps = cost.budget_steps or 0
    allows = f"steps={steps}, {steps * config.batch_tokens:,} tokens"
    if steps < SEGMENTS:
        least = cost.start_hours * compute.instances * cost.usd_per_hour
        allows = f"no training: the start of {SEGMENTS + 1} jobs alone costs {least:,.2f} USD"
    raise UserError(
        f"budget_usd={cost.budget_usd:g}: steps={config.steps} on {compute.instances} x {compute.name} take "
        f"{cost.hours:,.2f} hours and cost about {cost.usd:,.2f} USD; the budget allows {allows}"
    )


def _volume_gb(parameters: int, corpus_tokens: int) -> int:
    """Of disk for the corpus and the states of a training job, with a fifth to spare."""
    num_bytes = 2 * corpus_tokens + STATES_ON_DISK * CHECKPOINT_BYTES * parameters
    return max(SMALLEST_VOLUME_GB, math.ceil(1.2 * num_bytes / 1e9))


def _notes(config: PretrainConfig, epochs: float) -> Iterator[str]:
    if epochs > WORTHWHILE_EPOCHS:
        yield (
            f"the corpus is seen {epochs:,.1f} times; beyond about {WORTHWHILE_EPOCHS} times repeated text teaches "
            "little: more documents, or fewer steps"
        )
    if config.spot and not config.is_local:
        yield "spot instances are cheaper; the dollars are those on demand"


def _does_not_fit(config: PretrainConfig, compute: Compute, memory: Memory) -> str:
    ways = list(_what_fits(config, compute)) or ["a smaller size"]
    return (
        f"size={config.size!r} does not fit on {compute.name}: a process needs about {memory.total:,.1f} GiB (weights, "
        f"gradients and optimiser {memory.state:,.1f}, activations {memory.activations:,.1f}), and it can use "
        f"{compute.usable_gib:,.1f} GiB of its {compute.device}'s memory; what would fit: {', or '.join(ways)}"
    )


def _what_fits(config: PretrainConfig, compute: Compute) -> Iterator[str]:
    """Changes of one Param each that would fit."""
    context, micro = config.preset.context, config.micro_batch_tokens
    while (micro := micro // 2 // context * context) >= context:
        if _fits(config.model_copy(update={"micro_batch_tokens": micro}), compute):
            yield f"micro_batch_tokens={micro}"
            break
    if compute.world > 1 and _fits(config.model_copy(update={"parallelism": "fsdp"}), compute):
        yield "parallelism='fsdp'"
    if not config.is_local and (larger := _cheapest_that_fits(config)):
        yield f"instance_type={larger!r}"


def _cheapest_that_fits(config: PretrainConfig) -> str | None:
    """The instance type of the least price that the run fits on as it is; None if it fits on none."""
    fitting = []
    catalog = load_instances()
    for name, instance in catalog.instances.items():
        try:
            other = on_instances(config, name)
        except UserError:  # its processes cannot share the batch
            continue
        if other.is_gpu == (catalog.get(config.instance_type).accelerator is not None) and _fits(config, other):
            fitting.append((instance.usd_per_hour or math.inf, name))
    return min(fitting)[1] if fitting else None


def _fits(config: PretrainConfig, compute: Compute) -> bool:
    return memory_of(config, compute).total <= compute.usable_gib


def rows(made: Plan) -> list[tuple[str, str]]:
    """The plan as (what, how much), for people."""
    work, on, memory, cost = made.work, made.compute, made.memory, made.cost
    usd = "not known" if cost.usd is None else f"{cost.usd:,.2f} USD"
    segments = ", ".join(f"{hours:,.2f}" for hours in cost.segment_hours)
    found = [
        ("model", f"{work.architecture} {work.size}, {work.parameters:,} parameters, vocabulary {work.vocab_size:,}"),
        ("tokens", f"{work.tokens:,} in {work.steps:,} steps"),
        (
            "corpus",
            f"about {work.corpus_tokens:,} tokens, {BYTES_PER_TOKEN} bytes each, before curation: "
            f"{work.epochs:,.2f} epochs",
        ),
        ("compute-optimal", f"{work.optimal_tokens:,} tokens; this is {work.tokens / work.optimal_tokens:.2f} of it"),
        ("compute", f"{work.flops:.3g} FLOPs"),
        (
            "on",
            f"{on.instances} x {on.name}, {on.world} {'process' if on.world == 1 else 'processes'}, "
            f"{made.parallelism}, reckoned in {made.precision}",
        ),
        ("rate", f"{on.flops / 1e12:,.3g} TFLOP/s a process ({on.basis}) x MFU {on.mfu:g}, assumed"),
        (
            "memory",
            f"{memory.total:,.1f} of {on.usable_gib:,.1f} GiB of a process: state {memory.state:,.1f}, "
            f"activations {memory.activations:,.1f}",
        ),
        ("checkpoint", f"{work.checkpoint_gib:,.2f} GiB each"),
        ("hours", f"{cost.hours:,.2f}, by segments {segments}; {cost.start_hours:,.2f} to start jobs"),
        ("cost", f"{usd} ({cost.basis})"),
    ]
    if cost.budget_usd is not None:
        steps = cost.budget_steps
        allowed = "" if steps is None else f", which allows {steps:,} steps"
        found.append(("budget", f"{cost.budget_usd:,.2f} USD{allowed}"))
    return found + [("note", note) for note in made.notes]


def as_text(made: Plan) -> str:
    """The plan as a table for the log of a task."""
    return "\n".join(f"{what:<16} {how_much}" for what, how_much in rows(made))
