"""The job run module: checked against botocore's model; pages of runs, snapshots and start requests."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import glue_run
from airflow_jobflow.jobs.attempt import Try
from airflow_jobflow.jobs.diagnosis import diagnose
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot
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

    def __init__(self, *runs: dict[str, Any], errors: list[dict[str, Any]] | None = None) -> None:
        self.runs = runs
        self.errors = errors or []
        self.calls: list[str] = []

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
        assert len(JobRunIds) == 1
        return {"Errors": self.errors}

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
