"""The corpus of AWS's reasons for failed jobs, ``aws_reasons.yaml``, as snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from airflow_jobflow.jobs import batch, ecs_snapshot
from airflow_jobflow.jobs.model import JobState, Snapshot

PATH = Path(__file__).with_suffix(".yaml")
"""The corpus; the documentation is generated from it too."""

SOURCES: dict[str, str]
CAUSES: dict[str, dict[str, Any]]
SOURCES, CAUSES = yaml.safe_load(PATH.read_text()).values()


def lines() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return all lines with their causes."""
    for cause, entry in CAUSES.items():
        for line in entry["lines"]:
            yield cause, line


def snapshot(line: Mapping[str, Any]) -> Snapshot:
    """Return a failed job with the reasons of a line; those of Batch and ECS are parsed from responses."""
    return {"batch": _batch, "ecs": _ecs}.get(line["service"], _glue)(line)


def _batch(line: Mapping[str, Any]) -> Snapshot:
    container = {"reason": line.get("container"), "exitCode": line.get("exit_code")}
    return batch.snapshot(
        {
            "jobId": "abc",
            "jobName": "etl",
            "status": "FAILED",
            "container": {name: value for name, value in container.items() if value is not None} or None,
            "statusReason": line.get("reason"),
            # As Batch marks jobs that jobStateTimeLimitActions ended.
            "isCancelled": str(line.get("reason")).startswith("Canceled by"),
            "isTerminated": str(line.get("reason")).startswith("Terminated by"),
        }
    )


def _ecs(line: Mapping[str, Any]) -> Snapshot:
    container = {"name": "main", "reason": line.get("container"), "exitCode": line.get("exit_code")}
    return ecs_snapshot.snapshot(
        {
            "taskArn": "arn:aws:ecs:eu-west-1:123456789012:task/main/abc",
            "taskDefinitionArn": "arn:aws:ecs:eu-west-1:123456789012:task-definition/etl:1",
            "lastStatus": "STOPPED",
            "containers": [{name: value for name, value in container.items() if value is not None}],
            "stopCode": line.get("code"),
            "stoppedReason": line.get("reason"),
        },
        ecs_snapshot.Definition(),
    )


def _glue(line: Mapping[str, Any]) -> Snapshot:
    return Snapshot("abc", JobState.FAILED, "FAILED", name="etl", code=line.get("code"), reason=line.get("reason"))
