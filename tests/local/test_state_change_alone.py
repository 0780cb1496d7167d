"""An asset watcher that reads its queue alone, as before Airflow 3.3, which shares streams. Runs with every Airflow."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow.airflow_compat import shared_streams
from airflow_jobflow.events import asset_stream
from airflow_jobflow.triggers.state_change import JobStateChangeTrigger


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """An Airflow without shared streams, whose asset events count as stored when this event is set."""
    event = asyncio.Event()

    async def until_stored() -> None:
        await event.wait()

    monkeypatch.setattr(shared_streams, "AVAILABLE", False)
    monkeypatch.setattr(shared_streams, "_until_stored", until_stored)
    monkeypatch.setattr(asset_stream, "ASSET_EVENT_INTERVAL", 0.0)
    monkeypatch.setattr(asset_stream, "LONG_POLL", 1)
    return event


class Queue:
    """An SQS queue."""

    def __init__(self, aws: Any) -> None:
        self._sqs = aws.client("sqs")
        self.url = self._sqs.create_queue(QueueName=f"alone-{uuid.uuid4().hex}")["QueueUrl"]

    def send(self, job_id: str, status: str = "SUCCEEDED") -> None:
        """Send a state change of a Batch job, like EventBridge."""
        detail = {"jobId": job_id, "jobName": "name", "status": status}
        event = {
            "id": str(uuid.uuid4()),
            "source": "aws.batch",
            "detail-type": "Batch Job State Change",
            "detail": detail,
        }
        self._sqs.send_message(QueueUrl=self.url, MessageBody=json.dumps(event))

    @property
    def message_count(self) -> int:
        """Return the number of messages in the queue, including hidden ones."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def trigger(self) -> JobStateChangeTrigger:
        """Return a watcher of jobs that have succeeded."""
        return JobStateChangeTrigger(queue_url=self.url, aws_conn_id=None, status="SUCCEEDED")


@pytest.fixture
def queue(aws: Any, here: Callable[[Any], None]) -> Queue:
    """A queue of the test's own."""
    here(aws)
    return Queue(aws)


def jobs(event: Any) -> list[str]:
    """Return the jobs in an event."""
    return [job["job_id"] for job in event.payload["jobs"]]


def test_a_message_is_deleted_only_after_airflow_has_had_the_time_to_store_the_event(
    queue: Queue, stored: asyncio.Event, eventually: Any
) -> None:
    """If a triggerer dies before, the next one receives the message, and fires its event again."""
    queue.send("a")

    async def scenario() -> None:
        dying = queue.trigger().run()
        assert jobs(await anext(dying)) == ["a"]
        waiting = asyncio.ensure_future(anext(dying))
        await asyncio.sleep(0)
        assert queue.message_count == 1
        stored.set()
        await asyncio.to_thread(eventually, lambda: queue.message_count == 0)
        queue.send("b")
        assert jobs(await waiting) == ["b"]
        await dying.aclose()  # type: ignore[attr-defined]

    asyncio.run(scenario())


def test_unwanted_messages_are_deleted_and_others_fired(queue: Queue, stored: asyncio.Event, eventually: Any) -> None:
    """No other watcher uses the queue."""
    stored.set()
    queue.send("bad", "FAILED")
    queue.send("good")

    async def scenario() -> None:
        running = queue.trigger().run()
        assert jobs(await anext(running)) == ["good"]
        waiting = asyncio.ensure_future(anext(running))
        await asyncio.to_thread(eventually, lambda: queue.message_count == 0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(scenario())
