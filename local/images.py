"""Write include/catalog/images.yaml from what the `sagemaker` SDK knows: `make images`; --check only compares.

It runs in the jobs environment, where the SDK is (see requirements-jobs.txt). No network is needed: the SDK carries its
lists of images, botocore those of instance types.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CATALOG = Path(__file__).resolve().parent.parent / "include" / "catalog" / "images.yaml"

# What is written by hand: which images there are, and what they run on if a spec does not say. `cpu` is the smallest
# that has a Python of 3.10 or newer, and SageMaker's training toolkit, which unpacks the source.
IMAGES: dict[str, dict[str, str]] = {
    "cpu": {
        "framework": "sklearn",
        "version": "1.4-2-py312",
        "python": "3.12",
        "training_instance": "ml.m5.large",
        "processing_instance": "ml.m5.large",
    },
    "torch-cpu": {
        "framework": "pytorch",
        "version": "2.9.0",
        "python": "3.12",
        "training_instance": "ml.m5.xlarge",
        "processing_instance": "ml.m5.xlarge",
    },
    "torch-gpu": {
        "framework": "pytorch",
        "version": "2.9.0",
        "python": "3.12",
        "training_instance": "ml.g5.xlarge",
        "processing_instance": "ml.g5.xlarge",
    },
}

# Types that SageMaker has, and the locked botocore does not know.
NEWER: dict[str, tuple[str, ...]] = {"training": (), "processing": ()}

_HEADER = """\
# Images of SageMaker jobs and what they run on; include/jobs/images.py reads it. Written by `make images` from the
# `sagemaker` SDK {sdk}; what is chosen by hand stands in local/images.py.
#
# A spec names an image by its name here, or by the address of one in a registry of yours (and then an instance_type
# too). The address of those here is REGISTRY/IMAGE, with the registry of the region.
"""
_REGION = re.compile(r"[a-z]{2}-(gov-)?[a-z]+-\d")  # not those of isolated partitions
_WIDTH = 118


def make_catalog() -> dict[str, Any]:
    """The catalog as plain values: images and instance types."""
    from botocore.session import get_session
    from sagemaker.core.common_utils import volume_size_supported  # type: ignore[import-not-found]

    model: Any = get_session().get_service_model("sagemaker")
    types = {
        kind: sorted({*model.shape_for(f"{kind.title()}InstanceType").enum, *newer}) for kind, newer in NEWER.items()
    }
    return {
        "images": {name: describe_image(values) for name, values in IMAGES.items()},
        "instance_types": types,
        "local_storage": [one for one in sorted({*sum(types.values(), [])}) if not volume_size_supported(one)],
    }


def describe_image(values: dict[str, str]) -> dict[str, Any]:
    """An image with its registry in each region, by the SDK."""
    from sagemaker.core import image_uris  # type: ignore[import-not-found]

    configuration = image_uris.config_for_framework(values["framework"])["training"]
    registries, images = {}, set()
    for region in sorted(configuration["versions"][values["version"]]["registries"]):
        if not _REGION.fullmatch(region):
            continue
        uri = image_uris.retrieve(
            framework=values["framework"],
            region=region,
            version=values["version"],
            instance_type=values["training_instance"],
            image_scope="training",
        )
        registries[region], _, image = uri.partition("/")
        images.add(image)
    (image,) = images
    return {**values, "image": image, "registries": registries}


def render(catalog: dict[str, Any], sdk: str) -> str:
    """The file's text."""
    lines = [_HEADER.format(sdk=sdk) + "images:"]
    for name, values in catalog["images"].items():
        lines.append(f"  {name}:")
        lines += [f'    {key}: "{value}"' for key, value in values.items() if key != "registries"]
        lines.append("    registries:")
        lines += [f"      {region}: {registry}" for region, registry in values["registries"].items()]
    lines.append("instance_types:")
    for kind, types in catalog["instance_types"].items():
        lines += [f"  {kind}: [", *_wrapped(types), "  ]"]
    lines += ["local_storage: [", *_wrapped(catalog["local_storage"]), "]"]
    return "\n".join(lines) + "\n"


def _wrapped(types: list[str]) -> Iterator[str]:
    line = "   "
    for one in types:
        if len(line) + len(one) + 2 > _WIDTH:
            yield line
            line = "   "
        line += f" {one},"
    yield line


def main() -> int:
    """Write the catalog, or compare: 1 if the SDK is not there, or what stands differs."""
    try:
        from importlib.metadata import version

        import sagemaker.core.image_uris  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        print("make images: the `sagemaker` SDK is not installed here: run it with the jobs environment's Python")
        return 1
    text = render(make_catalog(), version("sagemaker"))
    if "--check" in sys.argv[1:]:
        if CATALOG.read_text() == text:
            print(f"{CATALOG.name} is what the SDK says")
            return 0
        print(f"{CATALOG.name} is not what the SDK says: run `make images`")
        return 1
    CATALOG.write_text(text)
    print(f"wrote {CATALOG.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
