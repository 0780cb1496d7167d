"""A sensor that starts in the triggerer: its parameters are rendered here, and a ``JobTrigger`` waits.

Airflow renders for such a trigger what it has serialized of the task. Whatever cannot be done here (a parameter that is
wrong, a template that cannot be rendered, a mapping that only a worker can resolve) is left to a worker, which then
starts the sensor as it would have: it says what is wrong, and retries and callbacks are Airflow's own.

Of a task that was tried before, Airflow itself would leave what that try pushed, and the moment at which it ended as
the end of this one. So the former is deleted here, and a worker ends such a task.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent
from jinja2 import StrictUndefined

from airflow_jobflow import links, trigger_eligibility
from airflow_jobflow.triggers.job import JobTrigger
from airflow_jobflow.triggers.stored import Stored
from airflow_jobflow.ui import notes

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context

log = logging.getLogger(__name__)

LEFT = ("return_value", notes.KEY, links.KEY)
"""Keys of the XComs that a try leaves."""

START_ON_WORKER: dict[str, Any] = {"start_on_worker": True}
"""The event that has a worker start the sensor."""


class NeedsWorker(Exception):
    """A parameter that can only be known on a worker."""


class SensorTrigger(Stored, BaseTrigger):
    """Starts a sensor, and waits for its jobs. A sensor stops nothing, so this has no ``on_kill``.

    :param sensor: import path of the sensor's class. Handed over as data: a trigger is not to know the sensors.
    :param arguments: its parameters, as the DAG has them.
    :param seconds: how long after the task's start Airflow itself ends the wait. The trigger's arguments are fixed when
        the DAG is read, so this is what the start is reckoned from.
    """

    def __init__(self, *, sensor: str, arguments: dict[str, Any], seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.sensor = sensor
        self.arguments = arguments
        self.seconds = seconds
        self.timeout_after: Any = None
        """The moment at which Airflow itself ends the wait, which the triggerer sets."""
        self._given: tuple[Context, jinja2.Environment | None] | None = None
        """What its parameters are rendered with."""

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Keep what Airflow hands over to render with, before ``run``: here, it would be done on the event loop."""
        self._given = context, jinja_env

    def _rendered(self) -> dict[str, Any]:
        """Return the sensor's parameters, with what Airflow has serialized of the task.

        :raises NeedsWorker: it cannot be done here.
        """
        if self._given is None:
            raise NeedsWorker("the serialized task is not available")
        (context, env), task = self._given, cast("Any", self.task)
        mapped = _mapped_with(task, context, self._started_at)
        natively = bool(task.dag.render_template_as_native_obj)
        if not all(trigger_eligibility.renderable(each, natively=natively) for each in mapped.values()):
            raise NeedsWorker("what it is mapped over holds a template that is rendered on a worker only")
        env = env or self.get_template_env()
        env.undefined = StrictUndefined  # as on a worker: what is not there is an error, not an empty text
        return {
            name: self.render_template(value, context, env) if name in task.template_fields else value
            for name, value in {**self.arguments, **mapped}.items()
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Start the sensor here, if that can be done, and wait."""
        try:
            trigger = await asyncio.to_thread(self._begin)
        except Exception as error:  # noqa: BLE001 -- whatever it is, a worker meets it again and tells the task's log
            log.info("The sensor starts on a worker: %s", error)
            yield TriggerEvent(START_ON_WORKER)  # type: ignore[no-untyped-call]  # Airflow's is untyped
            return
        finally:
            self._given = None  # thousands of waits would hold as many
        trigger.task_instance = self.task_instance
        async for event in trigger.run():
            yield event

    def _begin(self) -> JobTrigger:
        """Make the sensor of its rendered parameters, and the trigger that waits for its jobs."""
        module, _, name = self.sensor.rpartition(".")
        sensor_class = getattr(importlib.import_module(module), name)
        ti: Any = self.task_instance
        was_tried = ti.try_number > 1
        if was_tried:
            _forget(ti, LEFT)
        rendered = self._rendered()
        task: Any = self.task
        sensor = sensor_class(task_id=task.task_id, **rendered)
        sensor.check()
        if not (job_ids := sensor.job_ids()):
            raise NeedsWorker("it has nothing to wait for")
        may_end = not was_tried and trigger_eligibility.may_end(task, is_mapped=task.is_mapped)
        return JobTrigger(
            service=sensor.service,
            job_ids=job_ids,
            scope=sensor.scope(),
            **dataclasses.asdict(sensor.access),
            poll_interval=sensor.interval(),
            deadline=self._started_at + sensor.first_limit()[1],
            result_kind=sensor.returns() if may_end else None,
            reports_progress=sensor.do_xcom_push,
            links={} if sensor.notes_have_links else None,
        )

    @property
    def _started_at(self) -> float:
        """When the scheduler started the task, in seconds since the epoch."""
        return float(self.timeout_after.timestamp() - self.seconds)


def _forget(ti: Any, keys: Iterable[str]) -> None:
    """Delete XComs of an earlier try, as Airflow does when a worker starts a task."""
    from airflow.sdk.execution_time.xcom import XCom

    for key in keys:
        XCom.delete(key=key, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)


def _mapped_with(task: Any, context: Mapping[str, Any], started_at: float) -> dict[str, Any]:
    """Return the parameter that an instance of a mapped task is mapped with: the item of its index.

    :param started_at: when the scheduler started the instance.
    :raises NeedsWorker: it is mapped in a way that only a worker resolves.
    """
    from airflow.serialization.definitions.xcom_arg import SchedulerPlainXComArg

    if not task.is_mapped:
        return {}
    if task.get_closest_mapped_task_group() is not None:
        raise NeedsWorker("it is in a mapped task group")
    over = task.expand_input.value
    if not isinstance(over, Mapping) or len(over) != 1:
        raise NeedsWorker("it is mapped over more than one parameter, or by expand_kwargs")
    [(name, items)] = over.items()
    ti: Any = context["ti"]
    if not isinstance(items, SchedulerPlainXComArg):
        if not isinstance(items, list):
            raise NeedsWorker("it is mapped over what is no list")
        return {name: items[ti.map_index]}
    of: Any = items.operator
    if not of.is_mapped:
        return {name: _returned(ti, of.task_id, items.key, started_at)[ti.map_index]}
    # An instance that returned nothing is left out, and those after it move up: only if all have, indexes are the same.
    counts = [
        ti.get_ti_count(dag_id=ti.dag_id, run_ids=[ti.run_id], task_ids=[each]) for each in (of.task_id, task.task_id)
    ]
    item = ti.xcom_pull(task_ids=of.task_id, key=items.key, map_indexes=ti.map_index)
    if counts[0] != counts[1] or item is None:
        raise NeedsWorker(f"not all instances of task {of.task_id} have returned something")
    return {name: item}


_pulled: dict[tuple[str, str, str, str], tuple[float, list[Any]]] = {}
"""The lists that were pulled last, and when."""

_pulling = threading.Lock()
"""Held while one is: who comes meanwhile finds it pulled."""

RETENTION = 4
"""How many of them are kept; instances of one task come one after the other."""


def _returned(ti: Any, task_id: str, key: str, started_at: float) -> list[Any]:
    """Return the list that a task returned, pulled once for many instances that are mapped over it.

    A thousand pulls of a thousand items would keep the triggerer busy for minutes. It could even stand still for ever:
    what answers waits until its answers are read, and what reads them until its log lines are. A list serves the
    instances that were started before it was pulled: it is no older than what they would pull.
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
