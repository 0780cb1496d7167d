"""Flow 4, a crawler followed by a Glue job: the job runs only after a successful crawl of the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_jobflow.local import Faults, LocalAws, Settings
from airflow_jobflow.local.demo.outputs import parquet
from airflow_jobflow.local.glue.samples import BUCKET, CRAWLER, SCRIPT
from airflow_jobflow.local.samples import provision
from tests.local.glue_kit import end_crawl

DAG = "glue_crawler_then_job"
PATIENT = {"polls": 150}
PATIENCE = 30.0

WRITTEN = (
    f"19 rows in s3://{BUCKET}/se2/out0/se2_in0.parquet: deviceid string, uuid int64, appid int64, country string, "
    "year int64, month int64, day int64, hour int64"
)


@pytest.fixture
def quick() -> Iterator[LocalAws]:
    """An AWS of the test's own."""
    with LocalAws() as aws:
        provision(aws.endpoint_url)
        yield aws


@pytest.fixture
def slow() -> Iterator[LocalAws]:
    """An AWS in which a crawl takes two seconds, and its start half a second to take effect."""
    with LocalAws(settings=Settings(crawl_seconds=2, start_takes_effect_after=0.5)) as aws:
        provision(aws.endpoint_url)
        yield aws


@pytest.fixture
def endless() -> Iterator[LocalAws]:
    """An AWS in which a crawl runs until the test ends it."""
    with LocalAws(settings=Settings(crawl_seconds=3600)) as aws:
        provision(aws.endpoint_url)
        yield aws


def eventually(look: Callable[[], Any]) -> None:
    """Call a function until its result is true."""
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def started(aws: LocalAws) -> tuple[int, int]:
    """Return the numbers of started crawls and runs."""
    crawls = sum("crawl_id" in each for each in aws.started("glue"))
    return crawls, len(aws.started("glue")) - crawls


def crawl(aws: LocalAws) -> dict[str, Any]:
    """Run a crawl, and return its result."""
    glue = aws.client("glue")
    before = glue.get_crawler(Name=CRAWLER)["Crawler"].get("LastCrawl")
    glue.start_crawler(Name=CRAWLER)
    eventually(lambda: glue.get_crawler(Name=CRAWLER)["Crawler"].get("LastCrawl") != before)
    return dict(glue.get_crawler(Name=CRAWLER)["Crawler"]["LastCrawl"])


def break_crawler(aws: LocalAws) -> None:
    """Let every crawl fail."""
    targets = {"S3Targets": [{"Path": "s3://no-such-bucket/"}]}
    aws.client("glue").update_crawler(Name=CRAWLER, Targets=targets)


def test_a_successful_crawl_is_followed_by_the_job(run_on: Callable[..., Any], quick: LocalAws) -> None:
    """The DAG run waits for the job: its output exists at the end."""
    run = run_on(quick, DAG, **PATIENT)
    assert run.state == "success"
    assert run.states == {
        "crawl": "success",
        "crawl_complete": "success",
        "run_final_glue_job": "success",
        "job_failed": "skipped",
        "job_failed_timeout": "skipped",
    }
    assert parquet(quick) == WRITTEN
    assert started(quick) == (1, 1)


def test_a_failed_crawl_after_a_success_fails_the_run(
    run_on: Callable[..., Any], slow: LocalAws, capfd: pytest.CaptureFixture[str]
) -> None:
    """A crawler is READY after a failure, too, and also, with the last crawl's success, before a start takes effect."""
    assert crawl(slow)["Status"] == "SUCCEEDED"
    break_crawler(slow)
    run = run_on(slow, DAG, **PATIENT)
    assert run.state == "failed"
    assert run.states == {
        "crawl": "success",
        "crawl_complete": "success",
        "run_final_glue_job": "skipped",
        "job_failed": "failed",
        "job_failed_timeout": "skipped",
    }
    assert "DescribeJob returned FAILED: Glue Crawler Job Failed (se2_in0: " in capfd.readouterr().out
    assert started(slow) == (2, 0)


def test_a_crawl_that_takes_too_long_fails_the_run(
    run_on: Callable[..., Any], endless: LocalAws, capfd: pytest.CaptureFixture[str]
) -> None:
    """It fails after three polls, without another try, and with its own error."""
    run = run_on(endless, DAG)
    assert run.state == "failed"
    assert run.states == {
        "crawl": "failed",
        "crawl_complete": "success",
        "run_final_glue_job": "skipped",
        "job_failed": "skipped",
        "job_failed_timeout": "failed",
    }
    said = "DescribeJob returned FAILED Because of Timeout: Glue Crawler Job Failed (Glue crawl se2_in0"
    assert said in capfd.readouterr().out
    assert run.tries["crawl"] == 1
    assert started(endless) == (1, 0)
    assert endless.calls["glue.StopCrawler"] == 1


def test_a_start_whose_response_was_lost_starts_one_crawl(run_on: Callable[..., Any], slow: LocalAws) -> None:
    """The second start gets a CrawlerRunningException."""
    slow.set_faults(Faults(actions=("glue.StartCrawler",), lose_answers=1))
    run = run_on(slow, DAG, **PATIENT)
    assert (run.state, started(slow)) == ("success", (1, 1))


def test_a_running_crawl_is_joined(run_on: Callable[..., Any], endless: LocalAws) -> None:
    """Someone else has started it; it ends during the wait."""
    glue = endless.client("glue")
    glue.start_crawler(Name=CRAWLER)
    assert glue.get_crawler(Name=CRAWLER)["Crawler"]["State"] == "RUNNING"

    def end() -> None:
        eventually(lambda: endless.calls["glue.BatchGetCrawlers"])
        end_crawl(endless, CRAWLER)

    with ThreadPoolExecutor() as beside:
        ended = beside.submit(end)
        run = run_on(endless, DAG, **PATIENT)
        ended.result()
    assert (run.state, started(endless)) == ("success", (1, 1))


def test_an_unknown_crawler_is_not_a_timeout(run_on: Callable[..., Any], quick: LocalAws) -> None:
    """The job does not run."""
    quick.client("glue").delete_crawler(Name=CRAWLER)
    run = run_on(quick, DAG, **PATIENT)
    assert run.state == "failed"
    states = run.states
    assert (states["crawl"], states["crawl_complete"]) == ("failed", "failed")
    assert set(states.values()) == {"failed", "upstream_failed"}
    assert run.tries["crawl"] == 1


def test_a_failed_job_fails_the_run(
    run_on: Callable[..., Any], dags: Any, quick: LocalAws, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error has the reason."""
    quick.client("s3").put_object(Bucket=BUCKET, Key=SCRIPT, Body=b"raise ValueError('no such column')")
    dags[DAG].get_task("run_final_glue_job").retries = 0
    run = run_on(quick, DAG, **PATIENT)
    assert run.state == "failed"
    assert run.states["run_final_glue_job"] == "failed"
    assert "no such column" in capfd.readouterr().out


def test_the_dag_has_a_schedule_and_one_active_run(dags: Any) -> None:
    """It has a cron schedule."""
    assert (dags[DAG].schedule, dags[DAG].max_active_runs, dags[DAG].catchup) == ("0 3 * * *", 1, False)


def test_retries_are_those_of_the_flow(dags: Any) -> None:
    """Number, first delay in seconds, and its growth are checked."""
    told = {
        name: (task.retries, task.retry_delay.total_seconds(), task.retry_exponential_backoff)
        for name, task in dags[DAG].task_dict.items()
        if name in ("crawl", "run_final_glue_job")
    }
    assert told == {"crawl": (3, 120, 2), "run_final_glue_job": (3, 1, 2)}
