"""The catalog of images: its shape, what is taken from it, and that it is what the SDK says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.errors import UserError
from include.jobs.images import ADDRESS, IMAGES, load_images
from include.jobs.spec import JobSpec
from local.home import PROJECT
from local.setup_environment import JOBS

MINE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/mine:7"


def spec(kind: str = "training", **resources: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "x",
            "kind": kind,
            "script": "include.jobs.scripts.smoke",
            "resources": resources,
            "max_runtime_s": 60,
            "tenant": "t",
            "use_case": "u",
            "dag_id": "d",
            "run_id": "r",
            "task_id": "t",
        }
    )


def test_every_image_has_an_address_in_the_great_regions_and_instances_that_exist() -> None:
    catalog = load_images()
    assert set(catalog.images) == {"cpu", "torch-cpu", "torch-gpu"}
    for name, image in catalog.images.items():
        for region in ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-northeast-1"):
            match = ADDRESS.fullmatch(catalog.uri(name, region))
            assert match is not None
            assert match["region"] == region
            assert match["repository"] == image.image
        assert image.training_instance in catalog.instance_types["training"]
        assert image.processing_instance in catalog.instance_types["processing"]
        assert tuple(map(int, image.python.split("."))) >= (3, 10), "the harness needs it"
    assert len(catalog.instance_types["training"]) > 100


def test_a_registry_is_one_of_its_region() -> None:
    for image in load_images().images.values():
        for region, registry in image.registries.items():
            suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
            assert registry.partition(".")[2] == f"dkr.ecr.{region}.{suffix}"


def test_an_address_is_taken_as_it_is() -> None:
    assert load_images().uri(MINE, "us-east-1") == MINE
    assert load_images().instance_type(spec(image=MINE, instance_type="ml.m5.large")) == "ml.m5.large"
    with pytest.raises(UserError, match=r"resources\.instance_type is missing"):
        load_images().instance_type(spec(image=MINE))


def test_the_default_instance_is_the_images() -> None:
    catalog = load_images()
    assert catalog.instance_type(spec(image="torch-gpu")) == catalog.images["torch-gpu"].training_instance
    assert catalog.instance_type(spec("processing")) == catalog.images["cpu"].processing_instance
    assert catalog.instance_type(spec(instance_type="ml.c5.xlarge")) == "ml.c5.xlarge"


def test_what_is_not_known_is_named_with_what_is() -> None:
    catalog = load_images()
    with pytest.raises(
        UserError, match=r"resources\.image='gpu' is not known: choose among cpu, torch-cpu, torch-gpu, worker"
    ):
        catalog.uri("gpu", "us-east-1")
    with pytest.raises(UserError, match="not offered in region us-iso-east-1"):
        catalog.uri("cpu", "us-iso-east-1")
    with pytest.raises(UserError, match=r"instance_type='ml\.m5\.larg' is not known for training.*ml\.m5\.large"):
        catalog.instance_type(spec(instance_type="ml.m5.larg"))
    with pytest.raises(UserError, match="resources.image='gpu'"):
        catalog.instance_type(spec(image="gpu"))


def test_the_workers_image_is_the_settings_and_runs_on_what_the_cpu_image_does() -> None:
    catalog = load_images()
    assert catalog.uri("worker", "us-east-1", MINE) == MINE
    for kind in ("training", "processing"):
        assert catalog.instance_type(spec(kind, image="worker")) == catalog.instance_type(spec(kind, image="cpu"))
    for setting in (None, "fmops:worker"):
        with pytest.raises(UserError, match=rf"worker_image={setting!r} is not the address.*set FMOPS_WORKER_IMAGE="):
            catalog.uri("worker", "us-east-1", setting)


def test_types_differ_by_kind() -> None:
    catalog = load_images()
    only = set(catalog.instance_types["training"]) - set(catalog.instance_types["processing"])
    wanted = min(only)
    assert catalog.instance_type(spec(instance_type=wanted)) == wanted
    with pytest.raises(UserError, match="for processing jobs"):
        catalog.instance_type(spec("processing", instance_type=wanted))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("images: [", "cannot be read"),
        ("images: {}", "instance_types"),
        ("images: {cpu: {framework: 1}}\ninstance_types: {}", r"images\.cpu\.framework=1"),
    ],
)
def test_a_broken_catalog_says_where(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "images.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        load_images(file)
    assert "\n" not in str(error.value)


def test_the_file_is_written_by_the_program() -> None:
    from local.images import IMAGES as WRITTEN
    from local.images import render

    values = yaml.safe_load(IMAGES.read_text())
    assert {name: {key: image[key] for key in WRITTEN[name]} for name, image in values["images"].items()} == WRITTEN
    sdk = next(line for line in IMAGES.read_text().splitlines() if "SDK" in line).split("SDK ")[1].split(";")[0]
    assert render(values, sdk) == IMAGES.read_text(), "edited by hand: run `make images`"
    assert f"sagemaker=={sdk}\n" in (PROJECT / "requirements-jobs.txt").read_text(), "run `make images`"


def test_without_the_sdk_it_says_what_to_do() -> None:
    done = subprocess.run([sys.executable, "-m", "local.images"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "jobs environment" in done.stdout


def test_the_catalog_is_what_the_sdk_says() -> None:
    python = JOBS.path(PROJECT, os.environ) / "bin" / "python"
    assert python.exists(), "there is no jobs environment: run `make setup-jobs`"
    done = subprocess.run([python, "-m", "local.images", "--check"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
