"""Follow the jobs of a local AWS by their events, and what tasks log by Airflow's log file.

Invariants: following makes no call to Batch, ECS or Glue.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.demo.job_updates import (
    READERS,
    SUCCEEDED,
    Change,
    FamilySummary,
    Job,
    JobUpdate,
    of_ledger_entry,
)

if TYPE_CHECKING:
    from airflow_jobflow.local.client import LocalAwsClient

RULE: Final = "follow-jobs"
PATTERN: Final = {"detail-type": list(READERS)}
PAGE: Final = 10
STEP: Final = 10
"""A line is printed for a summarized family whenever this many more tasks have started or ended."""

NOTIFICATION: Final = "notification: "
LOG_PATTERNS: Final = {
    NOTIFICATION: re.compile(r"Notification: (.*?)\s+\[\S+\] loc="),
    "results: ": re.compile(r"Results: (.*?)\s+\[\S+\] loc="),
    "branch: ": re.compile(r"Branch into (\w+)\s+\[\S+\] loc="),
    "returned: ": re.compile(r"Returned value was: ([^\[{]\S* [^\s\[].*?)\s+\[\S+\] loc="),  # sentences only
    "why: ": re.compile(r"^Why: (.*)"),
    "DAG run failed: ": re.compile(r"^[\w.]+(?:Exception|Error): (.*)"),
}
"""The lines of Airflow's log to print, by the prefix to print them with."""


class JobFollower:
    """Follows all jobs of a local AWS: Batch jobs, ECS tasks, Glue crawls and job runs.

    :param aws: the local AWS. A rule and a queue are created in it.
    :param summarized_family: a family of ECS tasks of which there are too many to print each. Only totals are printed,
        and the tasks that fail or need a second attempt. Default: none.
    """

    def __init__(self, aws: LocalAwsClient, summarized_family: str = "") -> None:
        self.jobs: dict[str, Job] = {}
        self.calls: Counter[str] = Counter()
        """The number of calls made by this object, by name, to subtract them from the total."""
        self._aws = aws
        self._sqs, self._logs, events = (self._client(aws, name) for name in ("sqs", "logs", "events"))
        self._url: str = self._sqs.create_queue(QueueName=RULE)["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]
        events.put_rule(Name=RULE, EventPattern=json.dumps(PATTERN))
        events.put_targets(Rule=RULE, Targets=[{"Id": RULE, "Arn": attributes["QueueArn"]}])
        self._summary = FamilySummary(summarized_family, Counter())
        """The last one that was returned."""

    @property
    def all_ended(self) -> bool:
        """Whether the end of every started job has been received."""
        tasks = sum(started["taskArn"] not in self.jobs for started in self._aws.started("ecs"))
        return not tasks and all(job.ended for job in self.jobs.values())

    def poll(self) -> list[Change | FamilySummary]:
        """Return what has happened since the last call."""
        changed: dict[str, Job] = {}
        for update in self._job_updates():
            job = self._record(update)
            changed.pop(job.job_id, None)  # in the order of the last change
            changed[job.job_id] = job
        changes: list[Change | FamilySummary] = [
            self._change(job) for job in changed.values() if job.unreported and self._is_reported(job)
        ]
        statuses = Counter(job.status for job in self.jobs.values() if self._is_summarized(job))
        summary = FamilySummary(self._summary.name, statuses)
        if summary.differs_enough_from(self._summary, STEP):
            self._summary = summary
            changes.append(summary)
        return changes

    def _client(self, aws: LocalAwsClient, service: str) -> Any:
        client = aws.client(service)
        client.meta.events.register("before-call", lambda model, **_: self.calls.update([f"{service}.{model.name}"]))
        return client

    def _job_updates(self) -> Iterator[JobUpdate]:
        """Read the updates since the last call. Glue sends events at the end of runs only; the ledger has the start."""
        events = list(self._events())  # read before the ledger, which then contains every job they are about
        yield from map(of_ledger_entry, self._aws.started("glue"))
        for event in events:
            if update := READERS[event["detail-type"]](event["detail"]):
                yield update

    def _events(self) -> Iterator[Mapping[str, Any]]:
        while messages := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=PAGE).get("Messages"):
            yield from (json.loads(message["Body"]) for message in messages)
            handles = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
            self._sqs.delete_message_batch(QueueUrl=self._url, Entries=handles)

    def _record(self, update: JobUpdate) -> Job:
        namesakes = [job.job_id for job in self.jobs.values() if job.name == update.name] if not update.job_id else []
        job_id = update.job_id or (namesakes or [update.name])[-1]
        job = self.jobs.setdefault(job_id, Job(job_id, update.name, update.index, update.size, update.family))
        job.record(update)
        return job

    def _is_summarized(self, job: Job) -> bool:
        return bool(job.family) and job.family == self._summary.name

    def _is_reported(self, job: Job) -> bool:
        if not self._is_summarized(job):
            return True
        is_repeated = any(other.name == job.name and other is not job for other in self.jobs.values())
        return job.ended and (is_repeated or job.status != SUCCEEDED)

    def _change(self, job: Job) -> Change:
        statuses = tuple(filter(None, (job.reported, *job.unreported)))
        job.reported, job.unreported = job.status, []
        return Change(job, statuses, self._last_line(*job.log) if job.ended and job.log else None)

    def _last_line(self, group: str, stream: str) -> str | None:
        events = self._logs.get_log_events(logGroupName=group, logStreamName=stream, limit=1)["events"]
        return str(events[-1]["message"]) if events else None


class LogReader:
    """Read what tasks log from Airflow's log file while it is written.

    :param log: path of the file.
    """

    def __init__(self, log: Path) -> None:
        self._file = log.open(encoding="utf-8", errors="replace")
        self._rest = ""
        self.notifications: list[str] = []

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def poll(self) -> list[str]:
        """Return the lines to print that were written since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        return [found for line in lines if (found := self._match(line))]

    def _match(self, line: str) -> str | None:
        for prefix, pattern in LOG_PATTERNS.items():
            if found := pattern.search(line):
                if prefix == NOTIFICATION:
                    self.notifications.append(found[1])
                return prefix + found[1]
        return None
