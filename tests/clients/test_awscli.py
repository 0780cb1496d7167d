"""The AWS CLI: submits, waits, reads logs and pages, with its own commands and waiters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.environments import python_environment

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = ("awscli==1.46.2",)


@pytest.fixture
def cli(run: Callable[..., str]) -> Callable[..., Any]:
    """Return a function that runs a command of the CLI, and returns its output, parsed if it is JSON."""
    aws = python_environment("awscli", *PACKAGES) / "aws"

    def cli(command: str, *arguments: str, exit_code: int = 0) -> Any:
        printed = run([aws, *command.split(), *arguments], exit_code=exit_code)
        return json.loads(printed) if printed.lstrip().startswith(("{", "[")) else printed

    return cli


def test_batch_jobs_are_submitted_listed_and_logged(cli: Callable[..., Any], eventually: Callable[..., Any]) -> None:
    """Children of the array are listed in pages of one."""
    job = cli("batch submit-job --job-name cli --job-queue hello-world-queue --job-definition hello-world")["jobId"]
    array = cli(
        "batch submit-job --job-name array --job-queue print-color-queue --job-definition print-color "
        "--array-properties size=3"
    )["jobId"]

    def ended() -> list[dict[str, Any]] | None:
        jobs: list[dict[str, Any]] = cli(f"batch describe-jobs --jobs {job} {array}")["jobs"]
        return jobs if all(each["status"] == "SUCCEEDED" for each in jobs) else None

    hello, _ = eventually(ended)
    stream = hello["container"]["logStreamName"]
    log = f"logs get-log-events --log-group-name /aws/batch/job --log-stream-name {stream}"
    assert cli(f"{log} --query events[].message") == ["Hello world"]
    children = cli(f"batch list-jobs --array-job-id {array} --job-status SUCCEEDED --page-size 1")["jobSummaryList"]
    assert sorted(each["arrayProperties"]["index"] for each in children) == [0, 1, 2]


def test_a_failed_fargate_task_is_waited_for(cli: Callable[..., Any]) -> None:
    """`aws ecs wait` ends with the task, whose exit code is shown."""
    overrides = {"containerOverrides": [{"name": "process-item", "command": ["-c", "import sys; sys.exit(3)"]}]}
    network = "awsvpcConfiguration={subnets=[subnet-1],assignPublicIp=ENABLED}"
    started = cli(
        "ecs run-task --cluster jobflow --task-definition process-item --launch-type FARGATE",
        "--network-configuration",
        network,
        "--overrides",
        json.dumps(overrides),
    )
    task = started["tasks"][0]["taskArn"]
    cli(f"ecs wait tasks-stopped --cluster jobflow --tasks {task}")
    assert cli(f"ecs describe-tasks --cluster jobflow --tasks {task} --query tasks[].containers[].exitCode") == [3]
    assert cli("ecs list-tasks --cluster jobflow --desired-status STOPPED")["taskArns"] == [task]


def test_a_crawler_creates_the_table_that_a_job_run_reads(
    cli: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """They are the crawler and the job of the sample DAG."""
    cli("glue start-crawler --name se2_in0")
    eventually(lambda: cli("glue get-crawler --name se2_in0 --query Crawler.LastCrawl.Status") == '"SUCCEEDED"\n')
    assert cli("glue get-table --database-name se2 --name se2_in0")["Table"]["StorageDescriptor"]["Columns"]
    run = cli("glue start-job-run --job-name se2_job0")["JobRunId"]
    state = f"glue get-job-run --job-name se2_job0 --run-id {run} --query JobRun.JobRunState --output text"
    assert eventually(lambda: (seen := cli(state).strip()) in ("SUCCEEDED", "FAILED") and seen) == "SUCCEEDED"


def test_an_error_of_aws_is_printed(cli: Callable[..., Any]) -> None:
    """The exit code is that of an error, and standard output is empty."""
    assert cli("batch submit-job --job-name a --job-queue none --job-definition none", exit_code=255) == ""
