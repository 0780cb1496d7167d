"""The objects that one execution of an operator uses, built from its rendered parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.operators.attempts import AttemptRecord
from airflow_jobflow.operators.inputs import JobInputs
from airflow_jobflow.operators.spec import Spec
from airflow_jobflow.waiting.parameters import wait_parameters
from airflow_jobflow.waiting.wait import JobWait

if TYPE_CHECKING:
    from airflow_jobflow.params import ParameterTable
    from airflow_jobflow.ui.task_report import TaskReport
    from airflow_jobflow.waiting.deadlines import Deadlines
    from airflow_jobflow.waiting.remote import RemoteJobs

What = TypeVar("What", bound=Spec)


@dataclass(frozen=True)
class Execution(Generic[What]):
    """The objects that one execution of an operator uses.

    :param spec: what to start.
    :param given: the shared parameters that were given, converted to their types, see ``waiting.parameters``.
    :param report: what the task reports of its jobs.
    :param jobs: the jobs of the task in AWS.
    :param deadlines: the time limits of the task.
    :param wait: how the task waits for its jobs.
    :param record: the attempt, and its record for later tries.
    :param tolerance: how many children of an array, or items of a map, may fail.
    :param log: the task's log.
    """

    spec: What
    given: Mapping[str, Any]
    report: TaskReport
    jobs: RemoteJobs
    deadlines: Deadlines
    wait: JobWait
    record: AttemptRecord
    tolerance: Tolerance
    log: Any

    @classmethod
    def of(cls, task: Any, spec: What, report: TaskReport, table: ParameterTable) -> Execution[What]:
        """Validate the shared parameters of an operator, and return the objects of its execution. Makes no call.

        :param task: the operator, after rendering.
        :param spec, report: see the class.
        :param table: the operator's shared parameters.
        :raises InvalidParameter: one of them is wrong.
        """
        parameters = wait_parameters(task, table)
        inputs = JobInputs.of(parameters.given, spec)
        wait = JobWait.of(task, report, parameters, scope=spec.scope, container=spec.container, name=spec.name)
        # Without a token, a job cannot be distinguished from a copy of it that somebody has made.
        may_be_reaped = spec.carries_owner and task.durable and task.wait_for_completion
        record = AttemptRecord(
            wait.jobs,
            parameters.deadlines,
            task.log,
            durable=task.durable,
            may_be_reaped=may_be_reaped and task.cancel_on_kill and task.cancel_on_timeout,
            left_at_deadline=not task.cancel_on_timeout,
            inputs=inputs,
        )
        given = parameters.given
        tolerance = Tolerance(given["tolerated_failure_count"], given["tolerated_failure_percentage"])
        return cls(spec, given, report, wait.jobs, parameters.deadlines, wait, record, tolerance, task.log)
