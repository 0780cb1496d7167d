"""The base of the sensors: wait for jobs that something else has started. A sensor stops nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import conf
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from airflow_jobflow import params
from airflow_jobflow.airflow_compat.copies import MakesObjects
from airflow_jobflow.airflow_compat.retry_policy import SensorBase
from airflow_jobflow.airflow_compat.starts import StartsInTriggerer
from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.sensors.targets import target_outcomes
from airflow_jobflow.ui.failure_report import reporting_failures
from airflow_jobflow.ui.task_report import TaskReport
from airflow_jobflow.waiting import timeouts
from airflow_jobflow.waiting.parameters import WAIT_PARAMETERS, wait_parameters
from airflow_jobflow.waiting.resume import Method, resume
from airflow_jobflow.waiting.trigger_start import StartRules, log_why_on_worker
from airflow_jobflow.waiting.wait import JobWait, snapshots

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.targets import Target
    from airflow_jobflow.triggers.start import Start

NOT_HONOURED = {
    "exponential_backoff": "polls are shared by all waits, so their interval does not grow; use poll_interval",
    "max_wait": "polls are shared by all waits, so their interval does not grow; use poll_interval",
    "silent_fail": "an error of a call is retried and does not fail the sensor; soft_fail skips a task that would fail",
}
"""Parameters of BaseSensorOperator that are rejected by name, if they are set, and why."""


def _rejected(given: Mapping[str, Any]) -> list[str]:
    """Return the names of parameters that a sensor rejects, before rendering."""
    return [name for name in NOT_HONOURED if given.get(name)] + ["mode"] * (given.get("mode") not in (None, "poke"))


class AwsJobSensor(MakesObjects, StartsInTriggerer, SensorBase):
    """Base of the sensors.

    Of BaseSensorOperator's parameters, ``soft_fail`` and ``never_fail`` skip the task where it would fail;
    ``mode="reschedule"`` is rejected, because deferring replaces it; so are ``exponential_backoff``,
    ``max_wait`` and ``silent_fail``.

    On Airflow 3.3, a sensor starts in the triggerer, without a worker, if Airflow can render its parameters there:
    literal values, templates of the run, its params, variables and connections, ``ti.xcom_pull(task_ids,
    map_indexes=-1)``, and ``expand`` over one list or over what one task returns. An XComArg, an ``xcom_pull`` without
    ``map_indexes``, ``on_execute_callback``, hooks around the execution, and a class derived from ours need a worker.

    :param aws_conn_id, region_name, verify, botocore_config, deferrable: see
        :class:`airflow_jobflow.operators.base.AwsJobOperator`.
    :param raise_on_failure, job_timeout, number_logs_exception, stream_logs, max_log_lines, number_logs_success: see
        :class:`airflow_jobflow.operators.base.AwsJobOperator`.
    :param poll_interval: seconds between two describe calls for one job. Default ``[jobflow] poll_interval``, which is
        10.
    :param poke_interval: another name for ``poll_interval``, which takes precedence. Default None.
    :param timeout: seconds, or a timedelta, until the wait ends: one more deadline. If it passes, the task is not
        retried. Default ``[sensors] default_timeout``, which is seven days.
    :param start_from_trigger: start in the triggerer, without a worker, if possible. Default ``[jobflow]
        start_from_trigger``, which starts sensors there unless it is ``none``.
    :param start_trigger_args: set by Airflow for an instance of a mapped sensor; do not set it in a DAG.
    """

    service: ClassVar[str]
    """This package's name for the service, such as ``batch``."""

    start_rules: ClassVar[StartRules] = StartRules(
        ("sensors", "all"),
        lambda given: ", ".join(f"a worker rejects {name}" for name in _rejected(given)),
        lambda given: (given.get("job_timeout"), given.get("timeout") or conf.get("sensors", "default_timeout")),
    )

    names_jobs: ClassVar[str]
    """The parameter that names the jobs: an id, the outcome that an operator returned for it, or a list of these."""

    template_fields: Sequence[str] = WAIT_PARAMETERS.template_fields

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        deferrable: bool | None = None,
        raise_on_failure: bool = True,
        job_timeout: float | str | timedelta | None = None,
        number_logs_exception: int = 20,
        stream_logs: bool | str | None = None,
        max_log_lines: int | str = 10_000,
        number_logs_success: int | str = 0,
        poll_interval: float | str | timedelta | None = None,
        poke_interval: float | str | timedelta | None = None,
        timeout: Any = None,
        start_from_trigger: bool | None = None,
        start_trigger_args: object = None,
        **kwargs: Any,
    ) -> None:
        self._start_from_trigger = None if start_trigger_args else start_from_trigger
        super().__init__(timeout=conf.getfloat("sensors", "default_timeout") if timeout is None else timeout, **kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.deferrable = deferrable
        self.raise_on_failure = raise_on_failure
        self.job_timeout = job_timeout
        self.number_logs_exception = number_logs_exception
        self.stream_logs = stream_logs
        self.max_log_lines = max_log_lines
        self.number_logs_success = number_logs_success
        self.poll_interval = poke_interval if poll_interval is None else poll_interval

    # What the services differ in.

    def job_ids(self) -> list[str]:
        """Return the ids of the jobs to wait for; none for an empty list.

        :raises InvalidParameter: they are not ids.
        """
        return params.ids(self.names_jobs, getattr(self, self.names_jobs))

    def _scope(self) -> str | None:
        """Return the cluster or Glue job that calls are confined to; None where the service has none."""
        return None

    def _job_name(self) -> str:
        """Return the name of the job, for messages on one that was never described; empty if it is not known."""
        return ""

    def _target(self) -> Target | None:
        """Return the status to wait for; None where the sensor waits for the end.

        :raises InvalidParameter: it is not a status, or has no effect.
        """
        return None

    # The objects of the wait. They are built on first use, because the parameters are rendered by then.

    @cached_property
    def _report(self) -> TaskReport:
        return TaskReport(self, self.service)

    @cached_property
    def _wait(self) -> JobWait:
        parameters = wait_parameters(self, WAIT_PARAMETERS, timeout=float(self.timeout))
        if target := self._target():  # no logs, whatever [jobflow] stream_logs says: they are copied until jobs end
            parameters = replace(parameters, logs={**parameters.logs, "stream_logs": False})
        return JobWait.of(self, self._report, parameters, target, scope=self._scope(), name=self._job_name())

    @property
    def kept_links(self) -> dict[str, str]:
        """The known URLs of the task's link buttons, by the key of the link."""
        return self._report.kept_links

    # Start in the triggerer.

    def start_in_triggerer(self, context: Context, started_at: float, *, may_end: bool) -> Start:
        """Return how the sensor, whose parameters are rendered, starts in the triggerer.

        :param context: Airflow's context.
        :param started_at: when the task was started, in seconds since the epoch.
        :param may_end: whether the task may end in the triggerer.
        :raises InvalidParameter: a parameter is wrong.
        :raises NeedsWorker: it has no jobs to wait for.
        """
        from airflow_jobflow.triggers.mapped_arguments import NeedsWorker
        from airflow_jobflow.triggers.start import Start

        self.check()
        if not (job_ids := self.job_ids()):
            raise NeedsWorker("there are no jobs to wait for")
        trigger = self._wait.trigger(
            job_ids,
            deadline=self._wait.parameters.deadlines.after(started_at),
            result_kind=self._returns() if may_end else None,
            **self._report.begin(context, job_ids, {}),
        )
        return Start(lambda *_: trigger)

    def check(self) -> None:
        """Validate the parameters, except for the ids of the jobs. Makes no call.

        :raises InvalidParameter: one of them is invalid, or has no effect in this sensor.
        """
        _ = self._wait
        params.reject(self, NOT_HONOURED)
        if self.mode != "poke":
            rule = "is not supported, because deferring replaces it; remove mode, or set deferrable=False"
            raise invalid_parameter("mode", self.mode, rule)

    # Wait.

    def execute(self, context: Context) -> Any:
        """Wait for the jobs.

        :param context: Airflow's context.
        :return: the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`; for a list of ids, a list of them, which
            is empty, at once, if the list is.
        :raises AirflowSensorTimeout: ``timeout`` has passed; as with every sensor, this is not retried.
        :raises JobflowError: the exceptions of ``airflow_jobflow.exceptions``.
        """
        self._begin_execution()
        log_why_on_worker(self)
        with reporting_failures(self._report, context):
            try:
                return self._start(context)
            except AirflowSkipException:
                raise
            except AirflowException as error:
                # BaseSensorOperator does the same for exceptions after a deferral.
                if self.soft_fail or self.never_fail:
                    raise AirflowSkipException(
                        f"Skipped instead of failed (soft_fail or never_fail): {error}"
                    ) from error
                raise

    def _start(self, context: Context) -> Any:
        self.check()
        job_ids = self.job_ids()
        if not job_ids:
            self.log.info("There is nothing to wait for: %s is an empty list", self.names_jobs)
            return []
        deadline = self._wait.parameters.deadlines.after(time.time())
        seen = self._wait.initial_status(job_ids)
        event = self._wait.until_ended(context, job_ids, seen, deadline=deadline, returns=self._returns())
        return self.execute_complete(context, event)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Finish: return the outcome, or raise an exception; or start, where the triggerer could not.

        :param context: Airflow's context.
        :param event: the event of the trigger.
        :return: the outcome; for a list of ids, a list of them.
        :raises AirflowSensorTimeout: ``timeout`` has passed.
        :raises JobflowError: the exceptions of ``airflow_jobflow.exceptions``.
        """
        if "start_on_worker" in event:
            return self._start(context)
        event = self._wait.final_status(event)
        if event["limit"]:
            seen = snapshots(event)
            if len(seen) == 1:  # a sensor that started in the triggerer has not kept them yet
                self._report.keep_links(seen.values())
            raise timeouts.sensor_timeout(self._wait.jobs, event, self._wait.parameters.deadlines)
        outcomes = self._wait.outcomes(
            context,
            event,
            partial(target_outcomes, self._wait.jobs.outcome_builder, self._wait.target),
            raise_on_failure=self.raise_on_failure,
        )
        return outcomes if self._names_several else outcomes[0]

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after a deferral, also one that Airflow itself timed out.

        :param next_method: the method to continue with.
        :param next_kwargs: its arguments.
        :param context: Airflow's context.
        :return: what that method returns.
        """

        def timed_out() -> Method:
            event = {"job_ids": self.job_ids(), "jobs": {}, "errors": {}, "limit": "deadline"}
            return "execute_complete", {"event": event}

        method = next_method, next_kwargs
        return resume(super().resume_execution, method, context, self._report, on_timeout=timed_out)

    def _returns(self) -> str:
        """Return what a success returns, see ``triggers.ending``."""
        if not self.do_xcom_push:
            return "nothing"
        return "outcomes" if self._names_several else "outcome"

    @property
    def _names_several(self) -> bool:
        return isinstance(params.several(self.names_jobs, getattr(self, self.names_jobs)), list | tuple)
