"""Glue's events for EventBridge: their content (pure functions), and their delivery.

Invariants: events are delivered in the order of publication. All of them have been delivered when `close` returns,
unless there are thousands of messages in queues: see `publisher`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.publisher import Publisher

if TYPE_CHECKING:
    from airflow_jobflow.local.glue.crawl import Changes
    from airflow_jobflow.local.moto_backends import Resources

Json = dict[str, Any]

JOB: Final = "Glue Job State Change"
CRAWLER: Final = "Glue Crawler State Change"
CRAWLER_LOGS: Final = "/aws-glue/crawlers"

SEVERITIES: Final = {"SUCCEEDED": "INFO", "STOPPED": "INFO", "TIMEOUT": "WARN", "FAILED": "ERROR"}
"""The states of job runs with an event, and its severity."""
MESSAGES: Final = {
    "SUCCEEDED": "Job run succeeded",
    "STOPPED": "Job run stopped",
    "TIMEOUT": "Job run timed out",
}


def job_detail(job: str, run_id: str, state: str, error: str | None) -> Json | None:
    """Return the ``detail`` of the event for a job run's state, or None.

    :param job: the name of the job.
    :param run_id: the id of the job run.
    :param state: its state.
    :param error: its error message, if any.
    """
    if state not in SEVERITIES:
        return None
    return {
        "jobName": job,
        "severity": SEVERITIES[state],
        "state": state,
        "jobRunId": run_id,
        "message": MESSAGES.get(state, error or "Job run failed"),
    }


def crawl_started(account: str, crawler: str, moment: float) -> Json:
    """Return the ``detail`` of the event for the start of a crawl.

    :param account: the account.
    :param crawler: the name of the crawler.
    :param moment: when it started, in seconds since the epoch.
    """
    return {
        "accountId": account,
        "crawlerName": crawler,
        "startTime": instant(moment),
        "state": "Started",
        "message": "Crawler Started",
    }


def crawl_succeeded(account: str, region: str, crawler: str, between: tuple[float, float], changes: Changes) -> Json:
    """Return the ``detail`` of the event for a successful crawl. Counts are strings.

    :param account: the account.
    :param region: the region.
    :param crawler: the name of the crawler.
    :param between: when the crawl started and ended, in seconds since the epoch.
    :param changes: what it changed.
    """
    started, ended = between
    counts = {
        f"{kind.lower()}s{verb}": str(changes.count(kind, change))
        for kind in ("TABLE", "PARTITION")
        for verb, change in (("Created", "ADD"), ("Updated", "UPDATE"), ("Deleted", "DELETE"))
    }
    return {
        **counts,
        "accountId": account,
        "crawlerName": crawler,
        "state": "Succeeded",
        "message": "Crawler Succeeded",
        "warningMessage": "N/A",
        "runningTime (sec)": str(round(ended - started)),
        "completionDate": instant(ended),
        "cloudWatchLogLink": _log_link(region, crawler),
    }


def crawl_failed(account: str, region: str, crawler: str, error: str) -> Json:
    """Return the ``detail`` of the event for a failed crawl.

    :param account: the account.
    :param region: the region.
    :param crawler: the name of the crawler.
    :param error: the error message.
    """
    return {
        "accountId": account,
        "crawlerName": crawler,
        "state": "Failed",
        "message": "Crawler Failed",
        "errorMessage": error,
        "cloudWatchLogLink": _log_link(region, crawler),
    }


def instant(moment: float) -> str:
    """Return a time in the format of events.

    :param moment: seconds since the epoch.
    """
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _log_link(region: str, crawler: str) -> str:
    console = f"https://console.aws.amazon.com/cloudwatch/home?region={region}"
    return f"{console}#logEventViewer:group={CRAWLER_LOGS};stream={crawler}"


class Events:
    """Delivers events to the rules of a region.

    :param resources: the resources of the region in moto.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._events: Publisher[tuple[str, Json]] = Publisher("glue-events", self._publish)

    def publish(self, detail_type: str, detail: Json | None) -> None:
        """Queue an event.

        :param detail_type: its ``detail-type``.
        :param detail: its ``detail``; None if there is no event.
        """
        if detail is not None:
            self._events.put((detail_type, detail))

    def close(self) -> None:
        """Deliver the last events."""
        self._events.close()

    def _publish(self, event: tuple[str, Json]) -> None:
        detail_type, detail = event
        self._resources.publish("aws.glue", detail_type, [], detail)
