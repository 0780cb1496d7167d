"""What happens, as it happens: what jobs do, from the events of a local AWS; what tasks say, from Airflow's log.

What always holds: a job's statuses are told in order and once, however often and in whatever order events come.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.batch_model import ENDED, FAILED, STATUSES, SUBMITTED

if TYPE_CHECKING:
    from airflow_jobflow.local.server import LocalAwsClient

RULE: Final = "follow-jobs"
PATTERN: Final = {"source": ["aws.batch"], "detail-type": ["Batch Job State Change"]}
PAGE: Final = 10
ARROW: Final = " → "

NOTIFICATION: Final = "notification: "
SAID: Final = {
    NOTIFICATION: re.compile(r"Notification: (.*?)\s+\[\S+\] loc="),
    "why: ": re.compile(r"^Why: (.*)"),
    "the run fails with: ": re.compile(r"^[\w.]+(?:Exception|Error): (.*)"),
}
"""Lines of Airflow's log that are worth telling, by what they are introduced with."""


@dataclass
class Job:
    """What has been told of one job: plain, array parent (`size`) or child (`index`)."""

    job_id: str
    name: str
    index: int | None = None
    size: int | None = None
    status: str = SUBMITTED
    exit_code: int | None = None
    log: tuple[str, str] | None = None
    told: str = SUBMITTED
    news: list[str] = field(default_factory=list)
    """Statuses since the one that was told last."""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status in ENDED

    @property
    def label(self) -> str:
        """Its name; a child's with its index."""
        return self.name if self.index is None else f"{self.name}[{self.index}]"

    def take(self, detail: Mapping[str, Any]) -> None:
        """Take in the detail of an event; what is older than what is known is passed over."""
        status = detail["status"]
        if STATUSES.index(status) <= STATUSES.index(self.status):
            return
        self.news.append(status)
        self.status = status
        container = detail.get("container", {})
        self.exit_code = container.get("exitCode")
        if stream := container.get("logStreamName"):
            options = container.get("logConfiguration", {}).get("options", {})
            self.log = (options.get("awslogs-group", "/aws/batch/job"), stream)


@dataclass(frozen=True)
class Change:
    """What one job did since the last look."""

    job: Job
    statuses: tuple[str, ...]
    printed: str | None = None
    """The last line of its log, if it has ended."""

    def __str__(self) -> str:
        text = f"{self.job.label}  {ARROW.join(self.statuses)}"
        if self.job.status == FAILED and self.job.exit_code is not None:
            text += f", exit code {self.job.exit_code}"
        return text if self.printed is None else f'{text}, printed "{self.printed}"'


class JobFollower:
    """Follows all jobs of a local AWS, without a call to Batch.

    :param aws: the AWS; a rule and a queue are made in it.
    """

    def __init__(self, aws: LocalAwsClient) -> None:
        self.jobs: dict[str, Job] = {}
        self.calls: Counter[str] = Counter()
        """The calls made here, by name, to be told apart from those of others."""
        self._sqs, self._logs, events = (self._client(aws, name) for name in ("sqs", "logs", "events"))
        self._url: str = self._sqs.create_queue(QueueName=RULE)["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]
        events.put_rule(Name=RULE, EventPattern=json.dumps(PATTERN))
        events.put_targets(Rule=RULE, Targets=[{"Id": RULE, "Arn": attributes["QueueArn"]}])

    def look(self) -> list[Change]:
        """What has happened since the last look."""
        changed: dict[str, Job] = {}
        for job in map(self._take, self._receive()):
            changed.pop(job.job_id, None)  # who changed last is told last
            changed[job.job_id] = job
        return [self._change(job) for job in changed.values() if job.news]

    def _client(self, aws: LocalAwsClient, service: str) -> Any:
        client = aws.client(service)
        client.meta.events.register("before-call", lambda model, **_: self.calls.update([f"{service}.{model.name}"]))
        return client

    def _receive(self) -> Iterable[Mapping[str, Any]]:
        while True:
            answer = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=PAGE)
            messages = answer.get("Messages", [])
            for message in messages:
                yield json.loads(message["Body"])["detail"]
            if not messages:
                return
            handles = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
            self._sqs.delete_message_batch(QueueUrl=self._url, Entries=handles)

    def _take(self, detail: Mapping[str, Any]) -> Job:
        array = detail.get("arrayProperties", {})
        known = self.jobs.setdefault(
            detail["jobId"], Job(detail["jobId"], detail["jobName"], array.get("index"), array.get("size"))
        )
        known.take(detail)
        return known

    def _change(self, job: Job) -> Change:
        statuses = (job.told, *job.news)
        job.told, job.news = job.status, []
        return Change(job, statuses, self._last_line(*job.log) if job.ended and job.log else None)

    def _last_line(self, group: str, stream: str) -> str | None:
        events = self._logs.get_log_events(logGroupName=group, logStreamName=stream, limit=1)["events"]
        return str(events[-1]["message"]) if events else None


class LogReader:
    """Reads what tasks say from Airflow's log, while it is written.

    :param log: the file.
    """

    def __init__(self, log: Path) -> None:
        self._file = log.open(encoding="utf-8", errors="replace")
        self._rest = ""
        self.notifications: list[str] = []

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def look(self) -> list[str]:
        """What has been said since the last look."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        return [said for line in lines if (said := self._said(line))]

    def _said(self, line: str) -> str | None:
        for introduction, pattern in SAID.items():
            if found := pattern.search(line):
                if introduction == NOTIFICATION:
                    self.notifications.append(found[1])
                return introduction + found[1]
        return None
