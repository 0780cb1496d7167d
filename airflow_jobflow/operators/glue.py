"""Operators for Glue: crawls, and runs of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow import params
from airflow_jobflow.exceptions import CapacityUnavailable, SubmissionError
from airflow_jobflow.links import GlueCrawlerLink, GlueJobRunLink, JobLogLink
from airflow_jobflow.operators.base import OF_ONE_JOB, JobOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.glue_crawl import Since
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.jobs.reattach import Found

CRAWL_CHECKS: dict[str, params.Check] = {
    "crawler_name": params.non_empty_string,
    "if_running": lambda name, value: params.one_of(name, value, ("attach", "wait_then_start", "fail")),
}
"""What a crawl is told, by our parameter, and what each must be."""


class GlueCrawlOperator(JobOperator):
    """Run a Glue crawler once, and wait for that crawl's own result.

    :param crawler_name: name of the crawler; templated.
    :param if_running: what to do when the crawler is at work already, for it makes one crawl at a time: ``attach``,
        wait for the crawl that runs, which is then never stopped by this task (one that is stopping is not joined,
        but waited out); ``wait_then_start``, wait until the crawler is free, and start a crawl then; ``fail``.
        Templated. Default ``attach``.

    The others are those of :class:`airflow_jobflow.operators.base.JobOperator` and
    :class:`airflow_jobflow.waiting.JobWaiter`.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`, with ``details`` as far as Glue tells them:
    ``crawl_id, tables_created, tables_updated, tables_deleted, dpu_hours``. Glue's ``StartCrawler`` names no crawl, so
    ``job_id`` says which is meant as *the first one since the one before it*; a sensor takes the whole outcome.
    """

    service: ClassVar[str] = "glue_crawl"
    NOT_HONOURED: ClassVar[Mapping[str, str]] = OF_ONE_JOB
    when_stuck: ClassVar[str] = "Glue took the start, and no crawl began: look at the crawler in the console."
    template_fields: Sequence[str] = (*JobOperator.template_fields, *CRAWL_CHECKS)
    operator_extra_links = (GlueCrawlerLink(), JobLogLink())
    ui_color = "#f7d5b5"

    def __init__(self, *, crawler_name: str, if_running: str = "attach", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.crawler_name = crawler_name
        self.if_running = if_running

    @property
    def may_be_reaped(self) -> bool:
        """Whether the orphan reaper may stop the crawl. It cannot: a crawl carries nothing that says whose it is."""
        return False

    def check(self) -> None:
        """Check the parameters; see the base."""
        super().check()
        params.validated(self, CRAWL_CHECKS, CRAWL_CHECKS)

    def submit(self, context: Context) -> Sequence[str]:
        """Start a crawl, or join the one that runs, and return which one it is: the first since the newest by now."""
        from airflow_jobflow.faults import CallError, Fault
        from airflow_jobflow.jobs import glue_crawl
        from airflow_jobflow.operators.submission import submit_once

        self.new_attempt(context)
        since: glue_crawl.Since | None = None
        runs: glue_crawl.Since | None = None
        maybe_started = False

        def start(call: Call) -> str:
            nonlocal since, runs, maybe_started
            if since is None:
                state, last = glue_crawl.crawler_state(call, self.crawler_name)
                if joined := self._join_or_wait(context, call, state, last):
                    return joined
                since, runs = glue_crawl.next_crawl(call, self.crawler_name, last)
                self._remember(context, str(since))
            try:
                call("start_crawler", Name=self.crawler_name)
            except CallError as error:
                maybe_started |= error.fault is Fault.TRANSIENT and error.sent
                if error.code != "CrawlerRunningException":
                    raise
                if not maybe_started:  # otherwise it is what an earlier start, whose response was lost, has begun
                    return self._join_what_began(context, call, runs or since)
            return str(since)

        def find(call: Call) -> str | None:
            crawl = self.attempt.details.get("since") if maybe_started else None
            return next(iter(self._begun(call, crawl)), None)

        self.log.info("Starting crawler %s", self.crawler_name)
        try:
            what = f"{glue_crawl.DISPLAY_NAME} of {self.crawler_name}"
            return [submit_once(self.call, start, find, what, origin=self.origin)]
        except SubmissionError:
            if not maybe_started and self.attempt.details:
                self._remember(context, "")  # what runs by the next start, or try, is somebody else's
            raise

    def _join_or_wait(self, context: Context, call: Call, state: str, last: Mapping[str, Any] | None) -> str | None:
        """Join the crawl that runs, if there is one and that is wanted, and return which one it is.

        :raises CapacityUnavailable: the crawler is at work, and its crawl cannot be joined.
        """
        from airflow_jobflow.jobs import glue_crawl

        may_join = state == glue_crawl.RUNNING and self.if_running == "attach"
        if may_join and (joined := glue_crawl.running_crawl(call, self.crawler_name, last)):
            return self._join(context, joined)
        if state != glue_crawl.READY:
            raise self._busy()
        return None

    def _join_what_began(self, context: Context, call: Call, began: Since) -> str:
        """Join the crawl that another task has started while this one was about to, also if it has ended by now.

        :param began: what it is if it is not listed: the first since this task has described the crawler, like the
            crawl that this task meant to start.
        :raises CapacityUnavailable, SubmissionError: it is not to be joined, or is stopping already.
        """
        from airflow_jobflow.jobs import glue_crawl

        if self.if_running != "attach":
            raise self._busy()
        state, last = glue_crawl.crawler_state(call, self.crawler_name)
        if state not in (glue_crawl.RUNNING, glue_crawl.READY):
            raise self._busy()
        self.attempt.details = {}
        return self._join(context, glue_crawl.running_crawl(call, self.crawler_name, last) or began)

    def _join(self, context: Context, crawl: Since) -> str:
        """Record that this attempt waits for a crawl that it did not start, and return which one it is."""
        self.attempt.joined, self.attempt.job_ids = True, [str(crawl)]
        self.save(context)
        return str(crawl)

    def _remember(self, context: Context, since: str) -> None:
        """Record which crawl this attempt is about to start: a crawl carries nothing that says whose it is."""
        self.attempt.details = {"since": since} if since else {}
        self.save(context)

    def find_group(self, call: Call, context: Context, recorded: Attempt) -> list[Found]:  # noqa: ARG002
        """Return the crawl that the last try has started, if it has begun: the first since the one before."""
        from airflow_jobflow.jobs.reattach import Found

        return [Found(crawl) for crawl in self._begun(call, recorded.details.get("since")).values()]

    def find_started(self, call: Call, context: Context) -> str | None:  # noqa: ARG002
        """Return the crawl of this attempt; if the crawler was at work, only one that has begun."""
        since: str | None = self.attempt.details.get("since")
        return since if self.attempt.waits_since is None else next(iter(self._begun(call, since)), None)

    @staticmethod
    def _begun(call: Call, crawl: str | None) -> dict[str, Snapshot]:
        from airflow_jobflow.jobs import glue_crawl

        seen = glue_crawl.describe(call, [crawl], None) if crawl else {}
        return {job_id: snapshot for job_id, snapshot in seen.items() if snapshot.left_queue}

    def _busy(self) -> SubmissionError:
        """Return what is raised where the crawler is at work, and that crawl cannot be joined."""
        if self.if_running == "fail":
            return SubmissionError(
                f"Crawler {self.crawler_name} is at work already, so no crawl was started, as if_running='fail' says"
            )
        return CapacityUnavailable(f"Crawler {self.crawler_name} is at work, and a crawler runs one crawl at a time.")


def _minutes(name: str, value: Any) -> int:
    """Check a time-out: Glue counts in whole minutes."""
    minutes, rest = divmod(params.seconds(name, value), 60)
    if rest:
        raise params.invalid_parameter(
            name, value, "must be whole minutes, such as 120 (seconds) or timedelta(minutes=2)"
        )
    return int(minutes)


RUN_CHECKS: dict[str, params.Check] = {
    "job_name": params.non_empty_string,
    "script_args": params.string_map,
    "run_job_kwargs": params.AwsShape("glue", "StartJobRun"),
    "worker_type": params.non_empty_string,
    "number_of_workers": lambda name, value: params.integer(name, value, least=1),
    "max_capacity": lambda name, value: params.number(name, value, least=0, above=True),
    "attempt_timeout": _minutes,
    "execution_class": lambda name, value: params.one_of(name, value, ("STANDARD", "FLEX")),
    "security_configuration": params.non_empty_string,
}
"""What StartJobRun is told, by our parameter, and what each must be."""


class GlueJobRunOperator(JobOperator):
    """Run a Glue job.

    Parameters mean what they mean in `StartJobRun <https://docs.aws.amazon.com/glue/latest/dg/
    aws-glue-api-jobs-runs.html>`_; all are templated; what is not given is not sent, so that the job decides. Where
    the job, or the account, has as many runs as it may have, the task waits its turn until its deadline
    (``job_timeout``, or ``queued_timeout``).

    A job with ``MaxRetries`` of its own makes each retry a run of its own, which this does not follow: leave it at 0,
    and let the task retry.

    :param job_name: name of the job.
    :param script_args: arguments of the script, such as ``{"--day": "2026-11-22"}``.
    :param worker_type, number_of_workers: what it runs on, such as ``G.1X`` and 10.
    :param max_capacity: the same in DPUs, for Python shell jobs.
    :param attempt_timeout: seconds, or a timedelta, in whole minutes, after which Glue ends the run.
    :param execution_class: ``STANDARD`` or ``FLEX``.
    :param security_configuration: name of the security configuration.
    :param run_job_kwargs: further members of StartJobRun, as AWS names them.

    The others are those of :class:`airflow_jobflow.operators.base.JobOperator` and
    :class:`airflow_jobflow.waiting.JobWaiter`; ``durable`` gives the run an argument ``--jobflow_owner``, which the
    script need not know.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`, with ``details`` as far as Glue tells them:
    ``execution_seconds, dpu_seconds``.
    """

    service: ClassVar[str] = "glue_run"
    NOT_HONOURED: ClassVar[Mapping[str, str]] = OF_ONE_JOB
    when_stuck: ClassVar[str] = "Look at what else runs: is a limit of the job or the account reached?"
    template_fields: Sequence[str] = (*JobOperator.template_fields, *RUN_CHECKS)
    template_fields_renderers: ClassVar[dict[str, str]] = params.renderers(RUN_CHECKS)
    operator_extra_links = (GlueJobRunLink(), JobLogLink())
    ui_color = "#f7d5b5"

    def __init__(
        self,
        *,
        job_name: str,
        script_args: dict[str, Any] | str | None = None,
        run_job_kwargs: dict[str, Any] | str | None = None,
        worker_type: str | None = None,
        number_of_workers: int | str | None = None,
        max_capacity: float | str | None = None,
        attempt_timeout: float | str | timedelta | None = None,
        execution_class: str | None = None,
        security_configuration: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.script_args = script_args
        self.run_job_kwargs = run_job_kwargs
        self.worker_type = worker_type
        self.number_of_workers = number_of_workers
        self.max_capacity = max_capacity
        self.attempt_timeout = attempt_timeout
        self.execution_class = execution_class
        self.security_configuration = security_configuration

    def scope(self) -> str | None:
        """Return the job's name, which a describe call is confined to."""
        return self.job_name

    def known_name(self) -> str:
        """Return what the task calls its run: by the job's name."""
        return self.job_name

    def check(self) -> None:
        """Check the parameters; see the base."""
        super().check()
        self.request()

    def request(self) -> dict[str, Any]:
        """Check the parameters, and build the StartJobRun request of them.

        :raises InvalidParameter: one of them is wrong, or two contradict each other.
        """
        from airflow_jobflow.jobs import glue_run

        values = params.validated(self, RUN_CHECKS, ("job_name",))
        for name, member in glue_run.REQUEST_FIELDS.items():
            if name in values and member in values.get("run_job_kwargs", {}):
                raise params.invalid_parameter(name, getattr(self, name), f"run_job_kwargs says {member} too; keep one")
        return glue_run.request(values)

    def submit(self, context: Context) -> Sequence[str]:
        """Start a run with an argument that nothing else carries, and return its id."""
        from airflow_jobflow.jobs import glue_run
        from airflow_jobflow.jobs.owner import ARGUMENT
        from airflow_jobflow.operators.submission import submit_once

        request, token = self.request(), self.new_attempt(context)
        if self.durable:
            owner = self.job_owner(context).argument(attempt=token, **{"try": str(self.this_try(context))})
            request["Arguments"] = {ARGUMENT: owner, **request.get("Arguments", {})}

        def find(call: Call) -> str | None:
            return glue_run.find(call, self.job_name, token)

        def start(call: Call) -> str:
            return glue_run.start(call, request)

        self.log.info("Starting a run of %s: %s", self.job_name, request)
        what = f"{glue_run.DISPLAY_NAME} of {self.job_name}"
        return [submit_once(self.call, start, find if self.durable else None, what, origin=self.origin)]

    def find_started(self, call: Call, context: Context) -> str | None:  # noqa: ARG002
        """Return the run of this attempt: what uses the job's capacity may be a run whose start got no response."""
        from airflow_jobflow.jobs import glue_run

        return glue_run.find(call, self.job_name, self.attempt.token)

    def find_group(self, call: Call, context: Context, recorded: Attempt) -> list[Found]:
        """Return all runs of this task instance among the newest runs of the job."""
        from airflow_jobflow.jobs import glue_run

        return glue_run.find_group(call, self.job_name, self.group_of(context, recorded))
