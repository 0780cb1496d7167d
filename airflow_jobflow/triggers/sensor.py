"""A sensor that starts in the triggerer: this renders its parameters, and a ``JobTrigger`` waits.

Airflow passes such a trigger the task as it was serialized. If this cannot start the sensor (a wrong parameter, a
template that fails, a mapping that only a worker can resolve), a worker starts it: it reports the error, and Airflow
retries the task and runs its callbacks as usual.

On a retry, a worker deletes the XComs of the previous try before it starts. Airflow does not do that here, so this
does. Airflow would also keep the end time of the previous try for this one, so a worker ends a task that is retried.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent
from jinja2 import StrictUndefined

from airflow_jobflow import links, trigger_eligibility
from airflow_jobflow.airflow_compat.deferrals import timeout_of
from airflow_jobflow.airflow_compat.serialized_tasks import UnsupportedMapping, dag_renders_natively, mapped_over
from airflow_jobflow.airflow_compat.xcoms import delete_xcom
from airflow_jobflow.triggers import log_positions
from airflow_jobflow.triggers.job import JobTrigger
from airflow_jobflow.triggers.stored import Stored
from airflow_jobflow.ui import notes

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context

log = logging.getLogger(__name__)

XCOM_KEYS = ("return_value", notes.KEY, links.KEY, log_positions.KEY)
"""Keys of the XComs that a try pushes."""

START_ON_WORKER: dict[str, Any] = {"start_on_worker": True}
"""The event with which a worker starts the sensor."""


class NeedsWorker(Exception):
    """The sensor can only be started on a worker; says why."""


class SensorTrigger(Stored, BaseTrigger):
    """Starts a sensor and waits for its jobs. A sensor stops nothing, so this has no ``on_kill``.

    :param sensor: import path of the sensor's class. It is data, because triggers do not import sensors.
    :param arguments: the sensor's parameters, by name, before rendering.
    :param seconds: seconds from the task's start to the time when Airflow itself ends the wait. The trigger's arguments
        are fixed when the DAG is parsed, so the start time is computed from that end.
    """

    def __init__(self, *, sensor: str, arguments: dict[str, Any], seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.sensor = sensor
        self.arguments = arguments
        self.seconds = seconds
        self._rendering: tuple[Context, jinja2.Environment | None] | None = None
        """The context and the environment to render the parameters with."""

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Keep what the parameters are rendered with, for ``run``: Airflow calls this on the event loop.

        :param context: the context of the task.
        :param jinja_env: the environment to use. Default None, for the DAG's own.
        """
        self._rendering = context, jinja_env

    def _rendered(self) -> dict[str, Any]:
        """Return the sensor's rendered parameters, by name.

        :raises NeedsWorker: they cannot be rendered here.
        """
        if self._rendering is None:
            raise NeedsWorker("the serialized task is not available")
        (context, env), task = self._rendering, cast("Any", self.task)
        mapped = _mapped_arguments(task, context["ti"], self._started_at)
        natively = dag_renders_natively(task)
        if not all(trigger_eligibility.renderable(each, natively=natively) for each in mapped.values()):
            raise NeedsWorker("it is mapped over a template that only a worker can render")
        env = env or self.get_template_env()
        env.undefined = StrictUndefined  # as on a worker: an undefined name is an error, not an empty string
        return {
            name: self.render_template(value, context, env) if name in task.template_fields else value
            for name, value in {**self.arguments, **mapped}.items()
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Start the sensor and wait for its jobs; if it cannot be started here, fire the event that starts a worker."""
        try:
            trigger = await asyncio.to_thread(self._start)
        except Exception as error:  # noqa: BLE001 -- whatever it is, a worker meets it again and raises it
            log.info("Starting the sensor on a worker: %s", error)
            yield TriggerEvent(START_ON_WORKER)  # type: ignore[no-untyped-call]  # Airflow's is untyped
            return
        finally:
            self._rendering = None  # thousands of waits would keep thousands of contexts
        trigger.task_instance = self.task_instance
        async for event in trigger.run():
            yield event

    def _start(self) -> JobTrigger:
        """Make the sensor from its rendered parameters, and return the trigger that waits for its jobs."""
        module, _, name = self.sensor.rpartition(".")
        sensor_class = getattr(importlib.import_module(module), name)
        ti: Any = self.task_instance
        was_tried = ti.try_number > 1
        if was_tried:
            for key in XCOM_KEYS:
                delete_xcom(ti, key)
        rendered = self._rendered()
        task: Any = self.task
        sensor = sensor_class(task_id=task.task_id, **rendered)
        may_end = not was_tried and trigger_eligibility.may_end(task, is_mapped=task.is_mapped)
        arguments = sensor.trigger_arguments(self._started_at, may_end=may_end)
        if not arguments["job_ids"]:
            raise NeedsWorker("it has no jobs to wait for")
        return JobTrigger(**arguments)

    @property
    def _started_at(self) -> float:
        """When the scheduler started the task, in seconds since the epoch.

        :raises NeedsWorker: the triggerer has not set when the deferral ends.
        """
        if (timeout := timeout_of(self)) is None:
            raise NeedsWorker("it is not known when the task started")
        return timeout.timestamp() - self.seconds


def _mapped_arguments(task: Any, ti: Any, started_at: float) -> dict[str, Any]:
    """Return the parameter that an instance of a mapped task is mapped over, with its value; empty if it is not mapped.

    :param task: the serialized task.
    :param ti: the task instance.
    :param started_at: when the scheduler started it, in seconds since the epoch.
    :raises NeedsWorker: only a worker can resolve the mapping.
    """
    try:
        over = mapped_over(task)
    except UnsupportedMapping as error:
        raise NeedsWorker(str(error)) from error
    if over is None:
        return {}
    if over.items is not None:
        return {over.parameter: over.items[ti.map_index]}
    if not over.is_mapped:
        return {over.parameter: _returned(ti, over.task_id, over.key, started_at)[ti.map_index]}
    # Airflow leaves out an instance that returned nothing, so that those after it get lower indexes. Only if all
    # instances have returned something is the index the same.
    counts = [
        ti.get_ti_count(dag_id=ti.dag_id, run_ids=[ti.run_id], task_ids=[each]) for each in (over.task_id, task.task_id)
    ]
    item = ti.xcom_pull(task_ids=over.task_id, key=over.key, map_indexes=ti.map_index)
    if counts[0] != counts[1] or item is None:
        raise NeedsWorker(f"not all instances of task {over.task_id} have returned something")
    return {over.parameter: item}


_pulled: dict[tuple[str, str, str, str], tuple[float, list[Any]]] = {}
"""The lists that were pulled last, each with the time of its pull, by DAG, run, task and key."""

_pulling = threading.Lock()
"""Held during a pull: other instances then find the list instead of pulling it again."""

RETENTION = 4
"""The most lists to keep. Few suffice, because the instances of one task start one after the other."""


def _returned(ti: Any, task_id: str, key: str, started_at: float) -> list[Any]:
    """Return the list that a task returned, pulled once for many instances that are mapped over it.

    A thousand pulls of a thousand items would keep the triggerer busy for minutes. They could even deadlock it: the
    supervisor waits until its answers are read, and the process that reads them waits until its log lines are read.

    A list serves the instances that were started before it was pulled: it is no older than what they would pull.

    :param ti: a task instance that is mapped over the list.
    :param task_id: the task that returned the list.
    :param key: the key of its XCom.
    :param started_at: when ``ti`` was started, in seconds since the epoch.
    :raises NeedsWorker: the task returned no list.
    """
    of = ti.dag_id, ti.run_id, task_id, key
    with _pulling:
        if of in _pulled and _pulled[of][0] >= started_at:
            return _pulled[of][1]
        pulled_at = time.time()
        returned = ti.xcom_pull(task_ids=task_id, key=key, map_indexes=-1)
        if not isinstance(returned, list):
            raise NeedsWorker(f"task {task_id} returned no list")
        _pulled.pop(of, None)
        _pulled[of] = pulled_at, returned
        while len(_pulled) > RETENTION:
            del _pulled[next(iter(_pulled))]
        return returned
