"""One container as processes of this machine.

Invariants: all processes that it started, in any session, carry its mark in the environment, so that all of them can be
ended together.
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
"""Environment variable of every process of a stack: ``<directory of the stack>/<instance>``."""

HEALTHCHECK: Final = 30.0
"""Maximum seconds of a healthcheck, on a busy machine."""
STOP_GRACE: Final = 20.0
"""Maximum seconds in which a service must end after SIGTERM."""
TAIL: Final = 40


@dataclass
class Instance:
    """The processes of a container; they may be started again."""

    name: str
    service: Service
    command: Sequence[str]
    health: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    process: subprocess.Popen[bytes] | None = field(default=None)
    """The first process, which is process 1 of the container."""
    wanted: bool = False
    """Whether it was started, and not ended by a test since."""
    turn: threading.RLock = field(default_factory=threading.RLock)
    """Held while it is started or ended."""

    @property
    def log(self) -> Path:
        """The file with all of its output."""
        return self.directory.with_suffix(".log")

    @property
    def runs(self) -> bool:
        """Whether its first process runs."""
        return self.process is not None and self.process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """Return all of its processes, the first one first."""
        found = set(left_running(MARK, str(self.directory)))
        first = self.process.pid if self.process and self.runs else None
        if first:  # Redis writes its title over its environment
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {psutil.Process(first), *psutil.Process(first).children(recursive=True)}
        return sorted(found, key=lambda each: (each.pid != first, each.pid))

    def tail(self) -> str:
        """Return the last lines of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join([f"--- {self.name}", *text.splitlines()[-TAIL:]])

    def start(self) -> None:
        """Start it unless it runs; it may not be healthy yet."""
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
        """Start it if it does not run, and return whether it did not.

        :param unasked: only start it if it has ended by itself.
        """
        with self.turn:
            if self.runs or (unasked and not self.wanted):
                return False
            self.kill()  # processes that its first process has left
            self.start()
            return True

    def kill(self) -> None:
        """Send SIGKILL to all processes, like ``docker kill``."""
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
        """Send SIGTERM to the first process, and SIGKILL to the rest, like ``docker stop``."""
        with self.turn:
            if self.process and self.runs:
                # After SIGTERM, Postgres would wait for its clients, so its image has another stop signal.
                self.process.send_signal(signal.SIGINT if self.service.name == POSTGRES else signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(grace)
            self.kill()

    def pause(self) -> None:
        """Send SIGSTOP to all processes, like ``docker pause``."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def unpause(self) -> None:
        """Send SIGCONT to all processes."""
        for process in reversed(self.processes()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def is_healthy(self) -> bool:
        """Run the healthcheck, and return its result."""
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
