"""The sample DAGs, each run like `airflow dags test`: the end of every path of a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

FAILING = {"containerOverrides": {"command": ["sh", "-c", "sleep 1; exit 3"]}}


def test_flow_1_ends_with_the_final_status(
    test_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Submit, wait, choose, report. What the job writes is in the log of its task."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__STREAM_LOGS", "True")
    run = test_dag("batch_job_status_poller")
    assert run.state == "success"
    assert run.states == {
        "run_job": "success",
        "job_complete": "success",
        "get_final_job_status": "success",
        "job_failed": "skipped",
    }
    assert run.returned("get_final_job_status").endswith(" ended as SUCCEEDED")
    assert "Hello world" in caplog.messages


def test_flow_1_fails_with_its_own_error_and_cause(
    test_dag: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """The run fails, not only a task in it; the trigger waits for the job."""
    run = test_dag("batch_job_status_poller", **FAILING)
    assert run.state == "failed"
    assert run.states == {
        "run_job": "success",
        "job_complete": "success",
        "get_final_job_status": "skipped",
        "job_failed": "failed",
    }
    outcome = run.returned("run_job")
    assert (outcome["state"], outcome["exit_code"]) == ("FAILED", 3)
    assert "DescribeJob returned FAILED: AWS Batch Job Failed" in capfd.readouterr().out


def test_flow_1_passes_parameters_to_the_job(test_dag: Callable[..., Any], samples: Any) -> None:
    """Values from the trigger form reach the job unchanged."""
    run = test_dag("batch_job_status_poller", jobName="mine", containerOverrides={"command": ["echo", "Ref::word"]})
    job_id = run.returned("run_job")["job_id"]
    [job] = samples.client("batch").describe_jobs(jobs=[job_id])["jobs"]
    assert job["jobName"].startswith("mine-")
    assert job["container"]["command"] == ["echo", "Ref::word"]


def test_flow_1_fails_for_unknown_resources(test_dag: Callable[..., Any]) -> None:
    """Neither branch is taken."""
    run = test_dag("batch_job_status_poller", jobQueue="nowhere")
    assert run.state == "failed"
    assert run.states["run_job"] == "failed"
    assert run.states["get_final_job_status"] == "upstream_failed"


@pytest.mark.parametrize(("rows", "taken"), [(3, "load"), (0, "nothing_to_load")])
def test_the_branch_is_taken_by_what_the_job_returned(test_dag: Callable[..., Any], rows: int, taken: str) -> None:
    """The value comes from the job itself, by way of its log."""
    run = test_dag("branch_on_result", rows=rows)
    assert run.state == "success"
    assert run.returned("count_rows")["result"] == {"rows": rows}
    assert run.states == {
        "count_rows": "success",
        "has_rows": "success",
        **{each: "success" if each == taken else "skipped" for each in ("load", "nothing_to_load")},
    }


@pytest.fixture
def notifications(dags: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the notifications, which are recorded instead of the callable that users replace."""
    told: list[str] = []
    module = dags["batch_array_notify"].get_task("notify_once").python_callable.__globals__
    monkeypatch.setitem(module, "notify", told.append)
    return told


def test_flow_2_notifies_once_on_success(test_dag: Callable[..., Any], notifications: list[str], samples: Any) -> None:
    """There is one notification for the array, none for its children; each child prints the colour at its index."""
    run = test_dag("batch_array_notify")
    assert run.state == "success"
    [line] = notifications
    assert "SUCCEEDED: 7 of 7 succeeded" in line
    parent = run.returned("print_colors")["job_id"]
    children = samples.client("batch").describe_jobs(jobs=[f"{parent}:{index}" for index in range(7)])["jobs"]
    logs = samples.client("logs")
    printed = {
        child["arrayProperties"]["index"]: logs.get_log_events(
            logGroupName="/aws/batch/job", logStreamName=child["container"]["logStreamName"]
        )["events"][0]["message"]
        for child in children
    }
    assert [printed[i] for i in range(7)] == ["RED", "ORANGE", "YELLOW", "GREEN", "BLUE", "INDIGO", "VIOLET"]


def test_flow_2_notifies_once_on_failure(test_dag: Callable[..., Any], notifications: list[str]) -> None:
    """The run fails, too."""
    run = test_dag("batch_array_notify", jobDefinition="print-color-failing")
    assert run.state == "failed"
    [line] = notifications
    assert "FAILED: 6 of 7 succeeded, failed: [3]" in line


def test_flow_2_notifies_once_if_the_submit_fails(test_dag: Callable[..., Any], notifications: list[str]) -> None:
    """A failed start needs a notification too."""
    run = test_dag("batch_array_notify", jobQueue="nowhere")
    assert run.state == "failed"
    [line] = notifications
    assert "has no outcome" in line


def test_the_trigger_form_explains_itself(dags: Any) -> None:
    """Every parameter has a type, a description and a valid default."""
    assert set(dags) == {
        "batch_job_status_poller",
        "branch_on_result",
        "batch_array_notify",
        "batch_array_event",
        "deregister_definitions",
        "fargate_map",
        "fargate_map_expand",
        "glue_crawler_then_job",
        "python_functions",
        "stop_orphans",
    }
    for dag in dags.values():
        assert dag.doc_md
        dag.params.validate()
        for name in dag.params:
            param = dag.params.get_param(name)
            assert "type" in param.schema, name
            assert param.description, name
