"""Log tails: pages, late lines, and lines that cannot be shown."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import logs
from airflow_jobflow.jobs.model import LogStream
from tests.unit.jobs.scripted_calls import ScriptedClient, refused

STREAM = LogStream("/aws/batch/job", "hello/default/1")


class Logs(ScriptedClient):
    """A log stream in pages, newest first; an exception in place of a page is raised once."""

    def __init__(self, *pages: list[str] | Exception) -> None:
        self.pages = list(pages)
        self.limits: list[int] = []

    def get_log_events(self, **request: Any) -> dict[str, Any]:
        """Return the page of a token. After the last page, the token repeats, as in AWS."""
        assert (request["logGroupName"], request["logStreamName"]) == (STREAM.group, STREAM.stream)
        assert request["startFromHead"] is False
        self.limits.append(request["limit"])
        number = int(request.get("nextToken", "b/0").removeprefix("b/"))
        page = self.pages[number] if number < len(self.pages) else []
        if isinstance(page, Exception):
            del self.pages[number]
            raise page
        following = min(number + 1, len(self.pages))
        events = [{"message": message} for message in page[-request["limit"] :]]
        return {"events": events, "nextBackwardToken": f"b/{following}", "nextForwardToken": "f/0"}


def tail(client: Logs, count: int = 20) -> list[str]:
    """Read the last lines without waiting."""
    return logs.last_lines(client, STREAM, count, sleep=lambda _: None)


@pytest.mark.parametrize(
    ("pages", "lines"),
    [
        ([["one", "two", "three"]], ["two", "three"]),
        ([[], ["one", "two"]], ["one", "two"]),
        ([["two"], ["one"]], ["one", "two"]),
        ([[], [], ["two"], [], ["one"], ["zero"]], ["one", "two"]),
        ([["one"]], ["one"]),
    ],
)
def test_an_empty_or_partial_page_is_not_the_end(pages: list[list[str]], lines: list[str]) -> None:
    """CloudWatch splits a stream by time, so the lines may be on any page."""
    assert tail(Logs(*pages), 2) == lines


def test_a_stream_is_read_no_further_than_needed() -> None:
    """A stream may have many pages, and one call returns at most 10,000 events."""
    client = Logs(["b", "c"], ["a"], ["never"])
    assert tail(client, 3) == ["a", "b", "c"]
    assert client.limits == [3, 1]
    client = Logs(["x"])
    tail(client, 20_000)
    assert client.limits[0] == 10_000


def test_reading_stops_even_if_tokens_never_repeat() -> None:
    """Reading a log ends, whatever the responses."""
    client = Logs(*[[]] * 1_000)
    assert tail(client)[0].startswith("(no lines in stream hello/default/1")
    assert len(client.limits) == 2 * logs.MAX_PAGES


class Late(Logs):
    """A log whose lines arrive during a pause."""

    def __init__(self, first: list[str] | Exception, then: list[str]) -> None:
        super().__init__(first)
        self.then = then
        self.waited: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Let the lines arrive."""
        self.waited.append(seconds)
        self.pages = [self.then]


@pytest.mark.parametrize("first", [[], refused("ResourceNotFoundException", "GetLogEvents")])
def test_a_log_that_arrives_late_is_awaited_once(first: list[str] | Exception) -> None:
    """The lines, or even the stream, may arrive seconds after the end of the job."""
    client = Late(first, ["late"])
    assert logs.last_lines(client, STREAM, 5, sleep=client.sleep) == ["late"]
    assert client.waited == [logs.ARRIVAL]


def test_existing_log_lines_are_not_awaited() -> None:
    """Only an empty log may be late, and not that of a running job."""
    client = Late(["there"], [])
    logs.last_lines(client, STREAM, 5, sleep=client.sleep)
    client.pages = [[]]
    logs.last_lines(client, STREAM, 5, 0.0, sleep=client.sleep)
    assert client.waited == []


def test_an_empty_log_is_reported_with_its_stream() -> None:
    """Otherwise nobody knows whether the job wrote nothing or its log was not found."""
    assert tail(Logs([])) == ["(no lines in stream hello/default/1 of log group /aws/batch/job: it is empty)"]
    missing = refused("ResourceNotFoundException", "GetLogEvents", "The specified log stream does not exist.")
    (line,) = tail(Logs(missing, missing))
    assert line.startswith("(no lines in stream hello/default/1 of log group /aws/batch/job: ")
    assert "The specified log stream does not exist." in line


def test_a_log_that_cannot_be_read_is_an_error() -> None:
    """The caller reports it, because it knows whether the call is retried."""
    with pytest.raises(CallError):
        tail(Logs(refused("AccessDeniedException", "GetLogEvents")))


def test_an_error_is_no_longer_than_16_kb() -> None:
    """Twenty lines of 250 KB would make an error of 5 MB in logs, XComs and notifications."""
    shown = tail(Logs([f"{number:02} {'x' * 250_000}" for number in range(20)]))
    assert shown[0] == "(shortened to 16 KB: 12 earlier lines left out, 8 lines cut)"
    assert [line[:2] for line in shown[1:]] == [f"{number:02}" for number in range(12, 20)]
    assert all(line.endswith("…") for line in shown[1:])
    assert sum(len(line.encode()) for line in shown[1:]) <= logs.MAX_BYTES


def test_one_long_line_does_not_hide_the_others() -> None:
    """The line before a dump of 1 MB often explains the dump."""
    shown = tail(Logs(["before", "y" * 1_000_000, "after"]))
    assert shown[0] == "(shortened to 16 KB: 0 earlier lines left out, 1 lines cut)"
    assert (shown[1], shown[3]) == ("before", "after")
    assert len(shown[2]) < 2_100


def test_lines_that_fit_are_not_changed() -> None:
    """A line of 10 KB, such as a JSON document, is shown completely."""
    line = "ü" * 5_000
    assert tail(Logs(["short", line])) == ["short", line]


def test_a_cut_never_splits_a_character() -> None:
    """Half of a multi-byte character would be unreadable."""
    shown = tail(Logs(["€" * 100_000]))
    assert set(shown[1]) == {"€", "…"}
    assert len(shown[1].encode()) <= logs.MAX_LINE_BYTES


def test_a_binary_line_can_be_stored_and_shown() -> None:
    """PostgreSQL rejects NUL, JSON parsers reject half a surrogate pair, and terminals execute escape sequences."""
    (line,) = tail(Logs(["\x1b[31mELF\x1b[0m\x00\x01\ud83d\tend\x85\n"]))
    assert line == "ELF\ufffd\ufffd\ufffd\tend\ufffd"
    assert line.encode()


def test_a_message_with_several_lines_is_split() -> None:
    """An event may be a traceback, or a progress bar that overwrites itself."""
    assert tail(Logs(["a\nb\r\nc\n", " 1%\r99%\r100%\r\n"]), 3) == ["b", "c", "100%"]
    assert tail(Logs([""])) == [""]


def test_an_event_without_a_message_is_an_empty_line() -> None:
    """The response is not parsed by botocore, so a member may be missing."""

    class NoMessage(Logs):
        def get_log_events(self, **request: Any) -> dict[str, Any]:
            return {**super().get_log_events(**request), "events": [{"timestamp": 1}]}

    assert tail(NoMessage([]), 1) == [""]
