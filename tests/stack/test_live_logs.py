"""The lines of jobs are in the logs of their tasks, regardless of the triggerer that copies them."""

from __future__ import annotations

from tests.stack.kit import Kit, Run

JOBS = 8


def lines(run: Run, index: int) -> list[str]:
    """The lines of jobs in the log of a task."""
    return [line for line in run.log("job", map_index=index).split("\n") if line.startswith("line ")]


def test_each_task_has_the_lines_of_its_own_job_and_no_others(kit: Kit) -> None:
    """All lines are there, in order, before the task has ended."""
    run = kit.run("stack_logs", lines=50)
    assert run.ends() == "success", run.states
    for index in range(JOBS):
        assert lines(run, index) == [f"line {index} {number}" for number in range(50)]


def test_a_triggerer_that_dies_loses_no_lines(kit: Kit) -> None:
    """Another one continues at the saved position; lines copied since then are copied again."""
    kit.stack.stop("triggerer", 2)
    run = kit.run("stack_logs", lines=250)
    run.waits(*(f"job[{index}]" for index in range(JOBS)))
    run.logs("line 0 100", map_index=0)
    kit.stack.start("triggerer", 2)
    kit.stack.await_healthy()
    kit.stack.kill("triggerer", 1)
    assert run.ends() == "success", run.states
    for index in range(JOBS):
        copied = lines(run, index)
        assert set(copied) == {f"line {index} {number}" for number in range(250)}
        assert len(copied) < 400, "it was copied again from the beginning"
