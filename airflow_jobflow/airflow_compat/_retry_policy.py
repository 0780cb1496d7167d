"""Stand-ins on Airflow 3.2 for what ``airflow.sdk`` 3.3.2 has for retry policies, as far as it is needed here."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context


class RetryAction(Enum):
    """What a policy can decide."""

    RETRY = "retry"
    FAIL = "fail"
    DEFAULT = "default"


@dataclass(frozen=True)
class RetryDecision:
    """A policy's decision.

    :param action: what happens.
    :param retry_delay: the time until the retry. Default None: the task's own.
    :param reason: for the task's log. Default None.
    """

    action: RetryAction = RetryAction.DEFAULT
    retry_delay: timedelta | None = None
    reason: str | None = None

    @classmethod
    def fail(cls, reason: str | None = None) -> RetryDecision:
        """Return the decision not to retry.

        :param reason: for the task's log. Default None.
        """
        return cls(RetryAction.FAIL, reason=reason)

    @classmethod
    def retry(cls, delay: timedelta | None = None, reason: str | None = None) -> RetryDecision:
        """Return the decision to retry, if retries are left.

        :param delay: the time until the retry. Default None: the task's own.
        :param reason: for the task's log. Default None.
        """
        return cls(RetryAction.RETRY, delay, reason)

    @classmethod
    def default(cls) -> RetryDecision:
        """Return the decision to follow the task's own parameters."""
        return cls()


class RetryPolicy(abc.ABC):
    """Base of retry policies."""

    @abc.abstractmethod
    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide whether and when a failed task is retried.

        :param exception: what the task raised.
        :param try_number: the try that failed, from 1.
        :param max_tries: the most retries.
        :param context: what Airflow passes to ``execute``. Default None.
        """

    def serialize(self) -> dict[str, Any]:
        """Return the policy as JSON-serializable data."""
        raise NotImplementedError

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RetryPolicy:
        """Return a policy from what ``serialize`` returned.

        :param data: the serialized policy.
        """
        raise NotImplementedError
