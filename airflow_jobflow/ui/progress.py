"""Publish the progress of a task's jobs to the "Jobs" tab while a trigger waits for them.

Invariants:

- Publishing never delays a wait and never makes it fail: it uses an asyncio task and threads of its own.
- A wait that ends within ``FIRST_NOTE_DELAY`` seconds writes nothing. A note that is already stored is not written
  again: the worker writes one on a single job before it defers.
- A task writes at most every ``NOTE_INTERVAL`` seconds, and all tasks of the process together at most
  ``MAX_NOTES_PER_SECOND``. If there are more changes, the last one wins.
- Nothing is written after a trigger has ended, so that a note never replaces one of the task's next try. Only a trigger
  that was killed writes how its jobs ended, if the task is failed, skipped or marked as a success.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace, TracebackType
from typing import Any, Protocol, Self

from airflow.sdk import conf

from airflow_jobflow.airflow_compat.states import ENDED_STATES, current_states
from airflow_jobflow.airflow_compat.xcoms import set_xcom
from airflow_jobflow.aws import ONCE, Access, run, service_client
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import batch
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.links import JobLogLink, console_links
from airflow_jobflow.polling.watcher import Watcher
from airflow_jobflow.ui import notes

log = logging.getLogger(__name__)

FIRST_NOTE_DELAY = 10.0
"""Seconds of a wait before the first note: a short job is described by its outcome."""

NOTE_INTERVAL = 10.0
"""Minimum seconds between two notes of a task."""

MAX_NOTES_PER_SECOND = 5.0
"""Maximum notes per second of all tasks of a process."""

LISTING_INTERVAL = 30.0
"""Seconds between two listings of an array's failed children."""

MAX_LISTINGS_PER_SECOND = 1.0
"""Maximum listings per second for all arrays of a process."""

MAX_LOAD = 0.5
"""Failed children are listed only while the watcher needs at most this share of its budget."""

NoteFactory = Callable[[], dict[str, Any]]
"""Builds the note; called in a thread."""


class Publishable(Protocol):
    """What publishes an XCom of its task from time to time."""

    async def publish(self) -> bool:
        """Publish it, and return whether that took a turn."""


class Progress:
    """Publishes the progress of one task. A context manager: nothing is written outside.

    :param task_instance: the task instance; None to publish nothing.
    :param look: called on the event loop when a note is due; returns the function that builds it.
    :param noted: the digest of the note that is already stored. Default None: there is none.
    """

    def __init__(self, task_instance: Any, look: Callable[[], NoteFactory], noted: str | None = None) -> None:
        self._of: dict[str, Any] | None = task_instance and {
            "dag_id": task_instance.dag_id,
            "task_id": task_instance.task_id,
            "run_id": task_instance.run_id,
            "map_index": task_instance.map_index,
        }
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self._next = float("inf")
        self.noted = noted
        """The digest of the last note."""
        self.note: dict[str, Any] | None = None
        """The last note that was written by this object."""
        self._is_queued = False

    def __enter__(self) -> Self:
        self._next = asyncio.get_running_loop().time() + FIRST_NOTE_DELAY
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._of = None
        if self._timer:
            self._timer.cancel()

    @property
    def open(self) -> bool:
        """Whether notes may still be written."""
        return self._of is not None

    def changed(self) -> None:
        """Schedule a note, because the state has changed."""
        if self.open and not self._is_queued:
            self._is_queued = True
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(self._next, loop.time()), _board().append, self)

    async def publish(self) -> bool:
        """Write a note, and return whether it took a turn: False if there was nothing to write."""
        self._is_queued = False
        if self._of is None:
            return False
        self._next = asyncio.get_running_loop().time() + NOTE_INTERVAL
        of = self._of
        try:
            if not await self._is_wanted():
                return True
            make = self._look()
            return await asyncio.to_thread(self._write, make, of)
        except Exception as error:  # noqa: BLE001 -- an XCom backend may raise anything; the wait continues
            log.warning("Could not update the Jobs tab for task %s: %s", of["task_id"], error)
            return True

    async def _is_wanted(self) -> bool:
        """Return whether the note may be written now."""
        return True

    def _write(self, make: NoteFactory, of: dict[str, Any]) -> bool:
        note = make()
        if (digest := notes.digest(note)) == self.noted:
            return False
        if not self.open:
            return False
        set_xcom(SimpleNamespace(**of), notes.KEY, note)
        self.noted, self.note = digest, note
        return True


class Board:
    """Writes the notes of all tasks of a process, one after the other.

    :param per_second: the most notes per second. Default ``MAX_NOTES_PER_SECOND``.
    """

    def __init__(self, per_second: float = MAX_NOTES_PER_SECOND) -> None:
        self._per_second = per_second
        self._waiting: deque[Publishable] = deque()
        self._writer: asyncio.Task[None] | None = None
        self.next_listing = 0.0

    def append(self, progress: Publishable) -> None:
        """Queue a task for its next note.

        :param progress: publishes it.
        """
        self._waiting.append(progress)
        if self._writer is None or self._writer.done():
            # In its own context. Otherwise its log lines would go to the log of the task that came first.
            self._writer = asyncio.get_running_loop().create_task(self._write(), context=contextvars.Context())

    async def _write(self) -> None:
        while self._waiting:
            if await self._waiting.popleft().publish():
                await asyncio.sleep(1 / self._per_second)


class LastNote(Progress):
    """Publishes how the jobs of a task ended after its trigger was killed.

    Airflow accepts XComs for tasks in any state. So the state is queried first: after a clear, the XComs belong to the
    next try.
    """

    _turn: asyncio.Future[None] | None = None
    """Done when the note is written; None if none is queued."""

    async def write(self) -> None:
        """Queue the note among all notes of the process, and wait until it is written."""
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
            _board().append(self)
        await asyncio.shield(self._turn)

    async def publish(self) -> bool:
        """Write the note; see the base class."""
        turn, self._turn = self._turn, None
        try:
            return await super().publish()
        finally:
            if turn and not turn.done():
                turn.set_result(None)

    async def _is_wanted(self) -> bool:
        [state] = await current_states([SimpleNamespace(**self._of or {})])
        return state in ENDED_STATES


_boards: dict[asyncio.AbstractEventLoop, Board] = {}


def _board() -> Board:
    """Return this event loop's board."""
    loop = asyncio.get_running_loop()
    for closed in [each for each in _boards if each.is_closed()]:
        del _boards[closed]
    return _boards.setdefault(loop, Board())


class FailedChildren:
    """Lists the failed children of an array from time to time.

    :param access: the AWS connection to use.
    :param job_id: the id of the array.
    :param watcher: the watcher of the array, whose calls have priority.
    :param interval: poll interval of the array in seconds.
    :param progress: notified of newly failed children.
    """

    def __init__(
        self, access: Access, job_id: str, watcher: Watcher[Snapshot], interval: float, progress: Progress
    ) -> None:
        self._access = access
        self._job_id = job_id
        self._watcher = watcher
        self._interval = interval
        self._progress = progress
        self._counted = 0
        self._task: asyncio.Task[None] | None = None
        self.known: dict[int, Snapshot] = {}

    def observe(self, snapshot: Snapshot) -> None:
        """Record how many children have failed.

        :param snapshot: the state of the array.
        """
        self._counted = snapshot.array.failed if snapshot.array else 0
        if self._counted and self._task is None and self._progress.open:
            self._task = asyncio.get_running_loop().create_task(self._list_periodically())

    def close(self) -> None:
        """Stop listing."""
        if self._task:
            self._task.cancel()

    async def _list_periodically(self) -> None:
        client = service_client(self._access, batch.CLIENT)
        while len(self.known) < notes.MAX_FAILED_CHILDREN:
            if self._counted > len(self.known) and self._may_list():
                with contextlib.suppress(CallError):  # retried at the next interval
                    listed = await run(
                        client, batch.failed_children, self._job_id, notes.MAX_FAILED_CHILDREN, retry=ONCE
                    )
                    self.known = {child.index: child.snapshot for child in listed}
                    self._progress.changed()
            await asyncio.sleep(LISTING_INTERVAL)

    def _may_list(self) -> bool:
        """Return whether a listing is within the budgets now, and record it if so."""
        board, now = _board(), asyncio.get_running_loop().time()
        budget = conf.getfloat("jobflow", "describe_calls_per_second")
        needed = len(self._watcher.job_ids) / (batch.BATCH_SIZE * self._interval)
        if now < board.next_listing or self._watcher.calls_per_second < budget or needed > budget * MAX_LOAD:
            return False
        board.next_listing = now + 1 / MAX_LISTINGS_PER_SECOND
        return True


def note_of(
    service: str,
    seen: Sequence[Snapshot],
    statuses: notes.Seen,
    *,
    total: int,
    buttons: Mapping[str, str],
    failed: Mapping[int, Snapshot] | None = None,
    stops: Mapping[str, str] | None = None,
    error: str = "",
    final: bool = False,
) -> dict[str, Any]:
    """Return a note on jobs, with links to their console pages. Call it in a thread, see `links`.

    :param service: ``batch``, ``ecs``, ``glue_crawl`` or ``glue_run``.
    :param seen: the last known state of the jobs.
    :param statuses: the statuses that each job was seen in.
    :param total: the number of jobs that the task waits for.
    :param buttons: the URLs of the task's buttons, by the keys of their links.
    :param failed: of a single array, the children that are known to have failed, by index. Default: none.
    :param stops: see `notes.of_jobs`.
    :param error: see `notes.of_jobs`.
    :param final: see `notes.of_jobs`.
    """
    pages = {each.job_id: links(service, each) for each in seen[: notes.JOBS]}
    return notes.of_jobs(
        service,
        seen,
        total,
        seen=statuses,
        links=pages,
        failed=failed or {},
        buttons=buttons,
        stops=stops,
        error=error,
        final=final,
    )


def first_note(service: str, seen: Mapping[str, Snapshot], buttons: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return the note on the one job of a task that begins to wait, and the note's digest.

    :param service, buttons: see `note_of`.
    :param seen: what was last seen of the job, by its id.
    """
    now = notes.now()
    statuses = {job_id: [(snapshot.status, now)] for job_id, snapshot in seen.items()}
    note = note_of(service, list(seen.values()), statuses, total=1, buttons=buttons)
    return note, notes.digest(note)


def links(service: str, snapshot: Snapshot) -> dict[str, str]:
    """Return the console's pages of a job in the format of notes. Call it in a thread: the first call is slow.

    :param service: the service.
    :param snapshot: the state of the job.
    """
    known = console_links(service, snapshot)
    page = next((url for link, url in known.items() if link is not JobLogLink), None)
    named = {"console": page, "log": known.get(JobLogLink)}
    return {name: url for name, url in named.items() if url}
