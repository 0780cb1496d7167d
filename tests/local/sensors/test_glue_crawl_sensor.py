"""GlueCrawlSensor on the local AWS: it waits for the first crawl since a time, of one crawler or many; stops none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException, TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.local import Faults, LocalAws, Settings
from airflow_jobflow.operators.glue import GlueCrawlOperator
from airflow_jobflow.sensors.glue import GlueCrawlSensor
from airflow_jobflow.triggers.job import JobTrigger
from tests.local.glue_kit import HOUR, GlueKit, run, seen_once

NO_BUCKET = "no-such-bucket-at-all"
LONG_AGO = "2026-01-01T00:00:00"
NEVER = datetime(2100, 1, 1, tzinfo=UTC)


def servers(**settings: Any) -> Iterator[LocalAws]:
    """Return a function that starts a local AWS with the given settings."""
    with LocalAws(slots=1, settings=Settings(**settings)) as server:
        yield server


@pytest.fixture(scope="module")
def quick() -> Iterator[LocalAws]:
    """An AWS with fast crawls."""
    yield from servers(crawl_seconds=0.3)


@pytest.fixture(scope="module")
def slow() -> Iterator[LocalAws]:
    """An AWS whose crawls do not end by themselves."""
    yield from servers(crawl_seconds=HOUR)


@pytest.fixture
def kit(quick: LocalAws, here: Callable[[Any], None], eventually: Any) -> GlueKit:
    """Crawlers with fast crawls."""
    here(quick)
    return GlueKit(quick, eventually)


@pytest.fixture
def slow_kit(slow: LocalAws, here: Callable[[Any], None], eventually: Any) -> GlueKit:
    """Crawlers whose crawls run until they are stopped."""
    here(slow)
    return GlueKit(slow, eventually)


def sensor(crawler_name: Any, **parameters: Any) -> GlueCrawlSensor:
    """Return a sensor that waits on the worker."""
    defaults = {"task_id": "s", "aws_conn_id": None, "deferrable": False, "since": LONG_AGO}
    return GlueCrawlSensor(**{**defaults, "crawler_name": crawler_name, **parameters})


def deferred(operator: Any, context: Any) -> Any:
    """Execute a sensor until it defers, and return its trigger."""
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(context)
    return raised.value.trigger


def later(crawl: dict[str, Any]) -> datetime:
    """Return a time after the start of a crawl, in whole seconds."""
    began: datetime = crawl["StartTime"]
    return began + timedelta(seconds=1)


# Which crawl.


def test_it_returns_the_outcome_of_a_crawl(kit: GlueKit, context: Any) -> None:
    """It is the same as that of the operator, for a crawl that someone else has started."""
    crawler = kit.crawler()
    crawl = kit.crawl(crawler)
    outcome = sensor(crawler).execute(context)
    assert (outcome["service"], outcome["state"], outcome["name"]) == ("glue_crawl", "SUCCEEDED", crawler)
    assert outcome["details"]["crawl_id"] == crawl["CrawlId"]
    assert outcome["details"]["tables_created"] == 1


@pytest.mark.parametrize("deferrable", [True, False])
def test_an_older_success_does_not_count_and_a_later_one_does(kit: GlueKit, context: Any, *, deferrable: bool) -> None:
    """Crawls before the time are ignored."""
    crawler = kit.crawler()
    since = later(kit.crawl(crawler))
    with pytest.raises(exceptions.JobTimeout, match="READY"):
        sensor(crawler, since=since, job_timeout=0.7).execute(context)
    kit.eventually(lambda: datetime.now(tz=UTC) >= since)
    waiting = sensor(crawler, since=since, deferrable=deferrable)
    kit.glue.start_crawler(Name=crawler)
    if deferrable:
        outcome = waiting.execute_complete(context, run(deferred(waiting, context)))
    else:
        outcome = waiting.execute(context)
    assert outcome["details"]["crawl_id"] == kit.crawls(crawler)[1]


def test_an_older_failure_does_not_count(kit: GlueKit, context: Any) -> None:
    """The crawler has been fixed since."""
    crawler = kit.crawler(NO_BUCKET)
    since = later(kit.crawl(crawler))
    kit.set_bucket(crawler)
    kit.eventually(lambda: datetime.now(tz=UTC) >= since)
    kit.crawl(crawler)
    assert sensor(crawler, since=since.isoformat()).execute(context)["state"] == "SUCCEEDED"


def test_the_first_crawl_since_the_time_decides(kit: GlueKit, context: Any) -> None:
    """A later one is another crawl."""
    crawler = kit.crawler(NO_BUCKET)
    kit.crawl(crawler)
    kit.set_bucket(crawler)
    kit.crawl(crawler)
    with pytest.raises(exceptions.JobFailed, match="bucket does not exist"):
        sensor(crawler).execute(context)


def test_a_timeout_without_a_crawl(kit: GlueKit, context: Any) -> None:
    """It is like that of every sensor, and skips with soft_fail."""
    crawler = kit.crawler()
    with pytest.raises(AirflowSensorTimeout, match=f"{crawler}@.* READY"):
        sensor(crawler, timeout=0.4).execute(context)
    with pytest.raises(AirflowSkipException):
        sensor(crawler, timeout=0.4, soft_fail=True).execute(context)


def test_since_is_by_default_the_start_of_the_dag_run(kit: GlueKit, context: Any) -> None:
    """It is rendered as text, or natively as a datetime."""
    moment = datetime(2026, 11, 22, 3, 0, 0, 125000, tzinfo=UTC)
    for native in (True, False):
        with DAG("d", schedule=None, render_template_as_native_obj=native):
            waiting = GlueCrawlSensor(task_id="s", crawler_name="se2")

        class Run:
            start_date = moment

        waiting.render_template_fields({"dag_run": Run()})  # type: ignore[typeddict-item]
        assert waiting.job_ids() == ["se2@2026-11-22T03:00:00.125000+00:00"]


@pytest.mark.parametrize(
    ("since", "moment"),
    [
        ("2026-11-22", "2026-11-22T00:00:00+00:00"),
        ("2026-11-22T03:00:00", "2026-11-22T03:00:00+00:00"),
        ("2026-11-22 05:00:00.5+02:00", "2026-11-22T03:00:00.500000+00:00"),
        ("2026-11-22T03:00:00Z", "2026-11-22T03:00:00+00:00"),
        (datetime(2026, 11, 22, 3), "2026-11-22T03:00:00+00:00"),  # noqa: DTZ001 -- counts as UTC
    ],
)
def test_since_has_several_formats(since: Any, moment: str) -> None:
    """Without a time zone, it is in UTC."""
    assert sensor("se2", since=since).job_ids() == [f"se2@{moment}"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"since": "yesterday"}, "since='yesterday': must be a datetime"),
        ({"since": None}, "since=None: must be a datetime"),
        ({"since": 3}, "since=3: must be a datetime"),
        ({"since": ""}, "since='': must be a datetime"),
        ({"crawler_name": None}, "crawler_name=None: must be an id"),
        ({"crawler_name": ["a", 3]}, "crawler_name=3: must be a string"),
        ({"crawler_name": {"job_id": "jr_0123"}}, "crawler_name=.*: is not the outcome of a crawl"),
        ({"crawler_name": {"state": "x"}}, "crawler_name=None"),
        ({"mode": "reschedule"}, "mode='reschedule'"),
    ],
)
def test_invalid_parameters_make_no_call(kit: GlueKit, context: Any, parameters: dict[str, Any], words: str) -> None:
    """The error has the parameter, the value and the rule."""
    with pytest.raises(exceptions.InvalidParameter, match=words):
        sensor(**{"crawler_name": "se2", **parameters}).execute(context)


# What an operator has started.


@pytest.mark.parametrize("form", ["outcome", "job_id"])
def test_the_crawl_that_an_operator_started_is_waited_for(kit: GlueKit, context: Any, form: str) -> None:
    """Neither since nor a later crawl matters."""
    crawler = kit.crawler()
    kit.crawl(crawler)
    operator = GlueCrawlOperator(task_id="t", crawler_name=crawler, aws_conn_id=None, wait_for_completion=False)
    started = operator.execute(context)
    kit.ended(crawler, 2)
    kit.set_bucket(crawler, NO_BUCKET)
    kit.crawl(crawler)
    outcome = sensor(started if form == "outcome" else started["job_id"], since=NEVER).execute(context)
    assert (outcome["state"], outcome["details"]["crawl_id"]) == ("SUCCEEDED", kit.crawls(crawler)[1])


def test_one_task_waits_for_a_list_of_crawls(kit: GlueKit, context: Any) -> None:
    """Crawlers and outcomes can be mixed; results are in the order of the list."""
    crawlers = [kit.crawler() for _ in range(3)]
    operator = GlueCrawlOperator(task_id="t", crawler_name=crawlers[0], aws_conn_id=None, wait_for_completion=False)
    started = operator.execute(context)
    for crawler in crawlers[1:]:
        kit.glue.start_crawler(Name=crawler)
    outcomes = sensor([crawlers[2], started, crawlers[1]]).execute(context)
    assert [outcome["name"] for outcome in outcomes] == [crawlers[2], crawlers[0], crawlers[1]]
    assert {outcome["state"] for outcome in outcomes} == {"SUCCEEDED"}


def test_one_failure_of_a_list_fails_the_sensor(kit: GlueKit, context: Any) -> None:
    """The error has all outcomes."""
    crawlers = [kit.crawler(), kit.crawler(NO_BUCKET)]
    for crawler in crawlers:
        kit.glue.start_crawler(Name=crawler)
    with pytest.raises(exceptions.JobFailed, match="bucket does not exist") as error:
        sensor(crawlers).execute(context)
    assert [outcome["state"] for outcome in error.value.outcome or []] == ["SUCCEEDED", "FAILED"]  # type: ignore[index]


def test_a_timeout_stops_no_crawl(slow_kit: GlueKit, context: Any) -> None:
    """A sensor did not start the crawl."""
    crawler = slow_kit.crawler()
    slow_kit.glue.start_crawler(Name=crawler)
    with pytest.raises(exceptions.JobTimeout, match="RUNNING"):
        sensor(crawler, job_timeout=0.4).execute(context)
    trigger = deferred(sensor(crawler, deferrable=True), context)
    asyncio.run(trigger.on_kill())
    assert slow_kit.state(crawler) == "RUNNING"


def test_a_stopped_crawl_counts_as_stopped(slow_kit: GlueKit, context: Any) -> None:
    """It does not matter who stopped it."""
    crawler = slow_kit.crawler()
    slow_kit.glue.start_crawler(Name=crawler)
    slow_kit.glue.stop_crawler(Name=crawler)
    with pytest.raises(exceptions.JobStopped):
        sensor(crawler).execute(context)


def test_an_unknown_crawler_fails_the_wait(kit: GlueKit, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error after the grace period names it, and not the others in the list."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__MISSING_GRACE", "0.3")
    crawler = kit.crawler()
    kit.crawl(crawler)
    with pytest.raises(exceptions.JobNotFound, match="nowhere@") as error:
        sensor([crawler, "nowhere"]).execute(context)
    assert crawler not in str(error.value)


# Many waits, few calls.


@pytest.mark.parametrize(("count", "calls"), [(100, 1), (101, 2)])
def test_a_hundred_waits_share_one_call(slow_kit: GlueKit, count: int, calls: int) -> None:
    """Each of the tasks waits for another crawler."""
    crawlers = [slow_kit.crawler() for _ in range(count)]
    for crawler in crawlers[:3]:
        slow_kit.glue.start_crawler(Name=crawler)
    waits = [
        JobTrigger(service="glue_crawl", job_ids=sensor(name).job_ids(), aws_conn_id=None, poll_interval=HOUR)
        for name in crawlers
    ]
    before = slow_kit.aws.calls

    seen = seen_once(waits)
    assert slow_kit.aws.calls - before == {"glue.BatchGetCrawlers": calls}
    assert seen == ["RUNNING"] * 3 + ["READY"] * (count - 3)


@pytest.mark.parametrize(
    "fault",
    [
        Faults(actions=("BatchGetCrawlers",), error_every=2),
        Faults(actions=("BatchGetCrawlers",), calls_per_second=2),
        Faults(actions=("BatchGetCrawlers",), drop_every=2),
    ],
    ids=["5xx", "throttled", "dropped"],
)
def test_transient_faults_fail_no_wait(context: Any, here: Any, eventually: Any, fault: Faults) -> None:
    """The crawler is described again."""
    for aws in servers(crawl_seconds=1):
        here(aws)
        kit = GlueKit(aws, eventually)
        crawler = kit.crawler()
        kit.glue.start_crawler(Name=crawler)
        kit.aws.set_faults(fault)
        assert sensor(crawler).execute(context)["state"] == "SUCCEEDED"
