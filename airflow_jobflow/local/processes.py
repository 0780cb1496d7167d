"""Run commands as local processes, a limited number at a time. Independent of AWS.

A service implements `Work`, for Batch attempts, ECS containers and Glue runs. When a slot is free, the work returns its
command. It is then notified of the start of the process, of its output by lines, and of its end.

Invariants:

- Each process has its own process group and temporary working directory. Both are gone when `Work.ended` is called.
- `Work.begin` is called once. If it returns a command, `Work.ended` is called once, after the last line.
- No process outlives the server, not even if the server is killed: see `watchdog`.
- No thread polls: slots wait for work, for output and for the end of a process.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Protocol

from airflow_jobflow.local.command import Command, Exit, resolved, search_path, why_not_started
from airflow_jobflow.local.watchdog import MARK, kill_group, kill_marked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

SIGNALLED = 128
"""Exit code of a process that a signal ended, as for containers: 128 plus the number of the signal."""
KILLED = SIGNALLED + signal.SIGKILL
LINE_LIMIT = 256 * 1024
"""Longer lines are split, because CloudWatch Logs does not accept longer events. In bytes."""
LAST_OUTPUT_TIMEOUT = 1.0
"""Seconds to wait for the end of the output of an ended process, before daemons that hold it open are killed."""


class Work(Protocol):
    """Something that runs in a slot. All methods are called in the slot's thread, except `lines`, which is called in a
    reader's thread.
    """

    def begin(self) -> Command | None:
        """Return the command to run, as a slot is free; None if it is no longer needed."""

    def started(self, process: Process) -> None:
        """Handle the start of the process.

        :param process: the process.
        """

    def lines(self, lines: Sequence[str]) -> None:
        """Handle lines that the process wrote to standard output and standard error.

        :param lines: the lines.
        """

    def ended(self, exit: Exit) -> None:
        """Handle the end of the process, or that it could not be started.

        :param exit: how it ended.
        """


class Process:
    """A running process and its descendants.

    :param popen: the process.
    :param mark: the value of the environment variable that identifies its descendants.
    """

    def __init__(self, popen: subprocess.Popen[bytes], mark: str) -> None:
        self._popen = popen
        self._mark = mark
        self._stopping = threading.Event()
        self._gone = threading.Event()

    def stop(self, grace: float = 0) -> None:
        """Send SIGTERM to the process group, and SIGKILL after some time. Returns immediately.

        :param grace: seconds between them. Default 0: SIGKILL only.
        """
        if self._stopping.is_set() or self._gone.is_set():
            return
        self._stopping.set()
        if grace > 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGTERM)
            threading.Thread(target=self._kill_after, args=(grace,), daemon=True).start()
        else:
            kill_group(self._popen.pid)

    def _kill_after(self, grace: float) -> None:
        if not self._gone.wait(grace):
            kill_group(self._popen.pid)

    def wait(self) -> int:
        """Wait for the end of the process, kill the rest of its group, and return the exit code that a container has.

        The first process of a container ignores SIGTERM unless it handles it, and gets SIGKILL later. So a process that
        was ended by either signal after `stop` counts as killed.
        """
        if hasattr(os, "waitid"):  # does not reap the process, so that the id of its group is not reused
            os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
            kill_group(self._popen.pid)
            self._gone.set()
        code = self._popen.wait()
        if not self._gone.is_set():
            self._gone.set()
            kill_group(self._popen.pid)
        if code >= 0:
            return code
        return KILLED if self._stopping.is_set() else SIGNALLED - code

    def kill_daemons(self) -> None:
        """Kill descendants that left the process group."""
        kill_marked(self._mark)


class Processes:
    """Runs work in slots, in the order in which it is queued.

    :param slots: the number of slots.
    :param environment: returns the variables that every process gets; commands add to them.
    :raises ValueError: there is no slot.
    """

    def __init__(self, slots: int, environment: Callable[[], Mapping[str, str]]) -> None:
        if slots < 1:
            raise ValueError(f"slots is {slots}, but must be at least 1")
        self._environment = environment
        self._server = uuid.uuid4().hex
        self._runs = itertools.count()
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._running: set[Process] = set()
        self._lock = threading.Lock()
        self._without_slot: set[threading.Thread] = set()
        self._closed = False
        self._home = Path(tempfile.mkdtemp(prefix="jobflow-local-"))
        self._path = search_path(self._home)
        self._watchdog = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("watchdog.py")), self._server, str(self._home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._threads = [threading.Thread(target=self._slot, name=f"slot-{n}", daemon=True) for n in range(slots)]
        for thread in self._threads:
            thread.start()

    def put(self, work: Work) -> None:
        """Queue work for a slot.

        :param work: the work.
        """
        self._queue.put(work)

    def run_without_slot(self, work: Work) -> None:
        """Run work immediately, without a slot: another container of a job that has one.

        :param work: the work.
        """
        thread = threading.Thread(target=self._run_without_slot, args=(work,), name="without-a-slot", daemon=True)
        with self._lock:
            if self._closed:
                return
            self._without_slot.add(thread)
            thread.start()

    def close(self) -> None:
        """Kill running processes, drop queued work, and wait until no process is left."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            running = list(self._running)
        for process in running:
            process.stop()
        for _ in self._threads:
            self._queue.put(None)
        with self._lock:
            without_slot = list(self._without_slot)
        for thread in [*self._threads, *without_slot]:
            thread.join()
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait()

    def _slot(self) -> None:
        while (work := self._queue.get()) is not None:
            if not self._closed:
                self._run_safely(work)

    def _run_without_slot(self, work: Work) -> None:
        self._run_safely(work)
        with self._lock:
            self._without_slot.discard(threading.current_thread())

    def _run_safely(self, work: Work) -> None:
        try:
            self._run(work)
        except Exception:  # an error in a service must not end the slot
            log.exception("Unexpected error while handling a local job; its state may be wrong")

    def _run(self, work: Work) -> None:
        command = work.begin()
        if command is None:
            return
        directory = Path(tempfile.mkdtemp(prefix="run-", dir=self._home))
        try:
            exit = self._execute(work, command, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        work.ended(exit)

    def _execute(self, work: Work, command: Command, directory: Path) -> Exit:
        mark = f"{self._server}.{next(self._runs)}"
        environment = {
            "PATH": self._path,
            "LANG": "C.UTF-8",
            **self._environment(),
            **command.environment,
            "HOME": str(directory),
            MARK: mark,
        }
        try:
            popen = subprocess.Popen(
                resolved(command.argv, environment["PATH"]),
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Exit(None, why_not_started(command.argv, error))
        assert popen.stdout is not None
        process = Process(popen, mark)
        with self._lock:
            self._running.add(process)
            self._notify_watchdog(f"+{popen.pid}")
            if self._closed:
                process.stop()
        work.started(process)
        reader = threading.Thread(target=_read, args=(popen.stdout, work.lines), daemon=True)
        reader.start()
        code = process.wait()
        with self._lock:
            self._running.discard(process)
            self._notify_watchdog(f"-{popen.pid}")
        reader.join(LAST_OUTPUT_TIMEOUT)
        if reader.is_alive():
            process.kill_daemons()
            reader.join()
        return Exit(code)

    def _notify_watchdog(self, line: str) -> None:
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(f"{line}\n".encode())
        self._watchdog.stdin.flush()


def _read(stream: IO[bytes], sink: Callable[[Sequence[str]], None]) -> None:
    """Pass the lines of a stream to `sink`, as many at a time as are available."""
    rest = b""
    with stream:
        while chunk := stream.read1(64 * 1024):  # type: ignore[attr-defined]  # a BufferedReader, typed as IO
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LINE_LIMIT:
                lines.append(rest)
                rest = b""
            if lines:
                sink([_text(line) for line in lines])
    if rest:
        sink([_text(rest)])


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", errors="replace")
