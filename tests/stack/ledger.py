"""What the local AWS was told to start, and what has become of it: the ledger that every test is judged by.

Every job of a test carries a token of its DAG run in its name, overrides or arguments, and writes it to its log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_jobflow.local import LocalAwsClient
from airflow_jobflow.local.glue_samples import BUCKET
from airflow_jobflow.local.samples import QUEUES

GLUE_JOB: Final = "stack-job"
GLUE_SCRIPT: Final = """\
import sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
for stream in (sys.stdout, sys.stderr):
    print(given["--token"], file=stream, flush=True)
time.sleep(float(given["--seconds"]))
sys.exit(int(given["--code"]))
"""


@dataclass(frozen=True)
class Started:
    """A remote job that was started."""

    service: str
    job_id: str
    name: str
    """What the test named it by: a Batch job's name; of others, all that was said to start it."""
    status: str
    ended: bool
    scope: str = ""
    """Of a Glue run, its job."""


class Ledger:
    """All that was ever started in a local AWS."""

    def __init__(self, aws: LocalAwsClient) -> None:
        self.aws = aws
        self._batch, self._ecs, self._glue = (aws.client(name) for name in ("batch", "ecs", "glue"))
        self._logs = aws.client("logs")

    def provision(self) -> None:
        """Create what the tests' DAGs need beside the samples."""
        role = self.aws.client("iam").get_role(RoleName="local-glue")["Role"]["Arn"]
        key = f"stack/{GLUE_JOB}.py"
        self.aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=GLUE_SCRIPT.encode())
        self._glue.create_job(
            Name=GLUE_JOB,
            Role=role,
            Command={"Name": "pythonshell", "ScriptLocation": f"s3://{BUCKET}/{key}", "PythonVersion": "3.9"},
            ExecutionProperty={"MaxConcurrentRuns": 100},
            MaxCapacity=0.0625,
        )

    def started(self, token: str, service: str | None = None) -> list[Started]:
        """All that was started with a token, of one service or of all; of an array, the parent."""
        found = [*self._batch_jobs(token), *self._ecs_tasks(token), *self._glue_runs(token)]
        return [each for each in found if service in (None, each.service)]

    def running(self, token: str = "") -> list[Started]:
        """What of it has not ended."""
        return [each for each in self.started(token) if not each.ended]

    def stop_all(self) -> None:
        """End what a test has left running, for it not to be in the way of the next."""
        for each in self.running():
            if each.service == "batch":
                self._batch.terminate_job(jobId=each.job_id, reason="left over by a test")
            elif each.service == "ecs":
                self._ecs.stop_task(cluster=each.job_id.split("/")[1], task=each.job_id)
            else:
                self._glue.batch_stop_job_run(JobName=each.scope, JobRunIds=[each.job_id])

    def log(self, outcome: Mapping[str, Any]) -> str:
        """What a job wrote, by its outcome; nothing where the outcome knows no log."""
        where = outcome.get("log") or {}
        if not where.get("stream"):
            return ""
        events = self._logs.get_log_events(
            logGroupName=where["group"], logStreamName=where["stream"], startFromHead=True
        )["events"]
        return "\n".join(each["message"] for each in events)

    def _batch_jobs(self, token: str) -> Iterator[Started]:
        pages = self._batch.get_paginator("list_jobs")
        for queue in QUEUES:
            name = [{"name": "JOB_NAME", "values": [f"{token}*"]}]
            for page in pages.paginate(jobQueue=queue, filters=name):
                for job in page["jobSummaryList"]:
                    ended = job["status"] in ("SUCCEEDED", "FAILED")
                    yield Started("batch", job["jobId"], job["jobName"], job["status"], ended)

    def _ecs_tasks(self, token: str) -> Iterator[Started]:
        noted = [each for each in self.aws.started("ecs") if token in json.dumps(each["overrides"])]
        for each in noted:
            answer = self._ecs.describe_tasks(cluster=each["clusterArn"], tasks=[each["taskArn"]])
            status = answer["tasks"][0]["lastStatus"] if answer["tasks"] else "STOPPED"
            yield Started("ecs", each["taskArn"], json.dumps(each["overrides"]), status, status == "STOPPED")

    def _glue_runs(self, token: str) -> Iterator[Started]:
        for each in self.aws.started("glue"):
            if "run_id" not in each:
                continue
            run = self._glue.get_job_run(JobName=each["job"], RunId=each["run_id"])["JobRun"]
            arguments = json.dumps(run.get("Arguments", {}))
            if token in arguments:
                status = run["JobRunState"]
                ended = status in ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED")
                yield Started("glue_run", each["run_id"], arguments, status, ended, each["job"])
