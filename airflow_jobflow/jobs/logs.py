"""The last lines a job wrote to CloudWatch Logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_jobflow.jobs.model import LogStream

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

CLIENT = "logs"


def last_lines(client: CloudWatchLogsClient, log: LogStream, count: int) -> list[str]:
    """Return the last ``count`` lines of a log stream, oldest first. One GetLogEvents call."""
    answer = client.get_log_events(logGroupName=log.group, logStreamName=log.stream, limit=count, startFromHead=False)
    return [event["message"].rstrip("\n") for event in answer["events"]][-count:]
