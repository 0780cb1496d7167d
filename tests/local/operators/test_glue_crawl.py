"""GlueCrawlOperator on the local AWS: one crawl, its own result, stopped only by its owner."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.aws import ONCE
from airflow_jobflow.local import Faults, LocalAws, Settings
from airflow_jobflow.operators import capacity
from airflow_jobflow.operators.glue import GlueCrawlOperator
from tests.local.glue_kit import HOUR, GlueKit, end_crawl, run
from tests.local.tries import resumed

NO_BUCKET = "no-such-bucket-at-all"


@pytest.fixture
def kit_with(here: Callable[[Any], None], eventually: Any) -> Iterator[Callable[..., GlueKit]]:
    """Return a function that creates a local AWS with the given settings for this process."""
    servers: list[LocalAws] = []

    def make(**settings: Any) -> GlueKit:
        servers.append(LocalAws(slots=1, settings=Settings(**settings)).__enter__())
        here(servers[-1])
        return GlueKit(servers[-1], eventually)

    yield make
    for server in servers:
        server.stop()


def task(crawler: str, **parameters: Any) -> GlueCrawlOperator:
    """Return an operator that by default waits on the worker."""
    defaults = {"task_id": "t", "crawler_name": crawler, "aws_conn_id": None, "deferrable": False}
    return GlueCrawlOperator(**{**defaults, **parameters})


def deferred(operator: GlueCrawlOperator, context: Any) -> Any:
    """Execute an operator until it defers, and return the deferral."""
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(context)
    return raised.value


# Success.


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_crawl_runs_and_its_outcome_is_returned(kit_with: Any, context: Any, deferrable: bool) -> None:
    """The outcome has the changes and the cost of the crawl, if Glue reports them."""
    kit = kit_with(crawl_seconds=0.3)
    operator = task(kit.crawler(), deferrable=deferrable)
    if deferrable:
        outcome = operator.execute_complete(context, run(deferred(operator, context).trigger))
    else:
        outcome = operator.execute(context)
    [crawl] = kit.glue.list_crawls(CrawlerName=operator.crawler_name)["Crawls"]
    assert outcome == json.loads(json.dumps(outcome))
    assert (outcome["service"], outcome["state"], outcome["status"]) == ("glue_crawl", "SUCCEEDED", "SUCCEEDED")
    assert (outcome["name"], outcome["exit_code"]) == (operator.crawler_name, None)
    assert outcome["details"] == {
        "crawl_id": crawl["CrawlId"],
        "dpu_hours": crawl["DPUHour"],
        "tables_created": 1,
        "tables_updated": 0,
        "tables_deleted": 0,
    }
    assert outcome["started_at"] == crawl["StartTime"].astimezone(outcome_zone(outcome)).isoformat()
    assert outcome["stopped_at"] > outcome["started_at"]
    assert outcome["log"] == {"group": "/aws-glue/crawlers", "stream": operator.crawler_name}
    assert f"/crawlers/view/{operator.crawler_name}" in outcome["console_url"]
    assert operator.kept_links["_link_GlueCrawlerLink"] == outcome["console_url"]
    assert context["task_state_store"]["jobflow"]["since"] == outcome["job_id"]
    assert kit.crawls(operator.crawler_name) == [crawl["CrawlId"]]


def outcome_zone(outcome: dict[str, Any]) -> Any:
    """Return the time zone of the times in an outcome."""
    from datetime import UTC, datetime

    assert datetime.fromisoformat(outcome["started_at"]).tzinfo == UTC
    return UTC


def test_a_crawl_needs_two_listings_at_most(kit_with: Any, context: Any) -> None:
    """Crawls are listed once before the start and once after the end, regardless of the duration."""
    kit = kit_with(crawl_seconds=1)
    crawler = kit.crawler()
    kit.crawl(crawler)
    before = kit.aws.calls
    task(crawler).execute(context)
    calls = kit.aws.calls - before
    assert calls["glue.ListCrawls"] == 2
    assert calls["glue.BatchGetCrawlers"] > 3
    assert (calls["glue.StartCrawler"], calls["glue.GetCrawler"]) == (1, 1)


def test_without_waiting_the_started_crawl_is_returned(kit_with: Any, context: Any) -> None:
    """A sensor can wait for it."""
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler()
    outcome = task(crawler, wait_for_completion=False).execute(context)
    assert (outcome["state"], outcome["name"]) == ("SUBMITTED", crawler)
    assert outcome["job_id"].startswith(f"{crawler}@1970-01-01")


def test_a_crawler_may_have_any_name(kit_with: Any, context: Any) -> None:
    """Glue allows nearly every character."""
    kit = kit_with()
    name = "se2@2026-11-22T03:21:48+00:00 #ü/crawler"
    targets = {"S3Targets": [{"Path": f"s3://{kit.name}/in/"}]}
    kit.glue.create_crawler(Name=name, Role="role", DatabaseName=kit.name, Targets=targets)
    for _ in range(2):
        outcome = task(name).execute(context)
        assert (outcome["state"], outcome["name"]) == ("SUCCEEDED", name)
        assert outcome["console_url"].endswith("%2B00%3A00%20%23%C3%BC%2Fcrawler")


# This crawl's own result.


@pytest.mark.parametrize("effect", [0.0, 0.7])
def test_the_result_of_the_previous_crawl_is_never_used(kit_with: Any, context: Any, effect: float) -> None:
    """Neither its success nor its failure is used, even while READY means that the start has not taken effect."""
    kit = kit_with(start_takes_effect_after=effect)
    crawler = kit.crawler()
    assert kit.crawl(crawler)["State"] == "COMPLETED"
    kit.set_bucket(crawler, NO_BUCKET)
    with pytest.raises(exceptions.JobFailed, match="bucket does not exist"):
        task(crawler).execute(context)
    kit.set_bucket(crawler)
    kit.ended(crawler, 2)
    assert task(crawler).execute(context)["state"] == "SUCCEEDED"
    assert len(kit.crawls(crawler)) == 3


def test_a_crawl_that_was_followed_by_another_is_found(kit_with: Any, context: Any) -> None:
    """The last crawl of the crawler is already another one."""
    kit = kit_with(crawl_seconds=0.5)
    crawler = kit.crawler()
    operator = task(crawler, deferrable=True)
    trigger = deferred(operator, context).trigger
    [own] = kit.ended(crawler)
    kit.set_bucket(crawler, NO_BUCKET)
    kit.crawl(crawler)
    outcome = operator.execute_complete(context, run(trigger))
    assert (outcome["state"], outcome["details"]["crawl_id"]) == ("SUCCEEDED", own["CrawlId"])


@pytest.mark.parametrize(
    "fault",
    [
        Faults(denied=("glue.ListCrawls",)),
        Faults(actions=("ListCrawls",), calls_per_second=0.001),
        Faults(actions=("ListCrawls",), drop_every=1),
    ],
    ids=["denied", "throttled", "dropped"],
)
@pytest.mark.parametrize("well", [True, False])
def test_a_failed_listing_does_not_change_the_outcome(
    kit_with: Any, context: Any, monkeypatch: pytest.MonkeyPatch, *, fault: Faults, well: bool
) -> None:
    """Only the details are missing."""
    monkeypatch.setattr("airflow_jobflow.outcomes.DETAILS", ONCE)
    kit = kit_with(crawl_seconds=0.3)
    crawler = kit.crawler(None if well else NO_BUCKET)
    operator = task(crawler, deferrable=True, raise_on_failure=False)
    trigger = deferred(operator, context).trigger
    kit.ended(crawler)
    kit.aws.set_faults(fault)
    if fault.calls_per_second:
        kit.glue.list_crawls(CrawlerName=crawler)  # uses up the only DPU
    outcome = operator.execute_complete(context, run(trigger))
    assert outcome["state"] == ("SUCCEEDED" if well else "FAILED")
    assert list(outcome["details"]) == ["message_prefix"]


# Several tasks.


def intercepted_task(crawler: str, happens: dict[str, Callable[[], object]], **parameters: Any) -> Any:
    """Return an operator that waits on the worker, with events right before some of its calls.

    :param happens: what happens before the first call of an operation.
    """
    operator: Any = task(crawler, **parameters)
    operator.happens = dict(happens)
    call_aws = operator._execution.jobs.call

    def run_intercepted(function: Any, *arguments: Any, **options: Any) -> Any:
        def intercepted(call: Any, *rest: Any) -> Any:
            def made(operation: str, **request: Any) -> Any:
                if happens_now := operator.happens.pop(operation, None):
                    happens_now()
                return call(operation, **request)

            made.region, made.partition, made.may_tag = call.region, call.partition, call.may_tag  # type: ignore[attr-defined]
            return function(made, *rest)

        return call_aws(intercepted, *arguments, **options)

    operator._execution.jobs.call = run_intercepted
    return operator


@pytest.mark.parametrize("before", ["start_crawler", "list_crawls"])
@pytest.mark.parametrize("is_over", [False, True])
def test_a_crawl_that_starts_between_describe_and_start_is_joined(
    kit_with: Any, context: Any, before: str, is_over: bool
) -> None:
    """It may still run or have just ended: a second one would do the work again."""
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler()
    kit.glue.start_crawler(Name=crawler)
    end_crawl(kit.aws, crawler)
    kit.ended(crawler)

    def start() -> None:
        kit.glue.start_crawler(Name=crawler)
        kit.eventually(lambda: kit.glue.list_crawls(CrawlerName=crawler)["Crawls"][0]["State"] == "RUNNING")

    def end() -> None:
        end_crawl(kit.aws, crawler)
        kit.ended(crawler, 2)

    operator = intercepted_task(crawler, {before: start})
    if is_over:
        make_call = operator._execution.spec._join_what_began
        operator._execution.spec._join_what_began = lambda *arguments: (end(), make_call(*arguments))[1]  # type: ignore[func-returns-value]
    else:
        operator.happens["batch_get_crawlers"] = end
    outcome = operator.execute(context)
    [second, _] = kit.ended(crawler, 2)
    assert outcome["details"]["crawl_id"] == second["CrawlId"]
    assert not operator._execution.record.is_own
    assert len(kit.crawls(crawler)) == 2


@pytest.mark.parametrize("if_running", ["fail", "wait_then_start"])
def test_a_crawl_that_starts_between_describe_and_start_is_only_joined_with_attach(
    kit_with: Any, context: Any, if_running: str
) -> None:
    """With other values of if_running, it counts as a running crawl."""
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler()
    start = {"start_crawler": lambda: kit.glue.start_crawler(Name=crawler)}
    operator = intercepted_task(crawler, start, if_running=if_running, job_timeout=0.5)
    kind = exceptions.SubmissionError if if_running == "fail" else exceptions.JobTimeout
    with pytest.raises(kind, match=r"is (already )?running"):
        operator.execute(context)
    assert len(kit.crawls(crawler)) == 1


def test_tasks_that_attach_to_one_idle_crawler_at_once_share_one_crawl(kit_with: Any, context: Any) -> None:
    """One task starts it, and the others join."""
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler()
    all_have_looked = threading.Barrier(3, timeout=30)
    operators = [intercepted_task(crawler, {"start_crawler": all_have_looked.wait}, deferrable=True) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        deferrals = list(
            pool.map(deferred, operators, [type(context)(context, task_state_store=None) for _ in operators])
        )
    end_crawl(kit.aws, crawler)
    outcomes = [
        operator.execute_complete(context, run(deferral.trigger), **deferral.kwargs)
        for operator, deferral in zip(operators, deferrals, strict=True)
    ]
    [crawl] = kit.crawls(crawler)
    assert {outcome["details"]["crawl_id"] for outcome in outcomes} == {crawl}
    assert sorted(operator._execution.record.is_own for operator in operators) == [False, False, True]
    assert sorted(deferral.trigger.cancel_on_kill for deferral in deferrals) == [False, False, True]


# Failures.


def test_the_error_of_a_failed_crawl(kit_with: Any, context: Any) -> None:
    """It has Glue's message, a diagnosis, the crawler's log and the console link, and it can be pickled."""
    kit = kit_with()
    with pytest.raises(exceptions.JobFailed) as error:
        task(kit.crawler(NO_BUCKET)).execute(context)
    text = str(error.value)
    assert "The specified bucket does not exist" in text
    assert "  | [" in text
    assert "ERROR : " in text
    assert "Console: https://console.aws.amazon.com/glue/home" in text
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == "not_there"
    again = pickle.loads(pickle.dumps(error.value))
    assert (str(again), again.outcome, again.diagnosis) == (text, error.value.outcome, error.value.diagnosis)


def test_a_failed_crawl_is_returned_with_raise_on_failure_false(kit_with: Any, context: Any) -> None:
    """A branch can decide on the outcome."""
    kit = kit_with()
    outcome = task(kit.crawler(NO_BUCKET), raise_on_failure=False).execute(context)
    assert (outcome["state"], outcome["status"]) == ("FAILED", "FAILED")
    assert outcome["details"]["tables_created"] == 0


def test_an_internal_error_of_glue_fails_the_crawl(kit_with: Any, context: Any) -> None:
    """The state of a crawler is never FAILED."""
    kit = kit_with(crawl_seconds=HOUR)
    operator = task(kit.crawler(), deferrable=True)
    trigger = deferred(operator, context).trigger
    kit.aws.interrupt_crawl(operator.crawler_name)
    with pytest.raises(exceptions.JobFailed, match="Internal Service Exception") as error:
        operator.execute_complete(context, run(trigger))
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == "host_lost"


@pytest.mark.parametrize("stopping", [0.0, 0.7])
def test_a_crawl_that_someone_else_stops_counts_as_stopped(kit_with: Any, context: Any, stopping: float) -> None:
    """STOPPING does not end the wait."""
    kit = kit_with(crawl_seconds=HOUR, crawl_stopping_seconds=stopping)
    operator = task(kit.crawler(), deferrable=True)
    trigger = deferred(operator, context).trigger
    kit.glue.stop_crawler(Name=operator.crawler_name)
    with pytest.raises(exceptions.JobStopped, match="was stopped") as error:
        operator.execute_complete(context, run(trigger))
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["status"] == "CANCELLED"


def test_deleting_the_crawler_fails_the_wait(kit_with: Any, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result can no longer be found."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__MISSING_GRACE", "0.3")
    kit = kit_with(crawl_seconds=0.3)
    operator = task(kit.crawler(), deferrable=True)
    trigger = deferred(operator, context).trigger
    kit.ended(operator.crawler_name)
    kit.glue.delete_crawler(Name=operator.crawler_name)
    with pytest.raises(exceptions.JobNotFound, match=operator.crawler_name):
        operator.execute_complete(context, run(trigger))


# Rejected starts.


@pytest.mark.parametrize("if_running", ["attach", "wait_then_start", "fail"])
def test_an_unknown_crawler_is_rejected(kit_with: Any, context: Any, if_running: str) -> None:
    """No crawl is started, and the task is not retried."""
    kit = kit_with()
    with pytest.raises(exceptions.SubmissionRejected, match=r"nothing was started.*nowhere") as error:
        task("nowhere", if_running=if_running).execute(context)
    assert isinstance(error.value, AirflowFailException)
    assert kit.aws.started("glue") == []


@pytest.mark.parametrize("call", ["GetCrawler", "ListCrawls", "StartCrawler"])
def test_the_error_for_a_missing_permission_names_the_call(kit_with: Any, context: Any, call: str) -> None:
    """No crawl is started."""
    kit = kit_with()
    crawler = kit.crawler()
    kit.aws.set_faults(Faults(denied=(f"glue.{call}",)))
    with pytest.raises(exceptions.SubmissionError, match=f"nothing was started.*glue:{call}") as error:
        task(crawler).execute(context)
    assert not isinstance(error.value, AirflowFailException)
    assert kit.crawls(crawler) == []


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"crawler_name": None}, "crawler_name=None: must be a string"),
        ({"crawler_name": ""}, "crawler_name='': must be a string that is not empty"),
        ({"crawler_name": ["a"]}, r"crawler_name=\['a'\]: must be a string"),
        ({"if_running": "join"}, "if_running='join': must be one of attach, wait_then_start, fail"),
        ({"if_running": None}, "if_running=None"),
        ({"job_timeout": "soon"}, "job_timeout='soon'"),
        ({"queued_timeout": 0}, "queued_timeout=0"),
    ],
)
def test_invalid_parameters_make_no_call(kit_with: Any, context: Any, parameters: dict[str, Any], words: str) -> None:
    """Parameters are validated first."""
    kit = kit_with()
    before = kit.aws.calls
    with pytest.raises(exceptions.InvalidParameter, match=words):
        task("c", **parameters).execute(context)
    assert kit.aws.calls == before


# A running crawler.


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_running_crawl_is_joined(kit_with: Any, context: Any, deferrable: bool) -> None:
    """The task waits for its result, not for that of the previous crawl."""
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler(NO_BUCKET)
    kit.glue.start_crawler(Name=crawler)
    end_crawl(kit.aws, crawler)
    kit.ended(crawler)
    kit.set_bucket(crawler)
    kit.glue.start_crawler(Name=crawler)
    operator = task(crawler, deferrable=deferrable)

    def end() -> None:
        kit.eventually(lambda: kit.aws.calls["glue.BatchGetCrawlers"], "a look at the crawl that was joined")
        end_crawl(kit.aws, crawler)

    with ThreadPoolExecutor() as beside:
        ended = beside.submit(end)
        if deferrable:
            outcome = operator.execute_complete(context, run(deferred(operator, context).trigger))
        else:
            outcome = operator.execute(context)
        ended.result()
    assert outcome["state"] == "SUCCEEDED"
    assert kit.crawls(crawler)[1:] == [outcome["details"]["crawl_id"]]
    assert kit.aws.calls["glue.StartCrawler"] == 2


def test_a_joined_crawl_is_not_stopped_by_a_kill(kit_with: Any, context: Any) -> None:
    """It belongs to someone else, whether the task is killed on the worker, in the triggerer, or while it joins."""
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler()
    kit.glue.start_crawler(Name=crawler)
    here = task(crawler, wait_for_completion=False)
    here.execute(context)
    here.on_kill()
    context["task_state_store"].clear()
    trigger = deferred(task(crawler, deferrable=True), context).trigger
    assert trigger.cancel_on_kill is False
    asyncio.run(trigger.on_kill())
    context["task_state_store"].clear()
    early = task(crawler)
    early.on_kill()
    with pytest.raises(exceptions.JobStopped, match="was left running, because this task did not start it"):
        early.execute(context)
    assert kit.state(crawler) == "RUNNING"
    assert "glue.StopCrawler" not in kit.aws.calls


@pytest.mark.parametrize("limit", ["deadline", "queue_deadline"])
def test_a_joined_crawl_is_not_stopped_at_a_deadline(
    kit_with: Any, context: Any, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says so."""
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler()
    kit.glue.start_crawler(Name=crawler)
    operator = task(crawler, deferrable=True, job_timeout=60, queued_timeout=60)
    trigger = deferred(operator, context).trigger
    if limit == "queue_deadline":
        monkeypatch.setattr(operator._execution.jobs, "describe_now", lambda _: {})
    event = {"job_ids": trigger.job_ids, "jobs": {}, "errors": {}, "limit": limit}
    kind = exceptions.JobTimeout if limit == "deadline" else exceptions.QueueTimeout
    with pytest.raises(kind, match="left running, because this task did not start it") as error:
        operator.execute_complete(context, event)
    assert "compute environment" not in str(error.value)
    assert kit.state(crawler) == "RUNNING"


def test_a_stopping_crawl_is_not_joined(kit_with: Any, context: Any) -> None:
    """The task waits for its end, and then starts a crawl."""
    kit = kit_with(crawl_seconds=0.3, crawl_stopping_seconds=2)
    crawler = kit.crawler()
    kit.glue.start_crawler(Name=crawler)
    kit.glue.stop_crawler(Name=crawler)
    assert kit.state(crawler) == "STOPPING"
    outcome = task(crawler).execute(context)
    assert outcome["state"] == "SUCCEEDED"
    assert kit.crawls(crawler)[1:] == [outcome["details"]["crawl_id"]]


def test_if_running_fail_fails_the_task(kit_with: Any, context: Any) -> None:
    """A retry may find the crawler free; the crawl keeps running."""
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler()
    kit.glue.start_crawler(Name=crawler)
    with pytest.raises(exceptions.SubmissionError, match="is already running, so no crawl was started") as error:
        task(crawler, if_running="fail").execute(context)
    assert not isinstance(error.value, AirflowFailException | exceptions.CapacityUnavailable)
    assert len(kit.crawls(crawler)) == 1
    assert kit.state(crawler) == "RUNNING"


def test_wait_then_start_starts_after_the_running_crawl(kit_with: Any, context: Any) -> None:
    """On a worker, crawls are listed only when the crawler is free."""
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler()
    kit.glue.start_crawler(Name=crawler)
    before = kit.aws.calls

    def end() -> None:
        kit.eventually(lambda: (kit.aws.calls - before)["glue.GetCrawler"] > 2, "a few looks at the crawler")
        end_crawl(kit.aws, crawler)
        kit.eventually(lambda: len(kit.crawls(crawler)) == 2, "a crawl of its own")
        end_crawl(kit.aws, crawler)

    with ThreadPoolExecutor() as beside:
        ended = beside.submit(end)
        outcome = task(crawler, if_running="wait_then_start").execute(context)
        ended.result()
    first, second = kit.crawls(crawler)
    assert (outcome["state"], outcome["details"]["crawl_id"]) == ("SUCCEEDED", second)
    calls = kit.aws.calls - before
    assert calls["glue.ListCrawls"] == 2
    assert first != second
    assert "joined" not in context["task_state_store"]["jobflow"]


def test_a_busy_crawler_is_awaited_in_the_triggerer(
    kit_with: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task defers repeatedly with a timer until the crawler is free."""
    monkeypatch.setattr(capacity, "SHORTEST_CAPACITY_PAUSE", 20.0)
    monkeypatch.setattr(capacity, "LONGEST_CAPACITY_PAUSE", 50.0)
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler()
    kit.glue.start_crawler(Name=crawler)
    operator = task(crawler, if_running="wait_then_start", deferrable=True)
    waits = [deferred(operator, context)]
    for _ in range(3):
        with pytest.raises(TaskDeferred) as raised:
            resumed(task(crawler, if_running="wait_then_start", deferrable=True), waits[-1], None, context)
        waits.append(raised.value)
    assert all(isinstance(wait.trigger, DateTimeTrigger) for wait in waits)
    seconds = [round(wait.timeout.total_seconds()) - 60 for wait in waits]
    assert seconds == [20, 40, 50, 50]
    kit.glue.stop_crawler(Name=crawler)
    kit.ended(crawler)
    with pytest.raises(TaskDeferred) as raised:
        resumed(operator, waits[-1], None, context)
    kit.aws.interrupt_crawl(crawler)
    with pytest.raises(exceptions.JobFailed):
        operator.execute_complete(context, run(raised.value.trigger))
    assert context["task_state_store"]["jobflow"]["number"] == 1


def test_waiting_for_a_busy_crawler_ends_at_the_deadline(kit_with: Any, context: Any) -> None:
    """No crawl was started, and none is stopped."""
    kit = kit_with(crawl_seconds=HOUR)
    crawler = kit.crawler()
    kit.glue.start_crawler(Name=crawler)
    with pytest.raises(exceptions.JobTimeout, match=r"is running.*nothing was started"):
        task(crawler, if_running="wait_then_start", job_timeout=0.5).execute(context)
    context["task_state_store"].clear()
    with pytest.raises(exceptions.QueueTimeout, match=r"is running.*nothing was started"):
        task(crawler, if_running="wait_then_start", queued_timeout=0.5).execute(context)
    assert len(kit.crawls(crawler)) == 1
    assert kit.state(crawler) == "RUNNING"


def test_a_crawl_of_someone_else_during_a_throttled_start_is_not_adopted(
    kit_with: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A throttled start starts nothing, so the running crawl belongs to someone else."""
    kit = kit_with(crawl_seconds=0.5)
    crawler, other = kit.crawler(), kit.crawler()

    kit.aws.set_faults(Faults(actions=("StartCrawler",), calls_per_second=0.001))
    kit.glue.start_crawler(Name=other)  # uses up the only DPU
    operator = task(crawler, if_running="wait_then_start")
    recorded: list[Any] = []
    wait_for_capacity = capacity.CapacityWait.wait

    def meanwhile(waits: Any, full: Any) -> None:
        recorded.append(context["task_state_store"]["jobflow"].get("since", ""))
        if not kit.crawls(crawler):
            kit.aws.set_faults(Faults())
            kit.glue.start_crawler(Name=crawler)
        wait_for_capacity(waits, full)

    monkeypatch.setattr(capacity.CapacityWait, "wait", meanwhile)
    outcome = operator.execute(context)
    assert kit.crawls(crawler)[1:] == [outcome["details"]["crawl_id"]]
    assert recorded[-1] == ""  # a later try must not adopt it either


# One start per attempt.


@pytest.mark.parametrize("effect", [0.0, 1.0])
@pytest.mark.parametrize("before", [True, False])
def test_a_start_whose_response_is_lost_starts_one_crawl(
    kit_with: Any, context: Any, *, effect: float, before: bool
) -> None:
    """The task's own crawl is found running, or by a CrawlerRunningException while it is not visible yet."""
    kit = kit_with(crawl_seconds=1.5, start_takes_effect_after=effect)
    crawler = kit.crawler()
    if before:
        kit.crawl(crawler)
    known = kit.crawls(crawler)
    kit.aws.set_faults(Faults(actions=("StartCrawler",), lose_answers=1))
    outcome = task(crawler, if_running="fail").execute(context)
    assert outcome["state"] == "SUCCEEDED"
    assert kit.crawls(crawler) == [*known, outcome["details"]["crawl_id"]]
    assert "joined" not in context["task_state_store"]["jobflow"]


def test_a_start_that_did_not_arrive_is_repeated(kit_with: Any, context: Any) -> None:
    """The crawl is looked up first, and then started once more."""
    kit = kit_with()
    crawler, other = kit.crawler(), kit.crawler()
    kit.aws.set_faults(Faults(actions=("StartCrawler",), error_every=2))
    kit.glue.start_crawler(Name=other)
    assert task(crawler).execute(context)["state"] == "SUCCEEDED"
    assert len(kit.crawls(crawler)) == 1


# Stops.


@pytest.mark.parametrize("cancel", [True, False])
def test_cancel_on_kill_decides_whether_a_killed_worker_stops_its_crawl(
    kit_with: Any, context: Any, cancel: bool
) -> None:
    """By default, the crawl is stopped."""
    kit = kit_with(crawl_seconds=HOUR)
    operator = task(kit.crawler(), wait_for_completion=False, cancel_on_kill=cancel)
    operator.execute(context)
    operator.on_kill()
    assert (kit.state(operator.crawler_name) == "RUNNING") is not cancel
    operator.on_kill()  # a crawl that is stopping or has stopped is not stopped again


def test_a_killed_task_stops_its_crawl_from_the_triggerer(kit_with: Any, context: Any) -> None:
    """This includes a crawl whose start has not taken effect."""
    kit = kit_with(crawl_seconds=HOUR, start_takes_effect_after=0.5)
    operator = task(kit.crawler(), deferrable=True)
    asyncio.run(deferred(operator, context).trigger.on_kill())
    [crawl] = kit.ended(operator.crawler_name)
    assert crawl["State"] == "STOPPED"


def test_a_late_kill_does_not_stop_a_later_crawl(kit_with: Any, context: Any) -> None:
    """The later crawl belongs to someone else."""
    kit = kit_with(crawl_seconds=0.5)
    operator = task(kit.crawler(), wait_for_completion=False)
    operator.execute(context)
    kit.ended(operator.crawler_name)
    kit.glue.start_crawler(Name=operator.crawler_name)
    operator.on_kill()
    assert kit.ended(operator.crawler_name, 2)[0]["State"] == "COMPLETED"


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_crawl_past_its_deadline_is_stopped(kit_with: Any, context: Any, deferrable: bool) -> None:
    """The error has its last state."""
    kit = kit_with(crawl_seconds=HOUR)
    operator = task(kit.crawler(), job_timeout=0.5, deferrable=deferrable)
    with pytest.raises(
        exceptions.JobTimeout, match=r"RUNNING.*, did not end within 0\.5 s \(job_timeout\)\. It was stopped"
    ):
        operator.execute_complete(context, run(deferred(operator, context).trigger)) if deferrable else (
            operator.execute(context)
        )
    assert kit.ended(operator.crawler_name)[0]["State"] == "STOPPED"


def test_a_deferral_timeout_stops_the_crawl(kit_with: Any, context: Any) -> None:
    """If no triggerer is alive, the crawl is found by its record."""
    kit = kit_with(crawl_seconds=HOUR)
    operator = task(kit.crawler(), deferrable=True, job_timeout=600)
    assert deferred(operator, context).timeout.total_seconds() > 600
    with pytest.raises(exceptions.JobTimeout, match="It was stopped"):
        operator.resume_execution("__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, context)
    assert kit.ended(operator.crawler_name)[0]["State"] == "STOPPED"


def test_queued_timeout_applies_to_a_start_that_takes_no_effect(kit_with: Any, context: Any) -> None:
    """The crawler stays READY; the advice does not mention compute environments."""
    kit = kit_with(crawl_seconds=HOUR, start_takes_effect_after=HOUR)
    with pytest.raises(
        exceptions.QueueTimeout,
        match=r"last seen READY, did not leave the queue .*It was stopped\. Glue accepted the start",
    ):
        task(kit.crawler(), queued_timeout=0.5).execute(context)
