"""A user kills a deferred task: its job is stopped within seconds, and its final state is in the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tests.stack.errors import eventually
from tests.stack.kit import STOPPED_WITHIN, Kit, Run

LONG: Final = 600
"""The duration in seconds of a job that does not end by itself."""
JUST_STARTED: Final = 60.0
"""Maximum seconds for a stop by a triggerer that has just started: for its first request, Airflow builds an API in the
process, which takes seconds of CPU, during which no kill is seen.
"""

CROWD_PATIENCE: Final = 300.0
"""Maximum seconds for workers to start the jobs of sixty task instances, with a process each."""
CROWD_STOPPED_WITHIN: Final = 20.0
"""Maximum seconds to stop sixty jobs. One request to Airflow for each would take longer on a slow machine."""


def await_stopped(run: Run, job_id: str, within: float = STOPPED_WITHIN) -> None:
    """Wait until a job has ended, within a limit."""
    look = {each.job_id: each for each in run.started}
    assert not look[job_id].ended
    ended = lambda: job_id in {each.job_id for each in run.started if each.ended}  # noqa: E731
    eventually(ended, f"the stop of {job_id}", within, every=0.2)


KILLS: Final[Sequence[tuple[Callable[[Run], None], str]]] = (
    (lambda run: run.mark("job", "failed"), "failed"),
    (lambda run: run.mark("job", "success"), "success"),
    (lambda run: run.mark_run("failed"), "failed"),
)
"""A user's ways to kill a task, and the final state of the DAG run."""


def shows_the_end(run: Run) -> bool:
    """Return whether the Jobs tab shows the end of the job, which a triggerer reports after Airflow has killed the
    task.
    """
    note = run.noted()
    [job] = note["jobs"]
    return bool(note["final"] and job["stop_requested_at"] and job["stopped_at"])


def test_a_kill_stops_the_job(kit: Kit) -> None:
    """Its task is marked failed or success, or its run is marked failed."""
    runs = [kit.run("stack_batch", seconds=LONG) for _ in KILLS]
    jobs = [job for run in runs for job in run.waits()]
    for run in runs:
        run.is_polled()  # by triggerers that run for a while: the next test covers new ones
    for (act, ends), run, job in zip(KILLS, runs, jobs, strict=True):
        act(run)
        await_stopped(run, job.job_id)
        assert run.ends() == ends
        assert len(run.started) == 1
        run.logs(f"Stopped Batch job {job.job_id}: the Airflow task was killed. It was last seen RUNNING")
        eventually(partial(shows_the_end, run), "the job's end on the Jobs tab", 60)
    kit.no_job_runs()


def test_a_kill_stops_the_job_even_if_no_triggerer_lives_or_one_has_just_started(kit: Kit) -> None:
    """Users need not know which triggerer has a task. The first client of a new triggerer takes seconds to build, and
    Airflow cancels an ``on_kill`` that takes longer than one.
    """
    for number in (1, 2):
        kit.stack.stop("triggerer", number)
    unseen, seen = (kit.run("stack_batch", seconds=LONG) for _ in range(2))
    for run in (unseen, seen):
        run.reaches("deferred", "job")
    unseen.mark("job", "failed")
    kit.stack.repair()
    [job] = seen.waits()
    seen.mark("job", "failed")
    await_stopped(seen, job.job_id, JUST_STARTED)
    unseen.leaves_no_job_running(JUST_STARTED)
    kit.no_job_runs()


def test_a_kill_between_the_start_of_jobs_and_the_deferral_stops_them(kit: Kit, tmp_path: Path) -> None:
    """Airflow rejects the deferrals without calling a method of the operator."""
    held = tmp_path / "held"
    held.touch()
    kinds = ("batch", "array", "fargate", "glue", "crawl")
    run = kit.run("stack_dying", seconds=LONG, dies_at="before the defer", dies="nothing", holds=str(held))
    for kind in kinds:
        run.logs("Held before the defer", kind)
    assert len(run.started) == len(kinds)
    run.mark_run("failed")
    held.unlink()
    run.leaves_no_job_running()
    assert len(run.started) == len(kinds)
    kit.no_job_runs()


def test_a_kill_of_many_tasks_stops_all_jobs_and_each_log_says_so(kit: Kit) -> None:
    """Airflow kills them concurrently, and closes the log of each as soon as its trigger has ended."""
    size = 60
    run = kit.run("stack_batch_crowd", seconds=LONG)
    names = [f"each[{index}]" for index in range(size)]
    run.reaches("deferred", *names, patience=CROWD_PATIENCE)
    for index in range(size):
        run.logs(" starting", "each", map_index=index)
    run.mark_run("failed")
    run.leaves_no_job_running(CROWD_STOPPED_WITHIN)
    assert len(run.started) == size
    for index in range(size):
        run.logs("the Airflow task was killed", "each", map_index=index)
    kit.no_job_runs()


def test_a_clear_stops_the_job_and_starts_over(kit: Kit) -> None:
    """The new try has its own job."""
    run = kit.run("stack_batch", seconds=12)
    [first] = run.waits()
    run.clear("job")
    eventually(lambda: first.job_id not in {each.job_id for each in kit.ledger.running(run.token)}, "its stop", 10)
    assert run.ends() == "success"
    assert {each.status for each in run.started if each.job_id == first.job_id} == {"FAILED"}
    assert len(run.started) == 2
    assert run.returned()["job_id"] != first.job_id
    assert run.returned()["state"] == "SUCCEEDED"


def test_a_kill_of_one_mapped_task_stops_its_job_only(kit: Kit) -> None:
    """The other instances continue, and so does the array beside them."""
    run = kit.run("stack_batch_many", seconds=12)
    run.waits("array", "each[0]", "each[1]", "each[2]")
    run.mark("each", "failed", map_index=1)
    assert run.ends() == "failed"
    assert run.states == {"array": "success", "each[0]": "success", "each[1]": "failed", "each[2]": "success"}
    run.leaves_no_job_running()
    assert sorted(each.status for each in run.started) == ["FAILED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]


def test_a_kill_stops_fargate_tasks_and_glue_runs(kit: Kit) -> None:
    """Every service has its own stop call."""
    run = kit.run("stack_services", seconds=LONG)
    run.waits("fargate", "glue")
    run.mark_run("failed")
    run.leaves_no_job_running()
    kit.no_job_runs()
    assert len(run.started) == 2


def test_a_killed_sensor_stops_nothing(kit: Kit) -> None:
    """It did not start the job."""
    run = kit.run("stack_batch_sensor", seconds=12)
    [job] = run.waits()
    run.mark("job", "failed")
    assert run.ends() == "failed"
    eventually(lambda: not kit.ledger.running(run.token), "the end of the job", 60)
    assert [(each.job_id, each.status) for each in run.started] == [(job.job_id, "SUCCEEDED")]


def test_a_run_timeout_leaves_no_job_running(kit: Kit) -> None:
    """Airflow kills the tasks at ``dagrun_timeout``."""
    run = kit.run("stack_batch_in_time", seconds=LONG)
    [job] = run.waits()
    assert run.ends() == "failed"
    eventually(lambda: {each.job_id for each in run.started if each.ended} == {job.job_id}, f"the stop of {job.job_id}")
    kit.no_job_runs()
