"""What happens, as it happens: what jobs do, from what a local AWS says of them; what tasks say, from Airflow's log.

What always holds: following makes no call to Batch, ECS or Glue.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.demo.sightings import READERS, SUCCEEDED, Change, Crowd, Job, Sighting, of_started

if TYPE_CHECKING:
    from airflow_jobflow.local.server import LocalAwsClient

RULE: Final = "follow-jobs"
PATTERN: Final = {"detail-type": list(READERS)}
PAGE: Final = 10
STEP: Final = 10
"""Of a crowd there is a line whenever so many more have started or ended."""

NOTIFICATION: Final = "notification: "
SAID: Final = {
    NOTIFICATION: re.compile(r"Notification: (.*?)\s+\[\S+\] loc="),
    "results: ": re.compile(r"Results: (.*?)\s+\[\S+\] loc="),
    "why: ": re.compile(r"^Why: (.*)"),
    "the run fails with: ": re.compile(r"^[\w.]+(?:Exception|Error): (.*)"),
}
"""Lines of Airflow's log that are worth telling, by what they are introduced with."""


class JobFollower:
    """Follows all jobs of a local AWS: Batch jobs, ECS tasks, Glue crawls and job runs.

    :param aws: the AWS; a rule and a queue are made in it.
    :param crowd: a family of ECS tasks that are so many that they are told by numbers; one by one only what does not
        succeed at once.
    """

    def __init__(self, aws: LocalAwsClient, crowd: str = "") -> None:
        self.jobs: dict[str, Job] = {}
        self.calls: Counter[str] = Counter()
        """The calls made here, by name, to be told apart from those of others."""
        self._aws = aws
        self._sqs, self._logs, events = (self._client(aws, name) for name in ("sqs", "logs", "events"))
        self._url: str = self._sqs.create_queue(QueueName=RULE)["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]
        events.put_rule(Name=RULE, EventPattern=json.dumps(PATTERN))
        events.put_targets(Rule=RULE, Targets=[{"Id": RULE, "Arn": attributes["QueueArn"]}])
        self._crowd = Crowd(crowd, Counter())
        """What was told of it last."""

    @property
    def over(self) -> bool:
        """Whether all that was started has been seen to end."""
        tasks = sum(started["taskArn"] not in self.jobs for started in self._aws.started("ecs"))
        return not tasks and all(job.ended for job in self.jobs.values())

    def look(self) -> list[Change | Crowd]:
        """What has happened since the last look."""
        changed: dict[str, Job] = {}
        for seen in self._sightings():
            job = self._take(seen)
            changed.pop(job.job_id, None)  # who changed last is told last
            changed[job.job_id] = job
        told: list[Change | Crowd] = [
            self._change(job) for job in changed.values() if job.news and self._is_worth_a_line(job)
        ]
        crowd = Crowd(self._crowd.name, Counter(job.status for job in self.jobs.values() if self._in_crowd(job)))
        if crowd.is_news_after(self._crowd, STEP):
            self._crowd = crowd
            told.append(crowd)
        return told

    def _client(self, aws: LocalAwsClient, service: str) -> Any:
        client = aws.client(service)
        client.meta.events.register("before-call", lambda model, **_: self.calls.update([f"{service}.{model.name}"]))
        return client

    def _sightings(self) -> Iterator[Sighting]:
        """All that has been said since the last look. Glue tells of a run's end only, so its ledger is asked too."""
        events = list(self._events())  # before the ledger, so that what they tell of is in it
        yield from map(of_started, self._aws.started("glue"))
        for event in events:
            if seen := READERS[event["detail-type"]](event["detail"]):
                yield seen

    def _events(self) -> Iterator[Mapping[str, Any]]:
        while messages := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=PAGE).get("Messages"):
            yield from (json.loads(message["Body"]) for message in messages)
            handles = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)]
            self._sqs.delete_message_batch(QueueUrl=self._url, Entries=handles)

    def _take(self, seen: Sighting) -> Job:
        named = [job.job_id for job in self.jobs.values() if job.name == seen.name] if not seen.job_id else []
        job_id = seen.job_id or (named or [seen.name])[-1]
        known = self.jobs.setdefault(job_id, Job(job_id, seen.name, seen.index, seen.size, seen.family))
        known.take(seen)
        return known

    def _in_crowd(self, job: Job) -> bool:
        return bool(job.family) and job.family == self._crowd.name

    def _is_worth_a_line(self, job: Job) -> bool:
        if not self._in_crowd(job):
            return True
        again = any(other.name == job.name and other is not job for other in self.jobs.values())
        return job.ended and (again or job.status != SUCCEEDED)

    def _change(self, job: Job) -> Change:
        statuses = tuple(filter(None, (job.told, *job.news)))
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
