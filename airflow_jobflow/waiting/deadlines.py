"""The deadlines of a task, which its parameters set. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

EXECUTION_TIMEOUT_MARGIN: Final = 10.0
"""Seconds before ``execution_timeout`` at which a wait in the worker ends, or a tenth of it if that is less."""

DEFERRAL_TIMEOUT_MARGIN: Final = 60.0
"""Seconds after the deadline at which Airflow itself ends the deferral, in case no triggerer is running."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The time limits of one wait. The shortest one counts.

    :param given: the limits that are set, in seconds, by the parameter that sets them.
    :param in_worker: whether the task waits in the worker. There, Airflow raises its own timeout at
        ``execution_timeout``, without knowing the job, so the wait ends before it.
    """

    given: Mapping[str, float]
    in_worker: bool

    @property
    def limits(self) -> dict[str, float]:
        """The limits that apply, in seconds from the start of the wait."""
        limits = dict(self.given)
        if self.in_worker and "execution_timeout" in limits:
            limits["execution_timeout"] -= min(EXECUTION_TIMEOUT_MARGIN, limits["execution_timeout"] / 10)
        return limits

    @property
    def first(self) -> tuple[str, float] | None:
        """The shortest limit, as the parameter's name and seconds; None if there is none."""
        return min(self.limits.items(), key=lambda limit: limit[1], default=None)

    def after(self, start: float) -> float | None:
        """Return when a wait ends; None if there is no limit.

        :param start: when the wait starts, in seconds since the epoch. So is the result.
        """
        return None if self.first is None else start + self.first[1]

    def __str__(self) -> str:
        """Return the shortest limit as the DAG sets it, for messages: ``60 s (job_timeout)``."""
        name, _ = self.first or ("job_timeout", 0)
        return f"{self.given.get(name, 0):g} s ({name})"
