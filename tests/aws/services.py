"""What moto lacks beside jobs: their quotas and tags, a policy simulation, images of other accounts; all settable."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from xml.sax.saxutils import escape

from tests.aws.checks import ACCOUNT, Refusal, check_processing, check_training, invalid, operation
from tests.aws.sagemaker import OVER, PROCESSING, TRAINING, Job, Jobs, Kind, page, tag_list

Call = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Region and request to answer."""


@dataclass
class Account:
    """What the account may and has; a test sets it."""

    quotas: dict[str, float] = field(default_factory=dict)
    """Name as the console shows it, such as `ml.g5.xlarge for training job usage` -> instances at once."""
    default_quota: float = 1000.0
    denied: list[str] = field(default_factory=list)
    """Actions that SimulatePrincipalPolicy finds denied, such as iam:PassRole."""
    missing_images: list[str] = field(default_factory=list)
    """`repository:tag` patterns that other accounts' registries do not have; they have all else."""

    def quota(self, name: str) -> float:
        return self.quotas.get(name, self.default_quota)


def quota_name(kind: Kind, instance_type: str, *, spot: bool = False) -> str:
    return f"{instance_type} for {'spot ' if spot else ''}{kind.word.lower()} job usage"


def instance_types(kind: Kind) -> list[str]:
    """All that the service's model knows."""
    shape: Any = operation(f"Create{kind.word}Job").input_shape
    if kind is TRAINING:
        return list(shape.members["ResourceConfig"].members["InstanceType"].enum)
    cluster = shape.members["ProcessingResources"].members["ClusterConfig"]
    return list(cluster.members["InstanceType"].enum)


def check_job(
    account: Account, jobs: Callable[[], list[Job]], role_trusts: Callable[[str], bool]
) -> Callable[[Kind, str, dict[str, Any]], None]:
    """The checks of a create call that need the account: role and quota."""

    def check(kind: Kind, region: str, request: dict[str, Any]) -> None:
        (check_training if kind is TRAINING else check_processing)(request)
        if not role_trusts(request["RoleArn"]):
            raise invalid(
                f"Could not assume role {request['RoleArn']}. Please ensure that the role exists and allows principal "
                "'sagemaker.amazonaws.com' to assume the role."
            )
        asked = Job(kind, region, request)
        name = quota_name(kind, asked.resources["InstanceType"], spot=asked.is_spot)
        running = [job for job in jobs() if job.kind is kind and job.region == region and job.status not in OVER]
        used = sum(
            job.resources["InstanceCount"]
            for job in running
            if quota_name(kind, job.resources["InstanceType"], spot=job.is_spot) == name
        )
        count, limit = asked.resources["InstanceCount"], account.quota(name)
        if used + count > limit:
            raise Refusal(
                "ResourceLimitExceeded",
                f"The account-level service limit '{name}' is {limit:g} Instances, with current utilization of {used} "
                f"Instances and a request delta of {count} Instances. Please use AWS Service Quotas to request an "
                "increase for this quota.",
            )

    return check


class Quotas:
    """Service Quotas of SageMaker."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.calls: dict[str, Call] = {
            "ListServiceQuotas": self.list_all,
            "GetServiceQuota": self.get,
        }

    def list_all(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        found, more = page(self._all(region, request), request, 100)
        return {"Quotas": found, **more}

    def get(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        for quota in self._all(region, request):
            if quota["QuotaCode"] == request["QuotaCode"]:
                return {"Quota": quota}
        raise Refusal("NoSuchResourceException", f"The request failed: there is no quota {request['QuotaCode']}")

    def _all(self, region: str, request: dict[str, Any]) -> list[dict[str, Any]]:
        if request["ServiceCode"] != "sagemaker":
            raise Refusal("NoSuchResourceException", f"The request failed: no service {request['ServiceCode']} here")
        names = [quota_name(kind, one) for kind in (TRAINING, PROCESSING) for one in instance_types(kind)]
        names += [quota_name(TRAINING, one, spot=True) for one in instance_types(TRAINING)]
        return [
            {
                "ServiceCode": "sagemaker",
                "ServiceName": "Amazon SageMaker",
                "QuotaCode": code,
                "QuotaName": name,
                "QuotaArn": f"arn:aws:servicequotas:{region}:{ACCOUNT}:sagemaker/{code}",
                "Value": self._account.quota(name),
                "Unit": "None",
                "Adjustable": True,
                "GlobalQuota": False,
            }
            for name in sorted({*names, *self._account.quotas})
            for code in [f"L-{zlib.crc32(name.encode()):08X}"]
        ]


class Tags:
    """Tags of jobs: SageMaker's calls, and Resource Groups Tagging, which finds jobs by them."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.calls: dict[str, Call] = {"AddTags": self.add, "ListTags": self.list, "DeleteTags": self.delete}

    def knows(self, request: dict[str, Any]) -> bool:
        """Whether the request is about a job; moto has the other resources."""
        return ":training-job/" in request["ResourceArn"] or ":processing-job/" in request["ResourceArn"]

    def add(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        job = self._job(request)
        tags = job.tags | {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        if len(tags) > 50:
            raise Refusal("ResourceLimitExceeded", f"A resource has up to 50 tags, not {len(tags)}")
        job.tags = tags
        return {"Tags": tag_list(tags)}

    def list(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        found, more = page(tag_list(self._job(request).tags), request, 50)
        return {"Tags": found, **more}

    def delete(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        job = self._job(request)
        job.tags = {key: value for key, value in job.tags.items() if key not in request["TagKeys"]}
        return {}

    def get_resources(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        """Jobs of the types asked for whose tags match each filter."""
        kinds = {name.partition(":")[2] for name in request["ResourceTypeFilters"]}
        filters = {one["Key"]: one.get("Values", []) for one in request.get("TagFilters", [])}
        found = [
            job
            for job in self._jobs.all()
            if job.region == region
            and (job.kind.arn in kinds or "" in kinds)
            and all(key in job.tags and (not values or job.tags[key] in values) for key, values in filters.items())
        ]
        asked = {**request, "MaxResults": request.get("ResourcesPerPage")}
        shown, more = page(found, asked, 50, "PaginationToken")
        rows = [{"ResourceARN": job.arn, "Tags": tag_list(job.tags)} for job in shown]
        return {"ResourceTagMappingList": rows, "PaginationToken": "", **more}

    def _job(self, request: dict[str, Any]) -> Job:
        job = self._jobs.find(request["ResourceArn"])
        if job is None:
            raise invalid(f"Requested resource not found: {request['ResourceArn']}")
        return job


def describe_images(account: Account, request: dict[str, Any]) -> dict[str, Any]:
    """ECR's answer for another account's registry, such as the one of SageMaker's own images."""
    repository = request["repositoryName"]
    found = []
    for one in request.get("imageIds", []):
        tag = one.get("imageTag", "")
        if any(fnmatchcase(f"{repository}:{tag}", pattern) for pattern in account.missing_images):
            raise Refusal(
                "ImageNotFoundException",
                f"The image with imageId {{imageDigest:'null', imageTag:'{tag}'}} does not exist within the repository "
                f"with name '{repository}' in the registry with id '{request['registryId']}'",
            )
        found.append({"registryId": request["registryId"], "repositoryName": repository, "imageTags": [tag]})
    return {"imageDetails": found}


def simulate_policy(account: Account, form: dict[str, str]) -> bytes:
    """IAM's answer to SimulatePrincipalPolicy: all is allowed but what a test denies."""
    actions = [value for name, value in form.items() if name.startswith("ActionNames.member.")]
    resources = [value for name, value in form.items() if name.startswith("ResourceArns.member.")] or ["*"]
    rows = "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName>"
        f"<EvalResourceName>{escape(resource)}</EvalResourceName>"
        f"<EvalDecision>{'implicitDeny' if action in account.denied else 'allowed'}</EvalDecision></member>"
        for action in actions
        for resource in resources
    )
    return (
        '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        f"<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated><EvaluationResults>{rows}</EvaluationResults>"
        "</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
    ).encode()
