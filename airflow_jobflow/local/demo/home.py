"""A private Airflow home, for the demo and the web UI.

Invariants:

- Processes started in it see none of the user's AWS, Airflow or proxy settings, so that they cannot reach a real AWS.
- All files they write, temporary ones included, are in the directory. It is their HOME, by which `left_running` finds
  them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]  # it comes with Airflow, its stubs do not

from airflow_jobflow.local.console.html import console_url

CHECKOUT: Final = Path(__file__).resolve().parents[3]
DAGS: Final = CHECKOUT / "dags"
HOME: Final = CHECKOUT / ".home"

INHERITED: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TERM",
    "NO_COLOR",
    "LD_LIBRARY_PATH",
)
"""The only variables that are inherited from the user's environment."""

STOP_GRACE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL."""


class InUseError(Exception):
    """A port or a directory is in use by another process."""


@contextlib.contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Lock and empty a home directory, and replace the environment of this process by a clean one that uses it.

    :param home: the directory.
    :raises InUseError: another process uses it.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InUseError(f"{home} is in use by another process. Stop that one first.") from None
        shutil.rmtree(home, ignore_errors=True)
        clean = clean_environment(home)
        os.environ.clear()
        os.environ.update(clean)
        tempfile.tempdir = None  # determined again, from TMPDIR
        yield


def interrupt_on_signals() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C: raise KeyboardInterrupt."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP, so that cleaning up is not interrupted. For the main thread."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def clean_environment(home: Path) -> dict[str, str]:
    """Return an environment without the user's settings.

    :param home: the home directory, which is created if it does not exist.
    """
    temporary = home / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {
        **inherited,
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "SPT_NOENV": "1",  # setproctitle then does not overwrite the environment, which `left_running` reads
    }


def airflow_environment(home: Path, aws: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an Airflow that uses the local AWS.

    :param home: the home directory.
    :param aws: the variables of the local AWS, see `LocalAws.environment`.
    """
    connection = {
        "conn_type": "aws",
        "login": aws["AWS_ACCESS_KEY_ID"],
        "password": aws["AWS_SECRET_ACCESS_KEY"],
        "extra": {"endpoint_url": aws["AWS_ENDPOINT_URL"], "region_name": aws["AWS_REGION"]},
    }
    return {
        **clean_environment(home),
        **aws,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database(home)}",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        "AIRFLOW__JOBFLOW__CONSOLE_URL": console_url(aws["AWS_ENDPOINT_URL"]),
    }


def airflow(*arguments: str) -> list[str]:
    """Return the command line of an Airflow command, run by this interpreter.

    :param arguments: the command's arguments.
    """
    return [sys.executable, "-m", "airflow", *arguments]


def database(home: Path) -> Path:
    """Return the path of the database of a home.

    :param home: the home directory.
    """
    return home / "airflow.db"


def empty_database(directory: Path) -> Path:
    """Return the path of an empty Airflow database to copy. It takes seconds to create, once per version of Airflow.

    :param directory: where it is inherited.
    :raises RuntimeError: Airflow could not create it.
    """
    template = directory / f"airflow-{version('apache-airflow')}.db"
    if template.exists():
        return template
    with tempfile.TemporaryDirectory(dir=directory, prefix="new-") as name:
        new = Path(name)
        settings = {
            **clean_environment(new),
            "AIRFLOW_HOME": name,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database(new)}",
        }
        migration = subprocess.run(airflow("db", "migrate"), env=settings, capture_output=True, text=True, check=False)
        if migration.returncode:
            raise RuntimeError(
                f"Could not create Airflow's database:\n{migration.stdout[-2000:]}{migration.stderr[-2000:]}"
            )
        database(new).replace(template)
    return template


def copy_database(template: Path, home: Path) -> None:
    """Copy a database into a home.

    :param template: the database to copy.
    :param home: the home directory, which is created if it does not exist.
    """
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(template, database(home))


def free_port(preferred: int = 0) -> int:
    """Return a free loopback port.

    :param preferred: the port to return if it is free. Default: any.
    :raises OSError: no port is free.
    """
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("No loopback port is free")


def left_running(variable: str, value: str) -> list[psutil.Process]:
    """Return the processes, except this one, that have a value in their environment.

    :param variable: name of the variable.
    :param value: its value; a path matches paths below it, too.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            has = process.environ().get(variable, "")
            if has == value or has.startswith(f"{value}/"):
                found.append(process)
    return found


def stop(processes: list[psutil.Process], grace: float = STOP_GRACE) -> None:
    """Send SIGTERM to processes, and SIGKILL to those that have not ended after `grace` seconds.

    :param processes: the processes.
    :param grace: seconds. Default 5.
    """
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=grace)
