"""Logs as CloudWatch returns them, and the log lines in an operator's error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.exceptions import JobFailed
from airflow_jobflow.local import CannedResponse, Faults
from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.logs import page
from airflow_jobflow.operators.batch import BatchJobOperator

NOT_YET = CannedResponse(
    code="ResourceNotFoundException",
    message="The specified log stream does not exist.",
    actions=("GetLogEvents",),
    calls=1,
)

EMPTY = CannedResponse(
    body='{"events": [], "nextBackwardToken": "b/10"}', status=200, actions=("GetLogEvents",), calls=1
)


@pytest.fixture
def failing(own_kit: Any, here: Any, context: Any) -> Any:
    """Run a task whose job writes ten lines and fails, and return its error."""
    here(own_kit.aws)
    definition = own_kit.define(["sh", "-c", "for i in 0 1 2 3 4 5 6 7 8 9; do echo line-$i; done; exit 3"])

    def run(faults: Faults) -> str:
        own_kit.aws.set_faults(faults)
        operator = BatchJobOperator(
            task_id="t",
            job_name="j",
            job_queue=own_kit.queue,
            job_definition=definition,
            aws_conn_id=None,
            deferrable=False,
            number_logs_exception=8,
        )
        with pytest.raises(JobFailed) as error:
            operator.execute(context)
        return str(error.value)

    return run


@pytest.mark.parametrize(
    "faults",
    [
        Faults(log_page=3),
        Faults(log_empty_pages=2),
        Faults(log_page=1, log_empty_pages=3),
        Faults(log_page=4, respond_with=(EMPTY,)),
    ],
)
def test_pages_that_are_partial_or_empty_do_not_shorten_an_error(failing: Any, faults: Faults) -> None:
    """CloudWatch splits a stream by time, so the last lines may be on other pages."""
    message = failing(faults)
    assert [f"line-{index}" for index in range(2, 10)] == [
        line.removeprefix("  | ") for line in message.splitlines() if line.startswith("  | ")
    ]


@pytest.mark.parametrize("faults", [Faults(log_delay=1.0), Faults(respond_with=(NOT_YET,))], ids=["lines", "stream"])
def test_the_log_of_a_short_job_that_arrives_late_is_awaited(
    failing: Any, monkeypatch: pytest.MonkeyPatch, faults: Faults
) -> None:
    """The job has ended before CloudWatch has its lines."""
    monkeypatch.setattr("airflow_jobflow.jobs.logs.ARRIVAL", 1.1)
    assert "  | line-9" in failing(faults)


def test_an_error_without_log_lines_names_the_stream(failing: Any, own_kit: Any) -> None:
    """The reader can look there later."""
    message = failing(Faults(log_delay=3600))
    (stream,) = own_kit.logs.describe_log_streams(logGroupName="/aws/batch/job")["logStreams"]
    assert f"(no lines in stream {stream['logStreamName']} of log group /aws/batch/job: it is empty)" in message


@given(st.integers(0, 12), st.integers(1, 5), st.integers(0, 3), st.sampled_from("bf"))
def test_following_a_token_until_it_repeats_finds_every_event_once(
    count: int, size: int, empty: int, direction: str
) -> None:
    """This holds in both directions, for all sizes of pages."""
    events = [{"message": str(number)} for number in range(count)]
    token = f"b/{count}" if direction == "b" else "f/0"
    name = "nextBackwardToken" if direction == "b" else "nextForwardToken"
    read: list[dict[str, Any]] = []
    while True:
        answer = page(events, token, size, empty)
        assert len(answer["events"]) <= size
        read = answer["events"] + read if direction == "b" else read + answer["events"]
        if answer[name] == token:
            break
        token = answer[name]
    assert read == events


def test_reading_can_change_its_direction() -> None:
    """A reader that changes the direction gets the same events again, and misses none."""
    events = [{"message": str(number)} for number in range(6)]
    last = page(events, "b/6", 2, 0)
    before = page(events, last["nextBackwardToken"], 2, 0)
    assert page(events, before["nextForwardToken"], 2, 0)["events"] == last["events"]


@pytest.mark.parametrize("token", ["", "b", "x/1", "b/-1", "b/1/2/3"])
def test_a_token_that_was_not_issued_is_rejected(token: str) -> None:
    """CloudWatch does the same."""
    with pytest.raises(AwsError, match="nextToken is invalid"):
        page([], token, 1, 0)


def test_without_a_fault_moto_handles_logs(own_kit: Any) -> None:
    """Only the faults are implemented here."""
    own_kit.aws.set_faults(Faults(log_page=1))
    job_id = own_kit.sh("echo a; echo b")
    stream = own_kit.wait(job_id)["container"]["logStreamName"]
    where = {"logGroupName": "/aws/batch/job", "logStreamName": stream}
    assert [each["message"] for each in own_kit.logs.get_log_events(**where)["events"]] == ["b"]
    own_kit.aws.set_faults(Faults())
    assert [each["message"] for each in own_kit.logs.get_log_events(**where)["events"]] == ["a", "b"]
    own_kit.aws.set_faults(Faults(log_page=1))
    with pytest.raises(own_kit.logs.exceptions.ResourceNotFoundException):
        own_kit.logs.get_log_events(**{**where, "logStreamName": "none"})
