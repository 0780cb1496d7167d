"""The last lines a job wrote to CloudWatch Logs."""

from __future__ import annotations

from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.model import LogStream

CLIENT = "logs"


def last_lines(call: Call, log: LogStream, count: int) -> list[str]:
    """Return the last ``count`` lines of a log stream, oldest first. One GetLogEvents call."""
    answer = call("get_log_events", logGroupName=log.group, logStreamName=log.stream, limit=count, startFromHead=False)
    return [event["message"].rstrip("\n") for event in answer["events"]][-count:]
