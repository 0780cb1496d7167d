"""Concurrent runs, and the machine on which they run."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

STAGGER = 5.0
"""Seconds between the starts of concurrent runs, in which a run does its imports."""

Done = TypeVar("Done")


def at_once(calls: Sequence[Callable[[], Done]]) -> list[Done]:
    """Make calls in threads, each a little later than the previous one, and return their results."""

    def begin(number: int) -> Done:
        time.sleep(number * STAGGER)
        return calls[number]()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, range(len(calls))))


def machine() -> dict[str, str]:
    """Return a description of this machine."""
    cpu = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "CPU": cpu[0] if cpu else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 1024**2:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
