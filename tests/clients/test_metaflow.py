"""Metaflow: a foreach of Batch jobs with a retry, whose code and data go through S3."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.clients.environments import python_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_jobflow.local import LocalAws

PACKAGES: Final = ("metaflow==2.19.39", "boto3==1.44.8")
PROGRAM: Final = Path(__file__).parent / "programs" / "metaflow_map.py"


def test_a_foreach_runs_as_jobs_and_a_failed_one_is_retried(aws: LocalAws, run: Callable[..., str]) -> None:
    """Metaflow registers job definitions, stores its code in S3, and follows each job and its log."""
    aws.client("s3").create_bucket(Bucket="metaflow")
    environment = {
        "USERNAME": "jobflow",
        "METAFLOW_DEFAULT_DATASTORE": "s3",
        "METAFLOW_DATASTORE_SYSROOT_S3": "s3://metaflow/store",
        "METAFLOW_BATCH_JOB_QUEUE": "hello-world-queue",
        "METAFLOW_ECS_S3_ACCESS_IAM_ROLE": "arn:aws:iam::123456789012:role/local-ecs-task",
        "METAFLOW_ECS_FARGATE_EXECUTION_ROLE": "arn:aws:iam::123456789012:role/local-ecs-task",
    }
    python = python_environment("metaflow", *PACKAGES) / "python"
    assert "results: 1 4 9" in run([python, PROGRAM, "run"], environment)
    assert len(aws.started("batch")) == 4  # three items, one of them twice
