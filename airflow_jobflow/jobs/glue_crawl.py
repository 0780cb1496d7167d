"""Crawls of Glue crawlers.

This module relies on the following behaviour of Glue:

- StartCrawler returns no id, and a crawler makes one crawl at a time.
- BatchGetCrawlers returns the states and the last crawls of 100 crawlers. Polling calls only this operation.
- ListCrawls returns a crawler's crawls, newest first, with statuses of its own. It is called before a start, for the
  newest crawl so far, and after the end, for the result of the first crawl since.
- The two may lag behind each other. Of the crawls that they return before a start, the newest counts.
- A crawler's state is never FAILED, and READY says only that it does nothing now.

So the id of a crawl here means *the first crawl of a crawler since a time*:
``se2_in0@2026-11-22T03:21:48.125000+00:00``. The time is the start of the previous crawl, whose message prefix follows
after a ``#``. For a wait for a crawl that someone else starts, it may be any time.
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
from airflow_jobflow.jobs.calls import Call, pages
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot, iso_seconds

CLIENT = "glue"
DISPLAY_NAME = "Glue crawl"
BATCH_SIZE = 100
RETENTION = "about a year, the last one for as long as its crawler"

READY, RUNNING = "READY", "RUNNING"

CRAWLER_STATES = {"READY": JobState.SUBMITTED, "RUNNING": JobState.RUNNING, "STOPPING": JobState.RUNNING}
"""The state of a crawl that has not ended, by the crawler's state. READY: its start has not taken effect yet."""

LAST_CRAWL_STATES = {
    "SUCCEEDED": JobState.SUCCEEDED,
    "CANCELLED": JobState.FAILED,
    "FAILED": JobState.FAILED,
}
"""The statuses in GetCrawler of crawls that have ended; a test compares these tables with botocore's.

A crawl with another status has not ended: only the deadlines of its task limit the wait for it.
"""

CRAWL_STATES = {"RUNNING": None, "COMPLETED": "SUCCEEDED", "FAILED": "FAILED", "STOPPED": "CANCELLED"}
"""The status in GetCrawler for each in ListCrawls; a running crawl has none."""

CRAWLS_PER_PAGE = 100
"""Crawls in a response of ListCrawls. A second page is read only if none of these is old enough."""

CHANGES = {"tables_created": "ADD", "tables_updated": "UPDATE", "tables_deleted": "DELETE"}
"""The operation in a crawl's summary for each count of changed tables in our details."""

LOG_GROUP = "/aws-glue/crawlers"
"""The log group of crawlers, unless the crawl names another one."""

JOB_ID = re.compile(r"(.+)@(\d{4}-\d\d-\d\dT[\d:.]+\+00:00)(?:#(.+))?", re.DOTALL)
"""Matches the text form of a ``Since``."""


@dataclass(frozen=True, slots=True)
class Since:
    """Identifies a crawl: the first one of a crawler that began after another crawl, or since a time.

    :param crawler: the crawler's name.
    :param time: the time, in UTC; compared in whole seconds, because Glue's times may be rounded.
    :param after: message prefix of the crawl that began at this time; empty if there is none.
    """

    crawler: str
    time: datetime
    after: str = ""

    def __str__(self) -> str:
        return f"{self.crawler}@{self.time.isoformat()}{'#' if self.after else ''}{self.after}"

    @classmethod
    def read(cls, job_id: str) -> Since:
        """Parse what ``str`` returned.

        :param job_id: the id of a crawl.
        :raises ValueError: it is something else, such as only the name of a crawler.
        """
        match = JOB_ID.fullmatch(job_id)
        if not match:
            raise ValueError(f"{job_id!r} does not name a crawl")
        crawler, time, after = match.groups(default="")
        return cls(crawler, datetime.fromisoformat(time), after)

    def is_met_by(self, crawl: Mapping[str, Any]) -> bool:
        """Return whether a crawl is the identified one, or a later one.

        :param crawl: as GetCrawler (``LastCrawl``) or ListCrawls returns it.
        """
        began = int(crawl.get("StartTime", -1))
        is_previous = self.after and crawl.get("MessagePrefix") == self.after
        return began >= int(self.time.timestamp()) and not is_previous


def describe(call: Call, job_ids: Sequence[str], scope: str | None) -> dict[str, Snapshot]:  # noqa: ARG001
    """Describe the crawls of up to 100 crawlers in one BatchGetCrawlers call.

    :param call: makes the API calls.
    :param job_ids: ``Since`` as text.
    :param scope: ignored; crawls have no scope.
    :return: snapshots by id, without crawls of unknown crawlers.
    """
    identified = {job_id: Since.read(job_id) for job_id in job_ids}
    names = list(dict.fromkeys(since.crawler for since in identified.values()))
    crawlers = {each["Name"]: each for each in call("batch_get_crawlers", CrawlerNames=names)["Crawlers"]}
    return {
        job_id: snapshot(job_id, since, crawlers[since.crawler], call)
        for job_id, since in identified.items()
        if since.crawler in crawlers
    }


def snapshot(job_id: str, since: Since, crawler: Mapping[str, Any], call: Call) -> Snapshot:
    """Return the snapshot of a crawl. A crawl with an unknown state or status counts as running.

    :param job_id: the id to use.
    :param since: identifies the crawl.
    :param crawler: the crawler as Glue describes it.
    :param call: for the region and partition, which are not in the response.
    """
    last = crawler.get("LastCrawl", {})
    unended = Snapshot(
        job_id=job_id,
        name=since.crawler,
        state=CRAWLER_STATES.get(crawler["State"], JobState.RUNNING),
        status=crawler["State"],
        region=call.region,
        partition=call.partition,
    )
    if not since.is_met_by(last):
        return unended
    last_status = last.get("Status", "")
    status = CRAWL_STATES.get(last_status, last_status)  # moto's GetCrawler uses the statuses of ListCrawls
    if status not in LAST_CRAWL_STATES:
        return dataclasses.replace(unended, state=JobState.RUNNING, status=last_status or crawler["State"])
    return _ended(unended, status, last)


def _ended(snapshot: Snapshot, status: str, crawl: Mapping[str, Any]) -> Snapshot:
    """Add the result of a crawl, for which GetCrawler and ListCrawls use the same names."""
    log = LogStream(crawl.get("LogGroup", LOG_GROUP), crawl["LogStream"]) if crawl.get("LogStream") else None
    return dataclasses.replace(
        snapshot,
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


def log_streams(snapshot: Snapshot) -> dict[str, LogStream]:  # noqa: ARG001
    """Return no stream: all crawls of a crawler write to the same one.

    :param snapshot: ignored.
    """
    return {}


def with_final_details(call: Call, snapshot: Snapshot) -> Snapshot:
    """Add what only ListCrawls returns of a crawl that has ended: its id, its end, its changes and cost.

    This also corrects the result if another crawl has followed before the crawler was described: its last crawl was
    then the wrong one. If the crawl is not listed yet, the snapshot stays as it is.

    :param call: makes the API calls.
    :param snapshot: the last one of a crawl that has ended.
    """
    since = Since.read(snapshot.job_id)
    crawl = first_since(call, since)
    status = CRAWL_STATES.get((crawl or {}).get("State", ""))
    if not crawl or not status:
        return snapshot
    ended = _ended(snapshot, status, crawl)
    used: dict[str, Any] = {}
    if (dpu_hours := crawl.get("DPUHour")) is not None:
        seconds = max(crawl.get("EndTime", 0.0) - crawl.get("StartTime", 0.0), 1.0)
        used = {"resources": {"dpu": dpu_hours * 3600.0 / seconds}, "run_seconds": seconds}
    return dataclasses.replace(ended, details=_details(crawl), **used)


def _details(crawl: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a crawl changed and cost, as far as Glue reports it. The summary is undocumented JSON."""
    details = {"crawl_id": crawl.get("CrawlId"), "dpu_hours": crawl.get("DPUHour")}
    try:
        tables = json.loads(crawl.get("Summary") or "{}").get("TABLE", {})
        details |= {name: tables.get(change, {}).get("Count", 0) for name, change in CHANGES.items()}
    except (ValueError, AttributeError):
        details["summary"] = crawl["Summary"]
    return {name: detail for name, detail in details.items() if detail is not None}


def first_since(call: Call, since: Since) -> Mapping[str, Any] | None:
    """Return the identified crawl as ListCrawls returns it, or None. One call for each 100 crawls since.

    :param call: makes the API calls.
    :param since: identifies the crawl.
    """
    first: Mapping[str, Any] | None = None
    listed = pages(call, "list_crawls", "NextToken", CrawlerName=since.crawler, MaxResults=CRAWLS_PER_PAGE)
    for crawl in (crawl for page in listed for crawl in page["Crawls"]):
        if not since.is_met_by(crawl):
            break
        first = crawl
    return first


def crawler_state(call: Call, crawler: str) -> tuple[str, Mapping[str, Any] | None]:
    """Return a crawler's state, as Glue calls it, and its last crawl. One GetCrawler call.

    :param call: makes the API calls.
    :param crawler: name of the crawler.
    :raises CallError: EntityNotFoundException if there is no such crawler.
    """
    described: Mapping[str, Any] = call("get_crawler", Name=crawler)["Crawler"]
    return described["State"], described.get("LastCrawl")


def next_crawl(call: Call, crawler: str, last: Mapping[str, Any] | None) -> tuple[Since, Since | None]:
    """Return what identifies a crawl that starts now: it is the first since the newest so far. One ListCrawls call.

    :param call: makes the API calls.
    :param crawler: name of the crawler.
    :param last: the crawler's last crawl.
    :return: that, and what identifies the newest crawl if it is listed as running. It may have ended: the list may lag.
    """
    begun = call("list_crawls", CrawlerName=crawler, MaxResults=2)["Crawls"]
    runs = _after(crawler, last, *begun[1:]) if begun and begun[0]["State"] == RUNNING else None
    return _after(crawler, last, *begun), runs


def running_crawl(call: Call, crawler: str, last: Mapping[str, Any] | None) -> Since | None:
    """Return what identifies the running crawl: it is the first since the previous one. One ListCrawls call.

    :param call: makes the API calls.
    :param crawler: name of the crawler.
    :param last: the crawler's last crawl.
    :return: that; None if no running crawl is listed, because it has just begun, or ended.
    """
    return next_crawl(call, crawler, last)[1]


def _after(crawler: str, *crawls: Mapping[str, Any] | None) -> Since:
    """Return what identifies the first crawl after these; the first of all crawls if there are none."""
    begun = [crawl for crawl in crawls if crawl and "StartTime" in crawl]
    newest = max(begun, key=lambda crawl: float(crawl["StartTime"]), default=None)
    if newest is None:
        return Since(crawler, datetime.fromtimestamp(0, tz=UTC))
    began, prefix = datetime.fromtimestamp(newest["StartTime"], tz=UTC), newest.get("MessagePrefix", "")
    return Since(crawler, began if prefix else began + timedelta(seconds=1), prefix)


def stop(call: Call, job_id: str, scope: str | None, reason: str) -> None:  # noqa: ARG001
    """Stop a crawl. Does nothing if it has ended.

    :param call: makes the API calls.
    :param job_id: the crawl's id.
    :param scope: ignored; crawls have no scope.
    :param reason: ignored; Glue takes none.
    :raises CallError: it was not stopped; ``TRANSIENT`` if its start has not taken effect yet.
    """
    current = describe(call, [job_id], None).get(job_id)
    if current is None or current.state.ended:
        return
    try:
        call("stop_crawler", Name=current.name)
    except CallError as error:
        if error.code == "CrawlerNotRunningException":  # or it has just ended, which the next attempt finds out
            message = f"the crawl cannot be stopped before it has begun: {error}"
            raise CallError(Fault.TRANSIENT, message, error.code, error.operation) from error
        if error.code != "CrawlerStoppingException":
            raise
