"""Fargate tasks that write to CloudWatch Logs, each so many lines a second while its container runs."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.figures import Scenario
from benchmarks.standin.ecs import Ecs
from benchmarks.standin.script import Answer

LINE = "part {number:>6} of {task} at {at:.3f}: rows read and written, all of them checked"
"""A line of a task: its number, the task, and its time."""

RUNS = (0.1, 0.95)
"""The part of its duration in which a task writes."""

MOST = 10_000
"""Maximum number of events in a GetLogEvents response."""


class EcsLogs(Ecs):
    """The tasks and their logs. A line can be read as soon as it is written.

    ``throttle`` of the scenario is for GetLogEvents only, as a token bucket: AWS allows 25 calls a second.
    """

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.calls = {**self.calls, "GetLogEvents": self._events}
        self._tasks = {name.rpartition("/")[2]: job for name, job in self.jobs.items()}
        self._tokens, self._filled_at = float(scenario.throttle or 0), 0.0

    def _events(self, request: dict[str, Any], now: float) -> Answer:
        if (most := self.scenario.throttle) is not None:
            self._tokens = min(most, self._tokens + (now - self._filled_at) * most)
            self._filled_at = now
            if self._tokens < 1:
                return Answer.refusal("ThrottlingException", "Rate exceeded")
            self._tokens -= 1
        task = request["logStreamName"].rpartition("/")[2]
        job = self._tasks.get(task)
        if job is None:
            return Answer.refusal("ResourceNotFoundException", "The specified log stream does not exist.")
        rate = self.scenario.lines_per_second
        # It writes while its containers run, see the phases of ``Ecs``.
        began, ended = job.began + RUNS[0] * job.seconds, job.began + RUNS[1] * job.seconds
        written = max(0, int((min(now, ended) - began) * rate))
        first = int(request.get("nextToken", "f/0").partition("/")[2])
        last = min(written, first + request.get("limit", MOST))
        times = [(number, began + number / rate) for number in range(first, last)]
        events = [
            {
                "timestamp": round(at * 1000),
                "message": LINE.format(number=number, task=task, at=at),
                "ingestionTime": round(at * 1000),
            }
            for number, at in times
        ]
        tokens = {"nextForwardToken": f"f/{last}", "nextBackwardToken": f"b/{first}"}
        return Answer(json.dumps({"events": events, **tokens}).encode())
