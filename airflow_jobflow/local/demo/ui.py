"""``python -m airflow_jobflow.local.demo.ui``: run Airflow's web UI with the sample DAGs and a local AWS until Ctrl-C.

Invariants: it listens on loopback only, because everybody is an administrator without a password; every process that it
starts ends with it. Each start begins with an empty database, because the jobs of the last one are gone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]  # it comes with Airflow, its stubs do not

from airflow_jobflow.local import compose_env
from airflow_jobflow.local.demo import home as private
from airflow_jobflow.local.demo.screen import Screen

PORT: Final = 8080
COMPONENTS: Final = {
    "api-server": (),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}
"""Airflow's processes, with their options. Logs are read from disk, so no process needs to serve them."""
HEALTHY: Final = ("metadatabase", "scheduler", "triggerer", "dag_processor")
TIMEOUT: Final = 180.0
"""Seconds until Airflow must be healthy."""
CHECK_INTERVAL: Final = 0.5
"""Seconds."""
LOG_LINES: Final = 20
"""The number of log lines to print for a component that has ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C.

    :param arguments: the command line. Default: this process's.
    :return: the exit code: 0 after Ctrl-C, 1 if a component ended, 2 if the port or the directory is in use.
    """
    given = _parser().parse_args(arguments)
    private.interrupt_on_signals()
    home: Path = given.home.resolve() / "ui"
    screen = Screen()
    try:
        port = private.free_port(given.port or PORT)
        if given.port and port != given.port:
            raise private.InUseError(f"Port {given.port} is in use. Choose another one: make ui PORT={port}")
        with private.exclusive(home):
            return _serve(home, port, screen)
    except private.InUseError as error:
        screen.print(str(error))
        return 2
    except KeyboardInterrupt:
        screen.print("\nStopped. No processes are left running.")
        return 0


def _serve(home: Path, port: int, screen: Screen) -> int:
    """Serve until a component ends, which none should, and return the exit code."""
    screen.print("Starting Airflow and the local AWS. This takes up to half a minute …")
    private.copy_database(private.empty_database(home.parent), home)
    from airflow_jobflow.local.samples import provision
    from airflow_jobflow.local.server import LocalAws

    with LocalAws() as aws:
        provision(aws.endpoint_url)
        environment = {**private.airflow_environment(home, aws.environment()), **_settings(port)}
        url = f"http://127.0.0.1:{port}"
        with _components(home, environment) as components:
            deadline = time.monotonic() + TIMEOUT
            is_ready = False
            while (ended := _ended(components)) is None:
                if not is_ready and (is_ready := _is_healthy(url)):
                    screen.print(f"\nAirflow: {url} (no login)", bold=True)
                    screen.print(f"AWS:     {aws.console_url}\nLogs:    {home}/*.log\n\nPress Ctrl-C to stop.")
                if not is_ready and time.monotonic() > deadline:
                    screen.print(f"Airflow was not healthy within {TIMEOUT:.0f} s. See its logs: {home}/*.log")
                    return 1
                time.sleep(CHECK_INTERVAL)
    log = home / f"{ended}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    screen.print("\n".join([f"Airflow's {ended} has ended unexpectedly. The last lines of its log, {log}:", *lines]))
    return 1


def _settings(port: int) -> dict[str, str]:
    """Return the settings that all components share."""
    settings = {
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__BASE_URL": f"http://127.0.0.1:{port}",
        "API__WORKERS": "1",
        "API__SECRET_KEY": secrets.token_hex(32),
        "API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "CORE__FERNET_KEY": compose_env.SECRETS["AIRFLOW_FERNET_KEY"](),
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__PARALLELISM": "4",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    }
    return {f"AIRFLOW__{name}": value for name, value in settings.items()}


@contextlib.contextmanager
def _components(home: Path, environment: Mapping[str, str]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run Airflow's components, and yield them by name. They and their children are stopped when the context ends."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, options in COMPONENTS.items():
            with (home / f"{name}.log").open("wb") as log:
                running[name] = subprocess.Popen(
                    private.airflow(name, *options),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        yield running
    finally:
        with private.signals_ignored():
            private.stop([psutil.Process(each.pid) for each in running.values() if each.poll() is None])
            private.stop(private.left_running("AIRFLOW_HOME", str(home)), grace=1)


def _ended(components: Mapping[str, subprocess.Popen[bytes]]) -> str | None:
    """Return the name of a component that has ended, or None."""
    return next((name for name, process in components.items() if process.poll() is not None), None)


def _is_healthy(url: str) -> bool:
    """Return whether all of Airflow's components are healthy."""
    try:
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=5) as response:  # noqa: S310 -- http only
            health = json.load(response)
    except (OSError, ValueError):
        return False
    return all((health.get(part) or {}).get("status") == "healthy" for part in HEALTHY)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m airflow_jobflow.local.demo.ui", description="Airflow's web UI with the sample DAGs and a local AWS."
    )
    parser.add_argument(
        "--port", type=int, help=f"port to listen on (default: {PORT}, or a free one if that is in use)"
    )
    parser.add_argument(
        "--home", type=Path, default=private.HOME, help="directory for all files (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
