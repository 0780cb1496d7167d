"""BatchJobSensor on the local AWS: it waits for jobs that others have started, and stops none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, AirflowSkipException, TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.local import Faults
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.ui import notes

UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def sensor(here: Callable[[Any], None], aws: Any) -> Callable[..., BatchJobSensor]:
    """Return a function that creates a sensor, which by default waits on the worker."""
    here(aws)

    def make(job_id: Any, **parameters: Any) -> BatchJobSensor:
        return BatchJobSensor(
            **{"task_id": "s", "job_id": job_id, "aws_conn_id": None, "deferrable": False, **parameters}
        )

    return make


def test_it_returns_the_outcome_of_a_job(kit: Any, sensor: Any, context: Any) -> None:
    """The outcome has the same format as that of an operator."""
    job_id = kit.sh("sleep 0.3")
    outcome = sensor(job_id).execute(context)
    assert (outcome["job_id"], outcome["state"], outcome["exit_code"]) == (job_id, "SUCCEEDED", 0)


def test_one_task_waits_for_a_list_of_jobs(kit: Any, sensor: Any, context: Any) -> None:
    """Outcomes are in the order of the ids."""
    job_ids = [kit.sh(f"sleep 0.{n}") for n in (3, 1, 2)]
    outcomes = sensor(job_ids).execute(context)
    assert [outcome["job_id"] for outcome in outcomes] == job_ids


def test_a_list_of_one_returns_a_list(kit: Any, sensor: Any, context: Any) -> None:
    """A list as parameter means a list as result."""
    [outcome] = sensor([kit.sh("true")]).execute(context)
    assert outcome["state"] == "SUCCEEDED"


def test_an_outcome_can_be_used_as_an_id(kit: Any, sensor: Any, context: Any) -> None:
    """The outcome of an operator with wait_for_completion=False can be passed on unchanged."""
    job_id = kit.sh("true")
    assert sensor({"job_id": job_id, "state": "SUBMITTED"}).execute(context)["job_id"] == job_id


def test_buttons_are_kept_for_one_job_of_a_list(kit: Any, sensor: Any, context: Any) -> None:
    """A task has one button of a kind; for many jobs, it leads to the first that failed."""
    good, bad = kit.sh("true"), kit.sh("exit 1")
    waiting = sensor([good, bad], raise_on_failure=False)
    waiting.execute(context)
    assert context["ti"].xcoms["jobflow_jobs"]["links"]["_link_BatchJobLink"].endswith(bad)
    assert waiting.operator_extra_links == ()


@pytest.mark.parametrize(
    ("limits", "error"), [({"job_timeout": 10}, exceptions.JobTimeout), ({"timeout": 10}, AirflowSensorTimeout)]
)
def test_a_deferral_timeout_raises_the_usual_exception(
    kit: Any, sensor: Any, context: Any, gate: Any, *, limits: dict[str, Any], error: type[Exception]
) -> None:
    """Jobs are described once more, and the exception is that of the passed limit."""
    event = {"error": TriggerFailureReason.TRIGGER_TIMEOUT}
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    with pytest.raises(error):
        sensor(job_id, **limits).resume_execution("__fail__", event, context)
    gate.touch()
    kit.wait(job_id)
    assert sensor(job_id, **limits).resume_execution("__fail__", event, context)["state"] == "SUCCEEDED"


def test_every_failure_of_a_list_is_reported(kit: Any, sensor: Any, context: Any) -> None:
    """The sensor waits for all jobs first."""
    good, bad, worse = kit.sh("sleep 0.5"), kit.sh("exit 3"), kit.sh("exit 4")
    with pytest.raises(exceptions.JobFailed) as error:
        sensor([good, bad, worse]).execute(context)
    assert "exit code 3" in str(error.value)
    assert "exit code 4" in str(error.value)
    assert isinstance(error.value.outcome, list)
    assert [outcome["state"] for outcome in error.value.outcome] == ["SUCCEEDED", "FAILED", "FAILED"]


def test_the_failure_that_a_retry_fixes_least_decides(kit: Any, sensor: Any, context: Any) -> None:
    """A missing command (127) outweighs a failed one at any place in the list."""
    jobs = [kit.sh("exit 2"), kit.sh("exit 127"), kit.sh("exit 3")]
    with pytest.raises(exceptions.JobFailed) as error:
        sensor(jobs).execute(context)
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == "command_not_run"


def test_a_failed_job_is_returned_with_raise_on_failure_false(kit: Any, sensor: Any, context: Any) -> None:
    """A branch can decide on the outcome."""
    assert sensor(kit.sh("exit 3"), raise_on_failure=False).execute(context)["state"] == "FAILED"


def test_a_deferred_sensor_ends_the_same_way(kit: Any, sensor: Any, context: Any, gate: Any) -> None:
    """Its trigger never stops a job."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    task = sensor(job_id, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    trigger: Any = deferred.value.trigger
    asyncio.run(trigger.on_kill())
    gate.touch()
    assert task.execute_complete(context, asyncio.run(trigger.wait()))["state"] == "SUCCEEDED"


def test_timeout_raises_airflows_exception(kit: Any, sensor: Any, context: Any, gate: Any) -> None:
    """AirflowSensorTimeout is not retried, and the job keeps running."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    with pytest.raises(
        AirflowSensorTimeout, match=rf"after 0.5 s \(timeout\) while waiting for Batch job \S+ \({job_id}\)"
    ):
        sensor(job_id, timeout=0.5).execute(context)
    gate.touch()
    assert kit.wait(job_id)["status"] == "SUCCEEDED"


def test_job_timeout_raises_our_exception(kit: Any, sensor: Any, context: Any, gate: Any) -> None:
    """JobTimeout is retried."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    with pytest.raises(exceptions.JobTimeout, match="1 of 2 Batch jobs"):
        sensor([job_id, kit.sh("true")], job_timeout=1).execute(context)


@pytest.mark.parametrize("parameters", [{"soft_fail": True}, {"never_fail": True}])
@pytest.mark.parametrize("deferrable", [True, False])
def test_soft_fail_skips(
    kit: Any,
    sensor: Any,
    context: Any,
    parameters: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    *,
    deferrable: bool,
) -> None:
    """The log and the Jobs tab show the reason (F3)."""
    job_id = kit.sh("echo no such file; exit 3")
    operator = sensor(job_id, deferrable=deferrable, **parameters)
    if deferrable:
        kit.wait(job_id)
        event = {"job_ids": [job_id], "jobs": operator_jobs(operator, job_id), "errors": {}, "limit": None}
        with pytest.raises(AirflowSkipException):
            operator.resume_execution("execute_complete", {"event": event}, context)
    else:
        with pytest.raises(AirflowSkipException):
            operator.execute(context)
    log = capsys.readouterr().out
    assert "Skipping the task instead of failing it: Batch job job" in log
    assert "no such file" in log
    note = context["ti"].xcoms[notes.KEY]
    assert "with exit code 3" in note["error"]
    assert note["jobs"][0]["job_id"] == job_id


def operator_jobs(operator: Any, job_id: str) -> dict[str, Any]:
    """Return what a trigger reports about a job."""
    return {job_id: operator._wait.jobs.describe_now([job_id])[job_id].to_dict()}


def test_a_skip_after_a_timeout_has_a_reason(
    kit: Any, sensor: Any, context: Any, gate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Airflow's own exception must not hide ours."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    with pytest.raises(AirflowSkipException):
        sensor(job_id, timeout=0.5, soft_fail=True).execute(context)
    assert "Skipping the task instead of failing it: Timed out after 0.5 s (timeout) while waiting for Batch job" in (
        capsys.readouterr().out
    )
    assert job_id in context["ti"].xcoms[notes.KEY]["error"]
    gate.touch()
    assert kit.wait(job_id)["status"] == "SUCCEEDED"


def test_poke_interval_is_another_name_for_poll_interval(sensor: Any) -> None:
    """DAGs can use the parameter of other sensors."""
    assert sensor("a", poke_interval=7)._wait.parameters.poll_interval == 7
    assert sensor("a", poke_interval=7, poll_interval=3)._wait.parameters.poll_interval == 3


def test_an_unknown_job_fails_the_wait_after_the_grace_period(
    sensor: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait neither lasts forever nor succeeds."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__MISSING_GRACE", "1")
    origin = r"\(connection: boto3's default credentials in us-east-1\)"
    words = rf"Batch job {UNKNOWN} {origin}: not found in AWS for \d+ s"
    with pytest.raises(exceptions.JobNotFound, match=words):
        sensor(UNKNOWN).execute(context)


def test_a_job_that_appears_late_is_waited_for(own_kit: Any, here: Any, sensor: Any, context: Any) -> None:
    """A job that was just submitted may be missing for a while."""
    here(own_kit.aws)
    own_kit.aws.set_faults(Faults(visible_after=1))
    assert sensor(own_kit.sh("true")).execute(context)["state"] == "SUCCEEDED"


def test_a_malformed_id_fails_its_own_wait_only(kit: Any, sensor: Any, context: Any, gate: Any) -> None:
    """The error has AWS's message; other waits share its calls, and continue."""

    async def both() -> tuple[Any, Any]:
        good = sensor(kit.sh("sleep 1"), deferrable=True)
        bad = sensor("no such id", deferrable=True)
        triggers = []
        for task in (good, bad):
            with pytest.raises(TaskDeferred) as deferred:
                task.execute(context)
            triggers.append(deferred.value.trigger)
        well, ill = await asyncio.gather(*(trigger.wait() for trigger in triggers))
        with pytest.raises(
            exceptions.WaitError, match=r"Could not describe Batch job no such id .*Nothing was stopped"
        ):
            bad.execute_complete(context, ill)
        return good.execute_complete(context, well), ill

    outcome, _ = asyncio.run(both())
    assert outcome["state"] == "SUCCEEDED"


def test_the_error_for_a_missing_permission_names_the_call(own_kit: Any, here: Any, sensor: Any, context: Any) -> None:
    """A retry waits for the job again, because the permission may be granted meanwhile."""
    here(own_kit.aws)
    job_id = own_kit.sh("true")
    own_kit.aws.set_faults(Faults(denied=("batch.DescribeJobs",)))
    with pytest.raises(exceptions.AccessDenied, match="DescribeJobs") as error:
        sensor(job_id).execute(context)
    assert not isinstance(error.value, AirflowFailException)
    assert str(error.value).startswith(
        f"Not allowed to describe Batch job {job_id} (connection: boto3's default credentials in us-east-1): "
    )


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["AWS_DEFAULT_REGION", "AWS_REGION"], "You must specify a region"),
        (["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], "Unable to locate credentials"),
    ],
)
def test_the_error_for_missing_credentials_or_region(
    sensor: Any, context: Any, monkeypatch: pytest.MonkeyPatch, missing: list[str], words: str
) -> None:
    """Otherwise the sensor would wait forever."""
    for name in missing:
        monkeypatch.delenv(name)
    with pytest.raises(exceptions.AccessDenied, match=words):
        sensor(UNKNOWN).execute(context)


def test_the_error_for_a_missing_connection_names_it(sensor: Any, context: Any) -> None:
    """Otherwise the sensor would wait forever."""
    with pytest.raises(exceptions.AccessDenied, match="Airflow has no connection 'nowhere'"):
        sensor(UNKNOWN, aws_conn_id="nowhere").execute(context)


def test_mode_reschedule_is_rejected(sensor: Any, context: Any) -> None:
    """The error explains it."""
    with pytest.raises(exceptions.InvalidParameter, match="mode='reschedule'"):
        sensor(UNKNOWN, mode="reschedule").execute(context)
