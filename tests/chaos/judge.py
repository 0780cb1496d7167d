"""The checks of a schedule, by the ledger of the local AWS and the states of the small Airflow.

- Duplicates: no token is used twice, no two jobs of one task (or of one item of a map) run at the same time, and no job
  is started again after it has ended by itself, unless the task was cleared.
- Lost: a task that does not end.
- Wrong: the outcome of a task that was not killed is not that of its own job, or its job was stopped.
- Orphans: a job that runs although its task has ended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_jobflow.jobs.owner import job_group
from tests.chaos.core import PICK_UP
from tests.chaos.lines import SETTINGS
from tests.chaos.state import Run, TaskInstance
from tests.stack.ledger import Ledger, Started

DEPLOYMENT: Final = SETTINGS["AIRFLOW__JOBFLOW__DEPLOYMENT_ID"]
STOPPING: Final = 4.0
"""Seconds for which a stopped job may still run."""
CLEARED: Final = "cleared"
STILL_STARTING: Final = 6.0
"""Seconds for which a worker may continue after a clear of its task."""
SLACK: Final = 0.2
"""Maximum difference in seconds between two clocks."""


@dataclass(frozen=True)
class Orphan:
    """A job that kept running although its task had ended.

    :param moment: the state at the last kill; empty if the task was not killed.
    """

    job: Started
    ti: TaskInstance
    moment: str
    act: str
    at: float = 0.0
    """The time of the kill, in seconds since the epoch."""

    def __str__(self) -> str:
        return f"{self.job.service} {self.job.job_id} of {self.ti.key} ({self.ti.kind}): {self.act} {self.moment}"


@dataclass
class Counts:
    """The results of schedules."""

    schedules: int = 0
    runs: int = 0
    jobs: int = 0
    kills: int = 0
    killed_jobs: int = 0
    killed_in_pick_up: int = 0
    duplicates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    """Orphans before the reaper ran, except for those of kills while a trigger was assigned."""
    in_pick_up: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)
    """Orphans that the reaper cannot find: their start was denied the tags."""
    moments: Counter[str] = field(default_factory=Counter)
    """Kills by the state at that time."""

    @property
    def breaches(self) -> list[str]:
        """Return the breaches."""
        names = ("duplicates", "lost", "wrong", "after")
        return [f"{name}: {each}" for name in names for each in getattr(self, name)]

    def add(self, other: Counts) -> None:
        """Add the counts of other schedules."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        counted = self.killed_jobs - self.killed_in_pick_up
        share = 100 * len(self.before) / counted if counted else 0.0
        moments = ", ".join(f"{words}: {times}" for words, times in self.moments.most_common())
        lines = [
            f"{self.schedules} schedules, {self.runs} runs, {self.jobs} jobs, {self.kills} kills of tasks",
            f"{self.killed_jobs} jobs of killed tasks, {self.killed_in_pick_up} of them killed before the pick-up",
            f"duplicates {len(self.duplicates)}, lost {len(self.lost)}, wrong {len(self.wrong)}",
            f"orphans before the reaper: {len(self.before)} ({share:.1f} %), and {len(self.in_pick_up)} of the pick-up",
            f"orphans after the reaper: {len(self.after)}, and {len(self.unmarked)} that were started without tags",
            f"kills by their moment: {moments}",
        ]
        for name in ("before", "in_pick_up", "unmarked", "duplicates", "lost", "wrong", "after"):
            lines += [f"  {name}: {each}" for each in getattr(self, name)]
        return "\n".join(lines)


def group_of(ti: TaskInstance) -> str:
    """Return the group of a task's jobs."""
    key = ti.key
    return job_group(key.dag_id, key.task_id, key.run_id, key.map_index, DEPLOYMENT)


def jobs_of(ledger: Ledger, run: Run) -> dict[str, list[Started]]:
    """Return the jobs of a run by their group; a crawl, which has none, belongs to the run's only task."""
    found: dict[str, list[Started]] = {group_of(ti): [] for ti in run.tis}
    for job in ledger.started(run.run_id):
        group = group_of(run.tis[0]) if job.service == "glue_crawl" else job.group
        found.setdefault(group or "", []).append(job)
    return {group: sorted(jobs, key=lambda each: each.began) for group, jobs in found.items()}


def orphans(ledger: Ledger, runs: Sequence[Run]) -> list[Orphan]:
    """Return the jobs that run although their task has ended."""
    found = []
    for run in runs:
        tis = {group_of(ti): ti for ti in run.tis}
        for group, jobs in jobs_of(ledger, run).items():
            ti = tis.get(group)
            if ti and ti.finished:
                for job in jobs:
                    if not job.ended and job.status != "STOPPING":
                        last = ti.kills[-1] if ti.kills else None
                        how = (last.how, last.act, last.at) if last else ("", "not killed")
                        found.append(Orphan(job, ti, *how))
    return found


def judge(ledger: Ledger, runs: Sequence[Run], counts: Counts) -> None:
    """Check everything except orphans, and add the results to the counts."""
    for run in runs:
        by_group = jobs_of(ledger, run)
        counts.runs += 1
        counts.jobs += sum(map(len, by_group.values()))
        for ti in run.tis:
            counts.kills += len(ti.kills)
            counts.moments.update(kill.phase for kill in ti.kills)
            jobs = by_group.pop(group_of(ti))
            killed = [job for job in jobs if _is_killed(job, ti)]
            counts.killed_jobs += len(killed)
            if ti.kills and ti.kills[-1].phase == PICK_UP:
                counts.killed_in_pick_up += len(killed)
            if not ti.finished:
                counts.lost.append(f"{ti.key} ({ti.kind}) is {ti.state}: {_history(ti)}")
            counts.duplicates += _duplicates(ti, jobs)
            if not ti.kills:
                counts.wrong += [f"{ti.key} ({ti.kind}): {each}: {_history(ti)}" for each in _wrong(ledger, ti, jobs)]
        counts.wrong += [f"{run.run_id} has started {job}, of no task" for jobs in by_group.values() for job in jobs]
    counts.duplicates += [f"{token} was used twice" for token in ledger.used_twice()]


def _history(ti: TaskInstance) -> str:
    began = ti.run.started
    return "; ".join(f"{at - began:.1f} {words}" for at, words in ti.history) + (f"; {ti.error}" if ti.error else "")


def _is_killed(job: Started, ti: TaskInstance) -> bool:
    """Return whether a kill affected a job: it had not ended, or was started for the killed try nevertheless."""
    for kill in ti.kills:
        if job.ended_at is not None and job.ended_at < kill.at:
            continue
        if kill.act != CLEARED or job.began < kill.at:
            return True
    return False


def _duplicates(ti: TaskInstance, jobs: Sequence[Started]) -> Iterator[str]:
    by_item: dict[str, list[Started]] = {}
    for job in jobs:
        by_item.setdefault(job.item, []).append(job)
    for item, of_item in by_item.items():
        for number, job in enumerate(of_item):
            for earlier in of_item[:number]:
                if words := _conflict(ti, earlier, job):
                    yield f"{ti.key} ({ti.kind}) {item}: {words}: {earlier}, {job}: {_history(ti)}"


def _conflict(ti: TaskInstance, earlier: Started, later: Started) -> str:
    """Return what is wrong with a job that was started after another one of the same task or item."""
    # The worker of a cleared try continues until its next heartbeat, and may start its job meanwhile.
    cleared = any(
        kill.act == CLEARED and earlier.began - STILL_STARTING <= kill.at <= later.began + SLACK for kill in ti.kills
    )
    shut_down = any("shut down" in words for _, words in ti.history)
    stopping = STOPPING if earlier.stopped and (cleared or shut_down or ti.kills) else SLACK
    if earlier.ended_at is None or earlier.ended_at > later.began + stopping:
        return "two at once"
    if cleared or shut_down or (earlier.stopped and ti.kills):
        return ""  # a worker that is shut down records that the job was abandoned, regardless of the task's state
    if earlier.status == "SUCCEEDED" or (not ti.run.code and not earlier.stopped):
        return "started again after it had succeeded"
    if earlier.stopped:
        return "started again after it was stopped"
    return "" if ti.run.code and ti.try_number > 1 else "started again without a retry"


def _wrong(ledger: Ledger, ti: TaskInstance, jobs: Sequence[Started]) -> Iterator[str]:
    """Return what is wrong with the end of a task that was not killed."""
    if not ti.finished:
        return
    if "job_timeout" in ti.parameters:
        if ti.state != "failed":  # without a job if AWS was unreachable until then
            yield f"it is {ti.state}, although its deadline has passed"
        return
    if not any("shut down" in words for _, words in ti.history):
        yield from (f"its job was stopped: {job}" for job in jobs if job.stopped)
    if ti.state != "success":
        yield f"it is {ti.state}"
        return
    returned = ti.returned if ti.returned is not None else ti.xcoms.get("return_value")
    returned = json.loads(returned) if isinstance(returned, str) else returned
    if not isinstance(returned, Mapping):
        yield f"it returned {returned!r}"
        return
    token, is_map = str(ti.parameters["token"]), "statuses" in returned
    for number, outcome in enumerate(returned["outcomes"] if is_map else [returned]):
        said = f"{token}{number}" if is_map else token
        yield from (f"outcome {number} {words}: {outcome}" for words in _wrong_outcome(ledger, ti, jobs, outcome, said))


def _wrong_outcome(
    ledger: Ledger, ti: TaskInstance, jobs: Sequence[Started], outcome: Mapping[str, Any] | None, token: str
) -> Iterator[str]:
    if not outcome:
        yield "is missing"
        return
    state = "FAILED" if ti.run.code and ti.kind != "crawl" else "SUCCEEDED"
    if outcome["state"] != state:
        yield f"is not {state}"
    if job_of(outcome) not in {job.job_id for job in jobs}:
        yield "is of a job of others"
    if ti.kind != "crawl" and not outcome.get("array"):
        written = ledger.log(outcome)
        if token not in written.split():
            yield f"has no {token} in its log, which says {written!r}"


def job_of(outcome: Mapping[str, Any]) -> str:
    """Return the id of a job in the ledger; the outcome of a crawl has another one."""
    if outcome["service"] != "glue_crawl":
        return str(outcome["job_id"])
    details = outcome.get("details") or {}
    return str(details.get("crawl_id") or details.get("message_prefix"))
