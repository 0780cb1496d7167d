"""Kills what a server started, when the server is gone. Run as a script, in a process of its own.

The server holds the write end of this process's standard input and tells it of every process group it starts
(``+<pgid>``) and has done away with (``-<pgid>``). End of file means that the server ended, however it ended,
SIGKILL included: no process can keep its pipe open when it is dead. Then everything that is left is killed.

What always holds:

- Nothing a server started outlives it: neither a group it told of, nor a process that left its group (a
  daemon), for every process inherits the mark in its environment.
- It imports nothing of this package, so that it starts in a few hundredths of a second and works while the
  package is being changed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys

import psutil  # type: ignore[import-untyped]  # it comes with Airflow, its stubs do not

MARK = "JOBFLOW_LOCAL_RUN"
"""Environment variable that every process started by a local AWS carries: ``<server>.<run>``."""


def kill_group(group: int) -> None:
    """SIGKILL to all of a process group, which may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def kill_marked(mark: str) -> int:
    """SIGKILL to every process whose mark is `mark` or begins with it and a dot; how many there were."""
    found = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            value = process.environ().get(MARK, "")
            if value == mark or value.startswith(f"{mark}."):
                found += process.status() != psutil.STATUS_ZOMBIE
                process.kill()
    return found


def main(server: str, directory: str) -> None:
    """Watch until standard input ends, then kill what is left of `server`, and remove its directory."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    for group in groups:
        kill_group(group)
    for _ in range(10):  # a process may fork while it is being killed
        if not kill_marked(server):
            break
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
