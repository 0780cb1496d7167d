"""Sensors that wait until an ECS task reaches a status, such as RUNNING, instead of its end."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_jobflow import params
from airflow_jobflow.exceptions import JobFailed, invalid_parameter
from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.ecs_snapshot import STOPPED
from airflow_jobflow.jobs.targets import LIFECYCLE, Target
from airflow_jobflow.jobs.wording import named

if TYPE_CHECKING:
    from airflow_jobflow.exceptions import JobflowError
    from airflow_jobflow.jobs.model import Outcome, Snapshot
    from airflow_jobflow.outcomes import OutcomeBuilder
    from airflow_jobflow.waiting.wait import JobOutcomes

OF_ENDED_JOBS = ("stream_logs", "number_logs_success")


def target_of(sensor: Any) -> Target | None:
    """Return the status that a sensor waits for; None if it waits for the end.

    :param sensor: the sensor, after rendering.
    :raises InvalidParameter: it is not a status of an ECS task, or another parameter contradicts it.
    """
    if sensor.target_state is None:
        params.reject(sensor, {"failure_states": "has no effect without target_state"})
        return None
    why = "copies logs until a task ends, and with target_state the sensor does not wait for that; leave it out"
    params.reject(sensor, dict.fromkeys(OF_ENDED_JOBS, why))
    failures = params.several("failure_states", sensor.failure_states)
    if failures is None:
        failures = (STOPPED,)
    elif not isinstance(failures, list | tuple | set | frozenset):
        failures = (failures,)
    return Target(
        _status("target_state", sensor.target_state), sorted(_status("failure_states", each) for each in failures)
    )


def _status(parameter: str, value: Any) -> str:
    """Validate a status, or a member of an enumeration of them, such as the Amazon provider's ``EcsTaskStates``."""
    plain = value.value if isinstance(value, Enum) else value
    if not isinstance(plain, str):
        raise invalid_parameter(parameter, value, f"must be one of {', '.join(LIFECYCLE)}")
    return params.one_of(parameter, plain, LIFECYCLE)


def target_outcomes(builder: OutcomeBuilder, target: Target, seen: Sequence[Snapshot]) -> JobOutcomes:
    """Return the outcome of each job, and the exception of each that did not reach what the sensor waited for.

    :param builder: builds outcomes and exceptions.
    :param target: what the sensor waited for.
    :param seen: the last snapshots of the jobs.
    """
    if target.status is None:
        return builder.job_outcomes(seen, Tolerance())
    missed = builder.job_outcomes([each for each in seen if not target.reached(each)], Tolerance())
    failures = {outcome.job_id: _missed(builder, target, outcome, error) for outcome, error in missed}
    return [(builder.outcome(each), failures.get(each.job_id)) for each in seen]


def _missed(builder: OutcomeBuilder, target: Target, outcome: Outcome, error: JobflowError | None) -> JobflowError:
    """Return the exception for a task that did not reach the status; why it failed, if it did, is part of it."""
    if error is None:
        task = f"{builder.module.DISPLAY_NAME} {named(outcome.job_id, outcome.name)}"
        text = f"{task} is {outcome.status}, one of failure_states, and did not reach {target.status} before."
        return JobFailed(text, outcome=outcome.to_dict())
    text = f"{error}\nThe task did not reach {target.status}, the target_state."
    return type(error)(text, outcome=outcome.to_dict(), diagnosis=error.diagnosis)
