"""One service as processes of this machine: its container, as it were.

What always holds: whatever it started, in whatever session, carries its mark in the environment, so that what ends a
container ends all of it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]  # it comes with Airflow, its stubs do not

from airflow_jobflow.local.demo.home import left_running
from tests.stack.compose import Service
from tests.stack.errors import StackError
from tests.stack.programs import POSTGRES, program, run_as

MARK: Final = "JOBFLOW_STACK"
"""Environment variable that every process of a stack carries: ``<directory of the stack>/<instance>``."""

HEALTHCHECK: Final = 30.0
"""Seconds that a healthcheck may take, on a busy machine."""
STOP_GRACE: Final = 20.0
"""Seconds in which a service that is told to must have ended."""
TAIL: Final = 40


@dataclass
class Instance:
    """A service's processes; they may be started again."""

    name: str
    service: Service
    command: Sequence[str]
    health: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    process: subprocess.Popen[bytes] | None = field(default=None)
    """The first of them, as process 1 of a container."""
    wanted: bool = False
    """Whether it was started, and nobody has ended it since."""
    turn: threading.RLock = field(default_factory=threading.RLock)
    """Held by who starts or ends it."""

    @property
    def log(self) -> Path:
        """Where all it writes goes."""
        return self.directory.with_suffix(".log")

    @property
    def runs(self) -> bool:
        """Whether its first process does."""
        return self.process is not None and self.process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """All that runs of it, the first one first."""
        found = set(left_running(MARK, str(self.directory)))
        first = self.process.pid if self.process and self.runs else None
        if first:  # Redis writes its title over its environment
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {psutil.Process(first), *psutil.Process(first).children(recursive=True)}
        return sorted(found, key=lambda each: (each.pid != first, each.pid))

    def tail(self) -> str:
        """The last lines of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join([f"--- {self.name}", *text.splitlines()[-TAIL:]])

    def start(self) -> None:
        """Start what does not run; whether it is healthy is another matter."""
        with self.turn, self.log.open("ab") as log:
            if self.runs:
                raise StackError(f"{self.name} runs already")
            self.wanted = True
            self.process = subprocess.Popen(
                [program(self.command[0]), *self.command[1:]],
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **run_as(self.service.name),
            )

    def recover(self, *, unasked: bool = False) -> bool:
        """Start it if it does not run; return whether that was so.

        :param unasked: do so only if it has ended by itself.
        """
        with self.turn:
            if self.runs or (unasked and not self.wanted):
                return False
            self.kill()  # what its first process has left running
            self.start()
            return True

    def kill(self) -> None:
        """SIGKILL to all of it, as ``docker kill``."""
        with self.turn:
            self.wanted = False
            for _ in range(10):  # a process may fork while it is being killed
                left = self.processes()
                if not left:
                    break
                for process in left:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                psutil.wait_procs(left, timeout=1)
            if self.process:
                self.process.wait(STOP_GRACE)

    def stop(self, grace: float = STOP_GRACE) -> None:
        """SIGTERM to the first process, and SIGKILL to what is left, as ``docker stop``."""
        with self.turn:
            if self.process and self.runs:
                # Told by SIGTERM, Postgres would wait for its clients: its image's stop signal is another.
                self.process.send_signal(signal.SIGINT if self.service.name == POSTGRES else signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(grace)
            self.kill()

    def pause(self) -> None:
        """SIGSTOP to all of it, as ``docker pause``."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def unpause(self) -> None:
        """SIGCONT to all of it."""
        for process in reversed(self.processes()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def is_healthy(self) -> bool:
        """Whether its healthcheck says so."""
        if not self.runs:
            return False
        try:
            answer = subprocess.run(
                [program(self.health[0]), *self.health[1:]],
                env=self.environment,
                cwd=self.directory,
                capture_output=True,
                check=False,
                timeout=HEALTHCHECK,
            )
        except subprocess.TimeoutExpired:
            return False
        return answer.returncode == 0
