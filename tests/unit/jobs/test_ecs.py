"""The ECS module: the calls that a describe makes beside DescribeTasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import ecs, ecs_snapshot
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot
from airflow_jobflow.jobs.starting import NotStarted
from tests.unit.jobs.scripted_calls import ScriptedClient, refused

DEFINITION = "arn:aws:ecs:eu-west-1:1:task-definition/d:1"


class Ecs(ScriptedClient):
    """A hundred stopped tasks of one task definition, with a count of the calls."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[str] = []

    def describe_tasks(self, cluster: str, tasks: list[str]) -> dict[str, Any]:  # noqa: ARG002 -- boto3's
        """Return tasks that have succeeded."""
        self.calls.append("DescribeTasks")
        told = {"lastStatus": "STOPPED", "taskDefinitionArn": DEFINITION, "stopCode": "EssentialContainerExited"}
        containers = [{"name": "main", "exitCode": 0}]
        return {"tasks": [{"taskArn": task, "containers": containers, **told} for task in tasks]}

    def describe_task_definition(self, taskDefinition: str) -> dict[str, Any]:  # noqa: ARG002, N803 -- boto3's
        """Return the definition, or raise the error."""
        self.calls.append("DescribeTaskDefinition")
        if self.error:
            raise self.error
        return {"taskDefinition": {"containerDefinitions": [{"name": "main", "essential": True}]}}


@pytest.fixture(autouse=True)
def _nothing_is_cached() -> Iterator[None]:
    """Clear the cache of definitions, which lives as long as the process."""
    yield
    ecs._definitions.clear()
    ecs._unreadable_until.clear()


TASKS = [f"arn:aws:ecs:eu-west-1:1:task/c/{number}" for number in range(100)]


def test_a_definition_is_read_once() -> None:
    """A revision never changes, so it is described once."""
    client = Ecs()
    for _ in range(3):
        assert len(ecs.describe(client, TASKS, "c")) == 100
    assert client.calls == ["DescribeTasks", "DescribeTaskDefinition", "DescribeTasks", "DescribeTasks"]


@pytest.mark.parametrize("code", ["AccessDeniedException", "ClientException"])
def test_a_denied_definition_is_not_requested_for_every_task(
    code: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is requested once in five minutes, with one warning each; until then, every container counts as essential."""
    client = Ecs(refused(code, "DescribeTaskDefinition"))
    for _ in range(5):
        seen = ecs.describe(client, TASKS, "c")
        assert {snapshot.state for snapshot in seen.values()} == {JobState.SUCCEEDED}
    assert client.calls.count("DescribeTaskDefinition") == 1
    assert len(caplog.records) == 1
    monkeypatch.setattr(ecs, "_unreadable_until", {})
    ecs.describe(client, TASKS, "c")
    assert client.calls.count("DescribeTaskDefinition") == 2
    client.error = None
    ecs._unreadable_until[DEFINITION] = 0.0  # five minutes later
    ecs.describe(client, TASKS, "c")
    ecs.describe(client, TASKS, "c")
    assert client.calls.count("DescribeTaskDefinition") == 3


@pytest.mark.parametrize("code", ["ThrottlingException", "ServerException"])
def test_a_transient_error_of_a_definition_fails_the_describe_call(code: str) -> None:
    """The tasks are described again later."""
    client = Ecs(refused(code, "DescribeTaskDefinition", status=400 if code.startswith("T") else 500))
    for _ in range(2):
        with pytest.raises(CallError) as raised:
            ecs.describe(client, TASKS, "c")
        assert raised.value.fault in (Fault.THROTTLED, Fault.TRANSIENT)
    assert client.calls.count("DescribeTaskDefinition") == 2


def test_a_denied_definition_is_not_requested_for_every_start() -> None:
    """It would take half of the calls that RunTask may make."""

    class Remembering(Ecs):
        memory: dict[Any, Any] = {}  # noqa: RUF012 -- one instance

    client = Remembering(refused("AccessDeniedException", "DescribeTaskDefinition"))
    assert [ecs.main_container_if_readable(client, "d") for _ in range(3)] == [None] * 3
    assert client.calls == ["DescribeTaskDefinition"]


def test_a_lost_response_of_a_definition_has_started_nothing() -> None:
    """Otherwise a task without a token counts as possibly started, and fails instead of being started again."""

    class Silent(ScriptedClient):
        def describe_task_definition(self, **_: Any) -> dict[str, Any]:
            raise CallError(Fault.TRANSIENT, "no response", sent=True)

    with pytest.raises(CallError) as raised:
        ecs.main_container_if_readable(Silent(), "d")
    assert not raised.value.sent


@pytest.mark.parametrize(
    ("attempt", "after"), [({}, None), ({"JOBFLOW_MAP_ATTEMPT": "2"}, "1970-01-01T00:01:39+00:00")]
)
def test_a_result_of_an_item_that_lost_its_spot_capacity_is_not_that_of_the_next_attempt(
    attempt: dict[str, str], after: str | None
) -> None:
    """Both write to the address of the item; what is older than the second task is of the first."""
    given = {"JOBFLOW_RESULT_URI": "s3://b/k/0", **attempt}
    environment = [{"name": name, "value": value} for name, value in given.items()]
    task = {"taskArn": ARN, "lastStatus": "STOPPED", "taskDefinitionArn": DEFINITION, "createdAt": 100.0}
    overrides = {"containerOverrides": [{"name": "main", "environment": environment}]}
    seen = ecs_snapshot.snapshot({**task, "overrides": overrides}, ecs_snapshot.Definition())
    assert (seen.result_uri, seen.previous_attempt_ended_at) == ("s3://b/k/0", after)


ARN = "arn:aws:ecs:eu-west-1:1:task/c/t1"
MADE_FROM = ecs_snapshot.definition(
    {
        "containerDefinitions": [
            {"name": "init", "essential": False},
            {
                "name": "main",
                "logConfiguration": {"options": {"awslogs-group": "/g", "awslogs-stream-prefix": "p"}},
            },
            {
                "name": "router",
                "essential": True,
                "logConfiguration": {
                    "options": {"awslogs-group": "/r", "awslogs-stream-prefix": "p", "awslogs-region": "us-east-1"}
                },
            },
        ]
    }
)


def stopped(code: str = "EssentialContainerExited", /, **exit_codes: int | None) -> Snapshot:
    """Return a stopped task whose containers have these exit codes, in AWS's order."""
    containers = [{"name": name, "exitCode": each} for name, each in exit_codes.items()]
    task = {"taskArn": ARN, "taskDefinitionArn": DEFINITION, "lastStatus": "STOPPED", "stopCode": code}
    return ecs_snapshot.snapshot({**task, "containers": containers}, MADE_FROM)


@pytest.mark.parametrize(
    ("exit_codes", "state", "exit_code", "group"),
    [
        ({"router": 137, "main": 1}, JobState.FAILED, 1, "/g"),
        ({"router": 143, "main": 1}, JobState.FAILED, 1, "/g"),
        ({"router": 2, "main": 1}, JobState.FAILED, 1, "/g"),
        ({"router": 2, "main": 143}, JobState.FAILED, 2, "/r"),
        ({"router": 0, "main": 0, "init": 137}, JobState.SUCCEEDED, 0, "/g"),
        ({"init": 4, "main": None, "router": None}, JobState.FAILED, 4, None),
        ({"router": 137, "main": 0}, JobState.FAILED, 137, "/r"),
    ],
)
def test_a_killed_container_does_not_hide_the_cause(
    exit_codes: dict[str, int | None], state: JobState, exit_code: int, group: str | None
) -> None:
    """The definition has the essential containers and their order; AWS lists containers in any order."""
    seen = stopped(**exit_codes)
    assert (seen.state, seen.exit_code) == (state, exit_code)
    assert (seen.log and seen.log.group) == group


def test_container_name_selects_the_container() -> None:
    """Only the named container decides: for example, a router that is killed after the work is no failure."""
    seen = stopped(router=137, main=0)
    main, router = seen.counting("main"), seen.counting("router")
    assert (main.state, main.exit_code, main.log) == (JobState.SUCCEEDED, 0, LogStream("/g", "p/main/t1"))
    assert (router.state, router.exit_code) == (JobState.FAILED, 137)
    assert seen.counting(None) is seen.counting("not there") is seen
    assert stopped("SpotInterruption", router=137, main=0).counting("main").state is JobState.FAILED
    assert stopped(router=0, main=0, init=1).counting("init").state is JobState.FAILED


def test_the_region_of_a_log_is_kept_if_it_is_not_the_tasks() -> None:
    """A log driver may write to another region."""
    assert stopped(router=1, main=0).log == LogStream("/r", "p/router/t1", "us-east-1")


def test_the_log_of_a_running_task_is_found_on_request() -> None:
    """Polling does not look up the definition, but the error for a hanging task needs the log."""
    client = Ecs()
    client.describe_task_definition = lambda **_: {  # type: ignore[method-assign]
        "taskDefinition": {
            "containerDefinitions": [
                {"name": each, "logConfiguration": {"options": {"awslogs-group": "/g", "awslogs-stream-prefix": "p"}}}
                for each in ("main", "router")
            ]
        }
    }
    task = {"taskArn": ARN, "taskDefinitionArn": DEFINITION, "lastStatus": "RUNNING", "containers": []}
    running = Snapshot.from_dict(ecs_snapshot.snapshot(task, ecs_snapshot.Definition()).to_dict())
    assert running.log is None
    seen = ecs.with_final_details(client, running)
    assert seen.log == LogStream("/g", "p/main/t1")
    assert seen.counting("router").log == LogStream("/g", "p/router/t1")
    assert seen.counting("router").state is JobState.RUNNING
    ended = stopped(main=0)
    assert ecs.with_final_details(client, ended) is ended


@pytest.mark.parametrize(
    ("reasons", "fault"),
    [
        (["MemberOf placement constraint unsatisfied.", "RESOURCE:MEMORY"], Fault.NO_CAPACITY),
        (["MemberOf placement constraint unsatisfied.", "AGENT"], Fault.NO_CAPACITY),
        (["ATTRIBUTE", "MemberOf placement constraint unsatisfied."], Fault.REJECTED),
        (["RESOURCE:CPU", "RESOURCE:CPU"], Fault.NO_CAPACITY),
        ([], Fault.TRANSIENT),
    ],
)
def test_one_full_instance_is_enough_to_wait_for(reasons: list[str], fault: Fault) -> None:
    """RunTask has a failure for each instance, and only some of them may suit the task."""
    with pytest.raises(NotStarted) as error:
        ecs.started({"tasks": [], "failures": [{"arn": "i", "reason": reason} for reason in reasons]})
    assert error.value.fault is fault
    assert str(error.value) == ("; ".join(dict.fromkeys(reasons)) or "RunTask returned neither a task nor a reason")
