"""Operators for jobs and tasks of several containers: which exit code, log and cause are reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow.exceptions import InvalidParameter, JobFailed
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator

FOREVER = "while :; do sleep 0.02; done"


@pytest.fixture
def job(kit: Any, here: Callable[[Any], None]) -> Callable[..., BatchJobOperator]:
    """Return a function that creates an operator for a Batch job of several containers."""
    here(kit.aws)

    def operator(containers: dict[str, dict[str, Any]], **parameters: Any) -> BatchJobOperator:
        names = {"job_name": "j", "job_queue": kit.queue, "job_definition": kit.define_several(**containers)}
        return BatchJobOperator(task_id="t", aws_conn_id=None, deferrable=False, **names, **parameters)

    return operator


def failure(operator: Any, context: Any) -> Any:
    """Run an operator whose job fails, and return the error."""
    with pytest.raises(JobFailed) as error:
        operator.execute(context)
    return error.value


def with_sidecar(tmp_path: Any, code: int) -> dict[str, dict[str, Any]]:
    """Return a sidecar, listed first, that is killed when main has ended with an exit code."""
    return {
        "sidecar": {"script": f"echo from the sidecar; touch {tmp_path}/up; {FOREVER}", "essential": False},
        "main": {"script": f"while [ ! -e {tmp_path}/up ]; do sleep 0.02; done; echo from main; exit {code}"},
    }


def test_a_killed_sidecar_does_not_hide_the_exit_code_of_main(job: Any, kit: Any, context: Any, tmp_path: Any) -> None:
    """Log and cause are those of main too: 137 would mean that memory was short."""
    error = failure(job(with_sidecar(tmp_path, 2)), context)
    assert error.outcome["exit_code"] == 2
    assert error.diagnosis.cause == "command_failed"
    assert "  | from main" in str(error)
    assert "from the sidecar" not in str(error)
    described = kit.look(error.outcome["job_id"])["ecsProperties"]["taskProperties"][0]["containers"]
    assert {each["name"]: each["exitCode"] for each in described} == {"sidecar": 137, "main": 2}


def test_a_job_that_succeeded_has_no_exit_code_of_a_killed_sidecar(job: Any, context: Any, tmp_path: Any) -> None:
    """A downstream task reads the exit code."""
    outcome = job(with_sidecar(tmp_path, 0)).execute(context)
    assert (outcome["state"], outcome["exit_code"]) == ("SUCCEEDED", 0)
    assert "/main/" in outcome["log"]["stream"]


def test_the_error_names_the_init_container_that_failed(job: Any, context: Any) -> None:
    """Main never ran, so the other container's exit code explains the failure."""
    containers = {
        "main": {"script": "true", "dependsOn": [{"containerName": "prepare", "condition": "SUCCESS"}]},
        "prepare": {"script": "echo no input; exit 9", "essential": False},
    }
    error = failure(job(containers), context)
    assert error.outcome["exit_code"] == 9
    assert "  | no input" in str(error)


def test_container_name_selects_the_container_of_a_batch_job(job: Any, context: Any, tmp_path: Any) -> None:
    """Its exit code, reason and log count; an unknown name starts no job."""
    outcome = job(with_sidecar(tmp_path, 0), container_name="sidecar").execute(context)
    assert outcome["exit_code"] == 137
    assert "/sidecar/" in outcome["log"]["stream"]
    with pytest.raises(InvalidParameter, match="sidecar, main"):
        job(with_sidecar(tmp_path, 0), container_name="mian").execute(context)


def test_a_killed_router_does_not_hide_the_exit_code_of_main_on_fargate(
    ecs_kit: Any, here: Any, context: Any, tmp_path: Any
) -> None:
    """Both are essential, the router is listed first, and main has failed by itself."""
    here(ecs_kit.aws)
    router = ecs_kit.container(["sh", "-c", f"touch {tmp_path}/up; {FOREVER}"], name="router")
    script = f"while [ ! -e {tmp_path}/up ]; do sleep 0.02; done; echo from main; exit 1"
    definition = ecs_kit.define(router, ecs_kit.container(["sh", "-c", script]))
    operator = FargateTaskOperator(
        task_id="t",
        cluster=ecs_kit.cluster,
        task_definition=definition,
        subnets=["subnet-1"],
        aws_conn_id=None,
        deferrable=False,
    )
    error = failure(operator, context)
    assert error.outcome["exit_code"] == 1
    assert "  | from main" in str(error)
    (task,) = ecs_kit.ecs.describe_tasks(cluster=ecs_kit.cluster, tasks=[error.outcome["job_id"]])["tasks"]
    assert [each["exitCode"] for each in task["containers"]] == [137, 1]
