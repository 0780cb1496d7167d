"""Starting a job while AWS, the network or permissions fail: one job starts, or the error says whether one did."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.aws import calls as aws_calls
from airflow_jobflow.jobs.attempt import TRY_TAG
from airflow_jobflow.jobs.owner import REAP, Owner
from airflow_jobflow.local import CannedResponse, Faults
from airflow_jobflow.operators import capacity
from tests.local.operator_cases import CASES, WITH_NAMES, Array, Batch, Case, Crawl, Fargate, GlueRun
from tests.local.tries import RESPONSE, cleared, deferred, killed, resumed, retried

START = {
    Batch: "batch.SubmitJob",
    Array: "batch.SubmitJob",
    Fargate: "ecs.RunTask",
    GlueRun: "glue.StartJobRun",
    Crawl: "glue.StartCrawler",
}
"""The call that starts a job."""

RETRY_TIME = 15.0
"""Seconds for which calls are repeated in tests that end the fault; enough for a busy machine."""


@pytest.fixture
def faults(case: Case) -> Iterator[Callable[..., None]]:
    """Return a function that sets faults of the local AWS until the end of the test."""
    yield lambda **faults: case.kit.aws.set_faults(Faults(**faults))
    case.kit.aws.set_faults(Faults())


@pytest.fixture
def retry_long_enough(monkeypatch: pytest.MonkeyPatch, here: Callable[..., None]) -> None:
    """Repeat calls until a transient fault has ended."""
    for module in ("waiting.remote", "operators.submission"):
        monkeypatch.setattr(f"airflow_jobflow.{module}.PATIENCE", RETRY_TIME)


def succeeds(case: Case, context: Any, **parameters: Any) -> dict[str, Any]:
    """Run a job that ends immediately, and check that it is the only one."""
    case.gate.touch()
    outcome: dict[str, Any] = case.make(deferrable=False, **parameters).execute(context)
    assert outcome["state"] == "SUCCEEDED"
    assert len(case.started()) == 1
    return outcome


def not_final(error: BaseException) -> bool:
    """Return whether the task is retried after an error."""
    return not isinstance(error, AirflowFailException)


# Credentials, connections and permissions that are missing for a while (A4).


@pytest.mark.usefixtures("retry_long_enough")
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_permission_that_is_missing_for_a_while_delays_a_start(case: Case, context: Any, faults: Any) -> None:
    """A policy is being replaced."""
    faults(denied=(START[type(case)],), lasts=0.5)
    succeeds(case, context)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_permission_that_stays_missing_is_a_retryable_error(case: Case, context: Any, faults: Any) -> None:
    """Someone must grant it; a retry then starts the one job."""
    faults(denied=(START[type(case)],))
    with pytest.raises(exceptions.SubmissionError, match="call is not permitted, and nothing was started") as raised:
        case.make().execute(context)
    assert not_final(raised.value)
    assert case.started() == []
    faults()
    succeeds(case, retried(context))


@pytest.mark.usefixtures("retry_long_enough")
@pytest.mark.parametrize("case", [Batch, Fargate, GlueRun], indirect=True)
def test_expired_credentials_delay_a_start(case: Case, context: Any, faults: Any) -> None:
    """The client is rebuilt."""
    faults(expired_calls=2)
    succeeds(case, context)


@pytest.mark.usefixtures("retry_long_enough")
@pytest.mark.parametrize("case", [Batch, Fargate, GlueRun], indirect=True)
def test_a_connection_that_cannot_be_read_for_a_while_delays_a_start(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's API server restarts, and Airflow reports that the connection does not exist."""

    def pause(_: float) -> float:
        monkeypatch.setenv("AIRFLOW_CONN_LATE", "aws://")
        return 0.05

    monkeypatch.setattr(aws_calls, "full_jitter", pause)
    succeeds(case, context, aws_conn_id="late")


# AWS cannot be reached (F2, G8).


@pytest.mark.parametrize("case", [Batch, Fargate, GlueRun], indirect=True)
def test_a_refused_connection_says_that_nothing_was_started(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request was not sent."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(exceptions.SubmissionError, match=r"nothing was started\. .*refused") as raised:
        case.make().execute(context)
    assert not_final(raised.value)
    assert case.started() == []


@pytest.mark.usefixtures("retry_long_enough")
@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("second_try", [False, True])
def test_a_try_waits_for_aws(
    case: Case, context: Any, faults: Any, monkeypatch: pytest.MonkeyPatch, *, second_try: bool
) -> None:
    """Neither the start nor the lookup before it may use up the task's retries during an outage."""
    if second_try:
        killed(case.make(), RESPONSE, context, monkeypatch)
        retried(context)
    faults(outage=True, lasts=1.0)
    succeeds(case, context)


# Missing capacity, and throttling with another code (A6, A7).

WRAPPED = [
    CannedResponse(
        code="InvalidParameterException",
        message="Error retrieving subnet information for [subnet-1]: Rate exceeded (ErrorCode: Throttling)",
        actions=("RunTask",),
        calls=2,
    ),
    CannedResponse(
        code="ClientException", message="Tasks provisioning capacity limit exceeded.", actions=("RunTask",), calls=2
    ),
]


@pytest.mark.usefixtures("retry_long_enough")
@pytest.mark.parametrize("case", [Fargate], indirect=True)
@pytest.mark.parametrize("response", WRAPPED, ids=["subnets", "provisioning"])
def test_throttling_with_another_code_is_throttling(
    case: Case, context: Any, faults: Any, response: CannedResponse
) -> None:
    """ECS wraps the errors of other services."""
    faults(respond_with=(response,))
    succeeds(case, context)
    assert case.kit.aws.calls["ecs.RunTask"] >= 3


@pytest.mark.parametrize("case", [Batch, Fargate, GlueRun, Crawl], indirect=True)
def test_a_start_that_stays_throttled_waits(
    case: Case, context: Any, faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job was started, and the task is fine: it waits as for capacity."""
    monkeypatch.setattr("airflow_jobflow.operators.submission.PATIENCE", 0.0)
    throttled = CannedResponse(
        code="ThrottlingException", message="Rate exceeded", actions=(START[type(case)],), calls=2
    )
    faults(respond_with=(throttled,))
    succeeds(case, context)


@pytest.mark.parametrize("case", [Fargate], indirect=True)
@pytest.mark.parametrize(
    "reason",
    ["RESOURCE:MEMORY", "AGENT", "Capacity is unavailable at this time. Please try again later or in a different zone"],
)
def test_a_fargate_task_waits_for_capacity(case: Case, context: Any, faults: Any, reason: str) -> None:
    """Tasks of a map do so too. This is not one of the few attempts after Spot interruptions."""
    faults(run_task_failures=5, run_task_reason=reason)
    succeeds(case, context)


@pytest.mark.parametrize("case", [Fargate], indirect=True)
def test_a_task_waits_for_capacity_in_the_triggerer(
    case: Case, context: Any, faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sleeping worker needs the same resources as a busy one."""
    monkeypatch.setattr(capacity, "SHORTEST_CAPACITY_PAUSE", 20.0)
    monkeypatch.setattr(capacity, "LONGEST_CAPACITY_PAUSE", 20.0)
    faults(run_task_failures=1)
    deferral = deferred(case.make(job_timeout=600), context)
    assert isinstance(deferral.trigger, DateTimeTrigger)
    with pytest.raises(TaskDeferred) as raised:
        resumed(case.make(job_timeout=600), deferral, {}, context)
    [arn] = case.started()
    trigger: Any = raised.value.trigger
    assert trigger.job_ids == [arn]
    assert trigger.deadline == deferral.kwargs["attempt"]["deadline"]  # type: ignore[index]
    case.end()


@pytest.mark.parametrize("case", [Fargate], indirect=True)
@pytest.mark.parametrize(
    ("limit", "error"), [("job_timeout", exceptions.JobTimeout), ("queued_timeout", exceptions.QueueTimeout)]
)
def test_waiting_for_capacity_ends_at_the_deadlines(
    case: Case, context: Any, faults: Any, limit: str, error: Any
) -> None:
    """The error says what the task waited for."""
    faults(run_task_failures=1000, run_task_reason="RESOURCE:CPU")
    with pytest.raises(error, match=r"RESOURCE:CPU.*nothing was started"):
        case.make(deferrable=False, **{limit: 0.5}).execute(context)
    assert case.started() == []


# ECS reports that it has started nothing, although it has (D8).

FAILURES = CannedResponse(
    body=json.dumps({"tasks": [], "failures": [{"reason": "Capacity is unavailable at this time"}]}),
    content_type="application/x-amz-json-1.1",
    status=200,
    actions=("RunTask",),
    calls=1,
    takes_effect=True,
)


@pytest.mark.parametrize("case", [Fargate], indirect=True)
@pytest.mark.parametrize("denied", [(), ("ecs.TagResource",)], ids=["tagged", "untagged"])
def test_a_task_that_was_started_despite_a_reported_failure_is_found(
    case: Case, context: Any, faults: Any, denied: tuple[str, ...]
) -> None:
    """It is found before another one is started, even if the role may not tag."""
    faults(respond_with=(FAILURES,), denied=denied)
    outcome = succeeds(case, context)
    assert outcome["job_id"] == case.started()[0]


@pytest.mark.parametrize("case", [Fargate], indirect=True)
def test_a_task_that_was_started_despite_a_reported_failure_is_found_late(
    case: Case, context: Any, faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ECS is eventually consistent: the task is not listed right after its start."""
    monkeypatch.setattr("airflow_jobflow.operators.ecs_spec.EcsTaskSpec._find_again", lambda *_: None)
    faults(respond_with=(FAILURES,))
    succeeds(case, context)


@pytest.mark.parametrize("case", [Fargate], indirect=True)
def test_a_task_of_an_earlier_try_is_not_mistaken_for_the_started_one(case: Case, context: Any, faults: Any) -> None:
    """It has the same group, but another token and age."""
    case.end(well=False)
    with pytest.raises(exceptions.JobFailed):
        case.make(deferrable=False).execute(context)
    case.end()
    faults(run_task_failures=2)
    assert case.make(deferrable=False).execute(retried(context))["state"] == "SUCCEEDED"
    assert len(case.started()) == 2


@pytest.mark.parametrize("case", [Fargate], indirect=True)
@pytest.mark.parametrize("is_found", [True, False])
def test_a_repeated_attempt_with_other_parameters_is_not_a_conflict(
    case: Case, context: Any, faults: Any, monkeypatch: pytest.MonkeyPatch, *, is_found: bool
) -> None:
    """The first try's task was not listed yet, and ECS rejects its token for another request."""
    killed(case.make(), RESPONSE, context, monkeypatch)
    case.end()
    with monkeypatch.context() as patch:
        patch.setattr("airflow_jobflow.operators.ecs_spec.EcsTaskSpec.find_group", lambda *_: [])
        if not is_found:
            patch.setattr("airflow_jobflow.operators.ecs_spec.EcsTaskSpec._find_again", lambda *_: None)
        succeeds(case, retried(context), cpu=1024, memory=2048)


# Airflow ends a deferral, and its arguments are lost.

TIMEOUT = {"error": TriggerFailureReason.TRIGGER_TIMEOUT}


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_the_job_of_a_timed_out_deferral_is_found(case: Case, context: Any) -> None:
    """No triggerer was alive: the deadline has passed, and the job is stopped."""
    deferred(case.make(job_timeout=600), context)
    [started] = case.started()
    with pytest.raises(exceptions.JobTimeout, match="It was stopped"):
        case.make(job_timeout=600).resume_execution("__fail__", TIMEOUT, context)
    assert case.status(started) == "FAILED"
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", WITH_NAMES, indirect=True)
def test_the_job_of_a_timed_out_deferral_is_found_without_durable(case: Case, context: Any) -> None:
    """It is found by its recorded id, because it carries no group."""
    deferred(case.make(job_timeout=600, durable=False), context)
    with pytest.raises(exceptions.JobTimeout, match="It was stopped"):
        case.make(job_timeout=600, durable=False).resume_execution("__fail__", TIMEOUT, context)
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", [Fargate], indirect=True)
def test_the_untagged_task_of_a_timed_out_deferral_is_found(case: Case, context: Any, faults: Any) -> None:
    """It is found by its group and its age."""
    faults(denied=("ecs.TagResource",))
    deferred(case.make(job_timeout=600), context)
    with pytest.raises(exceptions.JobTimeout, match="It was stopped"):
        case.make(job_timeout=600).resume_execution("__fail__", TIMEOUT, context)
    assert len(case.started()) == 1


@pytest.mark.parametrize("case", WITH_NAMES, indirect=True)
def test_a_failed_lookup_after_a_deferral_timeout_starts_no_job(case: Case, context: Any, faults: Any) -> None:
    """A retry looks it up again."""
    deferred(case.make(job_timeout=600), context)
    faults(denied=("ListJobs", "ListTasks", "GetJobRuns"))
    with pytest.raises(exceptions.SubmissionError, match="may still run"):
        case.make(job_timeout=600).resume_execution("__fail__", TIMEOUT, context)
    faults()
    deferred(case.make(), retried(context))
    assert len(case.started()) == 1
    case.end()


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_missing_job_after_a_deferral_timeout_is_not_started_again(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline has passed, and AWS may have forgotten a job that ended long ago."""
    deferred(case.make(job_timeout=600), context)
    monkeypatch.setattr("airflow_jobflow.jobs.batch_search.find", lambda *_: None)
    with pytest.raises(exceptions.JobTimeout, match="no Batch job of this try was found"):
        case.make(job_timeout=600).resume_execution("__fail__", TIMEOUT, context)
    assert len(case.started()) == 1
    case.end()


# A clear always starts a new job (D2).


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("changes_max_tries", [True, False])
@pytest.mark.parametrize("has_store", [True, False])
def test_a_clear_of_a_success_starts_a_new_job(
    case: Case, context: Any, *, changes_max_tries: bool, has_store: bool
) -> None:
    """This includes a task whose `retries` was lowered meanwhile, so that max_tries is unchanged (D2)."""
    if not has_store:
        del context["task_state_store"]
    succeeds(case, context)
    context["ti"].try_number += 1
    case.make(deferrable=False).execute(cleared(context, changes_max_tries=changes_max_tries))
    assert len(case.started()) == 2


@pytest.mark.parametrize("case", WITH_NAMES, indirect=True)
def test_a_retry_continues_without_a_task_state_store(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.2 has no store: the job itself is the record."""
    del context["task_state_store"]
    killed(case.make(), RESPONSE, context, monkeypatch)
    deferred(case.make(), retried(context))
    assert len(case.started()) == 1
    deferred(case.make(), cleared(context))
    first = case.started()
    assert len(first) == 2
    case.end()


@pytest.mark.parametrize("case", [Batch], indirect=True)
def test_a_misspelled_queue_of_an_earlier_try_is_ignored(case: Batch, context: Any) -> None:
    """A user has corrected the name of the queue, and cleared the task."""
    with pytest.raises(exceptions.SubmissionRejected):
        case.make(job_queue="misspelt").execute(context)
    succeeds(case, cleared(context))


# Two deployments in one account.


@pytest.mark.parametrize("case", WITH_NAMES, indirect=True)
def test_deployments_with_the_same_dags_and_runs_do_not_find_each_others_jobs(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`[jobflow] deployment_id` is part of the group."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DEPLOYMENT_ID", "staging")
    deferred(case.make(), context)
    others = {**context, "task_state_store": type(context["task_state_store"])()}
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DEPLOYMENT_ID", "production")
    deferred(case.make(), retried(others))
    assert len(case.started()) == 2
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DEPLOYMENT_ID", "staging")
    deferred(case.make(), retried(context))
    assert len(case.started()) == 2
    case.end()


# Tags.


def tags_of(case: Case, job_id: str) -> dict[str, str]:
    """Return the tags of a job."""
    tags = case.kit.look(job_id).get("tags", {})
    return tags if isinstance(tags, dict) else {each["key"]: each["value"] for each in tags}


TAGGED = [Batch, Fargate]


@pytest.mark.parametrize("case", TAGGED, indirect=True)
def test_jobs_have_tags_of_their_owner(case: Case, context: Any) -> None:
    """People and the orphan reaper read them; the user's own tags take precedence."""
    ti = context["ti"]
    first = succeeds(case, context, tags={"team": "a", REAP: "false"})
    tags = tags_of(case, first["job_id"])
    assert (tags["team"], tags[REAP]) == ("a", "false")
    assert Owner.from_tags(tags) == Owner(ti.dag_id, ti.task_id, ti.run_id, reap=False)
    if isinstance(case, Fargate):
        assert tags[TRY_TAG] == f"t1m0c0-{context['task_state_store']['jobflow']['token']}"


@pytest.mark.parametrize("case", TAGGED, indirect=True)
@pytest.mark.parametrize("parameters", [{"cancel_on_kill": False}, {"wait_for_completion": False}])
def test_a_job_that_may_outlive_its_task_is_not_marked_for_the_reaper(
    case: Case, context: Any, parameters: dict[str, Any]
) -> None:
    """No task waits for it, or a kill must not stop it."""
    case.gate.touch()
    outcome = case.make(deferrable=False, **parameters).execute(context)
    assert REAP not in tags_of(case, outcome["job_id"])


@pytest.mark.parametrize("case", TAGGED, indirect=True)
def test_a_role_that_may_not_tag_starts_jobs_without_tags(
    case: Case, context: Any, faults: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The first job of a process needs one more request, and logs a warning; a retry finds the job by the record."""
    caplog.set_level(logging.WARNING, "airflow_jobflow")
    start = START[type(case)]
    faults(denied=(f"{start.split('.')[0]}.TagResource",))
    before = case.kit.aws.calls[start]
    deferred(case.make(), context)
    deferred(case.make(), retried(context))  # the first job is still running
    assert len(case.started()) == 1
    deferred(case.make(), cleared(context))
    assert case.kit.aws.calls[start] == before + 3
    assert [record.message for record in caplog.records if "without tags" in record.message] != []
    assert sum("without tags" in record.message for record in caplog.records) == 1
    assert not any(tags_of(case, each) for each in case.started())
    case.end()


@pytest.mark.parametrize("case", TAGGED, indirect=True)
def test_tags_of_the_user_are_never_omitted(case: Case, context: Any, faults: Any) -> None:
    """Costs may be allocated by them, so a denial is an error."""
    faults(denied=(f"{START[type(case)].split('.')[0]}.TagResource",))
    with pytest.raises(exceptions.SubmissionError, match="TagResource"):
        case.make(tags={"team": "a"}).execute(context)
    assert case.started() == []


# Deadlines of a start.


@pytest.mark.parametrize("case", [Batch, Fargate, GlueRun], indirect=True)
def test_calls_are_repeated_no_longer_than_the_deadline(
    case: Case, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try without remaining time must not wait for AWS."""
    for module in ("waiting.remote", "operators.submission"):
        monkeypatch.setattr(f"airflow_jobflow.{module}.PATIENCE", 3600.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    operator = case.make(job_timeout=timedelta(seconds=0.5))
    with pytest.raises(exceptions.SubmissionError, match="nothing was started"):
        operator.execute(context)
    assert operator._execution.jobs.call_deadline is not None
    assert time.time() >= operator._execution.jobs.call_deadline
