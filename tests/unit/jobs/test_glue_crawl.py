"""The crawl module: checked against botocore's model, which crawl a wait is for, and parsing of Glue's responses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import glue_crawl
from airflow_jobflow.jobs.glue_crawl import Since
from airflow_jobflow.jobs.model import JobState, LogStream
from tests.unit.jobs.scripted_calls import ScriptedClient, refused

MOMENT = datetime(2026, 11, 22, 3, 21, 48, 125000, tzinfo=UTC)
AT = MOMENT.timestamp()


@pytest.fixture(scope="module")
def model() -> Any:
    """Return botocore's model of Glue."""
    return botocore.session.get_session().get_service_model("glue")


class Glue(ScriptedClient):
    """The part of the client that the module uses, with planned responses and a count of the calls."""

    def __init__(self, crawls: list[dict[str, Any]] = [], crawlers: list[dict[str, Any]] = []) -> None:  # noqa: B006
        self.crawls = crawls
        self.crawlers = crawlers
        self.calls: list[str] = []
        self.stops: list[str | None] = []

    def list_crawls(self, CrawlerName: str, MaxResults: int, NextToken: str = "0") -> dict[str, Any]:  # noqa: N803, ARG002
        """Return a page of crawls."""
        self.calls.append("ListCrawls")
        start = int(NextToken)
        answer: dict[str, Any] = {"Crawls": self.crawls[start : start + MaxResults]}
        return answer | ({"NextToken": str(start + MaxResults)} if len(self.crawls) > start + MaxResults else {})

    def batch_get_crawlers(self, CrawlerNames: list[str]) -> dict[str, Any]:  # noqa: N803
        """Return crawlers by name."""
        self.calls.append("BatchGetCrawlers")
        assert len(CrawlerNames) == len(set(CrawlerNames)) <= 100
        return {"Crawlers": [each for each in self.crawlers if each["Name"] in CrawlerNames]}

    def stop_crawler(self, Name: str) -> None:  # noqa: N803, ARG002
        """Stop the crawler, or raise the planned error."""
        self.calls.append("StopCrawler")
        if self.stops and (error := self.stops.pop(0)):
            raise refused(error, "StopCrawler")


def crawl(number: int, began: float, state: str = "COMPLETED", **more: Any) -> dict[str, Any]:
    """Return a crawl as in ListCrawls."""
    told = {"CrawlId": f"c{number}", "MessagePrefix": f"c{number}", "StartTime": began, "State": state}
    return {**told, "EndTime": began + 60, **more}


def crawler(state: str = "READY", **last: Any) -> dict[str, Any]:
    """Return a crawler as in BatchGetCrawlers."""
    return {"Name": "se2", "State": state, **({"LastCrawl": last} if last else {})}


def test_every_state_of_botocore_is_in_a_table(model: Any) -> None:
    """A crawl with a state missing from the table would never end, or count as failed."""
    assert list(glue_crawl.CRAWLER_STATES) == model.shape_for("CrawlerState").enum
    assert list(glue_crawl.LAST_CRAWL_STATES) == model.shape_for("LastCrawlStatus").enum
    assert list(glue_crawl.CRAWL_STATES) == model.shape_for("CrawlerHistoryState").enum
    assert set(filter(None, glue_crawl.CRAWL_STATES.values())) == set(glue_crawl.LAST_CRAWL_STATES)


def test_members_that_are_read_exist_in_botocores_model(model: Any) -> None:
    """A misspelled member would always be absent."""
    assert {"Status", "StartTime", "ErrorMessage", "LogGroup", "LogStream", "MessagePrefix"} <= set(
        model.shape_for("LastCrawlInfo").members
    )
    listed = {"CrawlId", "State", "StartTime", "EndTime", "Summary", "DPUHour", "MessagePrefix", "ErrorMessage"}
    assert listed <= set(model.shape_for("CrawlerHistory").members)


NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=40)


@given(
    NAMES | st.sampled_from(["a@b", "@", "a#b@c#", "se2@2026-11-22T03:21:48+00:00", "x@2026-01-01T00:00:00+00:00#p"]),
    st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.just("") | st.uuids().map(str) | st.sampled_from(["a#b", "#", "a@b"]),
)
def test_the_id_of_a_crawl_can_be_parsed(name: str, moment: datetime, after: str) -> None:
    """The name of a crawler may contain any character."""
    since = Since(name, moment, after)
    assert Since.read(str(since)) == since


@given(NAMES | st.sampled_from(["a@20261122", "a@2026-11-22", "a@2026-11-22T03:21:48", "", "jr_0123"]))
def test_the_name_of_a_crawler_is_not_the_id_of_a_crawl(name: str) -> None:
    """A sensor distinguishes a crawl and a crawler."""
    with pytest.raises(ValueError, match="does not name a crawl"):
        Since.read(name)


SINCE = Since("se2", MOMENT, "c1")


@pytest.mark.parametrize(
    ("began", "prefix", "met"),
    [
        (AT + 60, "c2", True),
        (AT, "c1", False),
        (int(AT), "c1", False),
        (int(AT), "c2", True),
        (int(AT) - 1, "c0", False),
        (AT + 86400, "c1", False),
    ],
    ids=["a later one", "the one before", "the same, rounded", "ours, rounded", "an older one", "the one before, late"],
)
def test_the_crawl_of_a_wait_is_recognized(began: float, prefix: str, met: bool) -> None:
    """Times in one of the responses may be whole seconds; the prefix distinguishes two crawls of the same second."""
    assert SINCE.is_met_by({"StartTime": began, "MessagePrefix": prefix}) is met


def test_a_crawler_without_a_last_crawl_has_not_ended() -> None:
    """Neither a missing LastCrawl nor one without a time ends a wait."""
    assert not Since("se2", datetime.fromtimestamp(0, tz=UTC)).is_met_by({})


@pytest.mark.parametrize(
    ("state", "last", "seen"),
    [
        ("READY", {}, JobState.SUBMITTED),
        ("READY", {"Status": "SUCCEEDED", "StartTime": AT, "MessagePrefix": "c1"}, JobState.SUBMITTED),
        ("READY", {"Status": "FAILED", "StartTime": AT, "MessagePrefix": "c1"}, JobState.SUBMITTED),
        ("RUNNING", {"Status": "FAILED", "StartTime": AT, "MessagePrefix": "c1"}, JobState.RUNNING),
        ("STOPPING", {}, JobState.RUNNING),
        ("PONDERING", {}, JobState.RUNNING),
        ("READY", {"Status": "SUCCEEDED", "StartTime": AT + 9, "MessagePrefix": "c2"}, JobState.SUCCEEDED),
        ("READY", {"Status": "FAILED", "StartTime": AT + 9, "MessagePrefix": "c2"}, JobState.FAILED),
        ("READY", {"Status": "CANCELLED", "StartTime": AT + 9, "MessagePrefix": "c2"}, JobState.FAILED),
        ("RUNNING", {"Status": "SUCCEEDED", "StartTime": AT + 9, "MessagePrefix": "c2"}, JobState.SUCCEEDED),
        ("READY", {"Status": "EXPLODED", "StartTime": AT + 9, "MessagePrefix": "c2"}, JobState.RUNNING),
        ("READY", {"StartTime": AT + 9, "MessagePrefix": "c2"}, JobState.RUNNING),
        ("READY", {"Status": "RUNNING", "StartTime": AT + 9, "MessagePrefix": "c2"}, JobState.RUNNING),
        ("READY", {"Status": "COMPLETED", "StartTime": AT + 9, "MessagePrefix": "c2"}, JobState.SUCCEEDED),
    ],
)
def test_the_state_of_a_crawl_is_derived_from_its_crawler(state: str, last: dict[str, Any], seen: JobState) -> None:
    """Neither READY nor the end of the previous crawl ends a wait; a crawl with an unknown status is still running."""
    client: Any = Glue(crawlers=[crawler(state, **last)])
    assert glue_crawl.describe(client, [str(SINCE)], None)[str(SINCE)].state is seen


def test_a_stopped_crawl_differs_from_a_failed_one() -> None:
    """The snapshot has Glue's message and the log."""
    last = {"Status": "CANCELLED", "StartTime": AT + 9, "LogStream": "se2", "ErrorMessage": "why"}
    client: Any = Glue(crawlers=[crawler("READY", **last)])
    seen = glue_crawl.describe(client, [str(SINCE)], None)[str(SINCE)]
    assert (seen.stopped_by_request, seen.reason, seen.name) == (True, "why", "se2")
    assert seen.log == LogStream("/aws-glue/crawlers", "se2")


def test_two_crawls_of_a_crawler_use_one_name_in_the_request() -> None:
    """Waits for crawls of one crawler share its name in the call; an unknown crawler is omitted."""
    client: Any = Glue(crawlers=[crawler("RUNNING")])
    ids = [str(SINCE), str(Since("se2", MOMENT)), str(Since("nowhere", MOMENT))]
    assert list(glue_crawl.describe(client, ids, None)) == ids[:2]
    assert client.calls == ["BatchGetCrawlers"]


# Before the start.


@pytest.mark.parametrize(
    ("crawls", "last", "prefix"),
    [
        ([], None, ""),
        ([crawl(2, AT), crawl(1, AT - 60)], None, "c2"),
        ([crawl(1, AT)], {"StartTime": AT + 60, "MessagePrefix": "c2"}, "c2"),
        ([crawl(2, AT)], {"StartTime": AT - 60, "MessagePrefix": "c1"}, "c2"),
        ([crawl(2, AT, "RUNNING")], {"StartTime": AT, "MessagePrefix": "c2"}, "c2"),
        ([], {"Status": "FAILED"}, ""),
    ],
    ids=["none", "the newest", "the list lags", "the crawler lags", "the list says it runs still", "without a time"],
)
def test_the_last_crawl_before_a_start_is_found(crawls: Any, last: Any, prefix: str) -> None:
    """The newer of Glue's two responses counts; otherwise the last crawl would be mistaken for the new one."""
    client: Any = Glue(crawls)
    assert glue_crawl.next_crawl(client, "se2", last)[0].after == prefix
    assert client.calls == ["ListCrawls"]


def test_a_crawl_without_a_prefix_is_recognized_by_its_second() -> None:
    """A crawl that starts in a later second is another one."""
    before = crawl(1, AT)
    del before["MessagePrefix"]
    client: Any = Glue([before])
    since, _ = glue_crawl.next_crawl(client, "se2", None)
    assert since == Since("se2", MOMENT + timedelta(seconds=1))
    assert not since.is_met_by({"StartTime": int(AT)})
    assert since.is_met_by({"StartTime": int(AT) + 1})


@pytest.mark.parametrize(
    ("crawls", "after"),
    [
        ([], None),
        ([crawl(2, AT, "COMPLETED")], None),
        ([crawl(2, AT, "RUNNING")], ""),
        ([crawl(2, AT, "RUNNING"), crawl(1, AT - 60)], "c1"),
    ],
)
def test_the_running_crawl_is_the_first_after_the_previous_one(crawls: Any, after: str | None) -> None:
    """A crawl that is not listed as running is not joined, because a wait for it might never end."""
    client: Any = Glue(crawls)
    found = glue_crawl.running_crawl(client, "se2", None)
    assert (found and found.after) == after


# After the end.


def ended(*crawls: dict[str, Any], since: Since = SINCE) -> Any:
    """Return the final details of a crawl that was last described as failed."""
    client: Any = Glue(list(crawls), [crawler("READY", Status="FAILED", StartTime=AT + 9, MessagePrefix="c2")])
    seen = glue_crawl.describe(client, [str(since)], None)[str(since)]
    return glue_crawl.with_final_details(client, seen), client


SUMMARY = {"TABLE": {"ADD": {"Details": '{"names":["a"]}', "Count": 2}, "DELETE": {"Count": 1}}}


def test_final_details_come_from_the_list_of_crawls() -> None:
    """The id, end time, changed tables and DPU hours of the crawl."""
    told = crawl(2, AT + 9, "FAILED", Summary=json.dumps(SUMMARY), DPUHour=0.5, ErrorMessage="why")
    seen, client = ended(told, crawl(1, AT))
    assert seen.details == {
        "crawl_id": "c2",
        "dpu_hours": 0.5,
        "tables_created": 2,
        "tables_updated": 0,
        "tables_deleted": 1,
    }
    assert (seen.state, seen.reason) == (JobState.FAILED, "why")
    assert seen.stopped_at == datetime.fromtimestamp(AT + 69, tz=UTC).isoformat()
    assert client.calls.count("ListCrawls") == 1


@pytest.mark.parametrize("summary", ["no JSON", "[]", '"text"', '{"TABLE": []}', '{"TABLE": {"ADD": 3}}', "null"])
def test_an_unknown_format_of_the_summary_is_not_an_error(summary: str) -> None:
    """The format is not documented."""
    seen, _ = ended(crawl(2, AT + 9, Summary=summary), crawl(1, AT))
    assert seen.details["crawl_id"] == "c2"


def test_later_crawls_are_not_mistaken_for_the_awaited_one() -> None:
    """The crawler was described after another crawl had ended."""
    seen, _ = ended(crawl(4, AT + 300, "RUNNING"), crawl(3, AT + 200, "FAILED"), crawl(2, AT + 9), crawl(1, AT))
    assert (seen.state, seen.status, seen.details["crawl_id"]) == (JobState.SUCCEEDED, "SUCCEEDED", "c2")


def test_a_second_page_is_read_only_if_needed() -> None:
    """The awaited crawl may be a hundred crawls back."""
    crawls = [crawl(number, AT + number) for number in range(150, 0, -1)]
    seen, client = ended(*crawls)
    assert seen.details["crawl_id"] == "c2"
    assert client.calls.count("ListCrawls") == 2


@pytest.mark.parametrize(
    "crawls",
    [[], [crawl(1, AT)], [crawl(2, AT + 9, "RUNNING"), crawl(1, AT)], [crawl(2, AT + 9, "PONDERING"), crawl(1, AT)]],
)
def test_an_outdated_list_does_not_change_the_outcome(crawls: Any) -> None:
    """The outcome remains that of the crawler."""
    seen, _ = ended(*crawls)
    assert (seen.state, seen.status) == (JobState.FAILED, "FAILED")


def test_a_listed_crawl_without_an_id_has_details() -> None:
    """A missing optional member must not turn an outcome into an error."""
    bare = {"State": "COMPLETED", "StartTime": AT + 9}
    seen, _ = ended(bare, crawl(1, AT))
    assert (seen.state, seen.details["tables_created"]) == (JobState.SUCCEEDED, 0)


# Stopping.


def test_stopping_a_crawl_that_has_not_started_yet_is_a_transient_error() -> None:
    """The caller repeats the stop; otherwise the crawl would run without anyone waiting for it."""
    client: Any = Glue(crawlers=[crawler("READY")])
    client.stops = ["CrawlerNotRunningException", None]
    with pytest.raises(CallError, match="before it has begun") as raised:
        glue_crawl.stop(client, str(SINCE), None, "why")
    assert raised.value.fault is Fault.TRANSIENT
    glue_crawl.stop(client, str(SINCE), None, "why")
    assert client.calls == ["BatchGetCrawlers", "StopCrawler"] * 2


@pytest.mark.parametrize(
    ("crawlers", "stops"),
    [
        ([crawler("RUNNING", Status="SUCCEEDED", StartTime=AT + 9, MessagePrefix="c2")], 0),
        ([], 0),
        ([crawler("RUNNING", Status="SUCCEEDED", StartTime=AT, MessagePrefix="c1")], 1),
    ],
    ids=["ended: another crawl runs", "the crawler is gone", "ours"],
)
def test_only_the_awaited_crawl_is_stopped(crawlers: Any, stops: int) -> None:
    """A later crawl belongs to someone else."""
    client: Any = Glue(crawlers=crawlers)
    glue_crawl.stop(client, str(SINCE), None, "why")
    assert client.calls.count("StopCrawler") == stops


def test_a_crawl_that_is_stopping_is_not_stopped_again() -> None:
    """Another caller has already stopped it."""
    client: Any = Glue(crawlers=[crawler("RUNNING")])
    client.stops = ["CrawlerStoppingException"]
    glue_crawl.stop(client, str(SINCE), None, "why")
    assert client.calls.count("StopCrawler") == 1
