"""The catalog of instances: its shape, that SageMaker has them, and what is said about one that is not in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from include.errors import UserError
from include.jobs.images import load_images
from include.jobs.instances import INSTANCES, load_instances
from include.training.presets import PRESETS, Preset


def changed(folder: Path, **values: object) -> Path:
    """The catalog with other values."""
    file = folder / "instances.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(INSTANCES.read_bytes()) | values))
    return file


def test_sagemaker_trains_on_each_of_them() -> None:
    assert set(load_instances().instances) <= set(load_images().instance_types["training"])


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_what_a_preset_runs_on_is_known_and_has_a_price(preset: Preset) -> None:
    instance = load_instances().get(preset.instance_type)
    assert instance.usd_per_hour
    assert (instance.accelerators > 0) == (preset.image == "torch-gpu")


def test_a_larger_instance_of_a_family_costs_more() -> None:
    by_family: dict[str, list[tuple[float, float, float]]] = {}
    for name, one in load_instances().instances.items():
        if one.usd_per_hour:
            figures = (one.usd_per_hour, one.accelerators, one.vcpus)
            by_family.setdefault(name.split(".")[1], []).append(figures)
    for family, figures in by_family.items():
        prices = [price for price, *_ in sorted(figures, key=lambda of_one: of_one[1:])]
        assert prices == sorted(prices), family


def test_gpus_are_those_of_the_catalog() -> None:
    catalog = load_instances()
    gpu = catalog.accelerator_of(catalog.get("ml.p5.48xlarge"))
    assert gpu is not None and (gpu.bf16_tflops, gpu.memory_gib) == (989, 79)
    assert catalog.accelerator_of(catalog.get("ml.c7i.large")) is None


def test_one_that_is_not_there_is_answered_with_those_that_are_like_it() -> None:
    with pytest.raises(UserError, match=r"^instance_type='ml.g5.xlrage' has no figures: choose such as ml.g5.xlarge, "):
        load_instances().get("ml.g5.xlrage")
    with pytest.raises(UserError, match=r"choose such as ml.c7i.2xlarge, ml.g5.xlarge, or add it to include/catalog"):
        load_instances().get("a laptop")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"region": None}, "region=None: Input should be a valid string"),
        ({"fp32_gflops_per_vcpu": -1}, "fp32_gflops_per_vcpu=-1: Input should be greater than 0"),
        (
            {"instances": {"ml.x.large": {"vcpus": 1, "memory_gib": 1, "usd_per_hour": float("nan")}}},
            "instances.ml.x.large.usd_per_hour=nan: Input should be a finite number",
        ),
        (
            {"instances": {"ml.x.large": {"vcpus": 1, "memory_gib": 1, "usd_per_hour": 1, "accelerators": 1}}},
            "ml.x.large: accelerator and accelerators go together",
        ),
        (
            {
                "instances": {
                    "ml.x.large": {
                        "vcpus": 1,
                        "memory_gib": 1,
                        "usd_per_hour": 1,
                        "accelerators": 1,
                        "accelerator": "TPU",
                    }
                }
            },
            "ml.x.large: accelerator='TPU' is not among the accelerators",
        ),
    ],
)
def test_a_wrong_figure_is_named(tmp_path: Path, values: dict[str, object], message: str) -> None:
    file = changed(tmp_path, **values)
    with pytest.raises(UserError) as raised:
        load_instances(file)
    assert str(raised.value) == f"instances {file}: {message}"


def test_a_price_may_be_unknown_but_not_left_out(tmp_path: Path) -> None:
    assert load_instances().get("ml.p5en.48xlarge").usd_per_hour is None
    with pytest.raises(UserError, match="instances.ml.x.large.usd_per_hour=.*: Field required"):
        load_instances(changed(tmp_path, instances={"ml.x.large": {"vcpus": 1, "memory_gib": 1}}))


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "instances.yaml"
    with pytest.raises(UserError, match=f"instances {file} cannot be read: "):
        load_instances(file)
    file.write_text("region: [")
    with pytest.raises(UserError, match=f"instances {file} cannot be read: ") as raised:
        load_instances(file)
    assert "\n" not in str(raised.value)
