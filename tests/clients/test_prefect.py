"""Prefect: an ECS worker runs a flow in a Fargate task, and the flow starts a Batch job."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.clients.environments import python_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_jobflow.local import LocalAws

PACKAGES: Final = ("prefect-aws==0.7.12",)
PROGRAM: Final = Path(__file__).parent / "programs" / "prefect_flows.py"


def test_a_flow_runs_in_a_task_and_starts_a_job(aws: LocalAws, run: Callable[..., str], tmp_path: Path) -> None:
    """The worker registers its own task definition and runs it in the subnets of the default VPC."""
    python = python_environment("prefect", *PACKAGES) / "python"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    assert run([python, PROGRAM], environment).splitlines()[-1].strip() == "flow run: Completed"
    assert [job["jobName"] for job in aws.started("batch")] == ["prefect"]
    (task,) = aws.started("ecs")
    assert task["family"].startswith("prefect")
