"""How an operator waits for its job: until when, and what its trigger may do about it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_jobflow.operators import kills
from airflow_jobflow.operators.returned import kind_in_triggerer

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.spec import JobSpec


def wait_until_ended(
    execution: Execution[JobSpec],
    context: Context,
    job_ids: Sequence[str],
    seen: Mapping[str, Snapshot],
    *,
    own: Sequence[str],
    queued_timeout: float | None = None,
) -> dict[str, Any]:
    """Wait until the jobs have ended, and return the event of the trigger. If the task defers, this does not return.

    :param execution: the execution of the operator.
    :param context: Airflow's context.
    :param job_ids: the jobs.
    :param seen: their last snapshots, by id.
    :param own: those that this process started, and may stop.
    :param queued_timeout: seconds within which they must leave the queue. Default None: no limit.
    """
    attempt, given = execution.record.attempt, execution.given
    queue_deadline = None
    if queued_timeout is not None and not any(each.left_queue for each in seen.values()):
        queue_deadline = (attempt.queued_at or time.time()) + queued_timeout
    cancel_on_kill = given.get("cancel_on_kill")
    return execution.wait.until_ended(
        context,
        job_ids,
        seen,
        deadline=attempt.deadline,
        queue_deadline=queue_deadline,
        cancel_on_kill=bool(cancel_on_kill and not attempt.joined),
        cancel_on_timeout=bool(given.get("cancel_on_timeout") and not attempt.joined),
        returns=kind_in_triggerer(execution),
        result=execution.record.inputs.result,
        resumes_with={"attempt": attempt.to_dict()},
        before_deferral=partial(kills.stop_jobs_if_deferral_is_rejected, execution, own, seen)
        if own and cancel_on_kill
        else None,
    )
