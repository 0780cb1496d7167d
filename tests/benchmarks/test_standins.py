"""The metered stand-ins for AWS that the benchmarks use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.figures import Scenario
from benchmarks.stack.jobs import index_of, job_id
from benchmarks.stack.standin import SUBMITTED, Jobs, Planned
from benchmarks.standin import shapes
from benchmarks.standin.batch import MOST
from benchmarks.standin.script import Script


def test_every_response_matches_the_models_of_aws() -> None:
    """Botocore ignores unknown members, so an invalid response would go unnoticed."""
    assert shapes.check() > 500


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda detail: detail | {"jobColour": "red"}, "jobColour is unknown"),
        (lambda detail: detail | {"createdAt": "now"}, "createdAt is 'now', not a long"),
        (lambda detail: detail | {"createdAt": True}, "createdAt is True, not a long"),
        (lambda detail: detail | {"isCancelled": 1}, "isCancelled is 1, not a boolean"),
        (lambda detail: detail | {"status": "DONE"}, "status is 'DONE', not one of"),
        (lambda detail: {name: value for name, value in detail.items() if name != "jobQueue"}, "jobQueue is missing"),
    ],
    ids=["unknown", "of another type", "a boolean", "a number", "no such word", "left out"],
)
def test_the_check_finds_invalid_responses(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], dict[str, Any]], words: str
) -> None:
    """Otherwise the check would be useless."""
    told = Jobs.detail

    def detail(jobs: Jobs, job: Script, status: str) -> dict[str, Any]:
        return change(told(jobs, job, status))

    monkeypatch.setattr(Jobs, "detail", detail)
    monkeypatch.setattr(shapes, "SERVICES", {"stack": Jobs})
    with pytest.raises(ValueError, match=words):
        shapes.check()


class Clock:
    """The time of the stand-in, in seconds since the epoch."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that a test sets."""
    made = Clock()
    monkeypatch.setattr(time, "time", made)
    return made


class Client:
    """The requests of the stack and the benchmark to the stand-in of the stack."""

    def __init__(self) -> None:
        self._aws = Planned(Scenario(waits=0, shortest=5, longest=5, interval=0, service="stack"))

    def request(self, path: str, **body: Any) -> Any:
        """Request a path, and return the response."""
        answer = self._aws.answer(f"POST {path} HTTP/1.1\r\nhost: aws".encode(), json.dumps(body).encode())
        assert answer
        assert not answer.error
        return json.loads(answer.body)

    def submit(self, index: int) -> str:
        """Start a job for a task instance, and return its id."""
        body = {"jobName": "bench", "jobQueue": "q", "jobDefinition": "d", "parameters": {"index": str(index)}}
        return str(self.request("/v1/submitjob", **body)["jobId"])

    def statuses(self, *ids: str) -> dict[str, str]:
        """Describe jobs, and return the status of each known one."""
        return {job["jobId"]: job["status"] for job in self.request("/v1/describejobs", jobs=ids)["jobs"]}

    def ends(self) -> dict[int, float]:
        """Return the end of the job of each task instance."""
        return {index: end for index, _, end in self.request("/state")["jobs"]}


@pytest.fixture
def aws(clock: Clock) -> Client:
    """A stand-in whose jobs all take ten seconds."""
    made = Client()
    made.request("/plan", shortest=10, longest=10)
    return made


def test_a_sensors_job_starts_when_it_is_first_described(aws: Client, clock: Clock) -> None:
    """A sensor that starts late also has to wait."""
    clock.now = 5000.0
    assert aws.statuses(job_id(3), job_id(4)) == {job_id(3): "RUNNABLE", job_id(4): "RUNNABLE"}
    clock.now = 5009.0
    assert aws.statuses(job_id(3), job_id(5)) == {job_id(3): "RUNNING", job_id(5): "RUNNABLE"}
    clock.now = 5010.0
    assert aws.statuses(job_id(3))[job_id(3)] == "SUCCEEDED"
    assert aws.ends() == {3: 5010.0, 4: 5010.0, 5: 5019.0}


def test_duplicate_submits_are_counted(aws: Client) -> None:
    """Each task counts once; jobs of operators and sensors are distinguished."""
    ids = [aws.submit(index) for index in (0, 1, 1, 1, 2, 2)]
    assert len({*ids, job_id(0), job_id(1), job_id(2)}) == 9
    assert aws.request("/state")["twice"] == 2
    assert len(aws.statuses(*ids)) == 6
    aws.request("/plan", shortest=10, longest=10)
    assert aws.request("/state")["twice"] == 0


def test_a_job_that_was_never_submitted_is_not_found(aws: Client) -> None:
    """A side with a wrong id would wait forever, as with AWS."""
    made_up = job_id(7 + SUBMITTED)
    assert aws.statuses(made_up, aws.submit(8)).keys() == {job_id(8 + SUBMITTED)}
    assert index_of(made_up) == 7 + SUBMITTED


def test_a_plan_sets_the_durations_and_drops_earlier_jobs(aws: Client, clock: Clock) -> None:
    """Durations depend on seed and index only, so they are the same for both sides."""

    def planned(*indexes: int) -> dict[int, float]:
        aws.request("/plan", shortest=60, longest=90, seed=1)
        for index in indexes:
            aws.submit(index)
        return {index: end - clock.now for index, end in aws.ends().items()}

    first = planned(*range(50))
    assert all(60 <= seconds <= 90 for seconds in first.values())
    assert len(set(first.values())) == 50
    assert planned(*reversed(range(50))) == first
    assert aws.request("/state")["calls"] == {"SubmitJob": 50}


def test_running_jobs_end_one_after_the_other_on_request(aws: Client, clock: Clock) -> None:
    """Ended jobs do not change."""
    aws.statuses(job_id(9))
    clock.now += 20
    aws.statuses(*map(job_id, range(4)))
    aws.request("/end", seconds=8)
    assert aws.ends() == {9: 1010.0, 0: 1022.0, 1: 1024.0, 2: 1026.0, 3: 1028.0}


def test_more_than_a_hundred_jobs_in_a_call_are_rejected(aws: Client) -> None:
    """Otherwise a side with larger calls would look better than it is."""
    ids = [job_id(index) for index in range(MOST + 1)]
    with pytest.raises(AssertionError):
        aws.statuses(*ids)
    assert aws.statuses(*ids[:MOST]).keys() == set(ids[:MOST])


def test_calls_are_counted_by_operation_and_second(aws: Client, clock: Clock) -> None:
    """Requests of the benchmark itself are not counted."""
    for _ in range(3):
        aws.statuses(job_id(0))
    clock.now += 2
    aws.statuses(job_id(0))
    aws.submit(1)
    state = aws.request("/state")
    assert state["calls"] == {"DescribeJobs": 4, "SubmitJob": 1}
    assert (state["busiest"], state["describes"]) == (3, [0.0, 0.0, 0.0, 2.0])
