"""BatchJobOperator on the local AWS: one job is started, waited for, explained and stopped."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferralError, TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.aws import ONCE
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.jobs.owner import Owner, attempt_token, job_group
from airflow_jobflow.links import pages
from airflow_jobflow.local import Faults
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.triggers.job import JobTrigger
from tests.local.tries import deferred as deferred_by
from tests.local.tries import resumed, retried


@pytest.fixture
def task(kit: Any, here: Callable[[Any], None]) -> Callable[..., BatchJobOperator]:
    """Return a function that creates an operator for the test's queue, which by default waits on the worker."""
    here(kit.aws)

    def make(script: str = "true", **parameters: Any) -> BatchJobOperator:
        if "job_definition" not in parameters:
            parameters["job_definition"] = kit.define(["sh", "-c", script])
        defaults = {"task_id": "t", "job_name": "hello", "job_queue": kit.queue, "aws_conn_id": None}
        return BatchJobOperator(**{**defaults, "deferrable": False, **parameters})

    return make


def run(trigger: JobTrigger) -> dict[str, Any]:
    """Run a trigger like Airflow: created again from its serialized form."""
    path, arguments = trigger.serialize()
    assert path == "airflow_jobflow.triggers.job.JobTrigger"
    again = JobTrigger(**json.loads(json.dumps(arguments)))

    async def first() -> Any:
        async for event in again.run():
            return event.payload
        raise AssertionError("the trigger fired no event")

    payload: dict[str, Any] = json.loads(json.dumps(asyncio.run(first())))
    return payload


def stored_by_airflow(operator: BatchJobOperator) -> dict[str, Any]:
    """Return what Airflow stores of an operator's links after its execution on a worker."""
    no_key: Any = None
    return {link.xcom_key: link.get_link(operator, ti_key=no_key) for link in operator.operator_extra_links}


def _pages(event: dict[str, Any]) -> dict[str, str]:
    """Return the console pages of the job in an event."""
    [seen] = event["jobs"].values()
    return pages("batch", Snapshot.from_dict(seen))


def jobs_of(kit: Any, queue: str | None = None) -> list[str]:
    """Return the ids of all jobs that were ever submitted to a queue."""
    answer = kit.batch.list_jobs(jobQueue=queue or kit.queue, filters=[{"name": "JOB_NAME", "values": ["*"]}])
    return [job["jobId"] for job in answer["jobSummaryList"]]


# Success.


def test_a_job_runs_and_its_outcome_is_returned(kit: Any, task: Any, context: Any) -> None:
    """DAGs read the outcome in this format."""
    outcome = task("echo hi").execute(context)
    described = kit.look(outcome["job_id"])
    assert outcome == json.loads(json.dumps(outcome))
    assert outcome.pop("log") == {"group": "/aws/batch/job", "stream": described["container"]["logStreamName"]}
    assert outcome.pop("name").startswith("hello-")
    assert outcome.pop("created_at") <= outcome.pop("started_at") <= outcome.pop("stopped_at")
    ran = (described["stoppedAt"] - described["startedAt"]) / 1000
    assert outcome.pop("usage") == {
        **dict.fromkeys(("gpu_seconds", "dpu_seconds", "capacity", "cost")),
        "vcpu_seconds": pytest.approx(ran, abs=0.001),
        "gib_seconds": pytest.approx(ran * 128 / 1024, abs=0.001),
        "queued_seconds": pytest.approx((described["startedAt"] - described["createdAt"]) / 1000, abs=0.001),
        "estimated": False,
    }
    assert outcome == {
        "service": "batch",
        "job_id": described["jobId"],
        "state": "SUCCEEDED",
        "status": "SUCCEEDED",
        "reason": "Essential container in task exited",
        "exit_code": 0,
        "console_url": f"https://console.aws.amazon.com/batch/home?region=us-east-1#jobs/detail/{described['jobId']}",
        "array": None,
        "details": None,
        **dict.fromkeys(("result", "result_uri", "result_error", "changes")),
    }


def test_a_deferred_job_ends_the_same_way(kit: Any, task: Any, context: Any, gate: Any) -> None:
    """The trigger has all the data that it needs."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    assert deferred.value.timeout is None
    gate.touch()
    outcome = getattr(operator, deferred.value.method_name)(context, run(deferred.value.trigger))
    assert (outcome["state"], outcome["exit_code"]) == ("SUCCEEDED", 0)
    assert jobs_of(kit) == [outcome["job_id"]]


def test_access_parameters_may_be_text(task: Any, context: Any, gate: Any) -> None:
    """Templates render to strings; the trigger uses the same values as the worker."""
    operator = task(
        f"while [ ! -e {gate} ]; do sleep 0.02; done",
        verify="False",
        botocore_config='{"user_agent_extra": "mine"}',
        deferrable=True,
    )
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    access = deferred.value.trigger.access
    assert (access.verify, access.botocore_config) == (False, {"user_agent_extra": "mine"})
    gate.touch()
    assert operator.execute_complete(context, run(deferred.value.trigger))["state"] == "SUCCEEDED"


def test_a_job_that_has_ended_at_the_first_describe_is_not_deferred(
    kit: Any, task: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deferral would need another worker process."""
    operator = task("true", deferrable=True)
    monkeypatch.setattr(
        operator._execution.wait, "initial_status", _after_the_end(kit, operator._execution.wait.initial_status)
    )
    assert operator.execute(context)["state"] == "SUCCEEDED"


def _after_the_end(kit: Any, look: Callable[..., Any]) -> Callable[..., Any]:
    def initial_status(job_ids: list[str], *seen: Any) -> Any:
        for job_id in job_ids:
            kit.wait(job_id)
        return look(job_ids, *seen)

    return initial_status


def test_without_waiting_the_started_job_is_returned(kit: Any, task: Any, context: Any) -> None:
    """A sensor can wait for it."""
    outcome = task("true", wait_for_completion=False).execute(context)
    assert outcome["state"] == "SUBMITTED"
    assert kit.wait(outcome["job_id"])["status"] == "SUCCEEDED"


def test_a_job_can_be_found_without_a_record(kit: Any, task: Any, context: Any) -> None:
    """Its name contains the group and the attempt token; the tags are for people."""
    outcome = task().execute(context)
    ti, recorded = context["ti"], context["task_state_store"]["jobflow"]
    group = job_group(ti.dag_id, ti.task_id, ti.run_id)
    assert outcome["name"] == f"hello-{group}-t1m0c0-{attempt_token(ti.id, 1)}"
    assert (recorded["token"], recorded["queue"]) == (attempt_token(ti.id, 1), kit.queue)
    tags = kit.look(outcome["job_id"])["tags"]
    assert Owner.from_tags(tags) == Owner(ti.dag_id, ti.task_id, ti.run_id)


def test_the_buttons_work_from_the_start(kit: Any, task: Any, context: Any, disabled_queue: str) -> None:
    """The note for the Jobs tab has their URLs, and Airflow, which stores an operator's links, stores nothing."""
    operator = task(job_queue=disabled_queue, deferrable=True)
    trigger: Any = deferred_by(operator, context).trigger
    kit.batch.terminate_job(jobId=trigger.job_ids[0], reason="the test is over")
    assert stored_by_airflow(operator) == {}
    links = dict(context["ti"].xcoms["jobflow_jobs"]["links"])
    assert trigger.links == links
    assert "/batch/home?region=us-east-1#jobs/detail/" in links.pop("_link_BatchJobLink")
    assert "#queues/detail/arn:aws:batch" in links.pop("_link_BatchJobQueueLink")
    assert "#job-definition/detail/arn:aws:batch" in links.pop("_link_BatchJobDefinitionLink")
    assert links == {}  # the log stream is not known yet


def test_a_worker_that_ends_the_task_stores_only_new_buttons(task: Any, context: Any, gate: Any, kit: Any) -> None:
    """The log stream is often known only at the end."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    deferral = deferred_by(operator, context)
    kit.eventually(lambda: kit.look(deferral.trigger.job_ids[0])["container"].get("logStreamName"))
    gate.touch()
    event = run(deferral.trigger)
    known = dict(event["links"])
    known.pop("_link_JobLogLink", None)
    last = task(deferrable=True)
    resumed(last, deferral, {**event, "links": known}, context)
    assert stored_by_airflow(last) == {"jobflow_links": last.kept_links}
    assert last.kept_links.keys() - known.keys() == {"_link_JobLogLink"}
    last = task(deferrable=True)
    resumed(last, deferral, {**event, "links": dict(last.kept_links) | _pages(event)}, context)
    assert stored_by_airflow(last) == {}


def test_a_class_derived_from_ours_stores_each_of_its_buttons(kit: Any, task: Any, context: Any, gate: Any) -> None:
    """The plugin's links do not apply to it, so Airflow reads each button from its own XCom."""
    ours = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    theirs = type("Theirs", (BatchJobOperator,), {"__module__": "elsewhere"})
    operator = theirs(
        task_id="t", job_name="hello", job_queue=kit.queue, aws_conn_id=None, job_definition=ours.job_definition
    )
    deferral = deferred_by(operator, context)
    gate.touch()
    assert deferral.trigger.links is None
    assert stored_by_airflow(operator) == operator.kept_links
    assert operator.kept_links.keys() >= {"_link_BatchJobLink", "_link_BatchJobQueueLink"}


def test_with_an_xcom_backend_buttons_are_stored_beside_the_note(
    task: Any, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server does not read what a backend has stored; Airflow stores links without the backend."""
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time import xcom

    monkeypatch.setattr(xcom, "XCom", type("Backend", (BaseXCom,), {}))
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    assert deferred_by(operator, context).trigger.links is None
    gate.touch()
    assert stored_by_airflow(operator) == {"jobflow_links": operator.kept_links}


def test_a_failed_job_keeps_its_buttons(task: Any, context: Any, gate: Any) -> None:
    """The final note replaces the one that had them."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 3", deferrable=True)
    deferral = deferred_by(operator, context)
    links = context["ti"].xcoms["jobflow_jobs"]["links"]
    gate.touch()
    last = task(deferrable=True)
    with pytest.raises(exceptions.JobFailed):
        resumed(last, deferral, run(deferral.trigger), context)
    assert context["ti"].xcoms["jobflow_jobs"]["links"] == last.kept_links
    assert last.kept_links.keys() >= links.keys()
    assert stored_by_airflow(last) == {}


def test_a_task_whose_trigger_dies_keeps_its_buttons(task: Any, context: Any, gate: Any) -> None:
    """The trigger could not return them."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    deferred_by(operator, context)
    links = context["ti"].xcoms["jobflow_jobs"]["links"]
    last = task(deferrable=True)
    with pytest.raises(TaskDeferralError):
        last.resume_execution("__fail__", {"error": "Trigger failure", "traceback": ["the trigger died"]}, context)
    note = context["ti"].xcoms["jobflow_jobs"]
    assert note["final"]
    assert note["links"] == links
    assert stored_by_airflow(last) == {}


def test_a_task_that_waits_on_its_worker_has_buttons_at_once(task: Any, context: Any) -> None:
    """They work during the wait."""
    operator = task("sleep 1", deferrable=False)
    operator.execute(context)
    links = context["ti"].xcoms["jobflow_jobs"]["links"]
    assert links["_link_BatchJobLink"] == operator.kept_links["_link_BatchJobLink"]
    assert {**links, **stored_by_airflow(operator).get("jobflow_links", {})} == operator.kept_links


def test_do_xcom_push_false_pushes_no_xcoms(task: Any, context: Any) -> None:
    """It applies to links too."""
    task(do_xcom_push=False).execute(context)
    assert context["ti"].xcoms == {}


def test_all_of_submit_job_reaches_the_job(kit: Any, task: Any, context: Any) -> None:
    """Parameters, overrides, tags and retries reach the job; parameters that are not set do not."""
    definition = kit.define(["sh", "-c", "echo $0 $WHO", "Ref::word"], parameters={"word": "bye"})
    outcome = task(
        job_definition=definition,
        parameters={"word": "hello"},
        container_overrides={"environment": [{"name": "WHO", "value": "you"}]},
        retry_strategy={"attempts": 2},
        attempt_timeout=90,
        tags={"team": "a"},
    ).execute(context)
    job = kit.look(outcome["job_id"])
    assert kit.output(outcome["job_id"]) == ["hello you"]
    assert (job["retryStrategy"]["attempts"], job["timeout"]["attemptDurationSeconds"]) == (2, 90)
    assert job["tags"]["team"] == "a"


def test_each_change_of_status_is_one_log_line(
    kit: Any, task: Any, context: Any, gate: Any, *, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody reads a log that repeats itself; the progress of an array is part of it."""
    script = f'[ "$AWS_BATCH_JOB_ARRAY_INDEX" = 0 ] && exit 1; while [ ! -e {gate} ]; do sleep 0.02; done'
    operator = task(script, array_size=3, deferrable=True, raise_on_failure=False)
    caplog.set_level(logging.INFO, "airflow_jobflow")
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    [job_id] = deferred.value.trigger.job_ids
    kit.eventually(lambda: kit.look(job_id)["arrayProperties"]["statusSummary"].get("FAILED") == 1)
    asyncio.run(_open_after_a_while(kit, deferred.value.trigger, gate))
    printed, logged = capfd.readouterr().out, "\n".join(record.getMessage() for record in caplog.records)
    lines: list[str] = []
    for log in (printed, logged):  # a line can be in both, if another test has set up a handler
        found = [rest.split(" [")[0].strip() for rest in re.findall(rf"Batch job {job_id}: (.*)", log)]
        assert len(found) == len(set(found))
        lines += found
    assert "PENDING 1/3 done, 1 failed" in lines
    assert lines[-1] == "FAILED 3/3 done, 1 failed"


async def _open_after_a_while(kit: Any, trigger: JobTrigger, gate: Any) -> None:
    """Let the trigger describe the job several times without a change, then let the job continue."""
    before = kit.aws.calls["batch.DescribeJobs"]
    waiting = asyncio.create_task(trigger.wait())
    await asyncio.to_thread(kit.eventually, lambda: kit.aws.calls["batch.DescribeJobs"] > before + 4, "a few looks")
    gate.touch()
    await waiting


# Failures.


def test_the_error_of_a_failed_job(task: Any, context: Any) -> None:
    """It has the job, attempt, exit code, reason, diagnosis, log lines and console link."""
    with pytest.raises(exceptions.JobFailed) as error:
        task("echo one; echo two >&2; exit 3", number_logs_exception=1).execute(context)
    outcome = error.value.outcome
    assert isinstance(outcome, dict)
    assert str(error.value).splitlines() == [
        f"Batch job {outcome['name']} ({outcome['job_id']}) failed on attempt 1 of 1 with exit code 3.",
        "Why: The command itself ended with an error. Check the last log lines first.",
        "AWS says: Essential container in task exited",
        "Last lines of the log:",
        "  | two",
        f"Console: {outcome['console_url']}",
    ]
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == "command_failed"


def test_a_failed_job_is_returned_with_raise_on_failure_false(task: Any, context: Any) -> None:
    """A branch can decide on the outcome."""
    outcome = task("exit 3", raise_on_failure=False).execute(context)
    assert (outcome["state"], outcome["exit_code"]) == ("FAILED", 3)


def test_the_error_of_a_failed_array(task: Any, context: Any) -> None:
    """It lists the failed indexes and their reasons, and shows the first failed child's log."""
    script = 'case $AWS_BATCH_JOB_ARRAY_INDEX in 1|2|4) echo "no $AWS_BATCH_JOB_ARRAY_INDEX"; exit 7;; esac'
    with pytest.raises(exceptions.JobFailed) as error:
        task(script, array_size=5).execute(context)
    text = str(error.value)
    assert "Failed children (3 of 5): 1-2,4" in text
    assert "[1] on attempt 1 of 1 with exit code 7: The command itself ended with an error" in text
    assert "Last lines of the log of [1]:\n  | no 1" in text
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["array"] == {"size": 5, "succeeded": 2, "failed": 3, "failed_indexes": [1, 2, 4]}


@pytest.mark.parametrize("tolerance", [{"tolerated_failure_count": 1}, {"tolerated_failure_percentage": "20"}])
def test_tolerated_failures_are_a_success(task: Any, context: Any, tolerance: dict[str, Any]) -> None:
    """The outcome has the failed indexes."""
    script = '[ "$AWS_BATCH_JOB_ARRAY_INDEX" != 2 ]'
    outcome = task(script, array_size=5, **tolerance).execute(context)
    assert outcome["state"] == "SUCCEEDED"
    assert outcome["status"] == "FAILED"
    assert outcome["array"] == {"size": 5, "succeeded": 4, "failed": 1, "failed_indexes": [2]}


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_array_of_one_has_the_outcome_of_an_array(
    kit: Any, task: Any, context: Any, gate: Any, deferrable: bool
) -> None:
    """AWS has no arrays of one, so a single job runs with the index of child 0."""
    script = f'while [ ! -e {gate} ]; do sleep 0.02; done; [ "$JOBFLOW_ARRAY_INDEXES" = "$WANTED" ]'

    def run(**parameters: Any) -> Any:
        operator = task(script, array_size="1", deferrable=deferrable, **parameters)
        if not deferrable:
            gate.touch()
            return operator.execute(context)
        gate.unlink(missing_ok=True)
        deferral = deferred_by(operator, context)
        gate.touch()
        return resumed(operator, deferral, asyncio.run(deferral.trigger.wait()), context)

    outcome = run(environment={"WANTED": 0})
    assert outcome["array"] == {"size": 1, "succeeded": 1, "failed": 0, "failed_indexes": []}
    assert "arrayProperties" not in kit.look(outcome["job_id"])
    outcome = run(environment={"WANTED": 1}, tolerated_failure_count=1)
    assert (outcome["state"], outcome["status"]) == ("SUCCEEDED", "FAILED")
    assert outcome["array"] == {"size": 1, "succeeded": 0, "failed": 1, "failed_indexes": [0]}
    with pytest.raises(exceptions.JobFailed, match=r"Failed children \(1 of 1\): 0"):
        run(environment={"WANTED": 1})


def test_sizes_and_variables_reach_the_job(kit: Any, task: Any, context: Any) -> None:
    """The short forms work without container_overrides."""
    outcome = task("echo $WHO", environment={"WHO": "you"}, vcpus=0.5, memory=1024).execute(context)
    container = kit.look(outcome["job_id"])["container"]
    assert kit.lines(container["logStreamName"]) == ["you"]
    assert {each["type"]: each["value"] for each in container["resourceRequirements"]} == {
        "VCPU": "0.5",
        "MEMORY": "1024",
    }


def test_an_array_whose_failures_cannot_be_listed_fails(own_kit: Any, own_task: Any, context: Any) -> None:
    """Unknown failures are not tolerated; the error is about the job, not about the listing."""
    definition = own_kit.define(["false"])
    operator = own_task(job_definition=definition, array_size=2, tolerated_failure_percentage=100)
    own_kit.aws.set_faults(Faults(denied=("batch.ListJobs",)))
    with pytest.raises(exceptions.JobFailed, match=r"Failed children \(2 of 2\): which ones could not"):
        operator.execute(context)


def test_one_failure_too_many_is_not_tolerated(task: Any, context: Any) -> None:
    """The tolerance is a maximum."""
    script = '[ "$AWS_BATCH_JOB_ARRAY_INDEX" -gt 1 ]'
    with pytest.raises(exceptions.JobFailed):
        task(script, array_size=4, tolerated_failure_count=1).execute(context)


INTERRUPTIONS: dict[str, dict[str, Any]] = {
    "spot_reclaimed": {"status_reason": "Host EC2 (instance i-0abc) terminated."},
    "out_of_memory": {
        "status_reason": "Essential container in task exited",
        "container_reason": "OutOfMemoryError: Container killed due to memory usage",
        "exit_code": 137,
    },
}


@pytest.mark.parametrize("cause", INTERRUPTIONS)
def test_the_end_of_a_running_job_is_diagnosed(kit: Any, task: Any, context: Any, cause: str, gate: Any) -> None:
    """AWS's reason leads to a cause with advice."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    [job_id] = deferred.value.trigger.job_ids
    kit.wait(job_id, "RUNNING")
    kit.aws.interrupt(job_id, **INTERRUPTIONS[cause])
    with pytest.raises(exceptions.JobFailed) as error:
        operator.execute_complete(context, run(deferred.value.trigger))
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == cause


@pytest.mark.parametrize("bug", [True, False])
def test_the_cause_of_an_array_is_that_of_its_children(kit: Any, task: Any, context: Any, gate: Any, bug: bool) -> None:
    """If most children were interrupted and one has a bug, the message shows the bug and its log first."""
    last = f"echo the bug; exit {7 if bug else 0}"
    script = f'[ "$AWS_BATCH_JOB_ARRAY_INDEX" = 2 ] && {{ {last}; }}; while [ ! -e {gate} ]; do sleep 0.02; done'
    operator = task(script, array_size=3, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    [job_id] = deferred.value.trigger.job_ids
    for index in (0, 1):
        kit.wait(f"{job_id}:{index}", "RUNNING")
        kit.aws.interrupt(f"{job_id}:{index}", **INTERRUPTIONS["spot_reclaimed"])
    with pytest.raises(exceptions.JobFailed) as error:
        operator.execute_complete(context, run(deferred.value.trigger))
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == ("command_failed" if bug else "spot_reclaimed")
    text = str(error.value)
    assert ("By cause: 2 spot_reclaimed, 1 command_failed\n  [2]" in text) is bug
    assert ("Last lines of the log of [2]:\n  | the bug" in text) is bug
    assert "evaluateOnExit" in text or bug


@pytest.mark.parametrize(
    ("cause", "definition"),
    [
        ("image_not_pulled", {"containerProperties": {"image": "missing/image:1"}}),
        ("command_not_found", {"command": ["no-such-command"]}),
        ("command_not_run", {"command": ["sh", "-c", "no-such-command"]}),
    ],
)
def test_a_job_that_cannot_run_is_diagnosed(
    kit: Any, task: Any, context: Any, cause: str, definition: dict[str, Any]
) -> None:
    """A wrong configuration is not a failure of the command."""
    with pytest.raises(exceptions.JobFailed) as error:
        task(job_definition=kit.define(**definition)).execute(context)
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == cause


def test_a_job_that_someone_else_stops_counts_as_stopped(kit: Any, task: Any, context: Any, gate: Any) -> None:
    """The error says why it was stopped."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    [job_id] = deferred.value.trigger.job_ids
    kit.wait(job_id, "RUNNING")
    kit.batch.terminate_job(jobId=job_id, reason="Not needed any more")
    with pytest.raises(exceptions.JobStopped, match=r"was stopped.*\n.*\n.*Not needed any more"):
        operator.execute_complete(context, run(deferred.value.trigger))


def test_an_array_that_someone_else_stops_counts_as_stopped(kit: Any, task: Any, context: Any, gate: Any) -> None:
    """Tolerances apply to failures only."""
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    operator = task(script, array_size=2, deferrable=True, tolerated_failure_percentage=100)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    [job_id] = deferred.value.trigger.job_ids
    kit.batch.terminate_job(jobId=job_id, reason="Not needed any more")
    with pytest.raises(exceptions.JobStopped, match="Not needed any more"):
        operator.execute_complete(context, run(deferred.value.trigger))


def test_deregistering_the_definition_after_the_submit_has_no_effect(kit: Any, task: Any, context: Any) -> None:
    """Batch keeps the definition for submitted jobs."""
    definition = kit.define(["sh", "-c", "sleep 0.3"])
    operator = task(job_definition=definition, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    kit.batch.deregister_job_definition(jobDefinition=definition)
    assert operator.execute_complete(context, run(deferred.value.trigger))["state"] == "SUCCEEDED"


# Rejected starts.


def test_an_inactive_definition_is_rejected(kit: Any, task: Any, context: Any) -> None:
    """No job is started, and a retry would be rejected as well."""
    definition = kit.define()
    kit.batch.deregister_job_definition(jobDefinition=definition)
    with pytest.raises(exceptions.SubmissionRejected, match="nothing was started"):
        task(job_definition=definition).execute(context)
    assert jobs_of(kit) == []


@pytest.mark.parametrize("parameter", ["job_queue", "job_definition"])
def test_unknown_resources_are_rejected(kit: Any, task: Any, context: Any, parameter: str) -> None:
    """The error has AWS's message, and the task is not retried."""
    with pytest.raises(exceptions.SubmissionRejected, match="nowhere") as error:
        task(**{parameter: "nowhere"}).execute(context)
    assert isinstance(error.value, AirflowFailException)
    assert jobs_of(kit) == []


def test_invalid_parameters_start_no_job(kit: Any, task: Any, context: Any) -> None:
    """Parameters are validated before the submit."""
    with pytest.raises(exceptions.InvalidParameter, match="array_size=0"):
        task(array_size=0).execute(context)
    assert jobs_of(kit) == []


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["AWS_DEFAULT_REGION", "AWS_REGION"], "You must specify a region"),
        (["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], "Unable to locate credentials"),
    ],
)
def test_the_error_for_missing_credentials_or_region(
    task: Any, context: Any, monkeypatch: pytest.MonkeyPatch, missing: list[str], words: str
) -> None:
    """No job is started; a retry may find them, because a metadata service can be slow (A4)."""
    operator = task()
    for name in missing:
        monkeypatch.delenv(name)
    with pytest.raises(exceptions.SubmissionError, match=words) as error:
        operator.execute(context)
    assert "othing was started" in str(error.value)
    assert not isinstance(error.value, AirflowFailException)


def test_the_error_for_a_missing_connection_names_it(task: Any, context: Any) -> None:
    """No other credentials are used. Airflow reports the same while its API server is down."""
    words = "Nothing was started.* Airflow has no connection 'nowhere'"
    with pytest.raises(exceptions.SubmissionError, match=words) as error:
        task(aws_conn_id="nowhere").execute(context)
    assert not isinstance(error.value, AirflowFailException)


# One job per attempt.


@pytest.fixture
def own_task(own_kit: Any, here: Callable[[Any], None]) -> Callable[..., BatchJobOperator]:
    """Return a function that creates an operator on a local AWS of the test's own, for faults."""
    here(own_kit.aws)

    def make(**parameters: Any) -> BatchJobOperator:
        defaults = {"task_id": "t", "job_name": "hello", "job_queue": own_kit.queue, "aws_conn_id": None}
        return BatchJobOperator(**{**defaults, "job_definition": own_kit.define(), "deferrable": False, **parameters})

    return make


def test_a_submit_whose_response_is_lost_starts_one_job(own_kit: Any, own_task: Any, context: Any) -> None:
    """The job is found by its name, and not submitted again."""
    operator = own_task()
    own_kit.aws.set_faults(Faults(actions=("SubmitJob",), lose_answers=1))
    outcome = operator.execute(context)
    assert outcome["state"] == "SUCCEEDED"
    assert jobs_of(own_kit) == [outcome["job_id"]]
    assert own_kit.aws.calls["batch.SubmitJob"] == 1


def test_a_submit_that_did_not_arrive_is_repeated(own_kit: Any, own_task: Any, context: Any) -> None:
    """The job is looked up first, and then submitted once more."""
    operator = own_task()
    own_kit.aws.set_faults(Faults(actions=("SubmitJob",), error_every=2))
    own_kit.submit()
    outcome = operator.execute(context)
    assert outcome["state"] == "SUCCEEDED"
    assert [job for job in jobs_of(own_kit) if own_kit.look(job)["jobName"] == outcome["name"]] == [outcome["job_id"]]


def test_a_throttled_submit_is_repeated(own_kit: Any, own_task: Any, context: Any) -> None:
    """Throttling does not fail a task."""
    operator = own_task()
    own_kit.aws.set_faults(Faults(actions=("SubmitJob",), calls_per_second=20))
    for _ in range(20):
        own_kit.submit()
    assert operator.execute(context)["state"] == "SUCCEEDED"


def test_a_submit_that_cannot_be_looked_up_is_not_repeated(own_kit: Any, own_task: Any, context: Any) -> None:
    """A second job would be worse than an error about an unknown state."""
    operator = own_task()
    own_kit.aws.set_faults(Faults(actions=("SubmitJob", "ListJobs"), drop_every=1))
    with pytest.raises(exceptions.SubmissionError, match="may have been started") as error:
        operator.execute(context)
    assert not isinstance(error.value, exceptions.SubmissionRejected)
    assert own_kit.aws.calls["batch.SubmitJob"] == 1


def test_without_durable_the_name_is_not_changed(kit: Any, task: Any, context: Any) -> None:
    """No job is looked up either."""
    outcome = task(durable=False).execute(context)
    assert outcome["name"] == "hello"
    # The reaper would report every such job as a copy, because it has no group.
    assert "airflow_jobflow_reap" not in kit.look(outcome["job_id"])["tags"]


def test_a_long_name_is_shortened_for_the_token(task: Any, context: Any) -> None:
    """The name remains unique and valid."""
    name = task(job_name="x" * 128).execute(context)["name"]
    assert 100 < len(name) <= 128
    assert name.startswith("x" * 70)


def test_a_log_of_huge_and_binary_lines_makes_a_short_and_printable_error(task: Any, context: Any) -> None:
    """A log may contain a core dump. The error goes into logs, XComs and the database."""
    script = (
        "head -c 1000000 /dev/zero | tr '\\0' x; echo; printf '\\000\\377\\033[31mred\\033[0m\\n'; echo last; exit 3"
    )
    with pytest.raises(exceptions.JobFailed) as error:
        task(script).execute(context)
    text = str(error.value)
    assert len(text.encode()) < 20_000
    assert "exit code 3" in text
    assert text.splitlines()[-2:-1] == ["  | last"]
    assert "red" in text
    assert all(each.isprintable() or each == "\n" for each in text)
    json.dumps(error.value.outcome)


def test_an_unknown_container_is_rejected(kit: Any, task: Any, context: Any) -> None:
    """Nothing is submitted before; the container of a job with containerProperties has no name."""
    with pytest.raises(exceptions.InvalidParameter, match=r"container_name='main': must be one of .* which has none"):
        task(container_name="main").execute(context)
    assert jobs_of(kit) == []


# Deadlines.


def test_a_job_past_its_deadline_is_stopped(kit: Any, task: Any, context: Any, gate: Any) -> None:
    """The error has its last status."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", job_timeout=1)
    with pytest.raises(
        exceptions.JobTimeout, match=r"last seen [A-Z]+, did not end within 1 s \(job_timeout\)\. It was stopped"
    ):
        operator.execute(context)
    [job_id] = jobs_of(kit)
    assert kit.wait(job_id)["statusReason"] == "The deadline of the Airflow task has passed"


def test_the_error_of_a_hanging_job_has_its_last_log_lines(kit: Any, task: Any, context: Any, gate: Any) -> None:
    """As for a failed job, it also has the job's name and console link."""
    operator = task(f"echo working; echo stuck; while [ ! -e {gate} ]; do sleep 0.02; done", job_timeout=2)
    with pytest.raises(exceptions.JobTimeout) as error:
        operator.execute(context)
    first, *rest = str(error.value).splitlines()
    [job_id] = jobs_of(kit)
    assert first.startswith(
        f"Batch job {kit.look(job_id)['jobName']} ({job_id}), last seen RUNNING, did not end within 2 s"
    )
    assert rest[:3] == ["Last lines of the log:", "  | working", "  | stuck"]
    assert rest[3].startswith("Console: https://")
    assert len(rest) == 4


def test_the_error_of_a_hanging_job_without_output_says_so(task: Any, context: Any, gate: Any) -> None:
    """The log is not awaited, because old lines have already arrived."""
    with pytest.raises(
        exceptions.JobTimeout, match=r"\(no lines in stream \S+ of log group /aws/batch/job: it is empty"
    ):
        task(f"while [ ! -e {gate} ]; do sleep 0.02; done", job_timeout=1).execute(context)


def test_cancel_on_timeout_false_leaves_the_job_running(kit: Any, task: Any, context: Any, gate: Any) -> None:
    """The task fails at its deadline without stopping the job."""
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    with pytest.raises(exceptions.JobTimeout, match="left running"):
        task(script, job_timeout=0.5, cancel_on_timeout=False).execute(context)
    [job_id] = jobs_of(kit)
    gate.touch()
    assert kit.wait(job_id)["status"] == "SUCCEEDED"


def test_a_job_that_ended_by_the_deadline_counts_as_ended(kit: Any, task: Any, context: Any) -> None:
    """No triggerer may have been alive to see it in time."""
    operator = task("exit 0")
    job_id = kit.submit(jobDefinition=operator.job_definition)
    kit.wait(job_id)
    event = {"job_ids": [job_id], "jobs": {}, "errors": {}, "limit": "deadline"}
    assert operator.execute_complete(context, event)["state"] == "SUCCEEDED"


def test_a_job_that_does_not_leave_the_queue_is_stopped(kit: Any, task: Any, context: Any, disabled_queue: str) -> None:
    """The error says what to check."""
    operator = task(job_queue=disabled_queue, queued_timeout=0.5)
    with pytest.raises(
        exceptions.QueueTimeout, match=r"last seen RUNNABLE.* within 0\.5 s \(queued_timeout\)"
    ) as error:
        operator.execute(context)
    assert "compute environments" in str(error.value)
    [job_id] = jobs_of(kit, disabled_queue)
    assert kit.wait(job_id)["status"] == "FAILED"


def test_the_error_of_a_queued_job_has_its_position(kit: Any, task: Any, context: Any, disabled_queue: str) -> None:
    """The position is known only if the job is not stopped."""
    operator = task(job_queue=disabled_queue, queued_timeout=0.5, cancel_on_timeout=False)
    with pytest.raises(
        exceptions.QueueTimeout, match=f"It was number 1 in queue {disabled_queue}. It was left running"
    ):
        operator.execute(context)
    kit.batch.terminate_job(jobId=jobs_of(kit, disabled_queue)[0], reason="the test is over")


def test_a_job_that_leaves_the_queue_between_two_polls_is_not_stopped(
    kit: Any, task: Any, context: Any, disabled_queue: str, gate: Any
) -> None:
    """The final describe decides, not the one a poll interval earlier."""
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    limits = {"queued_timeout": 1, "cancel_on_timeout": False}  # otherwise the trigger would have stopped the job
    operator = task(script, job_queue=disabled_queue, poll_interval=60, deferrable=True, **limits)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    event = run(deferred.value.trigger)
    assert event["limit"] == "queue_deadline"
    kit.batch.update_compute_environment(computeEnvironment=disabled_queue, state="ENABLED")
    kit.wait(event["job_ids"][0], "RUNNING")
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute_complete(context, event)
    gate.touch()
    operator.poll_interval = 0.2
    deferred.value.trigger.poll_interval = 0.2
    assert operator.execute_complete(context, run(deferred.value.trigger))["state"] == "SUCCEEDED"


def test_queued_timeout_does_not_apply_to_a_running_job(task: Any, context: Any) -> None:
    """``queued_timeout`` ends when the job leaves the queue."""
    assert task("sleep 3.5", queued_timeout=3).execute(context)["state"] == "SUCCEEDED"


@pytest.mark.parametrize("has_store", [True, False], ids=["recorded", "without a store"])
def test_a_deferral_timeout_stops_the_job(kit: Any, task: Any, context: Any, gate: Any, *, has_store: bool) -> None:
    """If no triggerer runs, the job is found by its record or by its group."""
    from airflow.models.trigger import TriggerFailureReason

    if not has_store:  # Airflow 3.2
        del context["task_state_store"]
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True, job_timeout=600)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    assert deferred.value.timeout.total_seconds() > 600
    with pytest.raises(exceptions.JobTimeout, match="It was stopped"):
        operator.resume_execution("__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, context)
    [job_id] = jobs_of(kit)
    assert kit.wait(job_id)["status"] == "FAILED"


def test_an_earlier_execution_timeout_applies(task: Any) -> None:
    """Airflow does not apply it during a deferral."""
    from datetime import timedelta

    operator = task(execution_timeout=timedelta(seconds=5), job_timeout=60, deferrable=True)
    assert operator._execution.deadlines.first == ("execution_timeout", 5)


def test_a_worker_stops_a_job_after_an_outage_at_its_deadline(
    own_kit: Any, own_task: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has no background tasks, so it waits longer than a triggerer (G5)."""
    monkeypatch.setattr("airflow_jobflow.triggers.job.STOP_TIMEOUT", 0.1)
    operator = own_task(job_definition=own_kit.define(["sleep", "600"]), job_timeout=0.5)
    own_kit.aws.set_faults(Faults(denied=("batch.TerminateJob",), lasts=3))
    with pytest.raises(exceptions.JobTimeout, match=r"It was stopped\."):
        operator.execute(context)


def test_a_deadline_is_reported_even_if_the_job_cannot_be_stopped(
    own_kit: Any, own_task: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says that the job may still run, and what to do."""
    monkeypatch.setattr("airflow_jobflow.triggers.job.STOP_TIMEOUT_IN_WORKER", 0.5)
    monkeypatch.setattr("airflow_jobflow.stopping.FIRST_RETRY", ONCE)
    operator = own_task(job_definition=own_kit.define(["sleep", "600"]), job_timeout=0.5)
    own_kit.aws.set_faults(Faults(denied=("batch.TerminateJob",)))
    with pytest.raises(exceptions.JobTimeout, match=r"It could not be stopped yet \(.*TerminateJob"):
        operator.execute(context)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("denied", exceptions.AccessDenied, "Not allowed to describe Batch job {} .*: no.* Nothing was stopped"),
        ("unanswerable", exceptions.WaitError, "Could not describe Batch job {} .*: no.* Nothing was stopped"),
        ("vanished", exceptions.JobNotFound, "Batch job {} .*: no"),
    ],
)
@pytest.mark.parametrize(
    ("retries", "what_follows"), [(1, "The next try continues with it"), (0, "No retry will continue with it")]
)
def test_a_job_that_cannot_be_described_is_never_stopped(
    kit: Any, task: Any, context: Any, gate: Any, *, kind: str, error: Any, words: str, retries: int, what_follows: str
) -> None:
    """The job may be fine. The error is not final, and names the connection and the region."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    context["ti"].max_tries = retries
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    [job_id] = jobs_of(kit)
    event = {"job_ids": [job_id], "jobs": {}, "errors": {job_id: {"kind": kind, "message": "no"}}, "limit": None}
    with pytest.raises(error, match=rf"{words.format(rf'hello .{job_id}.')}.* {what_follows}") as raised:
        operator.execute_complete(context, event)
    assert not isinstance(raised.value, AirflowFailException)
    assert "(connection: boto3's default credentials in us-east-1)" in str(raised.value)
    gate.touch()
    assert kit.wait(job_id)["status"] == "SUCCEEDED"


def test_after_a_denial_a_retry_finds_the_job_again(own_kit: Any, own_task: Any, context: Any, gate: Any) -> None:
    """The permission is restored while the task waits for its retry (A1)."""
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    definition = own_kit.define(["sh", "-c", script])
    deferral = deferred_by(own_task(job_definition=definition, deferrable=True), context)
    [job_id] = deferral.trigger.job_ids
    own_kit.aws.set_faults(Faults(denied=("batch.DescribeJobs",)))
    event = run(deferral.trigger)
    assert event["errors"][job_id]["kind"] == "denied"
    with pytest.raises(exceptions.AccessDenied, match="DescribeJobs"):
        resumed(own_task(job_definition=definition), deferral, event, context)
    own_kit.aws.set_faults(Faults())
    gate.touch()
    outcome = own_task(job_definition=definition).execute(retried(context))
    assert (outcome["job_id"], outcome["state"]) == (job_id, "SUCCEEDED")
    assert jobs_of(own_kit) == [job_id]


@pytest.mark.parametrize("retries", [0, 1])
def test_if_the_trigger_fails_the_job_is_left_to_a_retry_or_stopped(
    kit: Any, task: Any, context: Any, gate: Any, retries: int
) -> None:
    """Airflow resumes the task only to fail it."""
    from airflow.sdk.bases.operator import TriggerFailureReason

    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    context["ti"].max_tries = retries
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    [job_id] = jobs_of(kit)
    with pytest.raises(TaskDeferralError):
        operator.resume_execution("__fail__", {"error": TriggerFailureReason.TRIGGER_FAILURE}, context)
    gate.touch()
    assert kit.wait(job_id)["status"] == ("SUCCEEDED" if retries else "FAILED")


def test_a_wait_on_the_worker_ends_before_airflows_timeout(task: Any) -> None:
    """Airflow's timeout knows neither the job nor cancel_on_timeout."""
    from datetime import timedelta

    limits = {"execution_timeout": timedelta(seconds=60)}
    assert task(**limits)._execution.deadlines.limits == {"execution_timeout": 54}
    assert task(deferrable=True, **limits)._execution.deadlines.limits == {"execution_timeout": 60}


# Kills.


@pytest.mark.parametrize("cancel", [True, False])
def test_cancel_on_kill_decides_whether_a_killed_worker_stops_its_job(
    kit: Any, task: Any, context: Any, gate: Any, cancel: bool
) -> None:
    """By default, the job is stopped."""
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    operator = task(script, wait_for_completion=False, cancel_on_kill=cancel)
    job_id = operator.execute(context)["job_id"]
    operator.on_kill()
    gate.touch()
    assert kit.wait(job_id)["status"] == ("FAILED" if cancel else "SUCCEEDED")


@pytest.mark.parametrize("raises", [True, False])
def test_a_worker_shutdown_during_the_wait_fails_the_task(
    kit: Any, task: Any, context: Any, gate: Any, *, raises: bool
) -> None:
    """raise_on_failure=False returns the outcome of a failed job, not of one that this task has stopped."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", raise_on_failure=raises)

    def shut_down() -> None:
        kit.eventually(lambda: operator._to_stop)
        kit.wait(operator._to_stop[0], "RUNNING")
        operator.on_kill()

    worker = threading.Thread(target=shut_down)
    worker.start()
    with pytest.raises(exceptions.JobStopped, match="The Airflow task was killed"):
        operator.execute(context)
    worker.join()


@pytest.mark.parametrize("slow", ["describe calls", "the task state store"])
def test_a_killed_worker_stops_its_job_despite_slow_calls(
    own_kit: Any, own_task: Any, context: Any, monkeypatch: pytest.MonkeyPatch, *, slow: str
) -> None:
    """Airflow kills the process five seconds after SIGTERM."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__REQUEST_TIMEOUT", "600")
    operator = own_task(job_definition=own_kit.define(["sleep", "60"]), wait_for_completion=False)
    job_id = operator.execute(context)["job_id"]
    answered = threading.Event()
    if slow == "describe calls":
        own_kit.aws.set_faults(Faults(actions=("DescribeJobs",), hang=600))
    else:
        monkeypatch.setattr(context["task_state_store"], "set", lambda *_: answered.wait(), raising=False)
    killing = threading.Thread(target=operator.on_kill, daemon=True)
    killing.start()
    own_kit.eventually(lambda: own_kit.aws.calls["batch.TerminateJob"], "the stop")
    answered.set()
    own_kit.aws.set_faults(Faults())
    killing.join()
    assert own_kit.wait(job_id)["status"] == "FAILED"


def test_a_task_killed_during_the_submit_stops_its_job(
    kit: Any, task: Any, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal handler does not end the process: the submit completes, and its job must not keep running."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    submit = operator._execution.spec.submit

    def killed_meanwhile(*arguments: Any) -> list[str]:
        operator.on_kill()
        return list(submit(*arguments))

    monkeypatch.setattr(operator._execution.spec, "submit", killed_meanwhile)
    with pytest.raises(exceptions.JobStopped, match="killed while it started"):
        operator.execute(context)
    [job_id] = jobs_of(kit)
    assert kit.wait(job_id)["status"] == "FAILED"


def test_a_kill_stops_the_job_before_describing_it(own_kit: Any, own_task: Any, context: Any) -> None:
    """Airflow ends the process five seconds after the signal, so no slow call may precede the stop."""
    operator = own_task(job_definition=own_kit.define(["sleep", "60"]), wait_for_completion=False)
    job_id = operator.execute(context)["job_id"]
    own_kit.aws.set_faults(Faults(actions=("DescribeJobs",), hang=60))
    stopped: list[int] = []

    def save() -> None:
        own_kit.eventually(lambda: own_kit.aws.calls["batch.TerminateJob"])
        stopped.append(own_kit.aws.calls["batch.TerminateJob"])

    operator._execution.record.save_if_possible = save  # as slow as an API server can be
    operator.on_kill()
    own_kit.aws.set_faults(Faults())
    assert own_kit.wait(job_id)["status"] == "FAILED"
    assert stopped == [1]
    assert operator._execution.record.attempt.abandoned


def test_a_throttled_stop_is_repeated_after_a_kill(own_kit: Any, own_task: Any, context: Any) -> None:
    """If many tasks are killed at once, their calls are throttled."""
    operator = own_task(job_definition=own_kit.define(["sleep", "60"]), deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    own_kit.aws.set_faults(Faults(actions=("TerminateJob",), error_every=2))
    own_kit.batch.terminate_job(jobId=own_kit.submit(), reason="the first of two calls")
    asyncio.run(deferred.value.trigger.on_kill())
    [job_id] = deferred.value.trigger.job_ids
    assert own_kit.wait(job_id)["status"] == "FAILED"


def test_a_cancelled_trigger_stops_nothing(kit: Any, task: Any, context: Any, gate: Any) -> None:
    """A triggerer restarts, or its triggers are moved to another one."""
    operator = task(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    trigger: Any = deferred.value.trigger
    [job_id] = deferred.value.trigger.job_ids
    kit.wait(job_id, "RUNNING")

    async def cancel() -> None:
        before = kit.aws.calls["batch.DescribeJobs"]
        waiting = asyncio.create_task(trigger.wait())
        await asyncio.to_thread(kit.eventually, lambda: kit.aws.calls["batch.DescribeJobs"] > before, "a look")
        waiting.cancel()
        await asyncio.gather(waiting, trigger.cleanup(), return_exceptions=True)

    asyncio.run(cancel())
    assert kit.look(job_id)["status"] == "RUNNING"
    gate.touch()
    assert operator.execute_complete(context, run(trigger))["state"] == "SUCCEEDED"
