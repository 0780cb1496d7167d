"""The operators, each with a job that runs until a test lets it end, for tests of all operators."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_jobflow.operators.base import AwsJobOperator
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from tests.local.glue_kit import end_crawl, until


class Case:
    """One operator: how to create it for a job that runs until a file exists, and what it has started."""

    def __init__(self, kits: Callable[[str], Any], gate: Path) -> None:
        self.gate = gate
        self.script = f"while [ ! -e {gate} ]; do sleep 0.02; done; [ ! -s {gate} ]"
        self.kit = kits(self.KIT)
        self.prepare()

    KIT = ""

    def prepare(self) -> None:
        """Create the required resources."""

    def close(self) -> None:
        """End the threads of the case."""

    def end(self, *, well: bool = True) -> None:
        """Let the job end, with success or not."""
        complete = self.gate.with_suffix(".new")  # the job must not see the file before its content
        complete.write_text("" if well else "no")
        complete.replace(self.gate)

    def make(self, **parameters: Any) -> AwsJobOperator:
        """Create the operator."""
        raise NotImplementedError

    def started(self) -> list[str]:
        """Return the ids of all jobs that were ever started."""
        raise NotImplementedError

    def status(self, job_id: str) -> str:
        """Return the final status of a job."""
        raise NotImplementedError


class Batch(Case):
    """A Batch job."""

    KIT = "batch"
    more: dict[str, Any] = {}  # noqa: RUF012

    def prepare(self) -> None:
        """Register a definition."""
        self.definition = self.kit.define(["sh", "-c", self.script])

    def make(self, **parameters: Any) -> AwsJobOperator:
        """Create the operator."""
        names = {"job_name": "hello", "job_queue": self.kit.queue, "job_definition": self.definition}
        return BatchJobOperator(**{"task_id": "t", "aws_conn_id": None, **names, **self.more, **parameters})

    def started(self) -> list[str]:
        """Return all jobs of the queue."""
        answer = self.kit.batch.list_jobs(jobQueue=self.kit.queue, filters=[{"name": "JOB_NAME", "values": ["*"]}])
        return [job["jobId"] for job in answer["jobSummaryList"]]

    def status(self, job_id: str) -> str:
        """Return SUCCEEDED or FAILED."""
        return str(self.kit.wait(job_id)["status"])


class Array(Batch):
    """An array of Batch jobs."""

    more = {"array_size": 2}  # noqa: RUF012


class Fargate(Case):
    """A Fargate task."""

    KIT = "ecs"

    def prepare(self) -> None:
        """Register a definition."""
        self.definition = self.kit.define(self.kit.container(["sh", "-c", self.script]))

    def make(self, **parameters: Any) -> AwsJobOperator:
        """Create the operator."""
        names = {"cluster": self.kit.cluster, "task_definition": self.definition, "subnets": ["subnet-1"]}
        return FargateTaskOperator(**{"task_id": "t", "aws_conn_id": None, **names, **parameters})

    def started(self) -> list[str]:
        """Return all tasks of the cluster, from the ledger."""
        cluster = f"/{self.kit.cluster}/"
        return [each["taskArn"] for each in self.kit.aws.started("ecs") if cluster in each["taskArn"]]

    def status(self, job_id: str) -> str:
        """Return SUCCEEDED or FAILED."""
        [container] = self.kit.wait(job_id)["containers"]
        return "SUCCEEDED" if container.get("exitCode") == 0 else "FAILED"


class GlueRun(Case):
    """A run of a Glue job."""

    KIT = "glue"

    def prepare(self) -> None:
        """Create a job."""
        script = f"{until(self.gate)}\nassert not os.path.getsize({str(self.gate)!r})"
        self.job = self.kit.job(script, ExecutionProperty={"MaxConcurrentRuns": 3})

    def make(self, **parameters: Any) -> AwsJobOperator:
        """Create the operator."""
        return GlueJobRunOperator(**{"task_id": "t", "aws_conn_id": None, "job_name": self.job, **parameters})

    def started(self) -> list[str]:
        """Return all runs of the job, from the ledger."""
        runs: list[str] = self.kit.runs(self.job)
        return runs

    def status(self, job_id: str) -> str:
        """Return SUCCEEDED or FAILED."""
        return "SUCCEEDED" if self.kit.wait(self.job, job_id)["JobRunState"] == "SUCCEEDED" else "FAILED"


class Crawl(Case):
    """A crawl. It runs no script, so a thread ends it when the file exists."""

    KIT = "glue"

    def prepare(self) -> None:
        """Create a crawler with an earlier crawl."""
        self.crawler = self.kit.crawler()
        self.kit.glue.start_crawler(Name=self.crawler)
        end_crawl(self.kit.aws, self.crawler)
        self.kit.ended(self.crawler)
        self.before = len(self.kit.crawls(self.crawler))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._end_at_the_gate, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()

    def _end_at_the_gate(self) -> None:
        while not self._over.wait(0.02):
            if self.gate.exists():
                end_crawl(self.kit.aws, self.crawler)

    def end(self, *, well: bool = True) -> None:
        """Let the crawl end, and wait for its end; to let it fail, interrupt it."""
        if well:
            self.gate.touch()
        else:
            self.kit.aws.interrupt_crawl(self.crawler)
        self.kit.ended(self.crawler, len(self.kit.crawls(self.crawler)))

    def make(self, **parameters: Any) -> AwsJobOperator:
        """Create the operator."""
        return GlueCrawlOperator(**{"task_id": "t", "aws_conn_id": None, "crawler_name": self.crawler, **parameters})

    def started(self) -> list[str]:
        """Return all crawls, from the ledger."""
        crawls: list[str] = self.kit.crawls(self.crawler)
        return crawls[self.before :]

    def status(self, job_id: str) -> str:
        """Return SUCCEEDED or FAILED."""

        def state() -> str | None:
            told = self.kit.glue.list_crawls(CrawlerName=self.crawler)["Crawls"]
            [found] = [crawl["State"] for crawl in told if crawl["CrawlId"] == job_id]
            return found if found != "RUNNING" else None

        return "SUCCEEDED" if self.kit.eventually(state, f"the end of {job_id}") == "COMPLETED" else "FAILED"


CASES = [Batch, Array, Fargate, GlueRun, Crawl]
WITH_NAMES = [Batch, Array, Fargate, GlueRun]
"""The operators whose jobs are found by their group."""
