"""For Airflow 3.2: what ``airflow.sdk`` of 3.3 has for retry policies, as far as this package and its users need it."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context


class RetryAction(Enum):
    """What happens after a failure."""

    RETRY = "retry"
    FAIL = "fail"
    DEFAULT = "default"


@dataclass(frozen=True)
class RetryDecision:
    """What a policy decides."""

    action: RetryAction = RetryAction.DEFAULT
    retry_delay: timedelta | None = None
    reason: str | None = None

    @classmethod
    def fail(cls, reason: str | None = None) -> RetryDecision:
        """Do not retry."""
        return cls(RetryAction.FAIL, reason=reason)

    @classmethod
    def retry(cls, delay: timedelta | None = None, reason: str | None = None) -> RetryDecision:
        """Retry, if retries are left."""
        return cls(RetryAction.RETRY, delay, reason)

    @classmethod
    def default(cls) -> RetryDecision:
        """Do what the task says."""
        return cls()


class RetryPolicy(abc.ABC):
    """Base of retry policies."""

    @abc.abstractmethod
    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide whether, and when, a task that failed is tried again."""

    def serialize(self) -> dict[str, Any]:
        """Return the policy as JSON-serializable data."""
        raise NotImplementedError

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RetryPolicy:
        """Make a policy of what ``serialize`` returned."""
        raise NotImplementedError
