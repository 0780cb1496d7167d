"""Which of several containers tells how a job went. Pure.

AWS lists the containers of a job in no useful order, and most of them end because another one did: ECS and Batch send
SIGTERM to what is left when an essential container ends (143), and SIGKILL half a minute later (137).

Invariants:

- An exit code that a container has because another one ended never hides that container's own.
- What is not essential decides only if no essential container was run, because it failed before.
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
"""What the reason of a container says that was sent SIGKILL for its own sake."""

FAILED, KILLED_OR_FAILED, NOT_RUN, SUCCEEDED = range(4)
"""How a container ended, the most telling end first."""


def in_order(containers: Iterable[Container], names: Sequence[str]) -> list[Container]:
    """Return containers in the order of their definition; those that it does not name come last.

    :param names: of the containers, as the definition has them.
    """
    places = {name: place for place, name in enumerate(names)}
    return sorted(containers, key=lambda each: places.get(each.get("name", ""), len(places)))


def deciding(containers: Sequence[Container], essential: Collection[str], *, succeeded: bool = False) -> Container:
    """Return the container that tells how a job went, or an empty one if there is none.

    Of a job that has failed, it is the first essential one that failed by itself, else the first that was killed, else
    the first that was not run. If none was run, it is the container that failed before, such as one that others wait
    for. Of a job that has succeeded, it is the first essential one that ended with 0.

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
