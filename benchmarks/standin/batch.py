"""AWS Batch: DescribeJobs for scripted jobs; for maps also SubmitJob and ListJobs."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks.figures import Scenario
from benchmarks.standin.script import ACCOUNT, FAILING, REGION, Answer, Script, Service, parts

ARN = f"arn:aws:batch:{REGION}:{ACCOUNT}"
MOST = 100
"""Maximum number of jobs in a DescribeJobs call, and in a response of ListJobs."""


class Batch(Service):
    """Jobs that all start with the clock."""

    PHASES: ClassVar = ((0.0, "RUNNABLE"), (0.1, "RUNNING"))
    ENDS: ClassVar = ("SUCCEEDED", "FAILED")

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.calls = {"DescribeJobs": self._describe}
        self._script()

    def _script(self) -> None:
        for _ in range(self.scenario.waits):
            job_id = self._new_id()
            self.add(job_id, job_id)

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def _describe(self, request: dict[str, Any], now: float) -> Answer:
        ids = request["jobs"]
        if len(ids) > MOST:
            return Answer.refusal("ClientException", f"{len(ids)} jobs exceed the limit of {MOST}")
        known, _ = parts(self.jobs, ids)
        return Answer(b'{"jobs": ' + self.listed(known, now) + b"}", len(ids))

    def detail(self, job: Script, status: str) -> dict[str, Any]:
        """Return a job as in DescribeJobs, in about 2 KB."""
        created = int(job.began * 1000)
        bare = job.name.replace("-", "")
        stream = f"nightly-model/default/{bare}"
        task = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/AWSBatch-nightly-{job.name}/{bare}"
        container: dict[str, Any] = {
            "image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/nightly-model:2026.3.1",
            "command": ["python", "-m", "nightly_model", "--part", job.name, "--input", "s3://a-bucket/input/"],
            "jobRoleArn": f"arn:aws:iam::{ACCOUNT}:role/nightly-model-job",
            "executionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/nightly-model-execution",
            "volumes": [],
            "environment": [
                {"name": "OUTPUT", "value": f"s3://a-bucket/output/{job.name}/"},
                {"name": "LOG_LEVEL", "value": "INFO"},
                {"name": "MODEL_VERSION", "value": "2026.3.1"},
                {"name": "MANAGED_BY_AWS", "value": "STARTED_BY_STEP_FUNCTIONS"},
            ],
            "mountPoints": [],
            "ulimits": [],
            "networkInterfaces": [],
            "resourceRequirements": [{"value": "1", "type": "VCPU"}, {"value": "2048", "type": "MEMORY"}],
            "logConfiguration": {"logDriver": "awslogs", "options": {}, "secretOptions": []},
            "secrets": [],
            "fargatePlatformConfiguration": {"platformVersion": "LATEST"},
            "runtimePlatform": {"operatingSystemFamily": "LINUX", "cpuArchitecture": "X86_64"},
        }
        detail: dict[str, Any] = {
            "jobArn": f"{ARN}:job/{job.name}",
            "jobName": job.scope or f"nightly-model-{job.name[:8]}",
            "jobId": job.name,
            "jobQueue": f"{ARN}:job-queue/nightly",
            "status": status,
            "attempts": [],
            "createdAt": created,
            "retryStrategy": {"attempts": 3, "evaluateOnExit": []},
            "dependsOn": [],
            "jobDefinition": f"{ARN}:job-definition/nightly-model:17",
            "parameters": {"date": "2026-03-01", "part": job.name[:8]},
            "container": container,
            "timeout": {"attemptDurationSeconds": 7200},
            "tags": {"team": "forecasting", "flow": "nightly", "environment": "production"},
            "propagateTags": True,
            "platformCapabilities": ["FARGATE"],
            "eksAttempts": [],
            "isCancelled": False,
            "isTerminated": False,
        }
        if status != "RUNNABLE":
            detail["startedAt"] = created + int(0.1 * job.seconds * 1000)
            container |= {"logStreamName": stream, "taskArn": task}
        if status in self.ENDS:
            ended = {"startedAt": detail["startedAt"], "stoppedAt": int(job.ends * 1000)}
            exit_code = {"exitCode": int(job.fails)}
            reason = {"statusReason": "Essential container in task exited"}
            attempt = {"container": {**exit_code, "logStreamName": stream, "taskArn": task}, **ended, **reason}
            container |= exit_code
            detail |= {**ended, **reason, "attempts": [attempt]}
        return detail


class BatchMap(Batch):
    """Jobs that start when they are submitted; the index at the end of the name decides about the end of a job.

    A job's scope is its name in Batch; its name here is its id in Batch.
    """

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.calls = {**self.calls, "SubmitJob": self._submit, "ListJobs": self._list}
        self._fates: list[tuple[float, bool]] = []
        rng = random.Random(scenario.seed)
        for _ in range(scenario.waits):
            self._fates.append((rng.uniform(scenario.shortest, scenario.longest), rng.random() < FAILING))
        self._order: list[Script] = []

    def _script(self) -> None:
        """Do nothing: there are no jobs beforehand."""

    def start(self, now: float) -> dict[str, tuple[float, bool]]:
        """Return the duration and the success of jobs by the index of their items."""
        self.jobs.clear()
        self._order.clear()
        return {str(index): (now + seconds, fails) for index, (seconds, fails) in enumerate(self._fates)}

    def _submit(self, request: dict[str, Any], now: float) -> Answer:
        name, job_id = request["jobName"], self._new_id()
        index = int(name.rpartition("-")[2])
        seconds, fails = self._fates[index]
        job = self.jobs[job_id] = Script(str(index), job_id, name, seconds, fails, now)
        self._order.append(job)
        answer = {"jobArn": f"{ARN}:job/{job_id}", "jobName": name, "jobId": job_id}
        return Answer(json.dumps(answer).encode(), 1)

    def _list(self, request: dict[str, Any], now: float) -> Answer:
        return listed_by_name(self._order, request, lambda job: self.status(job, now))

    @property
    def starts(self) -> dict[str, int]:
        """Return how often each item's job was started."""
        counts: dict[str, int] = {}
        for job in self._order:
            counts[job.key] = counts.get(job.key, 0) + 1
        return counts


def listed_by_name(jobs: Sequence[Script], request: dict[str, Any], status: Callable[[Script], str]) -> Answer:
    """Respond to ListJobs with a filter for names, newest first; a token is the number of jobs before the next one.

    :param jobs: all jobs, the newest last.
    :param status: returns the status of a job.
    """
    pattern = next(each["values"][0] for each in request["filters"] if each["name"] == "JOB_NAME").lower()
    prefix, star = pattern.removesuffix("*"), pattern.endswith("*")
    at = int(request.get("nextToken", len(jobs)))
    page: list[dict[str, Any]] = []
    while at and len(page) < request.get("maxResults", MOST):
        at -= 1
        job = jobs[at]
        name = job.scope.lower()
        if name.startswith(prefix) and (star or name == prefix):
            page.append(_summary(job, status(job)))
    more = {"nextToken": str(at)} if at else {}
    return Answer(json.dumps({"jobSummaryList": page, **more}).encode(), len(page))


def _summary(job: Script, status: str) -> dict[str, Any]:
    ended = {"stoppedAt": int(job.ends * 1000), "container": {"exitCode": int(job.fails)}}
    return {
        "jobArn": f"{ARN}:job/{job.name}",
        "jobId": job.name,
        "jobName": job.scope,
        "createdAt": int(job.began * 1000),
        "status": status,
        "jobDefinition": f"{ARN}:job-definition/nightly-model:17",
        **(ended if status in Batch.ENDS else {}),
    }
