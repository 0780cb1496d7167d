"""The promises of the log reader, each in a scenario on a scripted clock."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow.aws.rate_limit import RateLimiter
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.polling import log_reader as module
from airflow_jobflow.polling.log_reader import LogReader
from airflow_jobflow.polling.log_stream import (
    ARRIVAL,
    MAX_INTERVAL,
    MAX_REFUSALS,
    MIN_INTERVAL,
    Page,
    Position,
)
from tests.unit.polling.scripted import now, settle, until

START = Position()


class Logs:
    """Log streams in memory, read in pages of at most ``size`` lines. A line of time t can be read from t on."""

    def __init__(self, size: int = 100) -> None:
        self.size = size
        self.lines: dict[str, list[tuple[float, str]]] = {}
        self.plan: deque[Exception] = deque()
        self.calls: list[tuple[float, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.latency = 0.0
        self.expired: set[str] = set()

    def write(self, stream: str, at: float, *lines: str) -> None:
        """Write lines at a time, which must not be before that of earlier ones."""
        self.lines.setdefault(stream, []).extend((at, line) for line in lines)

    def reader(self, calls_per_second: float = 25.0, **settings: Any) -> LogReader[str]:
        """Return a reader of these logs."""
        clock = asyncio.get_running_loop().time
        return LogReader(self.fetch, RateLimiter(calls_per_second, clock=clock), **settings)

    async def fetch(self, stream: str, position: Position) -> Page:
        """Return the page at a position."""
        self.calls.append((now(), stream))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency)
        finally:
            self.in_flight -= 1
        if self.plan:
            raise self.plan.popleft()
        if position.token in self.expired:
            self.expired.clear()
            raise CallError(Fault.REJECTED, "the token has expired")
        if stream not in self.lines:
            return Page((), position, missing="no such stream")
        written = [(at, line) for at, line in self.lines[stream] if at <= now()]
        start = int(position.token or sum(1 for at, _ in written if at * 1000 < position.timestamp))
        page = written[start : start + self.size]
        end = start + len(page)
        newest = max([position.timestamp, *(round(at * 1000) for at, _ in page)])
        is_last = position.token == str(end)
        return Page(
            [line for _, line in page], Position(str(end), newest), is_last=is_last, is_behind=len(page) == self.size
        )

    def times(self, stream: str) -> list[float]:
        """Return the times of calls for a stream."""
        return [round(at, 3) for at, of in self.calls if of == stream]


class Subscriber:
    """A task that copies a stream."""

    def __init__(self, reader: LogReader[str], stream: str, position: Position = START, delay: float = 0) -> None:
        self.heard: list[tuple[float, str]] = []
        self.missing: list[tuple[float, str]] = []
        self.position = position
        self.error: CallError | None = None
        self.ended_at: float | None = None
        self.stream = reader.subscribe(stream, position)
        self._delay = delay
        self.task = asyncio.create_task(self._copy())

    async def _copy(self) -> None:
        try:
            with self.stream as stream:
                async for page in stream:
                    await asyncio.sleep(self._delay)
                    self.heard += [(now(), line) for line in page.lines]
                    self.missing += [(now(), page.missing)] if page.missing else []
                    self.position = page.position
        except CallError as error:
            self.error = error
        self.ended_at = now()

    @property
    def lines(self) -> list[str]:
        """Return the copied lines."""
        return [line for _, line in self.heard]


async def stop(*subscribers: Subscriber) -> None:
    """Unsubscribe."""
    for each in subscribers:
        each.task.cancel()
    await settle()


def numbered(count: int, name: str = "line") -> list[str]:
    """Return some lines."""
    return [f"{name}-{number}" for number in range(count)]


async def test_every_line_arrives_once_and_in_order() -> None:
    """This holds for all sizes of pages."""
    logs = Logs(size=3)
    for second in range(20):
        logs.write("a", second, *numbered(second % 5, f"at-{second}"))
    copy = Subscriber(logs.reader(), "a")
    await until(40)
    assert copy.lines == [line for _, line in logs.lines["a"]]
    await stop(copy)


async def test_an_idle_stream_is_read_rarely_and_a_busy_one_often() -> None:
    """A thousand waits without output must make few calls."""
    logs = Logs()
    logs.write("idle", 0, "first")
    logs.write("busy", 0, "first")
    for second in range(60):
        logs.write("busy", second, "more")
    copies = [Subscriber(logs.reader(), "idle"), Subscriber(logs.reader(), "busy")]
    await until(60)
    idle, busy = logs.times("idle"), logs.times("busy")
    assert idle[-1] - idle[-2] == pytest.approx(MAX_INTERVAL)
    assert busy[-1] - busy[-2] == pytest.approx(MIN_INTERVAL)
    await stop(*copies)


async def test_two_hundred_streams_share_the_rate_fairly() -> None:
    """Each is read every eight seconds at 25 calls a second, and no line is later than that and one interval."""
    logs = Logs()
    names = [f"s{number}" for number in range(200)]
    for name in names:
        for second in range(60):
            logs.write(name, second, f"{name}-{second}")
    reader = logs.reader()
    copies = [Subscriber(reader, name) for name in names]
    await until(75)
    assert all(copy.lines == [line for _, line in logs.lines[name]] for copy, name in zip(copies, names, strict=True))
    delays = [at - int(line.rpartition("-")[2]) for copy in copies for at, line in copy.heard]
    assert max(delays) < 15
    assert len(logs.calls) <= 75 * 25 + 2
    await stop(*copies)


async def test_a_backlog_does_not_delay_other_streams() -> None:
    """The pages of a burst alternate with those of others, and no line is lost."""
    logs = Logs(size=10)
    logs.write("burst", 0, *numbered(1000))
    for second in range(30):
        logs.write("other", second, f"other-{second}")
    reader = logs.reader(2)
    copies = [Subscriber(reader, "burst"), Subscriber(reader, "other")]
    await until(80)
    assert copies[0].lines == numbered(1000)
    assert max(at - int(line.rpartition("-")[2]) for at, line in copies[1].heard) <= MIN_INTERVAL + 1.5
    await stop(*copies)


async def test_a_slow_subscriber_is_not_sent_pages_that_it_cannot_take() -> None:
    """The next page is requested when the last one was processed, so nothing piles up."""
    logs = Logs(size=10)
    logs.write("a", 0, *numbered(50))
    copy = Subscriber(logs.reader(), "a", delay=7)
    await until(60)
    assert logs.times("a")[:5] == [0, 7, 14, 21, 28]
    assert copy.lines == numbered(50)
    await stop(copy)


async def test_pages_in_memory_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for any number of streams and any slow subscriber."""
    monkeypatch.setattr(module, "MAX_PAGES", 3)
    logs = Logs()
    for number in range(10):
        logs.write(f"s{number}", 0, "line")
    reader = logs.reader()
    copies = [Subscriber(reader, f"s{number}", delay=5) for number in range(10)]
    await until(4)
    assert len(logs.calls) == 3
    await until(60)
    assert [copy.lines for copy in copies] == [["line"]] * 10
    await stop(*copies)


async def test_a_stream_is_read_for_a_while_after_the_end_of_its_job() -> None:
    """The last lines arrive late; a call after that time ends the stream."""
    logs = Logs()
    logs.write("a", 0, "early")
    logs.write("a", ARRIVAL - 1, "late")
    copy = Subscriber(logs.reader(), "a")
    await settle()
    copy.stream.end(now())
    await until(60)
    assert copy.lines == ["early", "late"]
    assert copy.ended_at == pytest.approx(ARRIVAL, abs=0.5)
    assert copy.error is None


async def test_the_log_of_a_job_that_ended_long_ago_is_not_awaited() -> None:
    """For example, a sensor waits for a job that ended yesterday."""
    logs = Logs(size=2)
    logs.write("a", 0, *numbered(9))
    copy = Subscriber(logs.reader(), "a")
    copy.stream.end(now() - 3600)
    await until(1)
    assert copy.lines == numbered(9)
    assert copy.ended_at is not None


async def test_a_line_between_the_last_two_calls_is_not_lost() -> None:
    """The end is a call whose token repeats, not one that returns few lines."""
    logs = Logs()
    logs.write("a", ARRIVAL - 0.01, "late")
    copy = Subscriber(logs.reader(1), "a")
    copy.stream.end(0)
    await until(30)
    assert copy.lines == ["late"]
    assert copy.ended_at is not None


async def test_a_missing_stream_is_reported_once_and_read_when_it_appears() -> None:
    """It may appear with the first line of the job."""
    logs = Logs()
    copy = Subscriber(logs.reader(), "a")
    await until(50)
    assert copy.missing == []
    await until(200)
    assert [text for _, text in copy.missing] == ["no such stream"]
    logs.write("a", 200, "at last")
    await until(220)
    assert copy.lines == ["at last"]
    await stop(copy)


async def test_a_stream_that_never_appears_is_reported_at_the_end() -> None:
    """This includes a job that ends before missing streams are reported."""
    copy = Subscriber(Logs().reader(), "a")
    copy.stream.end(1)
    await until(30)
    assert [text for _, text in copy.missing] == ["no such stream"]
    assert copy.ended_at is not None


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.TRANSIENT])
async def test_a_transient_failure_loses_nothing(fault: Fault) -> None:
    """This holds for any number of failures."""
    logs = Logs()
    logs.write("a", 0, "first")
    logs.plan.extend(CallError(fault, "scripted") for _ in range(20))
    copy = Subscriber(logs.reader(), "a")
    await until(700)
    assert copy.lines == ["first"]
    assert copy.error is None
    await stop(copy)


async def test_a_denied_stream_ends_with_the_error() -> None:
    """It ends after a while, because a policy may be being replaced; other streams continue."""
    logs = Logs()
    logs.plan.extend(CallError(Fault.DENIED, "not allowed") for _ in range(MAX_REFUSALS))
    reader = logs.reader()
    denied = Subscriber(reader, "a")
    await until(120)
    assert denied.error is not None
    assert "not allowed" in str(denied.error)
    assert len(logs.calls) == MAX_REFUSALS


async def test_an_expired_token_continues_at_the_time_of_the_last_line() -> None:
    """Tokens expire after 24 hours. What was written in the same millisecond is repeated."""
    logs = Logs()
    logs.write("a", 0, "first")
    logs.write("a", 1, "second")
    logs.write("a", 30, "third")
    copy = Subscriber(logs.reader(), "a")
    await until(20)
    logs.expired = {"2"}
    await until(60)
    assert copy.lines == ["first", "second", "second", "third"]
    await stop(copy)


async def test_a_position_continues_where_another_reader_ended() -> None:
    """No line is lost when the triggerer restarts."""
    logs = Logs()
    logs.write("a", 0, *numbered(5))
    first = Subscriber(logs.reader(), "a")
    await until(1)
    await stop(first)
    logs.write("a", 1, "more")
    second = Subscriber(logs.reader(), "a", first.position)
    await until(5)
    assert second.lines == ["more"]
    await stop(second)


async def test_the_last_subscription_ends_the_reader() -> None:
    """This also holds while it waits for the rate limit; another subscription needs another reader."""
    logs = Logs()
    closed: list[float] = []
    reader = logs.reader(0.01, close=lambda: closed.append(now()))
    copies = [Subscriber(reader, name) for name in "ab"]
    await until(5)
    await stop(copies[0])
    assert closed == []
    await stop(copies[1])
    assert closed == [5]
    assert reader.ended
    with pytest.raises(RuntimeError):
        reader.subscribe("c")


async def test_a_bug_in_reading_ends_the_stream_and_not_the_reader() -> None:
    """An unreadable response only ends the copy of one stream."""
    logs = Logs()
    logs.write("a", 0, "line")
    logs.plan.extend(RuntimeError("scripted") for _ in range(MAX_REFUSALS))
    reader = logs.reader()
    broken = Subscriber(reader, "a")
    await until(100)
    assert "RuntimeError" in str(broken.error)


async def test_a_cancelled_call_is_repeated() -> None:
    """A thread pool that is shut down cancels its calls, which must not end a stream."""

    class Cancelled(Logs):
        async def fetch(self, stream: str, position: Position) -> Page:
            if not self.calls:
                self.calls.append((now(), stream))
                raise asyncio.CancelledError
            return await super().fetch(stream, position)

    logs = Cancelled()
    logs.write("a", 0, "line")
    copy = Subscriber(logs.reader(), "a")
    await until(10)
    assert copy.lines == ["line"]
    await stop(copy)


async def test_a_reader_that_crashes_ends_its_streams() -> None:
    """Otherwise their tasks would wait forever."""

    class Broken:
        async def acquire(self) -> float:
            raise RuntimeError("scripted")

    copy = Subscriber(LogReader(Logs().fetch, Broken()), "a")
    await until(1)
    assert "RuntimeError" in str(copy.error)


async def test_the_reader_runs_in_a_context_of_its_own() -> None:
    """Otherwise its log lines would go to the log of the task that subscribed first."""
    of_task: contextvars.ContextVar[str] = contextvars.ContextVar("of_task", default="none")
    seen: list[str] = []

    async def fetch(_: str, position: Position) -> Page:
        seen.append(of_task.get())
        return Page((), position)

    of_task.set("first task")
    clock: Callable[[], float] = asyncio.get_running_loop().time
    copy = Subscriber(LogReader(fetch, RateLimiter(25, clock=clock)), "a")
    await until(1)
    assert seen == ["none"]
    await stop(copy)
