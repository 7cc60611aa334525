"""The endpoint as a WSGI application: what is done here, moto for all else, and calls by which a test controls it."""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from tests.aws import keeper
from tests.aws.checks import ACCOUNT, Refusal, check_request
from tests.aws.faults import REFUSALS, Calls, Fault, Plan
from tests.aws.run import Pace, Run, Site
from tests.aws.sagemaker import OVER, Job, Jobs
from tests.aws.services import Account, Quotas, Tags, check_job, describe_images, simulate_policy
from tests.aws.wire import CONTROL, JSON, Answer, Asked, Environ, Start, collect, hang_up, read, refuse, send

OWN = "fmops-aws-own"
"""In the user agent of the endpoint's own calls, which are not counted and meet no fault."""


class Endpoint:
    """Answers requests; `url` must be set before the first job."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.url = ""
        self.plan = Plan()
        self.calls = Calls()
        self.account = Account()
        self.pace = Pace()
        self.mark = mark
        self._session: Any = boto3.session.Session(aws_access_key_id="endpoint", aws_secret_access_key="endpoint")
        self._clients: dict[tuple[str, str], Any] = {}
        self._making = threading.Lock()
        self.site = Site(
            pace=self.pace,
            plan=self.plan,
            client=self._client,
            role_environment=self._role_environment,
            folder=folder,
            mark=mark,
        )
        self.jobs = Jobs(check_job(self.account, lambda: self.jobs.all(), self._is_trusted), self._run)
        self._tags = Tags(self.jobs)
        self._quotas = Quotas(self.account)
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith(CONTROL):
            return send(start, self._control(environ))
        if OWN in environ.get("HTTP_USER_AGENT", ""):
            answer: Iterable[bytes] = self._moto(environ, start)
            return answer
        asked = read(environ)
        call = self.calls.note(asked.service, asked.operation, asked.job)
        wait, fault = self.plan.for_request(asked.operation, asked.job)
        call["fault"] = fault.do if fault else "slow" if wait else ""
        time.sleep(wait)
        if fault and fault.do == "down":
            return hang_up(environ, start)
        found = _refused(asked, fault) if fault and fault.do in REFUSALS else self._answer(environ, asked)
        call["status"] = found.status
        if fault and fault.do == "lost":
            return hang_up(environ, start)
        if fault and fault.do == "lost_error":
            found = _refused(asked, Fault(do="error"))
        return send(start, found)

    def _answer(self, environ: Environ, asked: Asked) -> Answer:
        try:
            found = self._own(asked)
        except Refusal as refusal:
            return refuse(asked, refusal)
        except Exception:
            traceback.print_exc()
            return refuse(asked, Refusal("InternalFailure", "The endpoint itself failed: see what it printed", 500))
        if found is None:
            return collect(self._moto, environ)
        if isinstance(found, bytes):
            return Answer(200, [("Content-Type", "text/xml")], [found])
        return Answer(200, [("Content-Type", JSON)], [json.dumps(found).encode()])

    def _own(self, asked: Asked) -> dict[str, Any] | bytes | None:
        """The answer to what is done here; None: moto has it."""
        if asked.service == "sagemaker":
            return self._sagemaker(asked)
        name, values = asked.operation, asked.values
        if asked.service == "servicequotas" and name in self._quotas.calls:
            return self._quotas.calls[name](asked.region, values)
        if name == "GetResources" and any(one.startswith("sagemaker") for one in values.get("ResourceTypeFilters", [])):
            return self._tags.get_resources(asked.region, values)
        if name == "DescribeImages" and values.get("registryId", ACCOUNT) != ACCOUNT:
            return describe_images(self.account, values)
        if name == "SimulatePrincipalPolicy":
            return simulate_policy(self.account, values)
        return None

    def _sagemaker(self, asked: Asked) -> dict[str, Any] | None:
        name, values = asked.operation, asked.values
        calls = {**self.jobs.calls, **self._tags.calls}
        if name not in calls:
            return None
        check_request(name, values)
        if (name == "Search" and values["Resource"] != "TrainingJob") or (
            name in self._tags.calls and not self._tags.knows(values)
        ):
            return None
        return calls[name](asked.region, values)

    def _run(self, job: Job) -> None:
        Run(job, self.site)()

    def _client(self, service: str, region: str) -> Any:
        with self._making:  # it is slow, and all jobs that start at once want the same
            if (service, region) not in self._clients:
                self._clients[service, region] = self._make_client(service, region)
            return self._clients[service, region]

    def _make_client(self, service: str, region: str) -> Any:
        config = Config(
            user_agent_extra=OWN,
            max_pool_connections=64,
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            s3={"addressing_style": "path"},
        )
        return self._session.client(service, region_name=region, endpoint_url=self.url, config=config)

    def _role_environment(self, role: str, region: str) -> dict[str, str]:
        answer = self._client("sts", region).assume_role(RoleArn=role, RoleSessionName="SageMaker")
        found = answer["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
            "AWS_SESSION_TOKEN": found["SessionToken"],
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_ENDPOINT_URL": self.url,
        }

    def _is_trusted(self, role: str) -> bool:
        iam = self._client("iam", "us-east-1")
        try:
            found = iam.get_role(RoleName=role.rsplit("/", 1)[-1])["Role"]
        except iam.exceptions.NoSuchEntityException:
            return False
        return found["Arn"] == role and "sagemaker.amazonaws.com" in json.dumps(found["AssumeRolePolicyDocument"])

    def _control(self, environ: Environ) -> Answer:
        what = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO'].removeprefix(CONTROL)}"
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            return _told(200, self._controlled(what, json.loads(body or b"null")))
        except (ValueError, TypeError) as error:
            return _told(400, str(error))

    def _controlled(self, what: str, value: Any) -> Any:
        if what == "GET calls":
            return self.calls.all()
        if what == "GET faults":
            return self.plan.left()
        if what == "GET jobs":
            return [{"kind": job.kind.word.lower(), "name": job.name, "status": job.status} for job in self.jobs.all()]
        if what == "GET processes":
            return [{"pid": process.pid, "job": job} for process, job in keeper.marked(self.mark)]
        if what == "POST faults":
            return self.plan.add(value)
        if what == "POST pace":
            return _set(self.pace, value)
        if what == "POST account":
            return _set(self.account, value)
        if what == "POST reset":
            return self._reset()
        raise ValueError(f"{what} is no control call")

    def _reset(self) -> None:
        """As at the start, but for what moto keeps: S3, roles, logs. Jobs that run are killed."""
        self.plan.clear()
        while left := [job for job in self.jobs.all() if job.status not in OVER]:
            for job in left:
                job.ask_stop()
            keeper.kill(self.mark)
            time.sleep(0.02)
        self.jobs.forget()
        self.calls.clear()
        for kept, fresh in ((self.pace, Pace()), (self.account, Account())):
            _set(kept, vars(fresh))


def _refused(asked: Asked, fault: Fault) -> Answer:
    code, message, status = REFUSALS[fault.do]
    if asked.service == "s3" and fault.do == "throttle":
        code, status = "SlowDown", 503
    return refuse(asked, Refusal(code, fault.message or message, status))


def _set(kept: Any, values: dict[str, Any]) -> None:
    """ValueError that names a wrong field; nothing is set then."""
    known = {one.name for one in fields(kept)}
    for name in values:
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(sorted(known))}")
    for name, value in values.items():
        setattr(kept, name, value)


def _told(status: int, value: Any) -> Answer:
    return Answer(status, [("Content-Type", "application/json")], [json.dumps(value).encode()])
