"""Describe calls that AWS refuses: for lack of permission or credentials, for an unknown scope, or a rejected id.

A refusal may concern all jobs or only one of those in the call, and the response does not say which. A refused call is
split until the job that causes it stands alone; if ``MAX_SINGLE_REFUSALS`` single jobs in a row are refused, refusals
count as concerning all jobs, and calls are no longer split: most likely a policy is being replaced. From then on a call
for one job, sent every ``PROBE_INTERVAL``, shows when that is over.

Pure: the caller passes the time.

Invariants:

- A job fails only after its grace period, and only if no call for it was answered in between.
- While other jobs are answered, a job fails only if a call for it alone was refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.polling.errors import DescribeRejected
from airflow_jobflow.polling.subscription import Answer, PolledJob

MAX_SINGLE_REFUSALS = 8
"""How many calls for a single job are refused in a row before refusals count as concerning all jobs."""

MIN_REFUSALS = 3
"""How many calls for a job must be refused before its waits fail, unless the grace period is 0."""

PROBE_INTERVAL = 1.0
"""The least seconds between two calls for a single job while everything is refused."""

REFUSED_GRACE = 60.0
"""The longest grace period in seconds for requests that AWS rejects, and for scopes that it does not know."""

CONCERNS_ALL = (Fault.CREDENTIALS, Fault.SCOPE_NOT_FOUND)
"""Faults that no single job in a call can cause."""


@dataclass(slots=True)
class Refusal:
    """The refused describe calls for a job since the last answer.

    :param since: when the first was sent.
    :param last: when the last was sent.
    :param count: how many there were.
    :param seconds: for how long calls were refused; time in which calls failed in other ways does not count.
    :param interrupted: whether a call failed in another way since the last refusal.
    :param alone: whether a call for this job alone was refused.
    """

    since: float
    last: float
    count: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    alone: bool = False

    def add(self, sent_at: float, *, alone: bool) -> None:
        """Count a refused call.

        :param sent_at: when it was sent, in seconds.
        :param alone: whether it was for this job alone.
        """
        self.count += 1
        self.seconds += 0.0 if self.interrupted else max(0.0, sent_at - self.last)
        self.last = max(self.last, sent_at)
        self.interrupted = False
        self.alone = self.alone or alone


class Refusals(Generic[Answer]):
    """The refused calls of a watcher, and what follows from them.

    :param denied_grace: seconds for which calls may be refused for lack of permission or credentials before waits fail.
        Other refusals have ``REFUSED_GRACE``, or this if it is less. 0 for at once.
    """

    def __init__(self, denied_grace: float) -> None:
        self._denied_grace = denied_grace
        self._by_job: dict[PolledJob[Answer], Refusal] = {}
        self._single_refusals = 0
        """How many calls for a single job were refused since the last answer."""
        self._answered_at = self._probe_due = float("-inf")
        """When the last answer came, and when the newest probe is due."""

    def __bool__(self) -> bool:
        """Whether calls for any job are refused."""
        return bool(self._by_job)

    def forget(self, job: PolledJob[Answer]) -> None:
        """Forget the refusals for a job that was answered or removed.

        :param job: the job.
        """
        self._by_job.pop(job, None)

    def answered(self, now: float) -> None:
        """Record that a call was answered.

        :param now: the time in seconds.
        """
        self._single_refusals = 0
        self._answered_at = now

    def interrupt(self, batch: Iterable[PolledJob[Answer]]) -> None:
        """Record that a call failed in another way, so that the time until the next refusal does not count.

        :param batch: the jobs in the call.
        """
        for job in batch:
            if refusal := self._by_job.get(job):
                refusal.interrupted = True

    def must_split(self, batch: Sequence[PolledJob[Answer]], fault: Fault) -> bool:
        """Return whether a refused call is split: a single job may be the cause, and not everything is refused.

        :param batch: the jobs in the call.
        :param fault: what the refusal means.
        """
        return fault not in CONCERNS_ALL and len(batch) > 1 and not self._all_refused

    def add(self, batch: Sequence[PolledJob[Answer]], error: CallError, sent_at: float) -> int:
        """Count a refused call that is not split.

        :param batch: the jobs in the call.
        :param error: the refusal.
        :param sent_at: when the call was sent, in seconds.
        :return: the highest count of refusals for one of the jobs.
        """
        is_single = len(batch) == 1
        if is_single and error.fault not in CONCERNS_ALL:
            batch[0].polled_alone = not self._all_refused
            self._single_refusals += 1
        highest = 0
        for job in batch:
            if not job.removed:
                refusal = self._by_job.setdefault(job, Refusal(sent_at, sent_at))
                refusal.add(sent_at, alone=is_single)
                highest = max(highest, refusal.count)
        return highest

    def final_error(self, job: PolledJob[Answer], error: CallError) -> DescribeRejected | None:
        """Return the error with which the waits for a job fail; None if its calls are repeated.

        :param job: a job whose refusal was counted.
        :param error: the refusal.
        """
        refusal, grace = self._by_job[job], self.grace(error.fault)
        is_over = refusal.seconds >= grace and refusal.count >= (MIN_REFUSALS if grace else 1)
        concerns_all = error.fault in CONCERNS_ALL or self._answered_at < refusal.since
        if not (is_over and (refusal.alone or concerns_all)):
            return None
        return DescribeRejected(job.job_id, refusal.seconds, refusal.count, error)

    def grace(self, fault: Fault) -> float:
        """Return the seconds for which calls may be refused before waits fail.

        :param fault: what the refusal means.
        """
        may_be_granted = fault in (Fault.DENIED, Fault.CREDENTIALS)
        return self._denied_grace if may_be_granted else min(self._denied_grace, REFUSED_GRACE)

    def probe(
        self,
        batch: list[PolledJob[Answer]],
        fault: Fault,
        now: float,
        choose: Callable[[list[PolledJob[Answer]]], PolledJob[Answer]],
    ) -> tuple[PolledJob[Answer], float] | None:
        """Return the job to describe alone, because everything is refused as far as is known, and when.

        :param batch: the jobs in the refused call.
        :param fault: what the refusal means.
        :param now: the time in seconds.
        :param choose: chooses one of several jobs.
        :return: the job and the time in seconds; None if no probe is needed now.
        """
        if fault in CONCERNS_ALL or not self._all_refused or now < self._probe_due:
            return None
        untried = [job for job, refusal in self._by_job.items() if not refusal.alone]
        if not untried and len(batch) == 1:
            return None
        self._probe_due = max(now, self._probe_due + PROBE_INTERVAL)
        return choose(untried or batch), self._probe_due

    @property
    def _all_refused(self) -> bool:
        return self._single_refusals >= MAX_SINGLE_REFUSALS
