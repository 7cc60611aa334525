"""What stands between a job and its success that can be known before anything is spent: one readable report."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from include import aws
from include.config import Settings, load_settings
from include.errors import UserError
from include.jobs.base import default_backend
from include.jobs.images import ADDRESS, load_images
from include.jobs.local import LocalBackend
from include.jobs.spec import JobSpec, read_spec

log = logging.getLogger(__name__)

FREE_DISK_GB = 1.0
FREE_MEMORY_MB = 512
OLDEST_PYTHON = (3, 10)
_DENIED = ("AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation", "403")

Clients = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Literal["ok", "warning", "problem"]
    """A problem fails the job for sure; a warning may."""
    what: str
    advice: str = ""
    """What to do; empty if all is well."""


def preflight(
    settings: Settings,
    spec: JobSpec,
    *,
    backend: str | None = None,
    budget_usd: float | None = None,
    usd_per_hour: float | None = None,
    clients: Clients = aws.client,
) -> list[Finding]:
    """Look at all that a job of this spec needs, where it will run; nothing is raised, and no job is started.

    budget_usd: the most that the job may cost; usd_per_hour: the price of one of its instances, None if none is known.
    """
    if (backend or default_backend(settings)) == "local":
        return [*_local(settings, spec)]
    return [*_aws(settings, spec, clients), budget(spec, budget_usd, usd_per_hour)]


def check_spec(
    values: Mapping[str, Any], *, budget_usd: float | None = None, usd_per_hour: float | None = None
) -> None:
    """Report in the log what preflight() finds for a spec's values, where the settings run it.

    UserError for a spec that cannot be meant, and one with all problems if there are any.
    """
    settings = load_settings()
    task = {"tenant": settings.tenant, "use_case": settings.use_case, "dag_id": "-", "run_id": "-", "task_id": "-"}
    spec = read_spec({**task, **values})
    findings = preflight(settings, spec, budget_usd=budget_usd, usd_per_hour=usd_per_hour)
    log.info("preflight of job %s on %s:\n%s", values["name"], default_backend(settings), render(findings))
    demand(findings)


def render(findings: Iterable[Finding]) -> str:
    """The report: a line for each finding, and below it what to do."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<8} {finding.what}")
        if finding.advice:
            lines.append(f"{'':<8} -> {finding.advice}")
    return "\n".join(lines)


def demand(findings: Iterable[Finding]) -> None:
    """UserError with all problems in one line; warnings pass."""
    problems = [f"{one.what}: {one.advice}" for one in findings if one.level == "problem"]
    if problems:
        raise UserError(f"preflight: {'; '.join(problems)}")


def _local(settings: Settings, spec: JobSpec) -> Iterable[Finding]:
    backend = LocalBackend(settings)
    yield job_python(backend, spec)
    try:
        folder = backend.folder
    except UserError as error:
        yield Finding("problem", "job folder", str(error))
    else:
        yield from writable(folder)
    yield memory(spec)


def job_python(backend: LocalBackend, spec: JobSpec) -> Finding:
    """Whether the Python of the job is there, new enough, and has what a supervisor needs."""
    advice = "set FMOPS_JOB_PYTHON to the Python of an environment made from requirements-jobs.txt"
    try:
        python = str(backend.python_of(spec))
        what = f"job_python {python}"
        command = [python, "-c", "import psutil, sys; print(*sys.version_info[:2])"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        version = tuple(map(int, done.stdout.split()))
    except UserError as error:
        return Finding("problem", "job_python", str(error))
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().rpartition("\n")[2]
        return Finding("problem", f"{what} does not run: {last or _said(error)}", advice)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Finding("problem", f"{what} does not run: {_said(error)}", advice)
    told = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        return Finding("problem", f"{what} is Python {told}", f"{advice}, with Python 3.10 or newer")
    return Finding("ok", f"{what} is Python {told}")


def writable(folder: Path) -> Iterable[Finding]:
    """Whether a folder can be written, and how much room it has."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"1")
    except OSError as error:
        yield Finding("problem", f"job folder {folder} cannot be written: {error}", "set FMOPS_JOB_FOLDER")
        return
    yield Finding("ok", f"job folder {folder} can be written")
    free_gb = shutil.disk_usage(folder).free / 1024**3
    what = f"disk: {free_gb:,.1f} GB free at {folder}"
    if free_gb < FREE_DISK_GB:
        yield Finding("problem", what, f"free {FREE_DISK_GB:g} GB, or set FMOPS_JOB_FOLDER to another disk")
    else:
        yield Finding("ok", what)


def memory(spec: JobSpec) -> Finding:
    """Whether the memory that the job may take is free."""
    import psutil

    free_mb = psutil.virtual_memory().available / 1024**2
    wanted_mb = spec.resources.memory_mb or FREE_MEMORY_MB
    what = f"memory: {free_mb:,.0f} MB free, {wanted_mb:,} MB wanted"
    if free_mb < wanted_mb:
        return Finding("warning", what, "end other programs, or lower resources.memory_mb")
    return Finding("ok", what)


@dataclass(frozen=True)
class Target:
    """What the checks of an AWS account share."""

    settings: Settings
    spec: JobSpec
    region: str
    clients: Clients
    caller_arn: str = ""
    account: str = ""


def _aws(settings: Settings, spec: JobSpec, clients: Clients) -> Iterable[Finding]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        region = aws.region()
    except UserError as error:
        yield Finding("problem", "region: none", str(error))
        return
    yield Finding("ok", f"region {region}")
    try:
        who = clients("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        yield Finding("problem", f"credentials: {_said(error)}", "give AWS credentials as for any AWS tool")
        return
    yield Finding("ok", f"credentials of {who['Arn']}")
    target = Target(settings, spec, region, clients, caller_arn=who["Arn"], account=who["Account"])
    checks = (("role", role), ("pass role", pass_role), ("bucket", bucket), ("key", key), ("image", image))
    for what, check in (*checks, ("quota", quota)):
        yield _guarded(what, check, target)


def _guarded(what: str, check: Callable[[Target], Finding], target: Target) -> Finding:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return check(target)
    except UserError as error:
        return Finding("problem", what, str(error))
    except ClientError as error:
        if error.response["Error"].get("Code") in _DENIED:
            return Finding("warning", f"{what}: not checked: {_said(error)}", f"allow {error.operation_name} to see it")
        return Finding("warning", f"{what}: not checked: {_said(error)}", "look at it yourself")
    except BotoCoreError as error:
        return Finding("warning", f"{what}: not checked: {_said(error)}", "look at it yourself")


def role(target: Target) -> Finding:
    """Whether the jobs' role is there, and SageMaker may take it on."""
    arn = _role(target)
    what = f"role {arn}"
    try:
        found = target.clients("iam").get_role(RoleName=arn.rpartition("/")[2])["Role"]
    except Exception as error:
        if _code(error) == "NoSuchEntity":
            return Finding("problem", f"{what} is not there", "create it, or set FMOPS_SAGEMAKER_ROLE to another")
        raise
    if not _trusts(found["AssumeRolePolicyDocument"]):
        return Finding(
            "problem",
            f"{what} does not trust sagemaker.amazonaws.com",
            "allow that service sts:AssumeRole in its trust policy",
        )
    return Finding("ok", f"{what} trusts SageMaker")


def pass_role(target: Target) -> Finding:
    """Whether who calls may hand the role to SageMaker, by a simulation of the caller's policies."""
    arn = _role(target)
    iam = target.clients("iam")
    source = target.caller_arn
    if ":assumed-role/" in source:
        source = iam.get_role(RoleName=source.split("/")[1])["Role"]["Arn"]
    answer = iam.simulate_principal_policy(
        PolicySourceArn=source,
        ActionNames=["iam:PassRole"],
        ResourceArns=[arn],
        ContextEntries=[
            {
                "ContextKeyName": "iam:PassedToService",
                "ContextKeyValues": ["sagemaker.amazonaws.com"],
                "ContextKeyType": "string",
            }
        ],
    )
    if answer["EvaluationResults"][0]["EvalDecision"] != "allowed":
        return Finding("problem", f"{source} may not pass {arn}", "allow iam:PassRole on it to who runs the tasks")
    return Finding("ok", f"{source} may pass the role")


def bucket(target: Target) -> Finding:
    """Whether the root's bucket is in the same region, and can be written and deleted below the root."""
    root = target.settings.root
    if not root.startswith("s3://"):
        return Finding("problem", f"storage_root={root} is not on S3", "set FMOPS_STORAGE_ROOT=s3://BUCKET/PREFIX")
    name, _, prefix = root.removeprefix("s3://").partition("/")
    s3 = target.clients("s3")
    try:
        where = _region_of(s3, name)
        if where not in (target.region, ""):
            return Finding(
                "problem", f"bucket {name} is in {where}, jobs in {target.region}", "use one region for both"
            )
        probe = "/".join(part for part in (prefix, target.spec.tenant, "jobs", f"preflight-{uuid.uuid4().hex}") if part)
        s3.put_object(Bucket=name, Key=probe, Body=b"")
        s3.delete_object(Bucket=name, Key=probe)
    except Exception as error:
        if _code(error) is None:
            raise
        return Finding(
            "problem",
            f"{root}: {_said(error)}",
            "create the bucket, or allow s3:PutObject and DeleteObject below the root",
        )
    if not where:
        return Finding(
            "warning", f"{root} can be written; its region: not checked", "allow s3:GetBucketLocation to see it"
        )
    return Finding("ok", f"{root} can be written")


def _region_of(s3: Any, bucket: str) -> str:
    """Where a bucket lies; empty if that may not be asked."""
    try:
        where = s3.get_bucket_location(Bucket=bucket)["LocationConstraint"]
    except Exception as error:
        if _code(error) in _DENIED:
            return ""
        raise
    return str({None: "us-east-1", "EU": "eu-west-1"}.get(where, where))  # as the oldest regions are told


def key(target: Target) -> Finding:
    """Whether the key of volumes and outputs is there and enabled."""
    name = target.settings.sagemaker_kms_key
    if not name:
        return Finding("ok", "key: AWS's own")
    try:
        state = target.clients("kms").describe_key(KeyId=name)["KeyMetadata"]["KeyState"]
    except Exception as error:
        if _code(error) == "NotFoundException":
            return Finding(
                "problem", f"key {name} is not there", "create it, or set FMOPS_SAGEMAKER_KMS_KEY to another"
            )
        raise
    if state != "Enabled":
        return Finding("problem", f"key {name} is {state}", "enable it, or set FMOPS_SAGEMAKER_KMS_KEY to another")
    return Finding("ok", f"key {name} is enabled")


def image(target: Target) -> Finding:
    """Whether the image is there; AWS's own registries cannot be asked."""
    uri = load_images().uri(target.spec.resources.image, target.region, target.settings.worker_image)
    match = ADDRESS.fullmatch(uri)
    if match is None or match["account"] != target.account:
        return Finding("warning", f"image {uri}: not checked: the registry is another account's", "see the job's start")
    repository, _, tag = match["repository"].partition(":")
    try:
        target.clients("ecr").describe_images(
            registryId=target.account, repositoryName=repository, imageIds=[{"imageTag": tag or "latest"}]
        )
    except Exception as error:
        if _code(error) in ("RepositoryNotFoundException", "ImageNotFoundException"):
            return Finding("problem", f"image {uri} is not there", "push it, or correct resources.image")
        raise
    return Finding("ok", f"image {uri} is there")


def quota(target: Target) -> Finding:
    """Whether the account may have as many instances of the type; how many are in use is not known."""
    spec = target.spec
    kind = load_images().instance_type(spec)
    wanted = f"{kind} for {'spot ' if spec.resources.spot else ''}{spec.kind} job usage"
    service = target.clients("service-quotas")
    page: Mapping[str, Any] = {"NextToken": None}
    while "NextToken" in page:
        token = {"NextToken": page["NextToken"]} if page["NextToken"] else {}
        page = service.list_service_quotas(ServiceCode="sagemaker", MaxResults=100, **token)
        for one in page["Quotas"]:
            if one["QuotaName"] == wanted:
                return _within(wanted, one["Value"], spec.resources.instance_count)
    return Finding("warning", f"quota {wanted!r}: not found", "look it up under Service Quotas, SageMaker")


def _within(name: str, value: float, count: int) -> Finding:
    if value < count:
        return Finding(
            "problem",
            f"quota {name!r} is {value:g}, the job wants {count}",
            "ask for more under Service Quotas, SageMaker, or choose another resources.instance_type",
        )
    return Finding("ok", f"quota {name!r} is {value:g}")


def budget(spec: JobSpec, limit_usd: float | None, usd_per_hour: float | None) -> Finding:
    """Whether the job stays below a limit if it runs as long as it may."""
    if limit_usd is None:
        return Finding("ok", "budget: no limit is set")
    if usd_per_hour is None:
        return Finding("warning", "budget: not checked: no price of the instance is known", "look the price up")
    cost = usd_per_hour * spec.max_runtime_s / 3600 * spec.resources.instance_count
    what = f"budget: at most {cost:,.2f} USD of {limit_usd:,.2f} USD"
    if cost > limit_usd:
        return Finding("problem", what, "lower max_runtime_s or the instances, or raise the limit")
    return Finding("ok", what)


def _role(target: Target) -> str:
    if not target.settings.sagemaker_role:
        raise UserError("set FMOPS_SAGEMAKER_ROLE to the ARN of the role that jobs take on")
    return target.settings.sagemaker_role


def _trusts(policy: Mapping[str, Any]) -> bool:
    statements = policy.get("Statement", [])
    for one in statements if isinstance(statements, list) else [statements]:
        principal = one.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else [principal]
        services = services if isinstance(services, list) else [services]
        if one.get("Effect") == "Allow" and {"sagemaker.amazonaws.com", "*"} & set(services):
            return True
    return False


def _code(error: Exception) -> str | None:
    """AWS's code of a refusal; None for any other error."""
    code: str | None = getattr(error, "response", {}).get("Error", {}).get("Code")
    return code


def _said(error: Exception) -> str:
    return " ".join(str(error).split())
