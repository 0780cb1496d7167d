"""Retry policies: Airflow 3.3 has them; on Airflow 3.2, the operators of this package apply them themselves.

On 3.2 the classes of a policy are stand-ins with the names of Airflow 3.3, and the operators and sensors of this
package have a parameter ``retry_policy``. Where the policy decides FAIL, they raise ``AirflowFailException``. They
ignore its delays: a retry follows after the task's own ``retry_delay``. Operators of other packages have no
``retry_policy`` on 3.2; in ``default_args``, Airflow ignores it for them.

Read in 3.2.1 and 3.3.2.
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
"""Exceptions that are never retried, so that no policy is evaluated for them."""


class _TakesPolicy(BaseOperator):
    """Base of operators that have a retry policy on an Airflow without retry policies.

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
    """Apply the task's retry policy to an exception of the block, if Airflow itself does not.

    :param task: the operator, with its ``retry_policy``.
    :param context: what Airflow passes to ``execute``.
    :raises AirflowFailException: the policy decides that the task is not retried; ``__cause__`` is the exception.
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
    """Return what a policy decides; None if it raises: as in Airflow, ``retries`` alone then counts."""
    ti: Any = context["ti"]
    try:
        return policy.evaluate(error, ti.try_number, ti.max_tries or 0, context)
    except Exception:
        log.exception("The retry policy failed; only the task's retries count")
        return None
