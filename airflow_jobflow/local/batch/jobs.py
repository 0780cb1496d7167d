"""The jobs of one region: the state machine of the local Batch.

Invariants:

- Every change of a job's status happens under one lock and by `move`, which updates times, counts and events.
- The consequences of an ended job for dependent jobs and parents are processed from a list, without recursion: a chain
  of 10,000 sequential children may fail at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from airflow_jobflow.local.batch import model
from airflow_jobflow.local.batch.job import Ending, Job, Submission
from airflow_jobflow.local.errors import ClientException, rejected
from airflow_jobflow.local.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_jobflow.local.batch.model import Json
    from airflow_jobflow.local.moto_backends import Resources

EVENT: Final = "Batch Job State Change"


def now() -> int:
    """Return the time in milliseconds since the epoch, as Batch does."""
    return int(time.time() * 1000)


class Jobs:
    """All submitted jobs.

    :param resources: the resources of the region in moto.
    :param run: called with a runnable job to queue it for a slot.
    :param end_attempt: called to end the attempt of a job that is starting or running.
    """

    def __init__(
        self, resources: Resources, run: Callable[[Job], None], end_attempt: Callable[[Job, Ending], object]
    ) -> None:
        self._resources = resources
        self._run = run
        self._end_attempt = end_attempt
        self._just_ended: deque[Job] = deque()
        self._events: Publisher[Json] = Publisher("batch-events", self._publish)
        self.lock = threading.RLock()
        self.by_id: dict[str, Job] = {}

    def close(self) -> None:
        """Deliver the last events. Call it when all jobs have ended."""
        self._events.close()

    def create(self, submission: Submission) -> Job:
        """Add a job, with its children if it is an array, and return it. Call it within `changing`.

        :param submission: the submission.
        :raises ClientException: it depends on a job that does not exist, or that has another size.
        """
        request, size = submission.request, submission.size
        depends_on = request.get("dependsOn", [])
        for dependency in depends_on:
            self._check_dependency(dependency, size)
        number = len(self.by_id)
        job = Job(submission, submission.job_id, number, now())
        self.by_id[job.job_id] = job
        if size is None:
            self._queue(job, model.dependencies(depends_on, None, None))
            return job
        # Lists are sorted by descending number: this lists children by ascending index.
        job.children = [
            Job(submission, f"{job.job_id}:{index}", number + size - index, job.created_at, index, job)
            for index in range(size)
        ]
        job.counts = Counter({model.SUBMITTED: size})
        for child in job.children:
            self.by_id[child.job_id] = child
        self.move(job, model.PENDING)
        for child in job.children:
            self._queue(child, model.dependencies(depends_on, child.index, job.job_id))
        return job

    def _check_dependency(self, dependency: Json, size: int | None) -> None:
        job_id = dependency.get("jobId")
        if not job_id:
            return
        other = self.by_id.get(job_id)
        if other is None:
            raise ClientException(f"Job {job_id} does not exist")
        if size is not None and dependency.get("type") == "N_TO_N" and len(other.children) != size:
            raise rejected(f"N_TO_N dependency: {job_id} is not an array job of size {size}")

    def _queue(self, job: Job, job_ids: Sequence[str]) -> None:
        """Make a new job wait for its dependencies, fail, or run."""
        others = [self.by_id[job_id] for job_id in job_ids]
        if any(other.status == model.FAILED for other in others):
            self.move(job, model.FAILED, model.DEPENDENCY_FAILED)
            return
        for other in others:
            if not other.ended:
                job.waits_for.add(other.job_id)
                other.waited_for_by.append(job)
        if job.waits_for:
            self.move(job, model.PENDING)
        else:
            self.make_runnable(job)

    def make_runnable(self, job: Job) -> None:
        """Queue the first or another attempt of a job for a slot.

        :param job: the job.
        """
        self.move(job, model.RUNNABLE)
        self._run(job)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock, and then process the consequences of ended jobs."""
        with self.lock:
            yield
            while self._just_ended:
                ended = self._just_ended.popleft()
                for job in ended.waited_for_by:
                    self._dependency_ended(job, ended)
                if ended.parent is not None:
                    self._child_ended(ended.parent)

    def move(self, job: Job, status: str, reason: str | None = None) -> None:
        """Change the status of a job, and update times, counts and events.

        :param job: the job.
        :param status: the new status.
        :param reason: the status reason. Default: none.
        """
        before, job.status = job.status, status
        job.status_reason = reason
        time_now = now()
        if status == model.RUNNABLE:
            job.runnable_at = time_now
        if status == model.RUNNING:
            job.started_at = time_now
        if job.parent is not None:
            job.parent.counts[before] -= 1
            job.parent.counts[status] += 1
            job.parent.counted_at = time_now
        if status in model.ENDED:
            job.stopped_at = time_now
            self._just_ended.append(job)
        self._events.put(job.detail())

    def _dependency_ended(self, job: Job, other: Job) -> None:
        job.waits_for.discard(other.job_id)
        if job.ended:
            return
        if other.status == model.FAILED and job.cancelled is None:
            self.move(job, model.FAILED, model.DEPENDENCY_FAILED)
        elif not job.waits_for:
            if job.cancelled is not None:
                self.move(job, model.FAILED, job.cancelled)
            else:
                self.make_runnable(job)

    def _child_ended(self, parent: Job) -> None:
        status = model.parent_status(parent.counts, len(parent.children))
        if status == model.PENDING or parent.ended:
            return
        reason = None
        if status == model.FAILED:
            never_ran = all(child.status_reason == model.DEPENDENCY_FAILED for child in parent.children)
            failed = model.DEPENDENCY_FAILED if never_ran else model.CHILD_FAILED
            reason = parent.terminated or parent.cancelled or failed
        self.move(parent, status, reason)

    def cancel(self, job: Job, reason: str) -> None:
        """End a job that has not started; others are not changed.

        :param job: the job.
        :param reason: the reason of CancelJob.
        """
        if job.children and not job.ended:
            job.cancelled = reason
            for child in job.children:
                self.cancel(child, reason)
        elif job.status in model.CANCELLABLE:
            job.cancelled = reason
            if not job.waits_for:  # a job that waits for others is cancelled when these have ended
                self.move(job, model.FAILED, reason)

    def terminate(self, job: Job, reason: str) -> None:
        """End a job in any status; an ended one is not changed.

        :param job: the job.
        :param reason: the reason of TerminateJob.
        """
        if job.ended:
            return
        job.terminated = reason
        if job.children:
            for child in job.children:
                self.terminate(child, reason)
        elif job.attempt is not None:
            self._end_attempt(job, Ending(reason))
        else:
            self.move(job, model.FAILED, reason)

    def _publish(self, detail: Json) -> None:
        self._resources.publish("aws.batch", EVENT, [detail["jobArn"]], detail)
