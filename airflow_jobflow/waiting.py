"""What operators and sensors have in common: the AWS connection, the wait, and the outcome.

Thin: it talks to Airflow and AWS; what decides lies in ``jobs``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.configuration import conf

from airflow_jobflow import params, trigger_eligibility
from airflow_jobflow.airflow_compat.retry_policy import TaskBase
from airflow_jobflow.exceptions import JobFailed, JobflowError
from airflow_jobflow.jobs import wording
from airflow_jobflow.links import ALL_LINKS, api_server_reads_notes, pages
from airflow_jobflow.ui.failure_report import report_failure, reporting_failures

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.aws import Access, Retry
    from airflow_jobflow.jobs.array import Tolerance
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.model import Outcome, Service, Snapshot
    from airflow_jobflow.outcomes import OutcomeBuilder
    from airflow_jobflow.triggers.base import WaitTrigger

Result = TypeVar("Result")

PATIENCE = 60.0
"""Seconds for which a call that fails is repeated before the try fails, so that an outage does not use up retries."""

EXECUTION_TIMEOUT_MARGIN = 10.0
"""Seconds before ``execution_timeout`` at which a wait in the worker ends, or a tenth of it if that is less."""

DEFERRAL_TIMEOUT_MARGIN = 60.0
"""Seconds after the deadline at which Airflow itself ends the deferral: for when no triggerer lives to do so."""


class JobWaiter(TaskBase):
    """Base of everything that waits for jobs.

    :param aws_conn_id: Airflow connection to AWS; None for boto3's own way of finding credentials.
        Default ``aws_default``, the only one that need not exist.
    :param region_name: overrides the connection's region.
    :param verify: whether, or against which CA bundle, to verify certificates; None leaves it to the connection.
    :param botocore_config: arguments for ``botocore.config.Config``. Retries, time-outs and the size of the pool of
        connections are set here: calls are repeated within the budget, and given up after ``request_timeout``.
    :param deferrable: wait in the triggerer (True) or in the worker (False), through the same watcher either way.
        Default ``[jobflow] deferrable``, which is True.
    :param poll_interval: seconds between two describe calls for one job. Calls are shared, so one may come up to a
        tenth early. Default ``[jobflow] poll_interval``, which is 10.
    :param raise_on_failure: False returns the outcome of a failed job, for a branch to choose on. Default True.
    :param job_timeout: seconds, or a timedelta, until the wait is given up: one absolute deadline, kept through
        deferrals and restarts. ``execution_timeout`` counts too; the earlier wins. Default None, for no deadline.
    :param number_logs_exception: how many last lines of the failed container's log go into the error. Default 20.
    """

    service: ClassVar[str]
    """Our name of the service, such as ``batch``."""

    template_fields: Sequence[str] = (
        "aws_conn_id",
        "region_name",
        "verify",
        "botocore_config",
        "poll_interval",
        "job_timeout",
    )

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        deferrable: bool | None = None,
        poll_interval: float | str | timedelta | None = None,
        raise_on_failure: bool = True,
        job_timeout: float | str | timedelta | None = None,
        number_logs_exception: int = 20,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.raise_on_failure = raise_on_failure
        self.job_timeout = job_timeout
        self.number_logs_exception = number_logs_exception
        self.call_deadline: float | None = None
        """When calls to AWS are not repeated any more, in seconds since the epoch; None for no such limit."""
        self.kept_links: dict[str, str] = {}
        """The console's pages that are known, by the key of the link to each."""
        self.stored_links: dict[str, str] = {}
        """Those that the buttons find already, because a note has them."""
        self.stops: dict[str, str] = {}
        """The jobs that this process has stopped, by id, each with when, in ISO 8601."""
        self.is_resumed = False
        """Whether this goes on after a deferral."""
        self.event: object = None
        """What the trigger saw, where it has ended."""
        self.failed_children: dict[int, Snapshot] = {}
        """Of an array, by index, as far as they were looked at."""

    # What a person may get wrong in the parameters all have; checked after rendering.

    def check(self) -> None:
        """Check the parameters.

        :raises InvalidParameter: one of them is wrong.
        """
        self.interval()
        self._deadlines()
        if self.botocore_config is not None:
            params.mapping("botocore_config", self.botocore_config)
        for setting in ("describe_calls_per_second", "request_timeout", "event_poll_interval"):
            params.seconds(f"[jobflow] {setting}", conf.get("jobflow", setting))
        for setting in ("missing_grace", "denied_grace"):
            params.number(f"[jobflow] {setting}", conf.get("jobflow", setting), least=0)
        params.integer("number_logs_exception", self.number_logs_exception, least=0)
        params.one_of("[jobflow] end_in_trigger", trigger_eligibility.end_setting(), ("auto", "never"))

    def interval(self) -> float:
        """Return the seconds between two describe calls for one job."""
        if self.poll_interval is None:
            return params.seconds("[jobflow] poll_interval", conf.get("jobflow", "poll_interval"))
        return params.seconds("poll_interval", self.poll_interval)

    def _deadlines(self) -> dict[str, float]:
        """Return the limits on the wait, in seconds from its start, by the parameter that sets them."""
        given = {"job_timeout": self.job_timeout, "execution_timeout": self.execution_timeout}
        limits = {name: params.seconds(name, limit) for name, limit in given.items() if limit is not None}
        if "execution_timeout" in limits and not self.defers:
            # Here Airflow's own alarm goes off at that moment, and knows nothing of the job: be done before it.
            limits["execution_timeout"] -= min(EXECUTION_TIMEOUT_MARGIN, limits["execution_timeout"] / 10)
        return limits

    def first_limit(self) -> tuple[str, float] | None:
        """Return the limit that comes first, by name, and its seconds; None where there is none."""
        return min(self._deadlines().items(), key=lambda limit: limit[1], default=None)

    def limit_named(self) -> str:
        """Return the limit that comes first as a message tells it, as the task says it: ``60 s (job_timeout)``."""
        name, _ = self.first_limit() or ("job_timeout", 0)
        given = getattr(self, name)
        return f"{0 if given is None else params.seconds(name, given):g} s ({name})"

    def deadline_from_now(self) -> float | None:
        """Return when a wait that starts now is to end, in seconds since the epoch; None where there is no limit."""
        limit = self.first_limit()
        return None if limit is None else time.time() + limit[1]

    @property
    def defers(self) -> bool:
        """Whether it waits in the triggerer, and not in the worker."""
        return conf.getboolean("jobflow", "deferrable") if self.deferrable is None else self.deferrable

    # Talking to AWS.

    @property
    def access(self) -> Access:
        """The AWS connection to use."""
        from airflow_jobflow.aws import Access

        config = None if self.botocore_config is None else params.mapping("botocore_config", self.botocore_config)
        verify = params.boolean("verify", self.verify) if str(self.verify).lower() in ("true", "false") else self.verify
        return Access(self.aws_conn_id, self.region_name, verify, config)

    @property
    def service_module(self) -> Service:
        """The module that knows the service."""
        from airflow_jobflow.jobs import service

        return service(self.service)

    def scope(self) -> str | None:
        """Return what a describe call is confined to, where the service has such a thing."""
        return None

    def container(self) -> str | None:
        """Return the name of the container that counts; None for the one that AWS's rules make decide."""
        return None

    def call(
        self,
        function: Callable[..., Result],
        *arguments: object,
        retry: Retry | None = None,
        past_deadline: bool = False,
    ) -> Result:
        """Run a function of ``jobs/`` that makes API calls of the task's service. Blocks.

        :param function: called with what makes the calls, and the arguments.
        :param retry: when it is run again. Default: for a minute.
        :param past_deadline: whether it is run again also after the task's deadline. Default False.
        :raises CallError: it failed, and is not run again.
        """
        from airflow_jobflow.aws import Retry, run_blocking, service_client

        retry = (retry or Retry(PATIENCE)).until(None if past_deadline else self.call_deadline)
        return run_blocking(service_client(self.access, self.service_module.CLIENT), function, *arguments, retry=retry)

    def origin(self) -> str:
        """Return the connection and the region that are used, for messages: ``aws_default in eu-west-1``."""
        from airflow_jobflow.aws import service_client

        return service_client(self.access, self.service_module.CLIENT).origin

    def look(self, job_ids: Sequence[str], *, retry: Retry | None = None) -> dict[str, Snapshot]:
        """Describe jobs now. What is unknown, or cannot be described now, is left out: the watcher deals with that."""
        from airflow_jobflow.faults import CallError

        try:
            return self.call(self.described, job_ids, retry=retry)
        except CallError as error:
            jobs = self.outcome_builder.called(job_ids, {})
            self.log.warning("Could not describe %s now (asked with %s): %s", jobs, self.origin(), error)
            return {}

    def described(self, call: Call, job_ids: Sequence[str]) -> dict[str, Snapshot]:
        """Describe jobs; those that are unknown are left out.

        :raises CallError: they cannot be described.
        """
        seen: dict[str, Snapshot] = {}
        size = self.service_module.BATCH_SIZE
        for start in range(0, len(job_ids), size):
            answers = self.service_module.describe(call, job_ids[start : start + size], self.scope())
            seen |= {job_id: each.counting(self.container()) for job_id, each in answers.items() if each}
        return seen

    # Waiting.

    def initial_status(
        self, context: Context, job_ids: Sequence[str], seen: Mapping[str, Snapshot | None] | None = None
    ) -> dict[str, Snapshot]:
        """Look at jobs before waiting for them: they may be over, and their pages in the console are known now.

        :param seen: what was just seen of them, if it was.
        """
        from airflow_jobflow.aws import ONCE

        # Once: what this does not see, the watcher does.
        seen = seen or self.look(job_ids, retry=ONCE)
        known = {job_id: snapshot for job_id, snapshot in seen.items() if snapshot}
        for job_id, snapshot in known.items():
            self.log.info("%s %s: %s", self.service_module.DISPLAY_NAME, job_id, snapshot.progress())
        if len(job_ids) == 1:
            self.keep_links(context, known.values())
        return known

    def wait_for(
        self,
        context: Context,
        job_ids: Sequence[str],
        seen: Mapping[str, Snapshot],
        *,
        deadline: float | None = None,
        queue_deadline: float | None = None,
        cancel_on_kill: bool = False,
        cancel_on_timeout: bool = False,
    ) -> Any:
        """Wait for jobs, in the triggerer or here, and go on with ``execute_complete``; at once if all have ended.

        :param seen: what the first look has seen of them.
        :param deadline, queue_deadline, cancel_on_kill, cancel_on_timeout: as the trigger's.
        """
        if all(job_id in seen and seen[job_id].state.ended for job_id in job_ids):
            jobs = {job_id: snapshot.to_dict() for job_id, snapshot in seen.items()}
            return self.ended(context, {"job_ids": list(job_ids), "jobs": jobs, "errors": {}, "limit": None})
        from airflow_jobflow.triggers.job import JobTrigger

        noted = self._note_start(context, job_ids, seen)
        trigger = JobTrigger(
            service=self.service,
            job_ids=job_ids,
            scope=self.scope(),
            container_name=self.container(),
            **dataclasses.asdict(self.access),
            poll_interval=self.interval(),
            deadline=deadline,
            queue_deadline=queue_deadline,
            deferred_at=time.time(),
            cancel_on_kill=cancel_on_kill,
            cancel_on_timeout=cancel_on_timeout,
            result_kind=self._returns_from_trigger(context),
            reports_progress=self.do_xcom_push,
            reported_statuses={job_id: snapshot.progress() for job_id, snapshot in seen.items()},
            progress_digest=noted,
            links=self.stored_links if self.notes_have_links else None,
        )
        self.defer_to(trigger)
        return self.ended(context, asyncio.run(trigger.wait()))

    def _returns_from_trigger(self, context: Context) -> str | None:
        is_mapped = bool(context["ti"].is_mapped)
        ends_there = trigger_eligibility.is_ours(type(self)) and trigger_eligibility.may_end(self, is_mapped=is_mapped)
        return self.returns(context) if ends_there else None

    def returns(self, context: Context | None = None) -> str | None:  # noqa: ARG002
        """Return which of the words of ``triggers.ending`` says what a success returns; None if none does."""
        return "outcome" if self.do_xcom_push else "nothing"

    def defer_to(self, trigger: WaitTrigger) -> None:
        """Leave the waiting to a trigger, if this task waits in the triggerer; if not, return."""
        if self.defers:
            left = None if trigger.deadline is None else max(trigger.deadline - time.time(), 0)
            net = None if left is None else timedelta(seconds=left + DEFERRAL_TIMEOUT_MARGIN)
            self.defer(trigger=trigger, method_name="execute_complete", kwargs=self.resume_arguments(), timeout=net)

    def resume_arguments(self) -> dict[str, Any]:
        """Return what the task needs when it is resumed, as arguments of ``execute_complete``."""
        return {}

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Go on when the jobs have ended, or a deadline has passed."""
        raise NotImplementedError

    # The end.

    def ended(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Go on with ``execute_complete``, without a deferral in between."""
        self.event = event
        return self.execute_complete(context, event)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral."""
        self.event = event = (next_kwargs or {}).get("event")
        self.is_resumed = True
        if isinstance(event, Mapping) and event.get("links"):
            self.kept_links = self.stored_links = dict(event["links"])
        with reporting_failures(self, context):
            return super().resume_execution(next_method, next_kwargs, context)

    def final_status(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Where a deadline has passed, describe once more: a job that has ended meanwhile has ended, not timed out.

        The trigger did so, too, before it stopped a job.
        """
        if not event["limit"] or event.get("stopped") or event.get("unstopped") or not event["job_ids"]:
            return dict(event)
        seen = {**snapshots(event), **self.look(event["job_ids"])}
        ended = all(job_id in seen and seen[job_id].state.ended for job_id in event["job_ids"])
        jobs = {job_id: snapshot.to_dict() for job_id, snapshot in seen.items()}
        return {**event, "jobs": jobs, "limit": None if ended else event["limit"]}

    def conclude(self, context: Context, event: Mapping[str, Any], tolerance: Tolerance) -> list[dict[str, Any]]:
        """Make outcomes of what the trigger saw.

        :return: the outcomes, in the order of the ids.
        :raises JobNotFound, WaitError, AccessDenied: a job cannot be watched.
        :raises JobFailed, JobStopped: a job has failed, or was stopped, and ``raises_failures``.
        """
        from airflow_jobflow.jobs.diagnosis import decisive
        from airflow_jobflow.jobs.model import JobState

        outcome_builder = self.outcome_builder
        if event["errors"]:
            raise outcome_builder.watch_error(event["errors"], snapshots(event))
        seen = snapshots(event)
        ended = [outcome_builder.with_final_details(seen[job_id]) for job_id in event["job_ids"]]
        build_outcomes = self.build_outcomes(context, ended, tolerance)
        outcomes = [outcome.to_dict() for outcome, _ in build_outcomes]
        failed = [snapshot for snapshot in ended if snapshot.state is not JobState.SUCCEEDED]
        self.keep_links(context, (failed or ended)[:1])
        failures = [error for _, error in build_outcomes if error]
        if failures and self.raises_failures():
            # Of several, a real failure counts for more than a stop, and of these the one that a retry helps least.
            serious = [error for error in failures if isinstance(error, JobFailed)] or failures
            explained = decisive(error.diagnosis for error in serious if error.diagnosis)
            by_cause = {error.diagnosis.cause: error for error in reversed(serious) if error.diagnosis}
            worst = by_cause[explained.cause] if explained else serious[0]
            text = wording.failures([str(worst), *(str(error) for error in failures if error is not worst)])
            outcome = outcomes if len(outcomes) > 1 else outcomes[0]
            raise type(worst)(text, outcome=outcome, diagnosis=worst.diagnosis)
        for error in failures:
            self.log.warning("%s", error)
            report_failure(self, context, error)
        return outcomes

    def raises_failures(self) -> bool:
        """Return whether a failure is raised, and not returned."""
        return self.raise_on_failure

    def build_outcomes(
        self,
        context: Context,  # noqa: ARG002
        ended: Sequence[Snapshot],
        tolerance: Tolerance,
    ) -> list[tuple[Outcome, JobflowError | None]]:
        """Judge jobs that have ended: the outcome of each, and the error that it is, if it is one.

        Logs are read of the first ones that failed: a sensor may wait for a thousand jobs.
        """
        outcome_builder, failed = self.outcome_builder, 0
        build_outcomes: list[tuple[Outcome, JobflowError | None]] = []
        for snapshot in ended:
            outcome, error = outcome_builder.job_outcome(snapshot, tolerance)
            build_outcomes.append((outcome, error))
            failed += error is not None
            if failed == wording.FAILURES_IN_FULL:
                outcome_builder = dataclasses.replace(outcome_builder, log_lines=0)
        return build_outcomes

    @property
    def outcome_builder(self) -> OutcomeBuilder:
        """What makes outcomes and errors of snapshots."""
        from airflow_jobflow.outcomes import OutcomeBuilder

        return OutcomeBuilder(
            service=self.service,
            module=self.service_module,
            access=self.access,
            log_lines=params.integer("number_logs_exception", self.number_logs_exception, least=0),
            container=self.container(),
            name=self.known_name(),
            children=self.failed_children,
        )

    def known_name(self) -> str:
        """Return what the task calls its job, for messages on a job that was never described; empty if not known."""
        return ""

    # Links.

    @property
    def notes_have_links(self) -> bool:
        """Whether the buttons find their URLs in the notes for the "Jobs" tab: see ``links``."""
        return self.do_xcom_push and trigger_eligibility.is_ours(type(self)) and api_server_reads_notes()

    def keep_links(self, context: Context, seen: Iterable[Snapshot]) -> None:  # noqa: ARG002
        """Keep the console's pages for a job, as far as they are known by now, for the buttons in the UI.

        They are stored when the worker is done with the task, deferred or ended.

        :param seen: one job, or none: a task has one button of a kind.
        """
        for snapshot in seen if self.do_xcom_push else ():
            self.kept_links = pages(self.service, snapshot) or self.kept_links
        self.select_links()

    def select_links(self) -> None:
        """Leave to Airflow only what is not stored yet.

        Airflow stores all links of the object that was executed, also those without a URL, with a request each.
        """
        if self.kept_links == self.stored_links:
            self.operator_extra_links = ()
        elif trigger_eligibility.is_ours(type(self)):
            self.operator_extra_links = (ALL_LINKS,)
        else:
            links = type(self).operator_extra_links
            self.operator_extra_links = tuple(link for link in links if self.kept_links.get(link.xcom_key))

    def _note_start(self, context: Context, job_ids: Sequence[str], seen: Mapping[str, Snapshot]) -> str | None:
        """Write the first note for the "Jobs" tab, with the URLs of the buttons; the trigger writes what changes.

        :return: what the trigger recognizes the note by; None if there is none. Of several jobs there is none: the
            trigger writes it if they take a while.
        """
        if not self.do_xcom_push or len(job_ids) != 1 or not seen:
            return None
        from airflow_jobflow.ui import notes
        from airflow_jobflow.ui.progress import note_of

        statuses = {job_id: [(snapshot.status, notes.now())] for job_id, snapshot in seen.items()}
        note = note_of(self.service, list(seen.values()), statuses, total=1, buttons=self.kept_links)
        try:
            context["ti"].xcom_push(key=notes.KEY, value=note)
        except Exception as error:  # noqa: BLE001 -- whatever an XCom backend raises, the wait goes on
            self.log.warning("The state of the job could not be written for the Jobs tab: %s", error)
            return None
        self.links_are_noted()
        return notes.digest(note)

    def links_are_noted(self) -> None:
        """Take note that what is kept of links is in a note."""
        if self.notes_have_links:
            self.stored_links = self.kept_links
            self.select_links()


def snapshots(event: Mapping[str, Any]) -> dict[str, Snapshot]:
    """Read what a trigger saw."""
    from airflow_jobflow.jobs.model import Snapshot

    return {job_id: Snapshot.from_dict(seen) for job_id, seen in event["jobs"].items()}


def timed_out(next_method: str, next_kwargs: Mapping[str, Any] | None) -> bool:
    """Say whether a task is resumed because Airflow itself has timed out its deferral."""
    return next_method == TRIGGER_FAIL_REPR and (next_kwargs or {}).get("error") == TriggerFailureReason.TRIGGER_TIMEOUT
