"""A small Airflow: what the scheduler, the API server and the database do to task instances, in one object.

Workers and triggerers are processes, see `workers` and `triggerers`; the operators, the triggers and Airflow's
``TriggerRunner`` in them are the real ones. The modelled behaviour was measured on Airflow 3.3.2, see
docs/architecture.md: a clear gives a new ``ti.id``, a rejected deferral is a 409, the trigger of a killed task is
deleted and cancelled wherever it runs, and a triggerer without heartbeats loses its triggers to another one.

Invariants:

- A task instance changes only under the lock, and each change is recorded with its time.
- A kill is recorded with the state at that time: what the task was doing, and who knew about it.
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
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Self

from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR, TriggerFailureReason
from airflow.sdk.execution_time.comms import DeferTask, GetTaskStates, SetXCom, XComResult

from tests.chaos.lines import Begun, Ended, Fired, Key, Rejected, Row, Sign, Store, Try, Wanted
from tests.chaos.state import HEALTH, WAITING, Moment, Run, TaskInstance, TaskSpec, Triggerer, Worker
from tests.chaos.triggerers import trigger_process
from tests.chaos.workers import work

log = logging.getLogger(__name__)

ROUND: Final = 0.1
HEARTBEAT: Final = 0.5
"""Seconds between two heartbeats of a worker, by which it learns that its task was killed."""
KILLED_AFTER: Final = 5.0
"""Seconds between a worker's SIGTERM and its SIGKILL, as in Airflow."""
RETRY_DELAY: Final = 0.5
DIED_AFTER: Final = 1.0
"""Seconds after which the death of a worker is detected."""
SLOTS: Final = 4
"""Maximum number of concurrent tries."""
PICK_UP: Final = "between the accepted deferral and its pick-up"

CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.chaos.workers", "tests.chaos.triggerers"])


class Airflow:
    """The small Airflow: a context manager.

    :param directory: for the logs of its processes.
    :param environment: the variables with which its processes find AWS.
    :param triggerers: the number of triggerers.
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
        """Maximum number of tries to execute; 0 while all workers are busy."""
        self.api_fails = False
        """Whether the API server does not respond."""
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

    # Actions of users.

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
        """Mark a run failed; return the number of tasks that this has ended."""
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
        """Return what a task instance is doing, as a key for counts of kills."""
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

    # Faults.

    def kill_worker(self, dice: random.Random) -> None:
        """Send SIGKILL to one of the processes that execute tries, if there is one."""
        with self._lock:
            running = [each for each in self._workers if each.process.is_alive()]
            if running:
                victim = dice.choice(running)
                victim.ti.note("its worker's process is killed")
                os.kill(victim.process.pid, signal.SIGKILL)

    def end_workers(self) -> None:
        """Send SIGTERM to all processes that execute tries, like a shutdown of workers; SIGKILL follows soon."""
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
            # Each process has its own name: triggers of a dead one are not assigned to its successor.
            triggerer = Triggerer(number, process, control, requests, time.monotonic())
            for ti in self._tis():
                if ti.triggerer == number:
                    ti.triggerer = None
            self._triggerers[number] = triggerer
        threading.Thread(target=self._answer_requests, args=(requests,), daemon=True).start()
        threading.Thread(target=self._hear_triggerer, args=(triggerer,), daemon=True).start()

    # Queries.

    def states(
        self, dag_id: str, task_ids: Sequence[str], run_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, str | None]]:
        """Return the states of tasks with the keys of Airflow's API."""
        with self._lock:
            found: dict[str, dict[str, str | None]] = {}
            for ti in self._tis():
                key = ti.key
                if key.dag_id == dag_id and key.task_id in task_ids and key.run_id in run_ids:
                    name = key.task_id if key.map_index < 0 else f"{key.task_id}_{key.map_index}"
                    found.setdefault(key.run_id, {})[name] = ti.state
            return found

    def settled(self) -> bool:
        """Return whether every task has ended, and no process of a try is left."""
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
        """Handle the heartbeat of a worker."""
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
        """Assign the triggers without a living triggerer, and send each triggerer its triggers."""
        alive = [each for each in self._triggerers.values() if each.alive]
        deferred = [ti for ti in self._tis() if ti.state == "deferred" and ti.row]
        for ti in deferred:
            if ti.row and alive and ti.triggerer not in [each.number for each in alive]:
                ti.triggerer = alive[ti.row.number % len(alive)].number
        for triggerer in alive:
            rows = tuple(ti.row for ti in deferred if ti.row and ti.triggerer == triggerer.number)
            if not triggerer.frozen:  # its pipe would become full
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

    # Messages of workers.

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
        """Respond to a worker's read or write, regardless of the state of its task."""
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

    # Messages of triggerers.

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
        """Respond to reads and deletions of XComs."""
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


def _mapping(value: Any) -> Mapping[str, Any]:
    return dict(value or {})


def _rejected(status: int, previous: str | None = None) -> Rejected:
    return Rejected(status, previous)
