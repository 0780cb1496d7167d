"""The decisions of ECS, without a server."""

from __future__ import annotations

import re
from typing import Any

import botocore.session
import pytest

from airflow_jobflow.local.ecs import model, validation


def item(provider: str, weight: int | None = None, base: int | None = None) -> dict[str, Any]:
    """Return an item of a capacity provider strategy."""
    given = {"capacityProvider": provider, "weight": weight, "base": base}
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize(
    ("strategy", "count", "spot"),
    [
        ([item("FARGATE_SPOT")], 3, 3),
        ([item("FARGATE_SPOT", 1), item("FARGATE", 1)], 1, 1),
        ([item("FARGATE_SPOT", 1), item("FARGATE", 3)], 1, 0),
        ([item("FARGATE_SPOT", 1), item("FARGATE", 3)], 8, 2),
        ([item("FARGATE_SPOT", 4), item("FARGATE", 1, 2)], 1, 0),
        ([item("FARGATE_SPOT", 4), item("FARGATE", 1, 2)], 7, 4),
        ([item("FARGATE_SPOT", 1), item("FARGATE", 0, 2)], 10, 8),
        ([item("FARGATE", 0), item("FARGATE_SPOT", 1)], 10, 10),
    ],
)
def test_base_is_filled_first_and_weights_share_the_rest(strategy: list[dict[str, Any]], count: int, spot: int) -> None:
    """The number of a RunTask call's tasks on FARGATE_SPOT follows from base and weights."""
    placed = model.placements(strategy, count)
    assert len(placed) == count
    assert placed.count("FARGATE_SPOT") == spot


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ([item("FARGATE_SPOT", 1)], "not associated with the cluster"),
        ([item("mine", 1)], "was not found"),
        ([item("FARGATE", 1), item("FARGATE", 1)], "duplicate"),
        ([item("FARGATE", 1, 1), item("other", 1, 1)], "more than one capacity provider with a base"),
        ([item("FARGATE", 0), item("other")], "greater than zero"),
    ],
)
def test_invalid_strategies_are_rejected(strategy: list[dict[str, Any]], said: str) -> None:
    """A cluster only knows the providers that are associated with it."""
    assert said in (validation.strategy_error(strategy, ["FARGATE", "other"]) or "")


def test_valid_strategy_is_accepted() -> None:
    """A single item needs no weight."""
    assert validation.strategy_error([item("FARGATE")], ["FARGATE"]) is None


def test_overrides_replace_the_command_and_merge_the_environment() -> None:
    """Overrides of other containers change nothing."""
    container = {
        "name": "main",
        "entryPoint": ["sh"],
        "command": ["-c", "false"],
        "cpu": 1,
        "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
    }
    overrides = {
        "containerOverrides": [
            {"name": "other", "command": ["other"]},
            {"name": "main", "command": ["-c", "true"], "cpu": 7, "environment": [{"name": "B", "value": "2"}]},
        ]
    }
    result = model.overridden(container, overrides)
    assert model.arguments(result) == ["sh", "-c", "true"]
    assert result["cpu"] == 7
    assert result["environment"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ({"requiresCompatibilities": ["FARGATE"]}, True),
        ({"requiresCompatibilities": ["EC2"], "networkMode": "awsvpc", "cpu": "1", "memory": "1"}, False),
        ({"requiresCompatibilities": [], "networkMode": "awsvpc", "cpu": "1", "memory": "1"}, True),
        ({"requiresCompatibilities": [], "networkMode": "bridge", "cpu": "1", "memory": "1"}, False),
    ],
)
def test_fargate_accepts_compatible_definitions(definition: dict[str, Any], expected: bool) -> None:
    """A definition that requires something else is rejected."""
    assert model.supports(definition, "FARGATE") is expected


@pytest.mark.parametrize(
    ("identifier", "said"),
    [
        ("0" * 32, None),
        ("00000000-0000-0000-0000-000000000000", None),
        (f"arn:aws:ecs:us-east-1:123456789012:task/mine/{'0' * 32}", None),
        (f"arn:aws:ecs:us-east-1:123456789012:task/{'0' * 32}", None),
        (f"arn:aws:ecs:us-east-1:123456789012:task/other/{'0' * 32}", "Your cluster is mine"),
        (f"arn:aws:ecs:us-east-1:999999999999:task/mine/{'0' * 32}", "Your accountId is 123456789012"),
        (f"arn:aws:ecs:eu-west-1:123456789012:task/mine/{'0' * 32}", "for eu-west-1. Your region is us-east-1"),
        ("arn:aws:ecs", "Invalid identifier"),
        (f"mine/{'0' * 32}", "separators"),
        ("x", "taskId length"),
    ],
)
def test_identifiers_of_tasks(identifier: str, said: str | None) -> None:
    """An id or an ARN of this account and cluster is accepted."""
    why = validation.task_error(identifier, "123456789012", "us-east-1", "mine")
    assert (why is None) if said is None else re.search(said, why or "")


def test_every_stop_code_is_known() -> None:
    """Each has a usual reason."""
    shape: Any = botocore.session.get_session().get_service_model("ecs").shape_for("TaskStopCode")
    assert set(model.REASONS) == set(shape.enum)
