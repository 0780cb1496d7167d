"""GlueJobRunSensor on the local AWS: it waits for runs that others have started, and stops none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSensorTimeout, TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.local import Faults, LocalAws
from airflow_jobflow.local.client import REGION
from airflow_jobflow.local.glue.run import JobRun
from airflow_jobflow.operators.glue import GlueJobRunOperator
from airflow_jobflow.sensors.glue import GlueJobRunSensor
from airflow_jobflow.triggers.job import JobTrigger
from tests.local.glue_kit import HOUR, SLEEP, GlueKit, run, seen_once, until


@pytest.fixture
def kit(aws: LocalAws, here: Callable[[Any], None], eventually: Any) -> Iterator[GlueKit]:
    """A bucket of scripts."""
    here(aws)
    kit = GlueKit(aws, eventually)
    yield kit
    kit.close()


@pytest.fixture
def own_kit(own_aws: LocalAws, here: Callable[[Any], None], eventually: Any) -> GlueKit:
    """A bucket of scripts on an AWS of the test's own, for faults."""
    here(own_aws)
    return GlueKit(own_aws, eventually)


def sensor(job: str, run_id: Any, **parameters: Any) -> GlueJobRunSensor:
    """Return a sensor that waits on the worker."""
    defaults = {"task_id": "s", "aws_conn_id": None, "deferrable": False}
    return GlueJobRunSensor(**{**defaults, "job_name": job, "run_id": run_id, **parameters})


def old_runs(kit: GlueKit, job: str, count: int) -> list[str]:
    """Add old runs to a job without starting them, which would take too long, and return their ids, oldest first."""
    executions = kit.aws._services["glue", REGION]._executions  # type: ignore[attr-defined]
    one = executions.runs[job][0]
    for number in range(count):
        executions.runs[job].append(JobRun(one.job, one.request, len(executions.runs[job]), f"jr_{number:05}"))
        executions.runs[job][-1].state = "SUCCEEDED"
    return [each.run_id for each in executions.runs[job]]


@pytest.mark.parametrize("deferrable", [True, False])
def test_it_returns_the_outcome_of_a_run(kit: GlueKit, context: Any, gate: Any, *, deferrable: bool) -> None:
    """The run is given by its id."""
    job = kit.job(until(gate) if deferrable else "")
    run_id = kit.start(job)
    waiting = sensor(job, run_id, deferrable=deferrable)
    if deferrable:
        with pytest.raises(TaskDeferred) as raised:
            waiting.execute(context)
        gate.touch()
        outcome = waiting.execute_complete(context, run(raised.value.trigger))
    else:
        outcome = waiting.execute(context)
    assert (outcome["service"], outcome["state"], outcome["job_id"]) == ("glue_run", "SUCCEEDED", run_id)


def test_the_run_that_an_operator_started_is_waited_for(kit: GlueKit, context: Any) -> None:
    """The run is given by its outcome."""
    job = kit.job("import time\ntime.sleep(0.3)")
    operator = GlueJobRunOperator(task_id="t", job_name=job, aws_conn_id=None, wait_for_completion=False)
    outcome = sensor(job, operator.execute(context)).execute(context)
    assert outcome["state"] == "SUCCEEDED"


def test_one_task_waits_for_a_list_of_runs(kit: GlueKit, context: Any) -> None:
    """Outcomes are in the order of the ids."""
    job = kit.job("import time\ntime.sleep(0.3)", ExecutionProperty={"MaxConcurrentRuns": 3})
    ids = [kit.start(job) for _ in range(3)][::-1]
    assert [outcome["job_id"] for outcome in sensor(job, ids).execute(context)] == ids


def test_a_failed_run_fails_the_sensor(kit: GlueKit, context: Any) -> None:
    """The error has Glue's message and the last lines of the error log."""
    job = kit.job("raise ValueError('no such column')")
    with pytest.raises(exceptions.JobFailed, match=r"(?s)ValueError: no such column.*  \| Traceback"):
        sensor(job, kit.start(job)).execute(context)


def test_a_timeout_stops_no_run(kit: GlueKit, context: Any, gate: Any) -> None:
    """A sensor did not start the run."""
    job = kit.job(until(gate))
    run_id = kit.start(job)
    with pytest.raises(AirflowSensorTimeout):
        sensor(job, run_id, timeout=0.5).execute(context)
    gate.touch()
    assert kit.wait(job, run_id)["JobRunState"] == "SUCCEEDED"


def test_an_unknown_run_fails_the_wait_after_the_grace_period(
    kit: GlueKit, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id was mistyped, or the run was deleted; the error does not name other runs."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__MISSING_GRACE", "0.5")
    job = kit.job()
    known = kit.start(job)
    with pytest.raises(exceptions.JobNotFound, match=r"jr_unknown.*for 90 days after its end"):
        sensor(job, "jr_unknown").execute(context)
    with pytest.raises(exceptions.JobNotFound, match="jr_unknown") as error:
        sensor(job, [known, "jr_unknown"]).execute(context)
    assert known not in str(error.value)


def test_a_run_that_appears_late_is_waited_for(own_kit: GlueKit, context: Any) -> None:
    """A run that was just started may be missing for a while."""
    own_kit.aws.set_faults(Faults(visible_after=1))
    job = own_kit.job("import time\ntime.sleep(0.3)", ExecutionProperty={"MaxConcurrentRuns": 3})
    ids = [own_kit.start(job) for _ in range(2)]
    assert {outcome["state"] for outcome in sensor(job, ids).execute(context)} == {"SUCCEEDED"}
    assert sensor(job, own_kit.start(job)).execute(context)["state"] == "SUCCEEDED"


@pytest.mark.parametrize("run_id", ["jr_1", ["jr_1", "jr_2"]])
def test_an_unknown_job_fails_the_wait(kit: GlueKit, context: Any, run_id: Any) -> None:
    """The error after the grace period does not blame the credentials."""
    with pytest.raises(exceptions.WaitError, match="nowhere not found") as error:
        sensor("nowhere", run_id).execute(context)
    assert not isinstance(error.value, exceptions.AccessDenied)


@pytest.mark.parametrize("several", [True, False])
def test_the_error_for_a_missing_permission_names_the_call(own_kit: GlueKit, context: Any, *, several: bool) -> None:
    """The call depends on the number of runs."""
    job = own_kit.job()
    run_id = own_kit.start(job)
    call = "glue.GetJobRuns" if several else "glue.GetJobRun"
    own_kit.aws.set_faults(Faults(denied=(call,)))
    with pytest.raises(exceptions.AccessDenied, match=call.replace(".", ":")):
        sensor(job, [run_id, "jr_2"] if several else run_id).execute(context)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"job": None, "run_id": "a"}, "job_name=None"),
        ({"job": "", "run_id": "a"}, "job_name=''"),
        ({"job": "j", "run_id": None}, "run_id=None: must be an id"),
    ],
)
def test_invalid_parameters_make_no_call(kit: GlueKit, context: Any, parameters: dict[str, Any], words: str) -> None:
    """The error has the parameter, the value and the rule."""
    with pytest.raises(exceptions.InvalidParameter, match=words):
        sensor(**parameters).execute(context)


# Many waits, few calls.


def wait_until_seen(kit: GlueKit, job: str, ids: list[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Let a task wait for each of these runs until it has seen its state; return the calls and the states."""
    waits = [
        JobTrigger(service="glue_run", scope=job, job_ids=[run_id], aws_conn_id=None, poll_interval=HOUR)
        for run_id in ids
    ]
    before = kit.aws.calls

    seen = seen_once(waits)
    return dict(kit.aws.calls - before), dict(zip(ids, seen, strict=True))


def test_one_call_serves_all_waits_for_the_newest_runs(kit: GlueKit) -> None:
    """There are two hundred of them, some of which are running."""
    job = kit.job(SLEEP)
    kit.start(job)
    ids = old_runs(kit, job, 199)
    calls, seen = wait_until_seen(kit, job, ids)
    assert calls == {"glue.GetJobRuns": 1}
    assert list(seen) == ids
    assert list(seen.values())[1:] == ["SUCCEEDED"] * 199


def test_a_single_wait_describes_its_run_alone(kit: GlueKit) -> None:
    """A page of two hundred runs is not needed for one."""
    job = kit.job(SLEEP)
    run_id = kit.start(job)
    assert wait_until_seen(kit, job, [run_id])[0] == {"glue.GetJobRun": 1}


def test_older_runs_are_found_on_later_pages_or_alone(kit: GlueKit, context: Any) -> None:
    """The number of later runs does not matter."""
    job = kit.job(SLEEP)
    kit.start(job)
    ids = old_runs(kit, job, 1100)
    calls, _ = wait_until_seen(kit, job, [ids[-1], ids[-250]])
    assert calls == {"glue.GetJobRuns": 2}
    calls, seen = wait_until_seen(kit, job, [ids[-1], ids[-500], ids[1], ids[0]])
    assert calls == {"glue.GetJobRuns": 5, "glue.GetJobRun": 2}
    assert set(seen) == {ids[-1], ids[-500], ids[1], ids[0]}
    deep = [ids[-1], ids[1], ids[2]]
    assert [outcome["job_id"] for outcome in sensor(job, deep).execute(context)] == deep


def test_it_waits_for_the_last_retry_by_glue(kit: GlueKit, context: Any, tmp_path: Any) -> None:
    """A failure that Glue retries is none."""
    once = str(tmp_path / "once")
    job = kit.job(f"import os\nif not os.path.exists({once!r}): open({once!r}, 'w'); raise SystemExit(1)", MaxRetries=1)
    run_id = kit.start(job)
    outcome = sensor(job, run_id).execute(context)
    assert (outcome["state"], outcome["job_id"]) == ("SUCCEEDED", run_id)
    assert kit.runs(job) == [run_id, outcome["details"]["run_id"]]
