"""The calls of a map that start and find jobs: made in threads, within the rate limit, and retried if that may help.

Invariants:

- After ``stop_starting`` no more jobs are started. Only calls that stop or find jobs are made.
- A start whose response was lost is repeated only with a token that prevents a second job, or after lookups have found
  no job.
- The id of every started job is recorded here, even if the coroutine that started it was cancelled.
- Neither throttling nor an outage ends a retry loop here. Missing permissions and credentials do, after their grace
  period.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from airflow.sdk import conf

from airflow_jobflow.aws import Access, Call, Retry, backoff, full_jitter, run, service_client
from airflow_jobflow.exceptions import CapacityUnavailable
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.calls import START_WITHIN
from airflow_jobflow.jobs.maps import Found, Start, map_service
from airflow_jobflow.jobs.starting import LOOKUPS, NotStarted
from airflow_jobflow.maps.ownership import Ownership
from airflow_jobflow.maps.stopper import MapStopper

log = logging.getLogger(__name__)


class MapCancelled(Exception):
    """No more jobs may be started, so this one was not."""


class OwnershipLost(Exception):
    """Ownership was not confirmed recently, so another process may have started this job; nothing was started here."""


class ItemRejected(Exception):
    """The service rejected a start; nothing was started. The message is the service's."""


class MapCalls:
    """Makes the calls of one map.

    :param access: the AWS connection to use.
    :param service: this package's name for the service, such as ``batch``.
    :param scope: the cluster or Glue job that stop calls name, if the service needs one; else None.
    :param job_group: identifies the map's jobs, see ``jobs.maps``.
    """

    def __init__(self, access: Access, service: str, scope: str | None, job_group: Mapping[str, Any]) -> None:
        jobs = job_service(service)
        self.service = service
        self._map = map_service(service)
        self._job_group = job_group
        self._client = service_client(access, jobs.CLIENT)
        self.stopper = MapStopper(self._client, jobs, scope, self.list_jobs)
        """Makes the calls that stop jobs."""
        grace = conf.getfloat("jobflow", "denied_grace")
        self._retry = Retry(patience=float("inf"), denied_patience=grace, credentials_patience=grace)
        self._retry_start = replace(self._retry, repeatable=self._map.REPEATABLE)
        self._cancelled = False
        self._starts: set[Future[None]] = set()
        """The start calls in progress."""
        self.unrecorded: set[str] = set()
        """The ids of started jobs that the caller has not recorded yet. The caller removes them."""
        self.checkpoint_interval = self._map.CHECKPOINT
        """Seconds between two checkpoints."""
        self.listing_delay = 0.0 if self._map.REPEATABLE else sum(LOOKUPS)
        """Seconds for which a started job may be missing from listings. 0 if a token prevents a second job anyway."""
        self.starts_are_repeatable = self._map.REPEATABLE
        """Whether a token prevents that two triggers start a job twice."""
        self.may_have_unknown_jobs = False
        """Whether a start may have started a job whose id is unknown here. Listing the jobs finds it."""
        self.ownership = Ownership()
        """Whether this trigger owns the map. If not, it starts nothing."""

    # Starting.

    async def start(self, request: dict[str, Any], which: Start) -> str:
        """Start an item's job.

        :param request: the item's request.
        :param which: the item, the attempt, and the turn.
        :return: the job's id.
        :raises CapacityUnavailable: AWS has no capacity for it now; nothing was started.
        :raises ItemRejected: AWS rejected it; nothing was started.
        :raises MapCancelled: ``stop_starting`` was called; nothing was started.
        :raises OwnershipLost: the last heartbeat is too old; nothing was started.
        :raises CallError: permissions or credentials were missing for the whole grace period, or there is no such queue
            or cluster.
        """
        for turn in itertools.count(1):
            try:
                return await run(self._client, self._start, request, which, retry=self._retry_start)
            except NotStarted as error:
                self.may_have_unknown_jobs = True  # ECS has reported failures of tasks that it had started
                raise (CapacityUnavailable if error.may_pass else ItemRejected)(str(error)) from error
            except CallError as error:
                self._raise_unless_lost(error, which)
            if self._map.REPEATABLE:
                await asyncio.sleep(full_jitter(backoff(turn)))
            elif found := await self._find_started(which):
                return found
        raise AssertionError

    def _raise_unless_lost(self, error: CallError, which: Start) -> None:
        """Raise the error of a failed start; return if one of its requests may have started the job."""
        self.may_have_unknown_jobs |= error.sent
        if error.fault in (Fault.NO_CAPACITY, Fault.THROTTLED):
            if not error.sent:
                raise CapacityUnavailable(str(error)) from error
        elif error.fault is Fault.REJECTED:
            raise ItemRejected(str(error)) from error
        elif error.fault is not Fault.TRANSIENT:
            raise error
        log.warning("The response to the start of item %d was lost: %s", which.index, error)

    def _start(self, call: Call, request: dict[str, Any], which: Start) -> str:
        """Start an item's job, unless starting is not allowed any more. Runs in a thread and is never interrupted."""
        in_progress: Future[None] = Future()
        self._starts.add(in_progress)
        try:
            if self._cancelled:
                raise MapCancelled("the task was killed")
            if self.ownership.is_lost:
                raise OwnershipLost
            call.valid_until = time.time() + START_WITHIN
            job_id = self._map.start(call, self._job_group, request, which)
            self.unrecorded.add(job_id)
            return job_id
        finally:
            self._starts.discard(in_progress)
            in_progress.set_result(None)

    async def _find_started(self, which: Start) -> str | None:
        for seconds in LOOKUPS:
            await asyncio.sleep(seconds)
            if found := await run(self._client, self._map.find_submitted, self._job_group, which, retry=self._retry):
                return found
        return None

    def stop_starting(self) -> None:
        """Start no more jobs. Calls that stop or find jobs are still made."""
        self._cancelled = True

    async def wait_for_starts(self) -> None:
        """Wait for the starts in progress, so that ``unrecorded`` is complete."""
        if in_progress := [asyncio.wrap_future(each) for each in list(self._starts)]:
            await asyncio.wait(in_progress)

    # Listing.

    async def list_jobs(self, retry: Retry | None = None) -> list[Found]:
        """List all jobs that the map has started so far, by any trigger.

        :param retry: when a call is repeated. Default: until AWS answers, or has refused for the grace period.
        :raises CallError: they cannot be listed.
        """
        found: list[Found] = []
        cursor: Sequence[str] | None = None
        while True:
            page, cursor = await run(
                self._client, self._map.page, self._job_group, cursor, retry=self._retry if retry is None else retry
            )
            found += page
            if cursor is None:
                return found
