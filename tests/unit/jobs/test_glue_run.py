"""The job run module: checked against botocore's model; pages of runs, snapshots and start requests."""

from __future__ import annotations

import time
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from airflow_jobflow.events.eventbridge import JobEvent, jobs_to_describe
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import glue_run
from airflow_jobflow.jobs.attempt import Try
from airflow_jobflow.jobs.diagnosis import diagnose
from airflow_jobflow.jobs.listing import glue_runs
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot, iso_seconds
from airflow_jobflow.jobs.owner import ARGUMENT, Owner
from airflow_jobflow.operators.glue_spec import RUN_PARAMETERS
from tests.unit.jobs.scripted_calls import ScriptedClient, refused

OWNER = Owner("etl", "load", "manual__1")


@pytest.fixture(scope="module")
def model() -> Any:
    """Return botocore's model of Glue."""
    return botocore.session.get_session().get_service_model("glue")


def run(number: int, state: str = "RUNNING", **more: Any) -> dict[str, Any]:
    """Return a run as in GetJobRun."""
    return {"Id": f"jr_{number}", "JobName": "etl", "JobRunState": state, "StartedOn": 1_700_000_000.5, **more}


class Glue(ScriptedClient):
    """The part of the client that the module uses: a job with runs, newest first, and a count of the calls."""

    def __init__(self, *runs: dict[str, Any], errors: list[dict[str, Any]] | None = None, max_retries: Any = 0) -> None:
        self.runs = runs
        self.errors = errors
        self.calls: list[str] = []
        self.stopped: list[str] = []
        self.max_retries = max_retries
        self.remembered: dict[Any, Any] = {}

    @property
    def memory(self) -> dict[Any, Any]:
        """What was read lately."""
        return self.remembered

    def get_job(self, JobName: str) -> dict[str, Any]:  # noqa: N803
        """Return the job, or raise the planned error."""
        self.calls.append("GetJob")
        self._check(JobName)
        if isinstance(self.max_retries, Exception):
            raise self.max_retries
        return {"Job": {"MaxRetries": self.max_retries}}

    def get_job_runs(self, JobName: str, MaxResults: int, NextToken: str = "0") -> dict[str, Any]:  # noqa: N803
        """Return a page."""
        self.calls.append("GetJobRuns")
        self._check(JobName)
        assert 1 <= MaxResults <= 200
        start = int(NextToken)
        answer: dict[str, Any] = {"JobRuns": list(self.runs[start : start + MaxResults])}
        return answer | ({"NextToken": str(start + MaxResults)} if len(self.runs) > start + MaxResults else {})

    def get_job_run(self, JobName: str, RunId: str) -> dict[str, Any]:  # noqa: N803
        """Return one run."""
        self.calls.append("GetJobRun")
        self._check(JobName)
        for each in self.runs:
            if each["Id"] == RunId:
                return {"JobRun": each}
        raise self._unknown(RunId)

    def batch_stop_job_run(self, JobName: str, JobRunIds: list[str]) -> dict[str, Any]:  # noqa: N803
        """Return the planned response."""
        self.calls.append("BatchStopJobRun")
        self._check(JobName)
        [run_id] = JobRunIds
        self.stopped.append(run_id)
        ended = [each["Id"] for each in self.runs if each["JobRunState"] in ("FAILED", "ERROR")]
        refused_by_state = [{"ErrorDetail": {"ErrorCode": "InvalidInputException"}}] if run_id in ended else []
        return {"Errors": refused_by_state if self.errors is None else self.errors}

    def _check(self, job: str) -> None:
        if job != "etl":
            raise self._unknown(job)

    def _unknown(self, what: str) -> Exception:
        return refused("EntityNotFoundException", "GetJobRun", f"{what} not found")


def statuses(client: Any, *numbers: int) -> dict[str, str | None]:
    """Return the statuses that one describe call returns, by id."""
    seen = glue_run.describe(client, [f"jr_{number}" for number in numbers], "etl")
    return {run_id: snapshot.status if snapshot else None for run_id, snapshot in seen.items()}


def test_every_state_of_botocore_is_in_the_table(model: Any) -> None:
    """A run with a state missing from the table would never end."""
    assert set(glue_run.STATES) == set(model.shape_for("JobRunState").enum)
    assert len(glue_run.STATES) == 10
    assert set(glue_run.BY_REQUEST) <= set(glue_run.STATES)


def test_members_that_are_read_exist_in_botocores_model(model: Any) -> None:
    """A misspelled member would always be absent."""
    read = {"Id", "JobName", "JobRunState", "Attempt", "LogGroupName", "ExecutionTime", "DPUSeconds", "Arguments"}
    read |= {"ErrorMessage", "StateDetail", "StartedOn", "CompletedOn"}
    assert read <= set(model.shape_for("JobRun").members)


@pytest.mark.parametrize(
    ("state", "ended", "by_request", "left_queue"),
    [
        ("WAITING", False, False, False),
        ("STARTING", False, False, False),
        ("RUNNING", False, False, True),
        ("STOPPING", False, True, True),
        ("STOPPED", True, True, True),
        ("SUCCEEDED", True, False, True),
        ("FAILED", True, False, True),
        ("ERROR", True, False, True),
        ("TIMEOUT", True, False, True),
        ("EXPIRED", True, False, True),
        ("PONDERING", False, False, True),
    ],
)
def test_every_state_is_classified(state: str, *, ended: bool, by_request: bool, left_queue: bool) -> None:
    """An unknown new state must not end a wait."""
    client: Any = Glue()
    seen = glue_run.snapshot(run(1, state), client)
    assert (seen.state.ended, seen.stopped_by_request, seen.left_queue) == (ended, by_request, left_queue)
    assert (seen.state is JobState.SUCCEEDED) == (state == "SUCCEEDED")


@pytest.mark.parametrize(
    ("state", "reason", "cause"),
    [
        ("FAILED", "ValueError: no such column", "command_failed"),
        ("FAILED", "Command failed with exit code 10", "command_failed"),
        ("FAILED", "An error occurred while calling o1. Access Denied (Service: S3)", "permission_missing"),
        ("FAILED", "EntityNotFoundException: Database se2 not found.", "not_there"),
        ("FAILED", "AnalysisException: Entity Not Found", "not_there"),
        ("FAILED", "Something new", "unknown"),
        ("FAILED", None, "unknown"),
        ("ERROR", "Internal service error", "host_lost"),
        ("ERROR", "LAUNCH ERROR | please refer logs", "not_started"),
        ("TIMEOUT", "Job run timed out", "attempt_timed_out"),
        ("STOPPED", None, "stopped"),
        ("EXPIRED", "Job run expired in the queue", "queue_expired"),
    ],
)
def test_a_reason_of_glue_leads_to_its_cause(state: str, reason: str | None, cause: str) -> None:
    """A wrong cause would mislead people and retry policies."""
    client: Any = Glue()
    diagnosis = diagnose(glue_run.snapshot(run(1, state, **({"ErrorMessage": reason} if reason else {})), client))
    assert diagnosis
    assert diagnosis.cause == cause


def test_a_snapshot_survives_serialization_in_a_trigger_event() -> None:
    """The operator gets all that the trigger has seen, including the error log."""
    client: Any = Glue()
    told = run(1, "FAILED", ErrorMessage="why", LogGroupName="/aws-glue/jobs", ExecutionTime=7, CompletedOn=1.7e9)
    seen = glue_run.snapshot(told, client)
    assert Snapshot.from_dict(seen.to_dict()) == seen
    assert seen.log == LogStream("/aws-glue/jobs/error", "jr_1")
    assert (seen.attempt, seen.max_attempts, seen.details) == (1, 1, {"execution_seconds": 7})
    assert glue_run.snapshot(run(1, "WAITING", StateDetail="Waiting for DPUs"), client).reason == "Waiting for DPUs"


# Many runs, few calls.


def test_one_call_describes_the_newest_two_hundred_runs() -> None:
    """The number and order of the awaited runs do not matter."""
    client: Any = Glue(*(run(number) for number in range(400, 0, -1)))
    assert set(statuses(client, *range(201, 401)).values()) == {"RUNNING"}
    assert client.calls == ["GetJobRuns"]


def test_older_runs_are_on_later_pages() -> None:
    """No more pages are read than needed."""
    client: Any = Glue(*(run(number) for number in range(900, 0, -1)))
    assert statuses(client, 900, 450) == {"jr_900": "RUNNING", "jr_450": "RUNNING"}
    assert client.calls == ["GetJobRuns"] * 3


def test_a_run_beyond_the_newest_thousand_is_described_alone() -> None:
    """A job may have a million runs, so describe reads at most five pages."""
    client: Any = Glue(*(run(number) for number in range(1300, 0, -1)))
    assert statuses(client, 1300, 301, 300) == {"jr_1300": "RUNNING", "jr_301": "RUNNING", "jr_300": None}
    assert client.calls == ["GetJobRuns"] * glue_run.MAX_PAGES
    assert statuses(client, 300) == {"jr_300": "RUNNING"}
    assert client.calls[glue_run.MAX_PAGES :] == ["GetJobRun"]


def test_an_unknown_run_is_described_alone_and_then_missing() -> None:
    """A single describe call must decide, or it would be repeated forever."""
    client: Any = Glue(run(1))
    assert statuses(client, 1, 2) == {"jr_1": "RUNNING", "jr_2": None}
    assert statuses(client, 2) == {}


@pytest.mark.parametrize("numbers", [(1,), (1, 2)])
def test_a_missing_job_is_reported_as_such(numbers: tuple[int, ...]) -> None:
    """If the job is missing, not the run, a grace period does not help."""
    client: Any = Glue()
    with pytest.raises(CallError, match="nowhere not found"):
        glue_run.describe(client, [f"jr_{number}" for number in numbers], "nowhere")


# Retries by Glue itself.


def retry(number: int, count: int, state: str = "RUNNING", **more: Any) -> dict[str, Any]:
    """Return a retry of a run as in GetJobRun."""
    previous = f"jr_{number}" + (f"_attempt_{count - 1}" if count > 1 else "")
    own = {"Id": f"jr_{number}_attempt_{count}", "Attempt": count, "PreviousRunId": previous}
    return {**run(number, state), **own, **more}


def just_failed(**more: Any) -> dict[str, Any]:
    """Return the members of a run that has failed ten seconds ago."""
    return {"JobRunState": "FAILED", "CompletedOn": time.time() - 10, "ErrorMessage": "why", **more}


def described(client: Any, *also: str) -> Any:
    """Describe jr_1, alone or together with other runs."""
    return glue_run.describe(client, ["jr_1", *also], "etl")["jr_1"]


BOTH_WAYS = pytest.mark.parametrize("also", [(), ("jr_2",)], ids=["alone", "with others"])


@BOTH_WAYS
def test_a_run_that_fails_counts_as_running_until_its_retry_appears(also: tuple[str, ...]) -> None:
    """Otherwise the task would fail, and its next try would start a second run beside the retry."""
    client: Any = Glue(run(2), run(1, **just_failed()), max_retries=2)
    seen = described(client, *also)
    assert (seen.state, seen.left_queue, seen.stopped_at) == (JobState.RUNNING, True, None)
    assert seen.progress() == "WAITING (attempt 1 FAILED: why; waiting for Glue's retry)"
    assert (seen.attempt, seen.max_attempts) == (1, 3)


@BOTH_WAYS
@pytest.mark.parametrize(("state", "expected"), [("STARTING", "SUBMITTED"), ("RUNNING", "RUNNING"), ("SUCCEEDED",) * 2])
def test_the_last_retry_decides(also: tuple[str, ...], state: str, expected: str) -> None:
    """Its log and its state count, under the id of the run that was started; figures are those of all."""
    used = {"ExecutionTime": 7, "LogGroupName": "/aws-glue/jobs", "MaxCapacity": 2.0}
    first = run(1, **just_failed(**used, Arguments={"--jobflow_result": "s3://b/k"}))
    second = retry(1, 1, **just_failed(**used, CompletedOn=1.7e9 + 100))
    third = retry(1, 2, state, **used, StartedOn=1.7e9 + 130)
    seen = described(Glue(run(2), third, second, first, max_retries=2), *also)
    assert (seen.job_id, seen.state, seen.status) == ("jr_1", expected, state)
    assert seen.progress() == f"{state} (attempt {3 - (state == 'STARTING')} of 3)"
    assert seen.log == LogStream("/aws-glue/jobs/error", "jr_1_attempt_2")
    assert seen.details == {"execution_seconds": 21, "run_id": "jr_1_attempt_2"}
    assert (seen.created_at, seen.previous_attempt_ended_at) == (iso_seconds(1_700_000_000.5), iso_seconds(1.7e9 + 100))
    assert seen.left_queue
    assert seen.run_seconds == (21.0 if expected == "SUCCEEDED" else None)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("last", "max_retries"),
    [
        (run(1, **just_failed()), 0),
        (run(1, **just_failed(CompletedOn=1.7e9)), 2),
        (run(1, "TIMEOUT", CompletedOn=time.time()), 2),
        (run(1, "STOPPED", CompletedOn=time.time()), 2),
        (retry(1, 2, **just_failed()), 2),
    ],
    ids=["no retries", "the retry did not appear", "a timeout is not retried", "nor is a stop", "the last retry"],
)
def test_a_run_without_another_retry_has_failed(also: tuple[str, ...], last: dict[str, Any], max_retries: int) -> None:
    """The wait must end."""
    before = [retry(1, 1, **just_failed()), run(1, **just_failed())] if "PreviousRunId" in last else []
    seen = described(Glue(run(2), last, *before, max_retries=max_retries), *also)
    assert (seen.state, seen.status) == (JobState.FAILED, last["JobRunState"])


def test_a_run_that_succeeds_costs_no_call_for_retries() -> None:
    """Most runs do."""
    client: Any = Glue(run(1, "SUCCEEDED"), run(0), max_retries=2)
    assert statuses(client, 1) == {"jr_1": "SUCCEEDED"}
    assert statuses(client, 1, 0) == {"jr_1": "SUCCEEDED", "jr_0": "RUNNING"}
    assert client.calls == ["GetJobRun", "GetJobRuns"]


def test_the_retries_that_a_job_allows_are_read_once_a_minute() -> None:
    """A failed run costs two calls more, however many runs of the job fail."""
    client: Any = Glue(*(run(number, **just_failed()) for number in range(9)), max_retries=1)
    for _ in range(3):
        assert set(statuses(client, *range(9)).values()) == {"WAITING"}
    assert client.calls == ["GetJobRuns", "GetJob", "GetJobRuns", "GetJobRuns"]
    client.calls.clear()
    assert statuses(client, 1) == {"jr_1": "WAITING"}
    assert client.calls == ["GetJobRun", "GetJobRun"]


def test_a_failed_run_waits_for_a_retry_if_get_job_is_denied(caplog: pytest.LogCaptureFixture) -> None:
    """It may be retried; the log names the permission."""
    client: Any = Glue(run(1, **just_failed()), max_retries=refused("AccessDeniedException", "GetJob", "no"))
    assert described(client).state is JobState.RUNNING
    assert "Allow glue:GetJob" in caplog.text
    client = Glue(run(1, **just_failed(CompletedOn=1.7e9)), max_retries=refused("AccessDeniedException", "GetJob"))
    assert described(client).state is JobState.FAILED


def test_a_failed_run_of_a_deleted_job_has_failed() -> None:
    """Glue still lists its runs, and retries none."""
    client: Any = Glue(run(1, **just_failed()), max_retries=refused("EntityNotFoundException", "GetJob"))
    assert described(client).state is JobState.FAILED


def test_a_throttled_get_job_decides_nothing() -> None:
    """The watcher repeats the describe call, unless the retry runs already."""
    client: Any = Glue(run(1, **just_failed()), max_retries=refused("ThrottlingException", "GetJob"))
    with pytest.raises(CallError, match="ThrottlingException"):
        described(client)
    client = Glue(retry(1, 1), run(1, **just_failed()), max_retries=refused("ThrottlingException", "GetJob"))
    assert described(client).progress() == "RUNNING (attempt 2 of 2)"


def test_the_retry_is_stopped_instead_of_the_failed_run() -> None:
    """Only the run that runs can be stopped."""
    client: Any = Glue(retry(1, 1), run(1, **just_failed()), max_retries=2)
    glue_run.stop(client, "jr_1", "etl", "why")
    assert client.stopped == ["jr_1", "jr_1_attempt_1"]


def test_a_run_between_two_attempts_cannot_be_stopped_yet() -> None:
    """The stop is repeated until the retry runs, because it would use up money."""
    client: Any = Glue(run(1, **just_failed()), max_retries=2)
    with pytest.raises(CallError, match="run jr_1 has failed, and Glue is about to retry it") as error:
        glue_run.stop(client, "jr_1", "etl", "why")
    assert error.value.fault is Fault.TRANSIENT


def test_the_runs_of_a_group_are_found_under_the_id_of_the_first() -> None:
    """A retry by Glue belongs to the run that was started, whether or not it has the same arguments."""
    arguments: dict[str, Any] = {"Arguments": {ARGUMENT: OWNER.argument(attempt="mine", **{"try": "t1m2c0"})}}
    cases: list[dict[str, Any]] = [{}, arguments]
    for of_retry in cases:
        client: Any = Glue(retry(1, 1, **of_retry), run(1, **just_failed(), **arguments), max_retries=1)
        [found] = glue_run.find_group(client, "etl", OWNER.group)
        assert (found.job.job_id, found.job.state, found.by) == ("jr_1", JobState.RUNNING, Try(1, 2, 0))
        assert glue_run.find(client, "etl", "mine") == "jr_1"
        assert set(glue_run.list_attempts(client, "etl", since=0.0).values()) == {"jr_1"}
        [listed] = glue_runs(client, "etl", now=1.7e9)
        assert (listed.job_id, listed.owner) == ("jr_1_attempt_1", OWNER)


def test_an_event_of_a_retry_wakes_the_wait_for_the_run() -> None:
    """The wait subscribes to the run that was started."""
    assert jobs_to_describe(JobEvent("glue_run", "jr_1_attempt_2", True), "glue_run", {"jr_1"}) == {"jr_1": True}


# Stopping and finding.


@pytest.mark.parametrize("state", ["SUCCEEDED", "STOPPING", "STOPPED", "TIMEOUT"])
def test_stopping_a_run_that_has_ended_or_is_stopping_succeeds(state: str) -> None:
    """Glue reports it as an error."""
    client: Any = Glue(run(1, state), errors=[{"ErrorDetail": {"ErrorCode": "InvalidInputException"}}])
    glue_run.stop(client, "jr_1", "etl", "why")


@pytest.mark.parametrize("runs", [[run(1)], []], ids=["it runs", "it is not there"])
def test_a_run_that_cannot_be_stopped_is_an_error(runs: Any) -> None:
    """The response has status 200, but must not count as a stop."""
    detail = {"ErrorCode": "InternalServiceException", "ErrorMessage": "cannot"}
    client: Any = Glue(*runs, errors=[{"ErrorDetail": detail}])
    with pytest.raises(CallError, match=r"BatchStopJobRun: InternalServiceException: cannot \(run jr_1\)"):
        glue_run.stop(client, "jr_1", "etl", "why")


def test_a_run_is_found_by_its_token() -> None:
    """Only the token decides."""
    mine = run(2, Arguments={"--a": "b", ARGUMENT: OWNER.argument(attempt="mine", **{"try": "t1m2c0"})})
    client: Any = Glue(run(3), mine, run(1, Arguments={"--a": "mine", ARGUMENT: "mine"}))
    assert glue_run.find(client, "etl", "mine") == "jr_2"
    assert glue_run.find(client, "etl", "other") is None


def test_the_runs_of_a_group_are_found_with_their_tries() -> None:
    """A run whose try cannot be read still belongs to the group."""
    members = {"attempt": "mine", "try": "t1m2c0"}
    client: Any = Glue(
        run(4, Arguments={ARGUMENT: OWNER.argument(**members)}),
        run(3, Arguments={ARGUMENT: OWNER.argument(**{**members, "try": "first"})}),
        run(2, Arguments={ARGUMENT: Owner("d", "t", "another").argument(**members)}),
        run(1),
    )
    found = glue_run.find_group(client, "etl", OWNER.group)
    assert [(each.job.job_id, each.by) for each in found] == [("jr_4", Try(1, 2, 0)), ("jr_3", None)]


# Start requests.


def test_the_members_of_start_job_run_are_those_of_botocore(model: Any) -> None:
    """A misspelled member would be rejected."""
    assert set(RUN_PARAMETERS.members.values()) <= set(model.operation_model("StartJobRun").input_shape.members)


def test_a_request_fits_botocores_model(model: Any) -> None:
    """Arguments are strings; parameters that are not set are not sent."""
    request = glue_run.request(
        {
            "job_name": "etl",
            "script_args": {"--day": "2026-11-22", "--count": 3, "--dry": True},
            "run_job_kwargs": {"NotificationProperty": {"NotifyDelayAfter": 5}},
            "worker_type": "G.1X",
            "number_of_workers": 10,
            "max_capacity": 0.0625,
            "attempt_timeout": 120,
            "execution_class": "FLEX",
            "security_configuration": "s",
        },
        RUN_PARAMETERS.members,
    )
    shape = model.operation_model("StartJobRun").input_shape
    assert not ParamValidator().validate(request, shape).has_errors()
    assert request["Timeout"] == 2
    assert request["Arguments"] == {"--day": "2026-11-22", "--count": "3", "--dry": "True"}
    assert request["NotificationProperty"] == {"NotifyDelayAfter": 5}
    assert glue_run.request({"job_name": "etl"}, RUN_PARAMETERS.members) == {"JobName": "etl"}


def test_attempts_are_listed_by_group_and_token_back_to_a_time() -> None:
    """One listing serves all tasks that start the job; it ends at runs that are too old."""
    pages = [
        [{"Id": "jr_2", "StartedOn": 9.0, "Arguments": {ARGUMENT: '{"group": "g", "attempt": "t"}'}}],
        [{"Id": "jr_1", "StartedOn": 1.0, "Arguments": {}}],
        [{"Id": "jr_0", "StartedOn": 0.5, "Arguments": {ARGUMENT: '{"group": "g", "attempt": "old"}'}}],
    ]

    class Runs(ScriptedClient):
        def get_job_runs(self, **request: Any) -> Any:
            number = int(request.get("NextToken", 0))
            return {"JobRuns": pages[number], **({"NextToken": str(number + 1)} if number < len(pages) - 1 else {})}

    found = glue_run.list_attempts(Runs(), "etl", since=5.0)
    assert found["g-t"] == "jr_2"
    assert "g-old" not in found
