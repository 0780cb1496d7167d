"""What the demo runs, what each scenario is to come to, and whether it did. Plain data and plain functions of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from airflow_jobflow.local.demo.sightings import FAILED, INTERRUPTED, SUCCEEDED, Job


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One run of a sample flow.

    :param name: what its lines begin with.
    :param conf: the DAG run's.
    :param jobs: how many jobs are to end in which status; an array counts as one.
    :param children: likewise, of the children of arrays.
    :param run_succeeds: whether the DAG run is to.
    :param log_says: what Airflow's log must say.
    :param notifications: how many there are to be.
    :param crowd: a family of tasks that are told by numbers.
    :param faults: of the local AWS, as `Faults` takes them.
    :param reads: what is read back from S3, by its name in `outputs`, and what that is to be.
    """

    name: str
    description: str
    dag_id: str
    conf: Mapping[str, Any]
    jobs: Mapping[str, int]
    children: Mapping[str, int] = field(default_factory=dict)
    run_succeeds: bool = True
    log_says: tuple[str, ...] = ()
    notifications: int = 0
    crowd: str = ""
    faults: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, str] | None = None

    @property
    def slug(self) -> str:
        """The name, as files have it."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name).replace("--", "-")


LOOK: Final = {"wait_time": 0.5}
"""Seconds between two looks at a job. On AWS the flows look every minute; here jobs take seconds."""

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
"""What EventBridge said of an array of which a child had failed."""

SCENARIOS: Final = (
    Scenario(
        name="flow 1",
        description="batch_job_status_poller: run a job and wait for it",
        dag_id="batch_job_status_poller",
        conf=LOOK,
        jobs={SUCCEEDED: 1},
        log_says=("ended as SUCCEEDED",),
    ),
    Scenario(
        name="flow 1, failing",
        description="the same with a job that exits with code 3: the run fails, and says why",
        dag_id="batch_job_status_poller",
        conf={**LOOK, "containerOverrides": {"command": ["sh", "-c", FAILING_COMMAND]}},
        jobs={FAILED: 1},
        run_succeeds=False,
        log_says=("DescribeJob returned FAILED", "AWS Batch Job Failed", "exit code 3"),
    ),
    Scenario(
        name="flow 2",
        description="batch_array_notify: run an array of 7 jobs and notify once when all have ended",
        dag_id="batch_array_notify",
        conf=LOOK,
        jobs={SUCCEEDED: 1},
        children={SUCCEEDED: 7},
        notifications=1,
        log_says=("SUCCEEDED: 7 of 7 succeeded",),
    ),
    Scenario(
        name="flow 2, failing",
        description="the same with one child that fails: one notification too, then the run fails",
        dag_id="batch_array_notify",
        conf={**LOOK, "jobDefinition": "print-color-failing"},
        jobs={FAILED: 1},
        children={SUCCEEDED: 6, FAILED: 1},
        run_succeeds=False,
        notifications=1,
        log_says=("FAILED: 6 of 7 succeeded, failed: [3]",),
    ),
    Scenario(
        name="flow 2, by event",
        description="batch_array_event: a DAG that the end of an array starts, here with an event that was recorded",
        dag_id="batch_array_event",
        conf={"event": ARRAY_FAILED},
        jobs={},
        notifications=1,
        log_says=("print-color FAILED: 6 of 7 succeeded, 1 failed",),
    ),
    Scenario(
        name="flow 3",
        description="fargate_map: a Fargate Spot task for each of 45 items, 40 at a time; one fails, one is reclaimed",
        dag_id="fargate_map",
        conf={**LOOK, "parameter": ["broken-item", *(f"item-{number:02}" for number in range(2, 46))]},
        crowd="process-item",
        faults={"interrupt_spot": 1, "interrupt_spot_with": "item-02"},
        jobs={SUCCEEDED: 44, INTERRUPTED: 1, FAILED: 1},
        log_says=("'reason': 'Essential container in task exited', 'exit_code': 1", "{'Fail': 1, 'Success': 44}"),
        reads=("items", "44 outputs in s3://jobflow-samples/fargate_map/output/, 44 of them made from their own input"),
    ),
    Scenario(
        name="flow 3, expand",
        description="fargate_map_expand: the same with an Airflow task for each item, here of 5",
        dag_id="fargate_map_expand",
        conf={**LOOK, "parameter": ["item-01", "item-02", "broken-item", "item-04", "item-05"]},
        jobs={SUCCEEDED: 4, FAILED: 1},
        log_says=("Results: {'Success': 4, 'Fail': 1}",),
        reads=("items", "4 outputs in s3://jobflow-samples/fargate_map/output/, 4 of them made from their own input"),
    ),
    Scenario(
        name="flow 4",
        description="glue_crawler_then_job: crawl 19 rows of CSV, run a Glue job that makes Parquet of them",
        dag_id="glue_crawler_then_job",
        conf={**LOOK, "polls": 120},
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
    """How a scenario went.

    :param exit_code: of ``airflow dags test``; None if it did not end and was stopped.
    :param seconds: from its start to its end.
    :param calls: the calls to AWS that Airflow and the jobs made.
    :param log: Airflow's full log.
    :param reads: what was read back from S3.
    :param left: processes of jobs that were running when it had ended.
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
        """How many jobs are in which status; either the children of arrays or all others."""
        return dict(Counter(job.status for job in self.jobs if (job.index is not None) == children))

    def jobs_started(self) -> str:
        """How many, for the table: those that were submitted, and the children of arrays."""
        alone, children = (sum(self.ended_as(children=which).values()) for which in (False, True))
        return f"{alone} + {children}" if children else str(alone)

    def how_jobs_ended(self) -> str:
        """In words, for the table."""
        exit_codes = {job.exit_code for job in self.jobs if job.status == FAILED and not job.size}
        alone, children = (_words(self.ended_as(children=which)) for which in (False, True))
        code = f" (exit code {exit_codes.pop()})" if len(exit_codes) == 1 else ""
        return f"array {alone}, children {children}{code}" if children else f"{alone or 'none'}{code}"

    def wrong(self) -> list[str]:
        """What is not as it should be; nothing if all is."""
        scenario, log = self.scenario, self.log.read_text(encoding="utf-8", errors="replace")
        wrong = []
        if self.exit_code is None:
            wrong.append("the run did not end and was stopped")
        elif (self.exit_code == 0) != scenario.run_succeeds:
            wrong.append(f"the run {'succeeded' if self.exit_code == 0 else 'failed'}")
        for what, meant, ended in (
            ("jobs", scenario.jobs, self.ended_as(children=False)),
            ("children", scenario.children, self.ended_as(children=True)),
        ):
            if dict(meant) != ended:
                wrong.append(f"{what}: {_words(ended) or 'none'}, where {_words(meant) or 'none'} was meant")
        wrong += [f"the log does not say “{words}”" for words in scenario.log_says if words not in log]
        if len(self.notifications) != scenario.notifications:
            wrong.append(f"notifications: {len(self.notifications)}, where {scenario.notifications} was meant")
        if scenario.reads and self.reads != scenario.reads[1]:
            wrong.append(f"read back: {self.reads or 'nothing'}, where {scenario.reads[1]} was meant")
        wrong += [f"a job's process {number} was left running" for number in self.left]
        return wrong


def _words(counts: Mapping[str, int]) -> str:
    """``{"FAILED": 1, "SUCCEEDED": 6}`` in words; a single one without its number."""
    if sum(counts.values()) == 1:
        return next(status for status, number in counts.items() if number)
    return ", ".join(f"{number} {status}" for status, number in sorted(counts.items(), reverse=True))
