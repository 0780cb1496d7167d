"""Waits that are woken by events: from the end of a job through a rule and a queue to the trigger.

The waits here poll their jobs once in ten minutes, so an event ends them earlier.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow import watchers
from airflow_jobflow.aws import Access, run_blocking, service_client
from airflow_jobflow.events import wakeup_queue
from airflow_jobflow.events.eventbridge import EVENT_TYPES
from airflow_jobflow.events.sqs import SqsQueue
from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs.glue_crawl import Since, crawler_state, next_crawl
from airflow_jobflow.local import Faults, LocalAws
from airflow_jobflow.polling import wakeups
from airflow_jobflow.triggers.job import JobTrigger
from tests.local.glue_kit import GlueKit
from tests.local.glue_kit import until as until_open

TIMEOUT = 30.0
POLL_INTERVAL = 600.0
"""Seconds between two polls without events."""


class Inbox:
    """A queue that a rule fills with all events of jobs; its messages do not become visible again during a test."""

    def __init__(self, aws: LocalAws) -> None:
        self.sqs, rules = aws.client("sqs"), aws.client("events")
        name = f"wakeups-{uuid.uuid4().hex}"
        attributes = {"VisibilityTimeout": "600"}
        self.url: str = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        pattern = {
            "source": sorted({source for source, _ in EVENT_TYPES}),
            "detail-type": [kind for _, kind in EVENT_TYPES],
        }
        rules.put_rule(Name=name, EventPattern=json.dumps(pattern))
        rules.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": self._attribute("QueueArn")}])
        self._rules, self._name = rules, name

    def stop_receiving_events(self) -> None:
        """Remove the rule, so that events of other tests are not received."""
        self._rules.remove_targets(Rule=self._name, Ids=["1"])

    def send(self, body: str) -> None:
        """Send a message."""
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def is_empty(self) -> bool:
        """Return whether the queue has no message, neither visible nor in flight."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return all(self._attribute(name) == "0" for name in names)

    def receive(self) -> list[dict[str, Any]]:
        """Receive all messages that are visible now."""
        return list(self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages", []))

    def _attribute(self, name: str) -> str:
        return str(self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=[name])["Attributes"][name])


@pytest.fixture(autouse=True)
def short_receives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let receives be short, so that none outlasts its test."""
    monkeypatch.setattr(wakeups, "LONG_POLL", 2.0)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, here: Callable[[LocalAws], None]) -> Callable[[LocalAws, str], None]:
    """Return a function that sets the AWS and the event queue of this process."""

    def point(aws: LocalAws, url: str) -> None:
        here(aws)
        monkeypatch.setenv("AIRFLOW__JOBFLOW__EVENT_QUEUE_URL", url)

    return point


@pytest.fixture
def inbox(aws: LocalAws, use: Callable[[LocalAws, str], None]) -> Iterator[Inbox]:
    """A queue of events that this process uses."""
    queue = Inbox(aws)
    use(aws, queue.url)
    yield queue
    queue.stop_receiving_events()


@pytest.fixture
def glue(aws: LocalAws, eventually: Any) -> Iterator[GlueKit]:
    """Glue resources of the test's own."""
    kit = GlueKit(aws, eventually)
    yield kit
    kit.close()


def trigger(service: str, *job_ids: str, scope: str | None = None, **arguments: Any) -> JobTrigger:
    """Return a trigger that rarely polls, as in a triggerer."""
    arguments = {"aws_conn_id": None, "poll_interval": POLL_INTERVAL, **arguments}
    made = JobTrigger(service=service, job_ids=job_ids, scope=scope, **arguments)
    made._task_instance = object()  # the value does not matter
    return made


async def seen(waits: list[JobTrigger]) -> None:
    """Wait until each trigger has seen its jobs, and the queue is known to respond."""
    async with asyncio.timeout(TIMEOUT):
        while not all(wait._seen for wait in waits) or not all(  # noqa: ASYNC110 -- there is no event to wait for
            listener._is_receiving for listener in wakeup_queue._listeners.values()
        ):
            await asyncio.sleep(0.02)


async def ended(waits: list[JobTrigger], then: Callable[[], object]) -> list[dict[str, Any]]:
    """Let triggers wait, call a function when each has seen its jobs, and return their events."""
    tasks = [asyncio.create_task(wait.wait()) for wait in waits]
    await seen(waits)
    await asyncio.to_thread(then)
    async with asyncio.timeout(TIMEOUT):
        return list(await asyncio.gather(*tasks))


def states(events: list[dict[str, Any]]) -> list[str]:
    """Return the states of the jobs in events."""
    return [each["state"] for event in events for each in event["jobs"].values()]


def test_a_batch_job_ends_its_wait(kit: Any, gate: Path, inbox: Inbox, eventually: Any) -> None:
    """The queue is empty afterwards."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    kit.wait(job_id, "RUNNING")
    assert states(asyncio.run(ended([trigger("batch", job_id)], gate.touch))) == ["SUCCEEDED"]
    assert not wakeup_queue._listeners
    assert not watchers._watchers
    eventually(inbox.is_empty)


def test_children_and_their_array_end_their_waits(kit: Any, gate: Path, inbox: Inbox) -> None:
    """Twenty waits are ended by twenty events."""
    parent = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done", arrayProperties={"size": 20})
    waits = [trigger("batch", f"{parent}:{index}") for index in range(20)]
    assert states(asyncio.run(ended([trigger("batch", parent), *waits], gate.touch))) == ["SUCCEEDED"] * 21


@pytest.mark.parametrize("name", ["ARN", "id"])
def test_an_ecs_task_ends_its_wait(ecs_kit: Any, gate: Path, inbox: Inbox, name: str) -> None:
    """The task may be given by any of its names."""
    task = ecs_kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    ecs_kit.wait(task, "RUNNING")
    job_id = task if name == "ARN" else task.rpartition("/")[2]
    wait = trigger("ecs", job_id, scope=ecs_kit.cluster)
    [event] = asyncio.run(ended([wait], gate.touch))
    assert event["jobs"][job_id]["status"] == "STOPPED"


def test_a_glue_job_run_ends_its_wait(glue: GlueKit, gate: Path, inbox: Inbox) -> None:
    """Glue only sends events about its end."""
    name = glue.job(until_open(gate))
    run_id = glue.start(name)
    assert states(asyncio.run(ended([trigger("glue_run", run_id, scope=name)], gate.touch))) == ["SUCCEEDED"]


def test_a_glue_crawl_ends_its_wait(glue: GlueKit, inbox: Inbox) -> None:
    """The event has the name of the crawler, because crawls have none."""
    name = glue.crawler()
    client = service_client(Access(None), "glue")
    since: Since = run_blocking(client, next_crawl, name, run_blocking(client, crawler_state, name)[1])[0]
    wait = trigger("glue_crawl", str(since))
    assert states(asyncio.run(ended([wait], lambda: glue.glue.start_crawler(Name=name)))) == ["SUCCEEDED"]


def test_two_triggerers_can_share_a_queue(kit: Any, gate: Path, inbox: Inbox) -> None:
    """They have separate event loops, like processes; a message is released until the right one receives it."""
    waiting = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    ids = [kit.sh(waiting) for _ in range(4)]
    for job_id in ids:
        kit.wait(job_id, "RUNNING")
    heard: dict[int, list[dict[str, Any]]] = {}
    ready = threading.Barrier(3, timeout=TIMEOUT)

    def triggerer(number: int) -> None:
        # A message that the wrong triggerer receives three times is deleted, so polling must find the end soon.
        waits = [trigger("batch", job_id, poll_interval=5.0) for job_id in ids[number::2]]
        heard[number] = asyncio.run(ended(waits, ready.wait))

    threads = [threading.Thread(target=triggerer, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    ready.wait()
    gate.touch()
    for thread in threads:
        thread.join(TIMEOUT)
    assert [states(heard[number]) for number in range(2)] == [["SUCCEEDED"] * 2] * 2


def test_two_connections_of_one_triggerer_can_share_a_queue(
    kit: Any, gate: Path, inbox: Inbox, monkeypatch: Any
) -> None:
    """Each listener also wakes the jobs of the other connection, and waits for the same job of both."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection(endpoint_url=kit.aws.endpoint_url))
    ids = [kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done") for _ in range(3)]
    for job_id in ids:
        kit.wait(job_id, "RUNNING")
    waits = [trigger("batch", job_id, aws_conn_id=name) for job_id in ids for name in (None, "other")]
    assert states(asyncio.run(ended(waits, gate.touch))) == ["SUCCEEDED"] * 6


OTHER_MESSAGES = [
    "no JSON",
    "{}",
    "[" * 50_000,
    "x" * 262_144,
    json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": {}}),
    json.dumps({"source": "aws.batch", "detail-type": "Batch Job State Change", "detail": {"jobId": 7}}),
    json.dumps(
        {"source": "aws.batch", "detail-type": "Batch Job State Change", "detail": {"jobId": "long-ended", "new": {}}}
    ),
]


def test_other_messages_change_nothing(
    kit: Any, gate: Path, inbox: Inbox, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """They are deleted, and the log has one short line about them."""
    for body in OTHER_MESSAGES:
        inbox.send(body)
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")

    def go_on() -> None:
        eventually(inbox.is_empty)
        gate.touch()

    assert states(asyncio.run(ended([trigger("batch", job_id)], go_on))) == ["SUCCEEDED"]
    [line] = [record.getMessage() for record in caplog.records if "about no job" in record.getMessage()]
    assert len(line) < 500


def test_messages_received_after_the_last_wait_are_released(
    kit: Any, gate: Path, inbox: Inbox, eventually: Any
) -> None:
    """The next listener can receive them immediately."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    asyncio.run(ended([trigger("batch", job_id)], gate.touch))
    inbox.send("for somebody else")
    eventually(lambda: any(each["Body"] == "for somebody else" for each in inbox.receive()))


# Waits without a listener.


def test_a_task_that_waits_on_its_worker_receives_no_messages(own_kit: Any, use: Any, monkeypatch: Any) -> None:
    """They are for waits in a triggerer; the worker polls."""
    use(own_kit.aws, Inbox(own_kit.aws).url)
    wait = trigger("batch", own_kit.sh("true"), poll_interval=0.2)
    wait._task_instance = None
    assert states([asyncio.run(wait.wait())]) == ["SUCCEEDED"]
    assert own_kit.aws.calls["sqs.ReceiveMessage"] == 0


def test_without_a_queue_no_call_is_made(own_kit: Any, use: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged either."""
    use(own_kit.aws, "")
    assert states([asyncio.run(trigger("batch", own_kit.sh("true"), poll_interval=0.2).wait())]) == ["SUCCEEDED"]
    assert not any(name.startswith("sqs.") for name in own_kit.aws.calls)
    assert not [record for record in caplog.records if record.name.startswith("airflow_jobflow.polling")]


# The queue of a connection.


def connection(**extra: str) -> str:
    """Return a connection in the format of an environment variable."""
    return json.dumps(
        {
            "conn_type": "aws",
            "login": "its-key",
            "password": "its-secret",
            "extra": {"region_name": "us-east-1", **extra},
        }
    )


def test_the_queue_of_a_connection_takes_precedence(kit: Any, gate: Path, inbox: Inbox, monkeypatch: Any) -> None:
    """Each connection has its own jobs, and so its own queue."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__EVENT_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/1/not-this-one")
    extra = {wakeup_queue.EXTRA: inbox.url, "endpoint_url": kit.aws.endpoint_url}
    monkeypatch.setenv("AIRFLOW_CONN_WITH_A_QUEUE", connection(**extra))
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    wait = trigger("batch", job_id, aws_conn_id="with_a_queue")
    assert states(asyncio.run(ended([wait], gate.touch))) == ["SUCCEEDED"]


@pytest.mark.parametrize(
    ("extra", "setting", "url"),
    [
        ({}, "", None),
        ({}, " of-the-setting ", "of-the-setting"),
        ({wakeup_queue.EXTRA: "of-the-connection"}, "of-the-setting", "of-the-connection"),
        ({wakeup_queue.EXTRA: ""}, "of-the-setting", None),
    ],
)
def test_a_connection_can_have_a_queue_or_none(extra: Any, setting: str, url: str | None, monkeypatch: Any) -> None:
    """Without a value in the connection, the setting applies."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__EVENT_QUEUE_URL", setting)
    monkeypatch.setenv("AIRFLOW_CONN_SOME", connection(**extra))
    assert wakeup_queue.queue_url(Access("some")) == url


# Queues that cannot be read.


def bad_queue(aws: LocalAws, why: str) -> str:
    """Return the URL of a queue that cannot be read."""
    if why == "elsewhere":
        return str(aws.client("sqs", region_name="eu-west-1").create_queue(QueueName="elsewhere")["QueueUrl"])
    if why == "denied":
        aws.set_faults(Faults(denied=("sqs.*",)))
        return str(f"{aws.endpoint_url}/{aws.account_id}/denied")
    return {
        "missing": f"{aws.endpoint_url}/{aws.account_id}/missing",
        "no URL": "what is this",
        "another host": "http://[::1",
    }[why]


@pytest.mark.parametrize("why", ["missing", "elsewhere", "denied", "no URL", "another host"])
def test_an_unreadable_queue_is_logged_once_and_waits_continue(
    own_kit: Any, gate: Path, use: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They poll at their own interval."""
    caplog.set_level(logging.WARNING)
    use(own_kit.aws, bad_queue(own_kit.aws, why))
    job_id = own_kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if "Cannot receive" in record.getMessage()]

    def go_on() -> None:
        own_kit.eventually(lambda: own_kit.aws.calls["batch.DescribeJobs"] > 12 and said())
        gate.touch()

    async def scenario() -> dict[str, Any]:
        wait = asyncio.create_task(trigger("batch", job_id, poll_interval=0.2).wait())
        await asyncio.to_thread(go_on)
        async with asyncio.timeout(TIMEOUT):
            return await wait

    assert states([asyncio.run(scenario())]) == ["SUCCEEDED"]
    [line] = said()
    assert "in us-east-1" in line
    assert ("sqs:ReceiveMessage" if why == "denied" else "Check the queue's URL") in line


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("sqs.eu-west-1.amazonaws.com", "the queue is in eu-west-1, and the connection is for us-east-1"),
        ("eu-west-1.queue.amazonaws.com", "the queue is in eu-west-1, and the connection is for us-east-1"),
        ("sqs.us-east-1.amazonaws.com", "does not exist"),
        ("queue.amazonaws.com", "does not exist"),
    ],
)
def test_the_error_for_a_queue_in_another_region_names_it(
    aws: LocalAws, here: Callable[[LocalAws], None], host: str, words: str
) -> None:
    """AWS would only report that the queue does not exist."""
    here(aws)
    queue = SqsQueue(Access(None), f"https://{host}/123456789012/missing", ())
    with pytest.raises(CallError, match=words):
        asyncio.run(queue.receive(0))


# A queue that fails and recovers.


def test_a_recovered_queue_wakes_waits_again(own_kit: Any, gate: Path, use: Any, eventually: Any) -> None:
    """Meanwhile, jobs are polled at the intervals of their waits, and no wait fails."""
    inbox = Inbox(own_kit.aws)
    use(own_kit.aws, inbox.url)
    job_id = own_kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    calls: Callable[[], int] = lambda: own_kit.aws.calls["batch.DescribeJobs"]  # noqa: E731

    def come_and_go() -> None:
        own_kit.aws.set_faults(Faults(actions=("sqs.*",), drop_every=1))
        before = calls()
        eventually(lambda: calls() > before + 5)
        own_kit.aws.set_faults(Faults())
        eventually(lambda: all(listener._is_receiving for listener in wakeup_queue._listeners.values()))
        gate.touch()

    scenario: Coroutine[Any, Any, list[dict[str, Any]]] = ended(
        [trigger("batch", job_id, poll_interval=1.0)], come_and_go
    )
    assert states(asyncio.run(scenario)) == ["SUCCEEDED"]
