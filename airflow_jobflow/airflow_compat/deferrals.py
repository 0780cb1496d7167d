"""Deferrals that Airflow rejects, and deferrals that it ends itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from airflow_jobflow.airflow_compat.states import task_state

log = logging.getLogger(__name__)


def call_if_deferral_rejected(ti: Any, rejected: Callable[[str | None], object]) -> None:
    """Arrange that a function is called, in the task's process, if Airflow rejects the deferral that follows.

    Call this immediately before ``task.defer``. It makes no request.

    Airflow rejects the deferral of a task that a user has marked or cleared meanwhile. ``execute`` does not learn of
    it: the task process only logs the error. So this replaces the process's connection to its supervisor by an observer
    that passes on every message, and removes itself once the deferral is answered. The function can use the connection.

    The function is not called if the API server could not be reached: the supervisor sends the deferral again when the
    process has ended, and it may be accepted then. Without a supervisor, as in a user's test of ``execute``, this does
    nothing.

    Relies on ``task_runner.run`` sending ``DeferTask`` through the module's ``SUPERVISOR_COMMS``, and on the error that
    carries the API's answer: 409 with ``previous_state``, or 404 if the task instance has another id by now (3.2.1,
    3.3.2). Airflow's own ``supervisor.set_supervisor_comms`` replaces the connection in the same way.

    :param ti: ``context["ti"]``.
    :param rejected: called with the task's state, see ``states.task_state``; ``states.is_cancelled`` returns whether a
        user cancelled the task. An exception that it raises is logged and does not reach Airflow.
    """
    from airflow.sdk.execution_time import task_runner

    module: Any = task_runner
    if comms := getattr(module, "SUPERVISOR_COMMS", None):
        module.SUPERVISOR_COMMS = _DeferralObserver(module, comms, ti, rejected)


def timed_out(next_method: str, next_kwargs: Mapping[str, Any] | None) -> bool:
    """Return whether Airflow resumes a task because it has itself timed out the task's deferral.

    Relies on ``TRIGGER_FAIL_REPR`` and ``TriggerFailureReason`` of ``airflow.sdk.bases.operator``, by which
    ``BaseOperator.resume_execution`` recognizes it (3.2.1, 3.3.2).

    :param next_method: as Airflow passes it to ``resume_execution``.
    :param next_kwargs: likewise.
    """
    from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason

    return next_method == TRIGGER_FAIL_REPR and (next_kwargs or {}).get("error") == TriggerFailureReason.TRIGGER_TIMEOUT


def timeout_of(trigger: Any) -> datetime | None:
    """Return when Airflow itself ends the deferral of a trigger's task.

    Relies on the triggerer setting ``timeout_after`` on each trigger before it runs the trigger
    (``triggerer_job_runner.py``: 3.2.1, 3.3.2).

    :param trigger: the trigger.
    :return: a time with a time zone, whether the database gave one or not; None if the deferral has no timeout, or
        outside a triggerer.
    """
    limit: datetime | None = getattr(trigger, "timeout_after", None)
    return limit if limit is None or limit.tzinfo else limit.replace(tzinfo=UTC)


def set_timeout(trigger: Any, timeout: datetime | None) -> None:
    """Set when Airflow itself ends the deferral, on a trigger that runs inside another one.

    Relies on the same attribute as ``timeout_of`` (3.2.1, 3.3.2).

    :param trigger: the inner trigger.
    :param timeout: the timeout of the outer one.
    """
    trigger.timeout_after = timeout


class _DeferralObserver:
    """A connection to the supervisor that observes the answer to a deferral."""

    def __init__(self, module: Any, comms: Any, ti: Any, rejected: Callable[[str | None], object]) -> None:
        self._module = module
        self._comms = comms
        self._ti = ti
        self._rejected = rejected

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comms, name)

    def send(self, msg: Any) -> Any:
        """Send a message, and observe the answer to a deferral.

        :param msg: any message to the supervisor.
        :return: the answer.
        :raises AirflowRuntimeError: the API server refused the request.
        """
        from airflow.sdk.exceptions import AirflowRuntimeError
        from airflow.sdk.execution_time.comms import DeferTask

        if not isinstance(msg, DeferTask):
            return self._comms.send(msg)
        self._module.SUPERVISOR_COMMS = self._comms
        try:
            return self._comms.send(msg)
        except AirflowRuntimeError as error:
            try:
                self._report(error.error.detail or {})
            except Exception:
                log.exception("Could not act on the rejected deferral of the task")
            raise

    def _report(self, detail: Mapping[str, Any]) -> None:
        """Call the function if the error is a rejection."""
        status = detail.get("status_code")
        if status == HTTPStatus.CONFLICT:
            self._rejected(_previous_state(detail) or task_state(self._ti))
        elif status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            self._rejected(task_state(self._ti))


def _previous_state(detail: Mapping[str, Any]) -> str | None:
    """Return the state that the API named when it rejected a transition: ``{"detail": {"detail": {…}}}``."""
    found: Any = detail
    for key in ("detail", "detail", "previous_state"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else None
