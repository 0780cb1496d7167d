"""Notes for the tab: plain JSON of limited size, with all data for the page."""

from __future__ import annotations

import json
from typing import Any

from airflow_jobflow.jobs.causes import OUT_OF_MEMORY
from airflow_jobflow.jobs.model import ArrayProgress, JobState, Snapshot
from airflow_jobflow.ui import notes


def snapshot(job_id: str = "j", state: JobState = JobState.RUNNING, **more: Any) -> Snapshot:
    """Return the snapshot of a job."""
    return Snapshot(job_id, state, more.pop("status", state.value), **more)


def of_jobs(*snapshots: Snapshot, **more: Any) -> dict[str, Any]:
    """Return a note about jobs."""
    given: dict[str, Any] = {"seen": {}, "links": {}, "failed": {}, "buttons": {}, "total": len(snapshots)} | more
    return notes.of_jobs("batch", snapshots, given.pop("total"), **given)


def test_a_note_is_plain_json() -> None:
    """Airflow stores a tuple in another format, which the page cannot read."""
    note = of_jobs(snapshot(), seen={"j": (("RUNNING", "t"),)}, links={"j": {"console": "https://c"}})
    assert json.loads(json.dumps(note)) == note
    assert json.dumps(note).count("[") == 3
    assert type(note["jobs"][0]["seen"][0]) is list


def test_a_digest_does_not_depend_on_the_time() -> None:
    """Otherwise a trigger would repeat the worker's note."""
    first = of_jobs(snapshot(), seen={"j": (("RUNNING", "t1"),)}, buttons={"key": "https://c"})
    later = {**of_jobs(snapshot(), seen={"j": (("RUNNING", "t2"),)}, buttons={"key": "https://c"}), "at": "later"}
    assert notes.digest(first) == notes.digest(json.loads(json.dumps(later)))
    others = (
        of_jobs(snapshot(status="STARTING"), buttons={"key": "https://c"}),
        of_jobs(snapshot(), buttons={"key": "https://d"}),
        of_jobs(snapshot(array=ArrayProgress(2, running=1)), buttons={"key": "https://c"}),
    )
    assert len({notes.digest(each) for each in (first, *others)}) == 4


def test_a_note_about_thousands_of_jobs_is_limited() -> None:
    """The first jobs are listed, and all are counted."""
    states = [JobState.SUCCEEDED] * 3000 + [JobState.FAILED] * 2000
    note = of_jobs(*(snapshot(f"j{number}", state, reason="x" * 9000) for number, state in enumerate(states)))
    assert len(note["jobs"]) == notes.JOBS
    assert (note["total"], note["counts"]) == (5000, {"SUCCEEDED": 3000, "FAILED": 2000})
    assert len(json.dumps(note)) < 400_000


def test_an_array_has_one_character_per_child() -> None:
    """Known failures are included while it runs, and counts always."""
    counts = ArrayProgress(10_000, running=5, succeeded=7000, failed=1500)
    failed = {index: snapshot(f"j:{index}", JobState.FAILED, reason="no") for index in range(0, 6000, 4)}
    note = of_jobs(snapshot(state=JobState.SUBMITTED, array=counts), failed=failed)
    array = note["array"]
    assert array["cells"][:5] == "F...F"
    assert len(array["cells"]) == 10_000
    assert array["counts"] == {"succeeded": 7000, "failed": 1500, "running": 5}
    assert [each["index"] for each in array["failed_jobs"]] == list(range(0, 4000, 4))
    assert len(json.dumps(note)) < 500_000


def test_a_note_about_a_map_lists_only_failures() -> None:
    """For a small map, it also has the outcomes of successful items."""
    lines = [
        json.dumps([index, snapshot(f"j{index}", state, exit_code=code).to_dict()])
        for index, state, code in ((2, JobState.FAILED, 3), (0, JobState.SUCCEEDED, 0))
    ]
    note = notes.of_map("ecs", "resize", "SRF-", lines, ["c", "s", None])
    assert note["array"]["cells"] == "SRF-"
    assert "started_again" not in note["array"]
    again = notes.of_map("ecs", "resize", "SRF-", lines, ["c", "s", None], started_again="1 started again")
    assert again["array"]["started_again"] == "1 started again"
    assert [(each["index"], each["exit_code"]) for each in note["array"]["failed_jobs"]] == [(2, 3)]
    assert (note["jobs"][0]["name"], note["jobs"][0]["state"], note["jobs"][0]["created_at"]) == (
        "resize",
        "RUNNING",
        "c",
    )


def outcome(**more: Any) -> dict[str, Any]:
    """Return what an error knows about a job."""
    return {
        "job_id": "j",
        "state": "FAILED",
        "status": "FAILED",
        "service": "batch",
        "reason": None,
        "array": None,
    } | more


def test_a_note_about_a_failed_array_has_its_failed_children() -> None:
    """An exception leaves no return value."""
    array = {"size": 5, "succeeded": 3, "failed": 2, "failed_indexes": [1, 4]}
    children = {4: snapshot("j:4", JobState.FAILED, exit_code=1), 1: snapshot("j:1", JobState.FAILED, exit_code=2)}
    note = notes.of_failure(
        "batch", "x" * 99_999, outcomes=[outcome(array=array)], diagnosis=OUT_OF_MEMORY, children=children
    )
    assert note["final"]
    assert note["array"]["cells"] == "SFSSF"
    assert [each["exit_code"] for each in note["array"]["failed_jobs"]] == [2, 1]
    assert note["diagnosis"]["cause"] == "out_of_memory"
    assert len(note["error"]) == notes.MAX_ERROR


def test_if_failed_children_cannot_be_listed_all_are_unknown() -> None:
    """They are not shown as successful."""
    array = {"size": 3, "succeeded": 1, "failed": 2, "failed_indexes": []}
    assert notes.of_failure("batch", "e", outcomes=[outcome(array=array)])["array"]["cells"] == "..."


def test_a_note_about_a_failed_map_has_its_statuses() -> None:
    """It also has the outcomes of failed items."""
    failed = [{"index": 1, **outcome(exit_code=7)}]
    whole = outcome(array={"size": 2}, statuses="SF", failed=failed, outcomes=[None, None])
    array = notes.of_failure("ecs", "e", outcomes=[whole])["array"]
    assert (array["cells"], array["failed_jobs"][0]["exit_code"]) == ("SF", 7)


def test_without_an_outcome_the_triggers_event_is_used() -> None:
    """For example, a deadline has passed, a job is missing, or a map could not continue."""
    seen = {"job_ids": ["a", "b"], "jobs": {"a": snapshot("a").to_dict()}}
    note = notes.of_failure("batch", "too late", event=seen)
    assert (note["total"], [each["id"] for each in note["jobs"]]) == (2, ["a"])
    line = json.dumps([1, snapshot("k", JobState.FAILED).to_dict()])
    note = notes.of_failure("batch", "e", event={"statuses": "SF-"}, lines=[line])
    assert note["array"]["cells"] == "SF-"
    assert note["array"]["failed_jobs"][0]["id"] == "k"
    assert notes.of_failure("batch", "refused")["jobs"] == []
