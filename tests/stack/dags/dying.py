"""Operators whose worker dies or waits at a named point of a start in the first try, for DAGs of tests.

The package does not know of it: the call that starts the job is intercepted in botocore, and other points by wrapping
what Airflow calls. Either ``task`` dies, the process that runs the task, or ``worker``, its whole Celery worker, or
``nothing``. Before that, the operator waits while a file exists, so that a test can act at exactly this point.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]  # it comes with Airflow, its stubs do not

POINTS: Final = ("before the call", "after the call", "after the answer", "before the defer", "after the defer")
"""The points of a start: nothing was sent; the job was started, but the response was lost; the response arrived; the
job was described; Airflow knows about the deferral.
"""
STARTS: Final = ("SubmitJob", "RunTask", "StartJobRun", "StartCrawler")
MARK: Final = "JOBFLOW_STACK"
"""Environment variable of the stack with the same value in all processes of a service."""


def die(what: str) -> None:
    """Kill this process, or all processes of its worker, with SIGKILL."""
    if what == "worker":
        mark = os.environ[MARK]
        for process in psutil.Process().parents():  # the nearest parent first
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == mark:
                    process.kill()
    os.kill(os.getpid(), signal.SIGKILL)


class Line:
    """A task's connection to its supervisor, which calls a function after a deferral was accepted.

    Airflow's own has slots, so that its ``send`` cannot be replaced.
    """

    def __init__(self, line: Any, deferred: Callable[[], object]) -> None:
        self._line = line
        self._deferred = deferred

    def __getattr__(self, name: str) -> Any:
        return getattr(self._line, name)

    def send(self, msg: Any) -> Any:
        """Send a message."""
        from airflow.sdk.execution_time.comms import DeferTask

        answer = self._line.send(msg)
        if isinstance(msg, DeferTask):
            self._deferred()
        return answer


class Dying:
    """Mixin for an operator of the package; see `dying`."""

    dies_at: str
    dies: str
    holds: str
    log: Any
    _doomed = False

    def execute(self, context: Any) -> Any:
        """Execute the operator, which dies in the first try."""
        if self.dies_at not in ("", *POINTS):
            raise ValueError(f"dies_at={self.dies_at!r} is not one of {POINTS}")
        self._doomed = context["ti"].try_number == 1
        if self._doomed:
            self._watch_clients()
        return super().execute(context)  # type: ignore[misc]  # the operator's

    def _dies(self, point: str) -> None:
        if not self._doomed or self.dies_at != point:
            return
        if self.holds:
            self.log.info("Held %s", point)
            while Path(self.holds).exists():
                time.sleep(0.1)
        if self.dies == "nothing":
            self._doomed = False
        else:
            die(self.dies)

    def _watch_clients(self) -> None:
        """Intercept the call of a client in this process that starts a job."""
        from airflow_jobflow.aws import Access

        make = Access.client

        def client(access: Access, *arguments: Any, **options: Any) -> Any:
            made = make(access, *arguments, **options)
            for action in STARTS:
                name = f"*.{action}"
                made.meta.events.register_first(f"before-call.{name}", lambda **_: self._dies("before the call"))
                made.meta.events.register_last(f"before-send.{name}", self._send)
                made.meta.events.register_first(f"after-call.{name}", lambda **_: self._dies("after the answer"))
            return made

        Access.client = client  # type: ignore[method-assign,assignment]

    def _send(self, request: Any, **_: Any) -> None:
        """Send the request here if the response must be lost."""
        if self._doomed and self.dies_at == "after the call":
            from botocore.httpsession import URLLib3Session

            URLLib3Session().send(request)
            self._dies("after the call")

    def defer(self, **kwargs: Any) -> None:
        """Defer, unless the worker dies before; or die after Airflow has accepted it."""
        self._dies("before the defer")
        if self._doomed and self.dies_at == "after the defer":
            from airflow.sdk.execution_time import task_runner

            module: Any = task_runner
            module.SUPERVISOR_COMMS = Line(module.SUPERVISOR_COMMS, lambda: self._dies("after the defer"))
        super().defer(**kwargs)  # type: ignore[misc]  # the operator's


def dying(operator: type[Any]) -> type[Any]:
    """Return an operator that can die.

    It has three additional, templated parameters: ``dies_at``, one of `POINTS` or empty; ``dies``, what dies; and
    ``holds``, the path of a file, which the operator waits to disappear.
    """

    class Doomed(Dying, operator):  # type: ignore[misc]  # whatever operator it is
        """An operator that can die."""

        template_fields: Any = ("dies_at", "dies", "holds", *operator.template_fields)

        def __init__(self, *, dies_at: str = "", dies: str = "task", holds: str = "", **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.dies_at = dies_at
            self.dies = dies
            self.holds = holds

    return Doomed


def conf() -> Mapping[str, str]:
    """Return the parameters that read from a DAG run's conf where to die."""
    return {
        "dies_at": "{{ params.dies_at }}",
        "dies": "{{ params.dies }}",
        "holds": "{{ params.holds }}",
    }
