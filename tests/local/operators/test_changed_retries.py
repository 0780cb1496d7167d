"""Retries that change the job, on the local AWS: the failed job decides what the next attempt gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow import exceptions
from airflow_jobflow.local import CannedResponse, Faults, LocalAws
from airflow_jobflow.local.samples import create_queue
from airflow_jobflow.operators import capacity
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.operators.glue import GlueJobRunOperator
from tests.local.glue_kit import SLEEP, GlueKit
from tests.local.tries import RESPONSE, cleared, deferred, killed, retried

DOUBLE = {"memory": "x2", "max": 61440}
ON_DEMAND = {"capacity_provider_strategy": {"FARGATE": 1}}
HOST_LOST = {"status_reason": "Host EC2 (instance i-0123456789abcdef0) terminated."}


class Task:
    """A task with retries, whose job is killed as often as a test says."""

    def __init__(self, kit: Any, directory: Path, context: Any) -> None:
        self.kit, self.context, self.marks = kit, context, directory
        script = (
            f"echo x >> {directory}/ran-$AWS_BATCH_JOB_ARRAY_INDEX; [ $(cat {directory}/ran-$AWS_BATCH_JOB_ARRAY_INDEX"
        )
        self.definition = kit.define(["sh", "-c", f"{script} | wc -l) -gt $KILLS ] || exit 137"])
        context["ti"].max_tries = 3

    def operator(self, kills: int = 0, **parameters: Any) -> BatchJobOperator:
        """Create the task, whose first jobs run out of memory."""
        defaults = {"job_name": "n", "job_queue": self.kit.queue, "aws_conn_id": None, "deferrable": False}
        parameters = {**defaults, "job_definition": self.definition, "environment": {"KILLS": str(kills)}, **parameters}
        return BatchJobOperator(task_id="t", **parameters)

    def fails(self, *arguments: Any, **parameters: Any) -> exceptions.JobflowError:
        """Run a try that fails, and return its exception."""
        with pytest.raises(exceptions.JobFailed) as failed:
            self.operator(*arguments, **parameters).execute(self.context)
        retried(self.context)
        return failed.value

    def loses_host(self, operator: BatchJobOperator) -> exceptions.JobflowError:
        """Run a try whose job loses its host, and return its exception."""
        deferral = deferred(operator, self.context)
        trigger: Any = deferral.trigger
        self.kit.wait(trigger.job_ids[0], "RUNNING")
        self.kit.aws.interrupt(trigger.job_ids[0], **HOST_LOST)
        with pytest.raises(exceptions.JobFailed) as failed:
            operator.execute_complete(self.context, asyncio.run(trigger.wait()))
        retried(self.context)
        return failed.value

    def jobs(self, *queues: str) -> list[dict[str, Any]]:
        """Return all jobs that were started in the queues, oldest first."""
        queues = queues or (self.kit.queue,)
        ids = [each["jobId"] for each in self.kit.aws.started("batch") if each["jobQueue"].rpartition("/")[2] in queues]
        return [self.kit.look(each) for each in ids]


def memory(job: dict[str, Any]) -> int:
    """Return the MiB of a job."""
    sizes = {each["type"]: each["value"] for each in job["container"]["resourceRequirements"]}
    return int(sizes["MEMORY"])


@pytest.fixture
def task(kit: Any, here: Callable[[Any], None], tmp_path: Path, context: Any) -> Task:
    """A task for the test's queue."""
    here(kit.aws)
    return Task(kit, tmp_path, context)


@pytest.mark.parametrize("has_store", [True, False])
def test_a_job_that_runs_out_of_memory_gets_twice_as_much(task: Task, has_store: bool) -> None:
    """Until it succeeds, in the tries of one task; also without a record of the tries, as on Airflow 3.2."""
    if not has_store:
        del task.context["task_state_store"]
    parameters: dict[str, Any] = {"kills": 3, "on_out_of_memory": DOUBLE}
    error = task.fails(**parameters)
    assert "\nThe next attempt: memory from 128 to 256 MiB, because the command was killed" in str(error)
    assert error.change
    assert error.change["changed"] == {"memory": 256}
    task.fails(**parameters)
    task.fails(**parameters)
    outcome = task.operator(**parameters).execute(task.context)
    assert outcome["state"] == "SUCCEEDED"
    assert [memory(job) for job in task.jobs()] == [128, 256, 512, 1024]
    changes = [(each["attempt"], each["cause"], each["changed"]) for each in outcome["changes"]]
    assert changes == [(number, "out_of_memory", {"memory": 64 * 2**number}) for number in (2, 3, 4)]


def test_a_final_exit_code_changes_nothing(task: Task) -> None:
    """No retry follows, so the error must not say what the next attempt gets."""
    error = task.fails(kills=9, on_out_of_memory=DOUBLE, fail_on_exit_code=137)
    assert isinstance(error, exceptions.JobFailedFinally)
    assert str(error).endswith("\nThe task is not retried: exit code 137 is in fail_on_exit_code.")
    assert "The next attempt" not in str(error)


def test_a_job_at_the_maximum_is_not_tried_again(task: Task) -> None:
    """Another attempt would run out of memory too."""
    parameters: dict[str, Any] = {"kills": 9, "on_out_of_memory": {"memory": "x4", "max": 300}}
    assert not isinstance(task.fails(**parameters), exceptions.JobFailedFinally)
    error = task.fails(**parameters)
    assert isinstance(error, exceptions.JobFailedFinally)
    assert str(error).endswith(
        "\nIt already had 300 MiB (memory), the most that on_out_of_memory allows, so it is not tried again."
    )
    assert [memory(job) for job in task.jobs()] == [128, 300]


def test_a_clear_starts_over(task: Task) -> None:
    """The new job gets what the operator says, and its failures count from the first."""
    task.fails(kills=2, on_out_of_memory=DOUBLE)
    cleared(task.context)
    task.fails(kills=2, on_out_of_memory=DOUBLE)
    outcome = task.operator(kills=2, on_out_of_memory=DOUBLE).execute(task.context)
    assert [memory(job) for job in task.jobs()] == [128, 128, 256]
    assert [each["attempt"] for each in outcome["changes"]] == [2]


def test_a_rule_that_was_removed_changes_nothing_any_more(task: Task) -> None:
    """Somebody has fixed the DAG between two tries, and set the memory itself."""
    task.fails(kills=1, on_out_of_memory=DOUBLE)
    assert task.operator(memory=200).execute(task.context)["changes"] is None
    assert [memory(job) for job in task.jobs()] == [128, 200]


def test_a_failure_of_another_cause_keeps_the_change(task: Task) -> None:
    """A job whose memory was doubled still has twice as much when its command fails by itself."""
    task.fails(kills=1, on_out_of_memory=DOUBLE)
    task.fails(command=["false"], on_out_of_memory=DOUBLE)
    outcome = task.operator(on_out_of_memory=DOUBLE).execute(task.context)
    assert [memory(job) for job in task.jobs()] == [128, 256, 256]
    assert len(outcome["changes"]) == 1


@pytest.mark.parametrize("point", ["_execution.wait.initial_status", RESPONSE])
def test_a_worker_that_dies_after_the_queue_has_changed_starts_no_second_job(
    task: Task, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The record says in which queue the next try finds the job, although the operator names another one."""
    on_demand = f"{task.kit.queue}-on-demand"
    create_queue(task.kit.batch, on_demand)
    parameters: dict[str, Any] = {"command": ["sleep", "5"], "on_capacity": {"job_queue": on_demand}}
    error = task.loses_host(task.operator(deferrable=True, **parameters))
    assert f"The next attempt: job_queue to {on_demand}, because the host under the job was taken away" in str(error)
    parameters["command"] = ["true"]
    killed(task.operator(**parameters), point, task.context, monkeypatch)
    outcome = task.operator(**parameters).execute(retried(task.context))
    assert outcome["state"] == "SUCCEEDED"
    [job] = task.jobs(on_demand)
    assert (outcome["job_id"], len(task.jobs())) == (job["jobId"], 1)
    assert outcome["changes"][0]["changed"] == {"job_queue": on_demand}


def test_a_worker_that_dies_before_the_changed_start_does_not_change_it_twice(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try finds the failed job once more, whose failure counts only once."""
    parameters: dict[str, Any] = {"kills": 1, "on_out_of_memory": DOUBLE}
    task.fails(**parameters)
    killed(task.operator(**parameters), "_execution.spec._submit_one", task.context, monkeypatch)
    outcome = task.operator(**parameters).execute(retried(task.context))
    assert [memory(job) for job in task.jobs()] == [128, 256]
    assert len(outcome["changes"]) == 1


def test_without_a_store_a_rule_cannot_change_the_queue(task: Task) -> None:
    """A retry could not find the job, and would start a second one beside it."""
    del task.context["task_state_store"]
    operator = task.operator(on_capacity={"job_queue": "on-demand"})
    with pytest.raises(exceptions.InvalidParameter, match=r"on_capacity\['job_queue'\]='on-demand': needs Airflow 3.3"):
        operator.execute(task.context)
    assert task.jobs() == []


def test_a_longer_attempt(task: Task) -> None:
    """A job that Batch ends for its time gets more of it."""
    parameters: dict[str, Any] = {"attempt_timeout": 60, "on_timeout": {"attempt_timeout": "x1.5", "max": 100}}
    task.fails(command=["sleep", "50"], **parameters)
    outcome = task.operator(**parameters).execute(task.context)
    assert outcome["changes"][0]["changed"] == {"attempt_timeout": 100}
    assert [job["timeout"]["attemptDurationSeconds"] for job in task.jobs()] == [60, 100]


def test_redriven_children_are_changed_by_their_own_failures(task: Task) -> None:
    """More memory for all of them would cost more, and help only some."""
    each = f"{task.marks}/$AWS_BATCH_JOB_ARRAY_INDEX$JOBFLOW_ARRAY_INDEXES"
    script = (
        f"case $AWS_BATCH_JOB_ARRAY_INDEX$JOBFLOW_ARRAY_INDEXES in 1|2|1-2) exit 137;; 3) exit 1;; esac; echo > {each}"
    )
    parameters: dict[str, Any] = {"array_size": 5, "redrive": True, "on_out_of_memory": DOUBLE}
    error = task.fails(command=["sh", "-c", script], **parameters)
    assert error.change
    assert (error.change["indexes"], error.change["changed"]) == ("1-2", {"memory": 256})
    second = task.fails(command=["sh", "-c", '[ -n "$AWS_BATCH_JOB_ARRAY_INDEX" ] && exit 137; exit 1'], **parameters)
    assert second.change
    assert (second.change["indexes"], second.change["changed"]) == ("1-2", {"memory": 512})
    outcome = task.operator(command=["true"], **parameters).execute(task.context)
    assert outcome["array"] == {"size": 5, "succeeded": 5, "failed": 0, "failed_indexes": []}
    started = [(job["arrayProperties"]["size"] if "arrayProperties" in job else 1, memory(job)) for job in task.jobs()]
    assert sorted(started) == [(1, 128), (1, 128), (2, 256), (2, 512), (5, 128)]
    assert [(each["indexes"], each["changed"]) for each in outcome["changes"]] == [
        ("1-2", {"memory": 256}),
        ("1-2", {"memory": 512}),
    ]


def test_children_that_somebody_stopped_are_not_changed(task: Task) -> None:
    """Batch kills them, which looks like a lack of memory, and its list does not say why."""
    parameters: dict[str, Any] = {"array_size": 2, "redrive": True, "on_out_of_memory": DOUBLE}
    script = f"trap '' TERM; echo > {task.marks}/up-$AWS_BATCH_JOB_ARRAY_INDEX; while :; do sleep 0.02; done"
    deferral: Any = deferred(task.operator(command=["sh", "-c", script], deferrable=True, **parameters), task.context)
    [array] = deferral.trigger.job_ids
    task.kit.eventually(lambda: len(list(task.marks.glob("up-*"))) == 2, "both children run")
    task.kit.batch.terminate_job(jobId=array, reason="by hand")
    task.kit.wait(array)
    assert task.kit.look(f"{array}:0")["container"]["exitCode"] == 137
    outcome = task.operator(command=["true"], **parameters).execute(retried(task.context))
    assert outcome["changes"] is None
    assert [memory(job) for job in task.jobs()] == [128, 128]


def test_a_child_at_the_maximum_fails_the_array_finally(task: Task) -> None:
    """The array cannot succeed without it."""
    rule = {"memory": "x2", "max": 128}
    error = task.fails(command=["sh", "-c", "exit 137"], array_size=2, redrive=True, on_out_of_memory=rule)
    assert isinstance(error, exceptions.JobFailedFinally)
    assert "\nChild 0: It already had 128 MiB (memory)" in str(error)


def test_children_at_the_maximum_that_are_tolerated_do_not_keep_others_from_a_retry(task: Task) -> None:
    """The array succeeds as soon as enough of the others do."""
    script = 'i=$AWS_BATCH_JOB_ARRAY_INDEX; j=${JOBFLOW_ARRAY_INDEX:-$i}; test "$j" = 0 && exit 3; exit 137'
    parameters: dict[str, Any] = {"array_size": 3, "redrive": True, "on_out_of_memory": {"memory": "x2", "max": 128}}
    error = task.fails(command=["sh", "-c", script], tolerated_failure_count=2, **parameters)
    assert not isinstance(error, exceptions.JobFailedFinally), "only child 0 has to succeed"
    error = task.fails(command=["sh", "-c", script], tolerated_failure_count=1, **parameters)
    assert isinstance(error, exceptions.JobFailedFinally)


def test_memory_that_somebody_has_raised_between_two_tries_is_not_lowered(task: Task) -> None:
    """The user knows better how much the job needs."""
    task.fails(kills=2, on_out_of_memory=DOUBLE)
    task.fails(kills=2, memory=1000, on_out_of_memory=DOUBLE)
    task.operator(kills=2, memory=1000, on_out_of_memory=DOUBLE).execute(task.context)
    assert [memory(job) for job in task.jobs()] == [128, 1000, 2000]


def test_an_array_that_is_not_redriven_is_changed_as_a_whole(task: Task) -> None:
    """All its children run again."""
    parameters: dict[str, Any] = {"array_size": 2, "kills": 1, "on_out_of_memory": DOUBLE}
    task.fails(**parameters)
    outcome = task.operator(**parameters).execute(task.context)
    assert [memory(job) for job in task.jobs()] == [128, 256]
    assert outcome["changes"][0]["text"].startswith("memory from 128 to 256 MiB, because the command was killed")


@pytest.mark.parametrize("array", [{}, {"array_size": 2}, {"array_size": 2, "redrive": True}])
def test_a_job_that_is_stuck_in_its_queue_gets_another_one(
    task: Task, disabled_queue: str, array: dict[str, Any]
) -> None:
    """A Spot queue without capacity leaves jobs RUNNABLE, and none of them fails."""
    parameters: dict[str, Any] = {"job_queue": disabled_queue, "on_capacity": {"job_queue": task.kit.queue}, **array}
    operator = task.operator(deferrable=True, queued_timeout=600, **parameters)
    deferral: Any = deferred(operator, task.context)
    event = {"job_ids": deferral.trigger.job_ids, "jobs": {}, "errors": {}, "limit": "queue_deadline"}
    with pytest.raises(
        exceptions.QueueTimeout, match=f"The next attempt: job_queue to {task.kit.queue}, because"
    ) as late:
        operator.execute_complete(task.context, event)
    assert late.value.change
    outcome = task.operator(**parameters).execute(retried(task.context))
    assert outcome["state"] == "SUCCEEDED"
    assert len(task.jobs()) == 1
    assert [each["changed"] for each in outcome["changes"]] == [{"job_queue": task.kit.queue}]


@pytest.fixture
def fargate(
    own_ecs_kit: Any, here: Callable[[Any], None], context: Any, tmp_path: Path
) -> Callable[..., FargateTaskOperator]:
    """Return a function that creates an operator on a local AWS of the test's own."""
    here(own_ecs_kit.aws)
    context["ti"].max_tries = 3

    def operator(script: str, **parameters: Any) -> FargateTaskOperator:
        definition = own_ecs_kit.define(own_ecs_kit.container(["sh", "-c", script]))
        defaults = {"task_id": "t", "cluster": own_ecs_kit.cluster, "subnets": ["subnet-1"], "aws_conn_id": None}
        return FargateTaskOperator(task_definition=definition, deferrable=False, **{**defaults, **parameters})

    return operator


def test_a_fargate_task_gets_a_size_that_fargate_has(own_ecs_kit: Any, fargate: Any, context: Any) -> None:
    """More memory may need more CPU, and the log says so."""
    parameters: dict[str, Any] = {"cpu": 256, "memory": 2048, "on_out_of_memory": DOUBLE}
    with pytest.raises(exceptions.JobFailed, match="memory from 2,048 to 4,096 MiB, cpu from 256 to 512 CPU units"):
        fargate("exit 137", **parameters).execute(context)
    outcome = fargate("true", **parameters).execute(retried(context))
    task = own_ecs_kit.look(outcome["job_id"])
    assert (task["cpu"], task["memory"]) == ("512", "4096")
    assert outcome["changes"][0]["changed"] == {"cpu": 512, "memory": 4096}


def test_an_interrupted_task_gets_other_capacity_in_the_same_try(own_ecs_kit: Any, fargate: Any, context: Any) -> None:
    """As on_spot_interruption says, on the capacity that on_capacity names."""
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=1))
    strategy = {"capacity_provider_strategy": {"FARGATE_SPOT": 1}}
    outcome = fargate("sleep 0.3", **strategy, on_capacity=ON_DEMAND).execute(context)
    assert own_ecs_kit.look(outcome["job_id"])["capacityProviderName"] == "FARGATE"
    assert len(own_ecs_kit.aws.started("ecs")) == 2
    assert [each["cause"] for each in outcome["changes"]] == ["capacity"]


def test_a_task_for_which_there_is_no_capacity_is_started_elsewhere_at_once(
    own_ecs_kit: Any, fargate: Any, context: Any
) -> None:
    """Without a rule, the start is repeated until there is capacity, or until queued_timeout."""
    own_ecs_kit.aws.set_faults(Faults(run_task_failures=1))
    strategy = {"capacity_provider_strategy": {"FARGATE_SPOT": 1}}
    outcome = fargate("true", **strategy, on_capacity=ON_DEMAND).execute(context)
    [task] = own_ecs_kit.aws.started("ecs")
    assert own_ecs_kit.look(task["taskArn"])["capacityProviderName"] == "FARGATE"
    assert outcome["changes"][0]["text"].endswith(", because AWS had no capacity for it")


def test_a_throttled_start_changes_nothing(
    own_ecs_kit: Any, fargate: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS may have capacity."""
    monkeypatch.setattr(capacity, "SHORTEST_CAPACITY_PAUSE", 0.1)
    throttled = CannedResponse(code="ThrottlingException", message="Rate exceeded", actions=("RunTask",), calls=2)
    own_ecs_kit.aws.set_faults(Faults(respond_with=(throttled,)))
    assert fargate("true", on_capacity=ON_DEMAND).execute(context)["changes"] is None


def test_a_glue_run_gets_more_time_in_whole_minutes(
    aws: LocalAws, here: Callable[[Any], None], eventually: Any, context: Any
) -> None:
    """Glue counts in minutes, and a run that gets less than the rule says may time out again."""
    here(aws)
    kit = GlueKit(aws, eventually)
    parameters: dict[str, Any] = {"aws_conn_id": None, "deferrable": False, "on_timeout": {"attempt_timeout": "x1.5"}}
    slow = GlueJobRunOperator(task_id="t", job_name=kit.job(SLEEP), attempt_timeout=60, **parameters)
    with pytest.raises(exceptions.JobFailed, match="attempt_timeout from 60 to 120 s"):
        slow.execute(context)
    again = GlueJobRunOperator(task_id="t", job_name=slow.job_name, attempt_timeout=60, **parameters)
    with pytest.raises(exceptions.JobFailed, match="attempt_timeout from 120 to 180 s"):
        again.execute(retried(context))
    assert sorted(kit.look(slow.job_name, run)["Timeout"] for run in kit.runs(slow.job_name)) == [1, 2]
    kit.close()
