"""A plugin for the pytest that runs moto's tests: a new local AWS for each test, and a file that says how each ended.

moto resets its server before each test; a new AWS is as good as that, and starts in milliseconds.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

SERVER = [os.environ["FRESH_AWS_PYTHON"], str(Path(__file__).with_name("fresh_aws.py"))]
outcomes: dict[str, str] = {}


class FreshAws:
    """The process that serves the local AWS."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self) -> str:
        """Forget all that there was; returns the endpoint, which stays the same."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End it."""
        self._process.communicate()


fresh_aws = FreshAws()
os.environ |= {
    "TEST_SERVER_MODE": "true",
    "TEST_SERVER_MODE_ENDPOINT": fresh_aws.start(),
    "MOTO_CALL_RESET_API": "false",
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin each test with an empty AWS."""
    fresh_aws.start()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a test ended: ``passed``, or the last line of its error."""
    if report.failed:
        outcomes[report.nodeid] = str(report.longrepr).strip().splitlines()[-1] + report.longrepr.reprcrash.message
    else:
        outcomes.setdefault(report.nodeid, report.outcome)


def pytest_sessionfinish() -> None:
    """Write the outcomes where the test of this package reads them."""
    fresh_aws.close()
    Path(os.environ["OUTCOMES"]).write_text(json.dumps(outcomes))
