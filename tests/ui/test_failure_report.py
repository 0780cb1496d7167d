"""Notes for the tab: by the trigger while it waits, and by the worker if an exception leaves no return value."""

from __future__ import annotations

import asyncio
import email.message
import importlib.metadata
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from airflow_jobflow.exceptions import JobFailed, JobTimeout, QueueTimeout, SubmissionRejected
from airflow_jobflow.links import pages
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.triggers.job import JobTrigger
from airflow_jobflow.triggers.map import MapTrigger
from airflow_jobflow.ui import notes, progress
from airflow_jobflow.ui.failure_report import help_page

PATIENCE = 30.0
KEY = "jobflow_jobs"


@pytest.fixture
def parameters(kit: Any, here: Callable[[Any], None]) -> dict[str, Any]:
    """What every operator here is made with; it waits in this process."""
    here(kit.aws)
    common = {"task_id": "t", "job_name": "hello", "job_queue": kit.queue, "aws_conn_id": None, "deferrable": False}
    return {**common, "number_logs_exception": 0}


def job(kit: Any, parameters: dict[str, Any], script: str, **more: Any) -> BatchJobOperator:
    """An operator for one job."""
    return BatchJobOperator(job_definition=kit.define(["sh", "-c", script]), **{**parameters, **more})


ON_THREE = "test $AWS_BATCH_JOB_ARRAY_INDEX != 3 || exit 7"


def test_a_failed_array_tells_which_children_failed_and_why(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """With their logs, which the list links to."""
    with pytest.raises(JobFailed):
        job(kit, parameters, ON_THREE, array_size=5).execute(context)
    note = context["ti"].xcoms[KEY]
    assert note["array"]["cells"] == "SSSFS"
    [child] = note["array"]["failed_jobs"]
    assert (child["index"], child["exit_code"], child["log"]["group"]) == (3, 7, "/aws/batch/job")
    assert note["final"]
    assert note["jobs"][0]["state"] == "FAILED"
    assert note["diagnosis"]["cause"] == "command_failed"
    assert "Failed children: 1 of 5" in note["error"]


def test_a_returned_failure_is_noted_too(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """The outcome does not say why."""
    outcome = job(kit, parameters, "exit 3", raise_on_failure=False).execute(context)
    assert outcome["state"] == "FAILED"
    assert context["ti"].xcoms[KEY]["diagnosis"]["cause"] == "command_failed"


def test_nothing_is_noted_without_xcoms(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """`do_xcom_push=False` holds here too."""
    job(kit, parameters, "sleep 1; exit 3", raise_on_failure=False, do_xcom_push=False).execute(context)
    assert context["ti"].xcoms == {}


def test_a_wait_begins_with_a_note_and_a_success_returns_the_rest(
    kit: Any, parameters: dict[str, Any], context: Any
) -> None:
    """The tab shows the job at once, and its buttons work."""
    outcome = job(kit, parameters, "sleep 1").execute(context)
    note = context["ti"].xcoms[KEY]
    assert not note["final"]
    assert note["jobs"][0]["id"] == outcome["job_id"]
    assert note["links"]["_link_BatchJobLink"] == outcome["console_url"]


def test_a_note_that_cannot_be_written_fails_no_task(
    kit: Any, parameters: dict[str, Any], context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Airflow stores the buttons in the end."""

    def fails(**_: Any) -> None:
        raise OSError("the bucket is gone")

    context["ti"].xcom_push = fails
    operator = job(kit, parameters, "sleep 1")
    assert operator.execute(context)["state"] == "SUCCEEDED"
    assert "could not be written for the Jobs tab: the bucket is gone" in capsys.readouterr().out
    assert [link.xcom_key for link in operator.operator_extra_links] == ["jobflow_links"]


def test_a_deadline_that_has_passed_tells_how_far_the_job_came(
    kit: Any, parameters: dict[str, Any], context: Any
) -> None:
    """An error without an outcome has at least what was seen."""
    with pytest.raises(JobTimeout):
        job(kit, parameters, "sleep 60", job_timeout=1).execute(context)
    note = context["ti"].xcoms[KEY]
    assert "did not end within 1 s (job_timeout)" in note["error"]
    assert len(note["jobs"]) == note["total"] == 1


def test_the_tab_shows_that_a_deadline_has_stopped_the_job(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """What was last seen of it, it was not left in."""
    with pytest.raises(JobTimeout):
        job(kit, parameters, "sleep 60", job_timeout=1).execute(context)
    [shown] = context["ti"].xcoms[KEY]["jobs"]
    assert shown["state"] in ("SUBMITTED", "RUNNING")
    assert shown["stop_requested_at"]


def test_the_tab_shows_what_a_killed_worker_has_stopped(
    kit: Any, parameters: dict[str, Any], context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Airflow kills the process before the job has ended, so nothing else would be written. The log has it, too."""
    operator = job(kit, parameters, "sleep 60", wait_for_completion=False)
    job_id = operator.execute(context)["job_id"]
    operator.on_kill()
    note = context["ti"].xcoms[KEY]
    [shown] = note["jobs"]
    assert (note["final"], shown["id"], bool(shown["stop_requested_at"])) == (True, job_id, True)
    assert f"Stopped Batch job {job_id}" in capsys.readouterr().out


def test_the_tab_shows_no_stop_of_a_job_that_was_left_running(
    kit: Any, parameters: dict[str, Any], context: Any, gate: Any
) -> None:
    """As cancel_on_kill=False says."""
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    operator = job(kit, parameters, script, wait_for_completion=False, cancel_on_kill=False)
    operator.execute(context)
    operator.on_kill()
    gate.touch()
    assert KEY not in context["ti"].xcoms


def test_a_task_that_succeeds_in_spite_of_failed_children_logs_which(
    kit: Any, parameters: dict[str, Any], context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """AWS calls the array FAILED, and the task turns green."""
    operator = job(kit, parameters, ON_THREE, array_size=5, tolerated_failure_count=2, tolerated_failure_percentage=10)
    outcome = operator.execute(context)
    said = "1 of 5 failed (3). tolerated_failure_count=2, tolerated_failure_percentage=10 tolerates this"
    assert f"({outcome['job_id']}): {said}, so the task succeeds." in caplog.text


def test_a_task_that_succeeds_in_spite_of_failed_items_logs_which(
    kit: Any, parameters: dict[str, Any], context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with an array."""
    items = [{"command": ["sh", "-c", f"exit {index % 2}"]} for index in range(2)]
    given = {"items": items, "job_definition": kit.define(["true"]), "tolerated_failure_percentage": 50}
    BatchMapOperator(**given, **parameters).execute(context)
    said = "of Batch jobs: 1 of 2 failed (1). tolerated_failure_percentage=50 tolerates this, so the task succeeds."
    assert said in capsys.readouterr().out


def test_a_map_whose_failure_is_returned_tells_the_tab_why(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """The result does not."""
    given = {"items": [{"command": ["false"]}], "job_definition": kit.define(["true"]), "raise_on_failure": False}
    assert BatchMapOperator(**given, **parameters).execute(context)["state"] == "FAILED"
    assert context["ti"].xcoms[KEY]["diagnosis"]["cause"] == "command_failed"


def test_a_failed_map_tells_how_each_item_stands(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """Also those that were never started."""
    definition = kit.define(["true"])
    items = [{"command": ["sh", "-c", f"exit {index % 2}"]} for index in range(2)]
    operator = BatchMapOperator(items=items, job_definition=definition, max_concurrency=1, **parameters)
    with pytest.raises(JobFailed):
        operator.execute(context)
    note = context["ti"].xcoms[KEY]
    assert (note["array"]["kind"], note["array"]["cells"]) == ("map", "SF")
    assert note["array"]["failed_jobs"][0]["exit_code"] == 1


def test_a_failure_before_any_job_is_noted_too(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """There is no other record of a rejected job."""
    operator = job(kit, {**parameters, "job_queue": "no-such-queue"}, "true")
    with pytest.raises(SubmissionRejected) as refused:
        operator.execute(context)
    note = context["ti"].xcoms[KEY]
    assert (note["error"], note["jobs"], note["final"]) == (str(refused.value), [], True)


def test_a_sensor_that_is_skipped_tells_what_it_was_skipped_for(
    kit: Any, here: Callable[[Any], None], context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own words, not in those of the skip."""
    monkeypatch.setattr("airflow_jobflow.polling.refusals.REFUSED_GRACE", 0.5)
    here(kit.aws)
    sensor = BatchJobSensor(task_id="t", job_id="not an id", aws_conn_id=None, deferrable=False, soft_fail=True)
    with pytest.raises(AirflowSkipException) as skipped:
        sensor.execute(context)
    assert context["ti"].xcoms[KEY]["error"] == str(skipped.value.__cause__)


# Where to read on.


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as it is installed where its metadata say where the documentation is."""
    info = tmp_path / "airflow_jobflow-0.dist-info"
    info.mkdir()
    urls = ["Documentation, https://docs.example/jobflow/", "Source, https://code.example"]
    lines = ["Metadata-Version: 2.4", "Name: airflow-jobflow", "Version: 0", *(f"Project-URL: {url}" for url in urls)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("documented")
def test_a_failure_leads_to_its_heading(
    kit: Any, parameters: dict[str, Any], context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the task's log, and on the tab: what failed by its diagnosis, all else by the exception's name."""
    with pytest.raises(JobFailed):
        job(kit, parameters, "exit 3").execute(context)
    page = "https://docs.example/jobflow/failures.html#diagnosis-command-failed"
    assert context["ti"].xcoms[KEY]["help"] == page
    assert f"What to do about it: {page}" in capsys.readouterr().out
    assert help_page(JobTimeout("late")) == "https://docs.example/jobflow/failures.html#error-jobtimeout"


@pytest.mark.usefixtures("documented")
def test_an_exception_of_somebody_elses_leads_to_ours_that_it_is() -> None:
    """The page has a heading for each of ours."""
    theirs = type("Theirs", (QueueTimeout,), {"__module__": "elsewhere"})
    assert str(help_page(theirs("stuck"))).endswith("#error-queuetimeout")


def test_without_a_documentation_no_page_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that leads nowhere helps nobody."""
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: email.message.Message())
    assert help_page(JobTimeout("late")) is None


def test_a_task_fails_for_its_own_reason_where_the_package_was_not_installed(
    kit: Any, parameters: dict[str, Any], context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as from a checkout on the path: nothing is known of where its documentation is."""

    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", missing)
    with pytest.raises(JobFailed):
        job(kit, parameters, "exit 3").execute(context)


class Written:
    """Notes, in place of Airflow's XComs."""

    def __init__(self) -> None:
        self.notes: list[dict[str, Any]] = []
        self.changed = threading.Event()

    def set(self, key: str, value: Any, **_: Any) -> None:
        """Take an XCom."""
        assert key == KEY
        self.notes.append(value)
        self.changed.set()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """What triggers write; they need not wait long before they do."""
    from airflow.sdk.execution_time import xcom

    for name, value in {
        "FIRST_NOTE_DELAY": 0.1,
        "NOTE_INTERVAL": 0.1,
        "MAX_NOTES_PER_SECOND": 50.0,
        "LISTING_INTERVAL": 0.1,
    }.items():
        monkeypatch.setattr(progress, name, value)
    xcoms = Written()
    monkeypatch.setattr(xcom, "XCom", xcoms)
    return xcoms


def test_a_trigger_tells_which_children_have_failed_while_others_run(
    kit: Any, here: Callable[[Any], None], written: Written, gate: Any
) -> None:
    """And how often it may be asked is not what decides: the counts come with the sweeps."""
    here(kit.aws)
    script = f"{ON_THREE}; while [ ! -e {gate} ]; do sleep 0.02; done"
    parent = kit.sh(script, arrayProperties={"size": 5})
    trigger = JobTrigger(service="batch", job_ids=[parent], aws_conn_id=None, poll_interval=0.2, reports_progress=True)
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)  # type: ignore[assignment]

    async def story() -> dict[str, Any]:
        waiting = asyncio.ensure_future(trigger.wait())
        deadline = time.monotonic() + PATIENCE
        while not any(note.get("array", {}).get("failed_jobs") for note in written.notes):
            assert time.monotonic() < deadline, written.notes
            await asyncio.sleep(0.05)
        gate.touch()
        return await waiting

    event = asyncio.run(story())
    assert event["jobs"][parent]["state"] == "FAILED"
    found = next(note for note in written.notes if note["array"]["failed_jobs"])
    assert found["array"]["cells"] == "...F."
    assert found["array"]["failed_jobs"][0]["exit_code"] == 7
    assert not found["final"]
    assert found["jobs"][0]["links"]["console"].startswith("https://console.aws.amazon.com/batch/home?region=")
    assert [status for status, _ in found["jobs"][0]["seen"]]


@pytest.mark.parametrize("noted", [True, False])
def test_a_trigger_writes_only_what_the_worker_has_not(
    kit: Any, written: Written, gate: Any, parameters: dict[str, Any], noted: bool
) -> None:
    """Else each task would cost a request more, to say the same."""
    job_id = kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done")
    kit.wait(job_id, "RUNNING")
    seen = job(kit, parameters, "true")._execution.jobs.describe_now([job_id])[job_id]
    note = progress.note_of("batch", [seen], {job_id: [("RUNNING", "now")]}, total=1, buttons=pages("batch", seen))
    known = {"progress_digest": notes.digest(note), "links": note["links"]}
    trigger = JobTrigger(
        service="batch",
        job_ids=[job_id],
        aws_conn_id=None,
        poll_interval=0.2,
        reports_progress=True,
        **(known if noted else {}),
    )
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)  # type: ignore[assignment]

    async def story() -> Any:
        waiting = asyncio.ensure_future(trigger.wait())
        deadline = time.monotonic() + PATIENCE
        before = kit.aws.calls["batch.DescribeJobs"]
        while kit.aws.calls["batch.DescribeJobs"] < before + 6:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        gate.touch()
        return await waiting

    assert asyncio.run(story())["links"] == (note["links"] if noted else None)
    assert [notes.digest(each) for each in written.notes] == ([] if noted else [notes.digest(note)])


@pytest.mark.parametrize("trigger", [JobTrigger, MapTrigger])
def test_a_trigger_without_notes_writes_none(trigger: type[Any]) -> None:
    """Triggers that were serialized by an earlier version have no such argument."""
    given = {"job_ids": ["a"]} if trigger is JobTrigger else {"job_group": {}, "size": 0, "indexes": "", "requests": ""}
    assert trigger(service="batch", **given).serialize()[1]["reports_progress"] is False
