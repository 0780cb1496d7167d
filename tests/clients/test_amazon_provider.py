"""The Amazon provider: its own system tests of Batch, Fargate and Glue, from its source distribution."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.clients.environments import source

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_jobflow.local import LocalAws

PROVIDER: Final = "apache-airflow-providers-amazon"
PROGRAM: Final = Path(__file__).parent / "programs" / "provider_dag.py"


@pytest.mark.parametrize("name", ["example_batch", "example_ecs_fargate", "example_glue"])
def test_a_system_test_succeeds(name: str, aws: LocalAws, run: Callable[..., str], tmp_path: Path) -> None:
    """The released DAG runs on the Airflow and the provider with which this package is tested."""
    tests = source("amazon-provider", f"{PROVIDER}=={version(PROVIDER)}") / "tests"
    if (
        name == "example_glue"
    ):  # it deletes its streams from the log group, which exists once a job has logged continuously
        aws.client("logs").create_log_group(logGroupName="/aws-glue/jobs/logs-v2")
    ec2 = aws.client("ec2")
    environment = {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "ROLE_ARN": "arn:aws:iam::123456789012:role/local-glue",
        "SUBNETS": ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        "SECURITY_GROUPS": ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"],
    }
    printed = run([sys.executable, PROGRAM, tests, name], environment)
    assert printed.endswith("run: success\n"), printed
