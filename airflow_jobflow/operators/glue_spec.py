"""What the operators for Glue start: a crawl, or a run of a job."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow import params, params_json
from airflow_jobflow.airflow_compat.lineage import with_parent_of_spark
from airflow_jobflow.exceptions import CapacityUnavailable, SubmissionError, invalid_parameter
from airflow_jobflow.operators import change_rules
from airflow_jobflow.operators.changes import values_of
from airflow_jobflow.operators.glue_script import ARGUMENT as SCRIPT
from airflow_jobflow.operators.glue_script import Script
from airflow_jobflow.operators.glue_script import prefix as script_prefix
from airflow_jobflow.operators.spec import JobSpec
from airflow_jobflow.params import Parameter, ParameterTable

if TYPE_CHECKING:
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.glue_crawl import Since
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.jobs.reattach import Found
    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.waiting.remote import RemoteJobs


def _whole_minutes(name: str, value: Any) -> int:
    """Validate a timeout in seconds: Glue counts in whole minutes."""
    seconds = params.seconds(name, value)
    if seconds % 60:
        rule = "must be whole minutes, such as 120 (seconds) or timedelta(minutes=2)"
        raise invalid_parameter(name, value, rule)
    return int(seconds)


CRAWL_PARAMETERS: Final = ParameterTable(
    {
        "crawler_name": Parameter("Name", params.non_empty_string, required=True),
        "if_running": Parameter(
            "", partial(params.one_of, allowed=("attach", "wait_then_start", "fail")), required=True
        ),
    }
)
"""The parameters of a crawl."""

RUN_PARAMETERS: Final = ParameterTable(
    {
        "job_name": Parameter("JobName", params.non_empty_string, required=True),
        "script_args": Parameter("Arguments", params_json.string_map),
        "run_job_kwargs": Parameter("", params_json.AwsShape("glue", "StartJobRun")),
        "worker_type": Parameter("WorkerType", params.non_empty_string),
        "number_of_workers": Parameter("NumberOfWorkers", partial(params.integer, least=1)),
        "max_capacity": Parameter("MaxCapacity", partial(params.number, least=0, above=True)),
        "attempt_timeout": Parameter("Timeout", _whole_minutes),
        "execution_class": Parameter("ExecutionClass", partial(params.one_of, allowed=("STANDARD", "FLEX"))),
        "security_configuration": Parameter("SecurityConfiguration", params.non_empty_string),
        "script": Parameter("", params.non_empty_string),
        "script_prefix": Parameter("", script_prefix),
        "update_job": Parameter("", params.boolean),
        # No on_capacity: a job at its limit of concurrent runs cannot run on other capacity.
        **{name: row for name, row in change_rules.PARAMETERS.items() if name != "on_capacity"},
    }
)
"""The parameters of StartJobRun, those of the run's script, and what a retry changes."""

CHANGEABLE: Final = ("worker_type", "number_of_workers", "max_capacity", "attempt_timeout", "execution_class")
"""The parameters that an attempt can change after a failure."""


class CrawlSpec(JobSpec):
    """A crawl. A crawler runs one crawl at a time, and a crawl does not say who started it.

    :param values: the validated parameters of the operator, see ``CRAWL_PARAMETERS``.
    """

    when_stuck = "Glue accepted the start, but no crawl began: check the crawler in the console."
    carries_owner = False

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self._crawler: str = values["crawler_name"]
        self._if_running: str = values["if_running"]

    def submit(self, record: AttemptRecord, jobs: RemoteJobs) -> list[str]:
        """Start a crawl, or join the one that runs. Return which one it is: the first after the newest listed now."""
        from airflow_jobflow.faults import CallError, Fault
        from airflow_jobflow.jobs import glue_crawl
        from airflow_jobflow.operators import submission

        record.new_attempt()
        since: Since | None = None
        runs: Since | None = None
        maybe_started = False

        def start(call: Call) -> str:
            nonlocal since, runs, maybe_started
            if since is None:
                state, last = glue_crawl.crawler_state(call, self._crawler)
                if joined := self._join_or_wait(record, call, state, last):
                    return joined
                since, runs = glue_crawl.next_crawl(call, self._crawler, last)
                _remember(record, str(since))
            try:
                call("start_crawler", Name=self._crawler)
            except CallError as error:
                maybe_started |= error.fault is Fault.TRANSIENT and error.sent
                if error.code != "CrawlerRunningException":
                    raise
                if not maybe_started:  # otherwise an earlier start, whose response was lost, began the crawl
                    return self._join_what_began(record, call, runs or since)
            return str(since)

        def find(call: Call) -> str | None:
            return next(iter(_begun(call, record.attempt.since if maybe_started else "")), None)

        jobs.log.info("Starting crawler %s", self._crawler)
        try:
            what = f"{glue_crawl.DISPLAY_NAME} of {self._crawler}"
            return [submission.submit_once(jobs.call, start, find, what, origin=lambda: jobs.origin)]
        except SubmissionError:
            if not maybe_started and record.attempt.since:
                _remember(record, "")  # a crawl that runs at the next start, or try, is not ours
            raise

    def _join_or_wait(
        self, record: AttemptRecord, call: Call, state: str, last: Mapping[str, Any] | None
    ) -> str | None:
        """Join the crawl that runs, if ``if_running`` allows it, and return which one it is; None if none runs.

        :raises CapacityUnavailable: the crawler is running, and its crawl cannot be joined.
        """
        from airflow_jobflow.jobs import glue_crawl

        may_join = state == glue_crawl.RUNNING and self._if_running == "attach"
        if may_join and (joined := glue_crawl.running_crawl(call, self._crawler, last)):
            return _join(record, joined)
        if state != glue_crawl.READY:
            raise self._busy()
        return None

    def _join_what_began(self, record: AttemptRecord, call: Call, began: Since) -> str:
        """Join the crawl that another task started meanwhile, even if it has ended by now.

        :param began: which crawl it is if it is not listed: the first since this task described the crawler.
        :raises CapacityUnavailable, SubmissionError: it may not be joined, or is stopping already.
        """
        from airflow_jobflow.jobs import glue_crawl

        if self._if_running != "attach":
            raise self._busy()
        state, last = glue_crawl.crawler_state(call, self._crawler)
        if state not in (glue_crawl.RUNNING, glue_crawl.READY):
            raise self._busy()
        record.attempt.since = ""
        return _join(record, glue_crawl.running_crawl(call, self._crawler, last) or began)

    def find_group(self, call: Call, group: str, recorded: Attempt) -> list[Found]:  # noqa: ARG002
        """Return the crawl that the last try started, if it has begun: the first since the one before."""
        from airflow_jobflow.jobs.reattach import Found

        return [Found(crawl) for crawl in _begun(call, recorded.since).values()]

    def find_started(self, call: Call, record: AttemptRecord) -> str | None:
        """Return the crawl of this attempt; if the crawler was at work, only one that has begun."""
        attempt = record.attempt
        return attempt.since if attempt.waits_since is None else next(iter(_begun(call, attempt.since)), None)

    def _busy(self) -> SubmissionError:
        """Return the exception for a crawler that is running, and whose crawl cannot be joined."""
        if self._if_running == "fail":
            return SubmissionError(
                f"Crawler {self._crawler} is already running, so no crawl was started (if_running='fail')"
            )
        return CapacityUnavailable(f"Crawler {self._crawler} is running, and a crawler runs one crawl at a time.")


def _join(record: AttemptRecord, crawl: Since) -> str:
    """Record that this attempt waits for a crawl that it did not start, and return which one it is."""
    record.attempt.joined, record.attempt.job_ids = True, [str(crawl)]
    record.save()
    return str(crawl)


def _remember(record: AttemptRecord, since: str) -> None:
    """Record which crawl this attempt is about to start, because a crawl carries no owner."""
    record.attempt.since = since
    record.save()


def _begun(call: Call, crawl: str) -> dict[str, Snapshot]:
    from airflow_jobflow.jobs import glue_crawl

    seen = glue_crawl.describe(call, [crawl], None) if crawl else {}
    return {job_id: snapshot for job_id, snapshot in seen.items() if snapshot.left_queue}


class GlueRunSpec(JobSpec):
    """A run of a Glue job.

    :param values: the validated parameters of the operator, see ``RUN_PARAMETERS``.
    :param folder: the folder of the DAG file, which the path of a local script is relative to. Default: none.
    :raises InvalidParameter: two of them contradict each other.
    """

    when_stuck = "Check what else is running: has the job or the account reached a limit?"
    passes_context = False

    def __init__(self, values: Mapping[str, Any], folder: str = "") -> None:
        from airflow_jobflow.jobs import glue_run

        for name, member in RUN_PARAMETERS.members.items():
            if name in values and member in values.get("run_job_kwargs", {}):
                raise invalid_parameter(
                    name, values[name], f"is also set in run_job_kwargs, as {member}; set it in one place only"
                )
        self.values = values
        self.name: str = values["job_name"]
        self.scope: str | None = self.name
        self.changes = change_rules.changes_of(values, RUN_PARAMETERS, CHANGEABLE)
        self.request = glue_run.request(values, RUN_PARAMETERS.members)
        """The StartJobRun request."""
        self._script = Script.of(values, folder)

    def submit(self, record: AttemptRecord, jobs: RemoteJobs) -> list[str]:
        """Start a run with an argument that no other run carries, and return its id; see the base."""
        from airflow_jobflow.jobs import glue_run
        from airflow_jobflow.jobs.environment import RESULT_ARGUMENT
        from airflow_jobflow.jobs.owner import ARGUMENT
        from airflow_jobflow.operators import submission

        script = {SCRIPT: self._script.resolve(jobs)} if self._script else {}
        changed, inputs = values_of(record.attempt.changes, self.values), record.inputs
        token = record.new_attempt()
        request = {**self.request, **glue_run.request(changed, RUN_PARAMETERS.members)}
        added = {f"--{name}": value for name, value in inputs.context(record).items()}
        if uri := inputs.result_uri(record):
            added[RESULT_ARGUMENT] = uri
        arguments = {**added, **request.get("Arguments", {}), **script}
        if inputs.pass_context:
            arguments = with_parent_of_spark(arguments, record.context)
        if record.durable:
            owner = record.owner.argument(attempt=token, **{"try": str(record.this_try)})
            arguments = {ARGUMENT: owner, **arguments}
        if arguments:
            request["Arguments"] = arguments

        def find(call: Call) -> str | None:
            return glue_run.find(call, self.name, token)

        def start(call: Call) -> str:
            return record.before_submit(call) or glue_run.start(call, request)

        jobs.log.info("Starting a run of %s: %s", self.name, request)
        what = f"{glue_run.DISPLAY_NAME} of {self.name}"
        found_by = find if record.durable else None
        return [submission.submit_once(jobs.call, start, found_by, what, origin=lambda: jobs.origin)]

    @property
    def listing(self) -> tuple[str]:
        """The name of the job."""
        return (self.name,)

    def list_attempts(self, call: Call, since: float) -> Mapping[str, str]:
        """Return the runs of the job; see the base."""
        from airflow_jobflow.jobs import glue_run

        return glue_run.list_attempts(call, self.name, since)

    def find_started(self, call: Call, record: AttemptRecord) -> str | None:
        """Return the run of this attempt: a run whose start got no response may use up the job's capacity."""
        from airflow_jobflow.jobs import glue_run

        return glue_run.find(call, self.name, record.attempt.token)

    def find_group(self, call: Call, group: str, recorded: Attempt) -> list[Found]:  # noqa: ARG002
        """Return all runs of this task instance among the newest runs of the job."""
        from airflow_jobflow.jobs import glue_run

        return glue_run.find_group(call, self.name, group)
