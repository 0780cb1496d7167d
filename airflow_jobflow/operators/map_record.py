"""What a try of a map records for the next one: which items it runs, how they are found, and how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_jobflow.airflow_compat.task_context import task_state_store
from airflow_jobflow.exceptions import SubmissionError
from airflow_jobflow.jobs.array import index_ranges, indexes_of
from airflow_jobflow.jobs.attempt import Attempt, MapRecord
from airflow_jobflow.maps.previous_results import PreviousResults, load_previous_results

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.operators.spec import MapSpec
    from airflow_jobflow.waiting.remote import RemoteJobs

STOPPED = "What ran was stopped."
"""The sentence that says that all jobs of a map were stopped."""


class MapAttempt:
    """The map that a try of a task runs, and the record of it.

    :param spec: what each item runs.
    :param record: the attempt.
    :param jobs: the jobs of the task in AWS.
    :param log: the task's log.
    """

    def __init__(self, spec: MapSpec, record: AttemptRecord, jobs: RemoteJobs, log: Any) -> None:
        self._spec = spec
        self._record = record
        self._jobs = jobs
        self._logger = log

    @property
    def map(self) -> MapRecord:
        """What is recorded of the map; empty if there is none."""
        return self._record.attempt.map or MapRecord(over=True)

    @property
    def name(self) -> str:
        """The name of the map in messages."""
        return "-".join(filter(None, (self._spec.name, self._record.attempt.token)))

    @property
    def may_run(self) -> bool:
        """Whether a map was begun that is not known to be over."""
        return not self.map.over

    def begin(self, digest: str, indexes: Sequence[int], size: int) -> None:
        """Record that a new map begins.

        :param digest: the digest of all items.
        :param indexes: the items that run.
        :param size: how many items there are.
        :raises SubmissionError: it cannot be recorded; nothing was started.
        """
        record = self._record
        record.attempt.number, record.attempt.waits_since = 0, None
        record.new_attempt()
        follows, family = len(indexes) < size, self._spec.family(record)
        record.attempt.map = MapRecord(digest, index_ranges(indexes), follows, family)
        record.save()
        self._logger.info("Map %s: %d of %d items are to be run", self.name, len(indexes), size)

    def record_end(self) -> None:
        """Record that the map has ended, so that no later try continues with it."""
        self._record.attempt.map = replace(self.map, over=True)
        self._record.save_if_possible()

    def left_indexes(self) -> list[int]:
        """Return the items that the recorded map still has to run."""
        return indexes_of(self.map.indexes)

    def continues(self, digest: str) -> bool:
        """Return whether the map of an earlier try continues: with equal items, not ended, not killed, not cleared.

        :param digest: the digest of all items.
        :raises SubmissionError: the location of this try's jobs cannot be resolved.
        """
        record, attempt = self._record, self._record.attempt
        is_here = attempt.location == record.location
        if self.may_run and not is_here:
            self._logger.warning(
                "The map of an earlier try (%s) was not ended, and is not continued, because this try starts its jobs "
                "elsewhere: then %r, now %r. Its jobs in the old location are not stopped",
                attempt.token,
                attempt.location,
                record.location,
            )
        is_wanted = not attempt.abandoned and attempt.clear_number == record.clear_number
        return is_here and is_wanted and self.map.digest == digest and self.may_run

    def end_earlier(self, stop_all: Callable[[str, Sequence[str]], str]) -> None:
        """Stop the jobs of an earlier try's map that is not continued.

        :param stop_all: stops the recorded map's jobs, and returns a sentence.
        :raises SubmissionError: they cannot be stopped; nothing was started.
        """
        if not self._record.has_store:
            self._end_unrecorded()
        elif self.may_run and self._record.attempt.location == self._record.location:
            self._logger.info("Not continuing with the unfinished map of an earlier try: stopping its jobs")
            said = stop_all("Airflow: the task was run again", ())
            if said != STOPPED:
                left = f"jobs of an earlier try of map {self._spec.name} could not be stopped"
                raise SubmissionError(f"Nothing was started, because {left}. {said}")
            # So that a later try does not continue with it, if this one ends before it records its own.
            self._record.attempt.map = replace(self.map, over=True)
            self._record.save()

    def _end_unrecorded(self) -> None:
        """Stop the jobs of earlier tries, if Airflow has no task state store.

        :raises SubmissionError: they cannot be found or stopped; nothing was started.
        """
        from airflow_jobflow.faults import CallError

        if self._record.is_first_try:
            return
        try:
            self.stop_unrecorded("Airflow: the task was run again")
        except CallError as error:
            raise SubmissionError(
                f"Nothing was started, because jobs of an earlier try could not be found or stopped: {error}"
            ) from error

    def stop_unrecorded(self, reason: str) -> None:
        """Stop all jobs of this task instance, of all tries, if Airflow has no task state store.

        :param reason: for AWS and for the log.
        :raises CallError: they cannot be found or stopped.
        """
        found = self._jobs.call(self._spec.find_group, self._record.owner.group, Attempt())
        self._jobs.stop([each.job.job_id for each in found if not each.job.state.ended], reason)

    def previous_results(self, digest: str) -> PreviousResults | None:
        """Return how the items ended in an earlier try; None if there was none of equal items since the last clear.

        :param digest: the digest of all items.
        :raises SubmissionError: the task state store cannot be read.
        """
        store = task_state_store(self._record.context)
        if store is None:
            return None
        try:
            return load_previous_results(store, digest, self._record.clear_number)
        except AirflowRuntimeError as error:
            raise SubmissionError(f"The results of the items in an earlier try could not be read: {error}") from error

    def store_results(self, ended: PreviousResults) -> bool:
        """Store how the items ended for a retry; return whether that succeeded.

        :param ended: the results.
        """
        store = task_state_store(self._record.context)
        if store is None:
            return False
        try:
            ended.save(store, self.map.digest, self._record.clear_number)
        except AirflowRuntimeError as error:
            self._logger.warning("A retry will run all items, because their results could not be saved: %s", error)
            return False
        return True

    def record_rest(self, indexes: Sequence[int]) -> None:
        """Record that a retry continues with the rest: AWS may have forgotten by then that the others succeeded.

        :param indexes: the items that still have to run.
        """
        self._record.attempt.map = replace(self.map, indexes=index_ranges(indexes), follows=True)
        self._record.save_if_possible()
