"""One stack for all tests of a process; its logs are shown if a test fails, and deleted if all have passed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from airflow_jobflow.local.demo.home import interrupt_on_signals
from tests.stack.kit import Kit
from tests.stack.stack import Stack
from tests.stack.verdicts import duplicates

DAGS = Path(__file__).with_name("dags")
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of the services' logs to a failure."""
    report = yield
    if report.failed:
        item.session.stash[FAILED] = True
        kit = item.funcargs.get("running") if isinstance(item, pytest.Function) else None
        if isinstance(kit, Kit):
            report.sections.append(("the stack's logs", f"in {kit.stack.directory}\n{kit.stack.tails()}"))
    return report


@pytest.fixture(scope="session")
def running(request: pytest.FixtureRequest) -> Iterator[Kit]:
    """The stack, started once."""
    interrupt_on_signals()
    directory = Path(tempfile.mkdtemp(prefix="jobflow-stack-"))
    with Stack(directory, dags=[DAGS]) as stack:
        kit = Kit(stack)
        kit.prepare([path.stem for path in DAGS.glob("stack_*.py")])
        yield kit
        kit.airflow.close()
    if not request.session.stash.get(FAILED, False):
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def kit(running: Kit) -> Iterator[Kit]:
    """The stack, repaired before and after the test; no job may be started twice with the same token."""
    yield running
    running.restore()
    assert duplicates(running) == []
