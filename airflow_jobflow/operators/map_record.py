"""What a try of a map records for the next one: which items it runs, how they are found, and how they ended."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_jobflow.exceptions import SubmissionError
from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.array import index_ranges, indexes_of
from airflow_jobflow.jobs.attempt import Attempt, MapRecord
from airflow_jobflow.jobs.packing import pack, unpack
from airflow_jobflow.maps.previous_results import PreviousResults, by_index, load_previous_results

if TYPE_CHECKING:
    from airflow_jobflow.faults import CallError
    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.spec import MapSpec
    from airflow_jobflow.triggers.map import MapTrigger

DEFAULT_ATTEMPTS = 4
"""How many attempts an item gets if there is a cause for which it is started again."""

STOPPED = "Running jobs were stopped."
"""The sentence that says that all jobs of a map were stopped."""


@dataclass(frozen=True)
class MapAttempt:
    """The map that a try of a task runs, and the record of it.

    :param execution: the execution of the operator.
    """

    execution: Execution[MapSpec]

    @property
    def map(self) -> MapRecord:
        """What is recorded of the map; empty if there is none."""
        return self.execution.record.attempt.map or MapRecord(over=True)

    @property
    def name(self) -> str:
        """The name of the map in messages."""
        return "-".join(filter(None, (self.execution.spec.name, self.execution.record.attempt.token)))

    @property
    def called(self) -> str:
        """How messages call the map at the beginning of a sentence."""
        return f"Map {self.name} of {self.execution.jobs.display_name}s"

    @property
    def may_run(self) -> bool:
        """Whether a map was begun that is not known to be over."""
        return not self.map.over

    @property
    def is_unknown(self) -> bool:
        """Whether it is not known which map this try runs.

        Airflow has dropped what the deferral or the event carried, and has no store, or the map was started in the
        triggerer.
        """
        return self.execution.record.attempt.map is None

    def begin(self, digest: str, indexes: Sequence[int], size: int) -> None:
        """Record that a new map begins.

        :param digest: the digest of all items.
        :param indexes: the items that run.
        :param size: how many items there are.
        :raises SubmissionError: it cannot be recorded; nothing was started.
        """
        record = self.execution.record
        self.execution.spec.prepare(self.execution.jobs)
        record.attempt.number, record.attempt.waits_since = 0, None
        record.new_attempt()
        follows, job_group = len(indexes) < size, self.execution.spec.job_group(record)
        if function := self.execution.spec.function:
            job_group["variables"] = function.variables
        record.attempt.map = MapRecord(digest, index_ranges(indexes), follows, job_group)
        record.save()
        self.execution.log.info("Map %s: %d of %d items will run", self.name, len(indexes), size)

    def trigger(
        self, size: int, indexes: Sequence[int], lines: Sequence[str], *, continues: bool = False
    ) -> MapTrigger:
        """Return the trigger that runs the map, or one of no items, which can stop its jobs.

        :param size: how many items there are.
        :param indexes: the items that run.
        :param lines: their requests, as JSON.
        :param continues: whether it continues the map of an earlier try. Default False.
        """
        from airflow_jobflow.triggers.map import MapTrigger

        execution, given, attempt = self.execution, self.execution.given, self.execution.record.attempt
        return MapTrigger(
            service=execution.jobs.service,
            job_group=self.map.job_group,
            size=size,
            indexes=index_ranges(indexes),
            requests=pack(lines),
            scope=execution.jobs.scope,
            container_name=execution.jobs.container,
            max_concurrency=given["max_concurrency"],
            tolerated_failure_count=execution.tolerance.count,
            tolerated_failure_percentage=execution.tolerance.percentage,
            attempts=given.get("item_attempts", DEFAULT_ATTEMPTS if execution.spec.changes else 1),
            changes=execution.spec.changes.to_dict(),
            on_item_failure=given.get("on_item_failure") or ("continue" if given["redrive"] else "stop"),
            **asdict(execution.jobs.access),
            poll_interval=execution.wait.parameters.poll_interval,
            stream_logs=execution.wait.parameters.logs["stream_logs"],
            max_log_lines=execution.wait.parameters.logs["max_log_lines"],
            deadline=attempt.deadline,
            began_at=0.0 if continues else attempt.began_at,
            reports_progress=execution.report.is_shown,
            deferred_at=time.time(),
            cancel_on_kill=given["cancel_on_kill"],
            cancel_on_timeout=given["cancel_on_timeout"],
        )

    def record_end(self, statuses: str = "") -> None:
        """Record that the map has ended, so that no later try continues with it.

        :param statuses: of its items. Default: no job of it may run any more.
        """
        may_run = map_statuses.NOT_DESCRIBED in statuses
        self.execution.record.attempt.map = replace(self.map, over=True, may_run=may_run)
        self.execution.record.save_if_possible()

    def remaining_indexes(self) -> list[int]:
        """Return the items that the recorded map still has to run."""
        return indexes_of(self.map.indexes)

    def continues(self, digest: str) -> bool:
        """Return whether the map of an earlier try continues: with equal items, not ended, not killed, not cleared.

        :param digest: the digest of all items.
        :raises SubmissionError: the location of this try's jobs cannot be resolved.
        """
        record, attempt = self.execution.record, self.execution.record.attempt
        is_here = attempt.location == record.location
        if self.may_run and not is_here:
            self.execution.log.warning(
                "The map of an earlier try (%s) was not ended, and is not continued, because this try starts its jobs "
                "elsewhere: then %r, now %r. Its jobs in the old location are not stopped",
                attempt.token,
                attempt.location,
                record.location,
            )
        is_wanted = not attempt.abandoned and attempt.clear_number == record.this_try.clear_number
        return is_here and is_wanted and self.map.digest == digest and self.may_run

    def end_earlier(self, stop_all: Callable[[str, Sequence[str]], str], *, was_in_triggerer: bool = False) -> None:
        """Stop the jobs of an earlier try's map that is not continued.

        :param stop_all: stops the recorded map's jobs, and returns a sentence.
        :param was_in_triggerer: whether this try began in the triggerer, so that it may have started jobs. Default
            False.
        :raises SubmissionError: they cannot be stopped; nothing was started.
        """
        if self.is_unknown:
            if was_in_triggerer or not self.execution.record.is_first_try:
                self._end_unrecorded()
        elif (
            self.may_run or self.map.may_run
        ) and self.execution.record.attempt.location == self.execution.record.location:
            which = "unfinished map" if self.may_run else "map, some of whose jobs could not be described,"
            self.execution.log.info("Not continuing with the %s of an earlier try: stopping its jobs", which)
            message = stop_all("Airflow: the task was run again", ())
            if message != STOPPED:
                left = f"jobs of an earlier try of map {self.execution.spec.name} could not be stopped"
                raise SubmissionError(f"Nothing was started, because {left}. {message}")
            # So that a later try does not continue with it, if this one ends before it records its own.
            self.execution.record.attempt.map = replace(self.map, over=True, may_run=False)
            self.execution.record.save()

    def _end_unrecorded(self) -> None:
        """Stop the jobs of maps that are not recorded.

        :raises SubmissionError: they cannot be found or stopped; nothing was started.
        """
        if error := self.try_to_stop_unrecorded("Airflow: the task was run again"):
            raise SubmissionError(
                f"Nothing was started, because jobs of an earlier try could not be found or stopped: {error}"
            ) from error

    def try_to_stop_unrecorded(self, reason: str) -> CallError | None:
        """Stop all jobs of this task instance, of all tries.

        :param reason: for AWS and for the log.
        :return: why they could not be found or stopped; None if they were stopped.
        """
        from airflow_jobflow.faults import CallError

        try:
            found = self.execution.jobs.call(
                self.execution.spec.find_group, self.execution.record.owner.group, Attempt()
            )
            self.execution.jobs.stop([each.job.job_id for each in found if not each.job.state.ended], reason)
        except CallError as error:
            return error
        return None

    def previous_results(self, digest: str) -> PreviousResults | None:
        """Return how the items ended in an earlier try; None if there was none of equal items since the last clear.

        :param digest: the digest of all items.
        :raises SubmissionError: the task state store cannot be read.
        """
        store = self.execution.record.store
        if store is None:
            return None
        try:
            return load_previous_results(store, digest, self.execution.record.this_try.clear_number)
        except AirflowRuntimeError as error:
            raise SubmissionError(f"The results of the items in an earlier try could not be read: {error}") from error

    def ended_items(self, event: Mapping[str, Any], *, redrive: bool) -> PreviousResults:
        """Return how the items ended, those of earlier tries included, and store it if a retry needs it.

        :param event: the event of the trigger.
        :param redrive: whether a retry runs only the items that did not succeed.
        """
        ended = PreviousResults(event["statuses"], by_index(unpack(event["lines"])), event["times"])
        if self.map.follows:
            ended = ended.merged_with(self.previous_results(self.map.digest) or PreviousResults(""))
        if uri := self.map.job_group.get("result"):
            ended = ended.with_results_at(uri)
        left_running = event["unstopped"] is None
        if ended.statuses and (redrive or left_running) and self._store_results(ended) and left_running:
            # A retry continues with the rest: AWS may have forgotten by then that the others succeeded.
            indexes = index_ranges(map_statuses.indexes_to_rerun(ended.statuses))
            self.execution.record.attempt.map = replace(self.map, indexes=indexes, follows=True)
            self.execution.record.save_if_possible()
        return ended

    def _store_results(self, ended: PreviousResults) -> bool:
        """Store how the items ended for a retry; return whether that succeeded."""
        store = self.execution.record.store
        if store is None:
            return False
        try:
            ended.save(store, self.map.digest, self.execution.record.this_try.clear_number)
        except AirflowRuntimeError as error:
            self.execution.log.warning(
                "A retry will run all items, because their results could not be saved: %s", error
            )
            return False
        return True


def digest_of(items: Sequence[Mapping[str, Any]]) -> str:
    """Return a digest, which is equal for equal items.

    :param items: the validated items.
    """
    return hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()


def as_lines(requests: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return requests as lines of JSON.

    :param requests: the requests.
    """
    return [json.dumps(request, separators=(",", ":")) for request in requests]
