"""What the demo runs, how each scenario should end, and whether it did. Plain data and pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from airflow_jobflow.local.demo.job_updates import FAILED, INTERRUPTED, SUCCEEDED, Job


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One run of a sample flow.

    :param name: the prefix of its lines.
    :param description: one line for the list at the start.
    :param dag_id: the DAG to run.
    :param conf: the configuration of the DAG run.
    :param jobs: the expected number of jobs per final status; an array counts as one job.
    :param children: the same for the children of arrays. Default: none.
    :param run_succeeds: whether the DAG run should succeed. Default True.
    :param log_contains: texts that Airflow's log must contain. Default: none.
    :param notifications: the expected number of notifications. Default 0.
    :param summarized_family: a task family of which only totals are printed. Default: none.
    :param faults: faults of the local AWS, as `Faults` takes them. Default: none.
    :param reads: which reader in `outputs` reads the output, and the expected text. Default: nothing is read.
    """

    name: str
    description: str
    dag_id: str
    conf: Mapping[str, Any]
    jobs: Mapping[str, int]
    children: Mapping[str, int] = field(default_factory=dict)
    run_succeeds: bool = True
    log_contains: tuple[str, ...] = ()
    notifications: int = 0
    summarized_family: str = ""
    faults: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, str] | None = None

    @property
    def slug(self) -> str:
        """The name in a form for file names."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name).replace("--", "-")


SHORT_WAIT: Final = {"wait_time": 0.5}
"""The flows' poll interval in seconds. The default of a minute is for AWS; here jobs take seconds."""

FAILING_COMMAND: Final = "echo 'Reading input.csv'; sleep 2; echo 'input.csv: no such file'; exit 3"

ARRAY_FAILED: Final = {
    "version": "0",
    "id": "c8f9c4b5-76e5-d76a-f980-7011e206042b",
    "detail-type": "Batch Job State Change",
    "source": "aws.batch",
    "account": "123456789012",
    "time": "2026-11-22T03:00:12Z",
    "region": "us-east-1",
    "resources": ["arn:aws:batch:us-east-1:123456789012:job/4c7599ae-0a82-49aa-ba5a-4727fcce14a8"],
    "detail": {
        "jobArn": "arn:aws:batch:us-east-1:123456789012:job/4c7599ae-0a82-49aa-ba5a-4727fcce14a8",
        "jobName": "print-color",
        "jobId": "4c7599ae-0a82-49aa-ba5a-4727fcce14a8",
        "jobQueue": "arn:aws:batch:us-east-1:123456789012:job-queue/print-color-queue",
        "status": "FAILED",
        "statusReason": "Array Child Job failed",
        "createdAt": 1795316400000,
        "startedAt": 1795316404000,
        "stoppedAt": 1795316412000,
        "jobDefinition": "arn:aws:batch:us-east-1:123456789012:job-definition/print-color-failing:1",
        "arrayProperties": {"statusSummary": {"SUCCEEDED": 6, "FAILED": 1}, "size": 7},
        "dependsOn": [],
        "parameters": {},
        "tags": {},
        "isTerminated": False,
        "isCancelled": False,
    },
}
"""A recorded EventBridge event of an array with a failed child."""

SCENARIOS: Final = (
    Scenario(
        name="flow 1",
        description="batch_job_status_poller: run a job and wait for it",
        dag_id="batch_job_status_poller",
        conf=SHORT_WAIT,
        jobs={SUCCEEDED: 1},
        log_contains=("ended as SUCCEEDED",),
    ),
    Scenario(
        name="flow 1, failing",
        description="the same with a job that exits with code 3; the run fails with the reason",
        dag_id="batch_job_status_poller",
        conf={**SHORT_WAIT, "containerOverrides": {"command": ["sh", "-c", FAILING_COMMAND]}},
        jobs={FAILED: 1},
        run_succeeds=False,
        log_contains=("DescribeJob returned FAILED", "AWS Batch Job Failed", "exit code 3"),
    ),
    Scenario(
        name="result",
        description="branch_on_result: a job returns a value, and the next task branches on it",
        dag_id="branch_on_result",
        conf=SHORT_WAIT,
        jobs={SUCCEEDED: 1},
        log_contains=("Loading 3 rows",),
    ),
    Scenario(
        name="functions",
        description="python_functions: Python functions in three Batch jobs and a Fargate task, which compute π",
        dag_id="python_functions",
        conf=SHORT_WAIT,
        jobs={SUCCEEDED: 4},
        log_contains=("π is about 3.141593",),
    ),
    Scenario(
        name="flow 2",
        description="batch_array_notify: run an array of 7 jobs, send one notification when all have ended",
        dag_id="batch_array_notify",
        conf=SHORT_WAIT,
        jobs={SUCCEEDED: 1},
        children={SUCCEEDED: 7},
        notifications=1,
        log_contains=("SUCCEEDED: 7 of 7 succeeded",),
    ),
    Scenario(
        name="flow 2, failing",
        description="the same with one failing child; one notification, then the run fails",
        dag_id="batch_array_notify",
        conf={**SHORT_WAIT, "jobDefinition": "print-color-failing"},
        jobs={FAILED: 1},
        children={SUCCEEDED: 6, FAILED: 1},
        run_succeeds=False,
        notifications=1,
        log_contains=("FAILED: 6 of 7 succeeded, failed: [3]",),
    ),
    Scenario(
        name="flow 2, by event",
        description="batch_array_event: a DAG that is triggered by the end of an array, here with a recorded event",
        dag_id="batch_array_event",
        conf={"event": ARRAY_FAILED},
        jobs={},
        notifications=1,
        log_contains=("print-color FAILED: 6 of 7 succeeded, 1 failed",),
    ),
    Scenario(
        name="flow 3",
        description="fargate_map: a Fargate Spot task for each of 45 items, 40 at a time; one fails, one is reclaimed",
        dag_id="fargate_map",
        conf={**SHORT_WAIT, "parameter": ["broken-item", *(f"item-{number:02}" for number in range(2, 46))]},
        summarized_family="process-item",
        faults={"interrupt_spot": 1, "interrupt_spot_with": "item-02"},
        jobs={SUCCEEDED: 44, INTERRUPTED: 1, FAILED: 1},
        log_contains=("'reason': 'Essential container in task exited', 'exit_code': 1", "{'Fail': 1, 'Success': 44}"),
        reads=("items", "44 outputs in s3://jobflow-samples/fargate_map/output/, 44 of them match their input"),
    ),
    Scenario(
        name="flow 3, expand",
        description="fargate_map_expand: the same with an Airflow task for each item, here of 5",
        dag_id="fargate_map_expand",
        conf={**SHORT_WAIT, "parameter": ["item-01", "item-02", "broken-item", "item-04", "item-05"]},
        jobs={SUCCEEDED: 4, FAILED: 1},
        log_contains=("Results: {'Success': 4, 'Fail': 1}",),
        reads=("items", "4 outputs in s3://jobflow-samples/fargate_map/output/, 4 of them match their input"),
    ),
    Scenario(
        name="flow 4",
        description="glue_crawler_then_job: crawl 19 rows of CSV, then run a Glue job that converts them to Parquet",
        dag_id="glue_crawler_then_job",
        conf={**SHORT_WAIT, "polls": 120},
        jobs={SUCCEEDED: 2},
        reads=(
            "parquet",
            (
                "19 rows in s3://test-glue00/se2/out0/se2_in0.parquet: deviceid string, uuid int64, appid int64, "
                "country string, year int64, month int64, day int64, hour int64"
            ),
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a scenario ended.

    :param scenario: the scenario.
    :param jobs: all jobs that were started.
    :param exit_code: of ``airflow dags test``; None if it did not end and was stopped.
    :param seconds: its duration.
    :param calls: the number of AWS calls made by Airflow and the jobs, by name.
    :param notifications: the notifications that were sent.
    :param log: path of Airflow's full log.
    :param reads: the description of the output in S3. Default: nothing was read.
    :param left: ids of job processes that were still running after the end. Default: none.
    """

    scenario: Scenario
    jobs: tuple[Job, ...]
    exit_code: int | None
    seconds: float
    calls: Counter[str]
    notifications: tuple[str, ...]
    log: Path
    reads: str = ""
    left: tuple[int, ...] = ()

    def ended_as(self, *, children: bool) -> dict[str, int]:
        """Return the number of jobs per status.

        :param children: whether to count the children of arrays, or all other jobs.
        """
        return dict(Counter(job.status for job in self.jobs if (job.index is not None) == children))

    def jobs_started(self) -> str:
        """Return the number of submitted jobs, and of array children, for the table."""
        alone, children = (sum(self.ended_as(children=which).values()) for which in (False, True))
        return f"{alone} + {children}" if children else str(alone)

    def how_jobs_ended(self) -> str:
        """Return the final statuses as text for the table."""
        exit_codes = {job.exit_code for job in self.jobs if job.status == FAILED and not job.size}
        alone, children = (_counts(self.ended_as(children=which)) for which in (False, True))
        code = f" (exit code {exit_codes.pop()})" if len(exit_codes) == 1 else ""
        return f"array {alone}, children {children}{code}" if children else f"{alone or 'none'}{code}"

    def problems(self) -> list[str]:
        """Return what is not as expected; empty if everything is."""
        scenario, log = self.scenario, self.log.read_text(encoding="utf-8", errors="replace")
        problems = []
        if self.exit_code is None:
            problems.append("the run did not end and was stopped")
        elif (self.exit_code == 0) != scenario.run_succeeds:
            problems.append(f"the run {'succeeded' if self.exit_code == 0 else 'failed'}")
        for what, expected, actual in (
            ("jobs", scenario.jobs, self.ended_as(children=False)),
            ("children", scenario.children, self.ended_as(children=True)),
        ):
            if dict(expected) != actual:
                problems.append(f"{what}: {_counts(actual) or 'none'}; expected: {_counts(expected) or 'none'}")
        problems += [f"the log does not contain “{text}”" for text in scenario.log_contains if text not in log]
        if len(self.notifications) != scenario.notifications:
            problems.append(f"notifications: {len(self.notifications)}; expected: {scenario.notifications}")
        if scenario.reads and self.reads != scenario.reads[1]:
            problems.append(f"output: {self.reads or 'nothing'}; expected: {scenario.reads[1]}")
        problems += [f"job process {number} is still running" for number in self.left]
        return problems


def _counts(counts: Mapping[str, int]) -> str:
    """Format ``{"FAILED": 1, "SUCCEEDED": 6}`` as text; a single job without its number."""
    if sum(counts.values()) == 1:
        return next(status for status, number in counts.items() if number)
    return ", ".join(f"{number} {status}" for status, number in sorted(counts.items(), reverse=True))
