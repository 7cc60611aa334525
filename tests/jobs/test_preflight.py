"""Each check of the preflight, for both outcomes; AWS's answers come from clients that know a few calls."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from include.config import Settings
from include.errors import UserError
from include.jobs import preflight as module
from include.jobs.preflight import Finding, check_spec, demand, preflight, render
from include.jobs.spec import JobSpec

ROLE = "arn:aws:iam::123456789012:role/service-role/jobs"
CALLER = "arn:aws:sts::123456789012:assumed-role/airflow/session"
MINE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/mine:7"
TRUST = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}}]}


def spec(**changes: Any) -> JobSpec:
    values = {
        "name": "x",
        "script": "include.jobs.scripts.smoke",
        "max_runtime_s": 3600,
        "tenant": "acme",
        "use_case": "u",
        "dag_id": "d",
        "run_id": "r",
        "task_id": "t",
    }
    return JobSpec.model_validate(values | changes)


def settings(**changes: Any) -> Settings:
    return Settings(
        **{"target": "aws", "storage_root": "s3://bucket/root", "sagemaker_role": ROLE} | changes,  # type: ignore[arg-type]
    )


def refusal(code: str, operation: str = "Something") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


class Account:
    """An AWS account in which all is well, but for the calls that a test replaces: service_call -> answer."""

    def __init__(self, **answers: Any) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {
            "sts_get_caller_identity": {"Arn": CALLER, "Account": "123456789012"},
            "iam_get_role": lambda RoleName: {
                "Role": {"Arn": f"arn:aws:iam::123456789012:role/{RoleName}", "AssumeRolePolicyDocument": TRUST}
            },
            "iam_simulate_principal_policy": {"EvaluationResults": [{"EvalDecision": "allowed"}]},
            "s3_get_bucket_location": {"LocationConstraint": None},
            "s3_put_object": {},
            "s3_delete_object": {},
            "kms_describe_key": {"KeyMetadata": {"KeyState": "Enabled"}},
            "ecr_describe_images": {"imageDetails": [{}]},
            "service_quotas_list_service_quotas": _quotas(4),
        } | answers

    def __call__(self, service: str) -> Any:
        prefix = service.replace("-", "_") + "_"
        names = [name.removeprefix(prefix) for name in self.answers if name.startswith(prefix)]
        return SimpleNamespace(**{name: self._answer(prefix + name) for name in names})

    def _answer(self, name: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self.calls.append((name, arguments))
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer(**arguments) if callable(answer) else answer

        return call


def _quotas(value: float) -> Callable[..., dict[str, Any]]:
    """Two pages, the one that is looked for on the second."""

    def answer(ServiceCode: str, MaxResults: int, NextToken: str = "") -> dict[str, Any]:  # noqa: N803
        if not NextToken:
            return {"Quotas": [{"QuotaName": "ml.m5.large for endpoint usage", "Value": 9.0}], "NextToken": "2"}
        return {"Quotas": [{"QuotaName": "ml.m5.large for training job usage", "Value": value}]}

    return answer


def found(account: Account, word: str, *, job: JobSpec | None = None, **changes: Any) -> Finding:
    """The one finding that has the word."""
    findings = preflight(settings(**changes), job or spec(), clients=account)
    (one,) = [one for one in findings if word in one.what]
    return one


def test_an_account_in_which_all_is_well() -> None:
    account = Account()
    findings = preflight(settings(sagemaker_kms_key="k"), spec(), clients=account)
    levels = [one.level for one in findings]
    assert levels.count("problem") == 0
    assert [one.what for one in findings if one.level == "warning"] == [
        "image 683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-py312-cpu-py3: not checked: "
        "the registry is another account's"
    ]
    assert len(findings) == 9
    demand(findings)


def test_no_region_and_no_credentials_end_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(sts_get_caller_identity=refusal("ExpiredToken"))
    findings = preflight(settings(), spec(), clients=account)
    assert [one.level for one in findings] == ["ok", "problem", "ok"]
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/none")
    first, *_ = preflight(settings(), spec(), clients=Account())
    assert first.level == "problem"
    assert "AWS_DEFAULT_REGION" in first.advice


def test_the_role() -> None:
    assert found(Account(), "trusts").level == "ok"
    account = Account(iam_get_role=refusal("NoSuchEntity"))
    assert found(account, f"role {ROLE} is not there").level == "problem"
    other = {"Statement": {"Effect": "Allow", "Principal": {"Service": ["ec2.amazonaws.com"]}}}
    account = Account(iam_get_role={"Role": {"Arn": ROLE, "AssumeRolePolicyDocument": other}})
    assert found(account, "does not trust").level == "problem"
    account = Account(iam_get_role=refusal("AccessDenied", "GetRole"))
    one = next(one for one in preflight(settings(), spec(), clients=account) if one.what.startswith("role"))
    assert (one.level, "GetRole" in one.advice) == ("warning", True)
    one = next(one for one in preflight(settings(sagemaker_role=None), spec(), clients=Account()) if one.what == "role")
    assert (one.level, "FMOPS_SAGEMAKER_ROLE" in one.advice) == ("problem", True)


@pytest.mark.parametrize(
    ("principal", "effect", "trusts"),
    [
        ({"Service": "sagemaker.amazonaws.com"}, "Allow", True),
        ({"Service": ["ec2.amazonaws.com", "sagemaker.amazonaws.com"]}, "Allow", True),
        ("*", "Allow", True),
        ({"Service": "sagemaker.amazonaws.com"}, "Deny", False),
        ({"AWS": "arn:aws:iam::1:root"}, "Allow", False),
    ],
)
def test_who_is_trusted(principal: Any, effect: str, trusts: bool) -> None:
    assert module._trusts({"Statement": [{"Effect": effect, "Principal": principal}]}) is trusts


def test_passing_the_role() -> None:
    account = Account()
    assert found(account, "may pass").level == "ok"
    (asked,) = [arguments for name, arguments in account.calls if name == "iam_simulate_principal_policy"]
    assert asked["PolicySourceArn"] == "arn:aws:iam::123456789012:role/airflow", "a session has no policies"
    assert asked["ResourceArns"] == [ROLE]
    account = Account(iam_simulate_principal_policy={"EvaluationResults": [{"EvalDecision": "implicitDeny"}]})
    assert found(account, "may not pass").level == "problem"
    account = Account(iam_simulate_principal_policy=refusal("AccessDenied", "SimulatePrincipalPolicy"))
    one = found(account, "pass role")
    assert (one.level, one.advice) == ("warning", "allow SimulatePrincipalPolicy to see it")
    user = {"Arn": "arn:aws:iam::123456789012:user/me", "Account": "123456789012"}
    assert found(Account(sts_get_caller_identity=user), "user/me may pass").level == "ok"


def test_the_bucket() -> None:
    account = Account()
    assert found(account, "can be written").level == "ok"
    keys = [arguments["Key"] for name, arguments in account.calls if name in ("s3_put_object", "s3_delete_object")]
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert keys[0].startswith("root/acme/jobs/preflight-")
    account = Account(s3_get_bucket_location={"LocationConstraint": "eu-west-1"})
    assert found(account, "is in eu-west-1, jobs in us-east-1").level == "problem"
    account = Account(s3_get_bucket_location={"LocationConstraint": "EU"})
    assert found(account, "is in eu-west-1, jobs in us-east-1").level == "problem"
    assert found(Account(s3_put_object=refusal("AccessDenied")), "s3://bucket/root:").level == "problem"
    assert found(Account(s3_delete_object=refusal("AccessDenied")), "s3://bucket/root:").level == "problem"
    assert found(Account(s3_get_bucket_location=refusal("NoSuchBucket")), "s3://bucket/root:").level == "problem"
    assert found(Account(), "is not on S3", storage_root="file:///tmp/x").level == "problem"


def test_the_key() -> None:
    assert found(Account(), "key: AWS's own").level == "ok"
    assert found(Account(), "key k is enabled", sagemaker_kms_key="k").level == "ok"
    account = Account(kms_describe_key={"KeyMetadata": {"KeyState": "PendingDeletion"}})
    assert found(account, "key k is PendingDeletion", sagemaker_kms_key="k").level == "problem"
    account = Account(kms_describe_key=refusal("NotFoundException"))
    assert found(account, "key k is not there", sagemaker_kms_key="k").level == "problem"
    account = Account(kms_describe_key=refusal("AccessDeniedException"))
    assert found(account, "key: not checked", sagemaker_kms_key="k").level == "warning"


def test_the_image() -> None:
    own = spec(resources={"image": MINE, "instance_type": "ml.m5.large"})
    account = Account()
    assert found(account, f"image {MINE} is there", job=own).level == "ok"
    (asked,) = [arguments for name, arguments in account.calls if name == "ecr_describe_images"]
    assert (asked["repositoryName"], asked["imageIds"]) == ("team/mine", [{"imageTag": "7"}])
    account = Account(ecr_describe_images=refusal("ImageNotFoundException"))
    assert found(account, f"image {MINE} is not there", job=own).level == "problem"
    account = Account(ecr_describe_images=refusal("AccessDeniedException"))
    assert found(account, "image: not checked", job=own).level == "warning"
    findings = preflight(settings(), spec(resources={"image": "none"}), clients=Account())
    assert Finding("problem", "image", next(one.advice for one in findings if one.what == "image")) in findings


def test_the_quota() -> None:
    assert found(Account(), "quota 'ml.m5.large for training job usage' is 4").level == "ok"
    account = Account(service_quotas_list_service_quotas=_quotas(0))
    one = found(account, "quota 'ml.m5.large for training job usage' is 0, the job wants 1")
    assert (one.level, "Service Quotas" in one.advice) == ("problem", True)
    two = spec(resources={"instance_count": 5})
    assert found(Account(), "the job wants 5", job=two).level == "problem"
    spot = spec(resources={"spot": True})
    assert found(Account(), "'ml.m5.large for spot training job usage': not found", job=spot).level == "warning"
    denied = Account(service_quotas_list_service_quotas=refusal("AccessDeniedException", "ListServiceQuotas"))
    assert found(denied, "quota: not checked").advice == "allow ListServiceQuotas to see it"
    away = Account(service_quotas_list_service_quotas=EndpointConnectionError(endpoint_url="https://q"))
    assert found(away, "quota: not checked").level == "warning"
    wrong = spec(resources={"instance_type": "ml.none"})
    one = next(one for one in preflight(settings(), wrong, clients=Account()) if one.what == "quota")
    assert (one.level, "ml.none" in one.advice) == ("problem", True)


@pytest.mark.parametrize(
    ("limit", "price", "level"),
    [(None, 1.0, "ok"), (None, None, "ok"), (5.0, None, "warning"), (2.0, 1.0, "ok"), (1.99, 1.0, "problem")],
)
def test_the_budget(limit: float | None, price: float | None, level: str) -> None:
    job = spec(resources={"instance_count": 2})
    findings = preflight(settings(), job, budget_usd=limit, usd_per_hour=price, clients=Account())
    assert findings[-1].level == level
    assert findings[-1].what.startswith("budget")


def local(tmp_path: Path, **changes: Any) -> list[Finding]:
    values = {"storage_root": tmp_path.as_uri(), "job_python": sys.executable} | changes
    return preflight(Settings(**values), spec())  # type: ignore[arg-type]


def test_a_machine_on_which_all_is_well(tmp_path: Path) -> None:
    python, folder, disk, memory = local(tmp_path)
    assert python.level == folder.level == disk.level == "ok"
    assert sys.executable in python.what
    assert str(tmp_path / "jobs") in folder.what
    assert memory.what.startswith("memory")
    assert not list((tmp_path / "jobs").iterdir()), "the probe is gone"


def program(folder: Path, text: str) -> str:
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


@pytest.mark.parametrize(
    ("text", "words"), [("exit 3", "does not run"), ("echo hello", "does not run"), ("echo 3 9", "is Python 3.9")]
)
def test_a_python_that_will_not_do(tmp_path: Path, text: str, words: str) -> None:
    python = local(tmp_path, job_python=program(tmp_path, text))[0]
    assert python.level == "problem"
    assert words in python.what
    assert "FMOPS_JOB_PYTHON" in python.advice


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    python = local(tmp_path, job_python=str(tmp_path / "none"))[0]
    assert (python.level, "FMOPS_JOB_PYTHON" in python.advice) == ("problem", True)


def test_a_job_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = local(tmp_path, job_folder=str(tmp_path / "file" / "jobs"))[1]
    assert (folder.level, "cannot be written" in folder.what) == ("problem", True)
    folder = local(tmp_path, storage_root="s3://bucket/root")[1]
    assert (folder.level, "FMOPS_JOB_FOLDER" in folder.advice) == ("problem", True)


def test_disk_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREE_DISK_GB", 1e9)
    assert local(tmp_path)[2].level == "problem"
    assert module.memory(spec(resources={"memory_mb": 64})).level == "ok"
    assert module.memory(spec(resources={"memory_mb": 10**9})).level == "warning"


def test_the_report_and_the_demand() -> None:
    findings = [Finding("ok", "a"), Finding("warning", "b", "do b"), Finding("problem", "c", "do c")]
    assert render(findings) == "ok       a\nwarning  b\n         -> do b\nproblem  c\n         -> do c"
    with pytest.raises(UserError, match=r"^preflight: c: do c$"):
        demand(findings)
    demand(findings[:2])


def test_the_check_of_a_spec_reports_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", tmp_path.as_uri())
    caplog.set_level("INFO")
    values = {"name": "smoke", "script": "include.jobs.scripts.smoke", "max_runtime_s": 60}
    check_spec(values)
    assert "preflight of job smoke on local:\nok       job_python" in caplog.text
    monkeypatch.setenv("FMOPS_JOB_FOLDER", "/proc/jobs")
    with pytest.raises(UserError, match=r"preflight: job folder /proc/jobs cannot be written.*: set FMOPS_JOB_FOLDER"):
        check_spec(values)
    with pytest.raises(UserError, match="max_runtime_s is missing"):
        check_spec({"name": "smoke", "script": "include.jobs.scripts.smoke"})
