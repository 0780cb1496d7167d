"""What this package uses of Airflow that is not public API, or differs between versions. It is used nowhere else.

This module has what is not public. Each function names the versions whose source it relies on.
``tests/unit/test_airflow_compat.py`` runs each against the installed Airflow, so that a version that behaves
differently fails there first. Beside it there is a module for each feature that Airflow 3.3 has and 3.2 lacks:
``kills``, ``retry_policy``, ``shared_streams`` and ``starts``; ``metrics`` have moved. None compares versions: each
asks whether the feature is there.

Invariants:

- No answer is not an answer: where Airflow cannot be reached, a function raises; it never guesses a state.
- Asking changes nothing: no function here writes to Airflow's database.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

log = logging.getLogger(__name__)

DELETED: Final = "deleted"
"""What ``task_state`` returns for a task instance that no longer exists; no state of Airflow has this name."""

CANCELLED_STATES: Final = frozenset(
    {"success", "failed", "skipped", "upstream_failed", "removed", "restarting", DELETED}
)
"""States of a task that tell its own, still running process that a user cancelled it: nothing will wait for its job.

Not among them: ``None``, ``scheduled``, ``queued`` and ``running``, for which a later try may be in charge already, and
``up_for_retry``, where Airflow took the worker for dead: the next try then continues with the job.
"""

ENDED_STATES: Final = frozenset({"success", "failed", "skipped"})
"""States of a task in which no try of it runs, or is about to run."""

ON_KILL_LIMIT: Final = 30.0
"""Seconds after which Airflow stops waiting for a trigger's ``on_kill`` (3.3: triggerer_job_runner.py,
``_ON_CANCEL_TIMEOUT``)."""

RETRY_PAUSE: Final = 0.5
"""Seconds between two questions after one that failed."""


def task_state(ti: Any) -> str | None:
    """Ask Airflow for the current state of a task instance, from the process that runs it. One request.

    Airflow finds task instances by DAG, run, task and map index: after a clear, the answer is the state of the next
    try. Relies on ``RuntimeTaskInstance.get_task_states`` (3.0 and newer; the keys of its answer: 3.2.1, 3.3.2).

    :param ti: ``context["ti"]``.
    :return: the state; None if the task instance has none yet; ``DELETED`` if it does not exist.
    :raises airflow.sdk.exceptions.AirflowRuntimeError: Airflow could not answer, after the retries of its client.
    """
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index)
    return _own_state(states, ti)


def task_states(dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]) -> Mapping[str, Mapping[str, str | None]]:
    """Ask Airflow for the current states of tasks of a DAG, from the process of any task. One request.

    Relies on ``RuntimeTaskInstance.get_task_states`` and on the keys of its answer (3.0 and newer; read in 3.3.2):
    index 3 of a mapped task ``load`` has the key ``load_3``, as a task of that name has.

    :param dag_id: the DAG; it need not be the caller's.
    :param task_ids, run_ids: of which tasks and runs. Their number is limited by the length of a URL.
    :return: by run id and key. Runs without such a task instance are missing.
    :raises airflow.sdk.exceptions.AirflowRuntimeError: Airflow could not answer, after the retries of its client.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    return RuntimeTaskInstance.get_task_states(dag_id=dag_id, task_ids=list(task_ids), run_ids=list(run_ids))


def is_cancelled(state: str | None) -> bool:
    """Return whether a state that ``task_state`` returned means that a user cancelled the task that asked."""
    return state in CANCELLED_STATES


async def is_deferred(task_instance: Any) -> bool:
    """Ask once, from a trigger, whether its task is still deferred.

    Sent on the event loop, not in a thread: the threads of ``sync_to_async`` are shared by all triggers. Relies on
    ``SUPERVISOR_COMMS.asend`` and on ``GetTaskStates`` being a message to the triggerer's supervisor (3.2.1, 3.3.2).

    :param task_instance: ``BaseTrigger.task_instance``; None under ``airflow dags test``, where nothing is deferred.
    :raises Exception: Airflow could not answer. ``AirflowRuntimeError`` if the API refused, an ``OSError`` or
        ``EOFError`` if the supervisor is gone.
    """
    if task_instance is None:
        return False
    [answer] = await are_deferred([task_instance])
    return answer


async def are_deferred(task_instances: Sequence[Any]) -> list[bool]:
    """Ask once, from a trigger, which task instances of one run are still deferred. One request.

    :param task_instances: see ``current_states``.
    :return: for each, whether it is.
    :raises Exception: as ``is_deferred``.
    """
    return [state == "deferred" for state in await current_states(task_instances)]


async def current_states(task_instances: Sequence[Any]) -> list[str | None]:
    """Ask once, from a trigger, for the states of task instances of one run. One request.

    Of several, all instances of their tasks are asked for: an answer cannot name some of them.

    :param task_instances: at least one, all of the same DAG run.
    :return: the state of each, see ``task_state``.
    :raises Exception: as ``is_deferred``.
    """
    from airflow.sdk.execution_time.comms import GetTaskStates
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    first = task_instances[0]
    question = GetTaskStates(
        dag_id=first.dag_id,
        task_ids=sorted({each.task_id for each in task_instances}),
        run_ids=[first.run_id],
        map_index=first.map_index if len(task_instances) == 1 else None,
    )
    answer: Any = await SUPERVISOR_COMMS.asend(question)
    return [_own_state(answer.task_states, each) for each in task_instances]


async def still_deferred(
    task_instance: Any,
    *,
    ask: Callable[[Any], Awaitable[bool]] = is_deferred,
    patience: float = ON_KILL_LIMIT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> bool:
    """Ask, from a trigger, whether its task is still deferred, until there is an answer.

    A question is never cancelled, only left: in 3.2 a cancelled one would leave its answer to the next reader of the
    same connection. So the caller may be cancelled and ask again.

    :param task_instance: see ``is_deferred``.
    :param ask: asks once. Default: ``is_deferred``.
    :param patience: seconds after which no question is repeated. Default: as long as Airflow waits for ``on_kill``.
    :param clock: seconds, monotonic. For tests.
    :param sleep: waits for seconds. For tests.
    :raises TimeoutError: there was no answer within ``patience``; its ``__cause__`` is the last error, if any.
    """
    deadline = clock() + patience
    failure: Exception | None = None
    while True:
        question: asyncio.Future[bool] = asyncio.ensure_future(ask(task_instance))
        _questions.add(question)
        question.add_done_callback(_answered)
        done, _ = await asyncio.wait({question}, timeout=max(deadline - clock(), 0.0))
        if not done:
            break
        if not question.cancelled() and question.exception() is None:
            return question.result()
        error = None if question.cancelled() else question.exception()
        if isinstance(error, Exception):
            if failure is None:
                log.warning("Airflow did not say whether the task is still deferred; asking again: %r", error)
            failure = error
        if clock() + RETRY_PAUSE >= deadline:
            break
        await sleep(RETRY_PAUSE)
    raise TimeoutError(f"Airflow did not say within {patience:g} s whether the task is still deferred") from failure


_questions: set[asyncio.Future[bool]] = set()
"""Questions without an answer yet: an event loop holds its tasks only weakly."""


def _answered(question: asyncio.Future[bool]) -> None:
    _questions.discard(question)
    if not question.cancelled():
        question.exception()  # retrieved here, so that asyncio does not report it for a caller that is gone


def call_if_deferral_rejected(ti: Any, rejected: Callable[[str | None], object]) -> None:
    """Have a function called in the task's process if Airflow rejects the deferral that follows. No request.

    To be called immediately before ``task.defer``. Airflow rejects the deferral of a task that a user has marked or
    cleared meanwhile. Nothing of that reaches ``execute``: the task process only logs the error. So this puts an
    observer before the process's connection to its supervisor, which passes on everything, and takes itself away with
    the answer to the deferral. The connection can be used in the function.

    Not called where the API server could not be reached: the supervisor sends the deferral again when the process has
    ended, and it may be accepted then. Does nothing where there is no supervisor, as in a user's test of ``execute``.

    Relies on ``task_runner.run`` sending ``DeferTask`` through the module's ``SUPERVISOR_COMMS``, and on the error that
    carries the API's answer: 409 with ``previous_state``, or 404 where the task instance has another id by now (3.2.1,
    3.3.2). Airflow's own ``supervisor.set_supervisor_comms`` replaces the connection in the same way.

    :param ti: ``context["ti"]``.
    :param rejected: called with the task's state, see ``task_state``; whether a user cancelled it, ``is_cancelled``
        tells. What it raises is logged and does not reach Airflow.
    """
    from airflow.sdk.execution_time import task_runner

    module: Any = task_runner
    if comms := getattr(module, "SUPERVISOR_COMMS", None):
        module.SUPERVISOR_COMMS = _DeferralObserver(module, comms, ti, rejected)


class _DeferralObserver:
    """A connection to the supervisor that sees the answer to a deferral."""

    def __init__(self, module: Any, comms: Any, ti: Any, rejected: Callable[[str | None], object]) -> None:
        self._module = module
        self._comms = comms
        self._ti = ti
        self._rejected = rejected

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comms, name)

    def send(self, msg: Any) -> Any:
        """Send a message; see the answer to a deferral."""
        from airflow.sdk.exceptions import AirflowRuntimeError
        from airflow.sdk.execution_time.comms import DeferTask

        if not isinstance(msg, DeferTask):
            return self._comms.send(msg)
        self._module.SUPERVISOR_COMMS = self._comms
        try:
            return self._comms.send(msg)
        except AirflowRuntimeError as error:
            try:
                self._report(error.error.detail or {})
            except Exception:
                log.exception("Could not act on the rejected deferral of the task")
            raise

    def _report(self, detail: Mapping[str, Any]) -> None:
        """Call the function, if it is a rejection."""
        status = detail.get("status_code")
        if status == HTTPStatus.CONFLICT:
            self._rejected(_previous_state(detail) or task_state(self._ti))
        elif status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            self._rejected(task_state(self._ti))


def _previous_state(detail: Mapping[str, Any]) -> str | None:
    """Return the state because of which the API rejected a transition: ``{"detail": {"detail": {…}}}``."""
    found: Any = detail
    for key in ("detail", "detail", "previous_state"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else None


def connection_exists(conn_id: str) -> bool:
    """Ask Airflow whether a connection exists; blocks. One request.

    Airflow's own lookup answers "not found" also when a secrets backend or the API server cannot be reached. Relies on
    ``supervisor.ensure_secrets_backend_loaded`` and on the answers to ``GetConnection`` (3.2.1, 3.3.2).

    :param conn_id: the connection's id.
    :raises Exception: Airflow could not answer; what a secrets backend raises, or ``AirflowRuntimeError``.
    """
    from airflow.sdk.execution_time.secrets import ExecutionAPISecretsBackend
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    for backend in ensure_secrets_backend_loaded():
        if isinstance(backend, ExecutionAPISecretsBackend):
            exists = _exists_for_api_server(conn_id)  # the backend itself hides errors
        else:
            exists = backend.get_connection(conn_id=conn_id) is not None
        if exists:
            return True
    return False


def _exists_for_api_server(conn_id: str) -> bool:
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    try:
        answer: Any = SUPERVISOR_COMMS.send(GetConnection(conn_id=conn_id))
    except AirflowRuntimeError as error:
        answer = error.error
    if not isinstance(answer, ErrorResponse):
        return True
    if answer.error is ErrorType.CONNECTION_NOT_FOUND:
        return False
    raise AirflowRuntimeError(answer)


def _own_state(states: Any, ti: Any) -> str | None:
    """Return the state of one task instance from an answer to ``GetTaskStates``."""
    of_run = states.get(ti.run_id, {})
    key = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state: str | None = of_run.get(key, DELETED)
    return state
