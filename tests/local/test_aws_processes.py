"""Commands as local processes, without AWS."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_jobflow.local.command import Command, Exit
from airflow_jobflow.local.processes import Process, Processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TIMEOUT = 20


class Recorded:
    """Work that records its notifications."""

    def __init__(self, *argv: str, wanted: bool = True, **environment: str) -> None:
        self.command = Command(argv, environment) if wanted else None
        self.output: list[str] = []
        self.process: Process | None = None
        self.exit: Exit | None = None
        self.begun, self.running, self.over = threading.Event(), threading.Event(), threading.Event()
        self.wrote = threading.Event()

    def begin(self) -> Command | None:
        """Return the command."""
        self.begun.set()
        return self.command

    def started(self, process: Process) -> None:
        """Record the process."""
        self.process = process
        self.running.set()

    def lines(self, lines: Sequence[str]) -> None:
        """Record the lines."""
        self.output.extend(lines)
        self.wrote.set()

    def ended(self, exit: Exit) -> None:  # noqa: A002
        """Record the end."""
        self.exit = exit
        self.over.set()


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Two slots."""
    pool = Processes(2, lambda: {"BASE": "base"})
    yield pool
    pool.close()


def finished(pool: Processes, work: Recorded) -> Recorded:
    """Run work to its end."""
    pool.put(work)
    assert work.over.wait(TIMEOUT)
    return work


def test_all_lines_arrive_complete(processes: Processes) -> None:
    """This includes bytes that are not UTF-8, carriage returns, empty lines and a last line without an end."""
    work = finished(processes, Recorded("printf", r"one\r\n\n\377two\nlast"))
    assert work.output == ["one", "", "�two", "last"]
    assert work.exit == Exit(0)


def test_much_output_arrives_in_order(processes: Processes) -> None:
    """It is more than a pipe can hold."""
    work = finished(processes, Recorded("seq", "100000"))
    assert work.output == [str(number) for number in range(1, 100_001)]


def test_long_line_is_split(processes: Processes) -> None:
    """A line that is longer than a log event arrives in pieces."""
    work = finished(processes, Recorded("sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x"))
    assert "".join(work.output) == "x" * 1_000_000
    assert len(work.output) > 1


def test_lines_arrive_while_it_runs(processes: Processes) -> None:
    """A log can be followed."""
    work = Recorded("sh", "-c", "echo now; sleep 60")
    processes.put(work)
    assert work.wrote.wait(TIMEOUT)
    assert work.process is not None
    work.process.stop()
    assert work.over.wait(TIMEOUT)
    assert work.exit == Exit(137)


def test_command_adds_to_the_environment(processes: Processes) -> None:
    """Variables of the command override those of the pool; HOME is its own directory."""
    work = finished(processes, Recorded("sh", "-c", "echo $BASE $MINE; cd; pwd", BASE="mine", MINE="1"))
    assert work.output[0] == "mine 1"
    assert not Path(work.output[1]).exists()


def test_program_is_looked_up_in_the_commands_own_path(processes: Processes, tmp_path: Path) -> None:
    """A command may set its PATH."""
    script = tmp_path / "mine"
    script.write_text("#!/bin/sh\necho found\n", encoding="utf-8")
    script.chmod(0o755)
    assert finished(processes, Recorded("mine", PATH=str(tmp_path))).output == ["found"]


@pytest.mark.parametrize("name", ["no-such-program", "/no/such", "/etc/passwd"])
def test_program_that_cannot_start_is_an_exit_without_a_code(processes: Processes, name: str) -> None:
    """The exit has the error."""
    work = finished(processes, Recorded(name))
    assert work.exit is not None
    assert work.exit.code is None
    assert name in (work.exit.error or "")
    assert not work.running.is_set()


def test_work_without_a_command_uses_no_slot(processes: Processes) -> None:
    """It is dropped when it returns no command."""
    unwanted = Recorded(wanted=False)
    processes.put(unwanted)
    finished(processes, Recorded("true"))
    assert unwanted.begun.wait(TIMEOUT)
    assert not unwanted.over.is_set()


def test_stop_kills_a_process_that_ignores_sigterm(processes: Processes) -> None:
    """It is killed after the grace period."""
    work = Recorded("sh", "-c", "trap '' TERM; echo up; while true; do sleep 0.1; done")
    processes.put(work)
    assert work.wrote.wait(TIMEOUT)
    assert work.process is not None
    work.process.stop(grace=0.2)
    work.process.stop(grace=600)
    assert work.over.wait(TIMEOUT)
    assert work.exit == Exit(137)


def test_failing_callback_does_not_end_the_slot(processes: Processes) -> None:
    """The error is logged."""

    class Broken(Recorded):
        def begin(self) -> Command | None:
            raise RuntimeError("broken on purpose")

    for _ in range(4):
        processes.put(Broken())
    assert finished(processes, Recorded("true")).exit == Exit(0)


def test_close_drops_queued_work(processes: Processes) -> None:
    """Running processes are killed, and queued work never begins."""
    running = [Recorded("sleep", "60") for _ in range(2)]
    waiting = Recorded("true")
    for work in [*running, waiting]:
        processes.put(work)
    for work in running:
        assert work.running.wait(TIMEOUT)
    processes.close()
    assert [work.exit for work in running] == [Exit(137)] * 2
    assert not waiting.begun.is_set()
