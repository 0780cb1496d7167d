"""The ECS module: what a describe costs beside DescribeTasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import ecs
from airflow_jobflow.jobs.model import JobState
from tests.unit.jobs.scripted_calls import ScriptedClient, refused

DEFINITION = "arn:aws:ecs:eu-west-1:1:task-definition/d:1"


class Ecs(ScriptedClient):
    """A hundred stopped tasks of one definition, and a count of the calls."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[str] = []

    def describe_tasks(self, cluster: str, tasks: list[str]) -> dict[str, Any]:  # noqa: ARG002 -- boto3's
        """Tasks that have ended well."""
        self.calls.append("DescribeTasks")
        told = {"lastStatus": "STOPPED", "taskDefinitionArn": DEFINITION, "stopCode": "EssentialContainerExited"}
        containers = [{"name": "main", "exitCode": 0}]
        return {"tasks": [{"taskArn": task, "containers": containers, **told} for task in tasks]}

    def describe_task_definition(self, taskDefinition: str) -> dict[str, Any]:  # noqa: ARG002, N803 -- boto3's
        """A definition, or the error."""
        self.calls.append("DescribeTaskDefinition")
        if self.error:
            raise self.error
        return {"taskDefinition": {"containerDefinitions": [{"name": "main", "essential": True}]}}


@pytest.fixture(autouse=True)
def _nothing_is_cached() -> Iterator[None]:
    """Definitions are kept for as long as the process lives."""
    yield
    ecs._definitions.clear()
    ecs._unreadable_until.clear()


TASKS = [f"arn:aws:ecs:eu-west-1:1:task/c/{number}" for number in range(100)]


def test_a_definition_is_read_once() -> None:
    """A revision never changes."""
    client = Ecs()
    for _ in range(3):
        assert len(ecs.describe(client, TASKS, "c")) == 100
    assert client.calls == ["DescribeTasks", "DescribeTaskDefinition", "DescribeTasks", "DescribeTasks"]


@pytest.mark.parametrize("code", ["AccessDeniedException", "ClientException"])
def test_a_definition_that_may_not_be_read_is_not_asked_for_by_every_task(
    code: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once in five minutes instead, with one warning each; every container counts as essential meanwhile."""
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
def test_a_definition_that_is_not_answered_for_is_asked_for_again(code: str) -> None:
    """The tasks are described again then."""
    client = Ecs(refused(code, "DescribeTaskDefinition", status=400 if code.startswith("T") else 500))
    for _ in range(2):
        with pytest.raises(CallError) as raised:
            ecs.describe(client, TASKS, "c")
        assert raised.value.fault in (Fault.THROTTLED, Fault.TRANSIENT)
    assert client.calls.count("DescribeTaskDefinition") == 2
