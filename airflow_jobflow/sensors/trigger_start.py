"""How a sensor starts in the triggerer, without a worker; see ``trigger_eligibility`` for when it may."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from airflow_jobflow import params, trigger_eligibility
from airflow_jobflow.airflow_compat import starts
from airflow_jobflow.exceptions import InvalidParameter
from airflow_jobflow.waiting.deadlines import DEFERRAL_TIMEOUT_MARGIN

if TYPE_CHECKING:
    from airflow.sdk import DAG
    from airflow.triggers.base import StartTriggerArgs

NOT_HONOURED = {
    "exponential_backoff": "polls are shared by all waits, so their interval does not grow; use poll_interval",
    "max_wait": "polls are shared by all waits, so their interval does not grow; use poll_interval",
    "silent_fail": "an error of a call is retried and does not fail the sensor; soft_fail skips a task that would fail",
}
"""Parameters of BaseSensorOperator that are rejected by name, if they are set, and why."""


def start_trigger_args(sensor: type, given: Mapping[str, Any], dag: DAG | None) -> StartTriggerArgs | None:
    """Return how a sensor starts in the triggerer; None where a worker is needed.

    :param sensor: the sensor's class.
    :param given: its parameters, with those of all operators.
    :param dag: its DAG, if that is known.
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
    limit = (
        _least_seconds(given.get("job_timeout"), given.get("timeout") or conf.get("sensors", "default_timeout"))
        + DEFERRAL_TIMEOUT_MARGIN
    )
    execution_timeout = _least_seconds(given.get("execution_timeout"))
    return StartTriggerArgs(
        trigger_cls="airflow_jobflow.triggers.sensor.SensorTrigger",
        trigger_kwargs={
            "sensor": f"{sensor.__module__}.{sensor.__qualname__}",
            "arguments": arguments,
            "seconds": min(limit, execution_timeout),  # Airflow sets its own alarm to the earlier of the two
        },
        next_method="execute_complete",
        timeout=timedelta(seconds=limit),
    )


@functools.cache
def _parameters(sensor: type) -> tuple[str, ...]:
    """Return the names of the parameters with which the triggerer makes a sensor again."""
    ours = [
        name
        for each in sensor.__mro__
        if trigger_eligibility.is_ours(each)
        for name, parameter in inspect.signature(each).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("start_from_trigger", "start_trigger_args")
    ]
    return (*ours, "execution_timeout", "do_xcom_push")


def _least_seconds(*durations: object) -> float:
    """Return the shortest of some durations, as far as they are known when the DAG is parsed."""
    least = float("inf")
    for duration in durations:
        with contextlib.suppress(InvalidParameter):  # none, a template, or wrong, which a worker reports
            least = min(least, params.seconds("", duration))
    return least
