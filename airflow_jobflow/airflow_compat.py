"""What this package uses of Airflow that is not public API, or differs between versions. It is used nowhere else.

Each function names the versions whose source it relies on. ``tests/unit/test_airflow_compat.py`` runs each against the
installed Airflow, so that a version that behaves differently fails there first.

Invariants:

- No answer is not an answer: where Airflow cannot be reached, a function raises; it never guesses a state.
- Asking changes nothing: no function here writes to Airflow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, BaseOperatorLink

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

    Of several, all instances of their tasks are asked for: an answer cannot name some of them.

    :param task_instances: at least one, all of the same DAG run.
    :return: for each, whether it is.
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
    return [_own_state(answer.task_states, each) == "deferred" for each in task_instances]


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


def call_after_deferral(task: BaseOperator, links: Sequence[BaseOperatorLink], check: Callable[[Any], object]) -> None:
    """Have a function called in the task's process after Airflow has accepted or rejected the task's deferral.

    To be called immediately before ``task.defer``. Airflow rejects the deferral of a task that a user has marked or
    cleared meanwhile. Nothing of that reaches ``execute``: the task process logs the rejection, then evaluates the
    operator's extra links, with its connection to Airflow still open, and stores each as an XCom. The function is
    called with the first of them.

    What it must expect: the deferral may be accepted, rejected, or, where the API server could not be reached, still
    pending, for the supervisor sends it again when the process has ended. ``task_state`` tells accepted (``deferred``)
    and cancelled (``is_cancelled``) apart; anything else must be left alone.

    Sets ``operator_extra_links`` of this one object, which no other process sees: buttons and their XComs are as
    without it, except that links without a URL can be left out, which saves the request that stores each.

    Relies on ``task_runner.run`` catching the rejection and on ``task_runner.finalize`` (3.3.0 and newer). In 3.2.1 the
    process ends right after the rejection, and the function is not called then; it is called after an accepted one.

    :param task: the operator that is about to defer: ``self``.
    :param links: the links to store, at least one.
    :param check: called once with the ``RuntimeTaskInstance``. What it raises is logged and does not reach Airflow.
    :raises ValueError: there is no link.
    """
    if not links:
        raise ValueError("At least one link is needed, for Airflow to evaluate it after the deferral")
    first, *others = links
    checked: Any = _CheckedLink(first, check)
    task.operator_extra_links = (checked, *others)


class _CheckedLink:
    """A link that first calls a function. Not a ``BaseOperatorLink``: importing this module loads no Airflow."""

    def __init__(self, link: BaseOperatorLink, check: Callable[[Any], object]) -> None:
        self.name = link.name
        self.xcom_key = link.xcom_key
        self._link = link
        self._check: Callable[[Any], object] | None = check

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the link's URL, after calling the function if the task has asked to be deferred."""
        check, self._check = self._check, None
        if check is not None and getattr(ti_key, "state", None) == "deferred":
            try:
                check(ti_key)
            except Exception:
                log.exception("Could not check whether the deferral of the task was rejected")
        return self._link.get_link(operator, ti_key=ti_key)


def _own_state(states: Any, ti: Any) -> str | None:
    """Return the state of one task instance from an answer to ``GetTaskStates``."""
    of_run = states.get(ti.run_id, {})
    key = ti.task_id if ti.map_index is None or ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state: str | None = of_run.get(key, DELETED)
    return state
