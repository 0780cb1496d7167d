"""Airflow's own minimum: a task that only waits for one of Airflow's timers, and ends in the triggerer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, Context
from airflow.triggers.base import StartTriggerArgs

from benchmarks.stack.plan import LONGEST, SHORTEST

SECONDS = timedelta(seconds=(SHORTEST + LONGEST) / 2)

START: Any = StartTriggerArgs(
    trigger_cls="airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
    trigger_kwargs={"delta": SECONDS, "end_from_trigger": True},
    next_method="execute_complete",
    timeout=None,
)


class DeferredTimer(BaseOperator):
    """Is deferred by a worker, and ends in the triggerer.

    :param given: what its instances are mapped over.
    """

    template_fields = ("given",)

    def __init__(self, *, given: dict[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.given = given

    def execute(self, context: Context) -> NoReturn:  # noqa: ARG002
        """Defer."""
        self.defer(trigger=TimeDeltaTrigger(SECONDS, end_from_trigger=True), method_name="execute_complete")


class StartedTimer(DeferredTimer):
    """Starts and ends in the triggerer; for ``partial(start_from_trigger=True, start_trigger_args=START)``."""

    def __init__(self, *, start_from_trigger: bool = False, start_trigger_args: object = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_from_trigger = start_from_trigger
        self.start_trigger_args = start_trigger_args  # type: ignore[assignment]  # as Airflow passes it
