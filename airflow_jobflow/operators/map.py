"""Base of the map operators: one job for each item, from one task instance.

Thin: the worker checks the items, builds their requests, records the attempt, and hands over to the trigger, which
starts and follows the jobs; the worker comes back for the verdict. What decides lies in ``jobs.fan_out``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_jobflow import params
from airflow_jobflow.exceptions import JobflowError, JobStopped, JobTimeout, SubmissionError
from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.array import indexes_of
from airflow_jobflow.jobs.attempt import Attempt
from airflow_jobflow.jobs.model import JobState, index_ranges
from airflow_jobflow.jobs.packing import pack, unpack
from airflow_jobflow.jobs.report import tolerated
from airflow_jobflow.jobs.wording import sentence
from airflow_jobflow.maps import result as map_verdict
from airflow_jobflow.maps.previous_results import NO_TIMES, PreviousResults, by_index, load_previous_results
from airflow_jobflow.operators.attempts import ABANDONING
from airflow_jobflow.operators.base import KILLED, JobOperator
from airflow_jobflow.ui.failure_report import report_failure
from airflow_jobflow.waiting import timed_out

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.triggers.map import MapTrigger

STOPPED = "What ran was stopped."

STOP_PATIENCE = 60.0
"""Seconds for which a worker tries to stop jobs while AWS does not respond."""

MAY_RUN = ("denied", "credentials", "unanswerable", "failed")
"""Reasons for which a trigger ends a map and leaves running what runs."""

NO_NEWS: dict[str, Any] = {
    "statuses": "",
    "lines": pack(()),
    "running": pack(()),
    "limit": "deadline",
    "error": None,
    "unstopped": None,
    "times": NO_TIMES,
}
"""The event of a trigger that never fired before its deadline."""


class MapOperator(JobOperator):
    """Base of the operators that run one job for each item.

    :param items: a list of dicts, one for each job, or the same as JSON, or what another task returned. The keys are
        parameters of the operator, whose values they replace for that job; ``environment`` is added to that of
        the others. Each job finds its item's index, from 0, in the environment variable ``JOBFLOW_MAP_INDEX``. No item
        is a success.
    :param max_concurrency: how many jobs may be submitted and not ended at the same time; the others follow within
        seconds as these end: while items wait, jobs are described every 5 seconds, or at ``poll_interval`` if that is
        shorter, as far as a quarter of the budget of describe calls allows. Default 1000.
    :param tolerated_failure_count, tolerated_failure_percentage: items that may fail, rejected ones included, with the
        task still succeeding. A retry, and so ``redrive``, follows only a map that failed.
    :param redrive: a retry runs only the items that did not succeed, if the items are the same. Default False.
    :param on_item_failure: ``stop``: once more items have failed than are tolerated, nothing more is started, what
        still runs is stopped, and the map fails. ``continue``: all items are run to their ends; if more have failed
        than are tolerated, the map fails then, so that with ``redrive`` a retry runs what failed and nothing else.
        Default ``continue`` with ``redrive``, else ``stop``.

    Returns a dict in the shape of :class:`airflow_jobflow.jobs.model.Outcome`, whose ``array`` counts the items, and
    ``statuses``: a character an item, in their order: ``S`` succeeded, ``F`` failed, ``K`` stopped, ``-`` never
    started; ``failed``: the outcomes of the items that failed or were stopped, each with its ``index``; ``outcomes``:
    those of all items, in their order, None for what was never started; None if there are more than 1,000.
    """

    ITEM: ClassVar[Mapping[str, params.Check]]
    """What an item may say, and what each must be."""
    template_fields: Sequence[str] = ("items", "max_concurrency", "on_item_failure")

    def __init__(
        self,
        *,
        items: Sequence[dict[str, Any]] | str,
        max_concurrency: int | str = 1000,
        on_item_failure: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.items = items
        self.max_concurrency = max_concurrency
        self.on_item_failure = on_item_failure
        self._trigger: MapTrigger | None = None
        self._continues = False
        """Whether this try continues the map of an earlier one."""

    # What the services differ in.

    @abstractmethod
    def requests(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Build the request of each item.

        :param items: as ``checked_items`` returns them.
        """

    @abstractmethod
    def family(self, context: Context) -> dict[str, Any]:
        """Return what tells the jobs of this attempt's map from all others."""

    @abstractmethod
    def map_name(self) -> str:
        """Return what a person calls the map."""

    def attempts(self) -> int:
        """Return how many attempts an item gets whose job's capacity is taken away."""
        return 1

    # The parameters.

    def check(self) -> None:
        """Check the parameters; see the base."""
        if not self.wait_for_completion:
            raise params.invalid_parameter(
                "wait_for_completion", False, "a map starts jobs as others end, so it has to wait"
            )
        if self.queued_timeout is not None:
            raise params.invalid_parameter(
                "queued_timeout", self.queued_timeout, "a map has none; job_timeout bounds it"
            )
        if not self.durable:
            raise params.invalid_parameter(
                "durable", False, "a map finds its jobs by their tokens, so it cannot do without"
            )
        super().check()
        params.integer("max_concurrency", self.max_concurrency, least=1)
        if self.on_item_failure is not None:
            params.one_of("on_item_failure", self.on_item_failure, ("continue", "stop"))

    def checked_items(self) -> list[dict[str, Any]]:
        """Check the items, and return them with their values as their types.

        :raises InvalidParameter: one of them is wrong; it is named by its index.
        """
        items = list(self.items) if isinstance(self.items, Sequence) and not isinstance(self.items, str) else self.items
        dicts = params.mappings("items", items, "with the parameters of one job")
        return [self._checked(f"items[{index}]", item) for index, item in enumerate(dicts)]

    def _checked(self, name: str, item: Mapping[str, Any]) -> dict[str, Any]:
        if unknown := [key for key in item if key not in self.ITEM]:
            raise params.invalid_parameter(name, item, f"{unknown[0]!r} is none of {', '.join(self.ITEM)}")
        return {key: self.ITEM[key](f"{name}[{key!r}]", value) for key, value in item.items() if value is not None}

    def render_template(self, content: Any, context: Context, *args: Any, **kwargs: Any) -> Any:
        """Render; what holds no template stays as it is, for each of ten thousand items would be compiled."""
        plain = isinstance(content, str) and "{" not in content and not content.endswith(tuple(self.template_ext))
        if plain and not self._should_render_native(self.get_dag()):
            return content
        return super().render_template(content, context, *args, **kwargs)

    # The way of a map.

    def submit(self, context: Context) -> Sequence[str]:
        """Submit nothing: the trigger does."""
        raise NotImplementedError

    def start(self, context: Context, event: object = None, attempt: Mapping[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Record the attempt, and hand over to the trigger; the map of an earlier try continues if it may still run."""
        if context["ti"].try_number > 1:
            self.attempt = self._recorded(context)
        items = self.checked_items()
        requests = self.requests(items)
        digest = hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()
        left = (self.redrive and self._left(context, digest)) or PreviousResults(map_statuses.NOT_STARTED * len(items))
        indexes = map_statuses.indexes_to_rerun(left.statuses)
        goes_on = self._continues = bool(indexes) and self._goes_on(context, digest)
        if goes_on:
            indexes = indexes_of(self._about["indexes"])
            self.log.info("Continuing with the unfinished map of an earlier try (%s)", self.attempt.token)
        else:
            self._end_earlier(context)
            if not indexes:
                self.log.info("No item is left to run")
                return map_verdict.result(self.outcome_builder, self.map_name(), left, self._tolerance())
            self._begin(context, digest, indexes, len(items))
        lines = [json.dumps(requests[index], separators=(",", ":")) for index in indexes]
        return self._follow(context, self._make_trigger(len(items), indexes, lines, goes_on=goes_on))

    @property
    def _about(self) -> dict[str, Any]:
        """What is recorded of the map that was begun last."""
        return dict(self.attempt.details.get("map") or {})

    def _record_map(self, context: Context, about: Mapping[str, Any], *, if_possible: bool = False) -> None:
        """Record what a later try, or a worker without the deferral's own record, has to know of the map."""
        self.attempt.details = {"map": dict(about)}
        (self.save_if_possible if if_possible else self.save)(context)

    def _goes_on(self, context: Context, digest: str) -> bool:
        """Return whether an earlier try's map of these items may still run: not ended, not killed, not cleared."""
        about = self._about
        if about.get("over") is False and self.attempt.location != self._location():
            self.log.warning(
                "The map of an earlier try (%s) was not ended, and is not continued, because this try starts its jobs "
                "elsewhere: then %r, now %r. What it runs there is not stopped",
                self.attempt.token,
                self.attempt.location,
                self._location(),
            )
        not_cleared = self.attempt.clear_number == self._clear_number(context)
        here = self.attempt.location == self._location() and not self.attempt.abandoned
        return here and not_cleared and about.get("digest") == digest and about.get("over") is False

    def _end_earlier(self, context: Context) -> None:
        """Stop what an earlier try's map still runs, for it is not to go on.

        :raises SubmissionError: it cannot be stopped; nothing was started.
        """
        if context.get("task_state_store") is None:  # Airflow 3.2
            self._end_unrecorded(context)
        elif self._about.get("over") is False and self.attempt.location == self._location():
            self.log.info("Not continuing with the unfinished map of an earlier try: stopping its jobs")
            said = self._stop_all("Airflow: the task was run again", ())
            if said != STOPPED:
                left = f"jobs of an earlier try of map {self.map_name()} could not be stopped"
                raise SubmissionError(f"Nothing was started, because {left}. {said}")
            # So that a later try does not continue with it, if this one dies before it has recorded its own.
            self._record_map(context, {**self._about, "over": True})

    def _end_unrecorded(self, context: Context) -> None:
        """Stop what earlier tries still run, where nothing could be recorded of their maps.

        :raises SubmissionError: it cannot be found or stopped; nothing was started.
        """
        from airflow_jobflow.faults import CallError

        if context["ti"].try_number <= 1:
            return
        try:
            found = self.call(self.find_group, context, Attempt())
            self.stop(
                [each.job.job_id for each in found if not each.job.state.ended], "Airflow: the task was run again"
            )
        except CallError as error:
            raise SubmissionError(f"An earlier try's map was not ended: {error}. Nothing was started.") from error

    def _begin(self, context: Context, digest: str, indexes: Sequence[int], size: int) -> None:
        """Note that a new map begins.

        :raises SubmissionError: it cannot be noted; nothing was started.
        """
        self.attempt.number, self.attempt.waits_since = 0, None
        self.new_attempt(context)
        about = {
            "digest": digest,
            "indexes": index_ranges(indexes),
            "follows": len(indexes) < size,
            "family": self.family(context),
            "over": False,
        }
        self._record_map(context, about)
        self.log.info(
            "Map %s-%s: %d of %d items are to be run", self.map_name(), self.attempt.token, len(indexes), size
        )

    def _make_trigger(
        self, size: int, indexes: Sequence[int], lines: Sequence[str], *, goes_on: bool = False
    ) -> MapTrigger:
        from airflow_jobflow.triggers.map import MapTrigger

        attempt, tolerance = self.attempt, self._tolerance()
        return MapTrigger(
            service=self.service,
            job_group=self._about["family"],
            size=size,
            indexes=index_ranges(indexes),
            requests=pack(lines),
            scope=self.scope(),
            container_name=self.container(),
            max_concurrency=params.integer("max_concurrency", self.max_concurrency, least=1),
            tolerated_failure_count=tolerance.count,
            tolerated_failure_percentage=tolerance.percentage,
            attempts=self.attempts(),
            on_item_failure=self.on_item_failure or ("continue" if self.redrive else "stop"),
            **dataclasses.asdict(self.access),
            poll_interval=self.interval(),
            deadline=attempt.deadline,
            began_at=0.0 if goes_on else attempt.began_at,
            reports_progress=self.do_xcom_push,
            deferred_at=time.time(),
            cancel_on_kill=self.cancel_on_kill,
            cancel_on_timeout=self.cancel_on_timeout,
        )

    @property
    def has_started(self) -> bool:
        """Whether the map of an earlier try may run; this try's own is started by its trigger."""
        return self._continues

    def stop_started(self) -> str:
        """Stop the map of an earlier try, because the task was killed; return what was done, for the log."""
        return self._stop_all(KILLED, ())

    def _follow(self, context: Context, trigger: MapTrigger) -> Any:
        self.defer_to(trigger)
        self._trigger = trigger
        if self._killed:
            raise JobStopped(f"The task was killed before map {self.map_name()} had started anything.")
        return self.ended(context, asyncio.run(trigger.wait()))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; one that Airflow itself timed out ends like one whose trigger did."""
        if timed_out(next_method, next_kwargs):
            next_method, next_kwargs = "execute_complete", {"event": NO_NEWS}
        return super().resume_execution(next_method, next_kwargs, context)

    # The end.

    def execute_complete(
        self, context: Context, event: Mapping[str, Any], attempt: Mapping[str, Any] | None = None
    ) -> Any:
        """Finish: return the result, or raise what has gone wrong."""
        if attempt is not None or not self.attempt.token:
            self.resume(context, attempt)
        about = self._about
        name = f"{self.map_name()}-{self.attempt.token}"
        digest = about.get("digest", "")
        ended = PreviousResults(event["statuses"], by_index(unpack(event["lines"])), event["times"])
        if about.get("follows"):
            ended = ended.merged_with(self._left(context, digest) or PreviousResults(""))
        left_running = event["unstopped"] is None
        if ended.statuses and (self.redrive or left_running) and self._leave(context, digest, ended) and left_running:
            # A retry goes on with the rest: AWS may have forgotten by then that these have succeeded.
            rest = index_ranges(map_statuses.indexes_to_rerun(ended.statuses))
            self._record_map(context, {**about, "indexes": rest, "follows": True}, if_possible=True)
        if event["limit"]:
            raise self._timed_out(context, name, event)
        if event["error"]:
            raise self._could_not_go_on(context, name, event)
        self._record_map(context, {**about, "over": True}, if_possible=True)
        if self._killed:
            said = f"{map_verdict.progress(event)}. {_said(event)}"
            raise JobStopped(
                f"Map {name} of {self.service_module.DISPLAY_NAME}s was stopped: the task was killed. {said}"
            )
        return self._judged(context, name, ended)

    def _judged(self, context: Context, name: str, ended: PreviousResults) -> dict[str, Any]:
        """Return the result of a map that has ended, or raise its failure.

        :raises JobFailed, JobStopped: more items failed than are tolerated, and ``raise_on_failure`` is set.
        """
        result = map_verdict.result(self.outcome_builder, name, ended, self._tolerance())
        if telling := map_verdict.most_significant(ended, result):
            self.keep_links(context, [telling])
        if result["state"] == JobState.SUCCEEDED.value:
            if failed := result["array"]["failed_indexes"]:
                tolerance = self._tolerance()
                what, size = f"Map {name} of {self.service_module.DISPLAY_NAME}s", result["array"]["size"]
                self.log.warning("%s", tolerated(what, failed, size, tolerance.count, tolerance.percentage))
            return result
        failure = map_verdict.failure(self.outcome_builder, name, ended, result)
        if self.raise_on_failure:
            raise failure
        self.log.warning("%s", failure)
        report_failure(self, context, failure)
        return result

    def _left(self, context: Context, digest: str) -> PreviousResults | None:
        """Return how the items ended in an earlier try, if there was one that counts."""
        store = context.get("task_state_store")
        if store is None:
            return None
        try:
            return load_previous_results(store, digest, self._clear_number(context))
        except AirflowRuntimeError as error:
            raise SubmissionError(f"How the items ended in an earlier try could not be read: {error}") from error

    def _leave(self, context: Context, digest: str, ended: PreviousResults) -> bool:
        """Leave how the items ended for a retry; return whether that could be done."""
        store = context.get("task_state_store")
        if store is None:
            return False
        try:
            ended.save(store, digest, self._clear_number(context))
        except AirflowRuntimeError as error:
            self.log.warning("A retry will run all items, because their results could not be saved: %s", error)
            return False
        return True

    def _timed_out(self, context: Context, name: str, event: Mapping[str, Any]) -> JobTimeout:
        stopped = "What runs was left running, as cancel_on_timeout=False says."
        if self.cancel_on_timeout:
            if event.get("unstopped") is None:  # no trigger lived to do it
                stopped = self._stop_all("Airflow: the deadline of the task has passed", unpack(event["running"]))
            else:
                stopped = _said(event)
            self._record_map(context, {**self._about, "over": True}, if_possible=True)
        first = (
            f"Map {name} of {self.service_module.DISPLAY_NAME}s did not end within {self.limit_named()}: "
            f"{map_verdict.progress(event)}. {stopped} Give it more time, or raise max_concurrency."
        )
        return JobTimeout("\n".join([first, *self._evidence(event)]))

    def _evidence(self, event: Mapping[str, Any]) -> list[str]:
        """Return the lines of a message that show what one job wrote last that had not ended by the deadline."""
        from airflow_jobflow.aws import ONCE

        which = map_verdict.first_unfinished(event)
        if which is None:
            return []
        job_id, name = which
        seen = self.look([job_id], retry=ONCE)
        return self.outcome_builder.evidence(seen[job_id], of=f" of {name}") if job_id in seen else []

    # Stopping.

    def _stop_all(self, reason: str, known: Sequence[str]) -> str:
        """Stop all the map has started, and say whether that could be done."""
        left = asyncio.run(self._make_trigger(0, (), ()).stop_all(reason, known, retry_timeout=STOP_PATIENCE))
        if left:
            self.log.warning("Map %s-%s: %s", self.map_name(), self.attempt.token, left)
        return f"Stop these jobs in the console, if they run: {sentence(str(left))}" if left else STOPPED

    def _could_not_go_on(self, context: Context, name: str, event: Mapping[str, Any]) -> JobflowError:
        """Build the error of a map that could not go on, after it is decided what becomes of what runs."""
        if event["error"]["kind"] in MAY_RUN:
            return map_verdict.could_not_continue(self.outcome_builder, name, event, self._let_run(context, event))
        self._record_map(context, {**self._about, "over": True}, if_possible=True)
        started = event["statuses"].strip(map_statuses.NOT_STARTED)
        return map_verdict.could_not_continue(self.outcome_builder, name, event, _said(event) if started else "")

    def _let_run(self, context: Context, event: Mapping[str, Any]) -> str:
        """Decide about what a trigger has left running that could not go on; say what was decided."""
        kind, running = event["error"]["kind"], unpack(event["running"])
        if kind == "failed":
            return self._let_go_of_map(context, running)
        if not running:
            return ""
        then = self._next_try(context)
        if not self._is_retried(context):
            then = "No try is left to wait for them: look them up in the AWS console before you start the map again."
        return f"Running jobs were not stopped. {then}"

    def _let_go_of_map(self, context: Context, running: Sequence[str]) -> str:
        """Stop what the map runs, unless the task's next try continues with it; say what was done."""
        if self._is_retried(context):
            return self._next_try(context)
        if not self.cancel_on_timeout:
            return "What runs was left running, as cancel_on_timeout=False says."
        said = self._stop_all("Airflow: the task can wait for it no longer", running)
        self._record_map(context, {**self._about, "over": True}, if_possible=True)
        return said

    @staticmethod
    def _next_try(context: Context) -> str:
        """Say what becomes of what runs in the task's next try."""
        if context.get("task_state_store") is None:
            return "The next try stops what runs, and starts over."
        return "The next try continues with what runs."

    @staticmethod
    def _is_retried(context: Context) -> bool:
        return bool(context["ti"].try_number <= (context["ti"].max_tries or 0))

    def trigger_failed(self, context: Context) -> None:
        """Log what becomes of the map whose trigger has failed, and stop its jobs if no try follows."""
        self.resume(context, None)
        if self._about.get("over") is False:
            name = f"{self.map_name()}-{self.attempt.token}"
            self.log.warning("The trigger of map %s has failed. %s", name, self._let_go_of_map(context, ()))

    def on_kill(self) -> None:
        """Stop all jobs when the worker is told to end while it waits here."""
        self._killed = self.cancel_on_kill
        if self._killed and self._trigger:
            recording = self.abandon()
            # In a thread, for this is a signal's handler, and the event loop is what it has interrupted.
            thread = threading.Thread(target=asyncio.run, args=(self._trigger.stop_killed(),))
            thread.start()
            thread.join()
            recording.join(ABANDONING)


def _said(event: Mapping[str, Any]) -> str:
    """Say whether the trigger could stop what ran."""
    left = event.get("unstopped") or {}
    if not left.get("message"):
        return STOPPED
    return f"Stop these jobs in the console, if they run: {sentence(left['message'])}"
