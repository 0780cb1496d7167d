"""Errors about a queue, a message or a filter are clear, and the waits and watchers go on.

Beside what ``test_wakeups`` and ``test_state_change`` hold, whose fixtures these stand on.
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
"""Bytes of the longest event that EventBridge delivers."""


def filled(body: str) -> str:
    """An event as long as they come, by a member that nobody knows."""
    event = json.loads(body)
    event["detail"]["inventedTomorrow"] = [{"x": None}]
    event["detail"]["more"] = "x" * (LONGEST - len(json.dumps(event)) - len(', "more": ""'))
    assert len(json.dumps(event)) == LONGEST
    return json.dumps(event)


def until(gate: Path) -> str:
    """A script that ends when a file is there."""
    return f"while [ ! -e {gate} ]; do sleep 0.02; done"


def end_unseen(kit: Any, inbox: Inbox, job_id: str, gate: Path) -> None:
    """Let a job end without an event."""
    inbox.fill_no_more()
    gate.touch()
    kit.wait(job_id)


# Messages to the waits' queue


def test_an_event_as_long_as_they_come_with_members_that_nobody_knows_wakes_its_wait(
    kit: Any, gate: Path, inbox: Inbox, eventually: Any
) -> None:
    """And is deleted."""
    job_id = kit.sh(until(gate))

    def tell() -> None:
        end_unseen(kit, inbox, job_id, gate)
        inbox.send(filled(job_message(job_id)))

    assert states(asyncio.run(ended([trigger("batch", job_id)], tell))) == ["SUCCEEDED"]
    eventually(inbox.is_empty)


def test_false_doubled_and_reordered_events_change_nothing(kit: Any, gate: Path, inbox: Inbox, eventually: Any) -> None:
    """A wait ends by what is described: here of a job that runs, and is said to have failed, twice, and to wait."""
    job_id = kit.sh(until(gate))
    kit.wait(job_id, "RUNNING")

    def lie() -> None:
        for status in ("FAILED", "FAILED", "SUCCEEDED", "RUNNABLE"):
            inbox.send(job_message(job_id, status, event_id="the same"))
        eventually(inbox.is_empty)
        gate.touch()

    assert states(asyncio.run(ended([trigger("batch", job_id)], lie))) == ["SUCCEEDED"]


def test_an_end_without_an_event_is_found_at_the_interval_of_the_setting(
    kit: Any, gate: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``event_poll_interval``; by its default of 300 s this would take longer than a test has patience."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__EVENT_POLL_INTERVAL", "1")
    job_id = kit.sh(until(gate))
    wait = trigger("batch", job_id, poll_interval=0.2)
    assert states(asyncio.run(ended([wait], lambda: end_unseen(kit, inbox, job_id, gate)))) == ["SUCCEEDED"]


def test_messages_are_received_ten_at_a_time(own_kit: Any, gate: Path, use: Any) -> None:
    """A call for each would fall behind at the end of an array of ten thousand."""
    inbox = Inbox(own_kit.aws)
    use(own_kit.aws, inbox.url)
    inbox.fill_no_more()
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


def test_waits_are_woken_also_by_messages_that_may_not_be_deleted(
    own_kit: Any, gate: Path, use: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """That is said once, with the permission that is missing."""
    inbox = Inbox(own_kit.aws)
    use(own_kit.aws, inbox.url)
    own_kit.aws.set_faults(Faults(denied=("sqs.DeleteMessageBatch",)))
    first, second = (own_kit.sh(until(gate)) for _ in range(2))
    waits = [trigger("batch", job_id) for job_id in (first, second)]
    assert states(asyncio.run(ended(waits, gate.touch))) == ["SUCCEEDED"] * 2
    [line] = [each.getMessage() for each in caplog.records if "but not delete" in each.getMessage()]
    assert inbox.url in line
    assert "sqs:DeleteMessage" in line


def test_a_queue_that_is_deleted_meanwhile_is_said_once_and_the_waits_go_on(
    own_kit: Any, gate: Path, use: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """At their own pace."""
    caplog.set_level(logging.WARNING)
    inbox = Inbox(own_kit.aws)
    use(own_kit.aws, inbox.url)
    job_id = own_kit.sh(until(gate))

    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if "Cannot receive" in each.getMessage()]

    def delete() -> None:
        inbox.fill_no_more()
        inbox.sqs.delete_queue(QueueUrl=inbox.url)
        own_kit.eventually(said)
        gate.touch()

    assert states(asyncio.run(ended([trigger("batch", job_id, poll_interval=0.5)], delete))) == ["SUCCEEDED"]
    [line] = said()
    assert inbox.url in line
    assert "does not exist" in line


# Messages to asset watchers, and their filters


def test_an_asset_watcher_receives_the_longest_event(queue: watching.Queue, supervisor: watching.Supervisor) -> None:
    """And of no more of it than is documented."""
    queue.send(filled(job_message("a")))

    async def story() -> None:
        async with running(queue.trigger(**watching.ENDS)) as triggerer:
            await watching.eventually(triggerer.store)
            [(_, job)] = triggerer.stored
            assert (job["job_id"], len(json.dumps(job)) < 2000) == ("a", True)
            await watching.eventually(lambda: queue.left == 0)

    asyncio.run(story())


def test_more_messages_than_a_watcher_has_room_for_wait_in_the_queue(
    queue: watching.Queue, supervisor: watching.Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher whose queue in the triggerer overflows is given up: one batch after the other, it cannot."""
    monkeypatch.setattr(asset_stream, "ASSET_EVENT_INTERVAL", 0.1)
    monkeypatch.setattr(asset_stream, "MAX_BATCH", 10)
    monkeypatch.setenv("AIRFLOW__TRIGGERER__SHARED_STREAM_SUBSCRIBER_QUEUE_SIZE", "1")
    queue.send(*(job_message(f"{number:02}") for number in range(50)))

    async def story() -> None:
        async with running(queue.trigger(**watching.ENDS)) as triggerer:
            await watching.eventually(lambda: len(triggerer.store()) == 50)
            await watching.eventually(lambda: queue.left == 0)
            assert ids(triggerer.stored) == [f"{number:02}" for number in range(50)]
            assert not triggerer.has_ended(0)

    asyncio.run(story())


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
    """It would wait for ever, and nobody would know."""
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
def test_a_filter_that_can_match_is_not_refused(arguments: dict[str, Any]) -> None:
    """Nor taken for one that cannot."""
    assert JobStateChangeTrigger(queue_url="https://sqs.us-east-1.amazonaws.com/1/q", **arguments)
