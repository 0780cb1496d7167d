"""Calls to AWS: the rate limit applies to each, metrics count them, and retries happen only where they are safe."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from airflow_jobflow.airflow_compat.metrics import stats
from airflow_jobflow.aws import (
    ONCE,
    Access,
    Call,
    Rate,
    Retry,
    ServiceClient,
    run,
    run_blocking,
    run_paid,
    service_client,
)
from airflow_jobflow.aws.calls import TURN_LIFETIME
from airflow_jobflow.aws.clients import MAX_THREADS
from airflow_jobflow.aws.rate_limit import RateLimiter
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import glue_run
from airflow_jobflow.jobs.calls import START_WITHIN
from tests.unit.aws.scripted_aws import Answer, Script, refusal
from tests.unit.polling.scripted import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("credentials")

AT_ONCE = Retry(longest_delay=0.0)
"""A retry policy without pauses."""


class CountingLimiter(RateLimiter):
    """A limiter that counts acquired turns, successes and throttled calls."""

    def __init__(self) -> None:
        super().__init__(1e6)
        self.turns = self.answers = self.throttles = 0

    def _rest(self, ticket: Any) -> float:
        rest = super()._rest(ticket)
        self.turns += rest == 0
        return rest

    def succeeded(self) -> None:
        """Count a success."""
        self.answers += 1
        super().succeeded()

    def throttled(self, sent_at: float) -> None:
        """Count a throttled call."""
        self.throttles += 1
        super().throttled(sent_at)


def scripted(script: Script, name: str = "batch") -> tuple[ServiceClient, CountingLimiter]:
    """Return a client with a known region, and the limiter that counts its calls."""
    client, limiter = service_client(script.access(), name), CountingLimiter()
    client.region  # noqa: B018 -- builds the client
    client._limiters.update(dict.fromkeys(Rate, limiter))
    return client, limiter


def describe(call: Call) -> Any:
    """Make one call."""
    return call("describe_jobs", jobs=["a"])["jobs"]


def test_only_the_first_call_of_a_function_queues_up_behind_others() -> None:
    """Only the first call of a function waits behind the calls of others: later ones already hold a thread."""
    seen: list[bool] = []

    class Noting(CountingLimiter):
        def acquire_blocking(self, *, goes_on: bool = False) -> float:
            seen.append(goes_on)
            return super().acquire_blocking(goes_on=goes_on)

    client, _ = scripted(Script(lambda *_: {"jobs": []}))
    client._limiters.update(dict.fromkeys(Rate, Noting()))

    def makes_two_calls(call: Call) -> None:
        describe(call)
        describe(call)

    run_blocking(client, makes_two_calls)
    assert seen == [False, True]
    asyncio.run(run(client, makes_two_calls))
    assert seen == [False, True, True]


def failing(*faults: Fault, sent: bool = True, then: Any = "done") -> Callable[[Call], Any]:
    """Return a function that raises these errors one after the other, and then returns a value."""
    left = list(faults)

    def function(call: Call) -> Any:
        if left:
            fault = left.pop(0)
            raise CallError(fault, f"scripted: {fault.value}", sent=sent and fault is Fault.TRANSIENT)
        return then

    return function


# Rate limit and metrics.


def test_each_call_of_a_function_has_a_turn_of_its_own() -> None:
    """Each call takes its own turn; otherwise five calls for a thousand runs would exceed the budget fivefold."""
    pages = iter(range(1, 100))

    def answer(*_: object) -> Any:
        number = next(pages)
        return {"JobRuns": [{"Id": f"jr_{number}", "JobRunState": "RUNNING", "JobName": "etl"}], "NextToken": "more"}

    script = Script(answer)
    client, limiter = scripted(script, "glue")

    async def scenario() -> None:
        await client.acquire(Rate.POLL)
        await run_paid(client, glue_run.describe, ["jr_0", "jr_00"], "etl")

    asyncio.run(scenario())
    assert len(script.requests) == limiter.turns == limiter.answers == glue_run.MAX_PAGES


def test_an_old_turn_is_not_used() -> None:
    """A turn that is too old is acquired again; otherwise calls that waited behind hanging ones would form a burst."""
    client, limiter = scripted(Script(lambda *_: {"jobs": []}))
    describe(Call(client, Rate.POLL, turn_at=time.monotonic()))
    assert limiter.turns == 0
    describe(Call(client, Rate.POLL, turn_at=time.monotonic() - TURN_LIFETIME - 0.1))
    assert limiter.turns == 1


def test_a_throttled_call_slows_the_others_down() -> None:
    """Throttling of any call slows down all calls of the client."""
    client, limiter = scripted(Script(lambda *_: refusal("TooManyRequestsException", 429)))
    with pytest.raises(CallError):
        run_blocking(client, describe, retry=ONCE)
    assert (limiter.throttles, limiter.answers, limiter.rate) == (1, 0, 5e5)


def test_calls_and_faults_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics count calls and faults per service."""
    counted: list[str] = []
    monkeypatch.setattr(stats, "incr", counted.append)
    refusals = (refusal("AccessDeniedException", 403), refusal("ServerException", 500))
    answers: Iterator[Answer] = iter([*refusals, {"jobs": []}])
    client, _ = scripted(Script(lambda *_: next(answers)))
    run_blocking(client, describe, retry=AT_ONCE)
    assert counted == [
        "jobflow.aws.batch.client_builds",
        "jobflow.aws.batch.calls",
        "jobflow.aws.batch.denied",
        "jobflow.aws.batch.calls",
        "jobflow.aws.batch.transient",
        "jobflow.aws.batch.calls",
    ]


# Retries


@pytest.mark.parametrize(
    ("fault", "sent", "repeatable", "elapsed", "repeated"),
    [
        (Fault.THROTTLED, False, False, 59, True),
        (Fault.CREDENTIALS, False, False, 59, True),
        (Fault.CREDENTIALS, False, False, 61, False),
        (Fault.DENIED, False, False, 9, True),
        (Fault.DENIED, False, False, 11, False),
        (Fault.TRANSIENT, False, False, 59, True),
        (Fault.TRANSIENT, True, False, 0, False),
        (Fault.TRANSIENT, True, True, 59, True),
        (Fault.TRANSIENT, True, True, 61, False),
        (Fault.REJECTED, False, True, 0, False),
        (Fault.SCOPE_NOT_FOUND, False, True, 0, False),
        (Fault.NO_CAPACITY, False, True, 0, False),
    ],
)
def test_a_fault_is_retried_only_where_that_is_safe(
    fault: Fault, *, sent: bool, repeatable: bool, elapsed: float, repeated: bool
) -> None:
    """A call that AWS may have executed is retried only if it is repeatable; a rejected one never is."""
    delay = Retry(repeatable=repeatable).delay(CallError(fault, "m", sent=sent), 1, elapsed)
    assert (delay is not None) is repeated


@pytest.mark.parametrize(
    ("code", "repeats"), [("404", True), ("400", True), ("InvalidParameterException", False), ("", False)]
)
def test_a_call_that_a_proxy_rejects_is_retried_if_it_is_repeatable(code: str, *, repeats: bool) -> None:
    """An HTML page is not a response of AWS; without a retry, a stop call that gets one would leave its job running."""
    error = CallError(Fault.REJECTED, "m", code, sent=False)
    assert (Retry().delay(error, 1, 0.0) is not None) == repeats


def test_a_retry_ends_at_its_deadline() -> None:
    """No retry and no pause starts after the deadline."""
    error = CallError(Fault.TRANSIENT, "m")
    assert Retry().until(time.time() - 1).delay(error, 1, 0.0) is None
    endless = Retry(patience=float("inf"))
    assert (Retry().until(time.time() + 3600).patience, endless.until(None)) == (60.0, endless)
    assert max(Retry().delay(error, 9, 59.5) or 0.0 for _ in range(100)) <= 0.5
    assert ONCE.delay(error, 1, 0.0) is None
    assert endless.delay(error, 10_000, 1e9) is not None


TRANSIENT_FAULTS = (Fault.THROTTLED, Fault.CREDENTIALS, Fault.DENIED, Fault.TRANSIENT)


def test_a_transient_fault_is_retried() -> None:
    """Transient faults are retried on workers and in triggers."""
    client, _ = scripted(Script())
    assert run_blocking(client, failing(*TRANSIENT_FAULTS), retry=AT_ONCE) == "done"
    assert asyncio.run(run(client, failing(*TRANSIENT_FAULTS), retry=AT_ONCE)) == "done"


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.SCOPE_NOT_FOUND, Fault.NO_CAPACITY])
def test_a_rejection_is_not_retried(fault: Fault) -> None:
    """A rejected call raises its error at the first attempt."""
    client, _ = scripted(Script())
    with pytest.raises(CallError) as raised:
        run_blocking(client, failing(fault), retry=AT_ONCE)
    assert raised.value.fault is fault
    with pytest.raises(CallError):
        asyncio.run(run(client, failing(fault), retry=AT_ONCE))


def test_a_rejection_after_a_lost_response_says_that_the_request_may_have_been_executed() -> None:
    """The first request, whose response was lost, may have started the job."""
    client, _ = scripted(Script())
    with pytest.raises(CallError) as raised:
        run_blocking(client, failing(Fault.TRANSIENT, Fault.REJECTED), retry=AT_ONCE)
    assert (raised.value.fault, raised.value.sent) == (Fault.REJECTED, True)
    with pytest.raises(CallError) as raised:
        run_blocking(client, failing(Fault.TRANSIENT, Fault.REJECTED, sent=False), retry=AT_ONCE)
    assert raised.value.sent is False


@pytest.mark.parametrize(
    ("error", "calls"), [(EndpointConnectionError(endpoint_url="u"), 2), (ReadTimeoutError(endpoint_url="u"), 1)]
)
def test_a_start_without_a_token_is_repeated_only_if_it_was_not_sent(error: Exception, calls: int) -> None:
    """A submit without a token is repeated only if nothing was sent: a second SubmitJob starts a second job."""
    answers: Iterator[Answer] = iter([error, {"jobId": "a"}])
    script = Script(lambda *_: next(answers))
    client, _ = scripted(script)

    def submit(call: Call) -> Any:
        return call("submit_job", jobName="n", jobQueue="q", jobDefinition="d")

    retry = Retry(repeatable=False, longest_delay=0.0)
    if calls > 1:
        assert run_blocking(client, submit, retry=retry)["jobId"] == "a"
    else:
        with pytest.raises(CallError) as raised:
            run_blocking(client, submit, retry=retry)
        assert raised.value.sent
    assert len(script.requests) == calls


def test_a_failing_function_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A failing function is logged once, not at every retry."""
    client, _ = scripted(Script())
    run_blocking(client, failing(*[Fault.TRANSIENT] * 5), retry=AT_ONCE)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "A call to batch failed and is repeated: scripted: transient"
    ]


# Cancellation


def test_a_cancelled_call_that_waits_for_a_thread_is_not_made() -> None:
    """A submit that was cancelled while all threads were hanging must not run once a thread is free."""
    client, _ = scripted(Script())
    go_on = threading.Event()
    made: list[Call] = []

    async def scenario() -> None:
        hanging = [client.start(go_on.wait, 30) for _ in range(MAX_THREADS)]
        call = asyncio.create_task(run(client, made.append))
        await settle()
        assert client._pools[False]._work_queue.qsize() == 1
        call.cancel("killed")
        with pytest.raises(asyncio.CancelledError, match="killed"):
            await call
        go_on.set()
        for each in hanging:
            await asyncio.wrap_future(each)
        await asyncio.wrap_future(client.start(lambda: None))

    asyncio.run(scenario())
    assert made == []


def test_a_cancelled_call_in_progress_completes() -> None:
    """A call in progress is completed, and its error is not logged as never retrieved."""
    client, _ = scripted(Script())
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    unseen: list[Any] = []

    def function(call: Call) -> None:
        begun.set()
        go_on.wait(30)
        ended.set()
        raise CallError(Fault.REJECTED, "nobody waits for this")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        call = asyncio.create_task(run(client, function))
        await asyncio.to_thread(begun.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go_on.set()
        await asyncio.to_thread(ended.wait, 30)

    asyncio.run(scenario())
    assert ended.is_set()
    assert not unseen


def test_a_call_that_outlives_its_event_loop_raises_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """``airflow dags test`` runs an event loop per trigger, which may end before a call does."""
    client, _ = scripted(Script(lambda *_: {"jobs": []}))
    begun, go_on = threading.Event(), threading.Event()

    def function(call: Call) -> Any:
        begun.set()
        go_on.wait(30)
        return describe(call)

    async def abandoned() -> None:
        call = asyncio.create_task(run(client, function))
        await asyncio.to_thread(begun.wait, 30)
        del call

    asyncio.run(abandoned())
    go_on.set()
    assert asyncio.run(run(client, describe)) == []
    client.start(lambda: None).result(30)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_a_request_that_hangs_beyond_all_timeouts_is_abandoned() -> None:
    """Botocore limits the time of a connection and of a response, but not that of a DNS lookup."""
    client, _ = scripted(Script())
    client.timeout = 0.01
    go_on = threading.Event()

    def function(call: Call) -> None:
        call.in_flight_since = time.monotonic()
        go_on.wait(30)

    async def scenario() -> None:
        with pytest.raises(CallError, match=r"no response within 0\.02 s") as raised:
            await run(client, function, retry=ONCE)
        assert raised.value.fault is Fault.TRANSIENT
        go_on.set()

    asyncio.run(scenario())


def test_a_start_that_was_held_up_is_not_sent_but_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was frozen between its check and the request; another process may have started the job."""
    client, clock, pauses = service_client(Access(None, "eu-west-1"), "batch"), SimpleNamespace(now=1000.0), [60.0]
    monkeypatch.setattr("airflow_jobflow.aws.boto3_client.time", SimpleNamespace(time=lambda: clock.now))
    built, script, checked = client._boto3._get().client, Script(), []

    def freeze(**_: Any) -> None:
        clock.now += pauses.pop() if pauses else 0.0

    def send(request: Any) -> Any:
        return script.send(request, "before-send.batch.SubmitJob")

    built.meta.events.register("before-sign", freeze)
    monkeypatch.setattr(built._endpoint.http_session, "send", send)

    def submit(call: Call) -> Any:
        checked.append(clock.now)
        call.valid_until = clock.now + START_WITHIN
        return call("submit_job", jobName="n", jobQueue="q", jobDefinition="d")

    run_blocking(client, submit, retry=Retry(longest_delay=0.0, repeatable=False))
    assert checked == [1000.0, 1060.0]
    assert len(script.requests) == 1
