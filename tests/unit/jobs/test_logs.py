"""Log tails: pages, late lines, and lines that cannot be shown."""

from __future__ import annotations

import json
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


# Pages from the beginning.


class Page(ScriptedClient):
    """Answers one request with a page, and records it."""

    def __init__(self, *messages: Any, token: str = "f/1", error: Exception | None = None) -> None:
        self.messages, self.token, self.error = messages, token, error
        self.request: dict[str, Any] = {}

    def get_log_events(self, **request: Any) -> dict[str, Any]:
        """Answer."""
        self.request = request
        if self.error:
            raise self.error
        events = [{"timestamp": 1000 + number, "message": text} for number, text in enumerate(self.messages)]
        return {"events": events, "nextForwardToken": self.token}


def test_a_page_has_the_lines_the_next_token_and_the_newest_time() -> None:
    """All that is needed to go on, now and after a restart."""
    client = Page("one", "two\nthree\n")
    assert logs.next_page(client, STREAM, "f/0", 7) == logs.LogPage(["one", "two", "three"], "f/1", 1001)
    assert client.request["nextToken"] == "f/0"
    assert "startTime" not in client.request


def test_without_a_token_a_page_starts_at_a_time() -> None:
    """A token expires after 24 hours, a time does not."""
    client = Page()
    assert logs.next_page(client, STREAM, None, 7) == logs.LogPage([], "f/1", 0)
    assert client.request["startTime"] == 7
    assert client.request["startFromHead"] is True


def test_lines_that_a_log_cannot_hold_are_made_printable() -> None:
    """A megabyte in one line, bytes that are no text, colours, and a progress bar."""
    long, *rest = logs.next_page(
        Page("x" * 1_000_000, "a\x00b\ud800", "\x1b[31mred\x1b[0m", "10%\r20%\r30%", None), STREAM, None, 0
    ).lines
    assert long.endswith("… (shortened; the line has 1,000,000 bytes)")
    assert len(long.encode()) < 8_300
    assert rest == ["a\ufffdb\ufffd", "red", "30%", ""]


def test_a_page_of_a_stream_that_does_not_exist_says_why() -> None:
    """It may appear with the first line of the job; any other error is raised."""
    missing = Page(error=refused("ResourceNotFoundException", "GetLogEvents", "The log group does not exist."))
    page = logs.next_page(missing, STREAM, None, 7)
    assert (page.lines, page.token, page.newest) == ((), None, 7)
    assert "The log group does not exist." in page.missing
    with pytest.raises(CallError):
        logs.next_page(Page(error=refused("AccessDeniedException", "GetLogEvents")), STREAM, None, 0)


POD_STREAM = LogStream("/aws/containerinsights/c/application", "n-application.var.log.containers.p_s_main-i.log")


class PodLog(ScriptedClient):
    """The log of a pod as Fluent Bit writes it; or no log.

    :param messages: of the events.
    """

    def __init__(self, *messages: str) -> None:
        self.messages = messages

    def get_log_events(self, **_: Any) -> dict[str, Any]:
        """Return the events."""
        if not self.messages:
            raise refused("ResourceNotFoundException", "GetLogEvents", "The specified log group does not exist.")
        events = [{"message": message, "timestamp": 1} for message in self.messages]
        return {"events": events, "nextForwardToken": "f/1", "nextBackwardToken": "b/1"}


def test_the_lines_of_a_pod_are_those_that_it_wrote() -> None:
    """Fluent Bit wraps each in JSON; one that is configured otherwise does not."""
    written = [
        {"time": "t", "stream": "stdout", "_p": "F", "log": "hello", "kubernetes": {"pod_name": "p"}},
        {"time": "t", "log": '{"level": "info"}\n', "log_processed": {"level": "info"}},
        {"other": 1},
        [1],
    ]
    client = PodLog(*map(json.dumps, written), "plain", 'JOBFLOW_RESULT {"a": 1}')
    lines = ["hello", '{"level": "info"}', '{"other": 1}', "[1]", "plain", 'JOBFLOW_RESULT {"a": 1}']
    assert logs.last_lines(client, POD_STREAM, 6, 0.0) == lines
    assert list(logs.next_page(client, POD_STREAM, None, 0).lines) == lines
    assert logs.last_line_with(client, POD_STREAM, '{"level') == '{"level": "info"}'
    assert logs.last_lines(client, STREAM, 6, 0.0)[0].startswith('{"time"')


def test_a_pod_without_a_log_says_where_it_was_looked_for() -> None:
    """Batch does not know whether the cluster collects logs."""
    expected = (
        "The specified log group does not exist. Batch does not say where pods log; this is where Fluent Bit writes if "
        "the cluster has Container Insights."
    )
    [line] = logs.last_lines(PodLog(), POD_STREAM, 6, 0.0)
    assert line.startswith(f"(no lines in {POD_STREAM}: ")
    assert line.endswith(f"{expected})")
    assert logs.next_page(PodLog(), POD_STREAM, None, 0).missing.endswith(expected)
    assert logs.next_page(PodLog(), STREAM, None, 0).missing.endswith("The specified log group does not exist.")
