"""What instance types of SageMaker can do and cost: include/catalog/instances.yaml, which is written by hand."""

from __future__ import annotations

import difflib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from include.errors import UserError

INSTANCES = Path(__file__).parent.parent / "catalog" / "instances.yaml"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Accelerator(_Entry):
    """A GPU."""

    bf16_tflops: float = Field(gt=0)
    """Most 10^12 operations a second of dense bfloat16 products; of float32 ones, as TF32, it does half as many."""
    memory_gib: float = Field(gt=0)


class Instance(_Entry):
    """An instance type."""

    vcpus: int = Field(gt=0)
    memory_gib: float = Field(gt=0)
    """Of the host, beside what its accelerators have."""
    accelerator: str | None = None
    """Name of what the instance has `accelerators` of."""
    accelerators: int = Field(default=0, ge=0)
    usd_per_hour: float | None = Field(gt=0)
    """Of a training job, on demand, in the catalog's region; None: not known, which is not free."""


class Instances(_Entry):
    """All of the file."""

    region: str
    """Of the prices."""
    prices_as_of: date
    prices_from: str = Field(min_length=1)
    fp32_gflops_per_vcpu: float = Field(gt=0)
    """Most 10^9 operations a second of float32 matrix products, of one vCPU of the types without accelerators."""
    accelerators: dict[str, Accelerator]
    instances: dict[str, Instance]

    @model_validator(mode="after")
    def _each_accelerator_is_known(self) -> Instances:
        for name, one in self.instances.items():
            if (one.accelerator is None) != (one.accelerators == 0):
                raise ValueError(f"{name}: accelerator and accelerators go together")
            if one.accelerator is not None and one.accelerator not in self.accelerators:
                raise ValueError(f"{name}: accelerator={one.accelerator!r} is not among the accelerators")
        return self

    def get(self, instance_type: str) -> Instance:
        """The figures of a type; UserError with those that are like it if there are none."""
        if instance_type not in self.instances:
            near = difflib.get_close_matches(instance_type, self.instances, 3) or ["ml.c7i.2xlarge", "ml.g5.xlarge"]
            raise UserError(
                f"instance_type={instance_type!r} has no figures: choose such as {', '.join(near)}, or add it to "
                "include/catalog/instances.yaml"
            )
        return self.instances[instance_type]

    def accelerator_of(self, instance: Instance) -> Accelerator | None:
        """What one of its accelerators can do; None if it has none."""
        return None if instance.accelerator is None else self.accelerators[instance.accelerator]


@cache
def load_instances(path: Path = INSTANCES) -> Instances:
    """Read the catalog, once; UserError with one line that names what is wrong with it."""
    import yaml

    try:
        value: Any = yaml.safe_load(path.read_bytes())
        return Instances.model_validate(value)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"instances {path} cannot be read: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        what = f"{place}={detail['input']!r}: " if place else ""
        raise UserError(f"instances {path}: {what}{detail['msg'].removeprefix('Value error, ')}") from None
