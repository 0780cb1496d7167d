"""Operators that start in the triggerer: the first try of a task whose job can be found again.

Every later try starts on a worker, because there may be a job of an earlier one, and only a worker knows the task's
record and whether the task was cleared. If anything fails here, the task starts on a worker, too, which first looks for
a job of this try.

What differs from a start on a worker:

- Airflow has no task state store there. The attempt is in the trigger's event, and a worker that continues records it.
- ``clear_number`` is not known, and is 0 in the try that the job carries. That is the lowest, so a later try continues
  with the job if nothing was cleared in the DAG run, and otherwise stops it and starts a new one.
- The attempt begins when the scheduler started the task, in whichever triggerer, so that its deadline is always the
  same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_jobflow.airflow_compat.task_context import without_task_state_store
from airflow_jobflow.operators.attempt_listing import find_attempt
from airflow_jobflow.operators.glue_script import is_local
from airflow_jobflow.operators.map_record import as_lines, digest_of
from airflow_jobflow.operators.returned import kind_in_triggerer
from airflow_jobflow.waiting.trigger_start import StartRules

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.map_record import MapAttempt
    from airflow_jobflow.operators.spec import JobSpec
    from airflow_jobflow.triggers.job import JobTrigger
    from airflow_jobflow.triggers.map import MapTrigger
    from airflow_jobflow.triggers.start import Start

TOKEN_LIFETIME = 3600.0
"""Seconds after the start of a task for which a token in the request keeps AWS from starting a second job. AWS promises
more. After that, the job is looked up as well."""


def _why_not(given: Mapping[str, Any]) -> str:
    if not given.get("wait_for_completion", True):
        return "the task does not wait (wait_for_completion=False)"
    if not given.get("durable", True):
        return "the job cannot be found again (durable=False)"
    return ""


START_RULES = StartRules(("all",), _why_not)
"""Which operators start in the triggerer."""


def _why_no_glue_run(given: Mapping[str, Any]) -> str:
    return "a worker reads and uploads its script" if is_local(given.get("script")) else _why_not(given)


GLUE_RUN_RULES = StartRules(("all",), _why_no_glue_run)
"""Runs of Glue jobs start there, unless their script is a local file."""

CRAWL_RULES = StartRules(("all",), lambda _: "a crawl cannot be found again by another triggerer")
"""Crawls start on workers."""


def begin(execution: Execution[Any], context: Context, started_at: float) -> None:
    """Begin the first try of a task in the triggerer.

    :param execution: the execution of the operator.
    :param context: Airflow's context.
    :param started_at: when the scheduler started the task, in seconds since the epoch.
    :raises NeedsWorker: it is a later try, or its deadline has passed.
    """
    from airflow_jobflow.triggers.mapped_arguments import NeedsWorker

    execution.record.resume(without_task_state_store(context), None)
    if not execution.record.is_first_try:
        raise NeedsWorker("an earlier try may have a job")
    # Airflow itself ends the wait at the execution_timeout, as it does in a worker.
    deadline = replace(execution.deadlines, in_worker=True).after(started_at)
    if _has_passed(deadline):
        raise NeedsWorker("its deadline has passed")
    execution.jobs.call_deadline = deadline


def _has_passed(deadline: float | None) -> bool:
    return deadline is not None and deadline <= time.time()


def start_of_job(execution: Execution[JobSpec], context: Context, started_at: float, *, may_end: bool) -> Start:
    """Return how an operator starts its job in the triggerer.

    :param execution: the execution of the operator.
    :param context: Airflow's context.
    :param started_at: when the scheduler started the task, in seconds since the epoch.
    :param may_end: whether the task may end in the triggerer.
    :raises NeedsWorker: only a worker can start it.
    """
    from airflow_jobflow.triggers.mapped_arguments import NeedsWorker
    from airflow_jobflow.triggers.start import Start

    begin(execution, context, started_at)

    def run(is_cancelled: Callable[[], bool], listed_after: float) -> JobTrigger:
        record = execution.record

        def before_submit(call: Call) -> str | None:
            record.attempt.began_at = started_at
            found = _started_before(execution, call, started_at, listed_after, relies_on_token=not is_cancelled())
            if not found and is_cancelled():
                raise NeedsWorker("the trigger was cancelled, and nothing was submitted")
            if not found and _has_passed(execution.jobs.call_deadline):  # a worker looks for the job soon
                raise NeedsWorker("its deadline has passed, and nothing was submitted")
            return found

        record.before_submit = before_submit
        job_ids = execution.spec.submit(record, execution.jobs)
        attempt = record.attempt
        attempt.job_ids, attempt.queued_at = job_ids, time.time()
        for job_id in job_ids:
            execution.log.info("Started %s %s in the triggerer", execution.jobs.display_name, job_id)
        given = execution.given
        queued_timeout = given.get("queued_timeout")
        return execution.wait.trigger(
            job_ids,
            deadline=attempt.deadline,
            queue_deadline=None if queued_timeout is None else attempt.queued_at + queued_timeout,
            cancel_on_kill=given["cancel_on_kill"],
            cancel_on_timeout=given["cancel_on_timeout"],
            result_kind=kind_in_triggerer(execution) if may_end else None,
            result=execution.record.inputs.result,
            attempt=attempt.to_dict(),
            **execution.report.begin(context, job_ids, {}),
        )

    return Start(run, execution.jobs.client, needs_lookup=execution.spec.listing is not None)


def start_of_map(of: MapAttempt, items: object, context: Context, started_at: float) -> Start:
    """Return how a map starts in the triggerer. Its trigger looks for jobs of an earlier one itself.

    :param of: the map that this try runs.
    :param items: the rendered parameter.
    :param context: Airflow's context.
    :param started_at: when the scheduler started the task, in seconds since the epoch.
    :raises NeedsWorker: only a worker can start it.
    """
    from airflow_jobflow.triggers.mapped_arguments import NeedsWorker
    from airflow_jobflow.triggers.start import Start

    execution = of.execution
    begin(execution, context, started_at)

    def run(*_: object) -> MapTrigger:
        validated = execution.spec.items(items)
        if not validated:
            raise NeedsWorker("it has no items")
        lines = as_lines(execution.spec.requests(validated, execution.jobs))
        of.begin(digest_of(validated), range(len(lines)), len(lines))
        attempt = execution.record.attempt
        attempt.began_at = started_at
        trigger = of.trigger(len(lines), range(len(lines)), lines)
        trigger.attempt, trigger.deferred_at = attempt.to_dict(), None  # no worker has deferred it
        return trigger

    return Start(run, execution.jobs.client)


def _started_before(
    execution: Execution[JobSpec], call: Call, started_at: float, listed_after: float, *, relies_on_token: bool
) -> str | None:
    """Return the job that another trigger of this task has started, or None.

    :param relies_on_token: whether a job is not looked up that a token keeps from being started twice.
    """
    from airflow_jobflow.faults import CallError

    record, spec = execution.record, execution.spec
    try:
        if spec.listing is not None:
            key = execution.jobs.access.key, execution.jobs.service, *spec.listing
            attempt = f"{record.group}-{record.attempt.token}"
            return find_attempt(
                call, key, spec.list_attempts, attempt, created_before=listed_after, started_at=started_at
            )
        relies_on_token &= time.time() - started_at <= TOKEN_LIFETIME
        return None if relies_on_token else spec.find_started(call, record)
    except CallError as error:
        error.sent = False  # the submit was not: it is safe to repeat
        raise
