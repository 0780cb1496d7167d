"""The Batch module: checked against botocore's model, and parsing of DescribeJobs responses."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest

from airflow_jobflow.jobs import batch, batch_request, batch_search
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot
from airflow_jobflow.operators.batch_parameters import PARAMETERS
from tests.unit.jobs.scripted_calls import ScriptedClient


@pytest.fixture(scope="module")
def model() -> Any:
    """Return botocore's model of Batch."""
    return botocore.session.get_session().get_service_model("batch")


def job(**fields: Any) -> Any:
    """Return a job as in DescribeJobs."""
    arn = "arn:aws:batch:eu-west-1:123456789012:job/abc"
    return {"jobId": "abc", "jobName": "hello", "jobArn": arn, "status": "RUNNING", **fields}


def test_every_status_of_botocore_is_in_the_table(model: Any) -> None:
    """A job with a status missing from the table would never end."""
    assert list(batch.STATES) == model.shape_for("JobStatus").enum


def test_every_member_of_submit_job_has_a_parameter(model: Any) -> None:
    """Without a parameter, a member of SubmitJob could not be used."""
    assert set(PARAMETERS.members.values()) == set(model.operation_model("SubmitJob").input_shape.members)


def test_an_unknown_status_means_running() -> None:
    """A new status of AWS must not end a wait."""
    assert batch.snapshot(job(status="PONDERING")).state is JobState.RUNNING


def test_only_parameters_that_are_set_are_sent() -> None:
    """An explicit default would override the job definition."""
    given = {"job_name": "a", "job_queue": "q", "job_definition": "d", "tags": None, "retry_strategy": None}
    assert batch_request.request(given, PARAMETERS.members) == {"jobName": "a", "jobQueue": "q", "jobDefinition": "d"}


def test_short_forms_are_merged_into_the_request() -> None:
    """Command, array size and timeout are sent in AWS's format."""
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


def test_a_snapshot_survives_serialization_in_a_trigger_event() -> None:
    """The operator gets all that the trigger has seen."""
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


def test_the_log_group_comes_from_the_job_definition() -> None:
    """A log in another group than the default one must be found."""
    container = {
        "logStreamName": "s",
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "/mine"}},
    }
    assert batch.snapshot(job(container=container)).log == LogStream("/mine", "s")
    assert batch.snapshot(job(container={"logStreamName": "s"})).log == LogStream("/aws/batch/job", "s")
    assert batch.snapshot(job(container={})).log is None


def test_a_parent_is_an_array_and_a_child_is_not() -> None:
    """A child also has a size and an index; as an array, its children would be listed."""
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
def test_a_job_that_waits_for_its_second_attempt_has_left_the_queue(fields: dict[str, Any], left: bool) -> None:
    """``queued_timeout`` applies only to jobs that have never left the queue."""
    assert batch.snapshot(job(**fields)).left_queue is left


def test_the_number_of_the_attempt_is_known() -> None:
    """The error message names the attempt on which a job failed."""
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
def test_the_exit_code_is_found_in_every_type_of_job(fields: dict[str, Any]) -> None:
    """Jobs with several containers and jobs on EKS have it in nested members."""
    assert batch.snapshot(job(status="FAILED", **fields)).exit_code == 3


def test_a_child_in_china_knows_its_partition() -> None:
    """The address of the console depends on the partition."""
    seen = batch.snapshot(job(jobArn="arn:aws-cn:batch:cn-north-1:1:job/abc:3"))
    assert (seen.partition, seen.region) == ("aws-cn", "cn-north-1")


def several(*containers: dict[str, Any], **fields: Any) -> Any:
    """Return a job with several containers that has ended."""
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
def test_other_containers_do_not_hide_the_cause(
    containers: list[dict[str, Any]], name: str, exit_code: int | None
) -> None:
    """The first failed essential container decides, in the definition's order, but not one that was killed after
    another ended.
    """
    seen = batch.snapshot(several(*containers))
    assert (seen.exit_code, seen.log) == (exit_code, LogStream("/aws/batch/job", f"{name}-stream"))


def test_a_job_that_has_succeeded_shows_the_exit_code_of_its_success() -> None:
    """A sidecar that is killed at the end is not a failure."""
    killed = {**SIDECAR, "exitCode": 137}
    assert batch.snapshot(several(killed, {**MAIN, "exitCode": 0}, status="SUCCEEDED")).exit_code == 0
    both = [{**ROUTER, "exitCode": 143}, {**MAIN, "exitCode": 0}]
    assert batch.snapshot(several(*both, status="SUCCEEDED")).exit_code == 0


def test_container_results_may_be_in_the_attempt_only() -> None:
    """The job has the order and the essential containers; the attempt has their results."""
    ended = {"containers": [{"name": "sidecar", "exitCode": 137}, {"name": "main", "exitCode": 2}]}
    attempts = [{"taskProperties": [{"containers": [{"name": "main", "exitCode": 9}]}]}, {"taskProperties": [ended]}]
    assert batch.snapshot(several(MAIN, SIDECAR, attempts=attempts)).exit_code == 2
    running = batch.snapshot(several(MAIN, SIDECAR, attempts=attempts, status="RUNNING"))
    assert (running.exit_code, running.log) == (None, LogStream("/aws/batch/job", "main-stream"))


def test_container_name_selects_the_container() -> None:
    """Its exit code, reason and log are shown, but whether the job succeeded is Batch's decision."""
    seen = batch.snapshot(several({**MAIN, "exitCode": 0}, {**ROUTER, "exitCode": 137, "reason": "why"}))
    assert seen.counting("main").exit_code == 0
    assert seen.counting("main").log == LogStream("/aws/batch/job", "main-stream")
    assert seen.counting("main").state is JobState.FAILED
    router = seen.counting("router")
    assert (router.exit_code, router.container_reason) == (137, "why")
    assert seen.counting(None) is seen.counting("not there") is seen


def test_a_log_in_another_region_is_looked_for_there() -> None:
    """The log driver may write to another region than the job's, here eu-west-1."""

    def logs_in(region: str) -> Any:
        options = {"awslogs-group": "/mine", "awslogs-region": region}
        return batch.snapshot(job(container={"logStreamName": "s", "logConfiguration": {"options": options}})).log

    assert logs_in("us-east-1") == LogStream("/mine", "s", "us-east-1")
    assert logs_in("us-east-1").to_dict() == {"group": "/mine", "stream": "s", "region": "us-east-1"}
    assert logs_in("eu-west-1") == LogStream("/mine", "s")
    assert logs_in("eu-west-1").to_dict() == {"group": "/mine", "stream": "s"}


def pod(*, inits: list[Any] = [], containers: list[Any] = [], **more: Any) -> dict[str, Any]:  # noqa: B006 -- not changed
    """Return an attempt on EKS."""
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
    """Attempts on EKS are in another list, which includes the running one."""
    ended = pod(containers=[{"name": "main", "exitCode": 1}], stoppedAt=1)
    assert batch.snapshot(job(status="FAILED", eksAttempts=[ended, pod()])).attempt == 2
    assert batch.snapshot(job(status="RUNNING", eksAttempts=[ended, pod()])).attempt == 2
    assert batch.snapshot(job(status="RUNNABLE", eksAttempts=[ended])).attempt == 1
    assert batch.snapshot(job(status="RUNNABLE", eksAttempts=[])).attempt == 0


def test_an_init_container_that_fails_on_eks_is_the_cause() -> None:
    """The job's own container never ran, and only says that it waits."""
    waits = {"name": "main", "reason": "PodInitializing"}
    inits = [{"name": "fetch", "exitCode": 0}, {"name": "check", "exitCode": 5, "reason": "Error", "containerID": "c1"}]
    properties = {"podProperties": {"containers": [{"name": "main"}], "initContainers": [{"name": "fetch"}]}}
    attempt = pod(containers=[waits], inits=inits)
    seen = batch.snapshot(job(status="FAILED", eksProperties=properties, eksAttempts=[attempt]))
    assert (seen.exit_code, seen.container_reason, seen.attempt) == (5, "Error", 1)
    stream = "ip-10-0-0-1.ec2.internal-application.var.log.containers.aws-batch.abc_jobs_check-c1.log"
    assert seen.log == LogStream("/aws/containerinsights/spot/application", stream)


def test_containers_of_a_pod_are_matched_by_name() -> None:
    """The definition and the attempt list the containers of a pod separately."""
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
def test_a_multi_node_job_uses_the_log_of_its_main_node(nodes: str, group: str) -> None:
    """The attempts are those of the main node, whose log group comes from its own node range."""
    properties = {**NODES, "nodeRangeProperties": [{**NODES["nodeRangeProperties"][1], "targetNodes": nodes}]}  # type: ignore[index]
    attempt = {"container": {"exitCode": 3, "logStreamName": "main/1"}}
    seen = batch.snapshot(job(status="FAILED", nodeProperties=properties, attempts=[attempt]))
    assert (seen.exit_code, seen.log) == (3, LogStream(group, "main/1"))
    assert seen.details == {"main_node": 2, "nodes": 4}


class MainNode(ScriptedClient):
    """The main node of a multi-node job, and its nodes that failed, by index and with the time of their end."""

    def __init__(self, **failed: int) -> None:
        self.asked: list[str] = []
        self.failed = failed

    def list_jobs(self, **request: Any) -> dict[str, Any]:
        """Return the nodes that failed."""
        assert request == {"multiNodeJobId": "abc", "jobStatus": "FAILED"}
        ended: dict[str, Any] = {"container": {"exitCode": 137, "reason": "OutOfMemoryError"}, "statusReason": "no"}
        nodes = [
            {
                "jobId": f"abc#{name[1:]}",
                "jobName": "hello",
                "nodeProperties": {"nodeIndex": int(name[1:])},
                **({"stoppedAt": at} if at else {}),
                **ended,
            }
            for name, at in self.failed.items()
        ]
        return {"jobSummaryList": nodes}

    def describe_jobs(self, jobs: list[str]) -> dict[str, Any]:
        """Return the node."""
        self.asked += jobs
        container = {"exitCode": 3, "reason": "why", "logStreamName": "main/1"}
        details = {"nodeIndex": 2, "isMainNode": True}
        return {"jobs": [job(jobId=jobs[0], status="FAILED", container=container, nodeDetails=details)]}


def test_the_main_node_is_described_only_if_the_log_is_unknown() -> None:
    """A running job, or one without attempts, has its log stream only in the response for the node."""
    call = MainNode()
    seen = batch.with_final_details(call, batch.snapshot(job(status="FAILED", nodeProperties=NODES)))
    assert call.asked == ["abc#2"]
    assert (seen.job_id, seen.exit_code, seen.container_reason) == ("abc", 3, "why")
    assert seen.log == LogStream("/aws/batch/job", "main/1")
    assert batch.with_final_details(call, seen) is seen
    running = batch.with_final_details(call, batch.snapshot(job(nodeProperties=NODES)))
    assert running.log == LogStream("/aws/batch/job", "main/1")
    assert call.asked == ["abc#2"] * 2
    plain = batch.snapshot(job(container={}))
    assert batch.with_final_details(call, plain) is plain
    assert call.asked == ["abc#2"] * 2


def test_nodes_that_failed_before_the_main_node_are_named() -> None:
    """They may be the cause. Those that Batch stopped because the main node had ended are not."""
    call = MainNode(n2=5_000, n1=4_500, n3=4_000, n0=5_000)
    failed = batch.with_final_details(call, batch.snapshot(job(status="FAILED", nodeProperties=NODES, stoppedAt=5_000)))
    assert failed.details is not None
    how = "exit code 137, OutOfMemoryError"
    assert list(failed.details["failed_nodes"].items()) == [("3", how), ("1", how)]  # the first one first
    stopped = job(status="FAILED", nodeProperties=NODES, stoppedAt=5_000, isTerminated=True, statusReason="no")
    assert "failed_nodes" not in (batch.with_final_details(call, batch.snapshot(stopped)).details or {})
    without_time = batch.snapshot(job(status="FAILED", nodeProperties=NODES))
    seen = batch.with_final_details(MainNode(n2=0, n7=9_000), without_time)
    assert (seen.details or {})["failed_nodes"] == {"7": how}


class Definitions(ScriptedClient):
    """Job definitions by their ARN or name."""

    def __init__(self, *definitions: dict[str, Any]) -> None:
        self.definitions = definitions
        self.asked: list[dict[str, Any]] = []

    def describe_job_definitions(self, **request: Any) -> dict[str, Any]:
        """Return the requested definitions."""
        self.asked.append(request)
        return {"jobDefinitions": list(self.definitions)}


def test_container_names_come_from_the_job_definition() -> None:
    """They are found in every type of job definition; a name without a revision means the newest one."""
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


def test_a_page_without_the_job_is_not_the_end_of_a_search() -> None:
    """A job that seems not to exist would be submitted again."""
    asked: list[str] = []
    jobs = [[], [{"jobName": "N-1", "jobId": "other"}], [{"jobName": "n-1", "jobId": "a"}], []]

    class Queue(ScriptedClient):
        def list_jobs(self, nextToken: str = "0", **_: Any) -> Any:  # noqa: N803 -- AWS's name
            asked.append(nextToken)
            number = int(nextToken)
            return {"jobSummaryList": jobs[number], "nextToken": str(number + 1) if number < len(jobs) - 1 else None}

    assert batch_search.find(Queue(), "q", "n-1") == "a"
    assert asked == ["0", "1", "2"]
    assert batch_search.find(Queue(), "q", "n-2") is None


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

    found = batch_search.list_attempts(Queue(), "q", batch_search.name_prefix("n"), since=5.0)
    assert found["aaaaaaaaaa-1111111111"] == "id-of-n-aaaaaaaaaa-t1m0c0-1111111111"
    assert found["bbbbbbbbbb-2222222222"] == "id-of-n-bbbbbbbbbb-t1m0c0-2222222222"
    assert not any("cccccccccc" in each or "eeeeeeeeee" in each for each in found)
    assert len(asked) == 2
    assert asked[0]["filters"] == [{"name": "JOB_NAME", "values": ["n-*"]}]
