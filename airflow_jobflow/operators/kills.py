"""A task that is cancelled before Airflow accepts its deferral: nobody else stops its job."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_jobflow.airflow_compat import DELETED, call_if_deferral_rejected, is_cancelled

if TYPE_CHECKING:
    from airflow_jobflow.operators.attempts import AttemptRecord


def stop_if_deferral_is_rejected(
    record: AttemptRecord, log: Any, stop: Callable[[], str], note: Callable[[], None] = lambda: None
) -> None:
    """Stop the job if Airflow rejects the next deferral, because a user cancelled the task meanwhile.

    :param record: the attempt.
    :param log: the task's log.
    :param stop: stops the job, and returns a sentence for the log.
    :param note: shows in the "Jobs" tab that it was stopped. Default: nothing.
    """

    def rejected(state: str | None) -> None:
        if not is_cancelled(state):
            return  # the next try continues with the job, or decides about it
        log.warning("The task is %s: it was cancelled before it could be deferred", state)
        if state != DELETED:
            record.abandon()
        log.warning("%s", stop())
        if state != DELETED:
            note()

    call_if_deferral_rejected(record.context["ti"], rejected)
