"""The Batch module against botocore's own models, and the reading of what DescribeJobs says."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest

from airflow_jobflow.jobs import batch, batch_request
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot
from airflow_jobflow.operators.batch_spec import PARAMETERS
from tests.unit.jobs.scripted_calls import ScriptedClient


@pytest.fixture(scope="module")
def model() -> Any:
    """The model of Batch in botocore."""
    return botocore.session.get_session().get_service_model("batch")


def job(**fields: Any) -> Any:
    """A job as DescribeJobs gives it."""
    arn = "arn:aws:batch:eu-west-1:123456789012:job/abc"
    return {"jobId": "abc", "jobName": "hello", "jobArn": arn, "status": "RUNNING", **fields}


def test_every_status_of_botocore_is_in_the_table(model: Any) -> None:
    """A status that the table forgets would be taken for a job that never ends."""
    assert list(batch.STATES) == model.shape_for("JobStatus").enum


def test_everything_submit_job_takes_can_be_said(model: Any) -> None:
    """A member without a parameter could not be said at all."""
    assert set(PARAMETERS.members.values()) == set(model.operation_model("SubmitJob").input_shape.members)


def test_a_status_no_table_knows_is_still_going() -> None:
    """A new status of AWS's must not end a wait."""
    assert batch.snapshot(job(status="PONDERING")).state is JobState.RUNNING


def test_only_what_was_given_is_sent() -> None:
    """An explicit default would replace the job definition's own."""
    given = {"job_name": "a", "job_queue": "q", "job_definition": "d", "tags": None, "retry_strategy": None}
    assert batch_request.request(given, PARAMETERS.members) == {"jobName": "a", "jobQueue": "q", "jobDefinition": "d"}


def test_short_forms_become_parts_of_the_long_ones() -> None:
    """The command, the array's size and the time-out are said in AWS's own shape."""
    given = {
        "container_overrides": {"environment": [{"name": "A", "value": "1"}]},
        "command": ["echo", "hi"],
        "array_size": 7,
        "attempt_timeout": 90,
    }
    assert batch_request.request(given, PARAMETERS.members) == {
        "containerOverrides": {"environment": [{"name": "A", "value": "1"}], "command": ["echo", "hi"]},
        "arrayProperties": {"size": 7},
        "timeout": {"attemptDurationSeconds": 90},
    }


def test_a_snapshot_survives_the_way_through_a_trigger_event() -> None:
    """What the trigger saw must reach the operator whole."""
    seen = batch.snapshot(
        job(
            status="FAILED",
            arrayProperties={"size": 3, "statusSummary": {"SUCCEEDED": 2, "FAILED": 1}},
            container={"exitCode": 1, "reason": "why", "logStreamName": "s"},
            createdAt=1_700_000_000_000,
        )
    )
    assert Snapshot.from_dict(seen.to_dict()) == seen
    assert type(seen.to_dict()["state"]) is str


def test_the_log_is_where_the_definition_says() -> None:
    """A job that logs to a group of its own must not be looked for in the default one."""
    container = {
        "logStreamName": "s",
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/mine"}},
    }
    assert batch.snapshot(job(container=container)).log == LogStream("/mine", "s")
    assert batch.snapshot(job(container={"logStreamName": "s"})).log == LogStream("/aws/batch/job", "s")
    assert batch.snapshot(job(container={})).log is None


def test_a_parent_is_an_array_and_a_child_is_none() -> None:
    """A child carries size and index; taken for a parent, its children would be asked for."""
    parent = batch.snapshot(job(arrayProperties={"size": 7, "statusSummary": {"RUNNING": 2, "SUCCEEDED": 1}}))
    assert parent.array
    assert (parent.array.size, parent.array.running, parent.array.done) == (7, 2, 1)
    assert batch.snapshot(job(arrayProperties={"size": 7, "index": 0})).array is None


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"status": "RUNNABLE"}, False),
        ({"status": "STARTING"}, True),
        ({"status": "RUNNING"}, True),
        ({"status": "RUNNABLE", "attempts": [{"container": {"exitCode": 1}}]}, True),
        ({"status": "PENDING", "arrayProperties": {"size": 2, "statusSummary": {"RUNNABLE": 2}}}, False),
        ({"status": "PENDING", "arrayProperties": {"size": 2, "statusSummary": {"STARTING": 1}}}, True),
    ],
)
def test_a_job_that_waits_for_its_second_attempt_is_not_stuck(fields: dict[str, Any], left: bool) -> None:
    """queued_timeout is for jobs that were never taken out of the queue."""
    assert batch.snapshot(job(**fields)).left_queue is left


def test_which_attempt_is_meant() -> None:
    """The message says on which attempt a job failed."""
    ended = {"container": {"exitCode": 1}}
    assert batch.snapshot(job(status="RUNNABLE")).attempt == 0
    assert batch.snapshot(job(status="RUNNING", attempts=[ended])).attempt == 2
    assert batch.snapshot(job(status="FAILED", attempts=[ended, ended])).attempt == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"container": {"exitCode": 3}},
        {"attempts": [{"container": {"exitCode": 3}}]},
        {"ecsProperties": {"taskProperties": [{"containers": [{"exitCode": 0}, {"exitCode": 3}]}]}},
        {"attempts": [{"taskProperties": [{"containers": [{"exitCode": 3}]}]}]},
        {"eksProperties": {"podProperties": {"containers": [{"exitCode": 3}]}}},
    ],
)
def test_the_exit_code_is_found_wherever_a_kind_of_job_keeps_it(fields: dict[str, Any]) -> None:
    """Jobs of several containers, and those on EKS, keep theirs further down."""
    assert batch.snapshot(job(status="FAILED", **fields)).exit_code == 3


def test_a_child_in_china_knows_its_partition() -> None:
    """The console's address depends on it."""
    seen = batch.snapshot(job(jobArn="arn:aws-cn:batch:cn-north-1:1:job/abc:3"))
    assert (seen.partition, seen.region) == ("aws-cn", "cn-north-1")


def several(*containers: dict[str, Any], **fields: Any) -> Any:
    """A job of several containers that has ended."""
    return job(**{"status": "FAILED", "ecsProperties": {"taskProperties": [{"containers": containers}]}, **fields})


MAIN = {"name": "main", "essential": True, "logStreamName": "main-stream"}
SIDECAR = {"name": "sidecar", "essential": False, "logStreamName": "sidecar-stream"}
ROUTER = {"name": "router", "essential": True, "logStreamName": "router-stream"}


@pytest.mark.parametrize(
    ("containers", "name", "exit_code"),
    [
        ([{**SIDECAR, "exitCode": 137}, {**MAIN, "exitCode": 2}], "main", 2),
        ([{**SIDECAR, "exitCode": 1}, {**MAIN, "exitCode": 2}], "main", 2),
        ([{**ROUTER, "exitCode": 137}, {**MAIN, "exitCode": 1}], "main", 1),
        ([{**ROUTER, "exitCode": 143}, {**MAIN, "exitCode": 1}], "main", 1),
        ([{**MAIN, "exitCode": 143}, {**ROUTER, "exitCode": 3}], "router", 3),
        ([{**MAIN, "exitCode": 0}, {**ROUTER, "exitCode": 137}], "router", 137),
        ([{**MAIN, "exitCode": 1}, {**ROUTER, "exitCode": 2}], "main", 1),
        ([{**ROUTER, "exitCode": 1}, {**MAIN, "exitCode": 137, "reason": "OutOfMemoryError: killed"}], "router", 1),
        ([{**MAIN, "exitCode": 137, "reason": "OutOfMemoryError: killed"}, {**ROUTER, "exitCode": 1}], "main", 137),
        ([{**ROUTER, "exitCode": 137}, {**MAIN, "reason": "CannotPullContainerError: no such image"}], "main", None),
        ([MAIN, {**SIDECAR, "exitCode": 4}], "sidecar", 4),
        ([MAIN, {**SIDECAR, "exitCode": 0}], "main", None),
        ([{**SIDECAR, "exitCode": 7}], "sidecar", 7),
    ],
)
def test_what_other_containers_end_with_does_not_hide_the_cause(
    containers: list[dict[str, Any]], name: str, exit_code: int | None
) -> None:
    """Essential ones decide, in the definition's order; one that was killed because another ended does not."""
    seen = batch.snapshot(several(*containers))
    assert (seen.exit_code, seen.log) == (exit_code, LogStream("/aws/batch/job", f"{name}-stream"))


def test_a_job_that_has_succeeded_shows_the_exit_code_of_its_success() -> None:
    """A sidecar that was killed in the end is no failure."""
    killed = {**SIDECAR, "exitCode": 137}
    assert batch.snapshot(several(killed, {**MAIN, "exitCode": 0}, status="SUCCEEDED")).exit_code == 0
    both = [{**ROUTER, "exitCode": 143}, {**MAIN, "exitCode": 0}]
    assert batch.snapshot(several(*both, status="SUCCEEDED")).exit_code == 0


def test_how_containers_ended_may_be_in_the_attempt_alone() -> None:
    """Only the job says which are essential, and in which order; only the attempt how they ended."""
    ended = {"containers": [{"name": "sidecar", "exitCode": 137}, {"name": "main", "exitCode": 2}]}
    attempts = [{"taskProperties": [{"containers": [{"name": "main", "exitCode": 9}]}]}, {"taskProperties": [ended]}]
    assert batch.snapshot(several(MAIN, SIDECAR, attempts=attempts)).exit_code == 2
    running = batch.snapshot(several(MAIN, SIDECAR, attempts=attempts, status="RUNNING"))
    assert (running.exit_code, running.log) == (None, LogStream("/aws/batch/job", "main-stream"))


def test_the_container_that_counts_can_be_named() -> None:
    """Its exit code, reason and log, but Batch's state: Batch itself says how the job went."""
    seen = batch.snapshot(several({**MAIN, "exitCode": 0}, {**ROUTER, "exitCode": 137, "reason": "why"}))
    assert seen.counting("main").exit_code == 0
    assert seen.counting("main").log == LogStream("/aws/batch/job", "main-stream")
    assert seen.counting("main").state is JobState.FAILED
    router = seen.counting("router")
    assert (router.exit_code, router.container_reason) == (137, "why")
    assert seen.counting(None) is seen.counting("not there") is seen


def test_a_log_in_another_region_is_looked_for_there() -> None:
    """The log driver may write to another region than the job's, which is eu-west-1."""

    def logs_in(region: str) -> Any:
        options = {"awslogs-group": "/mine", "awslogs-region": region}
        return batch.snapshot(job(container={"logStreamName": "s", "logConfiguration": {"options": options}})).log

    assert logs_in("us-east-1") == LogStream("/mine", "s", "us-east-1")
    assert logs_in("us-east-1").to_dict() == {"group": "/mine", "stream": "s", "region": "us-east-1"}
    assert logs_in("eu-west-1") == LogStream("/mine", "s")
    assert logs_in("eu-west-1").to_dict() == {"group": "/mine", "stream": "s"}


def pod(*, inits: list[Any] = [], containers: list[Any] = [], **more: Any) -> dict[str, Any]:  # noqa: B006 -- not changed
    """An attempt on EKS."""
    return {
        "eksClusterArn": "arn:aws:eks:eu-west-1:1:cluster/spot",
        "podName": "aws-batch.abc",
        "podNamespace": "jobs",
        "nodeName": "ip-10-0-0-1.ec2.internal",
        "containers": containers,
        "initContainers": inits,
        **more,
    }


def test_attempts_on_eks_are_counted() -> None:
    """They are in a list of their own; the one that runs is in it, too."""
    ended = pod(containers=[{"name": "main", "exitCode": 1}], stoppedAt=1)
    assert batch.snapshot(job(status="FAILED", eksAttempts=[ended, pod()])).attempt == 2
    assert batch.snapshot(job(status="RUNNING", eksAttempts=[ended, pod()])).attempt == 2
    assert batch.snapshot(job(status="RUNNABLE", eksAttempts=[ended])).attempt == 1
    assert batch.snapshot(job(status="RUNNABLE", eksAttempts=[])).attempt == 0


def test_an_init_container_that_fails_on_eks_is_the_cause() -> None:
    """The job's own container was never run then, and says only that it waits."""
    waits = {"name": "main", "reason": "PodInitializing"}
    inits = [{"name": "fetch", "exitCode": 0}, {"name": "check", "exitCode": 5, "reason": "Error", "containerID": "c1"}]
    properties = {"podProperties": {"containers": [{"name": "main"}], "initContainers": [{"name": "fetch"}]}}
    attempt = pod(containers=[waits], inits=inits)
    seen = batch.snapshot(job(status="FAILED", eksProperties=properties, eksAttempts=[attempt]))
    assert (seen.exit_code, seen.container_reason, seen.attempt) == (5, "Error", 1)
    stream = "ip-10-0-0-1.ec2.internal-application.var.log.containers.aws-batch.abc_jobs_check-c1.log"
    assert seen.log == LogStream("/aws/containerinsights/spot/application", stream)


def test_a_pod_on_eks_is_read_from_its_last_attempt() -> None:
    """What the definition says of the containers, and what the attempt says, belongs together by name."""
    properties = {"podProperties": {"containers": [{"name": "main", "image": "i"}, {"name": "proxy"}]}}
    first = pod(containers=[{"name": "main", "exitCode": 9}], stoppedAt=1)
    last = pod(
        containers=[
            {"name": "proxy", "exitCode": 143},
            {"name": "main", "exitCode": 137, "reason": "OOMKilled", "containerID": "containerd://c2"},
        ],
        inits=[{"name": "fetch", "exitCode": 0}],
    )
    seen = batch.snapshot(job(status="FAILED", eksProperties=properties, eksAttempts=[first, last]))
    assert (seen.exit_code, seen.container_reason) == (137, "OOMKilled")
    assert seen.log
    assert seen.log.stream.endswith("aws-batch.abc_jobs_main-c2.log")
    assert batch.snapshot(job(status="FAILED", eksProperties=properties)).log is None


NODES = {
    "numNodes": 4,
    "mainNode": 2,
    "nodeRangeProperties": [
        {"targetNodes": "0:1", "container": {"logConfiguration": {"options": {"awslogs-group": "/workers"}}}},
        {"targetNodes": "2:", "container": {"logConfiguration": {"options": {"awslogs-group": "/main"}}}},
    ],
}


@pytest.mark.parametrize(
    ("nodes", "group"), [("2", "/main"), ("2:", "/main"), (":2", "/main"), ("1:3", "/main"), ("0:1", "/aws/batch/job")]
)
def test_a_multi_node_job_shows_its_main_node(nodes: str, group: str) -> None:
    """Its attempts are the main node's, which logs where its own group of nodes does."""
    properties = {**NODES, "nodeRangeProperties": [{**NODES["nodeRangeProperties"][1], "targetNodes": nodes}]}  # type: ignore[index]
    attempt = {"container": {"exitCode": 3, "logStreamName": "main/1"}}
    seen = batch.snapshot(job(status="FAILED", nodeProperties=properties, attempts=[attempt]))
    assert (seen.exit_code, seen.log) == (3, LogStream(group, "main/1"))
    assert seen.details == {"main_node": 2}


class MainNode(ScriptedClient):
    """A multi-node job's main node."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def describe_jobs(self, jobs: list[str]) -> dict[str, Any]:
        """The node."""
        self.asked += jobs
        container = {"exitCode": 3, "reason": "why", "logStreamName": "main/1"}
        details = {"nodeIndex": 2, "isMainNode": True}
        return {"jobs": [job(jobId=jobs[0], status="FAILED", container=container, nodeDetails=details)]}


def test_what_a_multi_node_job_does_not_say_its_main_node_is_asked() -> None:
    """While it runs, and if Batch has no attempt of it, only the node itself names a log. Others are not asked."""
    call = MainNode()
    seen = batch.with_final_details(call, batch.snapshot(job(status="FAILED", nodeProperties=NODES)))
    assert call.asked == ["abc#2"]
    assert (seen.job_id, seen.exit_code, seen.container_reason) == ("abc", 3, "why")
    assert seen.log == LogStream("/aws/batch/job", "main/1")
    assert batch.with_final_details(call, seen) is seen
    plain = batch.snapshot(job(container={}))
    assert batch.with_final_details(call, plain) is plain
    assert call.asked == ["abc#2"]


class Definitions(ScriptedClient):
    """Job definitions, by what they are asked for with."""

    def __init__(self, *definitions: dict[str, Any]) -> None:
        self.definitions = definitions
        self.asked: list[dict[str, Any]] = []

    def describe_job_definitions(self, **request: Any) -> dict[str, Any]:
        """All of them."""
        self.asked.append(request)
        return {"jobDefinitions": list(self.definitions)}


def test_the_names_of_containers_are_the_definitions() -> None:
    """Wherever a kind of job keeps its containers; a name means its newest revision."""
    tasks = {"ecsProperties": {"taskProperties": [{"containers": [{"name": "main"}, {"name": "router"}]}]}}
    pods = {"eksProperties": {"podProperties": {"containers": [{"name": "pod"}], "initContainers": [{"name": "i"}]}}}
    node = {"nodeProperties": {"mainNode": 0, "nodeRangeProperties": [{"targetNodes": "0:", **tasks}]}}
    old = {"revision": 9, "containerProperties": {}}
    call = Definitions(old, {"revision": 10, **tasks})
    assert batch.container_names(call, "etl") == ["main", "router"]
    assert call.asked == [{"jobDefinitionName": "etl", "status": "ACTIVE"}]
    assert batch.container_names(Definitions({"revision": 1, **pods}), "etl:1") == ["pod"]
    assert batch.container_names(Definitions({"revision": 1, **node}), "etl:1") == ["main", "router"]
    assert batch.container_names(Definitions(old), "etl:9") == []
    assert batch.container_names(Definitions(), "etl:9") is None
    for definition in ("etl:3", "arn:aws:batch:eu-west-1:1:job-definition/etl:3"):
        call = Definitions()
        batch.container_names(call, definition)
        assert call.asked == [{"jobDefinitions": [definition]}]


def test_attempts_are_listed_by_group_and_token_back_to_a_time() -> None:
    """One listing serves all tasks that name their jobs alike; it ends at jobs that are too old."""
    pages = [
        [("n-aaaaaaaaaa-t1m0c0-1111111111", 9_000), ("n-bbbbbbbbbb-t1m0c0-2222222222", 8_000)],
        [("n-something-else", 7_000), ("N-cccccccccc-t1m0c0-3333333333", 6_000), ("n-dddddddddd-t1m0c0-4", 1_000)],
        [("n-eeeeeeeeee-t1m0c0-5555555555", 500)],
    ]
    asked: list[dict[str, Any]] = []

    class Queue(ScriptedClient):
        def list_jobs(self, **request: Any) -> Any:
            asked.append(request)
            number = int(request.get("nextToken", 0))
            jobs = [{"jobName": name, "jobId": f"id-of-{name}", "createdAt": at} for name, at in pages[number]]
            return {"jobSummaryList": jobs, **({"nextToken": str(number + 1)} if number < len(pages) - 1 else {})}

    found = batch.list_attempts(Queue(), "q", batch.name_prefix("n"), since=5.0)
    assert found["aaaaaaaaaa-1111111111"] == "id-of-n-aaaaaaaaaa-t1m0c0-1111111111"
    assert found["bbbbbbbbbb-2222222222"] == "id-of-n-bbbbbbbbbb-t1m0c0-2222222222"
    assert not any("cccccccccc" in each or "eeeeeeeeee" in each for each in found)
    assert len(asked) == 2
    assert asked[0]["filters"] == [{"name": "JOB_NAME", "values": ["n-*"]}]
