"""Errors about a queue, a message or a filter are clear, and waits and watchers continue.

This adds to ``test_wakeups`` and ``test_state_change``, whose fixtures it uses.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow.events import asset_stream
from airflow_jobflow.local import Faults
from airflow_jobflow.triggers.state_change import InvalidTriggerParameter, JobStateChangeTrigger
from tests.local import test_state_change as watching
from tests.local.test_state_change import ids, job_message, queue, running, supervisor
from tests.local.test_wakeups import Inbox, ended, inbox, short_receives, states, trigger, use

__all__ = ["inbox", "queue", "short_receives", "supervisor", "use"]

LONGEST = 262_144
"""The maximum length in bytes of an event in EventBridge."""


def padded(body: str) -> str:
    """Return an event of maximum length, with an unknown member."""
    event = json.loads(body)
    event["detail"]["inventedTomorrow"] = [{"x": None}]
    event["detail"]["more"] = "x" * (LONGEST - len(json.dumps(event)) - len(', "more": ""'))
    assert len(json.dumps(event)) == LONGEST
    return json.dumps(event)


def until(gate: Path) -> str:
    """Return a script that ends when a file exists."""
    return f"while [ ! -e {gate} ]; do sleep 0.02; done"


def end_unseen(kit: Any, inbox: Inbox, job_id: str, gate: Path) -> None:
    """Let a job end without an event."""
    inbox.stop_receiving_events()
    gate.touch()
    kit.wait(job_id)


# Messages in the queue of waits.


def test_an_event_of_maximum_length_with_unknown_members_wakes_its_wait(
    kit: Any, gate: Path, inbox: Inbox, eventually: Any
) -> None:
    """The message is deleted."""
    job_id = kit.sh(until(gate))

    def tell() -> None:
        end_unseen(kit, inbox, job_id, gate)
        inbox.send(padded(job_message(job_id)))

    assert states(asyncio.run(ended([trigger("batch", job_id)], tell))) == ["SUCCEEDED"]
    eventually(inbox.is_empty)


def test_false_doubled_and_reordered_events_change_nothing(kit: Any, gate: Path, inbox: Inbox, eventually: Any) -> None:
    """A wait ends by the described state: here, the events of a running job say twice that it failed, and then that it
    waits.
    """
    job_id = kit.sh(until(gate))
    kit.wait(job_id, "RUNNING")

    def lie() -> None:
        for status in ("FAILED", "FAILED", "SUCCEEDED", "RUNNABLE"):
            inbox.send(job_message(job_id, status, event_id="the same"))
        eventually(inbox.is_empty)
        gate.touch()

    assert states(asyncio.run(ended([trigger("batch", job_id)], lie))) == ["SUCCEEDED"]


def test_an_end_without_an_event_is_found_at_event_poll_interval(
    kit: Any, gate: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the default of 300 s, this test would time out."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__EVENT_POLL_INTERVAL", "1")
    job_id = kit.sh(until(gate))
    wait = trigger("batch", job_id, poll_interval=0.2)
    assert states(asyncio.run(ended([wait], lambda: end_unseen(kit, inbox, job_id, gate)))) == ["SUCCEEDED"]


def test_messages_are_received_ten_at_a_time(own_kit: Any, gate: Path, use: Any) -> None:
    """With a call for each, the listener would fall behind at the end of an array of ten thousand."""
    inbox = Inbox(own_kit.aws)
    use(own_kit.aws, inbox.url)
    inbox.stop_receiving_events()
    for number in range(40):
        inbox.send(f"rubbish {number}")
    job_id = own_kit.sh(until(gate))

    def drain() -> None:
        own_kit.eventually(inbox.is_empty)
        calls = own_kit.aws.calls
        assert (calls["sqs.DeleteMessageBatch"], calls["sqs.ReceiveMessage"] < 10) == (4, True)
        gate.touch()
        own_kit.wait(job_id)
        inbox.send(job_message(job_id))

    assert states(asyncio.run(ended([trigger("batch", job_id)], drain))) == ["SUCCEEDED"]


def test_messages_that_may_not_be_deleted_still_wake_waits(
    own_kit: Any, gate: Path, use: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The missing permission is logged once."""
    inbox = Inbox(own_kit.aws)
    use(own_kit.aws, inbox.url)
    own_kit.aws.set_faults(Faults(denied=("sqs.DeleteMessageBatch",)))
    first, second = (own_kit.sh(until(gate)) for _ in range(2))
    waits = [trigger("batch", job_id) for job_id in (first, second)]
    assert states(asyncio.run(ended(waits, gate.touch))) == ["SUCCEEDED"] * 2
    [line] = [each.getMessage() for each in caplog.records if "but not delete" in each.getMessage()]
    assert inbox.url in line
    assert "sqs:DeleteMessage" in line


def test_a_queue_that_is_deleted_is_logged_once_and_waits_continue(
    own_kit: Any, gate: Path, use: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """They poll at their own interval."""
    caplog.set_level(logging.WARNING)
    inbox = Inbox(own_kit.aws)
    use(own_kit.aws, inbox.url)
    job_id = own_kit.sh(until(gate))

    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if "Cannot receive" in each.getMessage()]

    def delete() -> None:
        inbox.stop_receiving_events()
        inbox.sqs.delete_queue(QueueUrl=inbox.url)
        own_kit.eventually(said)
        gate.touch()

    assert states(asyncio.run(ended([trigger("batch", job_id, poll_interval=0.5)], delete))) == ["SUCCEEDED"]
    [line] = said()
    assert inbox.url in line
    assert "does not exist" in line


# Messages for asset watchers, and their filters.


def test_an_asset_watcher_receives_the_longest_event(queue: watching.Queue, supervisor: watching.Supervisor) -> None:
    """The payload contains only the documented members."""
    queue.send(padded(job_message("a")))

    async def scenario() -> None:
        async with running(queue.trigger(**watching.ENDS)) as triggerer:
            await watching.eventually(triggerer.store)
            [(_, job)] = triggerer.stored
            assert (job["job_id"], len(json.dumps(job)) < 2000) == ("a", True)
            await watching.eventually(lambda: queue.message_count == 0)

    asyncio.run(scenario())


def test_messages_wait_in_the_queue_while_a_watcher_is_full(
    queue: watching.Queue, supervisor: watching.Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher whose queue in the triggerer overflows would fail, so batches come one after the other."""
    monkeypatch.setattr(asset_stream, "ASSET_EVENT_INTERVAL", 0.1)
    monkeypatch.setattr(asset_stream, "MAX_BATCH", 10)
    monkeypatch.setenv("AIRFLOW__TRIGGERER__SHARED_STREAM_SUBSCRIBER_QUEUE_SIZE", "1")
    queue.send(*(job_message(f"{number:02}") for number in range(50)))

    async def scenario() -> None:
        async with running(queue.trigger(**watching.ENDS)) as triggerer:
            await watching.eventually(lambda: len(triggerer.store()) == 50)
            await watching.eventually(lambda: queue.message_count == 0)
            assert ids(triggerer.stored) == [f"{number:02}" for number in range(50)]
            assert not triggerer.has_ended(0)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"array": "parents", "status": "RUNNING"}, "status='RUNNING': no event would ever match"),
        ({"job_name": "{{ var.value.name }}"}, "job_name='{{ var.value.name }}': no name would ever match it"),
        ({"job_queue": "{{ params.queue }}"}, "templates are not rendered here"),
        ({"job_definition": "arn:aws:batch:us-east-1:1:job-queue/q"}, "it is no ARN of a job-definition"),
        ({"job_queue": "arn:aws:batch:us-east-1:1:job-definition/d"}, "it is no ARN of a job-queue or a cluster"),
        ({"job_name": "arn:aws:batch:us-east-1:1:job/a"}, "it is an ARN, not a name"),
        ({"service": "glue"}, "service='glue': must be one of batch, ecs, glue_run, glue_crawl"),
        ({"status": "DONE"}, "status='DONE': no event would ever match it"),
        ({"status": "FAIL*"}, "status='FAIL*': no event would ever match it"),
        ({"array": "parent"}, "array='parent': must be one of all, parents, children"),
    ],
)
def test_a_filter_that_can_never_match_is_an_import_error_of_the_dag(arguments: dict[str, Any], words: str) -> None:
    """It would wait forever without an error."""
    with pytest.raises(InvalidTriggerParameter) as refused:
        JobStateChangeTrigger(queue_url="https://sqs.us-east-1.amazonaws.com/1/q", **arguments)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"array": "parents", "status": ["PENDING", "SUCCEEDED", "failed"]},
        {"array": "children", "status": "RUNNING"},
        {
            "job_queue": [
                "arn:aws:batch:us-east-1:1:job-queue/q",
                "arn:aws:ecs:us-east-1:1:cluster/c",
                "arn:aws:batch:*",
            ]
        },
        {"job_definition": "arn:aws-cn:ecs:cn-north-1:1:task-definition/d"},
        {"job_name": "load {daily}", "service": "glue_run"},
    ],
)
def test_a_filter_that_can_match_is_accepted(arguments: dict[str, Any]) -> None:
    """It is not mistaken for one that cannot."""
    assert JobStateChangeTrigger(queue_url="https://sqs.us-east-1.amazonaws.com/1/q", **arguments)
