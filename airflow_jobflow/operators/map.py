"""The base of the operators that run one job for each item: validate, start or continue, wait, finish.

The worker validates the items, builds their requests, records the attempt, and hands over to the trigger, which starts
and follows the jobs. The worker resumes to build the result.
"""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow.airflow_compat.copies import MakesObjects
from airflow_jobflow.airflow_compat.features import renders_natively
from airflow_jobflow.airflow_compat.retry_policy import TaskBase
from airflow_jobflow.airflow_compat.starts import StartsInTriggerer
from airflow_jobflow.exceptions import JobStopped
from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.wording import KILL_REASON
from airflow_jobflow.maps import result as map_result
from airflow_jobflow.maps.previous_results import PreviousResults
from airflow_jobflow.operators import map_unfinished
from airflow_jobflow.operators.checks import check_map, reject_for_map
from airflow_jobflow.operators.execution import Execution
from airflow_jobflow.operators.kills import ABANDONING, stop_if_deferral_is_rejected
from airflow_jobflow.operators.map_outcome import map_outcome
from airflow_jobflow.operators.map_record import MapAttempt, as_lines, digest_of
from airflow_jobflow.operators.trigger_start import START_RULES, start_of_map
from airflow_jobflow.ui.failure_report import reporting_failures
from airflow_jobflow.ui.task_report import TaskReport
from airflow_jobflow.waiting.parameters import MAP_PARAMETERS
from airflow_jobflow.waiting.resume import resume
from airflow_jobflow.waiting.trigger_start import StartRules, log_why_on_worker

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.operators.spec import MapSpec
    from airflow_jobflow.triggers.map import MapTrigger
    from airflow_jobflow.triggers.start import Start


class AwsMapOperator(MakesObjects, StartsInTriggerer, TaskBase):
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
    :param item_attempts: 1 to 10: how many attempts an item gets at most if it fails for a cause that ``on_capacity``,
        ``on_out_of_memory``, ``on_timeout`` or ``on_spot_interruption`` is for. Default 4.
    :param redrive: a retry runs only the items that did not succeed, if the items are the same. Default False.
    :param aws_conn_id, region_name, verify, botocore_config, deferrable, poll_interval: see
        :class:`airflow_jobflow.operators.base.AwsJobOperator`.
    :param raise_on_failure, job_timeout, number_logs_exception, cancel_on_kill, cancel_on_timeout: see
        :class:`airflow_jobflow.operators.base.AwsJobOperator`.
    :param pass_context, result, result_required: see :class:`airflow_jobflow.operators.base.AwsJobOperator`. Each item
        has an address of its own; ``outcome["result"]`` is a list by index.
    :param start_from_trigger, start_trigger_args: see :class:`airflow_jobflow.operators.base.AwsJobOperator`.
    :param stream_logs: True and ``failed`` both copy the last lines of up to 20 failed items into the task's log when
        the map has ended. Default ``[jobflow] stream_logs``, which is False.
    :param max_log_lines: the most lines that are copied, of all items together. Default 10,000.
    :param wait_for_completion, queued_timeout, durable, number_logs_success: have no meaning for a map; other values
        than the defaults are rejected.
    :param skip_on_exit_code, fail_on_exit_code: the same, because each item has an exit code of its own.

    Returns a dict in the shape of :class:`airflow_jobflow.jobs.model.Outcome`, whose ``array`` counts the items, and
    ``statuses``: one character per item, in order: ``S`` succeeded, ``F`` failed, ``K`` stopped, ``U`` could not be
    described, ``-`` never started; ``changes``: what was changed for items that were started again, each with its
    ``index``; ``failed``: the outcomes of the items that failed, were stopped or could not be described, each with its
    ``index``; ``outcomes``: those of all items, in their order, None for what was never started; None if there are more
    than 1,000.
    """

    start_rules: ClassVar[StartRules] = START_RULES

    service: ClassVar[str]
    """This package's name for the service, such as ``batch``."""

    NOT_HONOURED: ClassVar[Mapping[str, str]] = {}
    """Parameters that have no effect in the operator, each with the reason. They are rejected if they are given."""

    template_fields: Sequence[str] = MAP_PARAMETERS.template_fields

    def __init__(
        self,
        *,
        items: Sequence[dict[str, Any]] | str,
        max_concurrency: int | str = 1000,
        on_item_failure: str | None = None,
        item_attempts: int | str | None = None,
        tolerated_failure_count: int | str = 0,
        tolerated_failure_percentage: float | str = 0,
        redrive: bool = False,
        pass_context: bool | None = None,
        result: str | None = None,
        result_required: bool = False,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        deferrable: bool | None = None,
        poll_interval: float | str | timedelta | None = None,
        raise_on_failure: bool = True,
        skip_on_exit_code: None = None,
        fail_on_exit_code: None = None,
        job_timeout: float | str | timedelta | None = None,
        number_logs_exception: int = 20,
        stream_logs: bool | str | None = None,
        max_log_lines: int | str = 10_000,
        number_logs_success: int | str = 0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        wait_for_completion: bool = True,
        queued_timeout: float | str | timedelta | None = None,
        durable: bool = True,
        start_from_trigger: bool | None = None,
        start_trigger_args: object = None,
        **kwargs: Any,
    ) -> None:
        self._start_from_trigger = None if start_trigger_args else start_from_trigger
        super().__init__(**kwargs)
        self.items = items
        self.max_concurrency = max_concurrency
        self.on_item_failure = on_item_failure
        self.item_attempts = item_attempts
        self.tolerated_failure_count = tolerated_failure_count
        self.tolerated_failure_percentage = tolerated_failure_percentage
        self.redrive = redrive
        self.pass_context = pass_context
        self.result = result
        self.result_required = result_required
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.raise_on_failure = raise_on_failure
        self.skip_on_exit_code, self.fail_on_exit_code = skip_on_exit_code, fail_on_exit_code
        self.job_timeout = job_timeout
        self.number_logs_exception = number_logs_exception
        self.stream_logs = stream_logs
        self.max_log_lines = max_log_lines
        self.number_logs_success = number_logs_success
        self.cancel_on_kill, self.cancel_on_timeout = cancel_on_kill, cancel_on_timeout
        self.wait_for_completion = wait_for_completion
        self.queued_timeout = queued_timeout
        self.durable = durable
        self._trigger: MapTrigger | None = None
        """The trigger that waits in this process."""
        self._killed = False

    # The objects of the execution. They are built on first use, because the parameters are rendered by then.

    @abstractmethod
    def _map_spec(self) -> MapSpec:
        """Return what each item runs, built from the rendered parameters.

        :raises InvalidParameter: one of them is wrong, or two contradict each other.
        """

    @cached_property
    def _report(self) -> TaskReport:
        return TaskReport(self, self.service)

    @cached_property
    def _execution(self) -> Execution[MapSpec]:
        return Execution.of(self, self._map_spec(), self._report, MAP_PARAMETERS)

    @cached_property
    def _map(self) -> MapAttempt:
        return MapAttempt(self._execution)

    @property
    def kept_links(self) -> dict[str, str]:
        """The known URLs of the task's link buttons, by the key of the link."""
        return self._report.kept_links

    def check(self) -> None:
        """Validate the parameters, except for the items. Makes no call.

        :raises InvalidParameter: one of them is invalid, or has no effect in this operator.
        """
        reject_for_map(self, self.NOT_HONOURED)
        check_map(self, self._execution)

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
        log_why_on_worker(self)
        with reporting_failures(self._report, context):
            return self._start(context)

    def start_in_triggerer(self, context: Context, started_at: float, *, may_end: bool) -> Start:  # noqa: ARG002 -- a worker ends it
        """Return how the map, whose parameters are rendered, starts in the triggerer.

        :param context: Airflow's context.
        :param started_at: when the task was started, in seconds since the epoch.
        :param may_end: whether the task may end in the triggerer; a map never does.
        :raises InvalidParameter: a parameter is wrong.
        :raises NeedsWorker: only a worker can start it.
        """
        self.check()
        return start_of_map(self._map, self.items, context, started_at)

    def _start(self, context: Context, *, was_in_triggerer: bool = False) -> Any:
        """Record the attempt, and hand over to the trigger; the map of an earlier try continues if it may still run.

        :param was_in_triggerer: whether this try began in the triggerer, so that it may have started jobs. Default
            False.
        """
        self.check()
        self._execution.record.begin(context)
        execution, record = self._execution, self._execution.record
        if not record.is_first_try:
            record.attempt = record.stored()
        items = execution.spec.items(self.items)
        for index, item in enumerate(items):
            record.inputs.check(item, f"items[{index}]")
        requests = execution.spec.requests(items, execution.jobs)
        digest = digest_of(items)
        earlier = self._map.previous_results(digest) if self.redrive else None
        results = earlier or PreviousResults(map_statuses.NOT_STARTED * len(items))
        indexes = map_statuses.indexes_to_rerun(results.statuses)

        continues = bool(indexes) and self._map.continues(digest)
        if continues:
            record.continue_attempt()
            indexes = self._map.remaining_indexes()
            self.log.info("Continuing with the unfinished map of an earlier try (%s)", record.attempt.token)
        else:
            self._map.end_earlier(partial(map_unfinished.stop_all, self._map), was_in_triggerer=was_in_triggerer)
            if not indexes:
                self.log.info("No items to run")
                return map_outcome(self._map, context, results, None)
            self._map.begin(digest, indexes, len(items))

        lines = as_lines(requests[index] for index in indexes)
        trigger = self._map.trigger(len(items), indexes, lines, continues=continues)
        if execution.wait.parameters.defers:
            if continues and self.cancel_on_kill:  # its jobs run already; those of a new map, the trigger starts
                stop_if_deferral_is_rejected(
                    record, self.log, lambda: map_unfinished.stop_all(self._map, KILL_REASON, ())
                )
            execution.wait.defer(trigger, attempt=record.attempt.to_dict())
        self._trigger = trigger
        if self._killed:
            raise JobStopped(f"The task was killed before map {execution.spec.name} had started anything.")
        return self.execute_complete(context, execution.wait.in_worker(trigger))

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
        record, made_in_triggerer = self._execution.record, event.get("attempt")
        if "start_on_worker" in event:
            return self._start(context, was_in_triggerer=True)
        if not (attempt or made_in_triggerer or record.attempt.token):
            record.resume_from_store(context)
        else:
            record.resume(context, attempt or made_in_triggerer)
        if made_in_triggerer:  # the triggerer cannot record it
            record.save_if_possible()
        ended = self._map.ended_items(event, redrive=self.redrive)
        if event["limit"]:
            raise map_unfinished.timed_out(self._map, event)
        if event["error"]:
            raise map_unfinished.could_not_continue(self._map, event)
        self._execution.jobs.outcome_builder.copied.update(event.get("copied") or ())
        self._map.record_end(event["statuses"])
        if self._killed:
            message = f"{map_result.progress(event)}. {map_unfinished.stopped_by_trigger(event)}"
            raise JobStopped(f"{self._map.called} was stopped: the task was killed. {message}")
        return map_outcome(self._map, context, ended, event.get("usage"))

    # Deferrals that Airflow ends, and kills.

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after a deferral, including one that Airflow has timed out or whose trigger has failed.

        :param next_method: the method to continue with.
        :param next_kwargs: its arguments.
        :param context: Airflow's context.
        :return: what that method returns.
        """
        return resume(
            super().resume_execution,
            (next_method, next_kwargs),
            context,
            self._report,
            on_timeout=lambda: ("execute_complete", {"event": map_unfinished.EVENT_OF_NO_TRIGGER}),
            on_trigger_failure=lambda: map_unfinished.trigger_failed(self._map, context),
        )

    def on_kill(self) -> None:
        """Stop all jobs when the worker is killed while it waits."""
        self._killed = self.cancel_on_kill
        if self._killed and self._trigger:
            recording = self._execution.record.abandon_in_thread()
            # In a thread, because this is a signal handler that interrupts the event loop.
            thread = threading.Thread(target=asyncio.run, args=(self._trigger.stop_killed(),))
            thread.start()
            thread.join()
            recording.join(ABANDONING)
