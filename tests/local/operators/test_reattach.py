"""Every operator, killed at every point of a start and run again: one attempt starts one job."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_jobflow import exceptions
from airflow_jobflow.local import Faults
from tests.local.operator_cases import CASES, WITH_NAMES, Array, Batch, Case, Crawl, Fargate
from tests.local.tries import RESPONSE, Killed, cleared, deferred, killed, retried


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_retry_waits_for_a_running_job(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch, *, deferrable: bool
) -> None:
    """The triggerer was lost, or the worker died during the wait."""
    killed(case.make(), "_execution.wait.initial_status", context, monkeypatch)
    [started] = case.started()
    if deferrable:
        before = Counter(case.kit.aws.calls)
        deferred(case.make(), retried(context))
        assert (case.kit.aws.calls - before).total() <= 3
    case.end()
    outcome = case.make(deferrable=False).execute(retried(context))
    assert outcome["state"] == "SUCCEEDED"
    assert case.started() == [started]


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_worker_killed_before_it_could_use_the_response(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS has started the job, but the task does not know it."""
    killed(case.make(), RESPONSE, context, monkeypatch)
    before = Counter(case.kit.aws.calls)
    deferred(case.make(), retried(context))
    assert (case.kit.aws.calls - before).total() <= 3
    case.end()
    assert case.make(deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_worker_killed_before_the_start(case: Case, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt was recorded, but no job was started."""
    operator = case.make()
    new_attempt = operator._execution.record.new_attempt

    def then_dies(*arguments: Any, **notes: Any) -> Any:
        new_attempt(*arguments, **notes)
        raise Killed

    monkeypatch.setattr(operator._execution.record, "new_attempt", then_dies)
    with pytest.raises(Killed):
        operator.execute(context)
    token = context["task_state_store"]["jobflow"]["token"]
    assert case.started() == []
    case.gate.touch()
    assert case.make(deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"
    assert len(case.started()) == 1
    assert context["task_state_store"]["jobflow"]["token"] == token


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("point", ["_execution.wait.initial_status", RESPONSE])
def test_a_retry_uses_the_result_of_a_job_that_has_succeeded(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The work is done."""
    killed(case.make(), point, context, monkeypatch)
    case.end()
    [started] = case.started()
    assert case.status(started) == "SUCCEEDED"
    assert case.make().execute(retried(context))["state"] == "SUCCEEDED"
    assert case.started() == [started]


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_retry_after_a_failed_job_starts_a_new_one(case: Case, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This is the purpose of retries."""
    killed(case.make(), "_execution.wait.initial_status", context, monkeypatch)
    case.end(well=False)
    [started] = case.started()
    assert case.status(started) == "FAILED"
    case.gate.write_text("")
    assert case.make(deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"
    assert len(case.started()) == 2


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("point", ["_execution.wait.initial_status", RESPONSE])
def test_a_clear_starts_a_new_job_and_stops_a_running_one(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Two jobs of one task might write to the same place."""
    killed(case.make(), point, context, monkeypatch)
    [first] = case.started()
    again = case.make(if_running="wait_then_start") if isinstance(case, Crawl) else case.make()
    deferred(again, cleared(context))
    assert case.status(first) == "FAILED"
    assert len(case.started()) == 2
    case.end()
    assert case.make(deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"
    assert len(case.started()) == 2


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_the_job_of_a_killed_task_is_not_waited_for(case: Case, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped; if that failed, the next try stops it."""
    operator = case.make()
    deferred(operator, context)
    monkeypatch.setattr(operator._execution.jobs, "stop", lambda *_: None)
    operator.on_kill()
    [first] = case.started()
    again = case.make(if_running="wait_then_start") if isinstance(case, Crawl) else case.make()
    deferred(again, retried(context))
    assert case.status(first) == "FAILED"
    assert len(case.started()) == 2
    case.end()


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_deadline_survives_a_retry(case: Case, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an absolute time of the attempt."""
    killed(case.make(job_timeout=0.2), "_execution.wait.initial_status", context, monkeypatch)
    deadline = context["task_state_store"]["jobflow"]["deadline"]
    with pytest.raises(exceptions.JobTimeout):
        case.make(deferrable=False, job_timeout=0.2).execute(retried(context))
    assert context["task_state_store"]["jobflow"]["deadline"] == deadline
    [first] = case.started()
    assert case.status(first) == "FAILED"
    case.gate.touch()
    assert case.make(deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"


@pytest.mark.parametrize("case", WITH_NAMES, indirect=True)
def test_without_durable_no_job_is_looked_up(case: Case, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has chosen this: another job starts, under the unchanged name."""
    killed(case.make(durable=False), "_execution.wait.initial_status", context, monkeypatch)
    deferred(case.make(durable=False), retried(context))
    assert len(case.started()) == 2
    case.end()


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_without_a_lookup_no_job_is_started_again(case: Case, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second job would be worse than another try."""
    killed(case.make(), "_execution.wait.initial_status", context, monkeypatch)
    looks = ("ListJobs", "ListTasks", "GetJobRun", "GetJobRuns", "BatchGetCrawlers", "ListCrawls")
    case.kit.aws.set_faults(Faults(denied=looks))
    try:
        with pytest.raises(exceptions.SubmissionError, match="nothing was started"):
            case.make().execute(retried(context))
    finally:
        case.kit.aws.set_faults(Faults())
    assert len(case.started()) == 1
    case.end()


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_job_in_another_region_is_logged_and_left_running(
    case: Case, context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """An id of another region has no meaning in this one."""
    deferred(case.make(region_name="us-east-1"), context)
    recorded = context["task_state_store"]["jobflow"]
    recorded["location"] = recorded["location"].replace("us-east-1", "eu-west-1")
    capsys.readouterr()
    case.gate.touch()
    operator = case.make(region_name="us-east-1", deferrable=False)
    assert operator.execute(retried(context))["state"] == "SUCCEEDED"
    assert f"elsewhere ({recorded['location']}: " in capsys.readouterr().out


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_deployment_that_gets_an_id_still_finds_its_jobs(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id is part of the group; the group of the last try is recorded."""
    killed(case.make(), "_execution.wait.initial_status", context, monkeypatch)
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DEPLOYMENT_ID", "analytics")
    deferred(case.make(), retried(context))
    assert len(case.started()) == 1
    case.end()


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_setting_the_same_region_explicitly_changes_nothing(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try got it from the connection (D9)."""
    killed(case.make(region_name=None), "_execution.wait.initial_status", context, monkeypatch)
    deferred(case.make(region_name="us-east-1"), retried(context))
    assert len(case.started()) == 1
    case.end()


class BrokenStore(dict[str, Any]):
    """A task state store that fails after a number of writes."""

    def __init__(self, notes: int) -> None:
        super().__init__()
        self.notes = notes

    def get(self, key: str, default: Any = None) -> Any:
        """Read a value, or fail."""
        self._check()
        return super().get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Write a value, or fail."""
        self.notes -= 1
        self._check()
        self[key] = value

    def _check(self) -> None:
        if self.notes < 0:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"message": "down"}))


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_failed_record_before_the_start_starts_no_job(case: Case, context: Any) -> None:
    """A job without a record might be started twice."""
    context["task_state_store"] = BrokenStore(0)
    with pytest.raises(exceptions.SubmissionError, match="nothing was started"):
        case.make().execute(context)
    assert case.started() == []


@pytest.mark.parametrize("case", WITH_NAMES, indirect=True)
def test_a_failed_record_after_the_start_loses_no_job(case: Case, context: Any) -> None:
    """The task waits for its job; if the wait fails too, the job is found by its group."""
    store = context["task_state_store"]
    broken = BrokenStore(1)
    context["task_state_store"] = broken
    deferred(case.make(), context)
    assert len(case.started()) == 1
    store.update(broken)
    context["task_state_store"] = store
    case.end()
    assert case.make(deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_of_two_jobs_with_the_name_of_one_attempt_one_is_stopped(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone has cloned the job in the console."""
    killed(case.make(), RESPONSE, context, monkeypatch)
    [first] = case.started()
    name = case.kit.look(first)["jobName"]
    clone = case.kit.submit(jobName=name, jobDefinition=case.definition)
    deferred(case.make(), retried(context))
    assert case.status(clone) == "FAILED"
    case.end()
    assert case.make(deferrable=False).execute(retried(context))["job_id"] == first


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_long_name_is_shortened_for_the_token(case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name remains unique."""
    name = "n" * 128
    killed(case.make(job_name=name), RESPONSE, context, monkeypatch)
    case.end()
    assert case.make(job_name=name, deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"
    [started] = case.started()
    assert 100 < len(case.kit.look(started)["jobName"]) <= 128


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_job_is_found_although_its_name_differs_per_try(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, the name contains ``{{ ti.try_number }}``."""
    killed(case.make(job_name="first"), RESPONSE, context, monkeypatch)
    case.end()
    assert case.make(job_name="second", deferrable=False).execute(retried(context))["name"].startswith("first-")
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", [Fargate], indirect=True)
def test_a_start_that_ecs_declined_is_repeated_with_a_new_token(case: Fargate, context: Any) -> None:
    """ECS would repeat its response to the same token. The task waits for capacity, and starts once."""
    case.kit.aws.set_faults(Faults(run_task_failures=2))
    case.end()
    assert case.make(deferrable=False).execute(context)["state"] == "SUCCEEDED"
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", [Crawl], indirect=True)
def test_a_joined_crawl_is_not_stopped_by_a_clear(case: Crawl, context: Any) -> None:
    """It belongs to someone else."""
    case.kit.glue.start_crawler(Name=case.crawler)
    [theirs] = case.started()
    deferred(case.make(), context)
    deferred(case.make(), cleared(context))
    case.end()
    assert case.status(theirs) == "SUCCEEDED"


@pytest.mark.parametrize("case", [Array], indirect=True)
def test_missing_parts_of_an_array_are_submitted(case: Array, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker died between two submits of a redrive."""
    monkeypatch.setattr("airflow_jobflow.jobs.array.MAX_BATCH_OVERRIDES_LENGTH", 100)  # one or two indexes each
    case.gate.write_text("no")
    case.definition = case.kit.define(
        ["sh", "-c", f"[ $((AWS_BATCH_JOB_ARRAY_INDEX % 2)) = 1 ] || {{ {case.script}; }}"]
    )
    more = {"array_size": 40, "redrive": True, "deferrable": False}
    with pytest.raises(exceptions.JobFailed):
        case.make(**more).execute(context)
    case.gate.write_text("")
    operator = case.make(**more)
    submit_one: Any = operator._execution.spec._submit_one  # type: ignore[attr-defined]
    submitted: list[str] = []

    def dies_at_the_second(*arguments: Any, **how: Any) -> str:
        if submitted:
            raise Killed
        submitted.append(submit_one(*arguments, **how))
        return submitted[0]

    with monkeypatch.context() as patch:
        patch.setattr(operator._execution.spec, "_submit_one", dies_at_the_second)
        with pytest.raises(Killed):
            operator.execute(retried(context))
    outcome = case.make(**more).execute(retried(context))
    assert outcome["array"] == {"size": 40, "succeeded": 40, "failed": 0, "failed_indexes": []}
    noted = context["task_state_store"]["jobflow"]
    assert submitted[0] in noted["job_ids"]
    assert len(case.started()) == 1 + len(noted["job_ids"])


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_job_that_is_listed_and_not_yet_described_is_not_started_again(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch's lists and descriptions may differ for a moment."""
    killed(case.make(), RESPONSE, context, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("airflow_jobflow.jobs.batch.describe", lambda *_: {})
        deferred(case.make(), retried(context))
    assert len(case.started()) == 1
    case.end()


@pytest.mark.parametrize("case", [Batch, Fargate], indirect=True)
def test_settings_of_calls_may_change_between_tries(case: Case, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only another connection or region is another location."""
    killed(case.make(), "_execution.wait.initial_status", context, monkeypatch)
    deferred(case.make(botocore_config={"tcp_keepalive": True}, verify=False), retried(context))
    assert len(case.started()) == 1
    case.end()


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_retry_keeps_the_deadline_for_leaving_the_queue(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each retry would extend the time in the queue."""
    monkeypatch.setattr("airflow_jobflow.jobs.model.Snapshot.left_queue", False)
    first: Any = deferred(case.make(queued_timeout=600), context).trigger
    second: Any = deferred(case.make(queued_timeout=600), retried(context)).trigger
    assert second.queue_deadline == pytest.approx(first.queue_deadline, abs=0.5)
    assert second.queue_deadline < context["task_state_store"]["jobflow"]["queued_at"] + 600.1
    case.end()


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_the_job_of_a_task_killed_during_its_start_is_not_waited_for(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear of a running task is only visible as a kill."""
    operator = case.make()
    submit = operator._execution.spec.submit

    def killed_meanwhile(*arguments: Any) -> Any:
        operator.on_kill()
        return submit(*arguments)

    monkeypatch.setattr(operator._execution.spec, "submit", killed_meanwhile)
    case.kit.aws.set_faults(Faults(denied=("TerminateJob",)))
    try:
        with pytest.raises(exceptions.JobStopped, match="could not be stopped"):
            operator.execute(context)
    finally:
        case.kit.aws.set_faults(Faults())
    [left] = case.started()
    assert context["task_state_store"]["jobflow"]["abandoned"]
    deferred(case.make(), retried(context))
    assert case.status(left) == "FAILED"
    assert len(case.started()) == 2
    case.end()


@pytest.mark.parametrize("case", [Batch], indirect=True)
@pytest.mark.parametrize("by", ["worker", "triggerer"])
def test_a_failed_stop_does_not_prevent_other_stops(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch, *, by: str
) -> None:
    """Each of several parts of an array is stopped."""
    trigger: Any = deferred(case.make(), context).trigger
    [left] = case.started()
    from airflow_jobflow.jobs import batch

    stop = batch.stop

    def refuses_one(client: Any, job_id: str, *others: Any) -> None:
        stop(client, "" if job_id == "first" else job_id, *others)

    monkeypatch.setattr(batch, "stop", refuses_one)
    if by == "worker":
        operator = case.make()
        operator._execution.record.begin(context)
        operator._to_stop = ["first", left]
        operator.on_kill()
    else:
        trigger.job_ids = ["first", left]
        asyncio.run(trigger.on_kill())
    assert case.status(left) == "FAILED"


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_record_in_another_format_is_ignored(case: Batch, context: Any) -> None:
    """A map or another version has left it."""
    operator = case.make()
    context["task_state_store"]["jobflow"] = {
        "token": "0123abcd",
        "location": operator._execution.record.location,
        "map": {},
    }
    deferred(operator, retried(context))
    assert len(case.started()) == 1
    case.end()


@pytest.mark.parametrize("case", [Array], indirect=True)
def test_the_next_try_runs_all_parts_if_one_could_not_be_submitted(
    case: Array, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other parts were stopped, and the next try does not wait for them."""
    monkeypatch.setattr("airflow_jobflow.jobs.array.MAX_BATCH_OVERRIDES_LENGTH", 100)
    case.gate.write_text("no")
    case.definition = case.kit.define(
        ["sh", "-c", f"[ $((AWS_BATCH_JOB_ARRAY_INDEX % 2)) = 1 ] || {{ {case.script}; }}"]
    )
    more = {"array_size": 40, "redrive": True, "deferrable": False}
    with pytest.raises(exceptions.JobFailed):
        case.make(**more).execute(context)
    operator = case.make(**more)
    submit_one: Any = operator._execution.spec._submit_one  # type: ignore[attr-defined]
    submitted: list[str] = []

    def fails_at_the_second(*arguments: Any, **how: Any) -> str:
        if submitted:
            raise exceptions.SubmissionError("no")
        submitted.append(submit_one(*arguments, **how))
        return submitted[0]

    monkeypatch.setattr(operator._execution.spec, "_submit_one", fails_at_the_second)
    with pytest.raises(exceptions.SubmissionError):
        operator.execute(retried(context))
    case.gate.write_text("")
    outcome = case.make(**more).execute(retried(context))
    assert (outcome["state"], outcome["array"]["succeeded"]) == ("SUCCEEDED", 40)
