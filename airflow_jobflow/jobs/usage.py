"""What jobs used: vCPU-, GiB-, GPU- and DPU-seconds, from what describe calls return anyway. Pure.

A snapshot of a job that has ended says how much of each it had, and for how long it ran. Children of an array are not
described, so what they used is estimated from the array's counts: see ``ArrayRunTime``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_jobflow.jobs.model import ArrayProgress, Snapshot

UNITS = ("vcpu", "gib", "gpu", "dpu")
"""What is counted, as in ``Snapshot.resources``. A price is per hour: ``vcpu_hour``."""

SUMMED = ("queued_seconds", "cost", *(f"{unit}_seconds" for unit in UNITS))
"""The members of ``Usage`` that can be added."""

Rates = Mapping[str, Mapping[str, float]]
"""Prices by unit (``vcpu_hour``, ``gib_hour``, ``gpu_hour``, ``dpu_hour``), for the name of a queue or cluster, a type
of capacity, or one of our names of the services."""

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job used, or the jobs of an array or a map together.

    :param vcpu_seconds: vCPUs multiplied by the seconds for which the job ran. For an ECS task, these begin when it
        pulls its image, as on AWS's bill. All attempts that AWS made of the job count.
    :param gib_seconds: the same for GiB of memory.
    :param gpu_seconds: the same for GPUs.
    :param dpu_seconds: the same for DPUs of Glue; of a run with auto scaling or on FLEX, as Glue counts them.
    :param queued_seconds: how long the job existed without running: it was queued, or being started. For a map, the sum
        over its items. None for arrays.
    :param capacity: the type of capacity, as AWS calls it: ``FARGATE``, ``EC2``, ``EXTERNAL`` or the name of the
        capacity provider for ECS, ``STANDARD`` or ``FLEX`` for Glue runs. Several types, in a map, are joined by ``+``.
        None for Batch, where only the compute environment has it.
    :param estimated: whether the seconds are an estimate, because not every job was described.
    :param cost: what ``[jobflow] rates`` make of it, in the currency of the rates; None without rates.
    """

    vcpu_seconds: float | None = None
    gib_seconds: float | None = None
    gpu_seconds: float | None = None
    dpu_seconds: float | None = None
    queued_seconds: float | None = None
    capacity: str | None = None
    estimated: bool = False
    cost: float | None = None

    def scaled(self, factor: float) -> Usage:
        """Return an estimate for more jobs of the same kind.

        :param factor: how many times as many.
        """
        scaled: dict[str, Any] = {
            name: _rounded(value * factor) for name in SUMMED if (value := getattr(self, name)) is not None
        }
        return replace(self, estimated=True, **scaled)


def usage(snapshot: Snapshot, service: str, rates: Rates) -> Usage | None:
    """Return what a job used.

    :param snapshot: the last one of a job that has ended.
    :param service: our name of the service, such as ``batch``.
    :param rates: what it costs; empty for no costs.
    :return: None if that is not known.
    """
    if snapshot.run_seconds is None or snapshot.resources is None:
        return None
    used = {unit: amount * snapshot.run_seconds for unit, amount in snapshot.resources.items()}
    queue = (snapshot.queue or "").rpartition("/")[2]
    prices = next((rates[key] for key in (queue, snapshot.capacity, service) if key and key in rates), None)
    cost = None if prices is None else sum(used[unit] / HOUR * prices.get(f"{unit}_hour", 0.0) for unit in used)
    seconds = {f"{unit}_seconds": _rounded(value) for unit, value in used.items()}
    is_array = snapshot.array is not None
    queued = None if is_array else _between(snapshot.created_at, snapshot.stopped_at)
    return Usage(
        **seconds,
        queued_seconds=None if queued is None else _rounded(max(queued - snapshot.run_seconds, 0.0)),
        capacity=snapshot.capacity,
        estimated=is_array,
        cost=None if cost is None else round(cost, 6),
    )


def total(usages: Iterable[Usage | None]) -> Usage | None:
    """Return what several jobs used together. Values that no job has stay None.

    :param usages: of the jobs; None for a job whose usage is not known, which makes the sum an estimate.
    :return: None if it is not known of any.
    """
    every = list(usages)
    known = [each for each in every if each is not None]
    if not known:
        return None
    values = {name: [value for each in known if (value := getattr(each, name)) is not None] for name in SUMMED}
    return Usage(
        **{name: round(sum(numbers), 6) for name, numbers in values.items() if numbers},
        capacity="+".join(sorted({kind for each in known if each.capacity for kind in each.capacity.split("+")}))
        or None,
        estimated=len(known) < len(every) or any(each.estimated for each in known),
    )


class ArrayRunTime:
    """Estimates for how long the children of an array ran, all together, from how many of them ran at a time.

    Children that had ended before the first update count as if they had run as long as the others.
    """

    def __init__(self) -> None:
        self._first_done = self._running = 0
        self._since: float | None = None
        self._seconds = 0.0

    def updated(self, array: ArrayProgress, now: float) -> float | None:
        """Record the array's counts, and return the seconds so far.

        :param array: the counts.
        :param now: when they were described, in seconds by any clock.
        :return: None if no child was seen to run.
        """
        if self._since is None:
            self._first_done = array.done
        else:
            self._seconds += self._running * (now - self._since)
        self._running, self._since = array.running, now
        if not self._seconds or array.done <= self._first_done:
            return None
        return self._seconds * array.done / (array.done - self._first_done)


def parse_rates(text: str) -> dict[str, dict[str, float]]:
    """Return the rates in the setting ``[jobflow] rates``.

    :param text: JSON; empty for none.
    :raises ValueError: the text is invalid; the message says what is expected.
    """
    if not text.strip():
        return {}
    prices = {f"{unit}_hour" for unit in UNITS}
    try:
        rates = json.loads(text)
        valid = all(
            each.keys() <= prices and all(_is_price(value) for value in each.values()) for each in rates.values()
        )
    except (ValueError, AttributeError):
        valid = False
    if not valid:
        expected = '{"FARGATE": {"vcpu_hour": 0.04, "gib_hour": 0.004}}'
        raise ValueError(f"must be JSON such as {expected}, with {', '.join(sorted(prices))} as prices")
    return dict(rates)


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _between(start: str | None, end: str | None) -> float | None:
    """Return the seconds between two times in ISO 8601; None if one is not known."""
    if start is None or end is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
