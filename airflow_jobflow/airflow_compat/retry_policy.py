"""Retry policies: a part of Airflow 3.3; for Airflow 3.2, stand-ins with the same names, and operators that apply them.

On 3.2, operators and sensors of this package take ``retry_policy`` themselves. Where the policy says FAIL, they raise
``AirflowFailException``. Its delays are lost: a retry comes when the task's own ``retry_delay`` says. Tasks of other
operators have no ``retry_policy`` there; in ``default_args`` it is ignored for them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

try:
    from airflow.sdk import RetryAction, RetryDecision, RetryPolicy

    APPLIED_BY_AIRFLOW: Final = True
except ImportError:  # 3.2
    from airflow_jobflow.airflow_compat._retry_policy import (  # type: ignore[assignment]
        RetryAction,
        RetryDecision,
        RetryPolicy,
    )

    APPLIED_BY_AIRFLOW = False  # type: ignore[misc]

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = [
    "APPLIED_BY_AIRFLOW",
    "RetryAction",
    "RetryDecision",
    "RetryPolicy",
    "SensorBase",
    "TaskBase",
    "retry_policy_applied",
]

log = logging.getLogger(__name__)

FINAL: Final = (AirflowFailException, AirflowSensorTimeout, AirflowSkipException)
"""What no policy is asked about: neither of these is retried."""


class _TakesPolicy(BaseOperator):
    """An operator that has a retry policy although Airflow knows none.

    :param retry_policy: see :class:`airflow_jobflow.retry_policy.JobRetryPolicy`. Default None.
    """

    def __init__(self, *, retry_policy: RetryPolicy | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.retry_policy = retry_policy


class _SensorTakesPolicy(_TakesPolicy, BaseSensorOperator):
    """The same for a sensor."""


if TYPE_CHECKING:
    TaskBase = BaseOperator
    SensorBase = BaseSensorOperator
else:
    TaskBase = BaseOperator if APPLIED_BY_AIRFLOW else _TakesPolicy
    SensorBase = BaseSensorOperator if APPLIED_BY_AIRFLOW else _SensorTakesPolicy


@contextmanager
def retry_policy_applied(task: BaseOperator, context: Context) -> Iterator[None]:
    """Apply the task's retry policy to what is raised within, if Airflow itself does not.

    :param task: the task whose policy it is.
    :param context: what Airflow hands to ``execute``.
    :raises AirflowFailException: the policy says that the task is not retried; its ``__cause__`` is what was raised.
    """
    policy: RetryPolicy | None = None if APPLIED_BY_AIRFLOW else getattr(task, "retry_policy", None)
    try:
        yield
    except FINAL:
        raise
    except Exception as error:
        if policy is None or (decision := _decision(policy, error, context)) is None:
            raise
        if decision.action.value != RetryAction.FAIL.value:
            raise
        raise AirflowFailException(f"{error}\nThe retry policy: {decision.reason or 'not retried'}") from error


def _decision(policy: RetryPolicy, error: Exception, context: Context) -> RetryDecision | None:
    """Return what a policy decides; None if it raises, as in Airflow: the task then goes by ``retries`` alone."""
    ti: Any = context["ti"]
    try:
        return policy.evaluate(error, ti.try_number, ti.max_tries or 0, context)
    except Exception:
        log.exception("The retry policy failed; the task is retried as its retries say")
        return None
