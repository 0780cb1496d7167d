"""``python -m airflow_jobflow.local.demo.ui``: Airflow's web UI with the sample DAGs and a local AWS, until Ctrl-C.

What always holds: it listens on loopback only, for whoever opens it is an administrator without a password; what it
started ends with it. It begins afresh every time, for the jobs of the last time are gone.
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
"""Airflow's processes. Logs are read from the disk, so nothing needs to serve them."""
HEALTHY: Final = ("metadatabase", "scheduler", "triggerer", "dag_processor")
PATIENCE: Final = 180.0
"""Seconds in which Airflow must be healthy."""
LOOK_EVERY: Final = 0.5
LOG_LINES: Final = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; returns the exit code."""
    given = _parser().parse_args(arguments)
    private.interrupt_on_signals()
    home: Path = given.home.resolve() / "ui"
    screen = Screen()
    try:
        port = private.free_port(given.port or PORT)
        if given.port and port != given.port:
            raise private.InUseError(f"Port {given.port} is in use. Choose another: make ui PORT={port}")
        with private.entered(home):
            return _serve(home, port, screen)
    except private.InUseError as error:
        screen.say(str(error))
        return 2
    except KeyboardInterrupt:
        screen.say("\nStopped; nothing is left running.")
        return 0


def _serve(home: Path, port: int, screen: Screen) -> int:
    """Serve until a component ends, which none should; returns the exit code."""
    screen.say("Starting Airflow and an AWS on this machine; this takes up to half a minute …")
    private.copy_database(private.empty_database(home.parent), home)
    from airflow_jobflow.local.samples import provision
    from airflow_jobflow.local.server import LocalAws

    with LocalAws() as aws:
        provision(aws.endpoint_url)
        environment = {**private.airflow_environment(home, aws.environment()), **_settings(port)}
        url = f"http://127.0.0.1:{port}"
        with _components(home, environment) as components:
            deadline = time.monotonic() + PATIENCE
            said = False
            while (ended := _ended(components)) is None:
                if not said and (said := _is_healthy(url)):
                    screen.say(f"\nAirflow: {url} (no login)", bold=True)
                    screen.say(f"AWS:     {aws.console_url}\nLogs:    {home}/*.log\n\nCtrl-C stops all of it.")
                if not said and time.monotonic() > deadline:
                    screen.say(f"Airflow has not come up within {PATIENCE:.0f} s; its logs are {home}/*.log")
                    return 1
                time.sleep(LOOK_EVERY)
    log = home / f"{ended}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    screen.say("\n".join([f"Airflow's {ended} has ended. Its log is {log}, its last lines:", *lines]))
    return 1


def _settings(port: int) -> dict[str, str]:
    """What the four processes must agree on."""
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
    """Airflow's processes, by name; neither they nor what they start outlives the context."""
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
        with private.uninterrupted():
            private.stop([psutil.Process(each.pid) for each in running.values() if each.poll() is None])
            private.stop(private.left_running("AIRFLOW_HOME", str(home)), grace=1)


def _ended(components: Mapping[str, subprocess.Popen[bytes]]) -> str | None:
    """The name of a component that has ended, if one has."""
    return next((name for name, process in components.items() if process.poll() is not None), None)


def _is_healthy(url: str) -> bool:
    """Whether all of Airflow is up."""
    try:
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=5) as answer:  # noqa: S310 -- http only
            health = json.load(answer)
    except (OSError, ValueError):
        return False
    return all((health.get(part) or {}).get("status") == "healthy" for part in HEALTHY)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m airflow_jobflow.local.demo.ui", description="Airflow's web UI, locally."
    )
    parser.add_argument("--port", type=int, help=f"port to listen on (default: {PORT}, or any if that is in use)")
    parser.add_argument(
        "--home", type=Path, default=private.HOME, help="where everything is written (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
