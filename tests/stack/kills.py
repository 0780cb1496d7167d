"""Kills of tasks by users: what is killed and when, and orphans, which are jobs that keep running although their task
has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.jobs.owner import job_group
from tests.stack.kit import Kit, Run
from tests.stack.ledger import GLUE_JOB, Started

if TYPE_CHECKING:
    import pytest

DEPLOYMENT: Final = "compose"
"""``[jobflow] deployment_id`` of docker-compose.yaml."""
AGE: Final = 700.0
"""Seconds by which the reaper's clock is ahead, because jobs younger than ten minutes are never stopped."""
UNFINISHED: Final = (
    None,
    "scheduled",
    "queued",
    "running",
    "deferred",
    "up_for_retry",
    "up_for_reschedule",
    "restarting",
)
PICK_UP: Final = "between the accepted deferral and its pick-up by a triggerer"
WAITING: Final = "while it waits in a triggerer"
HEARTBEAT: Final = 6.0
"""Seconds since the last heartbeat after which a triggerer is dead or frozen."""


DUE: Final[Mapping[str, Callable[[str | None], bool]]] = {
    "the trigger": lambda _: True,
    "a worker": lambda state: state == "running" or (state is not None and state not in UNFINISHED),
    "the deferral": lambda state: state == "deferred" or (state is not None and state not in UNFINISHED),
}
"""The point of a run at which it is killed: the state of one of its tasks."""


@dataclass(frozen=True)
class Kill:
    """An action of a user.

    :param run: number of the run in its schedule.
    :param after: the point that the run must have reached, one of `DUE`.
    :param delay: seconds after that.
    :param act: ``run failed``; or ``failed``, ``success`` or ``clear`` for one task.
    :param which: which of the unfinished tasks, as a fraction of their number.
    :param outage: seconds for which AWS is unreachable before the kill, and in all.
    :param then: seconds after which the run is marked failed.
    """

    run: int
    after: str
    delay: float
    act: str
    which: float
    outage: tuple[float, float] | None = None
    then: float | None = None

    def __str__(self) -> str:
        said = f"run {self.run} is killed ({self.act}) {self.delay:.1f} s after {self.after}"
        if self.outage:
            said += f", and AWS cannot be reached for {self.outage[1]:.0f} s from {self.outage[0]:.1f} s before it"
        return said if self.then is None else f"{said}; {self.then:.1f} s later the run is marked failed"

    def is_due(self, run: Run) -> bool:
        """Return whether a run has reached the point of the kill."""
        return any(DUE[self.after](each["state"]) for each in run.instances)

    def act_on(self, run: Run) -> list[Killed]:
        """Kill the run or the task, and return what was killed."""
        left = [each for each in run.instances if each["state"] in UNFINISHED]
        if not left:
            return []
        if self.act != "run failed":
            left = [left[int(self.which * len(left))]]
        killed = [
            Killed(run.token, group_of(run, each), self.act, time.time(), _moment(each), each["try_number"])
            for each in left
        ]
        if self.act == "run failed":
            run.mark_run("failed")
        elif self.act == "clear":
            each = left[0]
            run.clear(each["task_id"] if each["map_index"] < 0 else (each["task_id"], each["map_index"]))
        else:
            run.mark(left[0]["task_id"], self.act, left[0]["map_index"])
        return killed


@dataclass(frozen=True)
class Killed:
    """A task instance that a user has killed.

    :param run: the run's token.
    :param at: in seconds since the epoch.
    :param moment: the state of the task at that time, as a key for counts.
    """

    run: str
    group: str
    act: str
    at: float
    moment: str
    try_number: int

    def jobs(self, jobs: Iterable[Started]) -> list[Started]:
        """Return the affected jobs: those that had not ended, and those that were started for it nevertheless."""
        return [
            job
            for job in jobs
            if job.is_of(self.run, self.group)
            and (job.ended_at is None or job.ended_at > self.at)
            and (self.act != "clear" or job.began < self.at)
        ]


def group_of(run: Run, instance: Mapping[str, Any]) -> str:
    """Return the group of a task instance's jobs."""
    return job_group(run.dag_id, instance["task_id"], run.token, instance["map_index"], DEPLOYMENT)


STATES: Final[Mapping[str, str]] = {
    "running": "while a worker runs it",
    "up_for_retry": "between two tries",
    "up_for_reschedule": "between two tries",
    "restarting": "while a clear ends the worker",
}


def _moment(instance: Mapping[str, Any]) -> str:
    """Return what a task instance is doing, as far as Airflow knows."""
    state, first = instance["state"], instance["try_number"] <= 1
    if state != "deferred":
        return STATES.get(state, "before a worker runs it" if first else "between two tries")
    trigger, job = instance.get("trigger"), instance.get("triggerer_job")
    if not trigger or not job:
        return PICK_UP
    beat = job.get("latest_heartbeat")
    is_alive = job.get("state") == "running" and beat and _age(beat) <= HEARTBEAT
    return WAITING if is_alive else "after its triggerer died or froze, before another took over"


def _age(moment: str) -> float:
    from datetime import UTC, datetime

    return (datetime.now(tz=UTC) - datetime.fromisoformat(moment)).total_seconds()


@dataclass(frozen=True)
class Orphan:
    """A job that runs although its task has ended."""

    job: Started
    name: str
    moment: str
    act: str
    at: float
    """When it was killed, in seconds since the epoch; 0 if it was not killed."""

    def __str__(self) -> str:
        tags = "" if self.job.is_marked else " (without tags)"
        return f"{self.job.service} {self.job.job_id}{tags} of {self.name}: {self.act} {self.moment}"


def orphans_of(kit: Kit, runs: Collection[Run], killed: Sequence[Killed]) -> list[Orphan]:
    """Return the jobs that run although their task has ended, and crawls, which have no owner, of ended runs."""
    found = []
    for run in runs:
        running = [job for job in run.started if not job.ended and not job.status.startswith("STOPP")]
        if not running:
            continue
        for each in run.instances:
            if each["state"] in UNFINISHED:
                continue
            group = group_of(run, each)
            last = next((one for one in reversed(killed) if one.run == run.token and one.group == group), None)
            act, moment, at = (last.act, last.moment, last.at) if last else ("not killed", "", 0.0)
            if last and moment == WAITING and not _was_picked_up(run, each, last.try_number):
                moment = PICK_UP  # Airflow had assigned it to a triggerer, which had not started it
            name = f"{run.dag_id} {run.token}.{each['task_id']}[{each['map_index']}]"
            found += [Orphan(job, name, moment, act, at) for job in running if job.is_of(run.token, group)]
    return found


def _was_picked_up(run: Run, instance: Mapping[str, Any], try_number: int) -> bool:
    """Return whether a triggerer has started the trigger of a try, which it logs."""
    return " starting" in run.log(instance["task_id"], try_number, instance["map_index"])


def reap(kit: Kit, runs: Collection[Run], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the package's orphan reaper, with the states from Airflow's REST API."""
    from airflow_jobflow.aws import Access, forget_clients
    from airflow_jobflow.reaper import stop_orphans

    def states(dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]) -> dict[str, dict[str, str | None]]:
        found: dict[str, dict[str, str | None]] = {}
        for run in runs:
            if run.dag_id == dag_id and run.token in run_ids:
                for each in run.instances:
                    if each["task_id"] in task_ids:
                        index = each["map_index"]
                        key = each["task_id"] if index < 0 else f"{each['task_id']}_{index}"
                        found.setdefault(run.token, {})[key] = each["state"]
        return found

    forget_clients()
    for name, value in kit.aws.environment().items():
        monkeypatch.setenv(name, value)
    return stop_orphans(
        job_queues=["hello-world-queue"],
        clusters=["jobflow"],
        glue_jobs=[GLUE_JOB],
        access=Access(None, "us-east-1", None, None),
        dry_run=False,
        deployment_id=DEPLOYMENT,
        states=states,
        now=lambda: time.time() + AGE,
    )
