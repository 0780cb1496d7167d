"""What jobs used, from the responses of the describe calls that a wait makes anyway."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_jobflow.jobs import batch, ecs_snapshot, glue_crawl, glue_run
from airflow_jobflow.jobs.model import ArrayProgress, JobState, Snapshot
from airflow_jobflow.jobs.usage import ArrayRunTime, Usage, parse_rates, total, usage
from tests.unit.jobs.scripted_calls import ScriptedClient

RATES = {
    "FARGATE": {"vcpu_hour": 3.6, "gib_hour": 0.36},
    "FARGATE_SPOT": {"vcpu_hour": 0.36},
    "own-queue": {"vcpu_hour": 7.2},
}
QUEUE = "arn:aws:batch:eu-west-1:123456789012:job-queue/own-queue"
SIZES = [{"type": "VCPU", "value": "0.5"}, {"type": "MEMORY", "value": "2048"}, {"type": "GPU", "value": "1"}]


def job(**fields: Any) -> Snapshot:
    """The snapshot of a Batch job that was created at 0 s and ended at 100 s."""
    times = {"createdAt": 1000, "startedAt": 61_000, "stoppedAt": 101_000}
    return batch.snapshot(
        {
            "jobId": "a",
            "jobName": "a",
            "status": "SUCCEEDED",
            "jobQueue": QUEUE,
            "container": {"resourceRequirements": SIZES},
        }
        | times
        | fields
    )


def test_a_batch_job_used_its_resources_while_it_ran() -> None:
    """The seconds in the queue are no vCPU-seconds."""
    assert usage(job(), "batch", {}) == Usage(20.0, 80.0, 40.0, None, 60.0)


def test_all_attempts_of_a_batch_job_count() -> None:
    """AWS bills the attempts that failed too; the waits between them are time in the queue."""
    attempts = [
        {"startedAt": 11_000, "stoppedAt": 31_000},
        {"stoppedAt": 40_000},
        {"startedAt": 61_000, "stoppedAt": 101_000},
    ]
    used = usage(job(attempts=attempts), "batch", {})
    assert used is not None
    assert (used.vcpu_seconds, used.queued_seconds) == (30.0, 40.0)


def test_a_job_that_never_ran_was_queued_only() -> None:
    """A job that was stopped in the queue cost nothing."""
    never = batch.snapshot(
        {"jobId": "a", "jobName": "a", "status": "FAILED", "createdAt": 1000, "stoppedAt": 31_000}
        | {"container": {"vcpus": 2, "memory": 512}}
    )
    assert usage(never, "batch", {}) == Usage(0.0, 0.0, queued_seconds=30.0)


def test_every_container_and_node_counts() -> None:
    """A job of several containers, pods or nodes has the resources of all of them."""
    containers = [{"name": "a", "resourceRequirements": SIZES}, {"name": "b", "vcpus": 1, "memory": 1024}]
    assert job(container={}, ecsProperties={"taskProperties": [{"containers": containers}]}).resources == {
        "vcpu": 1.5,
        "gib": 3.0,
        "gpu": 1.0,
    }
    pod = [{"name": "a", "resources": {"limits": {"cpu": "2", "memory": "512Mi", "nvidia.com/gpu": "1"}}}]
    assert job(container={}, eksProperties={"podProperties": {"containers": pod}}).resources == {
        "vcpu": 2.0,
        "gib": 0.5,
        "gpu": 1.0,
    }
    ranges = [
        {"targetNodes": "0", "container": {"resourceRequirements": SIZES}},
        {"targetNodes": "1:", "container": {"vcpus": 1, "memory": 1024}},
    ]
    assert job(container={}, nodeProperties={"numNodes": 3, "nodeRangeProperties": ranges}).resources == {
        "vcpu": 2.5,
        "gib": 4.0,
        "gpu": 1.0,
    }


def task(**fields: Any) -> Snapshot:
    """The snapshot of a Fargate task that has stopped."""
    arn = "arn:aws:ecs:eu-west-1:123456789012:task/main/abc"
    shown = {"taskArn": arn, "lastStatus": "STOPPED", "taskDefinitionArn": "d", "cpu": "512", "memory": "1024"}
    times = {"createdAt": 0.5, "pullStartedAt": 10.5, "startedAt": 30.5, "stoppedAt": 70.5, "launchType": "FARGATE"}
    return ecs_snapshot.snapshot(shown | times | fields, ecs_snapshot.Definition())


def test_a_fargate_task_counts_from_its_image_pull() -> None:
    """AWS bills a task from there, not from the start of its container."""
    assert usage(task(), "ecs", {}) == Usage(30.0, 60.0, queued_seconds=10.0, capacity="FARGATE")


def test_fargate_spot_is_told_apart() -> None:
    """The price differs, so the type of capacity must be that of this task, not of the request."""
    used = usage(task(capacityProviderName="FARGATE_SPOT"), "ecs", RATES)
    assert used is not None
    assert (used.capacity, used.cost) == ("FARGATE_SPOT", 0.003)


def test_a_size_that_cannot_be_read_costs_the_usage_and_not_the_wait() -> None:
    """A describe call whose response cannot be converted would never show the end of the task."""
    assert usage(task(cpu="1 vCPU"), "ecs", {}) == Usage(None, 60.0, queued_seconds=10.0, capacity="FARGATE")


def test_a_task_that_never_started_used_nothing() -> None:
    """Neither a pull nor a start: nothing was reserved."""
    arn = "arn:aws:ecs:eu-west-1:123456789012:task/main/abc"
    never = ecs_snapshot.snapshot(
        {
            "taskArn": arn,
            "lastStatus": "STOPPED",
            "taskDefinitionArn": "d",
            "cpu": "256",
            "memory": "512",
            "createdAt": 1.0,
            "stoppedAt": 3.0,
        },
        ecs_snapshot.Definition(),
    )
    used = usage(never, "ecs", RATES)
    assert used == Usage(0.0, 0.0, queued_seconds=2.0)


def run(**fields: Any) -> Snapshot:
    """The snapshot of a Glue run that has ended."""
    times = {"StartedOn": 100.0, "CompletedOn": 190.0, "ExecutionTime": 60}
    return glue_run.snapshot(
        {"Id": "jr", "JobName": "j", "JobRunState": "SUCCEEDED"} | times | fields, ScriptedClient()
    )


@pytest.mark.parametrize(
    ("size", "dpu_seconds"),
    [
        ({"MaxCapacity": 0.0625}, 3.75),
        ({"WorkerType": "G.2X", "NumberOfWorkers": 5}, 600.0),
        ({"MaxCapacity": 10.0, "DPUSeconds": 90.0}, 90.0),
    ],
)
def test_a_glue_run_used_dpus(size: dict[str, Any], dpu_seconds: float) -> None:
    """What Glue counts itself is better than the size of the run, which auto scaling changes."""
    used = usage(run(ExecutionClass="FLEX", **size), "glue_run", {"glue_run": {"dpu_hour": 0.36}})
    cost = round(dpu_seconds / 10_000, 6)
    assert used == Usage(
        dpu_seconds=dpu_seconds,
        queued_seconds=30.0,
        capacity="FLEX",
        cost=cost,
    )


def test_a_crawl_used_what_list_crawls_reports() -> None:
    """The DPU-hours come with the call that a crawl's end needs anyway."""
    crawl = {"State": "COMPLETED", "StartTime": 1000.0, "EndTime": 1120.0, "DPUHour": 0.1, "CrawlId": "c"}

    class Glue(ScriptedClient):
        def list_crawls(self, **_: Any) -> dict[str, Any]:
            """The crawl."""
            return {"Crawls": [crawl]}

    last = Snapshot("in0@1970-01-01T00:00:00+00:00", JobState.SUCCEEDED, "SUCCEEDED", name="in0")
    seen = glue_crawl.with_final_details(Glue(), last)
    assert usage(seen, "glue_crawl", {}) == Usage(dpu_seconds=360.0, queued_seconds=0.0)


def test_a_running_job_has_no_usage() -> None:
    """A running job has no usage yet; polling it must not cost more."""
    running = job(status="RUNNING")
    assert running.resources is None
    assert usage(running, "batch", {}) is None


def test_a_queue_has_rates_of_its_own() -> None:
    """Only the compute environment of a Batch queue says whether its jobs run on Spot."""
    used, other = usage(job(), "batch", RATES), usage(job(jobQueue="x/other"), "batch", RATES)
    assert used is not None
    assert other is not None
    assert (used.cost, other.cost) == (0.04, None)


def test_the_sum_says_what_is_missing() -> None:
    """A sum without some of its parts is an estimate, and mixed capacity is shown as such."""
    one, other = Usage(1.0, 2.0, queued_seconds=3.0, capacity="FARGATE", cost=0.1), Usage(4.0, capacity="FARGATE_SPOT")
    assert total([one, other]) == Usage(5.0, 2.0, queued_seconds=3.0, capacity="FARGATE+FARGATE_SPOT", cost=0.1)
    assert total([one, None]) == Usage(1.0, 2.0, queued_seconds=3.0, capacity="FARGATE", cost=0.1, estimated=True)
    assert total([None]) is total([]) is None


def test_an_array_is_estimated_from_its_counts() -> None:
    """Ten seconds with two children and ten with one are thirty seconds of children."""
    array = ArrayRunTime()
    updates = [
        (0.0, ArrayProgress(3)),
        (5.0, ArrayProgress(3, running=2)),
        (15.0, ArrayProgress(3, 1, 2)),
        (25.0, ArrayProgress(3, 0, 3)),
    ]
    seconds = [array.updated(counts, at) for at, counts in updates]
    assert seconds == [None, None, 20.0, 30.0]
    ended = batch.snapshot(
        {
            "jobId": "a",
            "jobName": "a",
            "status": "SUCCEEDED",
            "arrayProperties": {"size": 3},
            "container": {"resourceRequirements": SIZES},
        }
    )
    assert usage(ended, "batch", {}) is None
    used = usage(replace(ended, run_seconds=30.0), "batch", {})
    assert used == Usage(15.0, 60.0, 30.0, estimated=True)


def test_children_that_ended_unseen_count_like_the_others() -> None:
    """A triggerer that takes over in the middle has not seen half of the children run."""
    array = ArrayRunTime()
    array.updated(ArrayProgress(10, running=5, succeeded=5), 100.0)
    assert array.updated(ArrayProgress(10, succeeded=10), 110.0) == 100.0
    assert ArrayRunTime().updated(ArrayProgress(10, succeeded=10), 0.0) is None


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"FARGATE": 1}', '{"FARGATE": {"vcpu": 1}}', '{"FARGATE": {"vcpu_hour": "1"}}',
        '{"FARGATE": {"vcpu_hour": -1}}', '{"FARGATE": {"vcpu_hour": true}}', '{"FARGATE": {"vcpu_hour": NaN}}',
        "1" * 5000,
    ],
)  # fmt: skip
def test_rates_that_cannot_be_read_are_rejected(text: str) -> None:
    """A wrong price would be a wrong cost; the message shows what is expected."""
    with pytest.raises(ValueError, match="vcpu_hour"):
        parse_rates(text)


def test_rates_are_json() -> None:
    """The setting is one line in airflow.cfg."""
    assert parse_rates(json.dumps(RATES)) == RATES
    assert parse_rates(" ") == {}
