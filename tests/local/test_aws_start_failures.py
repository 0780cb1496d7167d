"""Jobs and tasks that fail to start with AWS's reasons, and how these are diagnosed."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import pytest

from airflow_jobflow.exceptions import JobFailed
from airflow_jobflow.jobs import batch, ecs_snapshot
from airflow_jobflow.jobs.causes import Blame
from airflow_jobflow.jobs.diagnosis import diagnose
from airflow_jobflow.local import Faults, StartFailure
from airflow_jobflow.local.fault_box import FaultBox
from airflow_jobflow.local.start_failures import CAPACITY, CONFIGURATION, KNOWN, TRANSIENT
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.retry_policy import JobRetryPolicy

BLAMES = {
    **dict.fromkeys(TRANSIENT, Blame.TRANSIENT),
    **dict.fromkeys(CAPACITY, Blame.CAPACITY),
    **dict.fromkeys(CONFIGURATION, Blame.CONFIGURATION),
}


def by_name(*names: str) -> Faults:
    """Return a fault with which each start fails for the reason that the job or ``startedBy`` is named after."""
    return Faults(fail_starts=tuple(StartFailure(name, jobs=(name,)) for name in names))


def test_every_reason_of_a_batch_job_is_diagnosed(own_kit: Any) -> None:
    """The blame decides whether JobRetryPolicy retries."""
    own_kit.aws.set_faults(by_name(*KNOWN))
    jobs = {name: own_kit.submit(jobName=name) for name in KNOWN}
    blames = {}
    for name, job_id in jobs.items():
        job = own_kit.wait(job_id)
        assert KNOWN[name].reason in (job["statusReason"], job["container"].get("reason"))
        assert "exitCode" not in job["container"]
        assert "startedAt" not in job
        diagnosis = diagnose(batch.snapshot(job), service="batch")
        blames[name] = diagnosis and diagnosis.blame
    assert blames == BLAMES


def test_every_reason_of_an_ecs_task_is_diagnosed(own_ecs_kit: Any) -> None:
    """The reasons are the same in the format of ECS."""
    own_ecs_kit.aws.set_faults(by_name(*KNOWN))
    definition = own_ecs_kit.define()
    made_from = ecs_snapshot.definition(
        own_ecs_kit.ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]
    )
    tasks = {name: own_ecs_kit.run(taskDefinition=definition, startedBy=name) for name in KNOWN}
    blames = {}
    for name, arn in tasks.items():
        task = own_ecs_kit.wait(arn)
        assert (task["stoppedReason"], task["stopCode"]) == (KNOWN[name].reason, KNOWN[name].stop_code)
        assert "exitCode" not in task["containers"][0]
        as_sent = {member: value for member, value in task.items() if not isinstance(value, datetime)}
        diagnosis = diagnose(ecs_snapshot.snapshot(as_sent, made_from), service="ecs")
        blames[name] = diagnosis and diagnosis.blame
    assert blames == BLAMES


def test_batch_retries_a_failed_start_by_its_rules(own_kit: Any) -> None:
    """Only the first start fails; the next attempt belongs to the same job."""
    own_kit.aws.set_faults(Faults(fail_starts=(StartFailure("host_terminated", starts=1),)))
    rules = [{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}]
    job = own_kit.wait(own_kit.submit(retryStrategy={"attempts": 3, "evaluateOnExit": rules}))
    assert job["status"] == "SUCCEEDED"
    reasons = [attempt["statusReason"] for attempt in job["attempts"]]
    assert reasons == [KNOWN["host_terminated"].reason, "Essential container in task exited"]


@pytest.mark.parametrize(
    ("failure", "failed"),
    [
        (StartFailure("docker_timeout", starts=2), [0, 1]),
        (StartFailure("docker_timeout", rate=0.25), [3, 7]),
        (StartFailure("docker_timeout", rate=0.5, starts=2), [1, 3]),
        (StartFailure("docker_timeout", starts=0), []),
        (StartFailure("docker_timeout", jobs=("job-1*",)), [1]),
    ],
)
def test_the_fault_decides_how_many_starts_fail(failure: StartFailure, failed: list[int]) -> None:
    """The first ones fail, or a share, or those of some jobs."""
    faults = FaultBox()
    faults.set(Faults(fail_starts=(failure,)))
    assert [index for index in range(8) if faults.fails_start(f"job-{index}", None)] == failed


def test_children_of_an_array_fail_to_start_too(own_kit: Any) -> None:
    """A third of them fails, which the array counts."""
    own_kit.aws.set_faults(Faults(fail_starts=(StartFailure("image_pull_timeout", rate=1 / 3),)))
    job = own_kit.wait(own_kit.submit(arrayProperties={"size": 9}))
    assert job["arrayProperties"]["statusSummary"]["FAILED"] == 3


def test_a_reason_may_be_any_text(own_kit: Any) -> None:
    """A reason about a container is shown there, others as that of the job."""
    not_created = "CannotCreateContainerError: API error (500): no"
    not_mounted = "ResourceInitializationError: failed to mount"
    moon = "The moon is in the wrong place."
    for reason, shown in (
        (not_created, ("Task failed to start", not_created)),
        (not_mounted, (not_mounted, None)),
        (moon, (moon, None)),
    ):
        own_kit.aws.set_faults(Faults(fail_starts=(StartFailure(reason),)))
        job = own_kit.wait(own_kit.submit())
        assert (job["statusReason"], job["container"].get("reason")) == shown


@pytest.mark.parametrize("wrong", [{"reason": "no_such_reason"}, {"reason": ""}, {"reason": "disk_full", "rate": 0}])
def test_an_invalid_start_failure_is_rejected(wrong: dict[str, Any]) -> None:
    """If it were ignored, a test would wait for a failure that never happens."""
    with pytest.raises(ValueError, match=r"Unknown reason|must be above 0"):
        Faults.from_json({"fail_starts": [wrong]})
    with pytest.raises(ValueError, match="Unknown fault: reasons"):
        Faults.from_json({"fail_starts": [{"reasons": "disk_full"}]})


def test_the_retry_policy_uses_the_error_of_an_operator(own_ecs_kit: Any, here: Any, context: Any) -> None:
    """A Fargate task failed to start; docs/testing has the same for Batch, with a DAG run."""
    here(own_ecs_kit.aws)
    operator = FargateTaskOperator(
        task_id="t",
        cluster=own_ecs_kit.cluster,
        task_definition=own_ecs_kit.define(),
        subnets=["subnet-1"],
        aws_conn_id=None,
        deferrable=False,
    )
    for reason, action in (("secrets_unreachable", "RETRY"), ("spot_interruption", "RETRY"), ("subnet_full", "FAIL")):
        own_ecs_kit.aws.set_faults(Faults(fail_starts=(StartFailure(reason),)))
        context["ti"].id = str(uuid.uuid4())  # another task instance
        with pytest.raises(JobFailed) as error:
            operator.execute(context)
        assert KNOWN[reason].reason in str(error.value)
        assert JobRetryPolicy().evaluate(error.value, 1, 3).action.name == action
