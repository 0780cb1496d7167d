"""The lookup before a submit in a triggerer: one listing of jobs serves many task instances.

A trigger that replaces another one cannot know whether the other one submitted the job before it died. A listing for
each submit would halve the rate of submits, so the instances of a mapped task, and other tasks whose jobs have the same
name prefix, share it.

Invariants:

- A listing proves that a job does not exist only to a trigger that was created a while before the listing began: its
  predecessor has ended by then, and AWS lists what it submitted.
- A submit relies on a listing for ``MAX_AGE`` seconds only. A process that was suspended in between lists again:
  another triggerer may have taken over its triggers.
- While one thread lists, the others that need the same listing wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_jobflow.jobs.calls import START_WITHIN

if TYPE_CHECKING:
    from airflow_jobflow.jobs.calls import Call

MAX_AGE = 5.0
"""Seconds after which a listing is repeated before another submit."""

SKEW = 60.0
"""Seconds by which the clock of a scheduler may be ahead of AWS's clock."""

RETENTION = 100
"""The most listings to keep."""

ListAttempts = Callable[["Call", float], Mapping[str, str]]
"""Lists jobs since a time: ids by group and token, ``<group>-<token>``."""


@dataclass(slots=True)
class _Listing:
    """The last listing of one kind of jobs.

    :param began_at, ended_at: when it began and ended, in seconds since the epoch.
    :param since: it has the jobs that were created since then.
    :param jobs: their ids.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    began_at: float = 0.0
    ended_at: float = 0.0
    since: float = 0.0
    jobs: Mapping[str, str] = field(default_factory=dict)


_listings: dict[Hashable, _Listing] = {}
_lock = threading.Lock()


def find_attempt(
    call: Call,
    key: Hashable,
    list_attempts: ListAttempts,
    attempt: str,
    *,
    created_before: float,
    started_at: float,
    clock: Callable[[], float] = time.time,
) -> str | None:
    """Return the id of the job that an attempt has started, or None. Blocks.

    When it returns None, the listing is recent, and the turn of the next call has come. That call must be sent soon.

    :param call: makes the API calls.
    :param key: equal for tasks that can share a listing.
    :param list_attempts: lists the jobs.
    :param attempt: ``<group>-<token>``.
    :param created_before: the listing must have begun after this time, in seconds since the epoch.
    :param started_at: when the task was started, in seconds since the epoch; no job of it is older.
    :param clock: returns the time in seconds since the epoch.
    :raises CallError: the jobs cannot be listed.
    """
    with _lock:
        listing = _listings[key] = _listings.pop(key) if key in _listings else _Listing()  # least recently used first
        while len(_listings) > RETENTION:
            del _listings[next(iter(_listings))]
    since = started_at - SKEW
    while True:
        with listing.lock:
            now = clock()
            is_old = created_before > listing.began_at or now - listing.ended_at > MAX_AGE
            if is_old or since < listing.since:
                listing.jobs = list_attempts(call, since)
                listing.began_at, listing.ended_at, listing.since = now, clock(), since
            relied_on = listing.ended_at
            if found := listing.jobs.get(attempt):
                return found
        call.wait_for_turn()
        if clock() - relied_on <= MAX_AGE:
            call.valid_until = clock() + START_WITHIN
            return None
