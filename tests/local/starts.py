"""A task that Airflow starts in the triggerer, without a worker; created like by the scheduler and the triggerer."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.models.trigger import Trigger
from airflow.sdk.execution_time import comms
from airflow.serialization.decoders import smart_decode_trigger_kwargs
from airflow.serialization.serialized_objects import DagSerialization

from airflow_jobflow.triggers.start import StartTrigger

if TYPE_CHECKING:
    from airflow.sdk import DAG


class Supervisor:
    """The triggerer's supervisor, as far as templates need it: XComs, and the number of instances of a task."""

    def __init__(self, xcoms: dict[tuple[str, int | None], Any], instances: dict[str, int]) -> None:
        self.xcoms = xcoms
        self.instances = instances
        self.left: dict[str, Any] = {}
        """The XComs that the task has pushed."""
        self.deleted: set[str] = set()
        """Keys of the XComs that were deleted."""

    def send(self, message: Any) -> Any:
        """Respond to a message; requests that the real supervisor does not know get no response."""
        if isinstance(message, comms.GetXCom):
            value = self.xcoms.get((message.task_id, message.map_index))
            return comms.XComResult(key=message.key, value=value)
        if isinstance(message, comms.SetXCom):
            assert (message.dag_id, message.run_id, message.task_id) == ("d", "r", "s")
            self.left[message.key] = message.value
            return None
        if isinstance(message, comms.DeleteXCom):
            self.deleted.add(message.key)
            return None
        if isinstance(message, comms.GetTICount):
            return comms.TICount(count=self.instances[(message.task_ids or [""])[0]])
        raise AssertionError(f"{message} is never answered in the triggerer")


DAG_RUN: dict[str, Any] = {
    "dag_id": "d",
    "run_id": "r",
    "logical_date": None,
    "data_interval_start": None,
    "data_interval_end": None,
    "run_after": datetime(2026, 11, 22, tzinfo=UTC),
    "start_date": datetime(2026, 11, 22, tzinfo=UTC),
    "end_date": None,
    "run_type": "manual",
    "state": "running",
    "conf": {},
    "consumed_asset_events": [],
    "partition_key": None,
}


def start_trigger(
    dag: DAG, map_index: int = -1, *, began: float = 0.0, try_number: int = 1, ti_id: uuid.UUID | None = None
) -> StartTrigger:
    """Return the trigger of the task ``s``, which a scheduler has stored, and a triggerer has created.

    :param dag: of the task.
    :param map_index: of the instance. Default: the task is not mapped.
    :param began: how many seconds ago the scheduler started the task.
    :param try_number: of the task instance.
    :param ti_id: the id of the task instance. Default: another one.
    """
    encoded = DagSerialization.to_dict(dag)
    start = DagSerialization.from_dict(encoded).get_task("s").start_trigger_args
    assert start is not None
    row = Trigger(classpath=start.trigger_cls, kwargs=start.trigger_kwargs or {})  # as the scheduler stores it
    stored = Trigger._decrypt_kwargs(row.encrypted_kwargs)
    decode: Any = smart_decode_trigger_kwargs
    trigger = StartTrigger(**{key: decode(value) for key, value in stored.items()})
    dto = TaskInstanceDTO(
        id=ti_id or uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        dag_id="d",
        run_id="r",
        task_id="s",
        try_number=try_number,
        map_index=map_index,
        pool_slots=1,
        priority_weight=1,
    )
    instance: Any = TriggerRunner.create_runtime_ti(dto, encoded, DAG_RUN)
    trigger.task_instance = instance
    seconds = timedelta(seconds=trigger.seconds - began)
    trigger.timeout_after = datetime.now(UTC) + seconds  # type: ignore[attr-defined]  # like the triggerer
    return trigger
