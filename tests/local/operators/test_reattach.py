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
def test_a_retry_waits_for_what_still_runs(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch, *, deferrable: bool
) -> None:
    """The triggerer was lost for good, or the worker died while it waited."""
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
    """AWS has started the job, and the task knows nothing of it."""
    killed(case.make(), RESPONSE, context, monkeypatch)
    before = Counter(case.kit.aws.calls)
    deferred(case.make(), retried(context))
    assert (case.kit.aws.calls - before).total() <= 3
    case.end()
    assert case.make(deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_worker_killed_before_it_could_start_anything(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt was noted, and nothing was started."""
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
def test_a_retry_takes_the_result_of_what_has_succeeded(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Its work is done."""
    killed(case.make(), point, context, monkeypatch)
    case.end()
    [started] = case.started()
    assert case.status(started) == "SUCCEEDED"
    assert case.make().execute(retried(context))["state"] == "SUCCEEDED"
    assert case.started() == [started]


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_retry_of_what_has_failed_starts_anew(case: Case, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what retries are for."""
    killed(case.make(), "_execution.wait.initial_status", context, monkeypatch)
    case.end(well=False)
    [started] = case.started()
    assert case.status(started) == "FAILED"
    case.gate.write_text("")
    assert case.make(deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"
    assert len(case.started()) == 2


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("point", ["_execution.wait.initial_status", RESPONSE])
def test_a_clear_starts_over_and_stops_what_runs(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Two jobs of one task would write to one place."""
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
def test_what_a_killed_task_has_left_is_not_waited_for(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped; should that have failed, the next try does it."""
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
def test_a_deadline_holds_through_a_retry_that_waits_on(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One absolute moment for the attempt."""
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
def test_without_durable_nothing_is_looked_for(case: Case, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has asked for it: another job, under the name as it was written."""
    killed(case.make(durable=False), "_execution.wait.initial_status", context, monkeypatch)
    deferred(case.make(durable=False), retried(context))
    assert len(case.started()) == 2
    case.end()


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_what_cannot_be_looked_for_is_not_started_again(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second job beside the first would be worse than a try more."""
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
def test_what_was_started_elsewhere_is_logged_and_left(
    case: Case, context: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """An id of another region means nothing in this one."""
    deferred(case.make(region_name="us-east-1"), context)
    recorded = context["task_state_store"]["jobflow"]
    recorded["location"] = recorded["location"].replace("us-east-1", "eu-west-1")
    capsys.readouterr()
    case.gate.touch()
    operator = case.make(region_name="us-east-1", deferrable=False)
    assert operator.execute(retried(context))["state"] == "SUCCEEDED"
    assert f"elsewhere ({recorded['location']}: " in capsys.readouterr().out


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_deployment_that_gets_an_id_finds_its_jobs_all_the_same(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id is part of the group; what the last try used is recorded."""
    killed(case.make(), "_execution.wait.initial_status", context, monkeypatch)
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DEPLOYMENT_ID", "analytics")
    deferred(case.make(), retried(context))
    assert len(case.started()) == 1
    case.end()


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_naming_the_region_that_was_used_before_changes_nothing(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try took it from the connection (D9)."""
    killed(case.make(region_name=None), "_execution.wait.initial_status", context, monkeypatch)
    deferred(case.make(region_name="us-east-1"), retried(context))
    assert len(case.started()) == 1
    case.end()


class BrokenStore(dict[str, Any]):
    """A task state store that cannot be reached after so many notes."""

    def __init__(self, notes: int) -> None:
        super().__init__()
        self.notes = notes

    def get(self, key: str, default: Any = None) -> Any:
        """Read, if that can be done."""
        self._check()
        return super().get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Note, if that can be done."""
        self.notes -= 1
        self._check()
        self[key] = value

    def _check(self) -> None:
        if self.notes < 0:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"message": "down"}))


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_without_the_task_state_store_nothing_is_started(case: Case, context: Any) -> None:
    """What is not noted before may be started twice."""
    context["task_state_store"] = BrokenStore(0)
    with pytest.raises(exceptions.SubmissionError, match="nothing was started"):
        case.make().execute(context)
    assert case.started() == []


@pytest.mark.parametrize("case", WITH_NAMES, indirect=True)
def test_a_store_that_breaks_after_the_start_loses_nothing(case: Case, context: Any) -> None:
    """What runs is waited for; should that fail too, the group leads to it."""
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
def test_two_with_the_name_of_one_attempt_become_one(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has cloned the job in the console."""
    killed(case.make(), RESPONSE, context, monkeypatch)
    [first] = case.started()
    name = case.kit.look(first)["jobName"]
    clone = case.kit.submit(jobName=name, jobDefinition=case.definition)
    deferred(case.make(), retried(context))
    assert case.status(clone) == "FAILED"
    case.end()
    assert case.make(deferrable=False).execute(retried(context))["job_id"] == first


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_name_so_long_that_the_token_does_not_fit_is_shortened(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still nobody else's."""
    name = "n" * 128
    killed(case.make(job_name=name), RESPONSE, context, monkeypatch)
    case.end()
    assert case.make(job_name=name, deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"
    [started] = case.started()
    assert 100 < len(case.kit.look(started)["jobName"]) <= 128


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_name_that_differs_from_try_to_try_is_found_all_the_same(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with ``{{ ti.try_number }}`` in it does."""
    killed(case.make(job_name="first"), RESPONSE, context, monkeypatch)
    case.end()
    assert case.make(job_name="second", deferrable=False).execute(retried(context))["name"].startswith("first-")
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", [Fargate], indirect=True)
def test_a_start_that_ecs_declined_is_not_repeated_with_its_token(case: Fargate, context: Any) -> None:
    """The token would bring the same answer for ever. It waits for capacity, though, and starts one task."""
    case.kit.aws.set_faults(Faults(run_task_failures=2))
    case.end()
    assert case.make(deferrable=False).execute(context)["state"] == "SUCCEEDED"
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", [Crawl], indirect=True)
def test_a_crawl_that_was_joined_is_not_stopped_by_a_clear(case: Crawl, context: Any) -> None:
    """It is somebody else's."""
    case.kit.glue.start_crawler(Name=case.crawler)
    [theirs] = case.started()
    deferred(case.make(), context)
    deferred(case.make(), cleared(context))
    case.end()
    assert case.status(theirs) == "SUCCEEDED"


@pytest.mark.parametrize("case", [Array], indirect=True)
def test_parts_of_an_array_of_which_some_were_submitted_are_completed(
    case: Array, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker died between two submits of a retry that runs what has failed."""
    monkeypatch.setattr("airflow_jobflow.jobs.array.MAX_OVERRIDES_LENGTH", 100)  # an index or two in each
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
    """Batch's lists and its descriptions need not agree at once."""
    killed(case.make(), RESPONSE, context, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("airflow_jobflow.jobs.batch.describe", lambda *_: {})
        deferred(case.make(), retried(context))
    assert len(case.started()) == 1
    case.end()


@pytest.mark.parametrize("case", [Batch, Fargate], indirect=True)
def test_how_aws_is_asked_may_change_from_try_to_try(case: Case, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only another connection or region makes it another place."""
    killed(case.make(), "_execution.wait.initial_status", context, monkeypatch)
    deferred(case.make(botocore_config={"tcp_keepalive": True}, verify=False), retried(context))
    assert len(case.started()) == 1
    case.end()


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_retry_that_waits_on_keeps_the_deadline_for_leaving_the_queue(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a task that is retried often waits in the queue for as often as long."""
    monkeypatch.setattr("airflow_jobflow.jobs.model.Snapshot.left_queue", False)
    first: Any = deferred(case.make(queued_timeout=600), context).trigger
    second: Any = deferred(case.make(queued_timeout=600), retried(context)).trigger
    assert second.queue_deadline == pytest.approx(first.queue_deadline, abs=0.5)
    assert second.queue_deadline < context["task_state_store"]["jobflow"]["queued_at"] + 600.1
    case.end()


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_what_a_task_killed_while_it_started_has_stopped_is_not_waited_for(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear of a running task shows in nothing but the kill."""
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
def test_a_job_that_cannot_be_stopped_spares_no_other(
    case: Batch, context: Any, monkeypatch: pytest.MonkeyPatch, *, by: str
) -> None:
    """Each of several parts of an array is told to stop."""
    trigger: Any = deferred(case.make(), context).trigger
    [left] = case.started()
    from airflow_jobflow.jobs import batch

    stop = batch.stop

    def refuses_one(client: Any, job_id: str, *others: Any) -> None:
        stop(client, "" if job_id == "first" else job_id, *others)

    monkeypatch.setattr(batch, "stop", refuses_one)
    if by == "worker":
        operator = case.make()
        operator._to_stop = ["first", left]
        operator.on_kill()
    else:
        trigger.job_ids = ["first", left]
        asyncio.run(trigger.on_kill())
    assert case.status(left) == "FAILED"


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_record_of_another_shape_is_no_error(case: Batch, context: Any) -> None:
    """As a map, or another version, has left them."""
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
def test_parts_of_which_one_could_not_be_submitted_are_all_run_by_the_next_try(
    case: Array, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others were stopped, and are not what the next try waits for."""
    monkeypatch.setattr("airflow_jobflow.jobs.array.MAX_OVERRIDES_LENGTH", 100)
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
