"""What a run computes on: instances by the catalog, this machine by its driver or a measurement."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import UserError
from include.training import compute as computing
from include.training.compute import CPU_MFU, GPU_MFU, compute_of, measure_matmul_flops, parse_gpus
from tests.training.planning import here, on_aws


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi of the test's own, the only program on the path; it has two H100."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559'\necho 'NVIDIA H100 80GB HBM3, 81559'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


def test_each_gpu_of_an_instance_has_a_process() -> None:
    found = compute_of(on_aws(size="1b", instance_count=2))
    assert (found.name, found.device, found.is_gpu) == ("ml.p5.48xlarge", "H100", True)
    assert (found.instances, found.processes, found.world) == (2, 8, 16)
    assert (found.flops, found.mfu, found.memory_gib) == (989e12, GPU_MFU, 79)
    assert found.usable_gib == pytest.approx(0.9 * 79)


def test_float32_on_a_gpu_is_half_as_fast() -> None:
    found = compute_of(on_aws(size="small", precision="fp32"))
    assert found.flops == 989e12 / 2
    assert "TF32" in found.basis


def test_processes_of_a_cpu_share_its_cores_and_its_memory() -> None:
    one = compute_of(on_aws(processes=1))  # ml.c7i.2xlarge: 8 vCPUs of 80 GFLOP/s, 16 GiB
    assert (one.world, one.flops, one.memory_gib, one.mfu) == (1, 640e9, 16, CPU_MFU)
    assert one.usable_gib == 12
    four = compute_of(on_aws(processes=4))
    assert (four.world, four.flops, four.memory_gib) == (4, 160e9, 4)


def test_a_preset_says_how_many_processes_share_a_cpu() -> None:
    two = compute_of(on_aws())
    assert (two.world, two.flops, two.memory_gib) == (2, 320e9, 8)
    assert compute_of(on_aws(size="mini")).world == 1
    assert compute_of(on_aws(parallelism="single")).world == 1
    assert compute_of(on_aws(batch_tokens=3 * 256)).world == 1, "three rows cannot be halved"
    assert compute_of(on_aws(batch_tokens=2 * 256, instance_count=2)).processes == 1, "each host has one row"


def test_the_utilisation_may_be_given() -> None:
    assert compute_of(on_aws(mfu=0.2)).mfu == 0.2


def test_an_unknown_instance_is_answered_with_those_that_are_like_it() -> None:
    with pytest.raises(
        UserError, match=r"instance_type='ml.p5.48xlrage' has no figures: choose such as ml.p5.48xlarge"
    ):
        compute_of(on_aws(instance_type="ml.p5.48xlrage"))


def test_a_gpu_has_one_process() -> None:
    with pytest.raises(UserError, match=r"processes=9 is more than ml.p5.48xlarge has GPUs: at most 8, one for each"):
        compute_of(on_aws(size="1b", processes=9))


def test_one_process_is_not_several() -> None:
    wrong = on_aws(size="1b", parallelism="single")
    with pytest.raises(UserError, match=r"parallelism='single' is one process, but 1 x ml.p5.48xlarge run 8: write"):
        compute_of(wrong)
    assert compute_of(wrong.model_copy(update={"processes": 1})).world == 1


def test_a_batch_that_processes_cannot_share_is_refused_with_one_that_they_can() -> None:
    with pytest.raises(UserError, match=r"batch_tokens=2048 are 8 rows .* the 3 processes .* a multiple of 768$"):
        compute_of(on_aws(instance_count=3))
    assert compute_of(on_aws(instance_count=3, batch_tokens=768, micro_batch_tokens=256)).world == 3


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("NVIDIA A10G, 23028", "A10G"),
        ("NVIDIA L4, 23034", "L4"),
        ("NVIDIA L40S, 46068", "L40S"),
        ("NVIDIA A100-SXM4-40GB, 40960", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB, 81920", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3, 81559", "H100"),
        ("NVIDIA H200, 143771", "H200"),
        ("NVIDIA GeForce RTX 4090, 24564", "unknown GPU"),
    ],
)
def test_what_the_driver_calls_a_gpu_is_found_in_the_catalog(line: str, name: str) -> None:
    [(found, memory_gib)] = parse_gpus(f"{line}\n")
    assert found == name
    assert memory_gib == pytest.approx(float(line.split(", ")[1]) / 1024)


@pytest.mark.usefixtures("driver")
def test_jobs_of_this_machine_take_its_gpus() -> None:
    found = compute_of(here(instance_count=1))
    assert (found.name, found.device, found.world, found.flops) == ("this machine", "H100", 2, 989e12)
    assert found.memory_gib == pytest.approx(79.6, abs=0.1)


@pytest.mark.usefixtures("driver")
def test_jobs_take_only_the_gpus_that_they_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert compute_of(here()).world == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not compute_of(here()).is_gpu


def test_an_unknown_gpu_counts_as_the_slowest_one(driver: Path) -> None:
    driver.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564'\n")
    found = compute_of(here())
    assert (found.device, found.flops) == ("unknown GPU", 70e12)


def test_without_a_driver_that_answers_the_processor_is_measured(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.write_text("#!/bin/sh\nexit 9\n")
    monkeypatch.setattr(computing, "measure_matmul_flops", lambda: 5e10)
    found = compute_of(here(processes=2))
    assert (found.name, found.device, found.is_gpu) == ("this machine", "CPU", False)
    assert (found.world, found.flops) == (2, 2.5e10)
    assert found.memory_gib > 0


def test_the_measured_rate_is_one_that_a_processor_can_have() -> None:
    assert 1e8 < measure_matmul_flops() < 1e14
