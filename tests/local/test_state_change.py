"""Asset watchers on a queue of state changes: what a DAG receives, and when a message is deleted.

The triggerer is Airflow's own runner of triggers without its supervisor: what is fired is stored when a test says so.
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

PATIENCE = 30.0
ENDS = {"status": ["SUCCEEDED", "FAILED"]}
PARENTS = {**ENDS, "array": "parents"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue's times, so short that a test need not wait."""
    monkeypatch.setattr(asset_stream, "ASSET_EVENT_INTERVAL", 0.1)
    monkeypatch.setattr(asset_stream, "LONG_POLL", 1)
    monkeypatch.setattr(asset_stream, "VISIBILITY_TIMEOUT", 2)


class Supervisor:
    """The state stores of assets, as the triggerer's supervisor hands them out."""

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
    """What outlives a triggerer."""
    found = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", found, raising=False)
    return found


class Triggerer:
    """Airflow's runner of triggers."""

    def __init__(self) -> None:
        self.runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.stored: list[tuple[int, dict[str, Any]]] = []
        """Asset events: by which watcher, and the job."""
        self.events = 0
        self._tasks: list[asyncio.Task[None]] = []

    def watch(self, *triggers: JobStateChangeTrigger, assets: tuple[str, ...] = ()) -> None:
        """Run triggers as it runs those of asset watchers: made from their arguments, each with its assets."""
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
        """What was fired and is not stored."""
        return [(each.trigger_id, job) for each in self.runner.events for job in each.event.payload["jobs"]]

    def store(self, *, lost_of: int | None = None) -> list[tuple[int, dict[str, Any]]]:
        """Store what was fired, and say so; return all that was stored so far.

        :param lost_of: the watcher whose events get lost on the way.
        """
        stored = [each for each in self.runner.events if each.trigger_id != lost_of]
        self.stored += [each for each in self.fired if each[0] != lost_of]
        self.events += len(stored)
        self.runner.events.clear()
        self.runner._shared_streams.confirm_persisted([each.persist_seq for each in stored])
        return self.stored

    def has_ended(self, number: int) -> bool:
        """Whether a trigger has; Airflow would make it anew."""
        return self._tasks[number].done()

    async def stop(self) -> None:
        """End it; what was fired and not stored is lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.runner._shared_streams.stop_all()


@asynccontextmanager
async def running(*triggers: JobStateChangeTrigger, assets: tuple[str, ...] = ()) -> AsyncIterator[Triggerer]:
    """A triggerer that runs these."""
    triggerer = Triggerer()
    triggerer.watch(*triggers, assets=assets)
    try:
        yield triggerer
    finally:
        await triggerer.stop()


async def eventually(check: Callable[[], Any]) -> Any:
    """Check until the result is true, and return it."""
    async with asyncio.timeout(PATIENCE):
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
    def made(cls, aws: Any) -> Queue:
        """One that is there."""
        queue = cls(aws)
        queue.name = f"ends-{uuid.uuid4().hex}"
        queue.make()
        return queue

    def make(self) -> None:
        """Create it."""
        self.url = self._sqs.create_queue(QueueName=self.name)["QueueUrl"]

    def follow(self, pattern: dict[str, Any]) -> None:
        """Have a rule of EventBridge fill it."""
        arn = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self._rules.put_rule(Name=self.name, EventPattern=json.dumps(pattern))
        self._rules.put_targets(Rule=self.name, Targets=[{"Id": "1", "Arn": arn}])

    def follow_no_more(self) -> None:
        """Let the events of other tests pass by."""
        for rule in self._rules.list_rules(NamePrefix=self.name)["Rules"]:
            self._rules.remove_targets(Rule=rule["Name"], Ids=["1"])
            self._rules.delete_rule(Name=rule["Name"])

    def send(self, *bodies: str) -> None:
        """Put messages into it."""
        for body in bodies:
            self._sqs.send_message(QueueUrl=self.url, MessageBody=body)

    @property
    def left(self) -> int:
        """Messages in it, hidden ones included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def trigger(self, **filters: Any) -> JobStateChangeTrigger:
        """One that watches it."""
        return JobStateChangeTrigger(**{"queue_url": self.url, "aws_conn_id": None, **filters})


@pytest.fixture
def queue(aws: Any, here: Callable[[Any], None]) -> Iterator[Queue]:
    """A queue of the test's own."""
    here(aws)
    made = Queue.made(aws)
    yield made
    made.follow_no_more()


def job_message(job_id: str, status: str = "SUCCEEDED", event_id: str | None = None, **more: Any) -> str:
    """A message about a Batch job."""
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
    """The ids of the jobs."""
    return sorted(job["job_id"] for _, job in told_of)


def test_of_eight_ends_of_an_array_one_is_told(kit: Any, queue: Queue, supervisor: Supervisor) -> None:
    """From a job that runs, by way of EventBridge and SQS; whatever nobody wants is deleted too."""
    arn = kit.batch.describe_job_queues(jobQueues=[kit.queue])["jobQueues"][0]["jobQueueArn"]
    queue.follow({"source": ["aws.batch"], "detail": {"jobQueue": [arn]}})

    async def story() -> list[tuple[int, dict[str, Any]]]:
        async with running(queue.trigger(job_queue=kit.queue, **PARENTS)) as triggerer:
            parent = kit.submit(["sh", "-c", 'test "$AWS_BATCH_JOB_ARRAY_INDEX" != 3'], arrayProperties={"size": 7})
            await eventually(triggerer.store)
            await asyncio.to_thread(kit.wait, parent)
            await eventually(lambda: queue.left == 0)
            assert ids(triggerer.store()) == [parent]
            return triggerer.stored

    [(_, job)] = asyncio.run(story())
    assert (job["state"], job["array"]) == ("FAILED", {"size": 7, "succeeded": 6, "failed": 1})
    assert job["queue"] == arn


def test_each_watcher_of_a_queue_gets_its_own_from_one_stream(queue: Queue, supervisor: Supervisor) -> None:
    """What one refuses another may want; what all refuse is deleted."""
    queue.send(job_message("good"), job_message("bad", "FAILED"), job_message("runs", "RUNNING"))

    async def story() -> None:
        watchers = [queue.trigger(status=status) for status in ("FAILED", "SUCCEEDED", ["SUCCEEDED", "FAILED"])]
        async with running(*watchers) as triggerer:
            await eventually(lambda: len(triggerer.store()) == 4)
            await eventually(lambda: queue.left == 0)
            assert len(triggerer.runner._shared_streams._groups) == 1
            found = sorted((number, job["job_id"]) for number, job in triggerer.stored)
            assert found == [(0, "bad"), (1, "good"), (2, "bad"), (2, "good")]

    asyncio.run(story())


def test_a_message_is_deleted_only_when_airflow_has_stored_the_event(queue: Queue, supervisor: Supervisor) -> None:
    """A triggerer that dies before loses nothing: another one receives the message, and fires its event once."""
    queue.send(job_message("a"))

    async def story() -> None:
        async with running(queue.trigger(**ENDS)) as dying:
            await eventually(lambda: dying.fired)
            assert queue.left == 1
        assert supervisor.stores == {"asset-0": {}}
        async with running(queue.trigger(**ENDS)) as next_one:
            await eventually(next_one.store)
            await eventually(lambda: queue.left == 0)
            assert ids(next_one.stored) == ["a"]
        assert len(supervisor.stores["asset-0"][HISTORY_KEY]) == 1

    asyncio.run(story())


def test_what_one_watcher_could_not_store_the_others_are_not_told_again(
    queue: Queue, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow gives the one up, and makes it anew; the message is given to both once more."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__SHARED_STREAM_ACK_TIMEOUT", "1")
    queue.send(job_message("a"))

    async def story() -> None:
        watchers = [queue.trigger(**ENDS), queue.trigger(status="SUCCEEDED")]
        async with running(*watchers) as triggerer:
            await eventually(lambda: len(triggerer.fired) == 2)
            assert [number for number, _ in triggerer.store(lost_of=1)] == [0]
            await eventually(lambda: triggerer.has_ended(1))
            assert queue.left == 1
            triggerer.watch(watchers[1], assets=("asset-1",))
            await eventually(lambda: len(triggerer.store()) == 2)
            await eventually(lambda: queue.left == 0)
            assert [number for number, _ in triggerer.stored] == [0, 2]

    asyncio.run(story())


def test_what_waits_to_be_stored_is_not_told_again(queue: Queue, supervisor: Supervisor) -> None:
    """SQS delivers it again meanwhile; it is deleted by the latest receipt then."""
    queue.send(job_message("a"))

    async def story() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(lambda: triggerer.fired)
            received = queue.aws.calls["sqs.ReceiveMessage"]
            await asyncio.sleep(asset_stream.VISIBILITY_TIMEOUT)
            await eventually(lambda: queue.aws.calls["sqs.ReceiveMessage"] > received + 2)
            assert ids(triggerer.store()) == ["a"]
            await eventually(lambda: queue.left == 0)
            assert triggerer.fired == []

    asyncio.run(story())


def test_an_end_that_is_delivered_twice_is_told_once(queue: Queue, supervisor: Supervisor) -> None:
    """In one batch, later, under another id of an event, and by another triggerer, which knows from the store."""
    queue.send(job_message("a", event_id="1"), job_message("a", event_id="1"), job_message("b"))

    async def story() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(lambda: ids(triggerer.store()) == ["a", "b"])
            await eventually(lambda: queue.left == 0)
            queue.send(job_message("a", event_id="2"))
            await eventually(lambda: queue.left == 0)
            assert ids(triggerer.store()) == ["a", "b"]
        queue.send(job_message("b"), job_message("a", event_id="1"), job_message("c"))
        async with running(queue.trigger(**ENDS)) as another:
            await eventually(another.store)
            await eventually(lambda: queue.left == 0)
            assert ids(another.store()) == ["c"]

    asyncio.run(story())


def test_what_can_happen_twice_is_told_twice(queue: Queue, supervisor: Supervisor) -> None:
    """A retried job runs again."""
    queue.send(
        job_message("a", "RUNNING"),
        job_message("a", "RUNNABLE"),
        job_message("a", "RUNNING"),
    )

    async def story() -> None:
        async with running(queue.trigger(status="RUNNING")) as triggerer:
            await eventually(lambda: ids(triggerer.store()) == ["a", "a"])

    asyncio.run(story())


def test_a_store_that_fails_costs_memory_but_no_event(
    queue: Queue, supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream goes on for all watchers."""
    supervisor.broken = True

    async def story() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            for job_id in ("a", "b"):
                queue.send(job_message(job_id))
                await eventually(lambda: job_id in ids(triggerer.store()))  # noqa: B023 -- called before the next
            await eventually(lambda: queue.left == 0)

    asyncio.run(story())
    assert "duplicate asset events are possible" in caplog.text


def test_a_trigger_that_several_assets_share_remembers(queue: Queue, supervisor: Supervisor) -> None:
    """Airflow makes one trigger of watchers that are alike, and has no store for it as such."""

    async def story() -> None:
        for found in (["a"], []):
            queue.send(job_message("a"))
            async with running(queue.trigger(**ENDS), assets=("one", "two")) as triggerer:
                await eventually(lambda: triggerer.store() is not None and queue.left == 0)
                assert ids(triggerer.stored) == found

    asyncio.run(story())


def test_no_more_is_remembered_than_the_store_takes() -> None:
    """It would grow for ever; what is old is not delivered again."""
    trigger = JobStateChangeTrigger(queue_url="https://sqs/q")
    digests = [f"{number:016x}" for number in range(MAX_HISTORY + 5)]
    asyncio.run(trigger.save_history(digests))
    assert list(trigger._stored) == digests[5:]
    assert len(json.dumps(list(trigger._stored))) < 65_535


def test_ends_that_come_close_together_share_an_asset_event(
    queue: Queue, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.3 makes no run for an asset event that comes while the one before still waits for its run."""
    monkeypatch.setattr(asset_stream, "ASSET_EVENT_INTERVAL", 3.0)

    async def story() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            queue.send(*(job_message(f"unwanted {number}", "RUNNING") for number in range(3)))
            await eventually(lambda: queue.left == 0)
            queue.send(job_message("first"))
            await eventually(triggerer.store)
            for number in range(12):
                queue.send(job_message(f"{number:02}"))
            await eventually(lambda: len(triggerer.store()) == 13)
            assert triggerer.events == 2

    asyncio.run(story())


def test_what_is_no_state_change_is_deleted_and_said_once(
    queue: Queue, supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it is; later messages are handled as usual."""
    queue.send(
        "x" * 200_000,
        "{}",
        job_message("", "SUCCEEDED", jobName=7),
        job_message("a", unknown={"field": ["x"] * 10_000}),
    )

    async def story() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(lambda: ids(triggerer.store()) == ["a"])
            await eventually(lambda: queue.left == 0)

    asyncio.run(story())
    [line] = [record.message for record in caplog.records if "is not a job state change" in record.message]
    assert len(line) < 600


WARNING = "Cannot receive job state changes"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of a queue that cannot be read."""
    return [record.message for record in caplog.records if WARNING in record.message]


def test_a_queue_that_is_not_there_is_waited_for(
    aws: Any, here: Callable[[Any], None], supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """In words, once; as soon as it is there the watcher goes on."""
    here(aws)
    queue = Queue(aws)

    async def story() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            asked = aws.calls["sqs.ReceiveMessage"]
            await eventually(lambda: aws.calls["sqs.ReceiveMessage"] >= asked + 2)
            queue.make()
            queue.send(job_message("a"))
            await eventually(lambda: ids(triggerer.store()) == ["a"])

    asyncio.run(story())
    [line] = warnings(caplog)
    assert queue.url in line
    assert "does not exist" in line
    assert "Check the queue's URL" in line


def test_a_queue_that_may_not_be_read_is_asked_again(
    own_aws: Any, here: Callable[[Any], None], supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody gives the permission, or the connection other credentials, and nothing need be started anew."""
    here(own_aws)
    queue = Queue.made(own_aws)
    queue.send(job_message("a"))
    own_aws.set_faults(Faults(denied=("sqs.ReceiveMessage",)))

    async def story() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(lambda: warnings(caplog))
            own_aws.set_faults(Faults())
            await eventually(lambda: ids(triggerer.store()) == ["a"])

    asyncio.run(story())
    [line] = warnings(caplog)
    assert "AccessDenied" in line
    assert "sqs:ReceiveMessage" in line


def test_messages_that_cannot_be_deleted_are_told_once(
    own_aws: Any, here: Callable[[Any], None], supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """They come again and again; that the permission is missing is said."""
    here(own_aws)
    queue = Queue.made(own_aws)
    queue.send(job_message("a"))
    own_aws.set_faults(Faults(denied=("sqs.DeleteMessageBatch",)))

    async def story() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(triggerer.store)
            await eventually(lambda: own_aws.calls["sqs.DeleteMessageBatch"] >= 2)
            own_aws.set_faults(Faults())
            await eventually(lambda: queue.left == 0)
            assert ids(triggerer.store()) == ["a"]

    asyncio.run(story())
    assert "Could not delete" in caplog.text


def test_aws_failing_in_passing_ends_no_stream(
    own_aws: Any, here: Callable[[Any], None], supervisor: Supervisor
) -> None:
    """Every other call is answered with a 500, and every third connection closed."""
    here(own_aws)
    queue = Queue.made(own_aws)
    queue.send(*(job_message(f"{number}") for number in range(5)))
    own_aws.set_faults(Faults(actions=("sqs.ReceiveMessage", "sqs.DeleteMessageBatch"), error_every=2, drop_every=3))

    async def story() -> None:
        async with running(queue.trigger(**ENDS)) as triggerer:
            await eventually(lambda: len(triggerer.store()) == 5)
            own_aws.set_faults(Faults())
            await eventually(lambda: queue.left == 0)
            assert ids(triggerer.store()) == ["0", "1", "2", "3", "4"]

    asyncio.run(story())


def test_a_queue_in_another_region_is_named(
    aws: Any, here: Callable[[Any], None], supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """AWS would only say that there is no such queue."""
    here(aws)
    trigger = JobStateChangeTrigger(queue_url="https://sqs.eu-west-1.amazonaws.com/123456789012/q", aws_conn_id=None)

    async def story() -> None:
        async with running(trigger):
            await eventually(lambda: warnings(caplog))

    asyncio.run(story())
    assert "the queue is in eu-west-1, and the connection is for us-east-1" in warnings(caplog)[0]


def test_the_queue_that_a_connection_names_for_the_waits_is_left_alone(
    queue: Queue, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The setting is known where the DAG is read; a connection is known only where it is used."""
    connection = {"conn_type": "aws", "extra": {"jobflow_event_queue_url": queue.url, "region_name": "us-east-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(connection))
    queue.send(job_message("a"))

    async def story() -> None:
        async with running(queue.trigger(aws_conn_id="mine")) as triggerer:
            await eventually(lambda: warnings(caplog))
            connection["extra"].pop("jobflow_event_queue_url")  # type: ignore[attr-defined]
            assert triggerer.store() == []
            monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(connection))
            await eventually(triggerer.store)

    asyncio.run(story())
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
    """And never the end of a triggerer, which lives on after no error but TypeError when it makes a trigger."""
    with pytest.raises(InvalidTriggerParameter) as refused:
        JobStateChangeTrigger(**{"queue_url": URL, **arguments})
    assert message in str(refused.value)
    assert isinstance(refused.value, TypeError)
    assert isinstance(refused.value, AirflowFailException)


def test_the_queue_of_the_waits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take the other's messages."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__EVENT_QUEUE_URL", f"{URL}/")
    with pytest.raises(InvalidTriggerParameter, match=r"this is the queue of \[jobflow\] event_queue_url"):
        JobStateChangeTrigger(queue_url=URL)


def test_a_trigger_stays_the_same_however_often_the_dag_is_read() -> None:
    """Airflow makes a new trigger whenever the hash differs from that of the arguments it has stored."""
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


def test_alone_it_refuses_to_run() -> None:
    """As the trigger of a deferred task in `airflow dags test`, say."""

    async def story() -> None:
        async for _ in JobStateChangeTrigger(queue_url=URL).run():
            pass

    with pytest.raises(RuntimeError, match="for the AssetWatcher of an asset"):
        asyncio.run(story())


def test_a_watcher_is_made_without_boto3() -> None:
    """Every worker process that reads the DAG file would pay half a second for it."""
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
