"""The replacements for features that Airflow 3.2 lacks. Each test runs on every Airflow."""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout
from airflow.sdk.execution_time import task_runner

from airflow_jobflow.airflow_compat import _retry_policy, kills, retry_policy, shared_streams
from airflow_jobflow.airflow_compat.starts import OfInstance
from airflow_jobflow.exceptions import JobFailed
from airflow_jobflow.jobs import causes
from airflow_jobflow.retry_policy import JobRetryPolicy
from airflow_jobflow.sensors.batch import BatchJobSensor

# Kills of deferred tasks.


@pytest.fixture
def _without_on_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an Airflow that does not call ``on_kill``."""
    monkeypatch.setattr(kills, "CALLED_BY_AIRFLOW", False)
    monkeypatch.delattr(task_runner, "SUPERVISOR_COMMS", raising=False)


class Runner:
    """The part of ``TriggerRunner`` that shows a shutdown; ``test_airflow_compat_contracts`` tests the real one."""

    stop = False

    def handle(self, *_: object) -> None:
        """Handle SIGTERM like ``TriggerRunner``."""
        self.stop = True


@pytest.fixture
def runner() -> Iterator[Runner]:
    """Return a runner that handles this process's SIGTERM."""
    made = Runner()
    before = signal.signal(signal.SIGTERM, made.handle)
    yield made
    signal.signal(signal.SIGTERM, before)


async def cancelled(
    on_kill: Callable[[], Any],
    *,
    by: Callable[[], object] = lambda: None,
    begin: Callable[[], object] = lambda: None,
    message: str | None = None,
    **trigger: Any,
) -> None:
    """Cancel a trigger once it waits."""
    waits = asyncio.Event()

    async def wait() -> None:
        made: Any = SimpleNamespace(**{"task_instance": object(), **trigger})
        async with kills.on_kill_called(made, on_kill, begin):
            waits.set()
            await asyncio.get_running_loop().create_future()

    running = asyncio.create_task(wait())
    await waits.wait()
    by()
    running.cancel(message)
    with pytest.raises(asyncio.CancelledError):
        await running


def was_called(**options: Any) -> bool:
    """Return whether ``on_kill`` was called for a trigger that was cancelled."""
    calls = []

    async def on_kill() -> None:
        calls.append(1)

    asyncio.run(cancelled(on_kill, **options))
    return bool(calls)


@pytest.mark.usefixtures("_without_on_kill")
def test_a_kill_calls_on_kill_if_airflow_does_not(runner: Runner) -> None:
    """Otherwise a task that was marked failed would leave its job running."""
    assert was_called()
    assert was_called(timeout_after=datetime.now(UTC) + timedelta(hours=1))


@pytest.mark.usefixtures("_without_on_kill")
def test_a_shutdown_does_not_call_on_kill(runner: Runner) -> None:
    """The next triggerer continues the trigger."""
    assert not was_called(by=lambda: signal.raise_signal(signal.SIGTERM))


@pytest.mark.usefixtures("_without_on_kill")
def test_a_triggerer_without_its_supervisor_does_not_call_on_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not query whether the task is still deferred."""
    gone = SimpleNamespace(_async_reader=SimpleNamespace(at_eof=lambda: True))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", gone, raising=False)
    assert not was_called()


@pytest.mark.usefixtures("_without_on_kill")
@pytest.mark.parametrize("zone", [UTC, None])
def test_a_deferral_timeout_does_not_call_on_kill(zone: Any) -> None:
    """The task is resumed and decides; its state is no longer "deferred", which looks like a kill."""
    passed = datetime.now(UTC) - timedelta(seconds=1)
    assert not was_called(timeout_after=passed.replace(tzinfo=zone))


@pytest.mark.usefixtures("_without_on_kill")
def test_dags_test_does_not_call_on_kill() -> None:
    """There, Ctrl-C does not kill a deferred task."""
    assert not was_called(task_instance=None)


def test_on_kill_is_not_called_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.3 calls it itself."""
    monkeypatch.setattr(kills, "CALLED_BY_AIRFLOW", True)
    assert not was_called()


@pytest.mark.parametrize(
    ("begins", "how"),
    [
        (True, {"message": "user-action"}),
        (False, {}),
        (False, {"message": "user-action", "task_instance": None}),
        (False, {"message": "user-action", "timeout_after": datetime(2026, 1, 1, tzinfo=UTC)}),
    ],
    ids=["a kill", "a shutdown", "airflow dags test", "a timeout"],
)
def test_a_kill_begins_before_airflow_calls_on_kill(
    monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], *, begins: bool
) -> None:
    """Airflow 3.3 does not call it if it cancels the trigger again too soon."""
    monkeypatch.setattr(kills, "CALLED_BY_AIRFLOW", True)
    begun = []
    assert not was_called(begin=lambda: begun.append(1), **how)
    assert bool(begun) == begins


@pytest.mark.usefixtures("_without_on_kill")
@pytest.mark.parametrize("error", [ValueError("broken"), TimeoutError()])
def test_a_trigger_is_cancelled_even_if_its_on_kill_fails(error: Exception) -> None:
    """Airflow would treat another exception as a failure of the task."""

    async def on_kill() -> None:
        raise error

    asyncio.run(cancelled(on_kill))


# Retry policies.


@pytest.fixture
def _without_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an Airflow that applies no retry policy."""
    monkeypatch.setattr(retry_policy, "APPLIED_BY_AIRFLOW", False)


def raised(error: Exception, policy: Any) -> Exception:
    """Return the exception that a task with a policy raises for an error."""
    context: Any = {"ti": SimpleNamespace(try_number=1, max_tries=3)}
    task: Any = SimpleNamespace(retry_policy=policy)
    with pytest.raises(Exception) as caught, retry_policy.retry_policy_applied(task, context):  # noqa: PT011 -- any error
        raise error
    return caught.value


OUT_OF_MEMORY = JobFailed("it failed", diagnosis=causes.OUT_OF_MEMORY)
RECLAIMED = JobFailed("it failed", diagnosis=causes.SPOT_RECLAIMED)


@pytest.mark.usefixtures("_without_policies")
def test_a_policy_prevents_a_retry_if_airflow_has_no_policies() -> None:
    """A retry with the same error costs money."""
    error = raised(OUT_OF_MEMORY, JobRetryPolicy())
    assert isinstance(error, AirflowFailException)
    assert error.__cause__ is OUT_OF_MEMORY
    assert str(error).startswith("it failed\nThe retry policy: ")
    assert "memory" in str(error)


@pytest.mark.usefixtures("_without_policies")
@pytest.mark.parametrize(
    ("error", "policy"),
    [
        (RECLAIMED, JobRetryPolicy()),
        (ValueError("another"), JobRetryPolicy()),
        (OUT_OF_MEMORY, None),
        (AirflowSensorTimeout("late"), JobRetryPolicy()),
    ],
    ids=["retried", "as the task says", "no policy", "never retried"],
)
def test_an_error_that_a_policy_leaves_to_airflow_is_not_replaced(error: Exception, policy: Any) -> None:
    """Retries, callbacks and skips need the error itself."""
    assert raised(error, policy) is error


@pytest.mark.usefixtures("_without_policies")
def test_a_policy_that_fails_changes_nothing() -> None:
    """As in Airflow, only the task's retries count then."""

    class Broken(JobRetryPolicy):
        def evaluate(self, *_: Any, **__: Any) -> Any:
            raise KeyError("broken")

    assert raised(OUT_OF_MEMORY, Broken()) is OUT_OF_MEMORY


def test_a_policy_is_not_applied_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception would lose its class."""
    monkeypatch.setattr(retry_policy, "APPLIED_BY_AIRFLOW", True)
    assert raised(OUT_OF_MEMORY, JobRetryPolicy()) is OUT_OF_MEMORY


def test_an_operator_has_a_policy_on_every_airflow() -> None:
    """Otherwise a DAG would parse on one version only. This includes ``default_args`` and mapped tasks."""
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    policy = JobRetryPolicy()
    sensor = BatchJobSensor(task_id="s", job_id="a", retry_policy=policy)
    assert sensor.retry_policy is policy
    with DAG("d", schedule=None, default_args={"retry_policy": policy}) as dag:
        assert BatchJobSensor(task_id="s", job_id="a").retry_policy is policy
        BatchJobSensor.partial(task_id="m", retry_policy=policy).expand(job_id=["a"])
    again: Any = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert set(again.task_ids) == {"s", "m"}


@pytest.mark.needs("retry_policy")
@pytest.mark.parametrize("name", ["RetryAction", "RetryDecision", "RetryPolicy"])
def test_the_replacements_have_the_members_of_airflows_classes(name: str) -> None:
    """A policy that was written for one version would fail on the other."""
    import airflow.sdk

    own, stand_in = getattr(airflow.sdk, name), getattr(_retry_policy, name)
    public = {each for each in vars(own) if not each.startswith("_")}
    assert public == {each for each in vars(stand_in) if not each.startswith("_")}
    for each in public:
        if inspect.isfunction(vars(own)[each]):
            assert list(inspect.signature(getattr(own, each)).parameters) == list(
                inspect.signature(getattr(stand_in, each)).parameters
            )


# Starts in the triggerer.


def test_the_start_arguments_of_a_class_are_none() -> None:
    """Airflow reads these from the class of a mapped task; 3.2 cannot serialize a property."""

    class Task:
        @OfInstance
        def args(self) -> str:
            return "args"

    made: Any = Task
    assert made.args is None
    assert made().args == "args"
    assert BatchJobSensor.start_trigger_args is None


# Shared streams.


class Broker:
    """A producer of a stream of three batches, which records the progress of its reader."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def open_stream(self) -> AsyncIterator[tuple[Any, Any]]:
        """Yield the batches."""
        for name in "abc":
            self.said.append(f"yielded {name}")
            batch = SimpleNamespace(name=name, when_stored=[])
            yield batch, batch
        await asyncio.get_running_loop().create_future()

    async def advance(self, items: Any) -> None:
        """Record that a batch is stored."""
        [item] = items
        assert item.outcome.is_clean
        self.said.append(f"stored {item.broker_payload.name}")

    async def aclose(self) -> None:
        """Record that the stream was closed."""
        self.said.append("closed")


class NotB:
    """A trigger that fires for everything except ``b``."""

    broker = Broker()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return no arguments."""
        return "NotB", {}

    def shared_stream_key(self) -> str:
        """Return the same key for all triggers."""
        return "key"

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Broker:
        """Return the broker."""
        assert kwargs == {}
        return cls.broker

    async def filter_shared_stream(self, stream: AsyncIterator[Any]) -> AsyncIterator[str]:
        """Fire the batches that match."""
        async for batch in stream:
            if batch.name != "b":
                batch.when_stored.append(1)
                self.broker.said.append(f"fired {batch.name}")
                yield batch.name


@pytest.fixture
def trigger_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a class of triggers with a broker, whose events count as stored at once."""
    monkeypatch.setattr(shared_streams, "STORED_AFTER", 0.0)
    monkeypatch.setattr(NotB, "broker", Broker())
    return NotB


async def read_until_idle(trigger: Any, broker: Broker) -> list[str]:
    """Return the events of a trigger until its broker has no more batches."""
    fired: list[str] = []

    async def collect() -> None:
        async for event in shared_streams.read_alone(trigger):
            fired.append(str(event))  # noqa: PERF401 -- it never ends

    running = asyncio.create_task(collect())
    while "stored c" not in broker.said:  # noqa: ASYNC110 -- the broker has no event
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return fired


def test_a_batch_counts_as_stored_only_after_airflow_got_its_events(trigger_class: Any) -> None:
    """A message that is deleted earlier is lost if the triggerer dies."""
    assert asyncio.run(read_until_idle(trigger_class(), trigger_class.broker)) == ["a", "c"]
    assert trigger_class.broker.said == [
        *("yielded a", "fired a", "stored a"),
        *("yielded b", "stored b"),
        *("yielded c", "fired c", "stored c"),
        "closed",
    ]


def test_a_second_watcher_of_a_queue_waits_for_the_first(trigger_class: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each would get only a part of the messages. After a change of the DAG, both exist for a moment."""

    async def scenario() -> None:
        first, second = (cast("Any", shared_streams.read_alone(trigger_class())) for _ in range(2))
        assert await anext(first) == "a"
        waiting = asyncio.ensure_future(anext(second))
        while "can have only one" not in caplog.text:  # noqa: ASYNC110 -- a log has no event
            await asyncio.sleep(0)
        assert not waiting.done()
        await first.aclose()
        assert await waiting == "a"

    asyncio.run(scenario())
