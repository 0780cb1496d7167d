"""GetLogEvents while a fault of CloudWatch Logs is active. Otherwise moto responds, as to all other calls.

Invariants: following the tokens in one direction returns every event once and in order, and ends at a repeated token.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.errors import AwsError

if TYPE_CHECKING:
    from airflow_jobflow.local.service import Shared

Json = dict[str, Any]

MAX_PAGE: Final = 10_000
"""Maximum number of events per call."""

TOKEN: Final = re.compile(r"(?P<direction>[bf])/(?P<place>\d+)(/(?P<empty>\d+))?")


class Logs:
    """The logs of one account and region.

    :param shared: what the services share.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    @property
    def actions(self) -> Mapping[str, Callable[[Json, int], Json]]:
        """Handlers by action; none while no fault of logs is active."""
        return {"GetLogEvents": self._get_log_events} if self._shared.faults.faults.concern_logs else {}

    @property
    def checks(self) -> Mapping[str, Callable[[Json], None]]:
        """None: moto's checks are sufficient."""
        return {}

    def reconsider(self) -> None:
        """Do nothing: no job waits for a resource of moto."""

    def interrupt(self, name: str, **how: Any) -> bool:  # noqa: ARG002 -- the interface of services
        """Return False: no job runs here.

        :param name: not used.
        :param how: not used.
        """
        return False

    def close(self) -> None:
        """Do nothing: there are no events to deliver."""

    def _get_log_events(self, request: Json, _length: int) -> Json:
        """GetLogEvents."""
        group = request.get("logGroupName") or str(request.get("logGroupIdentifier", "")).rsplit(":", 1)[-1]
        found = self._shared.resources.read_log(group, request["logStreamName"])
        if found is None:
            raise AwsError("ResourceNotFoundException", "The specified log stream does not exist.")
        faults, now = self._shared.faults.faults, time.time()
        start, end = request.get("startTime", 0), request.get("endTime", float("inf"))
        events = [
            {"timestamp": round(seconds * 1000), "message": message, "ingestionTime": round(seconds * 1000)}
            for seconds, message in sorted(found, key=lambda each: each[0])
            if now - seconds >= faults.log_delay and start <= seconds * 1000 <= end
        ]
        size = min(request.get("limit", MAX_PAGE), faults.log_page or MAX_PAGE)
        token = request.get("nextToken")
        if token is None:
            token = "f/0" if request.get("startFromHead") else f"b/{len(events)}"
        return page(events, token, size, faults.log_empty_pages)


def page(events: Sequence[Json], token: str, size: int, empty: int) -> Json:
    """Return a page of a stream.

    :param events: all events of the stream, oldest first.
    :param token: the page; ``b/<n>`` is the one before the n-th event, ``f/<n>`` the one that starts with it.
    :param size: maximum number of events on a page, at least 1.
    :param empty: number of pages without events before each page with events.
    :raises AwsError: the token is invalid.
    """
    found = TOKEN.fullmatch(token)
    if found is None:
        raise AwsError("InvalidParameterException", "The specified nextToken is invalid.")
    place, seen = min(int(found["place"]), len(events)), int(found["empty"] or 0)
    backward = found["direction"] == "b"
    first, last = (max(0, place - size), place) if backward else (place, min(len(events), place + size))
    following = token
    if first == last:
        pass  # the end: the token repeats
    elif seen < empty:
        following, first, last = f"{found['direction']}/{place}/{seen + 1}", place, place
    else:
        following = f"b/{first}" if backward else f"f/{last}"
    return {
        "events": list(events[first:last]),
        "nextBackwardToken": following if backward else f"b/{first}",
        "nextForwardToken": f"f/{last}" if backward else following,
    }
