"""The local AWS for tests, with clients that check every response against botocore's models."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from botocore.config import Config

from airflow_jobflow.local import LocalAws, Settings
from airflow_jobflow.local.samples import (
    create_cluster,
    create_environment,
    create_queue,
    register_definition,
    register_task,
)
from benchmarks.standin.conformance import violations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

TIMEOUT = 30.0
"""Seconds after which a test stops waiting."""

ENDED = ("SUCCEEDED", "FAILED")


def eventually(look: Callable[[], Any], what: str = "it") -> Any:
    """Call a function until its result is true, and return the result; fail after `TIMEOUT`."""
    deadline = time.monotonic() + TIMEOUT
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {TIMEOUT} s"
        time.sleep(0.02)
    return seen


def without_nulls(value: Any) -> Any:
    """Return a JSON value without members that are null, which botocore treats as absent."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


NULLS_BY_MOTO = ("DescribeJobQueues", "DescribeJobDefinitions")
"""Calls whose responses by moto contain nulls where AWS omits a member."""


def check_response(http_response: Any, model: Any, **_: Any) -> None:
    """Fail if a response does not match the model of its operation; botocore calls this after each call."""
    body = json.loads(http_response.content or b"{}")
    if http_response.status_code >= 300:
        allowed = {shape.name for shape in model.error_shapes} | {
            "TooManyRequestsException",
            "ExpiredTokenException",
            "AccessDeniedException",
        }
        assert http_response.headers["x-amzn-errortype"] in allowed
        assert isinstance(body["message"], str)
    elif model.output_shape is not None:
        body = without_nulls(body) if model.name in NULLS_BY_MOTO else body
        assert violations(model.output_shape, body) == []


class Kit:
    """A job queue for a Batch test, with short forms to submit, describe and wait."""

    def __init__(self, aws: LocalAws, batch: Any) -> None:
        self.aws = aws
        self.batch = batch
        self.logs = aws.client("logs")
        self.queue = f"queue-{uuid.uuid4().hex}"
        create_queue(batch, self.queue)

    def define(self, command: Sequence[str] = ("true",), **more: Any) -> str:
        """Register a job definition, and return its ARN."""
        return register_definition(self.batch, f"definition-{uuid.uuid4().hex}", command, **more)

    def submit(self, command: Sequence[str] = ("true",), **request: Any) -> str:
        """Submit a job that runs `command`, and return its id."""
        if "jobDefinition" not in request:
            request["jobDefinition"] = self.define(command)
        request = {"jobName": "job", "jobQueue": self.queue, **request}
        return str(self.batch.submit_job(**request)["jobId"])

    def define_several(self, **containers: dict[str, Any]) -> str:
        """Register a job definition of several containers, each a script with options, and return its ARN."""
        image = {"image": "busybox", "resourceRequirements": [{"type": "MEMORY", "value": "128"}]}
        several = [
            {**image, "name": name, "command": ["sh", "-c", each["script"]]}
            | {member: value for member, value in each.items() if member != "script"}
            for name, each in containers.items()
        ]
        answer = self.batch.register_job_definition(
            jobDefinitionName=f"definition-{uuid.uuid4().hex}",
            type="container",
            ecsProperties={"taskProperties": [{"containers": several}]},
        )
        return str(answer["jobDefinitionArn"])

    def sh(self, script: str, **request: Any) -> str:
        """Submit a shell script, and return the id of the job."""
        return self.submit(["sh", "-c", script], **request)

    def look(self, job_id: str) -> dict[str, Any]:
        """Return one job as in DescribeJobs."""
        jobs = self.batch.describe_jobs(jobs=[job_id])["jobs"]
        assert len(jobs) == 1
        return dict(jobs[0])

    def wait(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until a job has one of these statuses (by default, a final one), and return the job."""

        def reached() -> dict[str, Any] | None:
            job = self.look(job_id)
            return job if job["status"] in (statuses or ENDED) else None

        return dict(eventually(reached, f"{job_id} in {statuses or ENDED}"))

    def lines(self, stream: str, group: str = "/aws/batch/job") -> list[str]:
        """Return the lines of a log stream."""
        events = self.logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
        return [event["message"] for event in events]

    def output(self, job_id: str) -> list[str]:
        """Wait for the end of a job, and return its output."""
        return self.lines(self.wait(job_id)["container"]["logStreamName"])

    eventually = staticmethod(eventually)

    def children(self, job_id: str, size: int) -> list[dict[str, Any]]:
        """Return all children of an array as in DescribeJobs."""
        return list(self.batch.describe_jobs(jobs=[f"{job_id}:{index}" for index in range(size)])["jobs"])


@pytest.fixture(scope="session")
def aws() -> Iterator[LocalAws]:
    """A local AWS for all tests that set no faults; a minute of its timeouts takes 0.6 s."""
    with LocalAws(settings=Settings(time_scale=0.01, stuck_after=60, stop_grace=5)) as server:
        create_environment(server.client("iam"), server.client("batch"), "local")
        yield server


@pytest.fixture(scope="session")
def batch(aws: LocalAws) -> Any:
    """A Batch client whose responses are checked against the model."""
    return checked(aws)


def checked(aws: Any, **options: Any) -> Any:
    """A Batch client on the test's own AWS whose responses are checked against the model."""
    client = aws.client("batch", **options)
    client.meta.events.register("after-call.batch", check_response)
    return client


@pytest.fixture
def kit(aws: LocalAws, batch: Any) -> Kit:
    """A job queue of the test's own."""
    return Kit(aws, batch)


@pytest.fixture
def disabled_queue(kit: Kit) -> str:
    """A queue without an enabled compute environment; its environment has the same name."""
    name = f"disabled-{uuid.uuid4().hex}"
    create_environment(kit.aws.client("iam"), kit.batch, name)
    create_queue(kit.batch, name, name)
    kit.batch.update_compute_environment(computeEnvironment=name, state="DISABLED")
    return name


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that scripts wait for: ``while [ ! -e {gate} ]; do sleep 0.02; done``. It exists after the test."""
    path = tmp_path / "open"
    yield path
    path.touch()


@pytest.fixture
def own_aws() -> Iterator[LocalAws]:
    """A local AWS of the test's own, for faults and counts."""
    with LocalAws(slots=2, settings=Settings(time_scale=0.01)) as server:
        create_environment(server.client("iam"), server.client("batch"), "local")
        yield server


@pytest.fixture
def own_kit(own_aws: LocalAws) -> Kit:
    """A queue on a local AWS of the test's own, with a client that does not retry."""
    return Kit(own_aws, checked(own_aws, config=Config(retries={"total_max_attempts": 1}, read_timeout=10)))


@pytest.fixture(name="eventually", scope="session")
def _eventually() -> Callable[..., Any]:
    """Return the function `eventually`, because tests cannot import it from here."""
    return eventually


@pytest.fixture(name="violations", scope="session")
def _violations() -> Callable[..., list[str]]:
    """Return the function `violations`."""
    return violations


class Store(dict[str, Any]):
    """A task state store, in which a task records data for its later tries."""

    def set(self, key: str, value: Any) -> None:
        """Store a value as JSON, like Airflow."""
        self[key] = json.loads(json.dumps(value))


class TaskInstance:
    """The parts of a task instance that operators use."""

    max_tries = 0
    try_number = 1
    is_mapped = False
    map_index = -1
    dag_id, task_id = "dag", "task"

    def __init__(self) -> None:
        self.id = str(uuid.uuid4())
        self.run_id = f"run-{self.id}"
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Store an XCom as JSON."""
        self.xcoms[key] = json.loads(json.dumps(value))

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int) -> Any:
        """Return an XCom of this task instance."""
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)


class DagRun:
    """The parts of a DAG run that operators use."""

    clear_number = 0
    logical_date = datetime(2026, 1, 2, tzinfo=UTC)

    def __init__(self) -> None:
        self.start_date = datetime.now(tz=UTC)


@pytest.fixture
def context() -> dict[str, Any]:
    """Return the context that Airflow passes to ``execute``."""
    return {"ti": TaskInstance(), "dag_run": DagRun(), "task_state_store": Store()}


TASK_CALLS = (
    *("RunTask", "StartTask", "DescribeTasks", "ListTasks", "StopTask", "RegisterTaskDefinition"),
    *("DescribeTaskDefinition", "ListContainerInstances", "DescribeContainerInstances"),
)
"""ECS's calls that are not, or not only, handled by moto."""


class EcsKit:
    """A cluster and a log group for an ECS test, with short forms to run, describe and wait."""

    eventually = staticmethod(eventually)

    def __init__(self, aws: LocalAws, **options: Any) -> None:
        self.aws = aws
        self.ecs = aws.client("ecs", **options)
        for call in TASK_CALLS:
            self.ecs.meta.events.register(f"after-call.ecs.{call}", check_response)
        self.logs = aws.client("logs")
        self.cluster = f"cluster-{uuid.uuid4().hex}"
        self.group = f"/ecs/{self.cluster}"
        self.logs.create_log_group(logGroupName=self.group)
        create_cluster(self.ecs, self.cluster)

    def container(self, command: Sequence[str] = ("true",), **more: Any) -> dict[str, Any]:
        """Return a container definition that runs `command` and logs to the kit's log group."""
        options = {"awslogs-group": self.group, "awslogs-region": "us-east-1", "awslogs-stream-prefix": "test"}
        log = {"logDriver": "awslogs", "options": options}
        return {"name": "main", "command": list(command), "logConfiguration": log, **more}

    def define(self, *containers: dict[str, Any], **more: Any) -> str:
        """Register a task definition, and return its ARN."""
        return register_task(self.ecs, f"family-{uuid.uuid4().hex}", *(containers or (self.container(),)), **more)

    def request(self, *containers: dict[str, Any], **request: Any) -> dict[str, Any]:
        """Return a RunTask request on Fargate for a new task definition of these containers."""
        if "taskDefinition" not in request:
            request["taskDefinition"] = self.define(*containers)
        if not {"launchType", "capacityProviderStrategy"} & set(request):
            request["launchType"] = "FARGATE"
        network = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}
        return {"cluster": self.cluster, "networkConfiguration": network, **request}

    def run(self, *containers: dict[str, Any], **request: Any) -> str:
        """Run one task, and return its ARN."""
        answer = self.ecs.run_task(**self.request(*containers, **request))
        assert answer["failures"] == []
        (task,) = answer["tasks"]
        return str(task["taskArn"])

    def sh(self, script: str, **request: Any) -> str:
        """Run a shell script as a task of one container, and return its ARN."""
        return self.run(self.container(["sh", "-c", script]), **request)

    def look(self, task: str) -> dict[str, Any]:
        """Return one task as in DescribeTasks."""
        (found,) = self.ecs.describe_tasks(cluster=self.cluster, tasks=[task], include=["TAGS"])["tasks"]
        return dict(found)

    def wait(self, task: str, status: str = "STOPPED") -> dict[str, Any]:
        """Wait until a task has a status, and return the task."""

        def reached() -> dict[str, Any] | None:
            found = self.look(task)
            return found if found["lastStatus"] == status else None

        return dict(eventually(reached, f"{task} {status}"))

    def lines(self, task: str, container: str = "main", group: str | None = None) -> list[str]:
        """Return the output of a container of a task."""
        stream = f"test/{container}/{task.rsplit('/', 1)[-1]}"
        answer = self.logs.get_log_events(logGroupName=group or self.group, logStreamName=stream, startFromHead=True)
        return [event["message"] for event in answer["events"]]

    def output(self, task: str) -> list[str]:
        """Wait for the end of a task, and return the output of its main container."""
        self.wait(task)
        return self.lines(task)

    def listed(self, **request: Any) -> set[str]:
        """Return the ARNs of one ListTasks response."""
        return set(self.ecs.list_tasks(cluster=self.cluster, **request)["taskArns"])


@pytest.fixture
def ecs_kit(aws: LocalAws) -> EcsKit:
    """An ECS cluster of the test's own."""
    return EcsKit(aws)


@pytest.fixture
def own_ecs_kit(own_aws: LocalAws) -> EcsKit:
    """An ECS cluster on a local AWS of the test's own, with a client that does not retry."""
    return EcsKit(own_aws, config=Config(retries={"total_max_attempts": 1}, read_timeout=10))


@pytest.fixture(scope="session")
def kit_class() -> dict[str, Any]:
    """Return the classes of the kits, for tests that use them on another AWS."""
    return {"batch": Kit, "ecs": EcsKit}
