"""Helpers for tests of Glue: crawlers and jobs, with short forms to create, describe and wait."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.client import REGION
from airflow_jobflow.triggers.job import JobTrigger

CSV = b"name,n\nx,1\ny,2\n"
HOUR = 3600.0
TIMEOUT = 30.0
"""Seconds after which a test stops waiting."""
SLEEP = "import time\ntime.sleep(600)"


def until(gate: Path) -> str:
    """Return a script that waits for a file."""
    return f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"


def end_crawl(aws: LocalAws, crawler: str) -> None:
    """Let a running crawl, if there is one, do its work and end now, regardless of the duration of crawls."""
    service: Any = aws._service("glue", REGION)
    if running := service._crawlers._current(crawler):
        running.interrupted.set()


def run(trigger: Any) -> dict[str, Any]:
    """Run a trigger like Airflow: created again from its serialized form."""
    path, arguments = trigger.serialize()
    assert path == "airflow_jobflow.triggers.job.JobTrigger"
    event: dict[str, Any] = asyncio.run(JobTrigger(**json.loads(json.dumps(arguments))).wait())
    return json.loads(json.dumps(event))  # type: ignore[no-any-return]


def seen_once(waits: Sequence[JobTrigger]) -> list[str]:
    """Let tasks wait until each has seen the status of its job once, and return the statuses."""

    async def look() -> None:
        tasks = [asyncio.create_task(wait.wait()) for wait in waits]
        async with asyncio.timeout(TIMEOUT):
            while not all(wait._seen for wait in waits):  # noqa: ASYNC110 -- a trigger sends no notification
                await asyncio.sleep(0.02)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(look())
    return [wait._seen[wait.job_ids[0]].status for wait in waits]


class GlueKit:
    """A bucket and a database on a local AWS."""

    def __init__(self, aws: LocalAws, eventually: Callable[..., Any]) -> None:
        self.aws = aws
        self.eventually = eventually
        self.glue, self.s3 = aws.client("glue"), aws.client("s3")
        self.jobs: list[str] = []
        self.name = f"test-{uuid.uuid4().hex}"
        self.s3.create_bucket(Bucket=self.name)
        self.s3.put_object(Bucket=self.name, Key="in/a.csv", Body=CSV)
        self.glue.create_database(DatabaseInput={"Name": self.name})

    # Crawls.

    def crawler(self, bucket: str | None = None) -> str:
        """Create a crawler of the bucket, or of another one, which may not exist, and return its name."""
        name = f"crawler-{uuid.uuid4().hex}"
        targets = {"S3Targets": [{"Path": f"s3://{bucket or self.name}/in/"}]}
        self.glue.create_crawler(Name=name, Role="role", DatabaseName=self.name, Targets=targets)
        return name

    def set_bucket(self, crawler: str, bucket: str | None = None) -> None:
        """Let a crawler crawl the bucket, or another one."""
        targets = {"S3Targets": [{"Path": f"s3://{bucket or self.name}/in/"}]}
        self.glue.update_crawler(Name=crawler, Targets=targets)

    def state(self, crawler: str) -> str:
        """Return a crawler as in GetCrawler."""
        return str(self.glue.get_crawler(Name=crawler)["Crawler"]["State"])

    def ended(self, crawler: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until a crawler has ended this many crawls and is READY, and return its crawls, newest first."""

        def crawls() -> list[dict[str, Any]] | None:
            told = list(self.glue.list_crawls(CrawlerName=crawler)["Crawls"])
            done = sum(crawl["State"] != "RUNNING" for crawl in told) >= count
            return told if done and self.state(crawler) == "READY" else None

        return list(self.eventually(crawls, f"{count} crawls of {crawler}"))

    def crawl(self, crawler: str) -> dict[str, Any]:
        """Run a crawl, and return it as in ListCrawls."""
        before = len(self.glue.list_crawls(CrawlerName=crawler)["Crawls"])
        self.glue.start_crawler(Name=crawler)
        return self.ended(crawler, before + 1)[0]

    # Runs of jobs.

    def job(self, script: str = "", **request: Any) -> str:
        """Create a job that runs a script, and return its name."""
        name = f"job-{uuid.uuid4().hex}"
        self.s3.put_object(Bucket=self.name, Key=f"{name}/main.py", Body=script.encode())
        command = {"Name": "pythonshell", "ScriptLocation": f"s3://{self.name}/{name}/main.py"}
        self.jobs.append(name)
        self.glue.create_job(**{"Name": name, "Role": "role", "Command": command, **request})
        return name

    def close(self) -> None:
        """Stop the running runs of this kit, because other tests need the slots."""
        for job in self.jobs:
            if runs := self.runs(job):
                self.glue.batch_stop_job_run(JobName=job, JobRunIds=runs[-25:])

    def start(self, job: str, **request: Any) -> str:
        """Start a run, and return its id."""
        return str(self.glue.start_job_run(JobName=job, **request)["JobRunId"])

    def look(self, job: str, run_id: str) -> dict[str, Any]:
        """Return a run as in GetJobRun."""
        return dict(self.glue.get_job_run(JobName=job, RunId=run_id)["JobRun"])

    def wait(self, job: str, run_id: str, *states: str) -> dict[str, Any]:
        """Wait until a run has one of these states (by default, a final one), and return the run."""
        wanted = states or ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED")

        def reached() -> dict[str, Any] | None:
            told = self.look(job, run_id)
            return told if told["JobRunState"] in wanted else None

        return dict(self.eventually(reached, f"{run_id} in {wanted}"))

    def runs(self, job: str) -> list[str]:
        """Return the ids of all runs of a job that were ever started, oldest first, from the ledger."""
        return [each["run_id"] for each in self.aws.started("glue") if each.get("job") == job]

    def crawls(self, crawler: str) -> list[str]:
        """Return the ids of all crawls of a crawler that were ever started, oldest first, from the ledger."""
        return [each["crawl_id"] for each in self.aws.started("glue") if each.get("crawler") == crawler]
