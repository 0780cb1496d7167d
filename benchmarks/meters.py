"""The measurements of a process: memory, CPU, pauses of its event loop and of its garbage collector."""

from __future__ import annotations

import gc
import importlib.metadata
import math
import platform
import selectors
import sys
import time
from collections import deque
from pathlib import Path

from benchmarks.figures import Process

PACKAGES = ("apache-airflow", "apache-airflow-providers-amazon", "airflow-jobflow", "boto3", "botocore", "aiobotocore")


class Collections:
    """Times the pauses for the garbage collector, which stop every thread."""

    def __init__(self) -> None:
        self.longest = self.total = self.cpu = 0.0
        self._began: float | None = None
        self._began_cpu = 0.0
        self._recent: deque[tuple[float, float]] = deque(maxlen=1000)

    def note(self, phase: str, _info: dict[str, int]) -> None:
        """Record the start or end of a pause; a callback of ``gc``."""
        now = time.perf_counter()
        if phase == "start":
            self._began, self._began_cpu = now, time.thread_time()
        elif self._began is not None:
            self._recent.append((self._began, now))
            self.longest = max(self.longest, now - self._began)
            self.total += now - self._began
            self.cpu += time.thread_time() - self._began_cpu

    def between(self, begin: float, end: float) -> float:
        """Return the seconds of an interval in which the collector ran."""
        seconds = 0.0
        gc.disable()  # a collection would change the list during the copy
        recent = tuple(self._recent)
        gc.enable()
        for began, ended in reversed(recent):
            if ended <= begin:
                break
            seconds += max(0.0, min(end, ended) - max(begin, began))
        return seconds


class MeteredSelector(selectors.DefaultSelector):
    """Measures the steps of the event loop: outside its selector, due callbacks and arrived data must wait.

    A probe task would also work, but its wake-ups need more CPU than our side's waits.

    :param collections: the garbage collector's share of a step.
    """

    def __init__(self, collections: Collections) -> None:
        super().__init__()
        self.longest = self.longest_cpu = 0.0
        self._collections = collections
        self._left: float | None = None
        self._left_cpu = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Select as usual; a step starts when select should have returned."""
        now = time.perf_counter()
        if self._left is not None and now - self._left > self.longest:
            step = now - self._left - self._collections.between(self._left, now)
            if step > self.longest:
                self.longest, self.longest_cpu = step, time.thread_time() - self._left_cpu
        ready = super().select(timeout)
        due = math.inf if timeout is None else now + max(0.0, timeout)
        self._left, self._left_cpu = min(due, time.perf_counter()), time.thread_time()
        return ready


class Meters:
    """Measures this process from its creation on; create it after all imports."""

    def __init__(self) -> None:
        self.collections = Collections()
        self.selector = MeteredSelector(self.collections)
        self._modules = set(sys.modules)
        self._collected_before = _full_collection()
        gc.callbacks.append(self.collections.note)
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak of memory
        self._memory = memory("VmRSS")
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Process:
        """Return what has been measured so far."""
        peak = memory("VmHWM")
        return Process(
            cpu=time.process_time() - self._cpu,
            seconds=time.perf_counter() - self._began,
            memory=peak - self._memory,
            resident=peak,
            blocked=self.selector.longest,
            collected=self.collections.longest,
            collected_before=self._collected_before,
            versions=versions(),
            late_imports=sorted(set(sys.modules) - self._modules),
            blocked_cpu=self.selector.longest_cpu,
            collected_in_all=self.collections.total,
            collected_cpu=self.collections.cpu,
        )


def _full_collection() -> float:
    gc.collect()
    began = time.perf_counter()
    gc.collect()
    return time.perf_counter() - began


def memory(field: str) -> float:
    """Return the resident memory of this process in MB: ``VmRSS`` is current, ``VmHWM`` the peak since its reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def versions() -> dict[str, str]:
    """Return the versions of a side's packages."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
