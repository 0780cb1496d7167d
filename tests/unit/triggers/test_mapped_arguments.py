"""Lists that instances of mapped sensors pull in the triggerer: many share one pull, and no list is outdated."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobflow.triggers import mapped_arguments
from airflow_jobflow.triggers.mapped_arguments import RETENTION, NeedsWorker


class Airflow:
    """XComs, and a clock that a pull advances.

    :param takes: the duration of a pull in seconds. Default 1.
    """

    def __init__(self, takes: float = 1.0) -> None:
        self.now = 100.0
        self.takes = takes
        self.xcoms: dict[tuple[str, ...], Any] = {}
        self.pulls: list[tuple[str, ...]] = []

    def returned(
        self, dag_id: str = "d", run_id: str = "r", task_id: str = "up", key: str = "return_value", *, started: float
    ) -> list[Any]:
        """Return the list for an instance that started at a time."""

        def pull(*, task_ids: str, key: str, map_indexes: int) -> Any:
            assert map_indexes == -1
            of = dag_id, run_id, task_ids, key
            self.pulls.append(of)
            found = self.xcoms[of]
            time.sleep(0.001)  # let other threads run
            self.now += self.takes
            return found

        instance = SimpleNamespace(dag_id=dag_id, run_id=run_id, xcom_pull=pull)
        return mapped_arguments._returned(instance, task_id, key, started)


UP = ("d", "r", "up", "return_value")


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    """An Airflow in which the task ``up`` has returned a list that was not pulled yet."""
    made = Airflow()
    made.xcoms[UP] = ["a", "b"]
    monkeypatch.setattr(mapped_arguments, "time", SimpleNamespace(time=lambda: made.now))
    monkeypatch.setattr(mapped_arguments, "_pulled", {})
    return made


def test_a_list_is_pulled_once_for_a_thousand_instances(airflow: Airflow) -> None:
    """The triggerer responds to one pull in each iteration of its loop."""
    assert all(airflow.returned(started=90.0) == ["a", "b"] for _ in range(1000))
    assert airflow.pulls == [UP]


def test_instances_that_start_at_once_share_a_pull(airflow: Airflow) -> None:
    """Unread responses would fill the connection to the triggerer's loop, and block it."""
    together = threading.Barrier(6)

    def begin(_: int) -> list[Any]:
        together.wait()
        return airflow.returned(started=90.0)

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(begin, range(6))) == [["a", "b"]] * 6
    assert airflow.pulls == [UP]


def test_a_newer_result_is_not_missed(airflow: Airflow) -> None:
    """After a clear or another try of either task, the next instance pulls again, and later ones share its list."""
    assert airflow.returned(started=99.0) == ["a", "b"]
    airflow.xcoms[UP] = ["c"]
    airflow.now = 200.0
    assert airflow.returned(started=199.0) == ["c"]
    assert airflow.returned(started=199.5) == ["c"]
    assert len(airflow.pulls) == 2


def test_an_instance_that_starts_during_a_pull_pulls_again(airflow: Airflow) -> None:
    """The response may be older than the instance."""
    airflow.returned(started=99.0)
    airflow.xcoms[UP] = ["c"]
    assert airflow.returned(started=100.5) == ["c"]


@pytest.mark.parametrize(
    "other",
    [{"dag_id": "e"}, {"run_id": "s"}, {"task_id": "down"}, {"key": "ids"}],
    ids=lambda other: next(iter(other)),
)
def test_a_list_belongs_to_one_dag_run_task_and_key(airflow: Airflow, other: dict[str, str]) -> None:
    """Otherwise an instance would get the list of another task."""
    names = dict(zip(("dag_id", "run_id", "task_id", "key"), UP, strict=True)) | other
    airflow.xcoms[tuple(names.values())] = ["other"]
    assert airflow.returned(started=90.0) == ["a", "b"]
    assert airflow.returned(**names, started=90.0) == ["other"]
    assert airflow.returned(started=90.0) == ["a", "b"]
    assert len(airflow.pulls) == 2


def test_only_a_few_lists_are_kept(airflow: Airflow) -> None:
    """A triggerer runs for months; the list that was pulled first is removed first."""
    runs = [f"run {number}" for number in range(RETENTION + 1)]
    for run_id in runs:
        airflow.xcoms["d", run_id, "up", "return_value"] = [run_id]
        airflow.returned(run_id=run_id, started=90.0)
    assert len(mapped_arguments._pulled) == RETENTION
    airflow.pulls.clear()
    for run_id in runs[1:]:
        assert airflow.returned(run_id=run_id, started=90.0) == [run_id]
    assert airflow.pulls == []
    airflow.returned(run_id=runs[0], started=90.0)
    assert len(airflow.pulls) == 1


def test_a_list_that_was_pulled_again_is_not_removed_next(airflow: Airflow) -> None:
    """Its instances are starting now."""
    airflow.returned(started=90.0)
    for number in range(RETENTION - 1):
        airflow.xcoms["d", f"{number}", "up", "return_value"] = []
        airflow.returned(run_id=f"{number}", started=90.0)
    airflow.returned(started=airflow.now)  # pulls again
    airflow.xcoms["d", "one more", "up", "return_value"] = []
    airflow.returned(run_id="one more", started=90.0)
    airflow.pulls.clear()
    assert airflow.returned(started=90.0) == ["a", "b"]
    assert airflow.pulls == []


@pytest.mark.parametrize("found", [None, {"a": 1}, "ab"])
def test_a_result_that_is_not_a_list_needs_a_worker(airflow: Airflow, found: Any) -> None:
    """An earlier list is not used; a later one is."""
    airflow.returned(started=90.0)
    airflow.xcoms[UP] = found
    for _ in range(2):
        with pytest.raises(NeedsWorker, match="task up returned no list"):
            airflow.returned(started=airflow.now)
    airflow.xcoms[UP] = ["c"]
    assert airflow.returned(started=airflow.now) == ["c"]


def test_a_failed_pull_is_repeated(airflow: Airflow) -> None:
    """The next instance pulls again."""
    known = airflow.xcoms.pop(UP)
    with pytest.raises(KeyError):
        airflow.returned(started=90.0)
    airflow.xcoms[UP] = known
    assert airflow.returned(started=90.0) == ["a", "b"]
