"""Glue's events for EventBridge: what they say (pure), and a thread that delivers them.

What always holds: events are delivered in the order in which they were told; a test may rely on all of them having
been delivered when `close` returns, unless thousands lie in queues by then: see `publisher`.
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
"""States of job runs that are told; the others are not."""
MESSAGES: Final = {
    "SUCCEEDED": "Job run succeeded",
    "STOPPED": "Job run stopped",
    "TIMEOUT": "Job run timed out",
}


def job_detail(job: str, run_id: str, state: str, error: str | None) -> Json | None:
    """What the event says of a job run's state; None if there is none."""
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
    """What the event says of a crawl that starts."""
    return {
        "accountId": account,
        "crawlerName": crawler,
        "startTime": instant(moment),
        "state": "Started",
        "message": "Crawler Started",
    }


def crawl_succeeded(account: str, region: str, crawler: str, between: tuple[float, float], changes: Changes) -> Json:
    """What the event says of a crawl that succeeded: counts are strings."""
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
    """What the event says of a crawl that failed."""
    return {
        "accountId": account,
        "crawlerName": crawler,
        "state": "Failed",
        "message": "Crawler Failed",
        "errorMessage": error,
        "cloudWatchLogLink": _log_link(region, crawler),
    }


def instant(moment: float) -> str:
    """Seconds since the epoch as events write them."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _log_link(region: str, crawler: str) -> str:
    console = f"https://console.aws.amazon.com/cloudwatch/home?region={region}"
    return f"{console}#logEventViewer:group={CRAWLER_LOGS};stream={crawler}"


class Events:
    """Delivers events to the rules of a region."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._events: Publisher[tuple[str, Json]] = Publisher("glue-events", self._publish)

    def tell(self, detail_type: str, detail: Json | None) -> None:
        """Deliver an event, soon; None is none."""
        if detail is not None:
            self._events.put((detail_type, detail))

    def close(self) -> None:
        """Deliver the last events."""
        self._events.close()

    def _publish(self, event: tuple[str, Json]) -> None:
        detail_type, detail = event
        self._resources.publish("aws.glue", detail_type, [], detail)
