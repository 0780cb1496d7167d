"""The containers of ECS tasks and Batch jobs: their order by ``dependsOn``, and errors at the start. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

MISSING_IMAGES: Final = "missing/"
"""Images with this prefix cannot be pulled."""


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


def pull_error(image: str) -> str | None:
    """Return why an image cannot be pulled, or None.

    :param image: the image.
    """
    if not image.startswith(MISSING_IMAGES):
        return None
    return (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
        f"failed to resolve ref {image}: not found"
    )


def start_error(error: str) -> str:
    """Return the reason of a container whose command cannot be started.

    :param error: the error of the container runtime.
    """
    return (
        "CannotStartContainerError: Error response from daemon: failed to create task for container: OCI runtime "
        f"create failed: unable to start container process: {error}: unknown"
    )
