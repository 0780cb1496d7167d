"""Calls to AWS: each in its turn, counted, and repeated where that is harmless and may help."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from airflow_jobflow.airflow_compat.metrics import stats
from airflow_jobflow.aws import (
    ONCE,
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
from tests.unit.aws.scripted_aws import Answer, Script, refusal
from tests.unit.polling.scripted import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("credentials")

AT_ONCE = Retry(longest_delay=0.0)
"""Retries without pauses."""


class CountingLimiter(RateLimiter):
    """Counts the turns, and what it learns of the calls."""

    def __init__(self) -> None:
        super().__init__(1e6)
        self.turns = self.answers = self.throttles = 0

    def _rest(self, ticket: Any) -> float:
        rest = super()._rest(ticket)
        self.turns += rest == 0
        return rest

    def succeeded(self) -> None:
        """Count an answer."""
        self.answers += 1
        super().succeeded()

    def throttled(self, sent_at: float) -> None:
        """Count a throttled call."""
        self.throttles += 1
        super().throttled(sent_at)


def scripted(script: Script, name: str = "batch") -> tuple[ServiceClient, CountingLimiter]:
    """Return a client whose region is known, and its limiter for either rate."""
    client, limiter = service_client(script.access(), name), CountingLimiter()
    client.region  # noqa: B018 -- builds the client
    client._limiters.update(dict.fromkeys(Rate, limiter))
    return client, limiter


def describe(call: Call) -> Any:
    """Make one call."""
    return call("describe_jobs", jobs=["a"])["jobs"]


def test_only_the_first_call_of_a_function_queues_up_behind_others() -> None:
    """A trigger's function holds a thread from its first call on."""
    seen: list[bool] = []

    class Noting(CountingLimiter):
        def acquire_blocking(self, *, goes_on: bool = False) -> float:
            seen.append(goes_on)
            return super().acquire_blocking(goes_on=goes_on)

    client, _ = scripted(Script(lambda *_: {"jobs": []}))
    client._limiters.update(dict.fromkeys(Rate, Noting()))

    def two_calls(call: Call) -> None:
        describe(call)
        describe(call)

    run_blocking(client, two_calls)
    assert seen == [False, True]
    asyncio.run(run(client, two_calls))
    assert seen == [False, True, True]


def failing(*faults: Fault, sent: bool = True, then: Any = "done") -> Callable[[Call], Any]:
    """Return a function that fails in these ways, one after the other, and then returns a value."""
    left = list(faults)

    def function(call: Call) -> Any:
        if left:
            fault = left.pop(0)
            raise CallError(fault, f"scripted: {fault.value}", sent=sent and fault is Fault.TRANSIENT)
        return then

    return function


# Turns and counts


def test_each_call_of_a_function_has_a_turn_of_its_own() -> None:
    """Reading a thousand runs takes five calls; if they counted as one, the budget would be overrun fivefold."""
    pages = iter(range(1, 100))

    def answer(*_: object) -> Any:
        number = next(pages)
        return {"JobRuns": [{"Id": f"jr_{number}", "JobRunState": "RUNNING", "JobName": "etl"}], "NextToken": "more"}

    script = Script(answer)
    client, limiter = scripted(script, "glue")

    async def story() -> None:
        await client.acquire(Rate.POLL)
        await run_paid(client, glue_run.describe, ["jr_0", "jr_00"], "etl")

    asyncio.run(story())
    assert len(script.requests) == limiter.turns == limiter.answers == glue_run.MAX_PAGES


def test_a_turn_that_came_long_ago_is_waited_for_again() -> None:
    """Calls that have waited behind hanging ones for a thread would be a burst as soon as these end."""
    client, limiter = scripted(Script(lambda *_: {"jobs": []}))
    describe(Call(client, Rate.POLL, turn_at=time.monotonic()))
    assert limiter.turns == 0
    describe(Call(client, Rate.POLL, turn_at=time.monotonic() - TURN_LIFETIME - 0.1))
    assert limiter.turns == 1


def test_a_throttled_call_slows_the_others_down() -> None:
    """Whoever has made it."""
    client, limiter = scripted(Script(lambda *_: refusal("TooManyRequestsException", 429)))
    with pytest.raises(CallError):
        run_blocking(client, describe, retry=ONCE)
    assert (limiter.throttles, limiter.answers, limiter.rate) == (1, 0, 5e5)


def test_calls_and_faults_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By service, in Airflow's own metrics."""
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
def test_what_is_repeated(fault: Fault, *, sent: bool, repeatable: bool, elapsed: float, repeated: bool) -> None:
    """What AWS may have executed only where that is harmless; what it rejects never."""
    delay = Retry(repeatable=repeatable).delay(CallError(fault, "m", sent=sent), 1, elapsed)
    assert (delay is not None) is repeated


@pytest.mark.parametrize(
    ("code", "repeats"), [("404", True), ("400", True), ("InvalidParameterException", False), ("", False)]
)
def test_what_a_proxy_refuses_is_repeated_where_that_is_harmless(code: str, *, repeats: bool) -> None:
    """A page of HTML is no answer of AWS: a kill that meets one must not leave its job running."""
    error = CallError(Fault.REJECTED, "m", code, sent=False)
    assert (Retry().delay(error, 1, 0.0) is not None) == repeats


def test_a_retry_ends_at_its_deadline() -> None:
    """And never sleeps beyond it."""
    error = CallError(Fault.TRANSIENT, "m")
    assert Retry().until(time.time() - 1).delay(error, 1, 0.0) is None
    endless = Retry(patience=float("inf"))
    assert (Retry().until(time.time() + 3600).patience, endless.until(None)) == (60.0, endless)
    assert max(Retry().delay(error, 9, 59.5) or 0.0 for _ in range(100)) <= 0.5
    assert ONCE.delay(error, 1, 0.0) is None
    assert endless.delay(error, 10_000, 1e9) is not None


ALL_THAT_PASS = (Fault.THROTTLED, Fault.CREDENTIALS, Fault.DENIED, Fault.TRANSIENT)


def test_a_function_that_fails_in_passing_is_run_again() -> None:
    """In a worker and in a trigger alike."""
    client, _ = scripted(Script())
    assert run_blocking(client, failing(*ALL_THAT_PASS), retry=AT_ONCE) == "done"
    assert asyncio.run(run(client, failing(*ALL_THAT_PASS), retry=AT_ONCE)) == "done"


@pytest.mark.parametrize("fault", [Fault.REJECTED, Fault.SCOPE_NOT_FOUND, Fault.NO_CAPACITY])
def test_a_refusal_is_not_repeated(fault: Fault) -> None:
    """The caller decides what it means."""
    client, _ = scripted(Script())
    with pytest.raises(CallError) as raised:
        run_blocking(client, failing(fault), retry=AT_ONCE)
    assert raised.value.fault is fault
    with pytest.raises(CallError):
        asyncio.run(run(client, failing(fault), retry=AT_ONCE))


def test_a_refusal_after_a_lost_response_says_that_the_request_may_have_been_executed() -> None:
    """The first call, whose response was lost, may have started the job."""
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
    """A second SubmitJob is a second job."""
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
    """Not with every retry."""
    client, _ = scripted(Script())
    run_blocking(client, failing(*[Fault.TRANSIENT] * 5), retry=AT_ONCE)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "A call to batch failed and is repeated: scripted: transient"
    ]


# Cancellation


def test_a_cancelled_call_that_no_thread_has_begun_is_not_made() -> None:
    """All threads hang: what is given up meanwhile must not start a job when they are free again."""
    client, _ = scripted(Script())
    go_on = threading.Event()
    made: list[Call] = []

    async def story() -> None:
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

    asyncio.run(story())
    assert made == []


def test_a_cancelled_call_under_way_runs_to_its_end() -> None:
    """And nobody misses its error."""
    client, _ = scripted(Script())
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    unseen: list[Any] = []

    def function(call: Call) -> None:
        begun.set()
        go_on.wait(30)
        ended.set()
        raise CallError(Fault.REJECTED, "nobody waits for this")

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        call = asyncio.create_task(run(client, function))
        await asyncio.to_thread(begun.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go_on.set()
        await asyncio.to_thread(ended.wait, 30)

    asyncio.run(story())
    assert ended.is_set()
    assert not unseen


def test_a_call_that_outlives_its_loop_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """``airflow dags test`` makes an event loop for each trigger."""
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


def test_a_request_that_hangs_beyond_all_timeouts_is_given_up() -> None:
    """Botocore limits the time for a connection and a response, but not for the host's name."""
    client, _ = scripted(Script())
    client.timeout = 0.01
    go_on = threading.Event()

    def function(call: Call) -> None:
        call.in_flight_since = time.monotonic()
        go_on.wait(30)

    async def story() -> None:
        with pytest.raises(CallError, match=r"no response within 0\.02 s") as raised:
            await run(client, function, retry=ONCE)
        assert raised.value.fault is Fault.TRANSIENT
        go_on.set()

    asyncio.run(story())
