"""The programs of other packages that the stack runs: where Debian installs them, and which user runs them.

It also does what the entry point of Postgres' image does before its command.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.stack.errors import StackError

POSTGRES: Final = "postgres"


def run_as(service: str) -> dict[str, Any]:
    """Return the user that runs a service, for Popen: Postgres refuses to be root."""
    if service != POSTGRES or os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
    raise StackError("Postgres refuses to run as root, and there is neither a user postgres nor nobody")


def _binaries() -> Iterator[str]:
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    yield from (str(each) for each in sorted(folders, key=lambda each: float(each.parent.name), reverse=True))
    yield from os.environ.get("PATH", "").split(os.pathsep)


BINARIES: Final = [str(Path(sys.executable).parent), *_binaries(), "/usr/bin", "/bin"]
"""Directories of programs: this interpreter's first, then the newest Postgres, which is not in Debian's PATH."""


def program(name: str) -> str:
    """Return the path of a program.

    :raises StackError: it is not installed.
    """
    found = shutil.which(name, path=os.pathsep.join(BINARIES))
    if found is None:
        raise StackError(f"{name} is not installed. Debian, Ubuntu: apt install postgresql redis-server")
    return found


def create_cluster(environment: Mapping[str, str], directory: Path) -> None:
    """Create a database with this user and password, like the entry point of Postgres' image."""
    data, owner = Path(environment["PGDATA"]), run_as(POSTGRES)
    secret = directory / "password"
    secret.write_text(environment["POSTGRES_PASSWORD"], encoding="ascii")
    if owner:
        for path in (directory, directory / "home", data.parent, secret):
            shutil.chown(path, owner["user"], owner["group"])

    def run(name: str, *arguments: str, words: str = "") -> None:
        answer = subprocess.run(
            [program(name), *arguments],
            env=environment,
            cwd=directory,
            input=words,
            capture_output=True,
            text=True,
            check=False,
            **owner,
        )
        if answer.returncode:
            raise StackError(f"{name} failed: {answer.stdout}{answer.stderr}")

    user, name = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
    run("initdb", "--username", user, "--pwfile", str(secret), "--auth", "scram-sha-256", "--no-sync", str(data))
    secret.unlink()
    with (data / "postgresql.conf").open("a", encoding="ascii") as settings:
        settings.write(f"listen_addresses = '127.0.0.1'\nunix_socket_directories = '{directory}'\n")
    run("postgres", "--single", "-D", str(data), "postgres", words=f'CREATE DATABASE "{name}";\n')
