"""A small Airflow: what the scheduler, the API server and the database do to task instances, in one object.

Workers and triggerers are processes, see `workers` and `triggerers`; the operators, the triggers and Airflow's
``TriggerRunner`` in them are the real ones. What is modelled here was measured on Airflow 3.3.2, see
docs/architecture.md: a clear gives a new ``ti.id``, a rejected deferral is a 409, the trigger of a killed task is
deleted and cancelled wherever it runs, a triggerer without a sign of life loses its triggers to another.

Invariants:

- A task instance changes only under the lock, and each change is written down with its time.
- A kill is written down with the moment it came at: what the task was doing, and who knew of it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Self

from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.execution_time.comms import DeferTask, GetTaskStates, SetXCom, XComResult

from tests.chaos.lines import Begun, Ended, Fired, Key, Rejected, Row, Sign, Store, Try, Wanted
from tests.chaos.triggerers import trigger_process
from tests.chaos.workers import work

log = logging.getLogger(__name__)

ROUND: Final = 0.1
HEARTBEAT: Final = 0.5
"""Seconds between two heartbeats of a worker, by which it learns that its task is not wanted."""
KILLED_AFTER: Final = 5.0
"""Seconds between a worker's SIGTERM and its SIGKILL, as in Airflow."""
HEALTH: Final = 4.0
"""Seconds after the last sign of life of a triggerer in which its triggers are given to another."""
RETRY_DELAY: Final = 0.5
DIED_AFTER: Final = 1.0
"""Seconds after which a worker that died is noticed."""
SLOTS: Final = 4
"""Tries that are executed at the same time."""
UNHEARD: Final = 2.0
"""Seconds after a kill in which a triggerer may not have heard of it."""
PICK_UP: Final = "between the accepted deferral and its pick-up"
WAITING: Final = "while it waits in a triggerer"
UNFINISHED: Final = (None, "scheduled", "queued", "running", "deferred", "up_for_retry", "restarting")

CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.chaos.workers", "tests.chaos.triggerers"])


@dataclass(frozen=True)
class Moment:
    """When a kill came.

    :param state: of the task instance.
    :param phase: what it was doing, in words that are counted.
    """

    at: float
    act: str
    state: str | None
    phase: str
    triggerer: Triggerer | None = None
    """What had the trigger then."""

    @property
    def how(self) -> str:
        """The moment, in the light of what happened to the triggerer after it."""
        lost_at = self.triggerer.lost_at if self.triggerer else None
        if self.phase == WAITING and lost_at is not None and lost_at < self.at + UNHEARD:
            return f"{self.phase}, which is killed or freezes {lost_at - self.at:.1f} s later"
        return self.phase


@dataclass
class TaskInstance:
    """A task instance, as the database has it."""

    key: Key
    kind: str
    parameters: Mapping[str, Any]
    retries: int
    run: Run
    ti_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str | None = None
    try_number: int = 0
    max_tries: int = 0
    next_method: str | None = None
    next_kwargs: Mapping[str, Any] | None = None
    row: Row | None = None
    triggerer: int | None = None
    """The triggerer that its trigger is assigned to."""
    picked_up: bool = False
    """Whether a triggerer has started it."""
    store: dict[str, Any] = field(default_factory=dict)
    xcoms: dict[str, Any] = field(default_factory=dict)
    returned: Any = None
    error: str = ""
    retry_at: float = 0.0
    process: Any = None
    """The process that executes it."""
    kills: list[Moment] = field(default_factory=list)
    history: list[tuple[float, str]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.state not in UNFINISHED

    def note(self, words: str) -> None:
        """Write down what happens."""
        self.history.append((time.time(), words))


@dataclass
class Run:
    """A DAG run."""

    dag_id: str
    run_id: str
    code: int
    started: float = field(default_factory=time.time)
    clear_number: int = 0
    tis: list[TaskInstance] = field(default_factory=list)
    failed_by_user: bool = False

    @property
    def killed(self) -> bool:
        """Whether a user has acted on it."""
        return any(ti.kills for ti in self.tis)


@dataclass
class Worker:
    """A process that executes a try."""

    ti: TaskInstance
    one: Try
    process: Any
    connection: Connection
    told_at: float | None = None
    ended: bool = False
    """Whether it has said how the try has ended."""
    checked_at: float = 0.0


@dataclass
class Triggerer:
    """A triggerer's process."""

    number: int
    process: Any
    control: Connection
    requests: Connection
    seen_at: float
    frozen: bool = False
    lost_at: float | None = None
    """When it was killed, told to end, or frozen."""

    @property
    def alive(self) -> bool:
        """Whether Airflow takes it for alive."""
        return self.process.is_alive() and time.monotonic() - self.seen_at < HEALTH


class Airflow:
    """The small Airflow: a context manager.

    :param directory: for the logs of its processes.
    :param environment: how its processes find AWS.
    :param triggerers: how many.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str], triggerers: int = 2) -> None:
        self._directory = directory
        self._environment = {
            **environment,
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(int(HEALTH)),
        }
        self._size = triggerers
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self.runs: list[Run] = []
        self._workers: list[Worker] = []
        self._triggerers: dict[int, Triggerer] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.slots = SLOTS
        """How many tries may be executed; 0 while all workers are busy."""
        self.api_fails = False
        """Whether the API server answers no question."""
        self.errors: list[BaseException] = []

    def __enter__(self) -> Self:
        for number in range(1, self._size + 1):
            self.start_triggerer(number)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(30)
        workers, triggerers = list(self._workers), list(self._triggerers.values())
        for process in [*(each.process for each in workers), *(each.process for each in triggerers)]:
            with contextlib.suppress(ProcessLookupError, AttributeError):
                os.kill(process.pid, signal.SIGKILL)
            process.join(5)

    # What users do.

    def run(self, dag_id: str, run_id: str, code: int, tasks: Sequence[TaskSpec]) -> Run:
        """Trigger a run."""
        run = Run(dag_id, run_id, code)
        for task in tasks:
            for index in range(task.mapped) if task.mapped else (-1,):
                key = Key(dag_id, run_id, task.task_id, index)
                more = {"token": f"{run_id}{index}"} if task.mapped else {}
                ti = TaskInstance(key, task.kind, {**task.parameters, **more}, task.retries, run)
                ti.max_tries = task.retries
                run.tis.append(ti)
        with self._lock:
            self.runs.append(run)
            for ti in run.tis:
                self._set(ti, "scheduled")
        return run

    def mark(self, ti: TaskInstance, state: str) -> bool:
        """Mark a task instance; return whether it had not ended before."""
        with self._lock:
            if ti.finished:
                return False
            self._note_kill(ti, f"marked {state}")
            self._set(ti, state)
            self._drop_trigger(ti)
        return True

    def mark_run_failed(self, run: Run) -> int:
        """Mark a run failed; return how many tasks that has ended."""
        with self._lock:
            left = [ti for ti in run.tis if not ti.finished]
            run.failed_by_user = bool(left)
            for ti in left:
                self._note_kill(ti, "run marked failed")
                self._set(ti, "failed" if ti.state in ("running", "deferred") else "skipped")
                self._drop_trigger(ti)
        return len(left)

    def clear(self, ti: TaskInstance) -> None:
        """Clear a task instance."""
        with self._lock:
            self._note_kill(ti, "cleared")
            running = ti.state in ("running", "restarting")
            ti.run.clear_number += 1
            ti.max_tries = ti.try_number + ti.retries
            self._next_try(ti)
            self._set(ti, "restarting" if running else "scheduled")

    def _note_kill(self, ti: TaskInstance, act: str) -> None:
        triggerer = self._triggerers.get(ti.triggerer) if ti.triggerer else None
        ti.kills.append(Moment(time.time(), act, ti.state, self._phase(ti), triggerer))

    def _phase(self, ti: TaskInstance) -> str:
        """Say what a task instance is doing, as far as a kill is concerned."""
        if ti.state == "running":
            doing = "while a worker resumes it" if ti.next_method else "while a worker starts the job, or waits for it"
            return doing if ti.process.is_alive() else "after its worker died, before Airflow noticed"
        if ti.state == "deferred":
            return self._phase_of_wait(ti)
        if ti.state == "restarting":
            return "while a clear ends the worker"
        if ti.next_method:
            return "between the trigger's event and the worker that resumes it"
        return "before its first try" if ti.try_number <= 1 and ti.state != "up_for_retry" else "between two tries"

    def _phase_of_wait(self, ti: TaskInstance) -> str:
        if not ti.picked_up:
            return PICK_UP
        triggerer = self._triggerers.get(ti.triggerer or 0)
        if triggerer is None or not triggerer.process.is_alive():
            return "after its triggerer died, before another took over"
        return "while its triggerer is frozen" if triggerer.frozen else WAITING

    # What goes wrong.

    def kill_worker(self, dice: random.Random) -> None:
        """SIGKILL to one of the processes that execute tries, if there is one."""
        with self._lock:
            running = [each for each in self._workers if each.process.is_alive()]
            if running:
                victim = dice.choice(running)
                victim.ti.note("its worker's process is killed")
                os.kill(victim.process.pid, signal.SIGKILL)

    def end_workers(self) -> None:
        """SIGTERM to all processes that execute tries, as when workers are shut down; SIGKILL a little later."""
        with self._lock:
            for each in self._workers:
                if each.process.is_alive() and each.told_at is None:
                    each.ti.note("its worker is shut down")
                    each.told_at = time.monotonic()
                    os.kill(each.process.pid, signal.SIGTERM)

    def signal_triggerer(self, number: int, what: int) -> None:
        """Send a signal to a triggerer, if it runs."""
        with self._lock:
            triggerer = self._triggerers.get(number)
            if triggerer and triggerer.process.is_alive():
                triggerer.frozen = what == signal.SIGSTOP
                if what != signal.SIGCONT:
                    triggerer.lost_at = time.time()
                os.kill(triggerer.process.pid, what)

    def start_triggerer(self, number: int) -> None:
        """Start a triggerer that does not run."""
        with self._lock:
            there = self._triggerers.get(number)
            if there and there.process.is_alive():
                if there.frozen:
                    self.signal_triggerer(number, signal.SIGCONT)
                return
            control, theirs = CONTEXT.Pipe()
            requests, their_requests = CONTEXT.Pipe()
            process = CONTEXT.Process(
                target=trigger_process,
                args=(theirs, their_requests, self._environment, self._directory / f"triggerer-{number}.log"),
                daemon=True,
            )
            process.start()
            theirs.close()
            their_requests.close()
            # A name of its own for each process: what was assigned to the dead one is not this one's.
            triggerer = Triggerer(number, process, control, requests, time.monotonic())
            for ti in self._tis():
                if ti.triggerer == number:
                    ti.triggerer = None
            self._triggerers[number] = triggerer
        threading.Thread(target=self._answer_requests, args=(requests,), daemon=True).start()
        threading.Thread(target=self._hear_triggerer, args=(triggerer,), daemon=True).start()

    # What is asked.

    def states(
        self, dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, str | None]]:
        """The states of tasks, as Airflow's API names them."""
        with self._lock:
            found: dict[str, dict[str, str | None]] = {}
            for ti in self._tis():
                key = ti.key
                if key.dag_id == dag_id and key.task_id in task_ids and key.run_id in run_ids:
                    name = key.task_id if key.map_index < 0 else f"{key.task_id}_{key.map_index}"
                    found.setdefault(key.run_id, {})[name] = ti.state
            return found

    def settled(self) -> bool:
        """Whether every task has ended, and no process of a try is left."""
        with self._lock:
            return all(ti.finished for ti in self._tis()) and not any(each.process.is_alive() for each in self._workers)

    def _tis(self) -> Iterable[TaskInstance]:
        return [ti for run in self.runs for ti in run.tis]

    # The scheduler.

    def _loop(self) -> None:
        while not self._closing.wait(ROUND):
            try:
                with self._lock:
                    self._round()
            except Exception as error:
                log.exception("A round has failed")
                self.errors.append(error)

    def _round(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            self._watch(worker, now)
        for ti in self._tis():
            if ti.state == "up_for_retry" and now >= ti.retry_at:
                self._set(ti, "scheduled")
            if ti.state == "deferred" and ti.row and ti.row.timeout_at and time.time() > ti.row.timeout_at:
                self._resume(ti, TRIGGER_FAIL_REPR, {"error": TriggerFailureReason.TRIGGER_TIMEOUT})
        running = sum(not each.ended and each.process.is_alive() for each in self._workers)
        waiting = [ti for ti in self._tis() if ti.state == "scheduled"]
        for ti in waiting[: max(0, self.slots - running)]:
            self._launch(ti)
        self._assign()

    def _watch(self, worker: Worker, now: float) -> None:
        """Heartbeat of a worker."""
        ti, alive = worker.ti, worker.process.is_alive()
        is_own = ti.ti_id == worker.one.ti_id and ti.process is worker.process
        if not alive:
            if worker.told_at is None or worker.told_at < now - DIED_AFTER or worker.ended:
                self._workers.remove(worker)
                worker.process.join()
                if is_own and ti.state in ("running", "queued"):
                    ti.note("its worker has died")
                    self._failed(ti, "died", retry=True)
                elif ti.state == "restarting":
                    self._set(ti, "scheduled")
            return
        if worker.told_at is not None:
            if now - worker.told_at > KILLED_AFTER:
                os.kill(worker.process.pid, signal.SIGKILL)
        elif now - worker.checked_at > HEARTBEAT:
            worker.checked_at = now
            if not worker.ended and not (is_own and ti.state in ("running", "queued")):
                worker.told_at = now
                os.kill(worker.process.pid, signal.SIGTERM)

    def _launch(self, ti: TaskInstance) -> None:
        if not ti.next_method:
            ti.try_number += 1
        self._set(ti, "queued")
        one = Try(
            ti.key,
            ti.ti_id,
            ti.try_number,
            ti.max_tries,
            ti.run.clear_number,
            ti.run.started,
            ti.kind,
            ti.parameters,
            ti.next_method,
            ti.next_kwargs,
        )
        ours, theirs = CONTEXT.Pipe()
        name = f"{ti.key}-t{ti.try_number}-{next(self._numbers)}.log"
        process = CONTEXT.Process(
            target=work, args=(one, theirs, self._environment, self._directory / name), daemon=True
        )
        process.start()
        theirs.close()
        ti.process = process
        worker = Worker(ti, one, process, ours)
        self._workers.append(worker)
        threading.Thread(target=self._hear_worker, args=(worker,), daemon=True).start()

    def _assign(self) -> None:
        """Give the triggers that nobody alive has to triggerers, and tell each what it is to run."""
        alive = [each for each in self._triggerers.values() if each.alive]
        deferred = [ti for ti in self._tis() if ti.state == "deferred" and ti.row]
        for ti in deferred:
            if ti.row and alive and ti.triggerer not in [each.number for each in alive]:
                ti.triggerer = alive[ti.row.number % len(alive)].number
        for triggerer in alive:
            rows = tuple(ti.row for ti in deferred if ti.row and ti.triggerer == triggerer.number)
            if not triggerer.frozen:  # its pipe would fill
                with contextlib.suppress(OSError):
                    triggerer.control.send(Wanted(rows))

    # Changes.

    def _set(self, ti: TaskInstance, state: str) -> None:
        ti.state = state
        ti.note(state)

    def _drop_trigger(self, ti: TaskInstance) -> None:
        ti.row, ti.triggerer, ti.picked_up = None, None, False

    def _next_try(self, ti: TaskInstance) -> None:
        self._drop_trigger(ti)
        ti.ti_id = str(uuid.uuid4())
        ti.next_method = ti.next_kwargs = None
        ti.xcoms.clear()
        ti.returned = None

    def _failed(self, ti: TaskInstance, error: str, *, retry: bool) -> None:
        ti.error = error
        if retry and ti.try_number <= ti.max_tries:
            self._next_try(ti)
            self._set(ti, "up_for_retry")
            ti.retry_at = time.monotonic() + RETRY_DELAY
        else:
            self._drop_trigger(ti)
            self._set(ti, "failed")

    def _resume(self, ti: TaskInstance, method: str, kwargs: Mapping[str, Any]) -> None:
        self._drop_trigger(ti)
        ti.next_method, ti.next_kwargs = method, kwargs
        self._set(ti, "scheduled")

    # What workers say.

    def _hear_worker(self, worker: Worker) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = worker.connection.recv()
                while self.api_fails and not self._closing.is_set():
                    time.sleep(ROUND)  # the supervisor repeats its requests
                with self._lock:
                    answer = self._worker_said(worker, message)
                worker.connection.send(answer)

    def _worker_said(self, worker: Worker, message: Any) -> Any:
        ti = worker.ti
        is_own = ti.ti_id == worker.one.ti_id and ti.process is worker.process
        if isinstance(message, Begun):
            worker.ended = not is_own or ti.state != "queued"
            if not worker.ended:
                self._set(ti, "running")
            return not worker.ended
        if isinstance(message, GetTaskStates | Store | SetXCom):
            return self._served(ti, message)
        worker.ended = True
        if not is_own:
            return _rejected(404)
        if ti.state != "running":
            return _rejected(409, ti.state)
        (self._defer if isinstance(message, DeferTask) else self._end)(ti, message)
        return None

    def _served(self, ti: TaskInstance, message: GetTaskStates | Store | SetXCom) -> Any:
        """Answer what a worker reads or writes, whatever has become of its task."""
        if isinstance(message, GetTaskStates):
            return self._states_answer(message)
        if isinstance(message, Store) and message.value is None:
            return ti.store.get(message.key)
        (ti.store if isinstance(message, Store) else ti.xcoms)[message.key] = message.value
        return None

    def _defer(self, ti: TaskInstance, message: DeferTask) -> None:
        timeout, kwargs = message.trigger_timeout, message.trigger_kwargs
        at = None if timeout is None else time.time() + timeout.total_seconds()
        number = next(self._numbers)
        ti.row = Row(number, message.classpath, _mapping(kwargs), ti.key, ti.ti_id, ti.try_number, at)
        ti.next_method, ti.next_kwargs = message.next_method, _mapping(message.next_kwargs)
        ti.picked_up = False
        self._set(ti, "deferred")

    def _end(self, ti: TaskInstance, message: Ended) -> None:
        ti.error = message.error
        if message.state == "success":
            ti.returned = message.returned
            self._set(ti, "success")
        else:
            self._failed(ti, message.error, retry=message.state == "retry")

    def _states_answer(self, message: GetTaskStates) -> Any:
        return SimpleNamespace(
            task_states=self.states(message.dag_id, list(message.task_ids or ()), list(message.run_ids or ()))
        )

    # What triggerers say.

    def _answer_requests(self, requests: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = requests.recv()
                if self.api_fails:
                    time.sleep(0.2)
                    answer: Any = _rejected(503)
                else:
                    with self._lock:
                        answer = self._triggerer_asked(message)
                requests.send(answer)

    def _triggerer_asked(self, message: Any) -> Any:
        if isinstance(message, GetTaskStates):
            return self._states_answer(message)
        if isinstance(message, SetXCom):
            for ti in self._tis():
                key = ti.key
                if (key.dag_id, key.run_id, key.task_id) == (message.dag_id, message.run_id, message.task_id) and (
                    key.map_index == (-1 if message.map_index is None else message.map_index)
                ):
                    ti.xcoms[message.key] = message.value
            return None
        return self._other(message)

    def _other(self, message: Any) -> Any:
        """Answer reads and deletions of XComs."""
        name = type(message).__name__
        for ti in self._tis():
            key = ti.key
            if (key.dag_id, key.run_id, key.task_id) == (message.dag_id, message.run_id, message.task_id):
                if name == "GetXCom":
                    return XComResult(key=message.key, value=ti.xcoms.get(message.key))
                if name == "DeleteXCom":
                    ti.xcoms.pop(message.key, None)
                    return None
        return _rejected(404)

    def _hear_triggerer(self, triggerer: Triggerer) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = triggerer.control.recv()
                with self._lock:
                    self._triggerer_said(triggerer, message)

    def _triggerer_said(self, triggerer: Triggerer, message: Any) -> None:
        if isinstance(message, Sign):
            triggerer.seen_at = time.monotonic()
            for ti in self._tis():
                if ti.row and ti.row.number in message.picked_up:
                    ti.picked_up = True
                    ti.note(f"picked up by triggerer {triggerer.number}")
            return
        fired: Fired = message
        for ti in self._tis():
            if ti.row is None or ti.row.number != fired.number or ti.state != "deferred":
                continue
            if fired.ends_task:
                ti.xcoms.update(fired.xcoms)
                self._drop_trigger(ti)
                ti.next_method = ti.next_kwargs = None
                self._set(ti, fired.ends_task)
            elif fired.failure:
                ti.error = fired.failure
                failure = {"error": TriggerFailureReason.TRIGGER_FAILURE, "traceback": [fired.failure]}
                self._resume(ti, TRIGGER_FAIL_REPR, failure)
            else:
                kwargs = {**(ti.next_kwargs or {}), "event": fired.payload}
                self._resume(ti, str(ti.next_method), kwargs)


@dataclass(frozen=True)
class TaskSpec:
    """A task of a DAG.

    :param mapped: how many instances a dynamically mapped task has; 0 for one that is not mapped.
    """

    task_id: str
    kind: str
    parameters: Mapping[str, Any]
    retries: int = 4
    mapped: int = 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return dict(value or {})


def _rejected(status: int, previous: str | None = None) -> Rejected:
    return Rejected(status, previous)
