"""What one pre-training run shall do: its Params and the settings, resolved and checked before any work."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from upath import UPath

from include.aws import region
from include.config import Settings, load_settings
from include.errors import UserError
from include.jobs.base import BACKENDS, default_backend
from include.jobs.spec import Value
from include.names import NAME
from include.storage import local_uri, location, run_key
from include.training.corpus.config import CurationConfig
from include.training.corpus.sources import CorpusSource, parse_sources
from include.training.presets import Architecture, Preset, get_preset, learning_rate_of
from include.training.schedule import Schedule

SEGMENTS = 4
"""Tasks that train one after the other, each an equal share of the steps: what is lost with a machine is one of them.
A fixed number, since a chain of tasks is what a DAG is made of before any Param is known."""
FROM_THE_SETTINGS = ("document_seconds", "document_memory_mb")
"""Of CurationConfig, that are no Params: a deployment's workers decide on them."""


class PretrainConfig(BaseModel):
    """One run's instructions: plain values only, so that tasks can hand it on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str
    tenant: str = Field(pattern=NAME)
    use_case: str = Field(pattern=NAME)
    run_id: str
    model_name: str = Field(default="docs-lm", pattern=NAME)
    """Of which the run releases a version."""

    sources: tuple[CorpusSource, ...] = ()
    """Empty: the documentation corpus of the ingestion demo."""
    curation: CurationConfig = CurationConfig()
    """What of the sources is kept; its fields are Params of the same names."""
    shard_bytes: int = Field(default=64 << 20, ge=1 << 16)
    """Of the sources, that one mapped task curates and packs."""
    vocab_size: int
    tokenizer_sample_bytes: int = Field(default=100_000_000, ge=1 << 16)
    """Of train documents, that the tokenizer is trained on: what a worker of 2 GB can hold the counts of."""

    architecture: Architecture = "decoder"
    size: str = "tiny"
    """Name of a preset."""
    steps: int = Field(ge=SEGMENTS)
    """Of the optimiser, over all segments."""
    batch_tokens: int = Field(ge=1)
    """Of one step, over all processes."""
    micro_batch_tokens: int = Field(ge=1)
    """That one process computes at once; less takes less memory."""
    learning_rate: float = Field(gt=0, le=1, allow_inf_nan=False)
    """At its peak."""
    schedule: Schedule = "cosine"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    parallelism: Literal["auto", "single", "ddp", "fsdp"] = "auto"
    processes: int | None = Field(default=None, ge=1, le=1024)
    """On each instance; None: one for each GPU, else as many as the preset has on a CPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    seed: int = Field(default=0, ge=0, lt=2**32)
    checkpoint_every_s: float = Field(gt=0, le=86_400)
    """What an interruption costs at most, in seconds of training."""

    baseline_margin: float = Field(default=0.0, ge=0, lt=1)
    """By which share of their cost the model must beat the baselines, to be released."""
    accept_doubt: bool = False
    """Release a model that is better, but not surely: the interval of the difference reaches the threshold."""

    backend: str
    """Where jobs run."""
    region: str | None = None
    """Of AWS; None: jobs run elsewhere."""
    instance_type: str
    """What segments and evaluation run on, if not on this machine."""
    instance_count: int = Field(ge=1, le=100)
    spot: bool = False
    """Cheaper instances that can be taken away: a segment goes on from its last checkpoint."""
    mfu: float | None = Field(default=None, gt=0, le=1)
    """Model FLOPs utilisation that the plan reckons with; None: see include/training/compute.py."""
    usd_per_hour: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Of one instance; None: the catalog's price."""
    budget_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The most that the run may cost by its plan; None: no limit."""
    approve_above_usd: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """A run that costs more by its plan, or whose cost is not known, asks a person first."""
    answer_hours: float = Field(default=24, gt=0, le=720)
    """Until a question that nobody answered counts as answered with no."""
    force: bool = False
    """Train although a run with the same inputs has."""

    @model_validator(mode="after")
    def _values_fit_together(self) -> PretrainConfig:
        from include.training.tokenizer import check_vocab_size

        check_vocab_size(self.vocab_size)
        context = self.preset.context
        for name, value in (("batch_tokens", self.batch_tokens), ("micro_batch_tokens", self.micro_batch_tokens)):
            if value % context:
                raise ValueError(f"{name}={value} must be a multiple of {context}, the context of size={self.size!r}")
        if self.micro_batch_tokens > self.batch_tokens:
            raise ValueError(
                f"micro_batch_tokens={self.micro_batch_tokens} is more than batch_tokens={self.batch_tokens}"
            )
        if self.parallelism == "single" and self.processes not in (None, 1):
            raise ValueError(f"parallelism='single' is one process, not processes={self.processes}: write ddp or fsdp")
        if self.backend not in BACKENDS:
            raise ValueError(f"job_backend={self.backend!r} is not known; choose among {', '.join(BACKENDS)}")
        return self

    @property
    def preset(self) -> Preset:
        """What the size stands for."""
        return get_preset(self.size)

    @property
    def home(self) -> UPath:
        """Where pre-training keeps all that is not a job's."""
        return location(self.root) / self.tenant / "training"

    @property
    def run_home(self) -> UPath:
        """Where this run keeps its plan, its question and what was answered."""
        return self.home / "runs" / run_key(self.run_id)

    @property
    def corpora_home(self) -> UPath:
        """Below it lies each packed corpus in a folder of its digest."""
        return self.home / "corpora"

    @property
    def is_local(self) -> bool:
        """Whether jobs run on this machine."""
        return self.backend == "local"

    def open_sources(self) -> tuple[CorpusSource, ...]:
        """The sources; without any, the documentation corpus, which is built if need be."""
        return self.sources or parse_sources(None, self.root)

    def steps_until(self, segment: int) -> int:
        """The step at which a segment ends, 1 to SEGMENTS; 0 for the start of the first."""
        if not 0 <= segment <= SEGMENTS:
            raise ValueError(f"segment {segment} is none of 1 to {SEGMENTS}")
        return self.steps * segment // SEGMENTS

    def hyperparameters(self, segment: int) -> dict[str, Value]:
        """Of the training job of a segment, 1 to SEGMENTS: see include/training/instructions.py."""
        return {
            "architecture": self.architecture,
            "size": self.size,
            "steps": self.steps,
            "from_step": self.steps_until(segment - 1),
            "until_step": self.steps_until(segment),
            "batch_tokens": self.batch_tokens,
            "micro_batch_tokens": self.micro_batch_tokens,
            "learning_rate": self.learning_rate,
            "schedule": self.schedule,
            "precision": self.precision,
            "parallelism": self.parallelism,
            "processes": self.processes or 0,
            "compile": self.compile,
            "seed": self.seed,
            "checkpoint_every_s": self.checkpoint_every_s,
        }


NO_PARAMS = {"root", "run_id", "backend", "region", "curation"}
PARAMS = (PretrainConfig.model_fields.keys() - NO_PARAMS) | (CurationConfig.model_fields.keys() - {*FROM_THE_SETTINGS})
"""Names of all Params."""


def resolve(params: Mapping[str, Any], run_id: str, settings: Settings | None = None) -> PretrainConfig:
    """The run's configuration from its Params; None takes the setting, the preset's value or the default.

    Raises UserError with one line that names the Param, its value and what is allowed.
    """
    settings = settings or load_settings()
    if unknown := sorted(params.keys() - PARAMS):
        near = difflib.get_close_matches(unknown[0], PARAMS, 1)
        raise UserError(
            f"{unknown[0]!r} is no Param of this DAG{f': did you mean {near[0]!r}?' if near else ''}; "
            f"there are {', '.join(sorted(PARAMS))}"
        )
    values = {name: value for name, value in params.items() if value is not None}
    values.setdefault("tenant", settings.tenant)
    values.setdefault("use_case", settings.use_case)
    values["sources"] = _sources(values.get("sources", []), settings.root)
    values = _of_the_preset(values)
    backend = default_backend(settings)
    values |= {"backend": backend, "region": None if backend == "local" else region()}
    values["curation"] = _curation(values, settings)
    try:
        return PretrainConfig(root=settings.root, run_id=run_id, **values)
    except ValidationError as error:
        raise UserError("; ".join(dict.fromkeys(_line(detail) for detail in error.errors()))) from None


def _sources(value: Any, root: str) -> tuple[CorpusSource, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, Mapping) for one in value):
        raise UserError(f"sources={str(value)[:100]!r} must be a list of objects with name, uri, kind and licence")
    return parse_sources(value, root) if value else ()


def _of_the_preset(values: dict[str, Any]) -> dict[str, Any]:
    """The values, with the preset's own where there are none."""
    preset = get_preset(str(values.get("size", "tiny")))
    batch = values.get("batch_tokens", preset.batch_tokens)
    is_small = isinstance(batch, int) and batch < preset.micro_batch_tokens
    own = {
        "vocab_size": preset.vocab_size,
        "steps": preset.steps,
        "batch_tokens": batch,
        "micro_batch_tokens": batch if is_small else preset.micro_batch_tokens,
        "learning_rate": learning_rate_of(preset, str(values.get("architecture", "decoder"))),
        # Where a state has gigabytes, saving it takes a share of a minute.
        "checkpoint_every_s": 60.0 if preset.image == "torch-cpu" else 600.0,
        "instance_type": preset.instance_type,
        "instance_count": preset.instance_count,
    }
    return {**own, **values}


def _curation(values: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """What CurationConfig is made of, taken out of the values; the seed is the run's."""
    mine = {name: values.pop(name) for name in CurationConfig.model_fields if name in values and name != "seed"}
    if isinstance(sets := mine.get("evaluation_sets"), list | tuple):
        mine["evaluation_sets"] = tuple(_uri(one) for one in sets)
    if "seed" in values:
        mine["seed"] = values["seed"]
    return {**mine, **{name: getattr(settings, name) for name in FROM_THE_SETTINGS}}


def _uri(value: Any) -> Any:
    return local_uri(value) if isinstance(value, str) and "://" not in value else value


def _line(detail: Any) -> str:
    message = " ".join(str(detail["msg"]).removeprefix("Value error, ").split())
    place = ".".join(str(part) for part in detail["loc"] if part != "curation")
    if not place:
        return message
    value = "" if detail["type"] == "value_error" else f"={detail['input']!r}"[:100]
    return f"{place}{value}: {message}"
