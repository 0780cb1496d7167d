"""Decide which container of a task or job may start: ``dependsOn`` of ECS and Batch. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a container.

    :param started: whether its process has started. Default False.
    :param stopped: whether it has ended, or will never run. Default False.
    :param exit_code: its exit code. Default: none.
    """

    started: bool = False
    stopped: bool = False
    exit_code: int | None = None


def may_start(depends_on: Iterable[Mapping[str, Any]], others: Mapping[str, Progress]) -> bool | None:
    """Return whether a container may start: None if not yet, False if never.

    HEALTHY is met when the other container has started, because health checks are not run.

    :param depends_on: each with ``containerName`` and ``condition``.
    :param others: the containers of the same task by their names.
    """
    met = [_is_met(each.get("condition", "START"), others.get(each.get("containerName", ""))) for each in depends_on]
    if False in met:
        return False
    return None if None in met else True


def _is_met(condition: str, other: Progress | None) -> bool | None:
    if other is None:
        return False
    if condition == "COMPLETE":
        return True if other.stopped else None
    if condition == "SUCCESS":
        return (other.exit_code == 0) if other.stopped else None
    return True if other.started else (False if other.stopped else None)
