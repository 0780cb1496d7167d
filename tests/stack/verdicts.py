"""The checks of a DAG run with any faults: no job is started twice, none keeps running, no task waits forever, and
every outcome belongs to its job.

Invariants: each breach is reported, and belongs to one of four kinds, so that the breaches of a thousand runs can be
counted.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.stack.errors import StackError
from tests.stack.kills import Killed
from tests.stack.kit import RUN_PATIENCE, Kit, Run
from tests.stack.ledger import CRAWLER, Started

DUPLICATE: Final = "duplicate job"
"""A job that was started and is in no outcome, or two jobs with the same token."""
ORPHAN: Final = "orphaned job"
"""A job that runs although its task has ended."""
LOST_END: Final = "lost end"
"""A run that does not end."""
WRONG: Final = "wrong outcome"
"""A task that failed, or whose outcome is not that of its own job."""
KINDS: Final = (DUPLICATE, ORPHAN, LOST_END, WRONG)

STOPPING: Final = 10.0
"""Seconds for which a stopped job may still run."""
SLACK: Final = 1.0
"""Maximum difference in seconds between two times of AWS."""

ARRAY_SIZE: Final = 3
"""The size of every array in the tests' DAGs."""


@dataclass(frozen=True)
class Breach:
    """A breach of the requirements.

    :param kind: one of `KINDS`.
    """

    kind: str
    words: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


def breaches(
    kit: Kit, run: Run, code: int = 0, *, kills: Sequence[Killed] = (), patience: float = RUN_PATIENCE
) -> list[Breach]:
    """Wait for the end of a run, and return its breaches.

    :param code: the exit code of its jobs.
    :param kills: the kills of users. The result of a killed run is not checked, and `kills` finds jobs that still run.
    :param patience: maximum seconds until its end.
    """
    return list(_breaches(kit, run, code, kills, patience))


def _breaches(kit: Kit, run: Run, code: int, kills: Sequence[Killed], patience: float) -> Iterator[Breach]:
    try:
        state = run.ends(patience)
    except StackError as error:
        yield Breach(LOST_END, str(error))
        return
    yield from _at_once(run, kills)
    if not kills:
        yield from _untouched(kit, run, code, state)


def _untouched(kit: Kit, run: Run, code: int, state: str) -> Iterator[Breach]:
    """Return the breaches of a run that no user has killed."""
    for job in run.started:
        if job.stopped:
            yield Breach(WRONG, f"{run}: nobody wanted {job.job_id} to be stopped")
    if state != "success":
        yield Breach(WRONG, f"{run} is {state}: {run.states}, {run.tries} tries")
    outcomes = list(_outcomes(run))
    for name, token, outcome in outcomes:
        code_of = 0 if name.startswith(("each", "crawl")) else code
        for words in _wrong_with(kit, outcome, token, code_of) if outcome else ["there is none"]:
            yield Breach(WRONG, f"{run} {name}: {words}: {outcome}")
    mine = Counter(job_of(outcome) for _, _, outcome in outcomes if outcome)
    started = Counter(each.job_id for each in run.started)
    for job_id in (started - mine - _failed_before(run, mine, code)).elements():
        yield Breach(DUPLICATE, f"{run} started {job_id} beside {sorted(mine)}")
    for job_id in (mine - started).elements():
        yield Breach(WRONG, f"{run} has an outcome of {job_id}, and started {sorted(started)}")
    try:
        run.leaves_no_job_running()
    except StackError as error:
        yield Breach(ORPHAN, str(error))


def _at_once(run: Run, kills: Sequence[Killed]) -> Iterator[Breach]:
    """Return the jobs of one task, or of one item of a map, that ran at the same time. A stopped job may take a while
    to end.
    """
    jobs: dict[tuple[str | None, str], list[Started]] = {}
    for job in run.started:
        if job.service != "glue_crawl":
            jobs.setdefault((job.group, job.item), []).append(job)
    for of_one in jobs.values():
        of_one.sort(key=lambda each: each.began)
        for earlier, later in itertools.pairwise(of_one):
            stopping = STOPPING if kills and earlier.stopped else SLACK
            if earlier.ended_at is None or earlier.ended_at > later.began + stopping:
                yield Breach(DUPLICATE, f"{run} ran two jobs at once: {earlier}, {later}")


def _failed_before(run: Run, mine: Counter[str], code: int) -> Counter[str]:
    """Return the attempts that had failed by themselves when their task's worker died: a retry then starts the next
    attempt.

    A map continues instead, and failures of its items are part of its result.
    """
    if not code or run.dag_id == "stack_maps":
        return Counter()
    last = [job for job in run.started if job.job_id in mine]
    failed = [
        job.job_id
        for job in run.started
        if job.job_id not in mine
        and any(job.service == other.service and (job.ended_at or other.began) < other.began for other in last)
    ]
    return Counter(failed[: sum(run.tries.values()) - len(run.tries)])


def duplicates(kit: Kit) -> list[Breach]:
    """Return the tokens that were used twice, by any run; each is returned once."""
    return [Breach(DUPLICATE, f"{token} was used twice") for token in kit.ledger.used_twice()]


def job_of(outcome: Mapping[str, Any]) -> str:
    """Return the id of a job in the ledger; the outcome of a crawl has another one."""
    if outcome["service"] != "glue_crawl":
        return str(outcome["job_id"])
    details = outcome.get("details") or {}
    return str(details.get("crawl_id") or details.get("message_prefix"))


def _outcomes(run: Run) -> Iterator[tuple[str, str, Mapping[str, Any] | None]]:
    """Return the outcomes of a run, one per job: the task's name, the output of the job, and the outcome if there is
    one.
    """
    for name in run.states:
        task_id, _, index = name.rstrip("]").partition("[")
        returned = run.returned(task_id, map_index=int(index or -1)) or {}
        if "statuses" in returned:
            for number, each in enumerate(returned["outcomes"]):
                yield f"{name}[{number}]", f"{run.token}{number}", each
        else:
            yield name, run.token + (CRAWLER if task_id == "crawl" else index), returned or None


def _wrong_with(kit: Kit, outcome: Mapping[str, Any], token: str, code: int) -> Iterator[str]:
    state = "FAILED" if code else "SUCCEEDED"
    if outcome["state"] != state:
        yield f"not {state}"
    array = outcome.get("array") or {}
    if not array:
        written = kit.ledger.log(outcome)
        if not any(token in line.split() for line in written.splitlines()):
            yield f"{token} is not in its log, which says {written!r}"
        return
    counted = (array["size"], array["succeeded"], array["failed"])
    if counted != (ARRAY_SIZE, 0 if code else ARRAY_SIZE, ARRAY_SIZE if code else 0):
        yield "its children are not counted once each"
    for child in kit.ledger.children(outcome["job_id"], ARRAY_SIZE):
        streams = [each["container"]["logStreamName"] for each in child["attempts"]]
        if [kit.ledger.written("/aws/batch/job", each) for each in streams] != [token]:
            yield f"child {child['jobId']} did not run once: {child['attempts']}"
