"""skip_on_exit_code and fail_on_exit_code: a job's exit code skips its task, or fails it for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_jobflow.exceptions import JobFailed, JobFailedFinally, JobStopped
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.ui import notes
from tests.local.tries import deferred, resumed

SKIP = "exit code 99 is in skip_on_exit_code"


@pytest.fixture
def task(kit: Any, here: Callable[[Any], None]) -> Callable[..., BatchJobOperator]:
    """Return a function that creates an operator whose job runs a script."""
    here(kit.aws)

    def make(script: str, **parameters: Any) -> BatchJobOperator:
        names = {"job_name": "j", "job_queue": kit.queue, "job_definition": kit.define(["sh", "-c", script])}
        return BatchJobOperator(**{"task_id": "t", "aws_conn_id": None, "deferrable": False, **names, **parameters})

    return make


@pytest.mark.parametrize("raise_on_failure", [True, False])
def test_a_job_with_the_exit_code_skips_its_task(
    task: Any, context: Any, capsys: pytest.CaptureFixture[str], *, raise_on_failure: bool
) -> None:
    """The task's log and the Jobs tab say what happened, and why the task is skipped."""
    operator = task("echo no new files; exit 99", skip_on_exit_code=[7, 99], raise_on_failure=raise_on_failure)
    with pytest.raises(AirflowSkipException, match=SKIP) as skip:
        operator.execute(context)
    assert isinstance(skip.value.__cause__, JobFailed)
    log = capsys.readouterr().out
    assert "Skipping the task instead of failing it: Batch job j" in log
    assert SKIP in log
    assert "  | no new files" in log
    note = context["ti"].xcoms[notes.KEY]
    assert SKIP in note["error"]
    assert note["jobs"][0]["exit_code"] == 99


def test_a_deferred_job_with_the_exit_code_skips_its_task(task: Any, context: Any, gate: Any) -> None:
    """The triggerer never ends a task whose job failed; the worker decides."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 99", skip_on_exit_code=99, deferrable=True)
    deferral = deferred(operator, context)
    gate.touch()
    with pytest.raises(AirflowSkipException, match=SKIP):
        resumed(operator, deferral, asyncio.run(deferral.trigger.wait()), context)
    assert SKIP in context["ti"].xcoms[notes.KEY]["error"]


def test_a_job_with_another_exit_code_is_a_failure(task: Any, context: Any) -> None:
    """It may be retried."""
    with pytest.raises(JobFailed) as error:
        task("exit 3", skip_on_exit_code=99, fail_on_exit_code=[64, 65]).execute(context)
    assert not isinstance(error.value, AirflowFailException)


def test_a_final_exit_code_is_not_retried(task: Any, context: Any) -> None:
    """Airflow asks no retry policy about an AirflowFailException."""
    with pytest.raises(JobFailedFinally, match="exit code 64 is in fail_on_exit_code") as error:
        task("echo wrong input; exit 64", fail_on_exit_code=[64, 65]).execute(context)
    assert isinstance(error.value, AirflowFailException)
    assert "  | wrong input" in str(error.value)
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["exit_code"] == 64
    assert "is not retried" in context["ti"].xcoms[notes.KEY]["error"]


def test_a_stopped_job_does_not_skip_its_task(kit: Any, task: Any, context: Any, gate: Any, eventually: Any) -> None:
    """It ends with an exit code as well, but not by itself."""
    operator = task(f"touch {gate}; sleep 60", skip_on_exit_code=[137, 143], fail_on_exit_code=[1], deferrable=True)
    deferral = deferred(operator, context)
    [job_id] = deferral.trigger.job_ids
    eventually(gate.exists)
    kit.batch.terminate_job(jobId=job_id, reason="a person")
    with pytest.raises(JobStopped):
        resumed(operator, deferral, asyncio.run(deferral.trigger.wait()), context)


def test_the_exit_code_is_that_of_the_container_that_counts(ecs_kit: Any, here: Any, context: Any) -> None:
    """With container_name, the exit codes of the others do not matter."""
    here(ecs_kit.aws)
    side = ecs_kit.container(["sh", "-c", "exit 99"], name="side", essential=False)
    definition = ecs_kit.define(ecs_kit.container(["sh", "-c", "sleep 0.3; exit 0"]), side)
    names = {"cluster": ecs_kit.cluster, "task_definition": definition, "subnets": ["subnet-1"]}
    parameters = {"task_id": "t", "aws_conn_id": None, "deferrable": False, "skip_on_exit_code": 99, **names}
    assert FargateTaskOperator(**parameters).execute(context)["exit_code"] == 0
    with pytest.raises(AirflowSkipException, match=SKIP):
        FargateTaskOperator(**parameters, container_name="side").execute(context)
