"""The resources of a stack's services: CPU seconds, memory as proportional set sizes, and how long a loop was blocked.

CPU includes ended processes: their parents have waited for them, and the kernel adds their times to the parents'.
Memory is sampled, so a peak that is shorter than the pause between two samples is missed.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]  # it comes with Airflow, its stubs do not

from tests.stack.instance import MARK
from tests.stack.stack import Stack

SAMPLE_EVERY = 4.0
"""Seconds."""

BLOCKED: Final = re.compile(rb"async thread was blocked for ([\d.]+) seconds")
"""The log message of Airflow about a blocked event loop of a triggerer."""


def processes(stack: Stack) -> dict[str, list[psutil.Process]]:
    """Return the running processes of each service."""
    services = {str(each.directory): each.service.name for each in stack.instances.values()}
    firsts = {each.process.pid: each.service.name for each in stack.instances.values() if each.process}
    every = {process.pid: process for process in psutil.process_iter(["ppid"])}
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    for pid, process in every.items():
        name, above = None, pid
        while name is None and above in every:  # Postgres and Redis overwrite their environment
            name, above = firsts.get(above), every[above].info["ppid"]
        if name is None:  # a process whose parent has ended
            with contextlib.suppress(psutil.Error, OSError):
                name = services.get(process.environ().get(MARK, ""))
        if name:
            found[name].append(process)
    return found


def cpu(stack: Stack) -> dict[str, float]:
    """Return the CPU seconds of each service since it started."""
    used: dict[str, float] = {}
    for name, those in processes(stack).items():
        for process in those:
            with contextlib.suppress(psutil.NoSuchProcess):
                used[name] = used.get(name, 0.0) + sum(process.cpu_times()[:4])
    return used


def memory(stack: Stack) -> dict[str, float]:
    """Return the proportional set size of each service now, in MB."""
    return {name: sum(map(pss, those)) for name, those in processes(stack).items()}


def pss(process: psutil.Process) -> float:
    """Return a process's proportional set size in MB; 0 if it has ended."""
    with contextlib.suppress(OSError, ProcessLookupError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


class Peaks:
    """The maximum memory of each service, and of all that count, while its block runs.

    :param left_out: the services that do not count.
    """

    def __init__(self, stack: Stack, left_out: tuple[str, ...] = ()) -> None:
        self._stack = stack
        self._left_out = left_out
        self.most: Counter[str] = Counter()
        self.together = 0.0

    @contextlib.contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample."""
        over = threading.Event()

        def sample() -> None:
            while True:
                now = memory(self._stack)
                for name, value in now.items():
                    self.most[name] = max(self.most[name], value)  # type: ignore[assignment]  # a Counter of floats
                self.together = max(
                    self.together, sum(value for name, value in now.items() if name not in self._left_out)
                )
                if over.wait(SAMPLE_EVERY):
                    return

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def picked_up(stack: Stack, dag_id: str, run_id: str) -> list[float]:
    """Return when the triggerer first wrote to the log of each task that it started, in seconds since the epoch.

    Airflow writes that a trigger starts when it has rendered nothing yet.
    """
    logs = Path(stack.instance("triggerer").environment["AIRFLOW__LOGGING__BASE_LOG_FOLDER"])
    pattern = f"dag_id={dag_id}/run_id={run_id}/task_id=wait/**/attempt=1.log.trigger.*.log"
    times: dict[Path, float] = {}
    for log in logs.glob(pattern):
        with log.open() as lines:
            began = datetime.fromisoformat(json.loads(next(lines))["timestamp"]).timestamp()
        times[log.parent] = min(began, times.get(log.parent, began))
    return sorted(times.values())


class Blocks:
    """How long a triggerer's event loop was blocked, from its growing log.

    :param log: the file with all of its output.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read_to = 0

    def longest(self) -> float:
        """Return the longest block, in seconds, that was logged since the last call; 0 if there was none."""
        with self._log.open("rb") as log:
            log.seek(self._read_to)
            written = log.read()
        whole = written[: written.rfind(b"\n") + 1]  # the rest of an incomplete line is read with the next call
        self._read_to += len(whole)
        return max(map(float, BLOCKED.findall(whole)), default=0.0)
