"""What is measured of a process: memory, CPU, pauses of its event loop and of its garbage collector."""

from __future__ import annotations

import gc
import importlib.metadata
import math
import platform
import selectors
import sys
import time
from pathlib import Path

from benchmarks.figures import Process

PACKAGES = ("apache-airflow", "apache-airflow-providers-amazon", "airflow-jobflow", "boto3", "botocore", "aiobotocore")


class MeteredSelector(selectors.DefaultSelector):
    """Times how long the event loop is away from its selector: what is then due, or has arrived, must wait.

    A probe task would do, but its wake-ups cost more CPU than our side's waits.
    """

    longest = 0.0
    _left: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as ever; the loop counts as away from when it should have gone on."""
        now = time.perf_counter()
        if self._left is not None:
            self.longest = max(self.longest, now - self._left)
        ready = super().select(timeout)
        due = math.inf if timeout is None else now + max(0.0, timeout)
        self._left = min(due, time.perf_counter())
        return ready


class Meters:
    """Measures this process from when it is made; make it after all imports."""

    def __init__(self) -> None:
        self.selector = MeteredSelector()
        self._modules = set(sys.modules)
        self._collected_before = _full_collection()
        self._collected = 0.0
        self._collecting_since = 0.0
        gc.callbacks.append(self._note)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of memory so far
        self._memory = memory("VmRSS")
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collecting_since = now
        else:
            self._collected = max(self._collected, now - self._collecting_since)

    def read(self) -> Process:
        """Say what has been measured so far."""
        peak = memory("VmHWM")
        return Process(
            cpu=time.process_time() - self._cpu,
            seconds=time.perf_counter() - self._began,
            memory=peak - self._memory,
            resident=peak,
            # The collector stops all threads; where the loop had nothing to do just then, its selector has not noticed.
            blocked=max(self.selector.longest, self._collected),
            collected=self._collected,
            collected_before=self._collected_before,
            versions=versions(),
            late_imports=sorted(set(sys.modules) - self._modules),
        )


def _full_collection() -> float:
    gc.collect()
    began = time.perf_counter()
    gc.collect()
    return time.perf_counter() - began


def memory(field: str) -> float:
    """Resident memory of this process in MB: ``VmRSS`` now, ``VmHWM`` at the most since the peak was forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def versions() -> dict[str, str]:
    """Return the versions of what a side is made of."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
