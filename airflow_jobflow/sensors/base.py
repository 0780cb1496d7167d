"""Base of the sensors: wait for jobs that something else has started. A sensor stops nothing."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, conf
from airflow.sdk.exceptions import AirflowException, AirflowSensorTimeout, AirflowSkipException

from airflow_jobflow import params, trigger_eligibility
from airflow_jobflow.airflow_compat import starts
from airflow_jobflow.airflow_compat.deferrals import timed_out
from airflow_jobflow.airflow_compat.features import dag_in
from airflow_jobflow.exceptions import InvalidParameter, JobTimeout
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.ui.failure_report import reporting_failures
from airflow_jobflow.waiting import DEFERRAL_TIMEOUT_MARGIN, JobWaiter, snapshots

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context
    from airflow.triggers.base import StartTriggerArgs

    from airflow_jobflow.airflow_compat.starts import OperatorPartial
    from airflow_jobflow.jobs.model import Snapshot


NOT_HONOURED = {
    "exponential_backoff": "polls are shared by all waits, so their interval does not grow; use poll_interval",
    "max_wait": "polls are shared by all waits, so their interval does not grow; use poll_interval",
    "silent_fail": "an error of a call is retried and does not fail the sensor; soft_fail skips a task that would fail",
}
"""Parameters of BaseSensorOperator that are rejected by name, if they are given, and why."""


class JobSensor(JobWaiter, BaseSensorOperator):
    """Base of the sensors.

    Of BaseSensorOperator's parameters, ``soft_fail`` and ``never_fail`` skip the task where it would fail;
    ``mode="reschedule"`` is rejected, because deferring does what it is for; so are ``exponential_backoff``,
    ``max_wait`` and ``silent_fail``.

    It starts in the triggerer, without a worker, where Airflow can render its parameters there (3.3 or newer): as they
    are, from templates of the run, its params, variables and connections, from
    ``ti.xcom_pull(task_ids, map_indexes=-1)``, and mapped over one list, or over what one task returns. An XComArg, an
    ``xcom_pull`` that does not say ``map_indexes``, ``on_execute_callback``, hooks around the execution, and a class
    derived from ours need a worker.

    :param timeout: seconds, or a timedelta, until the wait is given up: one more deadline, whose passing is not
        retried. Default ``[sensors] default_timeout``, which is seven days.
    :param poll_interval: see the base.
    :param poke_interval: another name for ``poll_interval``, which wins.
    :param start_from_trigger: False has it start on a worker in any case. Default True.
    :param start_trigger_args: Airflow's own, for an instance of a mapped sensor; not to be given.
    """

    names_jobs: ClassVar[str]
    """The parameter that names the jobs: an id, the outcome that an operator returned for it, or a list of these."""

    def __init__(
        self,
        *,
        poke_interval: Any = None,
        poll_interval: Any = None,
        timeout: Any = None,
        start_from_trigger: bool = True,
        start_trigger_args: object = None,  # noqa: ARG002 -- what ``partial`` has found, for an instance of a mapped task
        **kwargs: Any,
    ) -> None:
        self._may_start_from_trigger = start_from_trigger
        super().__init__(
            poll_interval=poke_interval if poll_interval is None else poll_interval,
            timeout=conf.getfloat("sensors", "default_timeout") if timeout is None else timeout,
            **kwargs,
        )

    # Starting in the triggerer. Airflow asks for these two when it serializes the DAG.

    @starts.OfInstance
    def start_trigger_args(self) -> StartTriggerArgs | None:
        """How to start in the triggerer; None where a worker is needed, or while it is being made."""
        if self.names_jobs not in vars(self):
            return None
        given = {name: value for name, value in vars(self).items() if name != "poke_interval"}  # kept as poll_interval
        return _start_trigger_args(type(self), given, dag=dag_in(given))

    @starts.OfInstance
    def start_from_trigger(self) -> bool:
        """Whether it starts in the triggerer."""
        return self._may_start_from_trigger and self.start_trigger_args is not None

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Prepare a mapped task; see the base. Its instances start in the triggerer as a single task does."""
        mapped = super().partial(**kwargs)
        arguments = starts.arguments_of(mapped)
        args = _start_trigger_args(cls, arguments, dag=dag_in(arguments))
        may = kwargs.get("start_from_trigger", True) and args is not None
        arguments |= {"start_from_trigger": may, "start_trigger_args": args if may else None}
        return mapped

    def check(self) -> None:
        """Check the parameters; see the base."""
        super().check()
        params.reject(self, NOT_HONOURED)
        if self.mode != "poke":
            rule = "deferring does what rescheduling is for; leave mode out, or set deferrable=False to wait here"
            raise params.invalid_parameter("mode", self.mode, rule)

    def job_ids(self) -> list[str]:
        """Return the ids of the jobs to wait for; none for an empty list.

        :raises InvalidParameter: they are not ids.
        """
        return params.ids(self.names_jobs, getattr(self, self.names_jobs))

    def _deadlines(self) -> dict[str, float]:
        return {**super()._deadlines(), "timeout": self.timeout}

    def execute(self, context: Context) -> Any:
        """Wait for the jobs.

        :return: the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`; for a list of ids, a list of them, which
            is empty, at once, if the list is.
        :raises AirflowSensorTimeout: ``timeout`` has passed; as with every sensor, this is not retried.
        :raises JobflowError: what ``airflow_jobflow.exceptions`` lists.
        """
        with reporting_failures(self, context):
            try:
                return self._start(context)
            except AirflowSkipException:
                raise
            except AirflowException as error:
                # BaseSensorOperator does the same for what is raised after a deferral.
                if self.soft_fail or self.never_fail:
                    raise AirflowSkipException(f"Skipped, as soft_fail or never_fail says: {error}") from error
                raise

    def _start(self, context: Context) -> Any:
        self.check()
        job_ids = self.job_ids()
        if not job_ids:
            self.log.info("There is nothing to wait for: %s is an empty list", self.names_jobs)
            return []
        deadline = self.deadline_from_now()
        return self.wait_for(context, job_ids, self.initial_status(context, job_ids), deadline=deadline)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; one that Airflow itself timed out, for want of a triggerer, ends the same way."""
        if timed_out(next_method, next_kwargs):
            event = {"job_ids": self.job_ids(), "jobs": {}, "errors": {}, "limit": "deadline"}
            next_method, next_kwargs = "execute_complete", {"event": event}
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Finish: return the outcome, or raise what has gone wrong; or start, where the triggerer could not."""
        if "start_on_worker" in event:
            return self._start(context)
        event = self.final_status(event)
        if event["limit"]:
            seen = snapshots(event)
            if len(seen) == 1:  # started in the triggerer, no worker has kept them yet
                self.keep_links(context, seen.values())
            raise self._timed_out(event["job_ids"], seen)
        outcomes = self.conclude(context, event, Tolerance())
        return outcomes if self._names_several else outcomes[0]

    def returns(self, context: Context | None = None) -> str | None:
        """Return what a success returns; see the base."""
        one = super().returns(context)
        return "outcomes" if one == "outcome" and self._names_several else one

    @property
    def _names_several(self) -> bool:
        return isinstance(params.several(self.names_jobs, getattr(self, self.names_jobs)), list | tuple)

    def _timed_out(self, job_ids: Sequence[str], seen: Mapping[str, Snapshot]) -> AirflowException:
        outcome_builder = self.outcome_builder
        left = [job_id for job_id in job_ids if job_id not in seen or not seen[job_id].state.ended]
        unseen = f"never described (asked with {self.origin()})"
        jobs = outcome_builder.called(left, seen, unseen=unseen, of=len(job_ids))
        lines = [f"Timed out after {self.limit_named()} while waiting for {jobs}. A sensor stops nothing."]
        if len(left) == len(seen) == 1:
            lines += outcome_builder.evidence(seen[left[0]])
        name, _ = self.first_limit() or ("timeout", 0)
        return (AirflowSensorTimeout if name == "timeout" else JobTimeout)("\n".join(lines))


def _start_trigger_args(sensor: type[JobSensor], given: Mapping[str, Any], dag: DAG | None) -> StartTriggerArgs | None:
    """Return how a sensor starts in the triggerer; None where a worker is needed.

    :param given: its parameters, those of all operators among them.
    """
    from airflow.triggers.base import StartTriggerArgs

    deferrable = given.get("deferrable")
    defers = conf.getboolean("jobflow", "deferrable") if deferrable is None else deferrable is True
    natively = bool(dag and dag.render_template_as_native_obj)
    arguments = {name: given[name] for name in _parameters(sensor) if name in given}
    if (
        not starts.are_available()
        or not defers
        or not trigger_eligibility.may_start(sensor, given)
        or any(given.get(name) for name in NOT_HONOURED)  # a worker rejects them
        or given.get("mode") not in (None, "poke")
        or not all(trigger_eligibility.renderable(value, natively=natively) for value in arguments.values())
    ):
        return None
    net = (
        _least_seconds(given.get("job_timeout"), given.get("timeout") or conf.get("sensors", "default_timeout"))
        + DEFERRAL_TIMEOUT_MARGIN
    )
    execution_timeout = _least_seconds(given.get("execution_timeout"))
    return StartTriggerArgs(
        trigger_cls="airflow_jobflow.triggers.sensor.SensorTrigger",
        trigger_kwargs={
            "sensor": f"{sensor.__module__}.{sensor.__qualname__}",
            "arguments": arguments,
            "seconds": min(net, execution_timeout),  # Airflow sets its own alarm to the earlier of the two
        },
        next_method="execute_complete",
        timeout=timedelta(seconds=net),
    )


@functools.cache
def _parameters(sensor: type[JobSensor]) -> tuple[str, ...]:
    """Return the names of the parameters that a sensor needs to be made again."""
    ours = [
        name
        for each in sensor.__mro__
        if trigger_eligibility.is_ours(each)
        for name, parameter in inspect.signature(each).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("start_from_trigger", "start_trigger_args")
    ]
    return (*ours, "execution_timeout", "do_xcom_push")


def _least_seconds(*durations: object) -> float:
    """Return the least of some durations, as far as they are known when the DAG is read."""
    least = float("inf")
    for duration in durations:
        with contextlib.suppress(InvalidParameter):  # none, a template, or wrong, which a worker tells
            least = min(least, params.seconds("", duration))
    return least
