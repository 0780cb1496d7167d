"""What a wait waits for: that its jobs end, or that an ECS task reaches a status before its end. Pure.

Polls may miss a status, so one that the task has passed counts as reached. Whether it has passed RUNNING, or a status
before it, follows from the time at which it began to run: a task that stopped before that has reached none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_jobflow.jobs.ecs_snapshot import STATES, STOPPED
from airflow_jobflow.jobs.model import JobState, Snapshot

LIFECYCLE = (*STATES, STOPPED)
"""The statuses of an ECS task in their order."""

RUNNING = LIFECYCLE.index("RUNNING")


@dataclass(frozen=True, slots=True)
class Target:
    """What a wait waits for.

    :param status: the status of an ECS task. Default None: the success of a job of any service.
    :param failures: the statuses in which the wait fails if the target was not reached before. Default: none. A job
        that has ended without reaching the target fails the wait anyway.
    """

    status: str | None = None
    failures: Sequence[str] = ()

    def reached(self, snapshot: Snapshot) -> bool:
        """Return whether a job has succeeded, or a task has reached the status or has passed it.

        :param snapshot: of the job.
        """
        if self.status is None:
            return snapshot.state is JobState.SUCCEEDED
        if snapshot.status not in LIFECYCLE:
            return False
        current, target = LIFECYCLE.index(snapshot.status), LIFECYCLE.index(self.status)
        may_have_skipped = current > RUNNING >= target
        return current >= target and (not may_have_skipped or snapshot.started_at is not None)

    def decided(self, snapshot: Snapshot) -> bool:
        """Return whether the wait for a job is over.

        :param snapshot: of the job.
        """
        return snapshot.state.ended or self.reached(snapshot) or snapshot.status in self.failures
