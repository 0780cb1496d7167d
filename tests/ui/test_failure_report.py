"""Notes for the tab: by the trigger during the wait, and by the worker if an exception leaves no return value."""

from __future__ import annotations

import asyncio
import email.message
import importlib.metadata
import logging
import threading
import time
import traceback
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

TIMEOUT = 30.0
KEY = "jobflow_jobs"


@pytest.fixture
def parameters(kit: Any, here: Callable[[Any], None]) -> dict[str, Any]:
    """Return the parameters of every operator here, which waits in this process."""
    here(kit.aws)
    common = {"task_id": "t", "job_name": "hello", "job_queue": kit.queue, "aws_conn_id": None, "deferrable": False}
    return {**common, "number_logs_exception": 0}


def job(kit: Any, parameters: dict[str, Any], script: str, **more: Any) -> BatchJobOperator:
    """Return an operator for one job."""
    return BatchJobOperator(job_definition=kit.define(["sh", "-c", script]), **{**parameters, **more})


ON_THREE = "test $AWS_BATCH_JOB_ARRAY_INDEX != 3 || exit 7"


def test_the_note_of_a_failed_array_has_the_failed_children(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """It has their reasons, and their logs, to which the list links."""
    with pytest.raises(JobFailed):
        job(kit, parameters, ON_THREE, array_size=5).execute(context)
    note = context["ti"].xcoms[KEY]
    assert note["array"]["cells"] == "SSSFS"
    [child] = note["array"]["failed_jobs"]
    assert (child["index"], child["exit_code"], child["log"]["group"]) == (3, 7, "/aws/batch/job")
    assert note["final"]
    assert note["jobs"][0]["state"] == "FAILED"
    assert note["diagnosis"]["cause"] == "command_failed"
    assert "Failed children (1 of 5)" in note["error"]


def test_a_returned_failure_has_a_note(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """The outcome does not contain the reason."""
    outcome = job(kit, parameters, "exit 3", raise_on_failure=False).execute(context)
    assert outcome["state"] == "FAILED"
    assert context["ti"].xcoms[KEY]["diagnosis"]["cause"] == "command_failed"


def test_do_xcom_push_false_writes_no_note(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """The tab then shows no jobs."""
    job(kit, parameters, "sleep 1; exit 3", raise_on_failure=False, do_xcom_push=False).execute(context)
    assert context["ti"].xcoms == {}


def test_a_wait_starts_with_a_note(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """The tab shows the job immediately, and its buttons work; a success needs no further note."""
    outcome = job(kit, parameters, "sleep 1").execute(context)
    note = context["ti"].xcoms[KEY]
    assert not note["final"]
    assert note["jobs"][0]["id"] == outcome["job_id"]
    assert note["links"]["_link_BatchJobLink"] == outcome["console_url"]


def test_a_note_that_cannot_be_written_fails_no_task(
    kit: Any, parameters: dict[str, Any], context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Airflow then stores the buttons at the end."""

    def fails(**_: Any) -> None:
        raise OSError("the bucket is gone")

    context["ti"].xcom_push = fails
    operator = job(kit, parameters, "sleep 1")
    assert operator.execute(context)["state"] == "SUCCEEDED"
    assert "could not be written for the Jobs tab: the bucket is gone" in capsys.readouterr().out
    assert [link.xcom_key for link in operator.operator_extra_links] == ["jobflow_links"]


def test_the_note_of_a_passed_deadline_has_the_last_state(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """An error without an outcome has at least the last snapshot."""
    with pytest.raises(JobTimeout):
        job(kit, parameters, "sleep 60", job_timeout=1).execute(context)
    note = context["ti"].xcoms[KEY]
    assert "did not end within 1 s (job_timeout)" in note["error"]
    assert len(note["jobs"]) == note["total"] == 1


def test_the_tab_shows_that_a_deadline_has_stopped_the_job(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """The job did not remain in its last seen state."""
    with pytest.raises(JobTimeout):
        job(kit, parameters, "sleep 60", job_timeout=1).execute(context)
    [shown] = context["ti"].xcoms[KEY]["jobs"]
    assert shown["state"] in ("SUBMITTED", "RUNNING")
    assert shown["stop_requested_at"]


def test_the_tab_shows_what_a_killed_worker_has_stopped(
    kit: Any, parameters: dict[str, Any], context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Airflow kills the process before the job has ended, so no later note is written. The log has it too."""
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
    """The task has cancel_on_kill=False."""
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    operator = job(kit, parameters, script, wait_for_completion=False, cancel_on_kill=False)
    operator.execute(context)
    operator.on_kill()
    gate.touch()
    assert KEY not in context["ti"].xcoms


def test_a_successful_task_logs_its_failed_children(
    kit: Any, parameters: dict[str, Any], context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The state of the array is FAILED, but the task succeeds."""
    operator = job(kit, parameters, ON_THREE, array_size=5, tolerated_failure_count=2, tolerated_failure_percentage=10)
    outcome = operator.execute(context)
    said = "1 of 5 failed (3). tolerated_failure_count=2, tolerated_failure_percentage=10 tolerates this"
    assert f"({outcome['job_id']}): {said}, so the task succeeds." in caplog.text


def test_a_successful_map_logs_its_failed_items(
    kit: Any, parameters: dict[str, Any], context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the same as for an array."""
    items = [{"command": ["sh", "-c", f"exit {index % 2}"]} for index in range(2)]
    given = {"items": items, "job_definition": kit.define(["true"]), "tolerated_failure_percentage": 50}
    BatchMapOperator(**given, **parameters).execute(context)
    said = "of Batch jobs: 1 of 2 failed (1). tolerated_failure_percentage=50 tolerates this, so the task succeeds."
    assert said in capsys.readouterr().out


def test_a_map_with_a_returned_failure_has_a_note(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """The result does not contain the reason."""
    given = {"items": [{"command": ["false"]}], "job_definition": kit.define(["true"]), "raise_on_failure": False}
    assert BatchMapOperator(**given, **parameters).execute(context)["state"] == "FAILED"
    assert context["ti"].xcoms[KEY]["diagnosis"]["cause"] == "command_failed"


def test_the_note_of_a_failed_map_has_the_status_of_each_item(
    kit: Any, parameters: dict[str, Any], context: Any
) -> None:
    """This includes items that were never started."""
    definition = kit.define(["true"])
    items = [{"command": ["sh", "-c", f"exit {index % 2}"]} for index in range(2)]
    operator = BatchMapOperator(items=items, job_definition=definition, max_concurrency=1, **parameters)
    with pytest.raises(JobFailed):
        operator.execute(context)
    note = context["ti"].xcoms[KEY]
    assert (note["array"]["kind"], note["array"]["cells"]) == ("map", "SF")
    assert note["array"]["failed_jobs"][0]["exit_code"] == 1


def test_a_failure_before_any_job_has_a_note(kit: Any, parameters: dict[str, Any], context: Any) -> None:
    """There is no other record of a rejected job."""
    operator = job(kit, {**parameters, "job_queue": "no-such-queue"}, "true")
    with pytest.raises(SubmissionRejected) as refused:
        operator.execute(context)
    note = context["ti"].xcoms[KEY]
    assert (note["error"], note["jobs"], note["final"]) == (str(refused.value), [], True)


def test_a_rejected_start_is_one_exception_in_the_log(
    kit: Any, parameters: dict[str, Any], context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its message quotes AWS's error. The exceptions that caused it are logged for debugging only."""
    operator = job(kit, {**parameters, "job_queue": "no-such-queue"}, "true")
    caplog.set_level(logging.DEBUG, "airflow_jobflow.ui.failure_report")
    with pytest.raises(SubmissionRejected, match="no-such-queue") as refused:
        operator.execute(context)
    logged = "".join(traceback.format_exception(refused.value))
    assert logged.count("Traceback") == 1
    assert "botocore.errorfactory.ClientException" not in logged
    [causes] = [record.exc_text for record in caplog.records if record.message == "The causes of the failure:"]
    assert "botocore.errorfactory.ClientException" in str(causes)


def test_the_note_of_a_skipped_sensor_has_the_reason(
    kit: Any, here: Callable[[Any], None], context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the failure, not of the skip."""
    monkeypatch.setattr("airflow_jobflow.polling.refusals.REFUSED_GRACE", 0.5)
    here(kit.aws)
    sensor = BatchJobSensor(task_id="t", job_id="not an id", aws_conn_id=None, deferrable=False, soft_fail=True)
    with pytest.raises(AirflowSkipException) as skipped:
        sensor.execute(context)
    assert context["ti"].xcoms[KEY]["error"] == str(skipped.value.__cause__)


# Links to the documentation.


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an installed package whose metadata have the address of the documentation."""
    info = tmp_path / "airflow_jobflow-0.dist-info"
    info.mkdir()
    urls = ["Documentation, https://docs.example/jobflow/", "Source, https://code.example"]
    lines = ["Metadata-Version: 2.4", "Name: airflow-jobflow", "Version: 0", *(f"Project-URL: {url}" for url in urls)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("documented")
def test_a_failure_links_to_its_heading(
    kit: Any, parameters: dict[str, Any], context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The link is in the task's log and on the tab; it depends on the diagnosis, or else on the exception's name."""
    with pytest.raises(JobFailed):
        job(kit, parameters, "exit 3").execute(context)
    page = "https://docs.example/jobflow/failures.html#diagnosis-command-failed"
    assert context["ti"].xcoms[KEY]["help"] == page
    assert f"What to do about it: {page}" in capsys.readouterr().out
    assert help_page(JobTimeout("late")) == "https://docs.example/jobflow/failures.html#error-jobtimeout"


@pytest.mark.usefixtures("documented")
def test_a_derived_exception_links_to_the_heading_of_its_base() -> None:
    """The page only has headings for the exceptions of this package."""
    theirs = type("Theirs", (QueueTimeout,), {"__module__": "elsewhere"})
    assert str(help_page(theirs("stuck"))).endswith("#error-queuetimeout")


def test_without_documentation_there_is_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken link helps nobody."""
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: email.message.Message())
    assert help_page(JobTimeout("late")) is None


def test_a_task_fails_for_its_own_reason_if_the_package_is_not_installed(
    kit: Any, parameters: dict[str, Any], context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, it runs from a checkout, so the address of the documentation is unknown."""

    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", missing)
    with pytest.raises(JobFailed):
        job(kit, parameters, "exit 3").execute(context)


class Written:
    """Notes in place of Airflow's XComs."""

    def __init__(self) -> None:
        self.notes: list[dict[str, Any]] = []
        self.changed = threading.Event()

    def set(self, key: str, value: Any, **_: Any) -> None:
        """Store an XCom."""
        assert key == KEY
        self.notes.append(value)
        self.changed.set()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """Return the notes of triggers, which are written with short pauses."""
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


def test_the_note_of_a_running_array_has_its_failed_children(
    kit: Any, here: Callable[[Any], None], written: Written, gate: Any
) -> None:
    """Listing intervals do not delay the counts, which come with each poll."""
    here(kit.aws)
    script = f"{ON_THREE}; while [ ! -e {gate} ]; do sleep 0.02; done"
    parent = kit.sh(script, arrayProperties={"size": 5})
    trigger = JobTrigger(service="batch", job_ids=[parent], aws_conn_id=None, poll_interval=0.2, reports_progress=True)
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)  # type: ignore[assignment]

    async def scenario() -> dict[str, Any]:
        waiting = asyncio.ensure_future(trigger.wait())
        deadline = time.monotonic() + TIMEOUT
        while not any(note.get("array", {}).get("failed_jobs") for note in written.notes):
            assert time.monotonic() < deadline, written.notes
            await asyncio.sleep(0.05)
        gate.touch()
        return await waiting

    event = asyncio.run(scenario())
    assert event["jobs"][parent]["state"] == "FAILED"
    found = next(note for note in written.notes if note["array"]["failed_jobs"])
    assert found["array"]["cells"] == "...F."
    assert found["array"]["failed_jobs"][0]["exit_code"] == 7
    assert not found["final"]
    assert found["jobs"][0]["links"]["console"].startswith("https://console.aws.amazon.com/batch/home?region=")
    assert [status for status, _ in found["jobs"][0]["seen"]]


@pytest.mark.parametrize("noted", [True, False])
def test_a_trigger_does_not_repeat_the_workers_note(
    kit: Any, written: Written, gate: Any, parameters: dict[str, Any], noted: bool
) -> None:
    """Otherwise each task would need one more request."""
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

    async def scenario() -> Any:
        waiting = asyncio.ensure_future(trigger.wait())
        deadline = time.monotonic() + TIMEOUT
        before = kit.aws.calls["batch.DescribeJobs"]
        while kit.aws.calls["batch.DescribeJobs"] < before + 6:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        gate.touch()
        return await waiting

    assert asyncio.run(scenario())["links"] == (note["links"] if noted else None)
    assert [notes.digest(each) for each in written.notes] == ([] if noted else [notes.digest(note)])


@pytest.mark.parametrize("trigger", [JobTrigger, MapTrigger])
def test_a_trigger_without_notes_writes_none(trigger: type[Any]) -> None:
    """Triggers that an earlier version has serialized do not have this argument."""
    given = {"job_ids": ["a"]} if trigger is JobTrigger else {"job_group": {}, "size": 0, "indexes": "", "requests": ""}
    assert trigger(service="batch", **given).serialize()[1]["reports_progress"] is False
