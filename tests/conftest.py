"""Fixtures of all tests: the Airflow home of the test process, created before Airflow is imported."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from botocore import loaders
from hypothesis import settings

if TYPE_CHECKING:
    from airflow_jobflow.local import LocalAws

# The duration of an example depends on the machine, not on the code. CI runs the same examples each time, so that a
# failure there comes from the commit. Other runs generate new ones.
settings.register_profile("untimed", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("untimed")

_HOME = Path(tempfile.mkdtemp(prefix="jobflow-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

for name in [name for name in os.environ if name.startswith(("AIRFLOW", "AWS_"))]:
    del os.environ[name]
os.environ |= {
    "AIRFLOW_HOME": str(_HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent.parent / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}

# One loader for all sessions: otherwise each new one loads botocore's models again, which takes up to a second. It is
# replaced here, because botocore.session copies the name when it is imported.
loaders.create_loader = cache(loaders.create_loader)

SHORTER: Final[dict[str, Any]] = {
    "aws.clients.ACTIONS_PER_SECOND": dict.fromkeys(("batch", "ecs", "glue", "logs", "s3", "sqs"), 500.0),
    "aws.rate_limit.FIRST_DELAY": 0.1,
    "jobs.logs.ARRIVAL": 0.0,  # the local AWS has all log lines when a job has ended
    "maps.calls.LOOKUPS": (0.0, 0.1),
    "maps.recovery.RELIST_DELAY": 0.1,
    "maps.tracker.GROUP_DELAY": 0.05,
    "operators.capacity.LONGEST_CAPACITY_PAUSE": 0.3,
    "operators.capacity.SHORTEST_CAPACITY_PAUSE": 0.1,
    "operators.earlier_tries.LOOKUPS": (0.0,),
    "operators.submission.LOOKUPS": (0.0, 0.0, 0.05),
    "operators.submission.PATIENCE": 2.0,
    "polling.log_stream.ARRIVAL": 0.0,  # likewise
    "polling.log_stream.MAX_INTERVAL": 0.3,
    "polling.log_stream.MIN_INTERVAL": 0.1,
    "polling.log_stream.REFUSED_PAUSE": 0.05,
    "polling.schedule.NEW_JOB_DELAY": 0.02,
    "triggers.job_log_writer.DRAIN_MARGIN": 0.0,
    "waiting.remote.PATIENCE": 2.0,
    "waiting.remote.STOP_PATIENCE": 2.0,
}
"""Constants of the package with shorter durations for tests with a local AWS. Unit tests use the real ones, on scripted
clocks."""


def features() -> set[str]:
    """Return the features of the installed Airflow that 3.2 lacks, by their names in ``pytest.mark.needs``."""
    from airflow_jobflow.airflow_compat import kills, retry_policy, shared_streams, starts

    found = {
        "on_kill": kills.CALLED_BY_AIRFLOW,
        "retry_policy": retry_policy.APPLIED_BY_AIRFLOW,
        "shared_streams": shared_streams.AVAILABLE,
        "starts": starts.are_available(),
    }
    return {name for name, is_there in found.items() if is_there}


LONGEST: Final = "local/test_demo.py"
"""The slowest module. It runs first, so that no worker runs it alone at the end."""

NEED_SHARED_STREAMS = ("infra/test_policies.py", "local/test_state_change.py", "local/test_bad_event_input.py")
"""Modules that cannot even be imported if Airflow has no shared streams."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Ignore modules of features that the installed Airflow lacks."""
    if not collection_path.as_posix().endswith(NEED_SHARED_STREAMS):
        return None
    return None if "shared_streams" in features() else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of features that the installed Airflow lacks; ``docs/compatibility.md`` lists these."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))
    needs = {item: {name for mark in item.iter_markers("needs") for name in mark.args} for item in items}
    if not any(needs.values()):
        return
    there = features()
    if left_out := [item for item in items if not needs[item] <= there]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if needs[item] <= there]


@pytest.fixture(autouse=True)
def _clients_of_its_own() -> Iterator[None]:
    """Let each test build its own clients, which live as long as the process, because tests change their settings.

    So do the definitions that it has looked up.
    """
    yield
    if definitions := sys.modules.get("airflow_jobflow.operators.definitions"):
        definitions.forget_definitions()
    if clients := sys.modules.get("airflow_jobflow.aws.clients"):
        clients.forget_clients()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[[LocalAws], None]:
    """Return a function that makes this process use a local AWS, with short poll intervals."""

    def point(aws: LocalAws) -> None:
        from airflow_jobflow.aws import forget_clients

        forget_clients()  # those of another test call another AWS
        for name, value in aws.environment().items():
            monkeypatch.setenv(name, value)

    monkeypatch.setenv("AIRFLOW__JOBFLOW__POLL_INTERVAL", "0.2")
    monkeypatch.setenv("AIRFLOW__JOBFLOW__DESCRIBE_CALLS_PER_SECOND", "50")
    for constant, value in SHORTER.items():
        monkeypatch.setattr(f"airflow_jobflow.{constant}", value)
    return point
