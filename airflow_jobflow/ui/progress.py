"""Tells the "Jobs" tab how far a task's jobs have come, while a trigger waits for them.

What always holds:

- No wait waits for it, or fails because of it: writing goes on in a task and threads of its own.
- A wait that ends within its first ``FIRST`` seconds writes nothing, and none writes what is written already: the
  worker has written how a single job stood before it deferred.
- A task writes at most every ``EVERY`` seconds, all tasks of the process together ``PER_SECOND`` times a second; where
  more is to be told, the last state wins.
- What a trigger has left is not written any more, so that a note never replaces one of the task's next try. Only a
  trigger that was killed writes how its jobs ended, while the task is failed, skipped or marked as a success.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from airflow.sdk import conf

from airflow_jobflow.airflow_compat.states import ENDED_STATES, current_states
from airflow_jobflow.airflow_compat.xcoms import set_xcom
from airflow_jobflow.aws import ONCE, Access, run, service_client
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import batch
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.links import JobLogLink, console_links
from airflow_jobflow.outcomes import failed_children
from airflow_jobflow.polling.watcher import Watcher
from airflow_jobflow.ui import notes

log = logging.getLogger(__name__)

FIRST = 10.0
"""Seconds of a wait before anything is written: most of what a short job tells is in its outcome."""

EVERY = 10.0
"""The least seconds between two XComs of a task."""

PER_SECOND = 5.0
"""The most XComs a second of all tasks of a process."""

LISTED_EVERY = 30.0
"""Seconds between two listings of an array's failed children."""

LISTINGS_PER_SECOND = 1.0
"""The most listings a second of all arrays of a process."""

ROOM = 0.5
"""The share of its budget up to which a watcher may be busy for failed children to be listed beside it."""

Tell = Callable[[], dict[str, Any]]
"""Makes the note; called in a thread."""


class Progress:
    """What is told of one task.

    :param task_instance: the task instance; None for one of which nothing is told.
    :param look: called on the event loop when the time has come; returns what makes the note.
    :param noted: the digest of the note that is there already; None for none.
    """

    def __init__(self, task_instance: Any, look: Callable[[], Tell], noted: str | None = None) -> None:
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
        """The last note that was written here."""
        self._waits_its_turn = False

    def __enter__(self) -> Self:
        self._next = asyncio.get_running_loop().time() + FIRST
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._of = None
        if self._timer:
            self._timer.cancel()

    @property
    def open(self) -> bool:
        """Whether anything may still be told."""
        return self._of is not None

    def changed(self) -> None:
        """Tell how things stand, when the time has come."""
        if self.open and not self._waits_its_turn:
            self._waits_its_turn = True
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(self._next, loop.time()), _board().append, self)

    async def tell(self) -> bool:
        """Write how things stand, and return whether there was anything to be written."""
        self._waits_its_turn = False
        if self._of is None:
            return False
        self._next = asyncio.get_running_loop().time() + EVERY
        of = self._of
        try:
            if not await self._is_wanted():
                return True
            make = self._look()
            return await asyncio.to_thread(self._write, make, of)
        except Exception as error:  # noqa: BLE001 -- whatever an XCom backend raises, the wait goes on
            log.warning("Could not update the Jobs tab for task %s: %s", of["task_id"], error)
            return True

    async def _is_wanted(self) -> bool:
        """Return whether the note may be written now."""
        return True

    def _write(self, make: Tell, of: dict[str, Any]) -> bool:
        note = make()
        if (digest := notes.digest(note)) == self.noted:
            return False
        if not self.open:
            return False
        set_xcom(SimpleNamespace(**of), notes.KEY, note)
        self.noted, self.note = digest, note
        return True


class Board:
    """Writes one note after the other, at the pace that a process may."""

    def __init__(self) -> None:
        self._waiting: deque[Progress] = deque()
        self._writer: asyncio.Task[None] | None = None
        self.next_listing = 0.0

    def append(self, progress: Progress) -> None:
        """Let a task be told of in its turn."""
        self._waiting.append(progress)
        if self._writer is None or self._writer.done():
            # In a context of its own, or its log lines would land in the log of whatever task came first.
            self._writer = asyncio.get_running_loop().create_task(self._write(), context=contextvars.Context())

    async def _write(self) -> None:
        while self._waiting:
            if await self._waiting.popleft().tell():
                await asyncio.sleep(1 / PER_SECOND)


class LastNote(Progress):
    """What is written of a task after its trigger was killed: how its jobs ended.

    Airflow accepts XComs of tasks in any state. So it is asked for the state first: a task that was cleared belongs to
    its next try.
    """

    _turn: asyncio.Future[None] | None = None
    """Done when the note was written; None if it is not to be written."""

    async def write(self) -> None:
        """Write how things stand, in its turn among all notes of the process, and wait for that."""
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
            _board().append(self)
        await asyncio.shield(self._turn)

    async def tell(self) -> bool:
        """Write how things stand; see the base."""
        turn, self._turn = self._turn, None
        try:
            return await super().tell()
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
    """Lists, now and then, which children of an array have failed so far.

    :param access: whom to ask.
    :param job_id: the array's.
    :param watcher: the one that watches the array: its calls go first.
    :param interval: seconds between two looks of its waits.
    :param progress: told when there is more to tell.
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

    def saw(self, snapshot: Snapshot) -> None:
        """Take in how many have failed."""
        self._counted = snapshot.array.failed if snapshot.array else 0
        if self._counted and self._task is None and self._progress.open:
            self._task = asyncio.get_running_loop().create_task(self._list_now_and_then())

    def close(self) -> None:
        """List no more."""
        if self._task:
            self._task.cancel()

    async def _list_now_and_then(self) -> None:
        client = service_client(self._access, batch.CLIENT)
        while len(self.known) < notes.TOLD:
            if self._counted > len(self.known) and self._has_room():
                with contextlib.suppress(CallError):  # it is listed again, if calls are not throttled
                    listed = await run(client, failed_children, self._job_id, notes.TOLD, retry=ONCE)
                    self.known = {child.index: child.snapshot for child in listed}
                    self._progress.changed()
            await asyncio.sleep(LISTED_EVERY)

    def _has_room(self) -> bool:
        """Say whether a listing may be made now, and take note of it if so."""
        board, now = _board(), asyncio.get_running_loop().time()
        budget = conf.getfloat("jobflow", "describe_calls_per_second")
        asked = len(self._watcher.job_ids) / (batch.BATCH_SIZE * self._interval)
        if now < board.next_listing or self._watcher.calls_per_second < budget or asked > budget * ROOM:
            return False
        board.next_listing = now + 1 / LISTINGS_PER_SECOND
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
    """Note how jobs stand. For a thread.

    :param seen: what was last seen of them.
    :param statuses: which statuses each has been seen in.
    :param total: how many are waited for.
    :param buttons: the URLs of the task's buttons.
    :param failed: of a single array, the children that are known to have failed, by index.
    :param stops, error, final: see ``notes.of_jobs``.
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


def links(service: str, snapshot: Snapshot) -> dict[str, str]:
    """Return the console's pages for a job, as notes have them. For a thread: the first time it takes a while."""
    known = console_links(service, snapshot)
    page = next((url for link, url in known.items() if link is not JobLogLink), None)
    named = {"console": page, "log": known.get(JobLogLink)}
    return {name: url for name, url in named.items() if url}
