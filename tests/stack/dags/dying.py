"""Operators whose worker dies, or waits, at a named point of a start, in the first try; for DAGs of tests.

The package knows nothing of it: the call that starts the job is met in botocore, the rest by wrapping what Airflow
calls. What dies is ``task``, the process that runs the task, or ``worker``, all of the Celery worker it belongs to; or
``nothing``. Before that it waits for as long as there is a file, so that a test can do something at that very point.
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
"""Of a start: nothing was sent; it was sent and done, and the answer is lost; the answer is there; the job was
described; Airflow knows that the task waits.
"""
STARTS: Final = ("SubmitJob", "RunTask", "StartJobRun", "StartCrawler")
MARK: Final = "JOBFLOW_STACK"
"""Environment variable of the stack: all processes of a service carry the same."""


def die(what: str) -> None:
    """End this process, or all of its worker, as SIGKILL does."""
    if what == "worker":
        mark = os.environ[MARK]
        for process in psutil.Process().parents():  # the nearest first
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == mark:
                    process.kill()
    os.kill(os.getpid(), signal.SIGKILL)


class Line:
    """A task's line to its supervisor, that does something once a deferral was answered.

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
    """Mixed in before an operator of the package; see `dying`."""

    dies_at: str
    dies: str
    holds: str
    log: Any
    _doomed = False

    def execute(self, context: Any) -> Any:
        """Run, doomed in the first try."""
        if self.dies_at not in ("", *POINTS):
            raise ValueError(f"dies_at={self.dies_at!r} is none of {POINTS}")
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
        """Be there when a client of this process starts something."""
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
        """Send the request ourselves where its answer is never to be read."""
        if self._doomed and self.dies_at == "after the call":
            from botocore.httpsession import URLLib3Session

            URLLib3Session().send(request)
            self._dies("after the call")

    def defer_to(self, trigger: Any) -> None:
        """Defer, unless it dies before."""
        self._dies("before the defer")
        super().defer_to(trigger)  # type: ignore[misc]  # the operator's

    def defer(self, **kwargs: Any) -> None:
        """Defer, and die when Airflow has been told."""
        if self._doomed and self.dies_at == "after the defer":
            from airflow.sdk.execution_time import task_runner

            module: Any = task_runner
            module.SUPERVISOR_COMMS = Line(module.SUPERVISOR_COMMS, lambda: self._dies("after the defer"))
        super().defer(**kwargs)  # type: ignore[misc]  # the operator's


def dying(operator: type[Any]) -> type[Any]:
    """Make an operator that can die.

    It takes three arguments more, templated: ``dies_at``, one of `POINTS` or nothing; ``dies``, what does; and
    ``holds``, the path of a file for which it waits there to go.
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
    """Give the arguments by which a DAG run's conf says where to die."""
    return {
        "dies_at": "{{ params.dies_at }}",
        "dies": "{{ params.dies }}",
        "holds": "{{ params.holds }}",
    }
