"""The log streams of the jobs of each service, from their descriptions."""

from __future__ import annotations

from typing import Any

from airflow_jobflow.jobs import batch, ecs, ecs_snapshot, glue_crawl, glue_run
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot
from tests.unit.jobs.scripted_calls import ScriptedClient


def job(**more: Any) -> dict[str, Any]:
    """A running Batch job."""
    return {"jobId": "j", "jobName": "n", "status": "RUNNING", "jobArn": "arn:aws:batch:eu-west-1:1:job/j", **more}


def container(stream: str, **log: Any) -> dict[str, Any]:
    """A container with a log stream."""
    return {"logStreamName": stream, "logConfiguration": log} if log else {"logStreamName": stream}


def test_a_batch_job_logs_to_the_group_of_its_definition() -> None:
    """By default, the group is Batch's own; the region may be another one."""
    options = {"awslogs-group": "/mine", "awslogs-region": "us-east-1"}
    mine = container("s", logDriver="awslogs", options=options)
    assert batch.log_streams(batch.snapshot(job(container=container("s")))) == {"": LogStream("/aws/batch/job", "s")}
    assert batch.log_streams(batch.snapshot(job(container=mine))) == {"": LogStream("/mine", "s", "us-east-1")}


def test_each_container_of_a_batch_job_has_a_stream() -> None:
    """Containers that log elsewhere are omitted."""
    several = [
        {"name": "main", **container("s/main")},
        {"name": "side", **container("s/side")},
        {"name": "other", **container("s/other", logDriver="splunk")},
    ]
    snapshot = batch.snapshot(job(ecsProperties={"taskProperties": [{"containers": several}]}))
    assert batch.log_streams(snapshot) == {
        "main": LogStream("/aws/batch/job", "s/main"),
        "side": LogStream("/aws/batch/job", "s/side"),
    }


def test_a_job_with_another_log_driver_has_no_stream() -> None:
    """CloudWatch has no such stream."""
    assert batch.log_streams(batch.snapshot(job(container=container("s", logDriver="splunk")))) == {}
    assert batch.log_streams(batch.snapshot(job())) == {}


def test_a_running_task_has_streams_once_its_definition_is_read() -> None:
    """DescribeTasks does not return them."""
    options = {"awslogs-group": "/g", "awslogs-stream-prefix": "p"}
    containers = [
        {"name": "main", "logConfiguration": {"logDriver": "awslogs", "options": options}},
        {"name": "side", "logConfiguration": {"logDriver": "awsfirelens"}},
    ]
    arn = "arn:aws:ecs:eu-west-1:1:task-definition/where-it-logs:1"
    task = {"taskArn": "arn:aws:ecs:eu-west-1:1:task/c/t", "lastStatus": "RUNNING", "taskDefinitionArn": arn}

    class Client(ScriptedClient):
        def describe_task_definition(self, **_: Any) -> Any:
            return {"taskDefinition": {"containerDefinitions": containers}}

    seen = ecs_snapshot.snapshot(task, ecs_snapshot.Definition())
    assert ecs.log_streams(seen) == {}
    located = ecs.with_final_details(Client(), seen)
    assert ecs.log_streams(located) == {"main": LogStream("/g", "p/main/t")}


def test_a_glue_run_logs_to_two_groups() -> None:
    """Standard output and standard error each have a stream with the run's id."""
    run = Snapshot("r", JobState.RUNNING, "RUNNING", log=LogStream("/aws-glue/jobs/error", "r"))
    assert glue_run.log_streams(run) == {
        "output": LogStream("/aws-glue/jobs/output", "r"),
        "error": LogStream("/aws-glue/jobs/error", "r"),
    }
    assert glue_run.log_streams(Snapshot("r", JobState.RUNNING, "RUNNING")) == {}


def test_a_crawl_is_not_followed() -> None:
    """All crawls of a crawler write to one stream."""
    crawl = Snapshot("c", JobState.RUNNING, "RUNNING", log=LogStream("/aws-glue/crawlers", "c"))
    assert glue_crawl.log_streams(crawl) == {}
