"""What the components of a stack cost: CPU, memory, and how long an event loop was blocked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil  # type: ignore[import-untyped]  # it comes with Airflow, its stubs do not
import pytest
import structlog
from airflow.jobs.triggerer_job_runner import TriggerRunner

from benchmarks.stack import meters
from benchmarks.stack.meters import Blocks, Peaks, cpu, memory, processes, pss
from tests.stack.instance import MARK

USED = 0.3
"""CPU seconds that a child uses."""

BURN = f"import time\nwhile time.process_time() < {USED}: pass"

PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}], check=True)
orphan = "import subprocess; subprocess.Popen(['cat'], start_new_session=True)"
subprocess.run([sys.executable, "-c", orphan], check=True)
print("ready", flush=True)
sys.stdin.readline()
"""
"""Has had a child that used CPU and has ended, and one that has left behind a process of its own."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Any]:
    """As much of a stack as is measured: one service, with children that have ended, and one that has not started."""
    directory = tmp_path / "worker-1"
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: str(directory)},
    )
    worker = SimpleNamespace(service=SimpleNamespace(name="worker"), directory=directory, process=process)
    redis = SimpleNamespace(service=SimpleNamespace(name="redis"), directory=tmp_path / "redis", process=None)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    yield SimpleNamespace(instances={"worker-1": worker, "redis": redis})
    process.communicate("\n")  # and to the orphan, which shares its input, its end


def test_what_has_ended_is_in_the_cpu_of_its_service(stack: Any) -> None:
    """A task's process is over before anybody looks."""
    used = cpu(stack)
    assert used.keys() == {"worker"}
    assert used["worker"] >= USED


def test_a_process_whose_parent_has_ended_is_still_its_services(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known by its mark."""
    assert {name: len(those) for name, those in processes(stack).items()} == {"worker": 2}
    monkeypatch.setattr(meters, "pss", lambda _: 10.0)
    assert memory(stack) == {"worker": 20.0}


def test_a_process_that_has_ended_has_no_memory() -> None:
    """Between being found and being looked at."""
    assert pss(psutil.Process()) > 1
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    gone = psutil.Process(process.pid)
    process.communicate()
    assert pss(gone) == 0


def test_what_does_not_count_is_in_no_peak_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak of all is that of one moment, and not the sum of each one's."""
    over = threading.Event()
    samples = iter([{"aws": 900.0, "worker": 100.0}, {"triggerer": 60.0, "worker": 50.0}, {"aws": 5.0}])

    def sampled(_: object) -> dict[str, float]:
        if (sample := next(samples, None)) is None:
            over.set()
            return {}
        return sample

    monkeypatch.setattr(meters, "memory", sampled)
    monkeypatch.setattr(meters, "SAMPLE_EVERY", 0.0)
    nothing: Any = None
    peaks = Peaks(nothing, ("aws",))
    with peaks.sampled():
        assert over.wait(30)
    assert dict(peaks.most) == {"aws": 900.0, "worker": 100.0, "triggerer": 60.0}
    assert peaks.together == 110.0


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Blocks]:
    """Write to a triggerer's log, and return what reads it, always the same."""
    log = tmp_path / "triggerer.log"
    blocks = Blocks(log)

    def append(text: str) -> Blocks:
        with log.open("a") as file:
            file.write(text)
        return blocks

    return append


def line(seconds: str) -> str:
    """Return a line of the log."""
    return f"2026-11-22T09:00:00Z [info] Triggerer's async thread was blocked for {seconds} seconds, exceeding [x]\n"


def test_the_longest_block_since_it_was_asked_last_is_told(write: Callable[[str], Blocks]) -> None:
    """What was logged earlier belongs to another phase."""
    assert write("").longest() == 0.0
    assert write(line("0.15") + "something else\n" + line("12.34") + line("0.80")).longest() == 12.34
    assert write("nothing\n").longest() == 0.0
    assert write(line("0.25")).longest() == 0.25


def test_a_line_that_is_half_written_is_read_when_it_is_whole(write: Callable[[str], Blocks]) -> None:
    """Cut within the number, it would tell of a shorter block, or of none."""
    whole = line("12.34")
    cut = whole.index("2.34")
    assert write(whole[:cut]).longest() == 0.0
    assert write(whole[cut:]).longest() == 12.34


def test_a_triggerer_tells_of_blocks_in_the_words_that_are_looked_for(
    write: Callable[[str], Blocks], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In other words every loop would seem to run freely."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__BLOCKED_MAIN_THREAD_WARNING_THRESHOLD", "0.12")
    runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]  # Airflow's is untyped

    async def block() -> None:
        watching = asyncio.create_task(runner.block_watchdog())
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 -- it is to block
        runner.stop = True
        await watching

    with structlog.testing.capture_logs() as logged:
        asyncio.run(block())
    assert write("{event}\n".format(**logged[0])).longest() >= 0.3
