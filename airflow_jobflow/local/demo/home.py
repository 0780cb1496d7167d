"""A private Airflow home, for the demo and the web UI.

What always holds:

- What is started in it sees none of the user's AWS, Airflow or proxy settings, so that it cannot reach a real AWS.
- Whatever it writes is in the directory, temporary files included, which is its HOME; `left_running` finds it by that.
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

KEPT: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TERM",
    "NO_COLOR",
    "LD_LIBRARY_PATH",
)
"""What is taken over from the user's environment; nothing else is."""

STOP_GRACE: Final = 5.0
"""Seconds between asking what is left to end and killing it."""


class InUseError(Exception):
    """What is asked for is taken; the message says so."""


@contextlib.contextmanager
def entered(home: Path) -> Iterator[None]:
    """Empty a home, and make it the only one this process, and all it starts, knows of.

    :raises InUseError: another process is in it.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InUseError(f"{home} is in use: is another one running?") from None
        shutil.rmtree(home, ignore_errors=True)
        clean = clean_environment(home)
        os.environ.clear()
        os.environ.update(clean)
        tempfile.tempdir = None  # found anew, from TMPDIR
        yield


def interrupt_on_signals() -> None:
    """Have SIGTERM and SIGHUP do what Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Finish stopping, also if told again to stop. For the main thread."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def clean_environment(home: Path) -> dict[str, str]:
    """An environment that knows of nothing but `home`, which is made if need be."""
    temporary = home / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "SPT_NOENV": "1",  # a process that sets its title leaves its environment readable, for `left_running`
    }


def airflow_environment(home: Path, aws: Mapping[str, str]) -> dict[str, str]:
    """The private environment of an Airflow whose AWS is the local one.

    :param aws: the local AWS's own `environment()`: for what takes no connection.
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
    """The command line of an Airflow command, run by this interpreter."""
    return [sys.executable, "-m", "airflow", *arguments]


def database(home: Path) -> Path:
    """Where the database of a home is."""
    return home / "airflow.db"


def empty_database(directory: Path) -> Path:
    """An empty Airflow database to copy from; made once for each version of Airflow, for that takes seconds.

    :raises RuntimeError: Airflow could not make it.
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
        made = subprocess.run(airflow("db", "migrate"), env=settings, capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"Airflow's database could not be made:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
        database(new).replace(template)
    return template


def copy_database(template: Path, home: Path) -> None:
    """Give a home a database of its own."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(template, database(home))


def free_port(preferred: int = 0) -> int:
    """A loopback port nobody listens on: `preferred` if it is free."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("No loopback port is free")


def left_running(variable: str, value: str) -> list[psutil.Process]:
    """Processes, this one excepted, in whose environment a variable is `value`, or a path below it."""
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
    """End processes: ask, and kill what has not ended after `grace` seconds."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=grace)
