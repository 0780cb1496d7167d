"""The attempts at the items of a map: their number and order, whatever triggers crash and take over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_jobflow.jobs.array import Tolerance
from airflow_jobflow.jobs.changes import Change
from airflow_jobflow.jobs.map_statuses import FAILED, SUCCEEDED
from airflow_jobflow.jobs.maps import Found, Start, newest_first
from airflow_jobflow.maps.state import MapState

BY_ITSELF = "by itself"
"""The end of a job that failed for a cause without a rule."""


@dataclass
class Job:
    """A job in AWS.

    :param start: what started it.
    :param end: the letter of the cause of its failure, or how it ended otherwise; empty while it runs.
    """

    start: Start
    end: str = ""


@dataclass
class Story:
    """A map in AWS, and the trigger that runs it.

    :param size, attempts, max_concurrency: of the map.
    """

    size: int
    attempts: int
    max_concurrency: int
    jobs: dict[str, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = self._new_state()

    def _new_state(self) -> MapState:
        self.recorded: set[str] = set()
        return MapState(
            self.size,
            range(self.size),
            max_concurrency=self.max_concurrency,
            tolerance=Tolerance(self.size),
            attempts=self.attempts,
        )

    def start(self, *, is_recorded: bool = True) -> None:
        """Start the next job, if there is one. The trigger may crash before it records it."""
        if start := self.state.next_start():
            name = f"{start.index}-{start.history}"
            assert name not in self.jobs, "an attempt was started twice"
            assert start.attempt <= self.attempts
            self.jobs[name] = Job(start)
            running = [job for job in self.jobs.values() if not job.end and job.start.index == start.index]
            assert len(running) == 1, "an item has two jobs"
            if is_recorded:
                self.state.record_started(start.index, name)
                assert len(self.state.running) <= self.max_concurrency
        if not is_recorded:
            self.take_over()

    def record_end(self, name: str) -> None:
        """Record the end of a job as the tracker does."""
        assert name not in self.recorded, "an end was recorded twice, so its usage counts twice"
        self.recorded.add(name)
        state, end = self.state, self.jobs[name].end
        index, history = state.last_start(name).index, self.jobs[name].start.history
        assert [each["attempt"] for each in state.changes_of(index)] == list(range(2, len(history) + 2))
        if len(end) == 1 and end != SUCCEEDED and state.has_attempt_left(name):
            state.start_again(name, Change(end, {"memory": 2}, {"memory": 2}, "more memory"))
        else:
            state.record_end(name, name, SUCCEEDED if end == SUCCEEDED else FAILED)

    def take_over(self) -> None:
        """Continue in another trigger, which has a checkpoint and lists the jobs."""
        statuses = self.state.statuses
        self.state = self._new_state()
        self.state.restore(statuses, {})
        self.list_again()

    def list_again(self) -> None:
        """Record what a listing finds."""
        listed = [
            Found(job.start.index, name, job.start.history, ended=bool(job.end)) for name, job in self.jobs.items()
        ]
        for each in newest_first(reversed(listed)):
            self.state.record_found(each)
        self.state.drop_found()

    def running(self) -> list[str]:
        """Return the jobs that run in AWS."""
        return [name for name, job in self.jobs.items() if not job.end]

    def ended(self) -> list[str]:
        """Return the jobs whose ends are to be recorded."""
        return [name for name in self.state.running if self.jobs[name].end]


ENDS = st.sampled_from([SUCCEEDED, BY_ITSELF, "m", "c", "t", "i"])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data(), st.integers(1, 5), st.integers(1, 4), st.integers(1, 5))
def test_an_item_has_one_job_at_a_time_and_no_more_attempts_than_allowed(
    data: st.DataObject, size: int, attempts: int, most: int
) -> None:
    """Crashes, takeovers and listings at any moment neither repeat an attempt nor lose one."""
    story = Story(size, attempts, most)
    events = {
        "start": story.start,
        "crash": lambda: story.start(is_recorded=False),
        "take over": story.take_over,
        "list": story.list_again,
    }
    for _ in range(60):
        runs, event = story.running(), data.draw(st.sampled_from([*events, "end", "record"]))
        if event in events:
            events[event]()
        elif event == "end" and runs:
            story.jobs[data.draw(st.sampled_from(runs))].end = data.draw(ENDS)
        elif event == "record" and story.ended():
            story.record_end(data.draw(st.sampled_from(story.ended())))
    while not story.state.is_over:
        story.start()
        for job in story.jobs.values():
            job.end = job.end or data.draw(ENDS)
        for name in story.ended():
            story.record_end(name)
    for index, status in enumerate(story.state.statuses):
        of_item = [job for job in story.jobs.values() if job.start.index == index]
        assert [job.start.history for job in of_item] == [
            "".join(job.end for job in of_item[:number]) for number in range(len(of_item))
        ]
        last = of_item[-1]
        assert status == (SUCCEEDED if last.end == SUCCEEDED else FAILED)
        assert last.end in (SUCCEEDED, BY_ITSELF) or len(of_item) == attempts


def test_the_changes_of_an_item_are_known_unless_another_trigger_made_them() -> None:
    """The cause is in the history of the job, so that it is known in any case."""
    story = Story(1, 3, 1)
    story.start()
    story.jobs["0-"].end = "c"
    story.record_end("0-")
    story.start()
    story.take_over()
    story.jobs["0-c"].end = "m"
    story.record_end("0-c")
    first, second = story.state.changes_of(0)
    assert (first["attempt"], first["cause"], first["changed"]) == (2, "capacity", {})
    assert (second["attempt"], second["cause"], second["changed"]) == (3, "out_of_memory", {"memory": 2})
    assert story.state.progress() == "0 of 1 items ended, 0 failed, 1 started again (1 out of memory)"


def test_a_large_map_keeps_the_lines_of_items_that_were_started_again() -> None:
    """Their changes are part of its result."""
    lines: dict[str, Any] = {}
    for end in ("", "m"):
        story = Story(2000, 2, 1)
        story.start()
        if end:
            story.jobs["0-"].end = end
            story.record_end("0-")
            story.start()
        last = story.state.running[0]
        story.jobs[last].end = SUCCEEDED
        story.record_end(last)
        lines[end] = story.state.lines()
    assert lines == {"": [], "m": ["0-m"]}
