"""The cleanup of definitions: deregisters those that were registered from an image and that no run uses any more.

A definition carries the date of its last use in a tag, see ``jobs/registration.py``. A definition that is deregistered
although a run still needs it does no harm: running jobs go on, and the next start registers it again.

Invariants:

- Only definitions of this package are deregistered: name and tag say so.
- Nothing is deregistered in a dry run.
- A service whose definitions cannot be listed, or a definition that cannot be deregistered, does not affect the others.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from airflow_jobflow.aws import Access, RetriedCall, Retry, service_client
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs.registration import LAST_USED, REGISTRIES, Registry, Revision, Use, use_of

log = logging.getLogger(__name__)

SHORTEST: Final = 2
"""The minimum of ``unused_days``, because a use is recorded once a day."""

ACTIONS: Final = ("deregistered", "would_deregister", "deregister_failed")
"""What was done with an unused definition."""

RETRY: Final = Retry(denied_patience=0.0)
"""Calls that AWS denies are not retried: the next cleanup does that."""


def deregister_unused_definitions(
    *,
    unused_days: int = 30,
    services: Sequence[str] = ("batch", "ecs"),
    dry_run: bool = True,
    access: Access | None = None,
    now: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Deregister definitions that operators have registered from an image, and that no task has used for some time.

    :param unused_days: days since the last use, at least 2. A map that runs for longer needs more. Default 30.
    :param services: whose definitions are cleaned up: ``batch``, ``ecs``. Default both.
    :param dry_run: whether to only report which definitions would be deregistered. Default True.
    :param access: the AWS connection, region and client configuration to use. Default: connection ``aws_default``.
    :param now: returns the time in seconds since the epoch. Default: the system's clock.
    :returns: ``dry_run``; ``definitions``, one dict for each unused one, with ``service``, ``definition``,
        ``last_used``, ``action`` (``deregistered``, ``would_deregister`` or ``deregister_failed``) and ``reason``;
        ``counts`` of all definitions whose names begin with ``jobflow-``, by their use and by what was done;
        ``problems``, one dict for each service whose definitions could not be listed.
    :raises ValueError: ``unused_days`` is less than 2, or a service has no definitions.
    """
    if unused_days < SHORTEST:
        raise ValueError(
            f"unused_days={unused_days!r}: must be at least {SHORTEST}, because a use is recorded once a day"
        )
    if unknown := [each for each in services if each not in REGISTRIES]:
        raise ValueError(f"services={services!r}: {unknown[0]!r} is not one of {', '.join(REGISTRIES)}")
    counts: Counter[str] = Counter(dict.fromkeys(("listed", *Use, *ACTIONS), 0))
    unused, problems = [], []
    today = datetime.fromtimestamp(now(), tz=UTC).date()
    for service in services:
        registry, call = REGISTRIES[service], RetriedCall(service_client(access or Access(), service), RETRY)
        try:
            revisions = list(registry.active(call))
        except CallError as error:
            log.warning("Could not list the definitions of %s: %s", service, error)
            problems.append({"service": service, "error": str(error)})
            continue
        for revision in revisions:
            use = use_of(revision, today, unused_days)
            counts.update(("listed", use))
            if use is Use.UNUSED:
                action, reason = ("would_deregister", "") if dry_run else _deregister(registry, call, revision)
                counts[action] += 1
                last_used = revision.tags[LAST_USED]
                log.info("%s: %s (last used: %s) %s", action, revision.name, last_used, reason)
                unused.append(
                    {
                        "service": service,
                        "definition": revision.name,
                        "last_used": last_used,
                        "action": action,
                        "reason": reason,
                    }
                )
    log.info("Definitions: %s", ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none")
    return {
        "dry_run": dry_run,
        "definitions": unused,
        "counts": {str(name): count for name, count in counts.items()},
        "problems": problems,
    }


def _deregister(registry: Registry, call: RetriedCall, revision: Revision) -> tuple[str, str]:
    """Deregister a revision; return the action, and why it failed."""
    try:
        registry.deregister(call, revision)
    except CallError as error:
        return "deregister_failed", str(error)
    return "deregistered", ""
