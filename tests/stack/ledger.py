"""The ledger of started jobs in the local AWS, by which every test is judged.

Every job of a test has a token of its DAG run in its name, overrides or arguments, and writes it to its log; a crawl
has it in the name of its crawler.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from airflow_jobflow.jobs.maps import INDEX
from airflow_jobflow.jobs.owner import ARGUMENT, REAP, group_in_name, read_argument
from airflow_jobflow.local import LocalAwsClient
from airflow_jobflow.local.glue.samples import BUCKET, DATABASE, INPUT

GLUE_JOB: Final = "stack-job"
GLUE_SCRIPT: Final = """\
import sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
for stream in (sys.stdout, sys.stderr):
    print(given["--token"], file=stream, flush=True)
time.sleep(float(given["--seconds"]))
sys.exit(int(given["--code"]))
"""
CRAWLER: Final = "crawler"
"""Separates a run's token from the rest in the name of its own crawler."""

OF_A_RUN: Final = re.compile(r"t\d{4,}-")
"""The format of a DAG run's token; jobs without one were started by the test itself."""
DESCRIBED: Final = 100
"""Maximum number of jobs in a DescribeJobs call."""


@dataclass(frozen=True)
class Started:
    """A remote job that was started."""

    service: str
    job_id: str
    name: str
    """How the test named it: a Batch job's name; for others, the start request."""
    status: str
    ended: bool
    began: float
    """When it was created, in seconds since the epoch."""
    ended_at: float | None
    scope: str = ""
    """The job of a Glue run, or the crawler of a crawl."""
    stopped: bool = False
    """Whether it was stopped by someone."""
    group: str | None = None
    """The group of the task instance that has started it; None for a crawl, which has none."""
    item: str = ""
    """For a map, the item's index."""
    is_marked: bool = False
    """Whether it has the mark that the orphan reaper needs."""

    def is_of(self, run: str, group: str) -> bool:
        """Return whether a task instance has started it. A crawl only has its run."""
        return self.name.startswith(run) if self.service == "glue_crawl" else self.group == group


class Ledger:
    """All jobs that were ever started in a local AWS."""

    def __init__(self, aws: LocalAwsClient) -> None:
        self.aws = aws
        self._batch, self._ecs, self._glue = (aws.client(name) for name in ("batch", "ecs", "glue"))
        self._logs = aws.client("logs")
        self._arguments: dict[str, Mapping[str, str]] = {}
        """The runs of Glue by id; their start requests never change."""
        self._reported: set[str] = set()
        """Tokens that were used twice and already reported."""

    def provision(self) -> None:
        """Create what the tests' DAGs need in addition to the samples."""
        key = f"stack/{GLUE_JOB}.py"
        self.aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=GLUE_SCRIPT.encode())
        self._glue.create_job(
            Name=GLUE_JOB,
            Role=self._role(),
            Command={"Name": "pythonshell", "ScriptLocation": f"s3://{BUCKET}/{key}", "PythonVersion": "3.9"},
            ExecutionProperty={"MaxConcurrentRuns": 100},
            MaxCapacity=0.0625,
        )

    def provision_crawler(self, token: str) -> None:
        """Create the crawler of a run, so that its crawls belong to that run."""
        targets = {"S3Targets": [{"Path": f"s3://{BUCKET}/{INPUT}"}]}
        self._glue.create_crawler(Name=token + CRAWLER, Role=self._role(), DatabaseName=DATABASE, Targets=targets)

    def _role(self) -> str:
        return str(self.aws.client("iam").get_role(RoleName="local-glue")["Role"]["Arn"])

    def started(self, token: str = "") -> list[Started]:
        """Return all jobs that were started with a token; for an array, the parent."""
        return [
            *self._batch_jobs(token),
            *self._ecs_tasks(token),
            *self._glue_runs(token),
            *self._glue_crawls(token),
        ]

    def running(self, token: str = "") -> list[Started]:
        """Return those of them that have not ended."""
        return [each for each in self.started(token) if not each.ended]

    def used_twice(self) -> list[str]:
        """Return the names and tokens with which more than one job was started by an operator that uses unique ones.

        Each is returned once.
        """
        tokens = [each["jobName"] for each in self.aws.started("batch") if OF_A_RUN.match(each["jobName"])]
        tokens += [each["clientToken"] for each in self.aws.started("ecs") if each["clientToken"]]
        runs = [each for each in self.aws.started("glue") if "run_id" in each]
        owners = (read_argument(self._arguments_of(run).get(ARGUMENT, "")) for run in runs)
        tokens += [owner["attempt"] for owner in owners if "attempt" in owner]
        known, self._reported = self._reported, {token for token, times in Counter(tokens).items() if times > 1}
        return sorted(self._reported - known)

    def children(self, job_id: str, size: int) -> list[dict[str, Any]]:
        """Return the children of an array, as in DescribeJobs."""
        return self._describe([f"{job_id}:{index}" for index in range(size)])

    def stop_all(self) -> None:
        """Stop the jobs of a test, so that they do not delay the next one."""
        for each in self.running():
            if each.service == "batch":
                self._batch.terminate_job(jobId=each.job_id, reason="left over by a test")
            elif each.service == "ecs":
                self._ecs.stop_task(cluster=each.job_id.split("/")[1], task=each.job_id)
            elif each.service == "glue_run":
                self._glue.batch_stop_job_run(JobName=each.scope, JobRunIds=[each.job_id])
            # A crawl soon ends by itself.

    def log(self, outcome: Mapping[str, Any]) -> str:
        """Return the output of a job by its outcome; empty if the outcome has no log."""
        where = outcome.get("log") or {}
        return self.written(where["group"], where["stream"]) if where.get("stream") else ""

    def written(self, group: str, stream: str) -> str:
        """Return the lines of a log stream."""
        events = self._logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
        return "\n".join(each["message"] for each in events)

    def _batch_jobs(self, token: str) -> Iterator[Started]:
        noted = [each["jobId"] for each in self.aws.started("batch") if each["jobName"].startswith(token)]
        for job in self._describe(noted):
            status, ended_at = job["status"], job.get("stoppedAt")
            yield Started(
                "batch",
                job["jobId"],
                job["jobName"],
                status,
                status in ("SUCCEEDED", "FAILED"),
                job["createdAt"] / 1000,
                ended_at / 1000 if ended_at else None,
                stopped=bool(job.get("isTerminated") or job.get("isCancelled")),
                group=group_in_name(job["jobName"]),
                item=_item(job.get("container", {}).get("environment", ())),
                is_marked=job.get("tags", {}).get(REAP) == "true",
            )

    def _describe(self, job_ids: Sequence[str]) -> list[dict[str, Any]]:
        groups = [job_ids[first : first + DESCRIBED] for first in range(0, len(job_ids), DESCRIBED)]
        return [job for group in groups for job in self._batch.describe_jobs(jobs=group)["jobs"]]

    def _ecs_tasks(self, token: str) -> Iterator[Started]:
        noted = [each for each in self.aws.started("ecs") if token in json.dumps(each["overrides"])]
        for each in noted:
            where = {"cluster": each["clusterArn"], "tasks": [each["taskArn"]], "include": ["TAGS"]}
            [task] = self._ecs.describe_tasks(**where)["tasks"]
            status, said = task["lastStatus"], json.dumps(each["overrides"])
            times = task["createdAt"].timestamp(), _seconds(task.get("stoppedAt"))
            overrides = task["overrides"].get("containerOverrides", ())
            yield Started(
                "ecs",
                each["taskArn"],
                said,
                status,
                status == "STOPPED",
                *times,
                stopped=task.get("stopCode") == "UserInitiated",
                group=task.get("startedBy"),
                item=_item(variable for one in overrides for variable in one.get("environment", ())),
                is_marked={"key": REAP, "value": "true"} in task.get("tags", ()),
            )

    def _glue_runs(self, token: str) -> Iterator[Started]:
        for each in self.aws.started("glue"):
            if "run_id" not in each:
                continue
            arguments = json.dumps(self._arguments_of(each))
            if token in arguments:
                run = self._glue.get_job_run(JobName=each["job"], RunId=each["run_id"])["JobRun"]
                status = run["JobRunState"]
                ended = status in ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED")
                times = run["StartedOn"].timestamp(), _seconds(run.get("CompletedOn"))
                owner = read_argument(self._arguments_of(each).get(ARGUMENT, ""))
                yield Started(
                    "glue_run",
                    each["run_id"],
                    arguments,
                    status,
                    ended,
                    *times,
                    each["job"],
                    stopped=status in ("STOPPING", "STOPPED"),
                    group=owner.get("group"),
                    is_marked=owner.get("reap") is True,
                )

    def _arguments_of(self, noted: Mapping[str, str]) -> Mapping[str, str]:
        run_id = noted["run_id"]
        if run_id not in self._arguments:
            run = self._glue.get_job_run(JobName=noted["job"], RunId=run_id)["JobRun"]
            self._arguments[run_id] = run.get("Arguments", {})
        return self._arguments[run_id]

    def _glue_crawls(self, token: str) -> Iterator[Started]:
        crawlers = {each["crawler"] for each in self.aws.started("glue") if "crawl_id" in each}
        for crawler in sorted(name for name in crawlers if name.startswith(token)):
            for crawl in self._glue.list_crawls(CrawlerName=crawler)["Crawls"]:
                status = crawl["State"]
                times = crawl["StartTime"].timestamp(), _seconds(crawl.get("EndTime"))
                ended = status not in ("RUNNING", "STOPPING")
                stopped = status in ("STOPPING", "STOPPED")
                yield Started("glue_crawl", crawl["CrawlId"], crawler, status, ended, *times, crawler, stopped=stopped)


def _item(environment: Iterable[Mapping[str, str]]) -> str:
    return next((each["value"] for each in environment if each["name"] == INDEX), "")


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
