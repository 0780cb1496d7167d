"""Commands as local processes, a bounded number at a time. Knows nothing of AWS.

A service describes a piece of work (`Work`); when a slot is free the work is asked for its command, told that
it runs, handed its output by lines and told how it ended. Batch attempts, ECS tasks and Glue runs are all
such work.

What always holds:

- A process has a process group and a temporary working directory of its own; both are gone when `Work.ended`
  is called.
- `Work.begin` is called once; if it returned a command, `Work.ended` is called once, after the last line.
- Nothing outlives the server (`watchdog` sees to that even when the server is killed).
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
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Protocol

from airflow_jobflow.local.watchdog import MARK, kill_group, kill_marked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

SIGNALLED = 128
"""Exit code of a process ended by a signal, as containers count: 128 and the signal's number."""
KILLED = SIGNALLED + signal.SIGKILL
LINE_LIMIT = 256 * 1024
"""Longer lines are handed on in pieces, as CloudWatch Logs takes no longer event."""
LAST_OUTPUT_TIMEOUT = 1.0
"""Seconds to wait for the end of the output of a process that ended, before looking for a daemon that holds
it.
"""


@dataclass(frozen=True)
class Command:
    """What to run, and the environment it sees on top of the server's own minimal one."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exit:
    """How a process ended: with `code`, or, if it never started, `error` says why."""

    code: int | None
    error: str | None = None


class Work(Protocol):
    """Something that wants a slot. Called from the slot's thread, but `lines`, which comes from a
    reader's.
    """

    def begin(self) -> Command | None:
        """A slot is free: what to run, or None if it is no longer wanted."""

    def started(self, process: Process) -> None:
        """The process runs; `process` can stop it."""

    def lines(self, lines: Sequence[str]) -> None:
        """Lines it wrote, to standard output and standard error."""

    def ended(self, exit: Exit) -> None:
        """It ended, or could not be started."""


class Process:
    """A running process and all it started."""

    def __init__(self, popen: subprocess.Popen[bytes], mark: str) -> None:
        self._popen = popen
        self._mark = mark
        self._stopping = threading.Event()
        self._gone = threading.Event()

    def stop(self, grace: float = 0) -> None:
        """SIGTERM, then SIGKILL after `grace` seconds, to the process and all it started. Returns at once."""
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
        """Wait for its end, do away with what it left running, and return its exit code as a container would.

        A container's first process is deaf to SIGTERM unless it handles it, and gets SIGKILL when the grace
        is over: so a process that a stop ended by either signal counts as killed.
        """
        if hasattr(os, "waitid"):  # leaves the process unreaped, so that its group's id cannot be another's meanwhile
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
        """Kill what left the process group."""
        kill_marked(self._mark)


class Processes:
    """Runs work on `slots` slots, first come, first served.

    :param environment: what every process sees; commands add to it.
    """

    def __init__(self, slots: int, environment: Callable[[], Mapping[str, str]]) -> None:
        if slots < 1:
            raise ValueError(f"slots is {slots}: at least one is needed for anything to run")
        self._environment = environment
        self._server = uuid.uuid4().hex
        self._runs = itertools.count()
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._running: set[Process] = set()
        self._lock = threading.Lock()
        self._beside: set[threading.Thread] = set()
        self._closed = False
        self._home = Path(tempfile.mkdtemp(prefix="jobflow-local-"))
        self._path = _search_path(self._home)
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
        """Queue `work` for a slot."""
        self._queue.put(work)

    def beside(self, work: Work) -> None:
        """Run `work` at once, without a slot: a further container of what has one."""
        thread = threading.Thread(target=self._run_beside, args=(work,), name="beside-a-slot", daemon=True)
        with self._lock:
            if self._closed:
                return
            self._beside.add(thread)
            thread.start()

    def close(self) -> None:
        """Kill what runs, forget what waits; returns when nothing of it is left."""
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
            beside = list(self._beside)
        for thread in [*self._threads, *beside]:
            thread.join()
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait()

    def _slot(self) -> None:
        while (work := self._queue.get()) is not None:
            if not self._closed:
                self._run_safely(work)

    def _run_beside(self, work: Work) -> None:
        self._run_safely(work)
        with self._lock:
            self._beside.discard(threading.current_thread())

    def _run_safely(self, work: Work) -> None:
        try:
            self._run(work)
        except Exception:  # a slot must survive whatever a service's callback raises
            log.exception("A local job's bookkeeping failed; its state may be wrong from here on")

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
                _resolved(command.argv, environment["PATH"]),
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Exit(None, _why_not_started(command.argv, error))
        assert popen.stdout is not None
        process = Process(popen, mark)
        with self._lock:
            self._running.add(process)
            self._tell(f"+{popen.pid}")
            if self._closed:
                process.stop()
        work.started(process)
        reader = threading.Thread(target=_read, args=(popen.stdout, work.lines), daemon=True)
        reader.start()
        code = process.wait()
        with self._lock:
            self._running.discard(process)
            self._tell(f"-{popen.pid}")
        reader.join(LAST_OUTPUT_TIMEOUT)
        if reader.is_alive():
            process.kill_daemons()
            reader.join()
        return Exit(code)

    def _tell(self, line: str) -> None:
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(f"{line}\n".encode())
        self._watchdog.stdin.flush()


def _read(stream: IO[bytes], sink: Callable[[Sequence[str]], None]) -> None:
    """Hand the lines of `stream` to `sink` as they come, as many at a time as there are."""
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


def _resolved(argv: Sequence[str], path: str) -> list[str]:
    """`argv` with its program looked up in the process's own PATH, not in the server's."""
    if not argv:
        raise ValueError("no command specified")
    program = shutil.which(argv[0], path=path) if os.sep not in argv[0] else argv[0]
    if program is None:
        raise FileNotFoundError(argv[0])
    return [program, *argv[1:]]


def _why_not_started(argv: Sequence[str], error: Exception) -> str:
    """What a container runtime says of a command it cannot start."""
    if not argv:
        return "no command specified"
    if isinstance(error, PermissionError):
        return f'exec: "{argv[0]}": permission denied'
    if isinstance(error, FileNotFoundError) and os.sep in argv[0]:
        return f'exec: "{argv[0]}": stat {argv[0]}: no such file or directory'
    if isinstance(error, FileNotFoundError):
        return f'exec: "{argv[0]}": executable file not found in $PATH'
    return f'exec: "{argv[0]}": {error}'


def _search_path(home: Path) -> str:
    """A PATH on which `python` and `python3` are this interpreter."""
    interpreter = Path(sys.executable)
    directories = [str(interpreter.parent), "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
    missing = [name for name in ("python", "python3") if not (interpreter.parent / name).exists()]
    if missing:
        wrappers = home / "bin"
        wrappers.mkdir()
        for name in missing:
            script = wrappers / name
            script.write_text(f'#!/bin/sh\nexec "{interpreter}" "$@"\n', encoding="utf-8")
            script.chmod(0o755)
        directories.insert(0, str(wrappers))
    return os.pathsep.join(directories)
