"""Glue's own retries of a run: a run that fails is followed by a new run, up to the ``MaxRetries`` of its job.

Glue names the retries of ``jr_a`` ``jr_a_attempt_1``, ``jr_a_attempt_2``, …. They are followed under the id of the run
that was started: it has ended when the last of them has.

Invariants:

- A run that was retried has not ended, whatever its own state says.
- Between a failure and its retry, no run is running. For ``RETRY_GRACE`` seconds, a failed run whose job allows another
  retry counts as running.
- How many retries a job allows is read only when that matters: never for a run that succeeds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.calls import Call, remembered

log = logging.getLogger(__name__)

RETRIED = ("FAILED", "ERROR")
"""The states in which Glue may retry a run. It retries neither a run that was stopped, nor one that timed out."""

MAX_RETRIES = 10
"""The most retries that Glue allows for a job."""

RETRY_GRACE = 300.0
"""Seconds within which a retry must appear after a failure. Glue starts it after about half a minute."""

_SUFFIX = "_attempt_"

Run = Mapping[str, Any]
"""A run as Glue describes it."""


def first_id(run_id: str) -> str:
    """Return the id of the run that was started.

    :param run_id: the id of a run or of a retry.
    """
    return run_id.partition(_SUFFIX)[0]


def number(run_id: str) -> int:
    """Return the number of a retry; 0 for the run that was started.

    :param run_id: the id of a run or of a retry.
    """
    count = run_id.partition(_SUFFIX)[2]
    return int(count) if count.isdecimal() else 0


def next_id(run_id: str) -> str:
    """Return the id that the retry of a run has.

    :param run_id: the id of a run or of a retry.
    """
    return f"{first_id(run_id)}{_SUFFIX}{number(run_id) + 1}"


def chain(run_id: str, runs: Iterable[Run]) -> list[Run]:
    """Return a run and its retries, in their order.

    :param run_id: the id of the run; if it is itself a retry, only later ones follow.
    :param runs: runs of the job, in any order.
    """
    same = [run for run in runs if first_id(run["Id"]) == first_id(run_id) and number(run["Id"]) >= number(run_id)]
    return sorted(same, key=lambda run: number(run["Id"]))


def merged(runs: Sequence[Run]) -> dict[str, Any]:
    """Return a run and its retries as one: the last one, with the start of the first and the figures of all.

    :param runs: the run and its retries, in order.
    """
    figures = {
        name: sum(run.get(name) or 0 for run in runs)
        for name in ("ExecutionTime", "DPUSeconds")
        if any(run.get(name) is not None for run in runs)
    }
    inherited = {name: runs[0][name] for name in ("StartedOn", "Arguments") if name in runs[0]}
    return {**runs[-1], **inherited, **figures}


def max_retries(call: Call, job: str) -> int | None:
    """Return how often Glue retries the runs of a job; None if that may not be read. At most one GetJob a minute.

    :param call: makes the API calls.
    :param job: name of the job.
    :raises CallError: it could not be read just now.
    """

    def read() -> int | None:
        try:
            return int(call("get_job", JobName=job)["Job"].get("MaxRetries") or 0)
        except CallError as error:
            if error.fault is Fault.DENIED:
                log.warning(
                    "A failed run of %s counts as failed only after %g s, in which Glue may retry it: the job's "
                    "MaxRetries could not be read. Allow glue:GetJob. %s",
                    job,
                    RETRY_GRACE,
                    error,
                )
                return None
            if error.code == "EntityNotFoundException":  # the job was deleted since
                return 0
            raise

    return remembered(call, ("max_retries", job), read)


def may_follow(run: Run, allowed: int | None) -> bool:
    """Return whether a retry of a run may still appear.

    :param run: the last run that is known.
    :param allowed: how often Glue retries the runs of the job; None if that is not known.
    """
    if run["JobRunState"] not in RETRIED or not ended_lately(run):
        return False
    return allowed is None or number(run["Id"]) < allowed


def ended_lately(run: Run) -> bool:
    """Return whether a run ended so lately that its retry may not have appeared yet.

    :param run: the run.
    """
    return time.time() - float(run.get("CompletedOn") or 0.0) < RETRY_GRACE
