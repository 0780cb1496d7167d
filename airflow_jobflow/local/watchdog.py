"""Kill the processes of a server when the server is gone. Run as a script, in its own process.

The server holds the write end of this process's standard input. It writes the id of every process group that it starts
(``+<pgid>``) and that has ended (``-<pgid>``). End of file means that the server has ended, even by SIGKILL, because
the pipe is closed with the process. Then all remaining processes are killed.

Invariants:

- No process of a server outlives it: neither those in its process groups, nor those that left their group (daemons).
  The latter are found by a mark in their environment, which processes inherit.
- It imports nothing of this package, so that it starts quickly, and works while the package is being changed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys

import psutil  # type: ignore[import-untyped]  # installed with Airflow, without stubs

MARK = "JOBFLOW_LOCAL_RUN"
"""The environment variable of all processes of a local AWS: ``<server>.<run>``."""


def kill_group(group: int) -> None:
    """Send SIGKILL to a process group, if it still exists.

    :param group: its id.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def kill_marked(mark: str) -> int:
    """Send SIGKILL to all processes with a mark, and return their number.

    :param mark: the mark, or its part before a dot.
    """
    found = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            value = process.environ().get(MARK, "")
            if value == mark or value.startswith(f"{mark}."):
                found += process.status() != psutil.STATUS_ZOMBIE
                process.kill()
    return found


def main(server: str, directory: str) -> None:
    """Wait for the end of standard input, then kill the remaining processes of a server and remove its directory.

    :param server: the mark of the server.
    :param directory: its directory.
    """
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
