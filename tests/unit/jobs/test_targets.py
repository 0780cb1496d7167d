"""When a wait for a status of an ECS task is over."""

from __future__ import annotations

import pytest

from airflow_jobflow.jobs.ecs_snapshot import Definition, snapshot
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.jobs.targets import Target
from tests.unit.scripted_aws import ARN


def seen(status: str, *, ran: bool = False) -> Snapshot:
    """Return the snapshot of a task in a status."""
    task = {"taskArn": ARN, "taskDefinitionArn": "d", "lastStatus": status, "containers": []}
    return snapshot({**task, **({"startedAt": 1.0} if ran else {})}, Definition())


@pytest.mark.parametrize(
    ("target", "status", "ran", "reached"),
    [
        ("RUNNING", "PENDING", False, False),
        ("RUNNING", "RUNNING", True, True),
        ("RUNNING", "DEACTIVATING", True, True),
        ("RUNNING", "STOPPED", True, True),
        ("RUNNING", "DEPROVISIONING", False, False),
        ("RUNNING", "STOPPED", False, False),
        ("PENDING", "RUNNING", True, True),
        ("PENDING", "ACTIVATING", False, True),
        ("PENDING", "STOPPED", False, False),
        ("STOPPING", "RUNNING", True, False),
        ("STOPPING", "DEPROVISIONING", False, True),
        ("STOPPED", "STOPPED", False, True),
        ("STOPPED", "A_NEW_STATUS", True, False),
    ],
)
def test_a_status_that_was_passed_is_reached(target: str, status: str, reached: bool, *, ran: bool) -> None:
    """Polls may miss a status, and a task that never ran has not passed RUNNING."""
    assert Target(target).reached(seen(status, ran=ran)) is reached


@pytest.mark.parametrize(
    ("status", "ran", "decided"),
    [("PENDING", False, False), ("DEPROVISIONING", False, False), ("STOPPED", False, True), ("RUNNING", True, True)],
)
def test_a_wait_goes_on_while_the_task_has_not_ended(status: str, decided: bool, *, ran: bool) -> None:
    """Only the end of a task says why it did not start."""
    assert Target("RUNNING").decided(seen(status, ran=ran)) is decided


def test_a_failure_state_ends_the_wait() -> None:
    """As the user asked for."""
    assert Target("STOPPED", ["DEACTIVATING"]).decided(seen("DEACTIVATING", ran=True))


def test_without_a_status_a_wait_ends_with_its_job() -> None:
    """A wait for the end is the ordinary case."""
    assert not Target().decided(seen("RUNNING", ran=True))
    assert Target().decided(seen("STOPPED", ran=True))
    assert not Target().reached(seen("STOPPED", ran=True))
