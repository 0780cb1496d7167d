"""One trigger for every service: it waits until jobs have ended, or their deadline has passed.

It asks the process's watcher, so a thousand triggers cost ten describe calls a round. Its arguments hold all there is
to know; a triggerer may die at any moment and another one goes on.

Invariants:

- Cancelling it stops nothing in AWS. Only ``on_kill``, which Airflow calls when a user acts on the task, and a passed
  deadline stop jobs, and only those of the operator that started them.
- A job is never stopped because it cannot be described.
- A job that had ended by its deadline has ended, not timed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobflow import metrics
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.links import pages
from airflow_jobflow.polling.errors import WatchError
from airflow_jobflow.polling.watcher import Watcher
from airflow_jobflow.stopping import Stopper
from airflow_jobflow.triggers.base import KILLED, WaitTrigger, kind_of
from airflow_jobflow.triggers.ending import success
from airflow_jobflow.ui import notes
from airflow_jobflow.ui.progress import FailedChildren, LastNote, Progress, note_of

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent

STATUSES = 20
"""The most statuses of a job that the tab is told of."""

LAST_DESCRIBE = 5.0
"""Seconds in which a describe call must be answered for it to count when a deadline has passed. The watcher makes one
for new waits within a second."""

STOP_WAIT = 25.0
"""Seconds for which an event waits until the jobs are stopped. Together with the other waits, less than
``waiting.DEFERRAL_TIMEOUT_MARGIN``. Jobs that are not stopped by then are stopped in the background."""

STOP_WAIT_IN_WORKER = 300.0
"""The same in a worker, where nothing goes on in the background."""

END_WAIT = 120.0
"""Seconds for which jobs that a kill has stopped are described, so that the tab shows how they ended. AWS gives a
container up to two minutes to end by itself."""

DEADLINES = {
    "deadline": "The deadline of the Airflow task has passed",
    "queue_deadline": "The queue deadline of the Airflow task has passed",
}
"""What AWS and the log are told when a deadline stops a job."""

log = logging.getLogger(__name__)
"""Of the module, not of each trigger: which task a line belongs to, Airflow knows from the context it is logged in."""


class JobTrigger(WaitTrigger):
    """Waits for jobs of one service.

    :param service: our name of the service, such as ``batch``.
    :param job_ids: the jobs' ids.
    :param scope: what a describe call is confined to, where the service has such a thing.
    :param container_name: the name of the container that counts; None for the one that AWS's rules make decide.
    :param queue_deadline: when to stop waiting if no job has left the queue by then, in seconds since the epoch; None
        for never.
    :param told: what the task's log says of each job already; only what differs is said again.
    :param returns: what the task returns if it ends here, one of the words of ``triggers.ending``; None where a worker
        is to end it.
    :param tells: whether the "Jobs" tab is told how the jobs stand.
    :param noted: the digest of the note that the tab has already; None for none.
    :param links: the URLs in the last note, where the buttons find them; None where they do not.

    The others are those of :class:`airflow_jobflow.triggers.base.WaitTrigger`.

    When a deadline passes, the jobs are described once more. If one has left the queue, its queue deadline is void, and
    the wait goes on. If all have ended, no deadline has passed. Else, with ``cancel_on_timeout``, those that have not
    ended are stopped, before the event is fired.

    Fires one event, a dict of

    - ``job_ids``: the ids.
    - ``jobs``: ``{id: snapshot}``, what was seen last; of jobs that were stopped, what was seen before that.
    - ``errors``: ``{id: {"kind", "message"}}``, the jobs that can be watched no longer: ``vanished``, ``denied``,
      ``credentials`` (there were none, or AWS did not accept them), ``unanswerable``.
    - ``limit``: which deadline has passed, ``deadline`` or ``queue_deadline``; None if none has.
    - ``links``: the URLs in the last note, as above.
    - ``stopped``: the ids of jobs that were stopped because of the deadline.
    - ``unstopped``: ``{id: message}``, those that were to be stopped because of it, and were not. A triggerer reports
      this after 25 s, and tries for ten more minutes; a worker tries for five minutes.

    Both are empty without ``cancel_on_timeout``. A job that is in neither, although ``limit`` is set, has ended.
    """

    def __init__(
        self,
        *,
        service: str,
        job_ids: Sequence[str],
        scope: str | None = None,
        container_name: str | None = None,
        queue_deadline: float | None = None,
        told: Mapping[str, str] | None = None,
        returns: str | None = None,
        tells: bool = False,
        noted: str | None = None,
        links: Mapping[str, str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.service = service
        self.job_ids = list(job_ids)
        self.scope = scope
        self.container_name = container_name
        self.queue_deadline = queue_deadline
        self.told = dict(told or {})
        self.returns = returns
        self.tells = tells
        self.noted = noted
        self.links = None if links is None else dict(links)
        self._seen: dict[str, Snapshot] = {}
        self._statuses: dict[str, list[tuple[str, str]]] = {}
        """The statuses that each job was seen in, and since when, as far as the tab is told of them."""
        self._errors: dict[str, dict[str, str]] = {}
        self._failed_children: Mapping[int, Snapshot] = {}
        """Of an array, by index, as far as they are known."""
        self._open = set(self.job_ids)
        self._left_queue = False

    @functools.cached_property
    def _stopper(self) -> Stopper:
        return Stopper(self.access, self.service, self.scope, self.spawn)

    async def wait(self) -> dict[str, Any]:
        """Wait until every job has ended or cannot be watched, or a deadline has passed, and return the event."""
        began = time.time()
        limit = await self._watch()
        while limit and await self._is_void(limit):
            limit = await self._watch() if self._open else None
        if not limit:
            metrics.ended(self.service, self._seen.values(), began)
        elif self.cancel_on_timeout:
            self._stop(DEADLINES[limit])
            await self._stopper.wait(STOP_WAIT if self.task_instance else STOP_WAIT_IN_WORKER)
        else:
            log.info("%s", DEADLINES[limit])
        return {
            "job_ids": self.job_ids,
            "jobs": {job_id: snapshot.to_dict() for job_id, snapshot in self._seen.items()},
            "errors": self._errors,
            "limit": limit,
            "links": self.links,
            "stopped": self._stopper.stopped,
            "unstopped": dict(self._stopper.unstopped),
        }

    async def _watch(self) -> str | None:
        """Wait until no job is open any more, or a deadline has passed; return the name of that deadline."""
        watcher = self.watcher(self.service, self.scope)
        limit: str | None = None
        try:
            async with asyncio.timeout(None) as timer:
                limit = self._set(timer)
                with (
                    watcher.subscribe(self._in_order(), self.poll_interval) as wait,
                    self._progress(watcher) as progress,
                ):
                    async for job_id, news in wait:
                        await self._take(job_id, news)
                        progress(job_id, news)
                        if job_id not in self._open:
                            watcher.unsubscribe(job_id, wait)
                        if not self._open:
                            return None
                        limit = self._set(timer)
        except TimeoutError:
            return limit
        raise AssertionError("a wait does not end by itself")

    async def _is_void(self, limit: str) -> bool:
        """Describe the open jobs once more, and return whether the deadline that has passed counts no longer."""
        left = self._in_order()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_DESCRIBE):
                with self.watcher(self.service, self.scope).subscribe(left, self.poll_interval) as wait:
                    async for job_id, news in wait:
                        if isinstance(news, Snapshot):  # that it cannot be described is no news now
                            await self._take(job_id, news)
                        if job_id in left:
                            left.remove(job_id)
                        if not left:
                            break
        return not self._open or (limit == "queue_deadline" and self._left_queue)

    def _in_order(self) -> list[str]:
        return [job_id for job_id in self.job_ids if job_id in self._open]

    async def end(self, event: dict[str, Any]) -> TriggerEvent | None:
        """End the task here if all its jobs have succeeded, and it says what it returns then."""
        if self.returns is None or self.task_instance is None or event["limit"] or event["errors"]:
            return None
        seen = [self._seen[job_id] for job_id in self.job_ids]
        return await success(self.task_instance, self.access, self.service, seen, self.returns, noted=self.links)

    @contextlib.contextmanager
    def _progress(self, watcher: Watcher[Snapshot]) -> Iterator[Callable[[str, Snapshot | WatchError], None]]:
        """Let the tab be told how the jobs stand; yields what takes in what the watcher says."""
        told_of = frozenset(self.job_ids[: notes.JOBS])
        told = self.task_instance if self.tells else None
        with Progress(told, lambda: self._tell(failed.known), self.noted) as progress:
            failed = FailedChildren(self.access, self.job_ids[0], watcher, self.poll_interval, progress)

            def take(job_id: str, news: Snapshot | WatchError) -> None:
                if not progress.open or isinstance(news, WatchError):
                    return
                if job_id in told_of:
                    seen = self._statuses.setdefault(job_id, [])
                    if len(seen) < STATUSES and (not seen or seen[-1][0] != news.status):
                        seen.append((news.status, notes.now()))
                if len(self.job_ids) == 1:
                    failed.saw(news)
                progress.changed()

            try:
                yield take
            finally:
                failed.close()
                self._failed_children = failed.known
                self.noted = progress.noted
                if progress.note and self.links is not None:
                    self.links = progress.note["links"]

    def _tell(self, failed: Mapping[int, Snapshot], *, final: bool = False) -> Callable[[], dict[str, Any]]:
        """Return what makes the note of how the jobs stand now.

        :param final: whether the task waits no longer, because it was killed.
        """
        seen = [self._seen[job_id] for job_id in self.job_ids if job_id in self._seen]
        statuses = {job_id: tuple(each) for job_id, each in self._statuses.items()}
        stops = dict(self._stopper.stopped_at) if final else {}
        noun, left = job_service(self.service).DISPLAY_NAME, self._stopper.unstopped if final else {}
        error = "\n".join(
            f"Could not stop {noun} {job_id}, and it may still run: {said}" for job_id, said in left.items()
        )

        def note() -> dict[str, Any]:
            # A task has one button of a kind: of several jobs, which one it leads to is known in the end.
            buttons = pages(self.service, seen[0]) if seen and len(self.job_ids) == 1 else {}
            return note_of(
                self.service,
                seen,
                statuses,
                total=len(self.job_ids),
                buttons=buttons,
                failed=failed,
                stops=stops,
                error=error,
                final=final,
            )

        return note

    def _set(self, timer: asyncio.Timeout) -> str | None:
        """Set the timer to the deadline that comes first, and return its name."""
        limits = {"deadline": self.deadline}
        if not self._left_queue:
            limits["queue_deadline"] = self.queue_deadline
        when, name = min(((when, name) for name, when in limits.items() if when is not None), default=(None, None))
        timer.reschedule(None if when is None else asyncio.get_running_loop().time() + when - time.time())
        return name

    async def _take(self, job_id: str, news: Snapshot | WatchError) -> None:
        """Take in what the watcher says of a job; what is new for a person becomes a line in the task's log.

        In a thread: where thousands of waits end at once, the way to the logs is full, and writing to it blocks.
        """
        if isinstance(news, WatchError):
            self._errors[job_id] = {"kind": kind_of(news), "message": str(news)}
            self._open.discard(job_id)
            return
        news = self._seen[job_id] = news.counting(self.container_name)
        self._left_queue |= news.left_queue
        if news.state.ended:
            self._open.discard(job_id)
        if self.told.get(job_id) != news.progress():
            self.told[job_id] = news.progress()
            await asyncio.to_thread(
                log.info, "%s %s: %s", job_service(self.service).DISPLAY_NAME, job_id, news.progress()
            )

    @property
    def subject(self) -> str:
        """What is waited for, for log lines."""
        return f"{job_service(self.service).DISPLAY_NAME} {', '.join(self.job_ids)}"

    async def stop_jobs(self) -> None:
        """Stop the jobs, because the task was killed, and record for the tab how they ended."""
        self._stop(KILLED)
        await self._stopper.wait()
        if not self.tells or self.task_instance is None:
            return
        note = LastNote(self.task_instance, lambda: self._tell(self._failed_children, final=True))
        self.spawn(note.write())  # at once: containers may take minutes to end
        await self._until_ended()
        await note.write()

    async def _until_ended(self) -> None:
        """Describe the jobs that were stopped until they have ended, for at most ``END_WAIT`` seconds."""
        left = [job_id for job_id in self._in_order() if job_id in self._stopper.stopped]
        if not left:
            return
        watcher = self.watcher(self.service, self.scope)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WAIT):
                with watcher.subscribe(left, self.poll_interval) as wait:
                    async for job_id, news in wait:
                        await self._take(job_id, news)
                        if job_id not in self._open:
                            watcher.unsubscribe(job_id, wait)
                        if self._open.isdisjoint(left):
                            return

    def _stop(self, reason: str) -> None:
        """Begin to stop the jobs that are not known to have ended, or to be gone."""
        for job_id in self.job_ids:
            seen = self._seen.get(job_id)
            is_gone = self._errors.get(job_id, {}).get("kind") == "vanished"
            if not is_gone and not (seen and seen.state.ended):
                self._stopper.stop(job_id, reason, seen.progress() if seen else None)
