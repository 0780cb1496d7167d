"""An Airflow that serves its UI and API, and runs no task: the results of tasks are written into its database."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow_jobflow.local.demo import home as private
from airflow_jobflow.local.demo.ui import _settings
from tests.ui.rights import USERS, VIEWER

HERE = Path(__file__).parent
TIMEOUT = 120.0
"""Seconds in which it must respond."""
CHECK_INTERVAL = 0.25
PASSWORD = "secret"
"""The password of all users."""


class Server:
    """Airflow's api-server at ``url``, which includes the path under which it is served."""

    def __init__(self, url: str) -> None:
        self.url = url

    def token(self, user: str = VIEWER) -> str:
        """Return a session token of a user."""
        body = json.dumps({"username": user, "password": PASSWORD}).encode()
        request = urllib.request.Request(
            f"{self.url}/auth/token", data=body, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(json.load(answer)["access_token"])

    def get(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """Make a request without a session."""
        try:
            with urllib.request.urlopen(f"{self.url}/{path}", timeout=30) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()


def prepared(home: Path, cases: Mapping[str, Any]) -> dict[str, str]:
    """Create an Airflow home whose database has the cases, and return the environment in which to serve it."""
    private.copy_database(private.empty_database(home.parent), home)
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({user.partition(":")[0]: PASSWORD for user in USERS.split(",")}))
    environment = {
        **private.clean_environment(home),
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(HERE.parents[1]),
        "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{private.database(home)}",
        "AIRFLOW__CORE__AUTH_MANAGER": "tests.ui.rights.Rights",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": USERS,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }
    written = home / "cases.json"
    written.write_text(json.dumps(cases))
    seeded = subprocess.run(
        [private.airflow()[0], str(HERE / "seed.py"), str(HERE / "dags"), str(written)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert seeded.returncode == 0, seeded.stdout[-3000:] + seeded.stderr[-3000:]
    return environment


@contextlib.contextmanager
def served(home: Path, environment: Mapping[str, str], path: str = "") -> Iterator[Server]:
    """Serve an Airflow home, optionally under a path."""
    port = private.free_port()
    settings = {
        **_settings(port),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}{path}",
    }
    with (home / f"api-server-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            private.airflow("api-server"),
            env={**environment, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}{path}")
    try:
        deadline = time.monotonic() + TIMEOUT
        while True:
            with contextlib.suppress(OSError):
                if server.get("api/v2/monitor/health")[0] == 200:
                    break
            assert process.poll() is None, "Airflow's api-server has ended"
            assert time.monotonic() < deadline, f"Airflow's api-server has not answered within {TIMEOUT:.0f} s"
            time.sleep(CHECK_INTERVAL)
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        private.stop(private.left_running("AIRFLOW_HOME", str(home)), grace=1)
