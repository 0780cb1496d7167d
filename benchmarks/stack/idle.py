"""The cost of a wait in Airflow itself: a sensor and a trigger that do nothing, started like ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TriggerEvent


class IdleTrigger(BaseTrigger):
    """Waits forever for nothing."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, without arguments."""
        return f"{__name__}.IdleTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait."""
        await asyncio.Event().wait()
        yield TriggerEvent({})  # type: ignore[no-untyped-call]  # Airflow's is untyped


START: Any = StartTriggerArgs(
    trigger_cls=f"{__name__}.IdleTrigger", trigger_kwargs={}, next_method="execute_complete", timeout=None
)


class IdleSensor(BaseSensorOperator):
    """Starts in the triggerer; for ``partial(start_from_trigger=True, start_trigger_args=START)``.

    :param job_id: what its instances are mapped over.
    """

    template_fields = ("job_id",)

    def __init__(
        self, *, job_id: str, start_from_trigger: bool = False, start_trigger_args: object = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.start_from_trigger = start_from_trigger
        self.start_trigger_args = start_trigger_args  # type: ignore[assignment]  # as Airflow passes it
