"""The images of jobs and what they run on: include/catalog/images.yaml, which `make images` writes."""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from include.errors import UserError
from include.jobs.spec import JobSpec

IMAGES = Path(__file__).parent.parent / "catalog" / "images.yaml"
ADDRESS = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<repository>.+)")
"""Of an image in a registry."""
WORKER = "worker"
"""The image that is not the catalog's: what Airflow's own workers run in. Locally the running Python stands for it."""


class Image(BaseModel):
    """An image of the catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    framework: str
    version: str
    python: str
    training_instance: str
    """What a training job runs on if its spec does not say; processing_instance likewise."""
    processing_instance: str
    image: str
    """REPOSITORY:TAG."""
    registries: dict[str, str]
    """Of each region."""


class Catalog(BaseModel):
    """All of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: dict[str, Image]
    instance_types: dict[str, tuple[str, ...]]
    """Those that exist, for each kind of job; not each of them in each region."""
    local_storage: tuple[str, ...]
    """Those with disks of their own: no volume is attached to them, so it can have neither a size nor a key."""

    def uri(self, name: str, region: str, worker_image: str | None = None) -> str:
        """The address of an image in a region; UserError if the name or the region has none.

        worker_image: the setting, which is the address of `worker`.
        """
        if name == WORKER:
            return _address_of_worker(worker_image)
        if ADDRESS.fullmatch(name):
            return name
        image = self._named(name)
        if region not in image.registries:
            raise UserError(
                f"resources.image={name!r} is not offered in region {region}: choose another region, "
                "or give the address of an image of your own"
            )
        return f"{image.registries[region]}/{image.image}"

    def instance_type(self, spec: JobSpec) -> str:
        """What the job runs on, by its spec or by the image's default; UserError if there is no such type."""
        wanted = spec.resources.instance_type
        if wanted is None:
            if ADDRESS.fullmatch(spec.resources.image):
                raise UserError("resources.instance_type is missing: an image of your own has no default for it")
            return str(getattr(self._named(spec.resources.image), f"{spec.kind}_instance"))
        known = self.instance_types[spec.kind]
        if wanted not in known:
            near = difflib.get_close_matches(wanted, known, 3) or ["ml.m5.large"]
            raise UserError(
                f"resources.instance_type={wanted!r} is not known for {spec.kind} jobs: such as {', '.join(near)}; "
                "add it to local/images.py and run `make images` if SageMaker has it"
            )
        return wanted

    def _named(self, name: str) -> Image:
        if name == WORKER:  # the same machines suit both
            name = "cpu"
        if name not in self.images:
            raise UserError(
                f"resources.image={name!r} is not known: choose among {', '.join((*self.images, WORKER))}, "
                "or give the address of an image of your own"
            )
        return self.images[name]


def _address_of_worker(setting: str | None) -> str:
    if not setting or not ADDRESS.fullmatch(setting):
        raise UserError(
            f"worker_image={setting!r} is not the address of an image in Amazon ECR: build the Dockerfile's target "
            "worker, push it, and set FMOPS_WORKER_IMAGE=ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG"
        )
    return setting


@cache
def load_images(path: Path = IMAGES) -> Catalog:
    """Read the catalog, once; UserError with one line that names what is wrong with it."""
    import yaml

    try:
        value: Any = yaml.safe_load(path.read_bytes())
        return Catalog.model_validate(value)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"images {path} cannot be read: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        raise UserError(f"images {path}: {place}={detail['input']!r}: {detail['msg']}") from None
