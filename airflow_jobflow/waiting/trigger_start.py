"""How operators and sensors start in the triggerer, without a worker; see ``trigger_eligibility`` for when they may."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from airflow_jobflow import params, trigger_eligibility
from airflow_jobflow.airflow_compat import starts
from airflow_jobflow.airflow_compat.features import dag_in
from airflow_jobflow.exceptions import InvalidParameter
from airflow_jobflow.waiting.deadlines import DEFERRAL_TIMEOUT_MARGIN

if TYPE_CHECKING:
    from airflow.triggers.base import StartTriggerArgs

NEVER: float = 10 * 365 * 86400.0
"""Seconds until Airflow ends the wait of a task without a limit. The trigger computes from that end when the task was
started."""

_refused: dict[tuple[str, str], str] = {}
"""Why a task starts on a worker although its ``start_from_trigger`` is True, by DAG and task; empty if it does not."""


@dataclass(frozen=True)
class StartRules:
    """Decides which tasks of a kind start in the triggerer, and how.

    :param settings: the values of ``[jobflow] start_from_trigger`` with which they start there by default.
    :param why_not: returns why their own parameters, by name, need a worker; empty if none does.
    :param limits: returns what limits the wait besides ``execution_timeout``, before rendering.
    """

    settings: tuple[str, ...]
    why_not: Callable[[Mapping[str, Any]], str]
    limits: Callable[[Mapping[str, Any]], tuple[object, ...]] = lambda given: (given.get("job_timeout"),)

    def start_trigger_args(
        self, task_class: type, given: Mapping[str, Any], *, is_partial: bool = False
    ) -> StartTriggerArgs | None:
        """Return how a task starts in the triggerer; None if a worker is needed, or during construction.

        :param task_class, given, is_partial: see ``airflow_compat.starts.Rules``. ``poke_interval`` is the sensor's.
        """
        from airflow.triggers.base import StartTriggerArgs

        asked = given.get("start_from_trigger" if is_partial else "_start_from_trigger")
        if not (trigger_eligibility.start_setting() in self.settings if asked is None else asked):
            return None
        if not is_partial:
            if any(name not in given for name in _required(task_class)):
                return None
            given = {name: value for name, value in given.items() if name != "poke_interval"}  # kept as poll_interval
        arguments = {
            name: given[name]
            for name, default in _parameters(task_class).items()
            if name in given and (given[name] is not default or trigger_eligibility.has_template(default))
        }
        why = self._why_not(task_class, given, arguments)
        if asked:
            _refused[_name(given)] = why
        if why:
            return None
        limit = min(_least_seconds(*self.limits(given)) + DEFERRAL_TIMEOUT_MARGIN, NEVER)
        return StartTriggerArgs(
            trigger_cls="airflow_jobflow.triggers.start.StartTrigger",
            trigger_kwargs={
                "task_class": f"{task_class.__module__}.{task_class.__qualname__}",
                "arguments": arguments,
                # Airflow sets its own alarm to the earlier of the two.
                "seconds": min(limit, _least_seconds(given.get("execution_timeout"))),
            },
            next_method="execute_complete",
            timeout=timedelta(seconds=limit),
        )

    def _why_not(self, task_class: type, given: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
        """Return why a task starts on a worker; empty if it can start in the triggerer."""
        deferrable = given.get("deferrable")
        if not starts.are_available():
            return "this version of Airflow starts every task on a worker"
        if not (conf.getboolean("jobflow", "deferrable") if deferrable is None else deferrable is True):
            return "the task waits on a worker (deferrable is False)"
        return self.why_not(given) or trigger_eligibility.why_not_start(task_class, given, arguments)


def log_why_on_worker(task: Any) -> None:
    """Log why a task starts on a worker although its ``start_from_trigger`` is True.

    :param task: the operator or sensor.
    """
    if why := _refused.get(_name(vars(task))):
        task.log.info("start_from_trigger=True has no effect: %s", why)


def _name(given: Mapping[str, Any]) -> tuple[str, str]:
    dag = dag_in(given)
    return dag.dag_id if dag else "", given["task_id"]


@functools.cache
def _parameters(task_class: type) -> Mapping[str, Any]:
    """Return the parameters from which the triggerer recreates a task, with their defaults."""
    ours = {
        name: parameter.default
        for each in task_class.__mro__
        if trigger_eligibility.is_ours(each) and "__init__" in vars(each)
        for name, parameter in inspect.signature(each).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("start_from_trigger", "start_trigger_args")
    }
    return {**ours, "execution_timeout": None, "do_xcom_push": True}


@functools.cache
def _required(task_class: type) -> tuple[str, ...]:
    """Return the names of the parameters that have no default."""
    return tuple(name for name, default in _parameters(task_class).items() if default is inspect.Parameter.empty)


def _least_seconds(*durations: object) -> float:
    """Return the shortest of some durations, as far as they are known when the DAG is parsed."""
    least = float("inf")
    for duration in durations:
        with contextlib.suppress(InvalidParameter):  # none, a template, or wrong, which a worker reports
            least = min(least, params.seconds("", duration))
    return least
