"""The base of the operators that start a job: validate, start or reattach, wait, finish.

``_execution`` has the objects that do it: ``spec`` is what to start, ``record`` the attempt, and ``jobs`` calls AWS.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow.airflow_compat.copies import MakesObjects
from airflow_jobflow.airflow_compat.retry_policy import TaskBase
from airflow_jobflow.airflow_compat.starts import StartsInTriggerer
from airflow_jobflow.exceptions import JobNotFound, WaitError
from airflow_jobflow.operators import change_rules, changes, exit_codes, kills, returned, unfinished
from airflow_jobflow.operators.capacity import CapacityWait
from airflow_jobflow.operators.checks import check_job
from airflow_jobflow.operators.earlier_tries import EarlierTries
from airflow_jobflow.operators.execution import Execution
from airflow_jobflow.operators.job_wait import wait_until_ended
from airflow_jobflow.operators.trigger_start import START_RULES, start_of_job
from airflow_jobflow.ui.failure_report import reporting_failures
from airflow_jobflow.ui.task_report import TaskReport
from airflow_jobflow.waiting.parameters import OPERATOR_PARAMETERS
from airflow_jobflow.waiting.resume import resume
from airflow_jobflow.waiting.trigger_start import StartRules, log_why_on_worker
from airflow_jobflow.waiting.wait import snapshots

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.operators.spec import JobSpec
    from airflow_jobflow.triggers.start import Start


class AwsJobOperator(MakesObjects, StartsInTriggerer, TaskBase):
    """Base of the operators that start a job.

    :param aws_conn_id: Airflow connection to AWS; None for boto3's own credential chain. Default ``aws_default``, the
        only connection that need not exist.
    :param region_name: overrides the connection's region. Default None.
    :param verify: whether to verify certificates, or the CA bundle to verify them with. Default None: as the connection
        says.
    :param botocore_config: arguments for ``botocore.config.Config``. Retries, timeouts and the size of the connection
        pool are set by this package: it retries calls within the rate limit, and abandons each after the
        ``request_timeout`` setting. Default None.
    :param deferrable: wait in the triggerer (True) or in the worker (False), through the same watcher either way.
        Default ``[jobflow] deferrable``, which is True.
    :param poll_interval: seconds between two describe calls for one job. Jobs share calls, so a call may come up to a
        tenth of the interval early. Default ``[jobflow] poll_interval``, which is 10.
    :param raise_on_failure: raise an exception if the job fails. False returns its outcome instead, for a later task to
        branch on. Default True.
    :param skip_on_exit_code: skip the task if the job fails with this exit code, or with one of these in a list, also
        with ``raise_on_failure=False``. It counts only if the job ended by itself: not if it was stopped, timed out, or
        lost its capacity. Not for arrays, maps and Glue. Default None: a job that fails is a failure.
    :param fail_on_exit_code: fail the task without a retry in the same cases, whatever its ``retries`` and its retry
        policy say. Default None: every failure may be retried.
    :param job_timeout: seconds, or a timedelta, until the wait ends: one absolute deadline, kept through deferrals and
        restarts. ``execution_timeout`` counts too; the earlier one applies. Default None: no deadline.
    :param number_logs_exception: how many of the last log lines of the failed container the error quotes. Default 20.
    :param stream_logs: True copies the job's log into the task's log while the job runs. ``failed`` copies the last
        lines of a failed job at its end, which is what both do for the failed children of an array. Default ``[jobflow]
        stream_logs``, which is False.
    :param max_log_lines: the most lines that are copied; then one line says where the rest is. Default 10,000.
    :param number_logs_success: how many of the last lines of a job that succeeds are copied at its end, unless
        ``stream_logs`` is True. Default 0.
    :param wait_for_completion: wait until the job has ended. False returns as soon as the job is started, with
        ``state: SUBMITTED``; a sensor can then wait for the job. Default True.
    :param queued_timeout: seconds, or a timedelta, within which the job must leave the queue. Default None: no limit.
    :param cancel_on_kill: stop the job when the task is killed. Default True.
    :param cancel_on_timeout: stop the job when a deadline passes. False leaves it running: a retry that continues with
        it waits as long as the first try did. Default True.
    :param durable: start one job for each attempt, even if a worker or triggerer crashes. The submit carries a token:
        in the job's name on Batch, as client token on ECS, as an argument of a Glue job run. The token is recorded
        before the submit, so that a retry can find the job. The retry waits for the job if it still runs, returns its
        result if it succeeded, and starts a new job only if it failed. Clearing the task starts over. False sends no
        token, and every retry starts another job. Default True.
    :param tolerated_failure_count: for an array: how many children may fail without failing the array. Default 0.
    :param tolerated_failure_percentage: the same as a percentage of the children. The limit that allows more failures
        applies. Default 0.
    :param redrive: for an array or a map: a retry runs only the children or items that have not succeeded. Default
        False: it runs all of them.
    :param pass_context: pass the job the variables that Airflow sets for ``BashOperator``, such as
        ``AIRFLOW_CTX_DAG_ID``, which name its task. Default True; False for Glue, where they are arguments.
    :param result: what the job returns as ``outcome["result"]``: JSON that it writes to the address in its variable
        ``JOBFLOW_RESULT_URI``, for ``s3://bucket/prefix``; or in the last line of its log that begins with
        ``JOBFLOW_RESULT``, for ``log``. Templated. Default None: nothing.
    :param result_required: whether a job that succeeded without a usable result fails the task. Default False: then
        ``outcome["result_error"]`` says what is wrong.
    :param start_from_trigger: start the job in the triggerer, without a worker, if possible. Default ``[jobflow]
        start_from_trigger``, which starts operators on workers unless it is ``all``.
    :param start_trigger_args: set by Airflow for an instance of a mapped task; do not set it in a DAG.
    """

    start_rules: ClassVar[StartRules] = START_RULES

    service: ClassVar[str]
    """This package's name for the service, such as ``batch``."""

    template_fields: Sequence[str] = OPERATOR_PARAMETERS.template_fields

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        deferrable: bool | None = None,
        poll_interval: float | str | timedelta | None = None,
        raise_on_failure: bool = True,
        skip_on_exit_code: int | str | Collection[int] | None = None,
        fail_on_exit_code: int | str | Collection[int] | None = None,
        job_timeout: float | str | timedelta | None = None,
        number_logs_exception: int = 20,
        stream_logs: bool | str | None = None,
        max_log_lines: int | str = 10_000,
        number_logs_success: int | str = 0,
        wait_for_completion: bool = True,
        queued_timeout: float | str | timedelta | None = None,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        durable: bool = True,
        tolerated_failure_count: int | str = 0,
        tolerated_failure_percentage: float | str = 0,
        redrive: bool = False,
        pass_context: bool | None = None,
        result: str | None = None,
        result_required: bool = False,
        start_from_trigger: bool | None = None,
        start_trigger_args: object = None,
        **kwargs: Any,
    ) -> None:
        self._start_from_trigger = None if start_trigger_args else start_from_trigger
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.raise_on_failure = raise_on_failure
        self.skip_on_exit_code = skip_on_exit_code
        self.fail_on_exit_code = fail_on_exit_code
        self.job_timeout = job_timeout
        self.number_logs_exception = number_logs_exception
        self.stream_logs = stream_logs
        self.max_log_lines = max_log_lines
        self.number_logs_success = number_logs_success
        self.wait_for_completion = wait_for_completion
        self.queued_timeout = queued_timeout
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout
        self.durable = durable
        self.tolerated_failure_count = tolerated_failure_count
        self.tolerated_failure_percentage = tolerated_failure_percentage
        self.redrive = redrive
        self.pass_context = pass_context
        self.result = result
        self.result_required = result_required
        self._to_stop: Sequence[str] = ()
        """The jobs that this process started, and may stop."""
        self._last_seen: dict[str, Snapshot] = {}
        """Their last snapshots. A job that this process has not described is missing."""
        self._killed = False

    # The objects of the execution. They are built on first use, because the parameters are rendered by then.

    @abstractmethod
    def _job_spec(self) -> JobSpec:
        """Return what to start, built from the rendered parameters.

        :raises InvalidParameter: one of them is wrong, or two contradict each other.
        """

    @cached_property
    def _report(self) -> TaskReport:
        return TaskReport(self, self.service)

    @cached_property
    def _execution(self) -> Execution[JobSpec]:
        return Execution.of(self, self._job_spec(), self._report, OPERATOR_PARAMETERS)

    @property
    def kept_links(self) -> dict[str, str]:
        """The known URLs of the task's link buttons, by the key of the link."""
        return self._report.kept_links

    def check(self) -> None:
        """Validate the parameters. Makes no call.

        :raises InvalidParameter: one of them is invalid, or has no effect in this operator.
        """
        check_job(self, self._execution)

    # Start and wait.

    def execute(self, context: Context) -> Any:
        """Start the job, and wait for it.

        :param context: Airflow's context.
        :return: the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`.
        :raises InvalidParameter: a parameter is invalid.
        :raises SubmissionRejected: AWS rejects the request; nothing was started.
        :raises SubmissionError: nothing was started, or it is not known whether it was; the message says which.
        :raises JobflowError: the exceptions of ``airflow_jobflow.exceptions``.
        """
        self._begin_execution()
        log_why_on_worker(self)
        with reporting_failures(self._report, context):
            self.check()
            return self.start(context)

    def start_in_triggerer(self, context: Context, started_at: float, *, may_end: bool) -> Start:
        """Return how the operator, whose parameters are rendered, starts in the triggerer.

        :param context: Airflow's context.
        :param started_at: when the task was started, in seconds since the epoch.
        :param may_end: whether the task may end in the triggerer.
        :raises InvalidParameter: a parameter is wrong.
        :raises NeedsWorker: only a worker can start it.
        """
        self.check()
        return start_of_job(self._execution, context, started_at, may_end=may_end)

    def start(
        self, context: Context, event: Mapping[str, Any] | None = None, attempt: Mapping[str, Any] | None = None
    ) -> Any:
        """Continue with the job of an earlier try, or submit one, and wait for it.

        :param context: Airflow's context.
        :param event: the event of the trigger that could not start the job, if this resumes it. Default None.
        :param attempt: the attempt that waited for capacity, if this resumes it. Default None.
        :return: the outcome.
        """
        execution = self._execution
        execution.record.begin(context, attempt)
        change_rules.check_store(execution)

        reattached: Mapping[str, Snapshot | None] = {}
        if isinstance(event, Mapping) and "start_on_worker" in event and execution.record.is_first_try:
            reattached = EarlierTries(execution).started_in_triggerer(event)
        elif not (execution.record.is_first_try or execution.record.attempt.number):
            reattached = EarlierTries(execution).reattach()
        if not reattached:
            execution.spec.prepare(execution.jobs)
        job_ids = list(reattached) or CapacityWait(self, execution).submit(lambda: self._killed)
        self._to_stop = () if execution.record.attempt.joined else job_ids
        if self._killed:
            raise kills.killed_while_starting(execution, job_ids)

        seen = self._last_seen = execution.wait.initial_status(job_ids, reattached)
        if not self.wait_for_completion:
            return execution.wait.submitted_outcome(job_ids[0], seen)
        queued_timeout = execution.given.get("queued_timeout")
        event = wait_until_ended(execution, context, job_ids, seen, own=self._to_stop, queued_timeout=queued_timeout)
        return self.execute_complete(context, event)

    # Finish.

    def execute_complete(
        self, context: Context, event: Mapping[str, Any], attempt: Mapping[str, Any] | None = None
    ) -> Any:
        """Finish: return the outcome, or raise an exception.

        :param context: Airflow's context.
        :param event: the event of the trigger.
        :param attempt: the attempt, as the deferral stored it. Default None: this process has it already.
        :return: the outcome.
        :raises JobflowError: the exceptions of ``airflow_jobflow.exceptions``.
        """
        execution = self._execution
        if "start_on_worker" in event:
            self.check()
            return self.start(context, event)
        execution.record.resume(context, attempt or event.get("attempt"))
        if event.get("attempt"):  # it began in the triggerer, which cannot record it
            execution.record.save_if_possible()
        event = execution.wait.final_status(event)
        seen = snapshots(event)
        if event["limit"] == "queue_deadline" and any(snapshot.left_queue for snapshot in seen.values()):
            # The job left the queue after the trigger's last describe call, or while no triggerer was running.
            event = wait_until_ended(execution, context, event["job_ids"], seen, own=self._to_stop)
            return self.execute_complete(context, event)
        if event["limit"]:
            raise unfinished.timed_out(execution, event, seen)
        if execution.spec.runs_again(event, execution.record.attempt):
            return self.start(context)
        build_outcomes = partial(execution.spec.outcomes, execution.jobs.outcome_builder)
        try:
            outcomes = execution.wait.outcomes(
                context,
                event,
                lambda ended: changes.with_changes(
                    execution,
                    ended,
                    returned.with_results(
                        execution, ended, build_outcomes(ended, execution.record.attempt, execution.tolerance)
                    ),
                ),
                # A killed task has stopped the job itself; that outcome is always raised.
                raise_on_failure=self.raise_on_failure or self._killed,
                instead=partial(exit_codes.decided, execution.given),
            )
        except (WaitError, JobNotFound) as error:
            raise unfinished.not_described(execution, error) from error
        return outcomes[0] if execution.spec.function is None else execution.spec.function.value(outcomes[0])

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
            on_timeout=lambda: unfinished.deferral_timed_out(self._execution, context),
            on_trigger_failure=lambda: unfinished.trigger_failed(self._execution, context),
        )

    def on_kill(self) -> None:
        """Stop the job when the worker is killed while it waits. A job that is being submitted is stopped right after.

        Airflow kills a worker process when the worker shuts down, and when a user clears the task or sets its state.
        """
        self._killed = self.cancel_on_kill
        if self._to_stop and self.cancel_on_kill:
            kills.stop_jobs(self._execution, self._to_stop, self._last_seen)
