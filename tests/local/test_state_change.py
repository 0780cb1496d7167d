"""Asset watchers on a queue of state changes: the events that a DAG receives, and when a message is deleted.

The triggerer is Airflow's own trigger runner without its supervisor: events count as stored when a test says so.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import AssetStateStoreResult, GetAssetStateStoreByName, SetAssetStateStoreByName
from airflow.sdk.execution_time.context import AssetStateStoreAccessors
from airflow.serialization.encoders import encode_trigger
from airflow.triggers.base import BaseEventTrigger

from airflow_jobflow.events import asset_stream
from airflow_jobflow.local import Faults
from airflow_jobflow.triggers.state_change import (
    HISTORY_KEY,
    MAX_HISTORY,
    InvalidTriggerParameter,
    JobStateChangeTrigger,
)

TIMEOUT = 30.0
ENDS = {"status": ["SUCCEEDED", "FAILED"]}
PARENTS = {**ENDS, "array": "parents"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the durations of the queue."""
    monkeypatch.setattr(asset_stream, "ASSET_EVENT_INTERVAL", 0.1)
    monkeypatch.setattr(asset_stream, "LONG_POLL", 1)
    monkeypatch.setattr(asset_stream, "VISIBILITY_TIMEOUT", 2)


class Supervisor:
    """The state stores of assets, as the triggerer's supervisor provides them."""

    def __init__(self) -> None:
        self.stores: dict[str, dict[str, Any]] = {}
        self.broken = False

    def send(self, message: Any) -> Any:
        """Answer a request."""
        if self.broken:
            raise ConnectionError("no API server")
        store = self.stores.setdefault(message.name, {})
        if isinstance(message, SetAssetStateStoreByName):
            store[message.key] = message.value
        elif isinstance(message, GetAssetStateStoreByName) and message.key in store:
            return AssetStateStoreResult(value=store[message.key])
        return None


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """The state that outlives a triggerer."""
    found = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", found, raising=False)
    return found


class Triggerer:
    """Airflow's trigger runner."""

    def __init__(self) -> None:
        self.runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.stored: list[tuple[int, dict[str, Any]]] = []
        """The stored asset events: the watcher and the job of each."""
        self.events = 0
        self._tasks: list[asyncio.Task[None]] = []

    def watch(self, *triggers: JobStateChangeTrigger, assets: tuple[str, ...] = ()) -> None:
        """Run triggers like those of asset watchers: created from their arguments, each with its assets."""
        for trigger in triggers:
            number = len(self._tasks)
            again = JobStateChangeTrigger(**json.loads(json.dumps(trigger.serialize()[1])))
            inlets = [Asset(name=name) for name in assets or (f"asset-{number}",)]
            again.asset_state_store = AssetStateStoreAccessors(inlets=inlets)
            task = asyncio.create_task(self.runner.run_trigger(number, again))
            self.runner.triggers[number] = {"task": task, "is_watcher": True, "name": str(number), "events": 0}
            self._tasks.append(task)

    @property
    def fired(self) -> list[tuple[int, dict[str, Any]]]:
        """Return the events that were fired and are not stored."""
        return [(each.trigger_id, job) for each in self.runner.events for job in each.event.payload["jobs"]]

    def store(self, *, lost_of: int | None = None) -> list[tuple[int, dict[str, Any]]]:
        """Store fired events, and report that to the triggers; return all events stored so far.

        :param lost_of: the watcher whose events are lost before they are stored.
        """
        stored = [each for each in self.runner.events if each.trigger_id != lost_of]
        self.stored += [each for each in self.fired if each[0] != lost_of]
        self.events += len(stored)
        self.runner.events.clear()
        self.runner._shared_streams.confirm_persisted([each.persist_seq for each in stored])
        return self.stored

    def has_ended(self, number: int) -> bool:
        """Return whether a trigger has ended; Airflow would create it again."""
        return self._tasks[number].done()

    async def stop(self) -> None:
        """End the triggerer; fired events that are not stored are lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.runner._shared_streams.stop_all()


@asynccontextmanager
async def running(*triggers: JobStateChangeTrigger, assets: tuple[str, ...] = ()) -> AsyncIterator[Triggerer]:
    """A triggerer that runs these watchers."""
    triggerer = Triggerer()
    triggerer.watch(*triggers, assets=assets)
    try:
        yield triggerer
    finally:
        await triggerer.stop()


async def eventually(check: Callable[[], Any]) -> Any:
    """Call a function until its result is true, and return it."""
    async with asyncio.timeout(TIMEOUT):
        while not (result := check()):  # noqa: ASYNC110 -- there is no event to wait for
            await asyncio.sleep(0.02)
    return result


class Queue:
    """A queue of the test's own."""

    def __init__(self, aws: Any) -> None:
        self.aws = aws
        self._sqs, self._rules = aws.client("sqs"), aws.client("events")
        self.url = f"{aws.endpoint_url}/{aws.account_id}/{self.name}"

    name = "none"

    @classmethod
    def created(cls, aws: Any) -> Queue:
        """Return an existing queue."""
        queue = cls(aws)
        queue.name = f"ends-{uuid.uuid4().hex}"
        queue.create()
        return queue

    def create(self) -> None:
        """Create the queue."""
        self.url = self._sqs.create_queue(QueueName=self.name)["QueueUrl"]

    def receive_events(self, pattern: dict[str, Any]) -> None:
        """Let a rule of EventBridge send events to the queue."""
        arn = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self._rules.put_rule(Name=self.name, EventPattern=json.dumps(pattern))
        self._rules.put_targets(Rule=self.name, Targets=[{"Id": "1", "Arn": arn}])

    def stop_receiving_events(self) -> None:
        """Remove the rule, so that events of other tests are not received."""
        for rule in self._rules.list_rules(NamePrefix=self.name)["Rules"]:
            self._rules.remove_targets(Rule=rule["Name"], Ids=["1"])
            self._rules.delete_rule(Name=rule["Name"])

    def send(self, *bodies: str) -> None:
        """Put messages into it."""
        for body in bodies:
            self._sqs.send_message(QueueUrl=self.url, MessageBody=body)

    @property
    def message_count(self) -> int:
        """Return the number of messages in the queue, including hidden ones."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def trigger(self, **filters: Any) -> JobStateChangeTrigger:
        """Return a watcher of the queue."""
        return JobStateChangeTrigger(**{"queue_url": self.url, "aws_conn_id": None, **filters})


@pytest.fixture
def queue(aws: Any, here: Callable[[Any], None]) -> Iterator[Queue]:
    """A queue of the test's own."""
    here(aws)
    created = Queue.created(aws)
    yield created
    created.stop_receiving_events()


def job_message(job_id: str, status: str = "SUCCEEDED", event_id: str | None = None, **more: Any) -> str:
    """Return a message about a Batch job."""
    detail = {"jobId": job_id, "jobName": "name", "status": status, **more}
    return json.dumps(
        {
            "id": event_id or str(uuid.uuid4()),
            "source": "aws.batch",
            "detail-type": "Batch Job State Change",
            "detail": detail,
        }
    )


def ids(told_of: list[tuple[int, dict[str, Any]]]) -> list[str]:
    """Return the ids of the jobs."""
    return sorted(job["job_id"] for _, job in told_of)


def test_an_array_of_seven_fires_one_event(kit: Any, queue: Queue, supervisor: Supervisor) -> None:
    """The events come from a real job through EventBridge and SQS; unwanted messages are deleted too."""
    arn = kit.batch.describe_job_queues(jobQueues=[kit.queue])["jobQueues"][0]["jobQueueArn"]
    queue.receive_events({"source": ["aws.batch"], "detail": {"jobQueue": [arn]}})

    async def scenario() -> list[tuple[int, dict[str, Any]]]:
        async with running(queue.trigger(job_queue=kit.queue, **PARENTS)) as triggerer:
            parent = kit.submit(["sh", "-c", 'test "$AWS_BATCH_JOB_ARRAY_INDEX" != 3'], arrayProperties={"size": 7})
            await eventually(triggerer.store)
            await asyncio.to_thread(kit.wait, parent)
            await eventually(lambda: queue.message_count == 0)
            assert ids(triggerer.store()) == [parent]
            return triggerer.stored

    [(_, job)] = asyncio.run(scenario())
    assert (job["state"], job["array"]) == ("FAILED", {"size": 7, "succeeded": 6, "failed": 1})
    assert job["queue"] == arn


def test_watchers_of_a_queue_share_one_stream(queue: Queue, supervisor: Supervisor) -> None:
    """A message that one filter rejects may match another; one that none matches is deleted."""
    queue.send(job_message("good"), job_message("bad", "FAILED"), job_message("runs", "RUNNING"))

    async def scenario() -> None:
        watchers = [queue.trigger(status=status) for status in ("FAILED", "SUCCEEDED", ["SUCCEEDED", "FAILED"])]
        async with running(*watchers) as triggerer:
            await eventually(lambda: len(triggerer.store()) == 4)
            await eventually(lambda: queue.message_count == 0)
            assert len(triggerer.runner._shared_streams._groups) == 1
            found = sorted((number, job["job_id"]) for number, job in triggerer.stored)
            assert found == [(0, "bad"), (1, "good"), (2, "bad"), (2, "good")]

    asyncio.run(scenario())


def test_a_message_is_deleted_only_after_airflow_has_stored_its_event(queue: Queue, supervisor: Supervisor) -> None:
    """If a triggerer dies before, another one receives the message, and fires its event once."""
    queue.send(job_message("a"))

    async def scenario() -> None:
        async with running(queue.trigger(**ENDS)) as dying:
            await eventually(lambda: dying.fired)
            assert queue.message_count == 1
        assert supervisor.stores == {"asset-0": {}}
        async with running(queue.trigger(**ENDS)) as next_one:
            await eventually(next_one.store)
            await eventually(lambda: queue.message_count == 0)
            assert ids(next_one.stored) == ["a"]
        assert len(supervisor.stores["asset-0"][HISTORY_KEY]) == 1

    asyncio.run(scenario())


def test_an_event_that_one_watcher_could_not_store_is_not_fired_again_by_others(
    queue: Queue, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow fails that watcher, and creates it again; the message is delivered to both once more."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__SHARED_STREAM_ACK_TIMEOUT", "1")
    queue.send(job_message("a"))

    async def scenario() -> None:
        watchers = [queue.trigger(**ENDS), queue.trigger(status="SUCCEEDED")]
        async with running(*watchers) as triggerer:
            await eventually(lambda: len(triggerer.fired) == 2)
            assert [number for number, _ in triggerer.store(lost_of=1)] == [0]
            await eventually(lambda: triggerer.has_ended(1))
            assert queue.message_count == 1
            triggerer.watch(watchers[1], assets=("asset-1",))
            await eventually(lambda: len(triggerer.store()) == 2)
            await eventually(lambda: queue.message_count == 0)
            assert [number for number, _ in triggerer.stored] == [0, 2]

    asyncio.run(scenario())


def test_an_event_that_is_not_stored_yet_is_not_fired_again(queue: Queue, supervisor: Supervisor) -> None:
    """SQS delivers its message again meanwhile, which is then deleted with the latest receipt."""
    queue.send(job_message("a"))

    async def scenario() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(lambda: triggerer.fired)
            received = queue.aws.calls["sqs.ReceiveMessage"]
            await asyncio.sleep(asset_stream.VISIBILITY_TIMEOUT)
            await eventually(lambda: queue.aws.calls["sqs.ReceiveMessage"] > received + 2)
            assert ids(triggerer.store()) == ["a"]
            await eventually(lambda: queue.message_count == 0)
            assert triggerer.fired == []

    asyncio.run(scenario())


def test_an_end_that_is_delivered_twice_is_fired_once(queue: Queue, supervisor: Supervisor) -> None:
    """The duplicates are in one batch, later, with another event id, and in another triggerer, which knows it from the
    store.
    """
    queue.send(job_message("a", event_id="1"), job_message("a", event_id="1"), job_message("b"))

    async def scenario() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(lambda: ids(triggerer.store()) == ["a", "b"])
            await eventually(lambda: queue.message_count == 0)
            queue.send(job_message("a", event_id="2"))
            await eventually(lambda: queue.message_count == 0)
            assert ids(triggerer.store()) == ["a", "b"]
        queue.send(job_message("b"), job_message("a", event_id="1"), job_message("c"))
        async with running(queue.trigger(**ENDS)) as another:
            await eventually(another.store)
            await eventually(lambda: queue.message_count == 0)
            assert ids(another.store()) == ["c"]

    asyncio.run(scenario())


def test_a_change_that_happens_twice_is_fired_twice(queue: Queue, supervisor: Supervisor) -> None:
    """A retried job runs again."""
    queue.send(
        job_message("a", "RUNNING"),
        job_message("a", "RUNNABLE"),
        job_message("a", "RUNNING"),
    )

    async def scenario() -> None:
        async with running(queue.trigger(status="RUNNING")) as triggerer:
            await eventually(lambda: ids(triggerer.store()) == ["a", "a"])

    asyncio.run(scenario())


def test_a_failing_store_loses_no_event(queue: Queue, supervisor: Supervisor, caplog: pytest.LogCaptureFixture) -> None:
    """The stream continues for all watchers."""
    supervisor.broken = True

    async def scenario() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            for job_id in ("a", "b"):
                queue.send(job_message(job_id))
                await eventually(lambda: job_id in ids(triggerer.store()))  # noqa: B023 -- called before the next
            await eventually(lambda: queue.message_count == 0)

    asyncio.run(scenario())
    assert "duplicate asset events are possible" in caplog.text


def test_a_trigger_that_several_assets_share_has_a_history(queue: Queue, supervisor: Supervisor) -> None:
    """Airflow creates one trigger for equal watchers, and has no store for the trigger itself."""

    async def scenario() -> None:
        for found in (["a"], []):
            queue.send(job_message("a"))
            async with running(queue.trigger(**ENDS), assets=("one", "two")) as triggerer:
                await eventually(lambda: triggerer.store() is not None and queue.message_count == 0)
                assert ids(triggerer.stored) == found

    asyncio.run(scenario())


def test_the_history_in_the_store_is_limited() -> None:
    """Old messages are not delivered again."""
    trigger = JobStateChangeTrigger(queue_url="https://sqs/q")
    digests = [f"{number:016x}" for number in range(MAX_HISTORY + 5)]
    asyncio.run(trigger.save_history(digests))
    assert list(trigger._stored) == digests[5:]
    assert len(json.dumps(list(trigger._stored))) < 65_535


def test_ends_within_a_short_time_share_an_asset_event(
    queue: Queue, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.3 creates no run for an asset event while the previous one still waits for its run."""
    monkeypatch.setattr(asset_stream, "ASSET_EVENT_INTERVAL", 3.0)

    async def scenario() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            queue.send(*(job_message(f"unwanted {number}", "RUNNING") for number in range(3)))
            await eventually(lambda: queue.message_count == 0)
            queue.send(job_message("first"))
            await eventually(triggerer.store)
            for number in range(12):
                queue.send(job_message(f"{number:02}"))
            await eventually(lambda: len(triggerer.store()) == 13)
            assert triggerer.events == 2

    asyncio.run(scenario())


def test_a_message_that_is_not_a_state_change_is_deleted_and_logged_once(
    queue: Queue, supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """The log line is short; later messages are handled as usual."""
    queue.send(
        "x" * 200_000,
        "{}",
        job_message("", "SUCCEEDED", jobName=7),
        job_message("a", unknown={"field": ["x"] * 10_000}),
    )

    async def scenario() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(lambda: ids(triggerer.store()) == ["a"])
            await eventually(lambda: queue.message_count == 0)

    asyncio.run(scenario())
    [line] = [record.message for record in caplog.records if "is not a job state change" in record.message]
    assert len(line) < 600


WARNING = "Cannot receive job state changes"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about a queue that cannot be read."""
    return [record.message for record in caplog.records if WARNING in record.message]


def test_a_missing_queue_is_waited_for(
    aws: Any, here: Callable[[Any], None], supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning is logged; the watcher continues as soon as the queue exists."""
    here(aws)
    queue = Queue(aws)

    async def scenario() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            asked = aws.calls["sqs.ReceiveMessage"]
            await eventually(lambda: aws.calls["sqs.ReceiveMessage"] >= asked + 2)
            queue.create()
            queue.send(job_message("a"))
            await eventually(lambda: ids(triggerer.store()) == ["a"])

    asyncio.run(scenario())
    [line] = warnings(caplog)
    assert queue.url in line
    assert "does not exist" in line
    assert "Check the queue's URL" in line


def test_a_queue_that_may_not_be_read_is_tried_again(
    own_aws: Any, here: Callable[[Any], None], supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """Once the permission is granted, or the connection has other credentials, no restart is needed."""
    here(own_aws)
    queue = Queue.created(own_aws)
    queue.send(job_message("a"))
    own_aws.set_faults(Faults(denied=("sqs.ReceiveMessage",)))

    async def scenario() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(lambda: warnings(caplog))
            own_aws.set_faults(Faults())
            await eventually(lambda: ids(triggerer.store()) == ["a"])

    asyncio.run(scenario())
    [line] = warnings(caplog)
    assert "AccessDenied" in line
    assert "sqs:ReceiveMessage" in line


def test_messages_that_cannot_be_deleted_are_fired_once(
    own_aws: Any, here: Callable[[Any], None], supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """They are delivered again and again; the missing permission is logged."""
    here(own_aws)
    queue = Queue.created(own_aws)
    queue.send(job_message("a"))
    own_aws.set_faults(Faults(denied=("sqs.DeleteMessageBatch",)))

    async def scenario() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(triggerer.store)
            await eventually(lambda: own_aws.calls["sqs.DeleteMessageBatch"] >= 2)
            own_aws.set_faults(Faults())
            await eventually(lambda: queue.message_count == 0)
            assert ids(triggerer.store()) == ["a"]

    asyncio.run(scenario())
    assert "Could not delete" in caplog.text


def test_transient_faults_end_no_stream(own_aws: Any, here: Callable[[Any], None], supervisor: Supervisor) -> None:
    """Every other call returns status 500, and every third connection is dropped."""
    here(own_aws)
    queue = Queue.created(own_aws)
    queue.send(*(job_message(f"{number}") for number in range(5)))
    own_aws.set_faults(Faults(actions=("sqs.ReceiveMessage", "sqs.DeleteMessageBatch"), error_every=2, drop_every=3))

    async def scenario() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(lambda: len(triggerer.store()) == 5)
            own_aws.set_faults(Faults())
            await eventually(lambda: queue.message_count == 0)
            assert ids(triggerer.store()) == ["0", "1", "2", "3", "4"]

    asyncio.run(scenario())


def test_the_error_for_a_queue_in_another_region_names_it(
    aws: Any, here: Callable[[Any], None], supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """AWS would only report that the queue does not exist."""
    here(aws)
    trigger = JobStateChangeTrigger(queue_url="https://sqs.eu-west-1.amazonaws.com/123456789012/q", aws_conn_id=None)

    async def scenario() -> None:
        async with running(trigger):
            await eventually(lambda: warnings(caplog))

    asyncio.run(scenario())
    assert "the queue is in eu-west-1, and the connection is for us-east-1" in warnings(caplog)[0]


def test_the_queue_of_a_connection_for_waits_is_rejected(
    queue: Queue, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The setting is known when the DAG is parsed, but a connection only when it is used."""
    connection = {"conn_type": "aws", "extra": {"jobflow_event_queue_url": queue.url, "region_name": "us-east-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(connection))
    queue.send(job_message("a"))

    async def scenario() -> None:
        async with running(queue.trigger(aws_conn_id="mine")) as triggerer:
            await eventually(lambda: warnings(caplog))
            connection["extra"].pop("jobflow_event_queue_url")  # type: ignore[attr-defined]
            assert triggerer.store() == []
            monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(connection))
            await eventually(triggerer.store)

    asyncio.run(scenario())
    assert "the waits use this queue" in warnings(caplog)[0]


URL = "https://sqs.us-east-1.amazonaws.com/123456789012/q"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"status": "SUCCEDED"}, "no event would ever match"),
        ({"array": "parents", "service": "ecs"}, "no event would ever match"),
        ({"status": []}, "status=[]: must be a string, or a list"),
        ({"job_name": 7}, "job_name=7: must be a string, or a list"),
        ({"job_name": [7]}, "job_name=7: must be a string"),
        ({"job_name": {"a": "b"}}, "must be a string, or a list"),
        ({"queue_url": "ends"}, "queue_url='ends': must be the URL of an SQS queue"),
        ({"queue_url": None}, "queue_url=None: must be a string"),
        ({"botocore_config": "x"}, "botocore_config='x': must be a dict"),
    ],
)
def test_a_trigger_that_could_never_fire_is_an_import_error_of_the_dag(arguments: dict[str, Any], message: str) -> None:
    """Otherwise it would end the triggerer, which only survives a TypeError when it creates a trigger."""
    with pytest.raises(InvalidTriggerParameter) as refused:
        JobStateChangeTrigger(**{"queue_url": URL, **arguments})
    assert message in str(refused.value)
    assert isinstance(refused.value, TypeError)
    assert isinstance(refused.value, AirflowFailException)


def test_the_queue_of_the_setting_for_waits_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would receive the other's messages."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__EVENT_QUEUE_URL", f"{URL}/")
    with pytest.raises(InvalidTriggerParameter, match=r"this is the queue of \[jobflow\] event_queue_url"):
        JobStateChangeTrigger(queue_url=URL)


def test_a_trigger_is_the_same_whenever_the_dag_is_parsed() -> None:
    """Airflow creates a new trigger if the hash differs from that of the stored arguments."""
    from airflow.models.trigger import Trigger

    trigger = JobStateChangeTrigger(
        queue_url=URL, verify=False, botocore_config={"read_timeout": 5}, status={"SUCCEEDED", "FAILED"}, job_queue="q"
    )
    assert trigger.serialize()[1] == json.loads(json.dumps(trigger.serialize()[1]))
    encoded = encode_trigger(trigger)
    stored = Trigger(**encoded)
    assert BaseEventTrigger.hash(**encoded) == BaseEventTrigger.hash(stored.classpath, stored.kwargs)
    again = JobStateChangeTrigger(**trigger.serialize()[1])
    assert again.serialize() == trigger.serialize()
    assert again.shared_stream_key() == trigger.shared_stream_key()
    assert trigger.shared_stream_key() != JobStateChangeTrigger(queue_url=URL, status="FAILED").shared_stream_key()


def test_a_watcher_rejects_being_used_for_a_deferral() -> None:
    """For example, as the trigger of a deferred task in `airflow dags test`."""

    async def scenario() -> None:
        async for _ in JobStateChangeTrigger(queue_url=URL).run():
            pass

    with pytest.raises(RuntimeError, match="for the AssetWatcher of an asset"):
        asyncio.run(scenario())


def test_a_watcher_is_created_without_boto3() -> None:
    """Otherwise every worker process that parses the DAG file would need half a second more."""
    code = (
        "import sys; from airflow.sdk import Asset, AssetWatcher; before = set(sys.modules); "
        "from airflow_jobflow.triggers.state_change import JobStateChangeTrigger; "
        f"trigger = JobStateChangeTrigger(queue_url={URL!r}, status='FAILED', array='parents'); "
        "Asset('a', watchers=[AssetWatcher(name='w', trigger=trigger)]); trigger.shared_stream_key(); "
        "heavy = ('boto3', 'botocore', 'airflow.providers.amazon', 'airflow.models', 'sqlalchemy', 'moto'); "
        "print([m for m in set(sys.modules) - before if m.startswith(heavy)])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip().splitlines()[-1] == "[]"
