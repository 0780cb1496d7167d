"""A local AWS with the resources of the sample DAGs, and a function that runs a client with it."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.samples import provision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

TIMEOUT = 900.0
"""Seconds after which a client counts as hanging."""


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    """A local AWS for one client."""
    with LocalAws() as server:
        provision(server.endpoint_url)
        yield server


@pytest.fixture
def run(aws: LocalAws, tmp_path: Path) -> Callable[..., str]:
    """Run a client, unmodified: it finds the local AWS by its environment variables. Returns its standard output.

    The client sees nothing else of this process's environment but `PATH`, and has a home directory of its own.
    """

    def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None, *, exit_code: int = 0) -> str:
        seen = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), **aws.environment()}
        done = subprocess.run(
            [str(each) for each in command],
            cwd=tmp_path,
            env=seen | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == exit_code, f"{done.stdout[-20_000:]}\n{done.stderr[-20_000:]}"
        return done.stdout

    return run


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Return a function that calls another one until its result is true, and fails after a minute."""

    def eventually(ask: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 60
        while not (answer := ask()):
            assert time.monotonic() < deadline, "it did not happen within a minute"
            time.sleep(0.1)
        return answer

    return eventually
