"""Metrics of a triggerer's watchers, sent as Airflow's own: to StatsD or OpenTelemetry, as configured in ``[metrics]``.

For each service, by our name of it:

=================================  =======  ===========================================================================
``jobflow.<service>.describe_calls``  counter  describe calls made
``jobflow.<service>.described_jobs``  counter  jobs in these calls; divided by the calls, how many share a call
``jobflow.<service>.throttled_calls`` counter  describe calls that AWS has throttled
``jobflow.<service>.calls_per_second`` gauge   the current rate limit of all watchers of the service
``jobflow.<service>.waits``           gauge    waits that the watchers serve
``jobflow.<service>.end_to_event``    timer    from a job's end, as AWS reports it, to the event that ends the wait; for
                                               several jobs, from the last end
``jobflow.<service>.vcpu_seconds``    counter  vCPU-seconds that jobs used, when their task ends; likewise
                                               ``gib_seconds``, ``gpu_seconds``, ``dpu_seconds`` and ``queued_seconds``
=================================  =======  ===========================================================================

The first six are sent in a triggerer only. A wait in a worker (``deferrable=False``) lasts as long as its task.

``aws.calls`` counts every request to AWS, in workers too, by boto3's name of the service:
``jobflow.aws.<service>.calls``, and for failed ones ``jobflow.aws.<service>.<fault>``, see ``faults.Fault``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_jobflow.airflow_compat.metrics import stats
from airflow_jobflow.faults import CallError, Fault

if TYPE_CHECKING:
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.polling.watcher import Describe, Watcher


def measured(describe: Describe[Snapshot], service: str, publish_gauges: Callable[[], None]) -> Describe[Snapshot]:
    """Return a ``describe`` function that counts its calls.

    :param describe: the function that makes the calls.
    :param service: our name of the service, such as ``batch``.
    :param publish_gauges: called before each call.
    """

    async def call(job_ids: Sequence[str]) -> Mapping[str, Snapshot | None]:
        publish_gauges()
        stats.incr(f"jobflow.{service}.describe_calls")
        stats.incr(f"jobflow.{service}.described_jobs", len(job_ids))
        try:
            return await describe(job_ids)
        except CallError as error:
            if error.fault is Fault.THROTTLED:
                stats.incr(f"jobflow.{service}.throttled_calls")
            raise

    return call


def publish_gauges(watchers: Iterable[Watcher[Snapshot]], service: str) -> None:
    """Send the gauges of a service.

    :param watchers: all watchers of the service.
    :param service: our name of the service, such as ``batch``.
    """
    watchers = list(watchers)
    stats.gauge(f"jobflow.{service}.calls_per_second", sum(each.calls_per_second for each in watchers))
    stats.gauge(f"jobflow.{service}.waits", sum(each.waits for each in watchers))


def publish_delay(service: str, seen: Iterable[Snapshot], since: float) -> None:
    """Send how long ago the last job of a wait has ended. Call it when the wait ends.

    :param service: our name of the service, such as ``batch``.
    :param seen: the last snapshots of the wait's jobs.
    :param since: when the wait began, in seconds since the epoch. Nothing is sent if all jobs ended before that.
    """
    ends = [datetime.fromisoformat(each.stopped_at).timestamp() for each in seen if each.stopped_at]
    if ends and max(ends) >= since:
        stats.timing(f"jobflow.{service}.end_to_event", max(time.time() - max(ends), 0.0) * 1000)


def publish_usage(service: str, usage: Mapping[str, Any] | None) -> None:
    """Send what jobs used. Call it once for each task, when it ends.

    :param service: our name of the service, such as ``batch``.
    :param usage: a dict of ``jobs.usage.Usage``; None if it is not known.
    """
    for name, seconds in (usage or {}).items():
        if name.endswith("_seconds") and seconds:
            stats.incr(f"jobflow.{service}.{name}", round(seconds))
