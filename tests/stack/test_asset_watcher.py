"""The ends of arrays start a DAG through EventBridge, SQS and a watcher in a triggerer: each is notified once."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from typing import Final

from airflow_jobflow.events.asset_stream import ASSET_EVENT_INTERVAL, VISIBILITY_TIMEOUT
from airflow_jobflow.local.samples import ARRAY_EVENTS
from tests.stack.errors import eventually
from tests.stack.kit import ENDED, STATE_PATIENCE, Kit

DAG: Final = "batch_array_event"
ASSET: Final = "print_color_ends"
NOTIFICATION: Final = re.compile(r"^Notification: .* \((\S+)\)$", re.MULTILINE)
PATIENCE: Final = 2 * (ASSET_EVENT_INTERVAL + STATE_PATIENCE)
"""Seconds in which an end is notified: an end right after another one is delayed, and so may be the run."""
TRIGGERERS: Final = (1, 2)


class Arrays:
    """Arrays that a test starts outside Airflow, and the notifications about them."""

    def __init__(self, kit: Kit) -> None:
        self._airflow = kit.airflow
        self._batch, self._sqs = kit.aws.client("batch"), kit.aws.client("sqs")
        self._queue = self._sqs.get_queue_url(QueueName=ARRAY_EVENTS)["QueueUrl"]
        self._copies = self._sqs.create_queue(QueueName=f"copies-{uuid.uuid4()}")["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self._copies, AttributeNames=["QueueArn"])["Attributes"]
        kit.aws.client("events").put_targets(Rule=ARRAY_EVENTS, Targets=[{"Id": "copies", "Arn": arn["QueueArn"]}])

    def start(self, definition: str = "print-color", size: int = 2) -> str:
        """Start an array, and return its id."""
        job = {"jobName": "array-event", "jobQueue": "print-color-queue", "jobDefinition": definition}
        return str(self._batch.submit_job(**job, arrayProperties={"size": size})["jobId"])

    def end(self, *job_ids: str) -> None:
        """Wait until all arrays have ended."""

        def all_ended() -> bool:
            jobs = self._batch.describe_jobs(jobs=list(job_ids))["jobs"]
            return all(job["status"] in ("SUCCEEDED", "FAILED") for job in jobs)

        eventually(all_ended, f"the end of {job_ids}")

    def deliver_again(self, job_id: str) -> None:
        """Send the message of an end once more, as SQS may do."""
        read = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 0}
        copies = self._sqs.receive_message(QueueUrl=self._copies, **read)["Messages"]
        [body] = [each["Body"] for each in copies if job_id in each["Body"]]
        self._sqs.send_message(QueueUrl=self._queue, MessageBody=body)

    def has_event(self, job_id: str) -> None:
        """Wait until Airflow has stored an asset event of its end."""
        eventually(lambda: job_id in self._events(), f"an asset event of {job_id}", PATIENCE)

    def are_notified_once(self, *job_ids: str) -> None:
        """Wait until all were notified and the queue is empty, and check that each had one event and notification."""
        what = f"a notification of each of {job_ids}"
        eventually(lambda: set(job_ids) <= set(self._notifications()), what, PATIENCE, every=2)
        eventually(lambda: not self._message_count, "an empty queue", 2 * VISIBILITY_TIMEOUT)
        told = self._events()
        eventually(lambda: sum(self._notifications().values()) >= sum(told.values()), "a notification of each event")
        eventually(lambda: set(self._airflow.runs(DAG).values()) <= set(ENDED), "the end of all runs")
        notified = self._notifications()
        assert {each: (told[each], notified[each]) for each in job_ids} == dict.fromkeys(job_ids, (1, 1))
        assert set(notified) == set(told)
        assert not [each for each in told if ":" in each], "a child was told of"

    @property
    def _message_count(self) -> int:
        """Return the number of messages in the queue, including hidden ones."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def _events(self) -> Counter[str]:
        """Return how often each array is in an asset event."""
        return Counter(job["job_id"] for payload in self._airflow.watcher_events(ASSET) for job in payload["jobs"])

    def _notifications(self) -> Counter[str]:
        """Return how often each array was notified, in all runs of the DAG."""
        return Counter(job_id for run_id in self._airflow.runs(DAG) for job_id in self._notified_by(run_id))

    def _notified_by(self, run_id: str) -> list[str]:
        notifying = [
            each
            for each in self._airflow.instances(DAG, run_id)
            if each["task_id"] == "notify_once" and each["state"] == "success" and each["map_index"] >= 0
        ]
        logs = [
            self._airflow.log(DAG, run_id, "notify_once", each["try_number"], each["map_index"]) for each in notifying
        ]
        return [job_id for log in logs for job_id in NOTIFICATION.findall(log)]


def test_every_array_is_notified_once(kit: Kit) -> None:
    """This includes failed ones, and those that end at the same time or are delivered twice, but no children."""
    arrays = Arrays(kit)
    first = arrays.start()
    arrays.has_event(first)
    arrays.deliver_again(first)
    arrays.are_notified_once(first, arrays.start("print-color-failing", 7), arrays.start(size=3))


def test_ends_while_no_triggerer_lives_are_notified_once(kit: Kit) -> None:
    """Messages wait in the queue; those that were fired before the triggerers died are not fired again."""
    arrays = Arrays(kit)
    before = arrays.start()
    arrays.are_notified_once(before)
    for number in TRIGGERERS:
        kit.stack.kill("triggerer", number)
    meanwhile = [arrays.start() for _ in range(2)]
    arrays.deliver_again(before)
    arrays.end(*meanwhile)
    kit.stack.repair()
    arrays.are_notified_once(before, *meanwhile)
