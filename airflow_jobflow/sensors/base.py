"""Base of the sensors: wait for jobs that something else has started. A sensor stops nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowException, AirflowSensorTimeout, AirflowSkipException

from airflow_jobflow import checks
from airflow_jobflow.exceptions import JobTimedOut
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.waiting import JobWaiter, snapshots, timed_out

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.model import Snapshot


SHOWN = 10
"""How many jobs that have not ended are told of in an error."""


class JobSensor(JobWaiter, BaseSensorOperator):
    """Base of the sensors.

    Of BaseSensorOperator's parameters, ``timeout`` is one more deadline, ``poke_interval`` another name for
    ``poll_interval``, ``soft_fail`` and ``never_fail`` skip the task where it would fail; ``mode="reschedule"`` is
    refused, for deferring does what it is for.
    """

    names_jobs: ClassVar[str]
    """The parameter that names the jobs: an id, the outcome that an operator returned for it, or a list of these."""

    def __init__(
        self, *, poke_interval: Any = None, poll_interval: Any = None, timeout: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(
            poll_interval=poke_interval if poll_interval is None else poll_interval, timeout=timeout, **kwargs
        )

    def check(self) -> None:
        """Check the parameters; see the base."""
        super().check()
        if self.mode != "poke":
            rule = "deferring does what rescheduling is for; leave mode out, or set deferrable=False to wait here"
            raise checks.invalid("mode", self.mode, rule)

    def job_ids(self) -> list[str]:
        """Return the ids of the jobs to wait for.

        :raises InvalidParameter: there are none, or they are not ids.
        """
        return checks.ids(self.names_jobs, getattr(self, self.names_jobs))

    def _deadlines(self) -> dict[str, float]:
        return {**super()._deadlines(), "timeout": self.timeout}

    def execute(self, context: Context) -> Any:
        """Wait for the jobs.

        :return: the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`; for a list of ids, a list of them.
        :raises AirflowSensorTimeout: ``timeout`` has passed; as with every sensor, this is not retried.
        :raises JobflowError: what ``airflow_jobflow.exceptions`` lists.
        """
        try:
            self.check()
            job_ids = self.job_ids()
            deadline = self.deadline_from_now()
            return self.wait_for(context, job_ids, self.first_look(context, job_ids), deadline=deadline)
        except AirflowSkipException:
            raise
        except AirflowException as error:
            # BaseSensorOperator does the same for what is raised after a deferral.
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipped, as soft_fail or never_fail says: {error}") from error
            raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; one that Airflow itself timed out, for want of a triggerer, ends the same way."""
        if timed_out(next_method, next_kwargs):
            event = {"job_ids": self.job_ids(), "jobs": {}, "errors": {}, "limit": "deadline"}
            next_method, next_kwargs = "execute_complete", {"event": event}
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Finish: return the outcome, or raise what has gone wrong."""
        event = self.last_look(event)
        if event["limit"]:
            raise self._timed_out(event["job_ids"], snapshots(event))
        outcomes = self.conclude(context, event, Tolerance())
        several = isinstance(getattr(self, self.names_jobs), list | tuple)
        return outcomes if several else outcomes[0]

    def _timed_out(self, job_ids: Sequence[str], seen: Mapping[str, Snapshot]) -> AirflowException:
        name, seconds = self.first_limit() or ("timeout", self.timeout)
        open_jobs = [
            f"{job_id} {seen[job_id].progress() if job_id in seen else 'never seen'}"
            for job_id in job_ids
            if job_id not in seen or not seen[job_id].state.ended
        ]
        message = (
            f"{len(open_jobs)} of {len(job_ids)} {self.service_module.NOUN}s had not ended within {name}={seconds:g} s "
            f"and run on: {'; '.join(open_jobs[:SHOWN])}{' …' if len(open_jobs) > SHOWN else ''}"
        )
        return AirflowSensorTimeout(message) if name == "timeout" else JobTimedOut(message)
