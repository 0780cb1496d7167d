"""Which of several containers decides the result of a job. Pure.

AWS lists the containers of a job in no useful order, and most of them end because another one did: when an essential
container ends, ECS and Batch send SIGTERM to the others (143), and SIGKILL half a minute later (137).

Invariants:

- The exit code of a container that was killed because another one ended never hides the other's exit code.
- A container that is not essential decides only if it failed and no essential container was run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

Container = Mapping[str, Any]
"""A container of a describe response: ``name``, ``exitCode`` and ``reason``, each of which may be missing."""

KILLED = (137, 143)
"""Exit codes of containers that were sent SIGKILL or SIGTERM, most often because another container had ended."""

OUT_OF_MEMORY = re.compile("out ?of ?memory|oom ?killed", re.IGNORECASE)
"""The reason of a container that was killed for its own memory use."""

FAILED, KILLED_OR_FAILED, NOT_RUN, SUCCEEDED = range(4)
"""How a container ended; the lowest value decides."""


def in_order(containers: Iterable[Container], names: Sequence[str]) -> list[Container]:
    """Return containers in the order of their definition, followed by those that it does not name.

    :param containers: in any order.
    :param names: of the containers, in the order of the definition.
    """
    positions = {name: position for position, name in enumerate(names)}
    return sorted(containers, key=lambda each: positions.get(each.get("name", ""), len(positions)))


def deciding(containers: Sequence[Container], essential: Collection[str], *, succeeded: bool = False) -> Container:
    """Return the container that decides the result of a job; an empty one if there is none.

    For a failed job it is the first essential container that failed by itself, else the first that was killed, else the
    first that was not run. If no essential container was run, it is the container that failed before, such as one on
    which the others depend. For a successful job it is the first essential container that ended with 0.

    :param containers: in the order of their definition.
    :param essential: the names of the essential ones. If none of them is there, all containers count as essential.
    :param succeeded: whether the job has succeeded. Default False.
    """
    counted = [each for each in containers if each.get("name") in essential] or list(containers)
    if not counted:
        return {}
    if succeeded:
        return next((each for each in counted if each.get("exitCode") == 0), counted[0])
    first = min(counted, key=_end)
    if _end(first) == NOT_RUN:
        return next((each for each in containers if each.get("exitCode") and _end(each) == FAILED), first)
    return first


def _end(container: Container) -> int:
    code, reason = container.get("exitCode"), container.get("reason") or ""
    if code in KILLED and not OUT_OF_MEMORY.search(reason):
        return KILLED_OR_FAILED
    if code is None and not reason:
        return NOT_RUN
    return SUCCEEDED if code == 0 else FAILED
