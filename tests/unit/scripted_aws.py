"""One job of each service, scripted: the calls of a task are recorded, and answered from memory."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.model import JobState

CRAWLED = datetime(2026, 1, 2, tzinfo=UTC)
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/c/0123456789abcdef0123456789abcdef"


class ScriptedAws:
    """What the functions in ``jobs/`` call. Every service has one job.

    :param job: the state of the job in all describe calls. Default: it runs.
    :param busy: whether the crawler is already running. Default False.
    """

    region, partition, may_tag, valid_until = "eu-west-1", "aws", True, float("inf")

    def __init__(self, job: JobState = JobState.RUNNING, *, busy: bool = False) -> None:
        self.job, self.busy = job, busy
        self.calls: list[tuple[str, dict[str, Any]]] = []

    @property
    def memory(self) -> dict[Any, Any]:
        """Nothing is remembered."""
        return {}

    def wait_for_turn(self) -> None:
        """No rate is limited."""

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Make one call."""
        self.calls.append((operation, parameters))
        return getattr(self, operation)(**parameters)

    def sent(self, operation: str) -> list[dict[str, Any]]:
        """Return the requests of an operation."""
        return [parameters for made, parameters in self.calls if made == operation]

    @property
    def _exit_code(self) -> dict[str, int]:
        return {"exitCode": int(self.job is JobState.FAILED)} if self.job.ended else {}

    # Batch.

    def submit_job(self, **_: Any) -> Any:
        """Respond with the id of the job."""
        return {"jobId": "job-1"}

    def describe_jobs(self, jobs: list[str]) -> Any:
        """Respond with the job; an array of two has one child that failed."""
        size = next((each.get("arrayProperties", {}).get("size") for each in self.sent("submit_job")), None)
        job: dict[str, Any] = {"jobName": "n", "status": self.job, "jobQueue": "q"}
        if size:
            counts = {"FAILED": 1, "SUCCEEDED": size - 1} if self.job.ended else {"RUNNING": size}
            job["arrayProperties"] = {"size": size, "statusSummary": counts}
        else:
            job["container"] = self._exit_code
        return {"jobs": [{**job, "jobId": each} for each in jobs]}

    def list_jobs(self, jobStatus: str = "", **_: Any) -> Any:  # noqa: N803 -- AWS's name
        """Respond with the children; an array has one failed child."""
        child = {"jobId": "job-1:0", "jobName": "n", "status": "FAILED", "arrayProperties": {"index": 0}}
        return {"jobSummaryList": [child] if jobStatus == "FAILED" else []}

    def describe_job_definitions(self, **_: Any) -> Any:
        """Respond with an empty list."""
        return {"jobDefinitions": []}

    def register_job_definition(self, **_: Any) -> Any:
        """Answer."""
        return {"jobDefinitionArn": "arn:aws:batch:eu-west-1:123456789012:job-definition/d:1"}

    # Logs of all services.

    def get_log_events(self, **_: Any) -> Any:
        """Respond with an empty log."""
        return {"events": []}

    # ECS.

    def run_task(self, **_: Any) -> Any:
        """Respond with the task."""
        return {"tasks": [{"taskArn": ARN}], "failures": []}

    def describe_tasks(self, **_: Any) -> Any:
        """Respond with the task."""
        task = {
            "taskArn": ARN,
            "taskDefinitionArn": "arn:aws:ecs:eu-west-1:123456789012:task-definition/d:1",
            "lastStatus": {JobState.SUBMITTED: "PROVISIONING", JobState.RUNNING: "RUNNING"}.get(self.job, "STOPPED"),
            "containers": [{"name": "main", **self._exit_code}],
        }
        return {"tasks": [task], "failures": []}

    def describe_task_definition(self, **_: Any) -> Any:
        """Respond with the definition."""
        side = {"name": "side", "image": "i", "essential": False}
        containers = [{"name": "main", "image": "i", "essential": True}, side]
        return {
            "taskDefinition": {
                "containerDefinitions": containers,
                "taskDefinitionArn": "arn:aws:ecs:eu-west-1:123456789012:task-definition/d:1",
            }
        }

    def register_task_definition(self, **_: Any) -> Any:
        """Answer."""
        return {"taskDefinition": {"taskDefinitionArn": "arn:aws:ecs:eu-west-1:123456789012:task-definition/d:1"}}

    # Glue.

    def start_job_run(self, **_: Any) -> Any:
        """Respond with the id of the run."""
        return {"JobRunId": "jr_1"}

    def put_object(self, **_: Any) -> Any:
        """Store an object in S3."""
        return {}

    def get_job(self, **_: Any) -> Any:
        """Respond with the job, which has a script of its own."""
        return {"Job": {"Name": "j", "Command": {"Name": "pythonshell", "ScriptLocation": "s3://bucket/old.py"}}}

    def update_job(self, **_: Any) -> Any:
        """Update the job."""
        return {"JobName": "j"}

    def get_job_run(self, JobName: str, RunId: str) -> Any:  # noqa: N803 -- AWS's names
        """Respond with the run, which Glue has not retried."""
        if RunId.endswith("_attempt_1"):
            raise CallError(Fault.REJECTED, f"no run {RunId} of {JobName}", "EntityNotFoundException")
        return {
            "JobRun": {
                "Id": "jr_1",
                "JobName": "j",
                "JobRunState": "WAITING" if self.job is JobState.SUBMITTED else self.job,
            }
        }

    def get_job_runs(self, **_: Any) -> Any:
        """Respond with the run."""
        return {"JobRuns": []}

    @property
    def _crawl(self) -> dict[str, Any]:
        return {"CrawlId": "1", "StartTime": datetime.now(UTC).timestamp() + 60, "MessagePrefix": "p"}

    def start_crawler(self, **_: Any) -> Any:
        """Start the crawler."""
        self.busy = True
        return {}

    def get_crawler(self, **_: Any) -> Any:
        """Respond with the crawler."""
        return {"Crawler": {"Name": "c", "State": "RUNNING" if self.busy else "READY"}}

    def batch_get_crawlers(self, CrawlerNames: list[str]) -> Any:  # noqa: N803 -- AWS's name
        """Respond with the crawlers."""
        state: dict[str, Any] = {"State": "RUNNING" if self.job is JobState.RUNNING else "READY"}
        if self.job.ended:
            state["LastCrawl"] = {**self._crawl, "Status": self.job}
        return {"Crawlers": [{"Name": name, **state} for name in CrawlerNames]}

    def list_crawls(self, **_: Any) -> Any:
        """Respond with the crawl."""
        return {"Crawls": [{**self._crawl, "State": "RUNNING"}] if self.busy and not self.job.ended else []}


class Store(dict[str, Any]):
    """A task state store."""

    def set(self, key: str, value: Any) -> None:
        """Store a value."""
        self[key] = value


def context() -> dict[str, Any]:
    """Return the parts of a context that the operators need; a second try has the same."""
    ti = SimpleNamespace(
        id=str(uuid.uuid4()),
        dag_id="dag",
        task_id="t",
        run_id="r",
        map_index=-1,
        try_number=1,
        max_tries=1,
        is_mapped=False,
        xcom_push=lambda **_: None,
    )
    run = SimpleNamespace(clear_number=0, start_date=CRAWLED, logical_date=None)
    return {"ti": ti, "dag_run": run, "task_state_store": Store()}


def map_requests(task: Any) -> list[dict[str, Any]]:
    """The requests of a map's items."""
    spec = task._execution.spec
    requests: list[dict[str, Any]] = spec.requests(spec.items(task.items), task._execution.jobs)
    return requests
