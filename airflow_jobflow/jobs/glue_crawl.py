"""Crawls of Glue crawlers.

What Glue does and this module relies on: StartCrawler returns no id, and a crawler makes one crawl at a time.
BatchGetCrawlers tells of 100 crawlers what they do now and how their last crawl ended; that is all a sweep asks for.
ListCrawls tells a crawler's crawls one by one, newest first, in words of its own: it is asked before a start, for the
newest crawl until then, and after the end, for what has become of the first one since. The two may lag behind each
other: of the crawls they tell before a start, the newest counts. A crawler's state is never FAILED; READY says only
that it does nothing now.

So a crawl is known here as *the first of its crawler since a moment*: ``se2_in0@2026-11-22T03:21:48.125000+00:00``. The
moment is when the crawl before it began, whose message prefix follows after a ``#``; or, for a wait on a crawl that
somebody else starts, any moment at all.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot, iso_seconds

CLIENT = "glue"
DISPLAY_NAME = "Glue crawl"
BATCH_SIZE = 100
RETENTION = "about a year, the last one for as long as its crawler"

READY, RUNNING = "READY", "RUNNING"

CRAWLER_STATES = {"READY": JobState.SUBMITTED, "RUNNING": JobState.RUNNING, "STOPPING": JobState.RUNNING}
"""What a crawler's state says of a crawl that has not ended: READY, that its start has not taken effect yet."""

LAST_CRAWL_STATES = {
    "SUCCEEDED": JobState.SUCCEEDED,
    "CANCELLED": JobState.FAILED,
    "FAILED": JobState.FAILED,
}
"""Every way a crawl ends, in GetCrawler's words; a test holds it against botocore's, as the next.

A crawl whose status is none of these has not ended: only the deadlines of its task bound the wait for it.
"""

CRAWL_STATES = {"RUNNING": None, "COMPLETED": "SUCCEEDED", "FAILED": "FAILED", "STOPPED": "CANCELLED"}
"""GetCrawler's word for each of ListCrawls'; a crawl that runs has none."""

PAGE = 100
"""Crawls in an answer of ListCrawls; a second page is asked for only if none of these is older than the moment."""

CHANGES = {"tables_created": "ADD", "tables_updated": "UPDATE", "tables_deleted": "DELETE"}
"""Our name for each change to tables that the summary of a crawl counts."""


LOG_GROUP = "/aws-glue/crawlers"
"""Where crawlers write, unless they say otherwise."""

JOB_ID = re.compile(r"(.+)@(\d{4}-\d\d-\d\dT[\d:.]+\+00:00)(?:#(.+))?", re.DOTALL)
"""A ``Since`` as text."""


@dataclass(frozen=True, slots=True)
class Since:
    """Which crawl is meant: the first one of a crawler that began after another, or since a moment.

    :param crawler: the crawler's name.
    :param moment: in UTC; counted in whole seconds, as Glue's own answers may be.
    :param after: message prefix of the crawl that began at the moment; empty where there is none.
    """

    crawler: str
    moment: datetime
    after: str = ""

    def __str__(self) -> str:
        return f"{self.crawler}@{self.moment.isoformat()}{'#' if self.after else ''}{self.after}"

    @classmethod
    def read(cls, job_id: str) -> Since:
        """Build it from what ``str`` gave.

        :raises ValueError: it is something else, such as the mere name of a crawler.
        """
        said = JOB_ID.fullmatch(job_id)
        if not said:
            raise ValueError(f"{job_id!r} names no crawl")
        crawler, moment, after = said.groups(default="")
        return cls(crawler, datetime.fromisoformat(moment), after)

    def is_met_by(self, crawl: Mapping[str, Any]) -> bool:
        """Say whether a crawl, as LastCrawl or ListCrawls tells it, is the one meant, or one that came after it."""
        began = int(crawl.get("StartTime", -1))
        is_the_one_before = self.after and crawl.get("MessagePrefix") == self.after
        return began >= int(self.moment.timestamp()) and not is_the_one_before


def describe(call: Call, job_ids: Sequence[str], scope: str | None) -> dict[str, Snapshot]:  # noqa: ARG001
    """Look at the crawls of up to 100 crawlers in one BatchGetCrawlers call. Crawls have no scope."""
    meant = {job_id: Since.read(job_id) for job_id in job_ids}
    names = list(dict.fromkeys(since.crawler for since in meant.values()))
    crawlers = {each["Name"]: each for each in call("batch_get_crawlers", CrawlerNames=names)["Crawlers"]}
    return {
        job_id: snapshot(job_id, since, crawlers[since.crawler], call)
        for job_id, since in meant.items()
        if since.crawler in crawlers
    }


def snapshot(job_id: str, since: Since, crawler: Mapping[str, Any], call: Call) -> Snapshot:
    """Read from a crawler how the crawl is. A state or a status that no table has is a crawl that is still running.

    :param call: tells region and partition, which a crawler does not.
    """
    last = crawler.get("LastCrawl", {})
    seen = Snapshot(
        job_id=job_id,
        name=since.crawler,
        state=CRAWLER_STATES.get(crawler["State"], JobState.RUNNING),
        status=crawler["State"],
        region=call.region,
        partition=call.partition,
    )
    if not since.is_met_by(last):
        return seen
    told = last.get("Status", "")
    status = CRAWL_STATES.get(told, told)  # moto's GetCrawler uses ListCrawls' words
    if status not in LAST_CRAWL_STATES:
        return dataclasses.replace(seen, state=JobState.RUNNING, status=told or crawler["State"])
    return _ended(seen, status, last)


def _ended(seen: Snapshot, status: str, crawl: Mapping[str, Any]) -> Snapshot:
    """Add how a crawl ended, which GetCrawler and ListCrawls tell by the same names."""
    log = LogStream(crawl.get("LogGroup", LOG_GROUP), crawl["LogStream"]) if crawl.get("LogStream") else None
    return dataclasses.replace(
        seen,
        state=LAST_CRAWL_STATES[status],
        status=status,
        reason=crawl.get("ErrorMessage"),
        attempt=1,
        stopped_by_request=status == "CANCELLED",
        created_at=iso_seconds(crawl.get("StartTime")),
        started_at=iso_seconds(crawl.get("StartTime")),
        stopped_at=iso_seconds(crawl.get("EndTime")),
        log=log,
        details={"message_prefix": crawl["MessagePrefix"]} if crawl.get("MessagePrefix") else None,
    )


def with_final_details(call: Call, snapshot: Snapshot) -> Snapshot:
    """Add what ListCrawls tells of a crawl that has ended: its id, its end, what it changed and cost.

    It tells which crawl was the first since the moment, too: where another one has followed it before the sweep came
    by, the last crawl was the wrong one. A crawl that is not listed yet stays as the sweep has seen it.
    """
    since = Since.read(snapshot.job_id)
    crawl = first_since(call, since)
    status = CRAWL_STATES.get((crawl or {}).get("State", ""))
    if not crawl or not status:
        return snapshot
    ended = _ended(snapshot, status, crawl)
    return dataclasses.replace(ended, details=_details(crawl))


def _details(crawl: Mapping[str, Any]) -> dict[str, Any]:
    """Read what a crawl changed and cost, where Glue tells it: its summary is JSON, and not documented."""
    details = {"crawl_id": crawl.get("CrawlId"), "dpu_hours": crawl.get("DPUHour")}
    try:
        tables = json.loads(crawl.get("Summary") or "{}").get("TABLE", {})
        details |= {name: tables.get(change, {}).get("Count", 0) for name, change in CHANGES.items()}
    except (ValueError, AttributeError):
        details["summary"] = crawl["Summary"]
    return {name: detail for name, detail in details.items() if detail is not None}


def first_since(call: Call, since: Since) -> Mapping[str, Any] | None:
    """Return the first crawl after a moment, as ListCrawls tells it, or None. One call, or one for each 100 since."""
    first: Mapping[str, Any] | None = None
    more: dict[str, Any] = {}
    while True:
        answer: Mapping[str, Any] = call("list_crawls", CrawlerName=since.crawler, MaxResults=PAGE, **more)
        for crawl in answer["Crawls"]:
            if not since.is_met_by(crawl):
                return first
            first = crawl
        if not answer.get("NextToken"):
            return first
        more = {"NextToken": answer["NextToken"]}


def crawler_now(call: Call, crawler: str) -> tuple[str, Mapping[str, Any] | None]:
    """Return what a crawler does now, in Glue's word, and its last crawl. One GetCrawler call.

    :raises botocore.exceptions.ClientError: EntityNotFoundException where there is no such crawler.
    """
    told: Mapping[str, Any] = call("get_crawler", Name=crawler)["Crawler"]
    return told["State"], told.get("LastCrawl")


def to_start(call: Call, crawler: str, last: Mapping[str, Any] | None) -> tuple[Since, Since | None]:
    """Return what a crawl that starts now is: the first since the newest by now. One ListCrawls call.

    :param last: the crawler's last crawl.
    :return: that, and, if the newest crawl is listed as running, what that one is. It may have ended: the list may lag.
    """
    begun = _listed(call, crawler)
    runs = _after(crawler, last, *begun[1:]) if begun and begun[0]["State"] == RUNNING else None
    return _after(crawler, last, *begun), runs


def that_runs(call: Call, crawler: str, last: Mapping[str, Any] | None) -> Since | None:
    """Return what the crawl is that runs now: the first since the one before it. One ListCrawls call.

    :param last: the crawler's last crawl.
    :return: None if no such crawl is listed: it has just begun, or ended.
    """
    return to_start(call, crawler, last)[1]


def _listed(call: Call, crawler: str) -> Sequence[Mapping[str, Any]]:
    crawls: Sequence[Mapping[str, Any]] = call("list_crawls", CrawlerName=crawler, MaxResults=2)["Crawls"]
    return crawls


def _after(crawler: str, *crawls: Mapping[str, Any] | None) -> Since:
    """Return what the first crawl after these is; of all crawls, if these are none."""
    begun = [crawl for crawl in crawls if crawl and "StartTime" in crawl]
    newest = max(begun, key=lambda crawl: float(crawl["StartTime"]), default=None)
    if newest is None:
        return Since(crawler, datetime.fromtimestamp(0, tz=UTC))
    began, prefix = datetime.fromtimestamp(newest["StartTime"], tz=UTC), newest.get("MessagePrefix", "")
    return Since(crawler, began if prefix else began + timedelta(seconds=1), prefix)


def stop(call: Call, job_id: str, scope: str | None, reason: str) -> None:  # noqa: ARG001
    """Stop a crawl, if it is the one its crawler makes now; one that has ended stays as it is. Glue takes no reason.

    :raises CallError: it was not stopped; ``TRANSIENT`` if its start has not taken effect yet.
    """
    seen = describe(call, [job_id], None).get(job_id)
    if seen is None or seen.state.ended:
        return
    try:
        call("stop_crawler", Name=seen.name)
    except CallError as error:
        if error.code == "CrawlerNotRunningException":  # or it has just ended, which the next try sees
            message = f"the crawl cannot be stopped before it has begun: {error}"
            raise CallError(Fault.TRANSIENT, message, error.code, error.operation) from error
        if error.code != "CrawlerStoppingException":
            raise
