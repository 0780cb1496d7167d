"""A plugin for the pytest that runs moto's tests: a new local AWS for each test, and a file with the results.

moto resets its server before each test. A new local AWS is as empty, and starts in milliseconds.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

SERVER = [os.environ["FRESH_AWS_PYTHON"], str(Path(__file__).with_name("fresh_aws.py"))]


class FreshAws:
    """The process with the local AWS."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self) -> str:
        """Start an empty local AWS; return the endpoint, which never changes."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


outcomes: dict[str, str] = {}
fresh_aws = FreshAws()
os.environ |= {
    "TEST_SERVER_MODE": "true",
    "TEST_SERVER_MODE_ENDPOINT": fresh_aws.start(),  # moto reads it when its tests are imported
    "MOTO_CALL_RESET_API": "false",
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Start each test with an empty AWS."""
    fresh_aws.start()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record the result of a test: passed, skipped, or its error."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        outcomes[report.nodeid] = "failed: " + (crash.message if crash else str(report.longrepr))
    elif report.when == "call" or report.skipped:
        outcomes.setdefault(report.nodeid, report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the results for the test that started this session, which decides about failures."""
    fresh_aws.close()
    Path(os.environ["OUTCOMES"]).write_text(json.dumps(outcomes))
    if session.exitstatus == pytest.ExitCode.TESTS_FAILED:
        session.exitstatus = pytest.ExitCode.OK
