"""The resources of a stack's services: CPU, memory, and how long an event loop was blocked."""

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
"""CPU seconds of a child."""

BURN = f"import time\nwhile time.process_time() < {USED}: pass"

PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}], check=True)
orphan = "import subprocess; subprocess.Popen(['cat'], start_new_session=True)"
subprocess.run([sys.executable, "-c", orphan], check=True)
print("ready", flush=True)
sys.stdin.readline()
"""
"""It has had a child that used CPU and has ended, and one that left a process in its own session."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Any]:
    """The measured parts of a stack: one service with ended children, and one that has not started."""
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
    process.communicate("\n")  # the orphan shares its input, so closing it ends the orphan


def test_cpu_includes_ended_processes(stack: Any) -> None:
    """The process of a task ends before it can be sampled."""
    used = cpu(stack)
    assert used.keys() == {"worker"}
    assert used["worker"] >= USED


def test_a_process_without_its_parent_belongs_to_its_service(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found by its mark."""
    assert {name: len(those) for name, those in processes(stack).items()} == {"worker": 2}
    monkeypatch.setattr(meters, "pss", lambda _: 10.0)
    assert memory(stack) == {"worker": 20.0}


def test_a_process_that_has_ended_has_no_memory() -> None:
    """It ended between listing and sampling."""
    assert pss(psutil.Process()) > 1
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    gone = psutil.Process(process.pid)
    process.communicate()
    assert pss(gone) == 0


def test_the_total_peak_excludes_other_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """The total peak is that of one moment, not the sum of the peaks."""
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
    """Return a function that writes to a triggerer's log, and one reader for all calls."""
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


def test_the_longest_block_since_the_last_query_is_returned(write: Callable[[str], Blocks]) -> None:
    """Earlier blocks belong to another phase."""
    assert write("").longest() == 0.0
    assert write(line("0.15") + "something else\n" + line("12.34") + line("0.80")).longest() == 12.34
    assert write("nothing\n").longest() == 0.0
    assert write(line("0.25")).longest() == 0.25


def test_an_incomplete_line_is_read_later(write: Callable[[str], Blocks]) -> None:
    """A number that is cut off would mean a shorter block."""
    whole = line("12.34")
    cut = whole.index("2.34")
    assert write(whole[:cut]).longest() == 0.0
    assert write(whole[cut:]).longest() == 12.34


def test_the_log_message_of_a_blocked_loop_is_recognized(
    write: Callable[[str], Blocks], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another message, every loop would seem to run freely."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__BLOCKED_MAIN_THREAD_WARNING_THRESHOLD", "0.12")
    runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]  # Airflow's is untyped

    async def block() -> None:
        watching = asyncio.create_task(runner.block_watchdog())
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 -- it must block
        runner.stop = True
        await watching

    with structlog.testing.capture_logs() as logged:
        asyncio.run(block())
    assert write("{event}\n".format(**logged[0])).longest() >= 0.3
