"""The base of the operators that run one job for each item: validate, start or continue, wait, finish.

The worker validates the items, builds their requests, records the attempt, and hands over to the trigger, which starts
and follows the jobs. The worker resumes to build the result.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow import params
from airflow_jobflow.airflow_compat.copies import MakesObjects
from airflow_jobflow.airflow_compat.features import renders_natively
from airflow_jobflow.airflow_compat.retry_policy import TaskBase
from airflow_jobflow.exceptions import JobflowError, JobStopped, JobTimeout, SubmissionError
from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.array import Tolerance, index_ranges
from airflow_jobflow.jobs.model import JobState
from airflow_jobflow.jobs.packing import pack, unpack
from airflow_jobflow.jobs.report import tolerated
from airflow_jobflow.jobs.wording import KILL_REASON, sentence
from airflow_jobflow.maps import result as map_result
from airflow_jobflow.maps.previous_results import NO_TIMES, PreviousResults, by_index
from airflow_jobflow.operators.attempts import ABANDONING, AttemptRecord
from airflow_jobflow.operators.kills import stop_if_deferral_is_rejected
from airflow_jobflow.operators.map_record import STOPPED, MapAttempt
from airflow_jobflow.ui.failure_report import report_failure, reporting_failures
from airflow_jobflow.ui.task_report import TaskReport
from airflow_jobflow.waiting import parameters as wait_parameters
from airflow_jobflow.waiting import timeouts
from airflow_jobflow.waiting.deadlines import Deadlines
from airflow_jobflow.waiting.remote import RemoteJobs
from airflow_jobflow.waiting.resume import Method, resume
from airflow_jobflow.waiting.wait import JobWait

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.operators.spec import MapSpec
    from airflow_jobflow.triggers.map import MapTrigger

STOP_PATIENCE = 60.0
"""Seconds for which a worker tries to stop jobs while AWS does not respond."""

MAY_RUN = ("denied", "credentials", "unanswerable", "failed")
"""Reasons for which a trigger ends a map and leaves its jobs running."""

LEFT_RUNNING = "What runs was left running, as cancel_on_timeout=False says."

EVENT_OF_NO_TRIGGER: dict[str, Any] = {
    "statuses": "",
    "lines": pack(()),
    "running": pack(()),
    "limit": "deadline",
    "error": None,
    "unstopped": None,
    "times": NO_TIMES,
}
"""The event for a map whose trigger did not fire before Airflow ended the deferral."""


class AwsMapOperator(MakesObjects, TaskBase):
    """Base of the operators that run one job for each item.

    :param items: a list with a dict for each job, the same as JSON, or what another task returned. The keys of a dict
        are parameters of the operator, and replace their values for that job; ``environment`` is merged with the
        operator's own. Each job finds its item's index, from 0, in the environment variable ``JOBFLOW_MAP_INDEX``. A
        map of no items succeeds.
    :param max_concurrency: the most jobs that run or are queued at the same time. When one ends, the next starts within
        seconds: while items wait, jobs are described every 5 seconds, or at ``poll_interval`` if that is shorter, but
        with at most a quarter of the rate limit of describe calls. Default 1000.
    :param on_item_failure: ``stop``: once more items have failed than are tolerated, no more are started, running jobs
        are stopped, and the map fails. ``continue``: all items run to their end, and then the map fails if more have
        failed than are tolerated; with ``redrive``, a retry runs only the failed ones. Default ``continue`` with
        ``redrive``, else ``stop``.
    :param tolerated_failure_count: how many items may fail, rejected ones included, without failing the task. Only a
        map that failed is retried, so ``redrive`` has no effect on tolerated failures. Default 0.
    :param tolerated_failure_percentage: the same as a percentage of the items. The limit that allows more failures
        applies. Default 0.
    :param redrive: a retry runs only the items that did not succeed, if the items are the same. Default False.
    :param aws_conn_id, region_name, verify, botocore_config, deferrable, poll_interval: see
        :class:`airflow_jobflow.operators.base.AwsJobOperator`.
    :param raise_on_failure, job_timeout, number_logs_exception, cancel_on_kill, cancel_on_timeout: see
        :class:`airflow_jobflow.operators.base.AwsJobOperator`.
    :param wait_for_completion, queued_timeout, durable: have no meaning for a map; other values than the defaults are
        rejected.

    Returns a dict in the shape of :class:`airflow_jobflow.jobs.model.Outcome`, whose ``array`` counts the items, and
    ``statuses``: a character an item, in their order: ``S`` succeeded, ``F`` failed, ``K`` stopped, ``-`` never
    started; ``failed``: the outcomes of the items that failed or were stopped, each with its ``index``; ``outcomes``:
    those of all items, in their order, None for what was never started; None if there are more than 1,000.
    """

    service: ClassVar[str]
    """This package's name for the service, such as ``batch``."""

    NOT_HONOURED: ClassVar[Mapping[str, str]] = {}
    """Parameters that have no effect in the operator, each with the reason. They are rejected if they are given."""

    template_fields: Sequence[str] = (
        *wait_parameters.TEMPLATE_FIELDS,
        "queued_timeout",
        "tolerated_failure_count",
        "tolerated_failure_percentage",
        "items",
        "max_concurrency",
        "on_item_failure",
    )

    def __init__(
        self,
        *,
        items: Sequence[dict[str, Any]] | str,
        max_concurrency: int | str = 1000,
        on_item_failure: str | None = None,
        tolerated_failure_count: int | str = 0,
        tolerated_failure_percentage: float | str = 0,
        redrive: bool = False,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        deferrable: bool | None = None,
        poll_interval: float | str | timedelta | None = None,
        raise_on_failure: bool = True,
        job_timeout: float | str | timedelta | None = None,
        number_logs_exception: int = 20,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        wait_for_completion: bool = True,
        queued_timeout: float | str | timedelta | None = None,
        durable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.items = items
        self.max_concurrency = max_concurrency
        self.on_item_failure = on_item_failure
        self.tolerated_failure_count = tolerated_failure_count
        self.tolerated_failure_percentage = tolerated_failure_percentage
        self.redrive = redrive
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.raise_on_failure = raise_on_failure
        self.job_timeout = job_timeout
        self.number_logs_exception = number_logs_exception
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.wait_for_completion = wait_for_completion
        self.queued_timeout = queued_timeout
        self.durable = durable
        self._trigger: MapTrigger | None = None
        """The trigger that waits in this process."""
        self._killed = False

    # The objects that the operator has. They are made of the parameters after rendering, when they are first used.

    @abstractmethod
    def _map_spec(self) -> MapSpec:
        """Return what each item runs, from the rendered parameters."""

    @cached_property
    def _spec(self) -> MapSpec:
        return self._map_spec()

    @cached_property
    def _report(self) -> TaskReport:
        return TaskReport(self, self.service)

    @cached_property
    def _jobs(self) -> RemoteJobs:
        spec = self._spec
        return RemoteJobs.of(
            self, self.service, self._report, scope=spec.scope, container=spec.container, name=spec.name
        )

    @cached_property
    def _deadlines(self) -> Deadlines:
        return wait_parameters.deadlines(self)

    @cached_property
    def _wait(self) -> JobWait:
        return JobWait.of(self, self._jobs, self._report)

    @cached_property
    def _record(self) -> AttemptRecord:
        may_be_reaped = self.cancel_on_kill and self.cancel_on_timeout
        return AttemptRecord(self._jobs, self._deadlines, self.log, durable=True, may_be_reaped=may_be_reaped)

    @cached_property
    def _map(self) -> MapAttempt:
        return MapAttempt(self._spec, self._record, self._jobs, self.log)

    @property
    def kept_links(self) -> dict[str, str]:
        """The URLs of the buttons that are known, by the key of the link to each."""
        return self._report.kept_links

    # The parameters.

    def check(self) -> None:
        """Validate the parameters, except for the items. Makes no call.

        :raises InvalidParameter: one of them is invalid, or has no effect in this operator.
        """
        if not self.wait_for_completion:
            rule = "a map starts jobs as others end, so it has to wait"
            raise params.invalid_parameter("wait_for_completion", False, rule)
        if self.queued_timeout is not None:
            rule = "a map has none; job_timeout bounds it"
            raise params.invalid_parameter("queued_timeout", self.queued_timeout, rule)
        if not self.durable:
            rule = "a map finds its jobs by their tokens, so it cannot do without"
            raise params.invalid_parameter("durable", False, rule)
        wait_parameters.check(self)
        params.reject(self, self.NOT_HONOURED)
        self._tolerance()
        self._spec.check()
        params.integer("max_concurrency", self.max_concurrency, least=1)
        if self.on_item_failure is not None:
            params.one_of("on_item_failure", self.on_item_failure, ("continue", "stop"))

    def _tolerance(self) -> Tolerance:
        return Tolerance(
            params.integer("tolerated_failure_count", self.tolerated_failure_count, least=0),
            params.number("tolerated_failure_percentage", self.tolerated_failure_percentage, least=0, most=100),
        )

    def _items(self) -> list[dict[str, Any]]:
        """Return the items with their values as their types.

        :raises InvalidParameter: one of them is wrong; it is named by its index.
        """
        items = list(self.items) if isinstance(self.items, Sequence) and not isinstance(self.items, str) else self.items
        return self._spec.items(params.mappings("items", items, "with the parameters of one job"))

    def render_template(self, content: Any, context: Context, *args: Any, **kwargs: Any) -> Any:
        """Render a template. Text without one stays as it is: Jinja would compile it for each of ten thousand items.

        :param content: what is rendered.
        :param context: Airflow's context.
        :param args, kwargs: as Airflow's own method takes them.
        :return: what was rendered.
        """
        plain = isinstance(content, str) and "{" not in content and not content.endswith(tuple(self.template_ext))
        if plain and not renders_natively(self):
            return content
        return super().render_template(content, context, *args, **kwargs)

    # Start and wait.

    def execute(self, context: Context) -> Any:
        """Start the jobs, and wait for them.

        :param context: Airflow's context.
        :return: the result, see the class.
        :raises InvalidParameter: a parameter or an item is wrong.
        :raises SubmissionError: nothing was started, or it is not known what was; the message says which.
        :raises JobflowError: the exceptions of ``airflow_jobflow.exceptions``.
        """
        self._begin_execution()
        with reporting_failures(self._report, context):
            self.check()
            self._record.begin(context)
            return self._start(context)

    def _start(self, context: Context) -> Any:
        """Record the attempt, and hand over to the trigger; the map of an earlier try continues if it may still run."""
        record, jobs = self._record, self._jobs
        if not record.is_first_try:
            record.attempt = record.stored()
        items = self._items()
        requests = self._spec.requests(items, jobs)
        digest = hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()
        earlier = self._map.previous_results(digest) if self.redrive else None
        results = earlier or PreviousResults(map_statuses.NOT_STARTED * len(items))
        indexes = map_statuses.indexes_to_rerun(results.statuses)

        continues = bool(indexes) and self._map.continues(digest)
        if continues:
            indexes = self._map.left_indexes()
            self.log.info("Continuing with the unfinished map of an earlier try (%s)", record.attempt.token)
        else:
            self._map.end_earlier(self._stop_all)
            if not indexes:
                self.log.info("No item is left to run")
                return map_result.result(jobs.outcome_builder, self._spec.name, results, self._tolerance())
            self._map.begin(digest, indexes, len(items))

        lines = [json.dumps(requests[index], separators=(",", ":")) for index in indexes]
        trigger = self._make_trigger(len(items), indexes, lines, continues=continues)
        if self._wait.defers:
            if continues and self.cancel_on_kill:  # its jobs run already; those of a new map, the trigger starts
                stop_if_deferral_is_rejected(record, self.log, lambda: self._stop_all(KILL_REASON, ()))
            self._wait.defer(trigger, attempt=record.attempt.to_dict())
        self._trigger = trigger
        if self._killed:
            raise JobStopped(f"The task was killed before map {self._spec.name} had started anything.")
        return self.execute_complete(context, self._wait.in_worker(trigger))

    def _make_trigger(
        self, size: int, indexes: Sequence[int], lines: Sequence[str], *, continues: bool = False
    ) -> MapTrigger:
        from airflow_jobflow.triggers.map import MapTrigger

        attempt, tolerance, jobs = self._record.attempt, self._tolerance(), self._jobs
        return MapTrigger(
            service=self.service,
            job_group=self._map.map.family,
            size=size,
            indexes=index_ranges(indexes),
            requests=pack(lines),
            scope=jobs.scope,
            container_name=jobs.container,
            max_concurrency=params.integer("max_concurrency", self.max_concurrency, least=1),
            tolerated_failure_count=tolerance.count,
            tolerated_failure_percentage=tolerance.percentage,
            attempts=self._spec.attempts,
            on_item_failure=self.on_item_failure or ("continue" if self.redrive else "stop"),
            **dataclasses.asdict(jobs.access),
            poll_interval=self._wait.poll_interval,
            deadline=attempt.deadline,
            began_at=0.0 if continues else attempt.began_at,
            reports_progress=self.do_xcom_push,
            deferred_at=time.time(),
            cancel_on_kill=self.cancel_on_kill,
            cancel_on_timeout=self.cancel_on_timeout,
        )

    # Finish.

    def execute_complete(
        self, context: Context, event: Mapping[str, Any], attempt: Mapping[str, Any] | None = None
    ) -> Any:
        """Finish: return the result, or raise an exception.

        :param context: Airflow's context.
        :param event: the event of the trigger.
        :param attempt: the attempt that the deferral carried. Default None: it is known, or stored.
        :return: the result, see the class.
        :raises JobflowError: the exceptions of ``airflow_jobflow.exceptions``.
        """
        if attempt is None and not self._record.attempt.token:
            self._record.resume_from_store(context)
        else:
            self._record.resume(context, attempt)
        ended = self._results(event)
        if event["limit"]:
            raise self._timed_out(event)
        if event["error"]:
            raise self._could_not_continue(event)
        self._map.record_end()
        if self._killed:
            said = f"{map_result.progress(event)}. {_stopped_by_trigger(event)}"
            raise JobStopped(f"{self._called} was stopped: the task was killed. {said}")
        return self._result(context, ended)

    @property
    def _called(self) -> str:
        return f"Map {self._map.name} of {self._jobs.display_name}s"

    def _results(self, event: Mapping[str, Any]) -> PreviousResults:
        """Return how the items ended, those of earlier tries included, and store it for a retry."""
        ended = PreviousResults(event["statuses"], by_index(unpack(event["lines"])), event["times"])
        if self._map.map.follows:
            ended = ended.merged_with(self._map.previous_results(self._map.map.digest) or PreviousResults(""))
        left_running = event["unstopped"] is None
        if ended.statuses and (self.redrive or left_running) and self._map.store_results(ended) and left_running:
            self._map.record_rest(map_statuses.indexes_to_rerun(ended.statuses))
        return ended

    def _result(self, context: Context, ended: PreviousResults) -> dict[str, Any]:
        """Return the result of a map that has ended, or raise its failure.

        :raises JobFailed, JobStopped: more items failed than are tolerated, and ``raise_on_failure`` is set.
        """
        builder, tolerance = self._jobs.outcome_builder, self._tolerance()
        result = map_result.result(builder, self._map.name, ended, tolerance)
        if telling := map_result.most_significant(ended, result):
            self._report.keep_links([telling])
        if result["state"] == JobState.SUCCEEDED.value:
            if failed := result["array"]["failed_indexes"]:
                size = result["array"]["size"]
                said = tolerated(self._called, failed, size, tolerance.count, tolerance.percentage)
                self.log.warning("%s", said)
            return result
        failure = map_result.failure(builder, self._map.name, ended, result)
        if self.raise_on_failure:
            raise failure
        self.log.warning("%s", failure)
        report_failure(self._report, context, failure)
        return result

    def _timed_out(self, event: Mapping[str, Any]) -> JobTimeout:
        """Stop running jobs, unless the trigger has done so, and return the exception."""
        stopped = LEFT_RUNNING
        if self.cancel_on_timeout:
            if event.get("unstopped") is None:  # no triggerer was running to do it
                stopped = self._stop_all("Airflow: the deadline of the task has passed", unpack(event["running"]))
            else:
                stopped = _stopped_by_trigger(event)
            self._map.record_end()
        progress, unfinished = map_result.progress(event), map_result.first_unfinished(event)
        name, limit = self._map.name, str(self._deadlines)
        return timeouts.map_timeout(self._jobs, name, limit, stopped, progress=progress, unfinished=unfinished)

    def _could_not_continue(self, event: Mapping[str, Any]) -> JobflowError:
        """Decide what happens to running jobs, and return the exception of a map that could not continue."""
        builder, name, kind = self._jobs.outcome_builder, self._map.name, event["error"]["kind"]
        if kind in MAY_RUN:
            return map_result.could_not_continue(
                builder, name, event, self._left_running(kind, unpack(event["running"]))
            )
        self._map.record_end()
        started = event["statuses"].strip(map_statuses.NOT_STARTED)
        return map_result.could_not_continue(builder, name, event, _stopped_by_trigger(event) if started else "")

    def _left_running(self, kind: str, running: Sequence[str]) -> str:
        """Decide what happens to jobs that a trigger left running; return a sentence that says so."""
        if kind == "failed":
            return self._stop_unless_retried(running)
        if not running:
            return ""
        then = self._next_try()
        if not self._record.has_next_try:
            then = "No try is left to wait for them: look them up in the AWS console before you start the map again."
        return f"Running jobs were not stopped. {then}"

    def _stop_unless_retried(self, running: Sequence[str]) -> str:
        """Stop what the map runs, unless the task's next try continues with it; return what was done."""
        if self._record.has_next_try:
            return self._next_try()
        if not self.cancel_on_timeout:
            return LEFT_RUNNING
        said = self._stop_all("Airflow: the task can no longer wait for the map", running)
        self._map.record_end()
        return said

    def _next_try(self) -> str:
        """Return a sentence that says what the task's next try does with running jobs."""
        if not self._record.has_store:
            return "The next try stops what runs, and starts over."
        return "The next try continues with what runs."

    def _stop_all(self, reason: str, known: Sequence[str]) -> str:
        """Stop all that the map has started, and return a sentence that says whether that succeeded."""
        left = self._stop_unrecorded(reason) if self._is_unknown else self._stop_recorded(reason, known)
        if left:
            self.log.warning("Map %s: %s", self._map.name, left)
        return f"Stop these jobs in the console, if they run: {sentence(str(left))}" if left else STOPPED

    def _stop_recorded(self, reason: str, known: Sequence[str]) -> object:
        """Stop the jobs of the recorded map, and return those that could not be stopped; falsy if there are none."""
        return asyncio.run(self._make_trigger(0, (), ()).stop_all(reason, known, retry_timeout=STOP_PATIENCE))

    def _stop_unrecorded(self, reason: str) -> object:
        """Stop the jobs of the task instance, and return why that failed; None if it did not."""
        from airflow_jobflow.faults import CallError

        try:
            self._map.stop_unrecorded(reason)
        except CallError as error:
            return error
        return None

    @property
    def _is_unknown(self) -> bool:
        """Whether nothing says which map this try runs: Airflow has no store, and dropped what the deferral carried."""
        return not (self._record.has_store or self._record.attempt.map)

    # Deferrals that Airflow ends, and kills.

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after a deferral, including one that Airflow has timed out or whose trigger has failed.

        :param next_method: the method to continue with.
        :param next_kwargs: its arguments.
        :param context: Airflow's context.
        :return: what that method returns.
        """
        timed_out: Method = ("execute_complete", {"event": EVENT_OF_NO_TRIGGER})
        return resume(
            super().resume_execution,
            (next_method, next_kwargs),
            context,
            self._report,
            on_timeout=lambda: timed_out,
            on_trigger_failure=partial(self._trigger_failed, context),
        )

    def _trigger_failed(self, context: Context) -> None:
        """Stop the jobs of a map whose trigger failed if no other try follows, and log what happens to them."""
        try:
            self._record.resume_from_store(context)
        except SubmissionError as error:
            self.log.warning("%s", error)
            return
        if self._map.may_run or self._is_unknown:
            name = self._map.name
            self.log.warning("The trigger of map %s has failed. %s", name, self._stop_unless_retried(()))

    def on_kill(self) -> None:
        """Stop all jobs when the worker is killed while it waits."""
        self._killed = self.cancel_on_kill
        if self._killed and self._trigger:
            recording = self._record.abandon_in_thread()
            # In a thread, because this is a signal handler that interrupts the event loop.
            thread = threading.Thread(target=asyncio.run, args=(self._trigger.stop_killed(),))
            thread.start()
            thread.join()
            recording.join(ABANDONING)


def _stopped_by_trigger(event: Mapping[str, Any]) -> str:
    """Return a sentence that says whether the trigger could stop what ran."""
    left = event.get("unstopped") or {}
    if not left.get("message"):
        return STOPPED
    return f"Stop these jobs in the console, if they run: {sentence(left['message'])}"
