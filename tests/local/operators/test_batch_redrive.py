"""BatchJobOperator(redrive=True) on the local AWS: a retry runs only the children that did not succeed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow import exceptions
from airflow_jobflow.local import Faults
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.batch_spec import BatchJobSpec
from tests.local.tries import cleared, deferred, killed, retried

PAGE = (Path(__file__).parents[3] / "docs" / "arrays-and-maps.md").read_text(encoding="utf-8")

RECIPES = {
    language: re.search(rf"```{language}\n(# Which child.*?)```", PAGE, re.DOTALL).group(1)  # type: ignore[union-attr]
    for language in ("sh", "python")
}
"""How a command finds its index in the original array, as in the documentation of arrays."""


FILLER = {"environment": [{"name": "FILLER", "value": "x" * 7_050}]}
"""Overrides so long that the retry of every other one of 40 children needs more than one job."""


class Array:
    """An array whose children record that they ran, and fail if a file says so."""

    def __init__(self, kit: Any, directory: Path, context: Any) -> None:
        self._kit = kit
        self._directory = directory
        self.context = context
        script = f"{RECIPES['sh']}\necho x >> {directory}/ran-$index\n! [ -e {directory}/fails-$index ]"
        self.definition = kit.define(["sh", "-c", script])

    def fail(self, *indexes: int) -> None:
        """Let only these children fail from now on."""
        for mark in self._directory.glob("fails-*"):
            mark.unlink()
        for index in indexes:
            (self._directory / f"fails-{index}").touch()

    def times(self) -> dict[int, int]:
        """Return how often each child has run."""
        ran = self._directory.glob("ran-*")
        return {int(each.name.removeprefix("ran-")): len(each.read_text().split()) for each in ran}

    def operator(self, size: int, **parameters: Any) -> BatchJobOperator:
        """Create the task."""
        defaults = {"job_name": "hello", "job_queue": self._kit.queue, "aws_conn_id": None, "redrive": True}
        parameters = {**defaults, "job_definition": self.definition, "deferrable": False, **parameters}
        return BatchJobOperator(task_id="t", array_size=size, **parameters)

    def run(self, size: int = 5, **parameters: Any) -> Any:
        """Run the operator as one try of a task with retries."""
        try:
            return self.operator(size, **parameters).execute(self.context)
        finally:
            retried(self.context)

    def times_out(self, size: int, reached: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Run the operator as such a try, whose deadline passes when its children have reached a state."""
        operator = self.operator(size, deferrable=True)
        [job_id] = deferred(operator, self.context).trigger.job_ids
        self._kit.eventually(lambda: reached(self._kit.children(job_id, size)))
        event = {"job_ids": [job_id], "jobs": {}, "errors": {}, "limit": "deadline"}
        with pytest.raises(exceptions.JobTimeout):
            operator.execute_complete(self.context, event)
        retried(self.context)


def half_failed(kit: Any, directory: Path, context: Any) -> Array:
    """Run an array of 40 children of which those with even indexes fail."""
    array = Array(kit, directory, context)
    array.fail(*range(0, 40, 2))
    with pytest.raises(exceptions.JobFailed):
        array.run(size=40, container_overrides=FILLER)
    return array


@pytest.fixture
def array(kit: Any, here: Callable[[Any], None], tmp_path: Path, context: Any) -> Array:
    """An array for the test's queue."""
    here(kit.aws)
    return Array(kit, tmp_path, context)


def test_a_retry_runs_the_failed_children_only(array: Array) -> None:
    """The result contains all children with their original indexes."""
    array.fail(1, 3)
    with pytest.raises(exceptions.JobFailed, match=r"Failed children \(2 of 5\): 1,3"):
        array.run()
    array.fail(3)
    with pytest.raises(exceptions.JobFailed, match=r"Failed children \(1 of 5\): 3") as failed:
        array.run()
    assert "[3]" in str(failed.value)
    array.fail()
    outcome = array.run()
    assert outcome["state"] == "SUCCEEDED"
    assert outcome["array"] == {"size": 5, "succeeded": 5, "failed": 0, "failed_indexes": []}
    assert array.times() == {0: 1, 1: 2, 2: 1, 3: 3, 4: 1}


def test_a_redrive_that_was_recorded_and_not_started_runs_all_its_children(
    array: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failed array of the try before says nothing about the children that the record names."""
    array.fail(1, 3)
    with pytest.raises(exceptions.JobFailed):
        array.run()
    array.fail()
    killed(array.operator(5), "_execution.spec._submit_one", array.context, monkeypatch)
    retried(array.context)
    assert array.run()["state"] == "SUCCEEDED"
    assert array.times() == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1}


def test_an_array_of_one_is_redriven(array: Array) -> None:
    """It runs again as a single job, unless it has succeeded."""
    array.fail(0)
    with pytest.raises(exceptions.JobFailed, match=r"Failed children \(1 of 1\): 0"):
        array.run(1)
    array.fail()
    assert array.run(1)["array"] == {"size": 1, "succeeded": 1, "failed": 0, "failed_indexes": []}
    assert array.times() == {0: 2}
    array.run(1)
    assert array.times() == {0: 2}


def test_the_tolerance_applies_to_the_whole_array(array: Array) -> None:
    """One failure of two repeated children is one of five."""
    array.fail(1, 3)
    with pytest.raises(exceptions.JobFailed):
        array.run(tolerated_failure_percentage=20)
    array.fail(3)
    outcome = array.run(tolerated_failure_percentage=20)
    assert outcome["state"] == "SUCCEEDED"
    assert outcome["array"] == {"size": 5, "succeeded": 4, "failed": 1, "failed_indexes": [3]}


def test_a_clear_starts_over(array: Array) -> None:
    """A clear means that all children run again."""
    array.fail(1)
    with pytest.raises(exceptions.JobFailed):
        array.run()
    array.fail()
    cleared(array.context)
    assert array.run()["array"]["succeeded"] == 5
    assert array.times() == {0: 2, 1: 2, 2: 2, 3: 2, 4: 2}


def test_a_clear_whose_first_try_dies_before_its_submit_starts_over(
    array: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeated attempt must not adopt the array from before the clear."""
    array.run(size=3)
    cleared(array.context)
    killed(array.operator(3), "_execution.spec._submit_one", array.context, monkeypatch)
    retried(array.context)
    assert array.run(size=3)["array"]["succeeded"] == 3
    assert array.times() == {0: 2, 1: 2, 2: 2}


def test_an_array_of_another_size_starts_over(array: Array) -> None:
    """Its indexes have another meaning."""
    array.fail(1)
    with pytest.raises(exceptions.JobFailed):
        array.run()
    array.fail()
    assert array.run(size=3)["array"]["succeeded"] == 3
    assert array.times() == {0: 2, 1: 2, 2: 2, 3: 1, 4: 1}


def test_without_redrive_a_retry_runs_everything(array: Array) -> None:
    """This is Airflow's usual behaviour."""
    array.fail(1)
    with pytest.raises(exceptions.JobFailed):
        array.run(redrive=False)
    array.fail()
    assert array.run(redrive=False)["array"]["succeeded"] == 5
    assert set(array.times().values()) == {2}


def test_the_final_state_of_an_array_is_read_from_aws(array: Array, kit: Any) -> None:
    """The earlier try ended before its array, which has succeeded since; no child runs again."""
    submitted = array.run(wait_for_completion=False)
    kit.wait(submitted["job_id"])
    outcome = array.run()
    assert outcome["job_id"] == submitted["job_id"]
    assert set(array.times().values()) == {1}


def test_children_that_were_stopped_run_again(array: Array, kit: Any, gate: Path) -> None:
    """A deadline stopped the array; children that had succeeded do not run again."""
    script = f"{RECIPES['sh']}\n[ $index = 0 ] || while [ ! -e {gate} ]; do sleep 0.02; done"
    array.definition = kit.define(["sh", "-c", script])
    array.times_out(3, lambda children: children[0]["status"] == "SUCCEEDED")
    kit.eventually(lambda: all(job["status"] == "FAILED" for job in parents(kit)), "the end of the stopped array")
    gate.touch()
    assert array.run(size=3)["array"] == {"size": 3, "succeeded": 3, "failed": 0, "failed_indexes": []}
    again = [job["arrayProperties"]["size"] for job in parents(kit) if job["status"] == "SUCCEEDED"]
    assert again == [2]


def parents(kit: Any) -> list[Any]:
    """Return all arrays of the test's queue."""
    answer = kit.batch.list_jobs(jobQueue=kit.queue, filters=[{"name": "JOB_NAME", "values": ["*"]}])
    return [kit.look(job["jobId"]) for job in answer["jobSummaryList"]]


def test_indexes_that_do_not_fit_into_one_array_are_split(array: Array) -> None:
    """The ranges for every other child of a large array exceed the limit of overrides."""
    array.fail(*range(0, 40, 2))
    with pytest.raises(exceptions.JobFailed):
        array.run(size=40, container_overrides=FILLER)
    array.fail(38)
    with pytest.raises(exceptions.JobFailed, match=r"Failed children \(1 of 40\): 38"):
        array.run(size=40, container_overrides=FILLER)
    noted = array.context["task_state_store"]["jobflow"]
    assert len(noted["job_ids"]) == len(noted["parts"]) > 1
    assert array.times() == {index: 1 + (index % 2 == 0) for index in range(40)}


def test_if_one_part_is_rejected_the_others_are_stopped(
    own_kit: Any, here: Callable[[Any], None], tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a retry that failed to start must not keep running."""
    here(own_kit.aws)
    array = half_failed(own_kit, tmp_path, context)
    submit_one = BatchJobSpec._submit_one
    started: list[str] = []

    def then_denied(spec: BatchJobSpec, *arguments: Any, **how: Any) -> str:
        started.append(submit_one(spec, *arguments, **how))
        own_kit.aws.set_faults(Faults(denied=("SubmitJob",)))
        return started[0]

    monkeypatch.setattr(BatchJobSpec, "_submit_one", then_denied)
    array.definition = own_kit.define(["sleep", "60"])
    with pytest.raises(exceptions.SubmissionError, match="nothing was started"):
        array.run(size=40, container_overrides=FILLER)
    assert own_kit.wait(started[0])["status"] == "FAILED"


def test_a_part_that_succeeded_beside_a_rejected_one_is_not_the_array(
    own_kit: Any, here: Callable[[Any], None], tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry runs all children that did not succeed, although one part succeeded."""
    here(own_kit.aws)
    array = half_failed(own_kit, tmp_path, context)
    submit_one = BatchJobSpec._submit_one

    def ends_then_denied(spec: BatchJobSpec, *arguments: Any, **how: Any) -> str:
        started = submit_one(spec, *arguments, **how)
        own_kit.wait(started)
        own_kit.aws.set_faults(Faults(denied=("SubmitJob",)))
        return started

    array.fail()
    with monkeypatch.context() as patch:
        patch.setattr(BatchJobSpec, "_submit_one", ends_then_denied)
        with pytest.raises(exceptions.SubmissionError, match="nothing was started"):
            array.run(size=40, container_overrides=FILLER)
    own_kit.aws.set_faults(Faults())
    assert array.run(size=40, container_overrides=FILLER)["array"]["succeeded"] == 40
    assert {index for index, times in array.times().items() if times >= 2} == set(range(0, 40, 2))


def test_a_redrive_needs_the_failed_children(
    own_kit: Any, here: Callable[[Any], None], tmp_path: Path, context: Any
) -> None:
    """If they cannot be listed, the task fails, because otherwise all children would run again."""
    here(own_kit.aws)
    array = Array(own_kit, tmp_path, context)
    array.fail(1)
    with pytest.raises(exceptions.JobFailed):
        array.run()
    submitted = len(own_kit.aws.started("batch"))
    own_kit.aws.set_faults(Faults(denied=("DescribeJobs",)))
    with pytest.raises(exceptions.SubmissionError, match="nothing was started"):
        array.run()
    assert len(own_kit.aws.started("batch")) == submitted


def test_redrive_needs_overrides_that_reach_the_container(array: Array) -> None:
    """A child without its original index would do another child's work."""
    with pytest.raises(exceptions.InvalidParameter, match="ecs_properties_override"):
        array.run(ecs_properties_override={"taskProperties": []})


@pytest.mark.parametrize("language", RECIPES)
@pytest.mark.parametrize(
    ("environment", "index"),
    [
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "7"}, 7),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0", "JOBFLOW_ARRAY_INDEXES": "4"}, 4),
        ({"JOBFLOW_ARRAY_INDEXES": "9999"}, 9999),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "5", "JOBFLOW_ARRAY_INDEXES": "0-3,7,20-29"}, 20),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "13", "JOBFLOW_ARRAY_INDEXES": "0-3,7,20-29"}, 28),
    ],
)
def test_the_documented_commands_find_the_index(
    kit: Any, language: str, environment: dict[str, str], index: int
) -> None:
    """They work in the first run and in every redrive."""
    if language == "sh":
        command = ["sh", "-euc", f"{RECIPES[language]}\necho $index"]
    else:
        command = ["python3", "-c", f"{RECIPES[language]}\nprint(index)"]
    variables = [{"name": name, "value": value} for name, value in environment.items()]
    definition = kit.define(command, containerProperties={"environment": variables})
    assert kit.output(kit.submit(jobDefinition=definition)) == [str(index)]


def test_children_that_were_running_at_the_end_of_their_parent_run_again(
    array: Array, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped parent may be FAILED before all of its children have ended; none of these has succeeded."""
    array.fail(1, 3)
    with pytest.raises(exceptions.JobFailed):
        array.run()
    from airflow_jobflow.jobs import batch

    indexes_in = batch.indexes_in
    monkeypatch.setattr(batch, "indexes_in", lambda client, job_id, status: indexes_in(client, job_id, status)[:1])
    array.fail()
    assert array.run()["state"] == "SUCCEEDED"
    assert array.times() == {0: 1, 1: 2, 2: 2, 3: 2, 4: 2}
