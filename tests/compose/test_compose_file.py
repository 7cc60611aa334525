"""What docker-compose.yaml and Dockerfile promise, read from the files alone; test_compose.py starts the stack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (PROJECT / "Dockerfile").read_text()

ONE_SHOT = {"secrets", "airflow-init"}
LONG_RUNNING = sorted(set(SERVICES) - ONE_SHOT)
AIRFLOW = sorted(name for name in SERVICES if name.startswith("airflow-"))
SECRET_OPTIONS = {
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
}


def airflow_version() -> str:
    """The version of Airflow that requirements.txt names."""
    found = re.search(r"^apache-airflow==(\S+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert found
    return found[1]


@pytest.mark.parametrize("name", SERVICES)
def test_image_is_pinned_by_tag(name: str) -> None:
    repository, _, tag = SERVICES[name]["image"].rpartition(":")
    assert repository and re.fullmatch(r"\d[\w.-]*", tag)


def test_every_base_image_is_pinned_to_the_airflow_of_requirements() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    stages = re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE)
    assert [base for base in bases if base not in stages] == [f"apache/airflow:{airflow_version()}-python3.12"]


@pytest.mark.parametrize("name", [*AIRFLOW, "mlflow"])
def test_services_run_our_images_of_that_version(name: str) -> None:
    kinds = "mlflow" if name == "mlflow" else "slim|worker"
    assert re.fullmatch(rf"fmops-airflow:{re.escape(airflow_version())}-({kinds})", SERVICES[name]["image"])


def test_each_of_our_images_is_built_once() -> None:
    built = {name: service for name, service in SERVICES.items() if "build" in service}
    assert {service["image"] for service in built.values()} == {
        SERVICES[name]["image"] for name in (*AIRFLOW, "mlflow")
    }
    for service in built.values():
        assert service["image"].endswith("-" + service["build"]["target"])
        assert f" AS {service['build']['target']}\n" in DOCKERFILE
    assert len(built) == 3


def test_the_image_ends_as_an_unprivileged_user() -> None:
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1] == "airflow"


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"secrets", "postgres"}))
def test_services_are_not_root(name: str) -> None:
    assert re.match(r"[1-9]\d*:\d+$|[a-z]+$", str(SERVICES[name]["user"]))
    assert SERVICES[name]["user"] != "root"


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_can_gain_rights(name: str) -> None:
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices"} & set(SERVICES[name])


@pytest.mark.parametrize("name", SERVICES)
def test_published_ports_are_on_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{FMOPS_[A-Z_]+:-\d+\}:\d+", port)
    assert "network_mode" not in SERVICES[name] or SERVICES[name]["network_mode"] == "none"


def test_only_pages_and_the_vector_store_are_published() -> None:
    published = {name for name, service in SERVICES.items() if "ports" in service}
    assert published == {"airflow-apiserver", "mlflow", "opensearch"}


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_long_running_services_are_watched_and_restarted(name: str) -> None:
    health = SERVICES[name]["healthcheck"]
    assert health["test"][0] in ("CMD", "CMD-SHELL") and len(health["test"]) > 1
    assert {"interval", "timeout", "retries"} <= set(health)
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(ONE_SHOT))
def test_one_shots_end(name: str) -> None:
    assert SERVICES[name].get("restart", "no") == "no"


@pytest.mark.parametrize("name", AIRFLOW)
def test_every_airflow_reads_the_shared_options(name: str) -> None:
    assert SERVICES[name]["env_file"] == "airflow.env"
    shared = {
        line.split("=")[0] for line in (PROJECT / "airflow.env").read_text().splitlines() if not line.startswith("#")
    }
    assert not shared & set(SERVICES[name]["environment"]), "stands in airflow.env already"


@pytest.mark.parametrize("name", AIRFLOW)
def test_airflow_reads_its_secrets_from_files(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert not SECRET_OPTIONS & set(environment)
    for option in SECRET_OPTIONS:
        assert re.fullmatch(r"cat /run/fmops/\w+", environment[f"{option}_CMD"])


@pytest.mark.parametrize("name", SERVICES)
def test_no_variable_holds_a_secret(name: str) -> None:
    secret = re.compile("PASSWORD|SECRET|FERNET|TOKEN|PRIVATE|SQL_ALCHEMY_CONN|BROKER_URL|RESULT_BACKEND", re.I)
    for variable, value in SERVICES[name].get("environment", {}).items():
        assert not secret.search(variable) or variable.endswith(("_CMD", "_FILE")), variable
        assert not re.search(r"://[^/]*:[^/]*@", str(value)), variable


def test_no_secret_has_a_default() -> None:
    assert set(re.findall(r"\$\{(\w+)", (PROJECT / "docker-compose.yaml").read_text())) == {
        "FMOPS_PORT",
        "FMOPS_MLFLOW_PORT",
        "FMOPS_OPENSEARCH_PORT",
        "FMOPS_OPENLINEAGE_TRANSPORT",
        "FMOPS_WORKER_CONCURRENCY",
    }


def test_jobs_lie_where_all_that_wait_for_them_see_them() -> None:
    data = SERVICES["airflow-worker"]["environment"]["FMOPS_STORAGE_ROOT"].removeprefix("file://")
    for name in ("airflow-worker", "airflow-triggerer"):  # writable: it asks a job to stop by a file
        assert f"airflow-data:{data}" in SERVICES[name]["volumes"]
    assert f"airflow-data:{data}:ro" in SERVICES["airflow-apiserver"]["volumes"]


def test_jobs_run_in_the_environment_that_the_image_makes_for_them() -> None:
    folder = SERVICES["airflow-worker"]["environment"]["FMOPS_JOB_PYTHON"].removesuffix("/bin/python")
    assert re.search(rf"WORKDIR {Path(folder).parent}\n.*\nRUN uv venv {Path(folder).name} ", DOCKERFILE, re.DOTALL)
    assert "-r requirements-jobs.txt -c constraints-jobs.txt" in DOCKERFILE


def test_mlflow_is_where_airflow_looks_for_it_and_answers_to_that_name() -> None:
    options = dict(option.removeprefix("--").split("=", 1) for option in SERVICES["mlflow"]["command"])
    places = {SERVICES[name]["environment"]["FMOPS_MLFLOW_TRACKING_URI"] for name in AIRFLOW}
    assert places == {f"http://mlflow:{options['port']}"}
    assert options["allowed-hosts"].split(",")[0] == f"mlflow:{options['port']}"
    assert SERVICES["mlflow"]["ports"][0].endswith(f":{options['port']}")
    (volume,) = SERVICES["mlflow"]["volumes"]
    folder = volume.partition(":")[2]
    assert options["backend-store-uri"].startswith(f"sqlite:///{folder}/")
    assert options["artifacts-destination"].startswith(f"{folder}/")
    assert re.search(rf"^RUN install -d -o airflow .*{folder}$", DOCKERFILE, re.MULTILINE), "it may write there"
    assert SERVICES["mlflow"]["environment"]["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_the_image_of_mlflow_holds_the_locked_release_of_it() -> None:
    assert "mlflow -c /opt/fmops/constraints.txt\n" in DOCKERFILE


def test_workers_can_be_scaled() -> None:
    assert not {"container_name", "ports", "hostname"} & set(SERVICES["airflow-worker"])


@pytest.mark.parametrize("name", sorted(set(AIRFLOW) - {"airflow-init"}))
def test_code_is_mounted_read_only_over_the_image_s(name: str) -> None:
    volumes = SERVICES[name]["volumes"]
    for folder in ("dags", "include", "plugins"):
        assert f"./{folder}:/opt/airflow/{folder}:ro" in volumes
        assert DOCKERFILE.count(f"\nCOPY {folder} {folder}\n") == 2


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_are_named_or_read_only_and_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source, _, target = volume.partition(":")
        if source.startswith("./"):
            assert target.endswith(":ro") and (PROJECT / source).is_dir()
        else:
            assert source in COMPOSE["volumes"]


def test_nothing_but_what_reads_a_secret_mounts_them() -> None:
    holders = {name for name, service in SERVICES.items() if any("secrets:" in v for v in service["volumes"])}
    assert holders == {"secrets", "postgres", "redis", *AIRFLOW}


def test_the_build_context_holds_only_what_the_images_copy() -> None:
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    assert {line for line in lines if line.startswith("!")} == {
        "!requirements*.txt",
        "!constraints*.txt",
        "!dags",
        "!include",
        "!plugins",
    }
