"""luigi: its tasks for Batch and for ECS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_jobflow.local.samples import register_definition
from tests.clients.environments import python_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_jobflow.local import LocalAws

PACKAGES: Final = ("luigi==3.8.1", "boto3==1.44.8")
PROGRAM: Final = Path(__file__).parent / "programs" / "luigi_tasks.py"


def test_tasks_succeed_and_fail_with_their_jobs(aws: LocalAws, run: Callable[..., str]) -> None:
    """Luigi finds a queue by itself, polls each job, and reads the log of the failed one."""
    python = python_environment("luigi", *PACKAGES) / "python"
    register_definition(aws.client("batch"), "no-ink", ["sh", "-c", "echo No ink left; exit 1"])
    assert run([python, PROGRAM]).splitlines() == ["HelloWorld done", "ProcessItem done", "NoInk: No ink left"]
