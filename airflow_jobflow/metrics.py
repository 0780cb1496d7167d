"""What the watchers of a triggerer do, in Airflow's own metrics: StatsD or OpenTelemetry, as ``[metrics]`` says.

Of each service, by our name of it:

=================================  =======  ===========================================================================
``jobflow.<service>.describe_calls``  counter  describe calls made
``jobflow.<service>.described_jobs``  counter  jobs asked for in them; divided by the calls, how well they are shared
``jobflow.<service>.throttled_calls`` counter  calls that AWS has throttled
``jobflow.<service>.calls_per_second`` gauge   the pace that all watchers of the service allow themselves now
``jobflow.<service>.waits``           gauge    waits that they answer
``jobflow.<service>.end_to_event``    timer    from a job's end, as AWS tells it, to the event that ends the wait; of
                                               several jobs, the last one's
=================================  =======  ===========================================================================

Only in a triggerer: a wait in a worker (``deferrable=False``) is measured by its task.

``aws.calls`` counts every request to AWS, in workers too, by boto3's name of the service:
``jobflow.aws.<service>.calls`` and, of those that failed, ``jobflow.aws.<service>.<fault>``, see ``faults.Fault``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_jobflow.airflow_compat.metrics import stats
from airflow_jobflow.faults import CallError, Fault

if TYPE_CHECKING:
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.polling.watcher import Describe, Watcher


def measured(describe: Describe[Snapshot], service: str, tell: Callable[[], None]) -> Describe[Snapshot]:
    """Return ``describe`` such that its calls are counted.

    :param service: our name of the service.
    :param tell: called with each call, to tell how things stand.
    """

    async def call(job_ids: Sequence[str]) -> Mapping[str, Snapshot | None]:
        tell()
        stats.incr(f"jobflow.{service}.describe_calls")
        stats.incr(f"jobflow.{service}.described_jobs", len(job_ids))
        try:
            return await describe(job_ids)
        except CallError as error:
            if error.fault is Fault.THROTTLED:
                stats.incr(f"jobflow.{service}.throttled_calls")
            raise

    return call


def tell(watchers: Iterable[Watcher[Snapshot]], service: str) -> None:
    """Tell how much the watchers of a service have to do.

    :param watchers: all of them.
    """
    watchers = list(watchers)
    stats.gauge(f"jobflow.{service}.calls_per_second", sum(each.calls_per_second for each in watchers))
    stats.gauge(f"jobflow.{service}.waits", sum(each.waits for each in watchers))


def ended(service: str, seen: Iterable[Snapshot], since: float) -> None:
    """Tell how long ago the last of the jobs has ended whose wait ends now; the others' ends it has waited on from.

    :param since: when the wait began, in seconds since the epoch. Of an end before that, nothing was to be seen here.
    """
    ends = [datetime.fromisoformat(each.stopped_at).timestamp() for each in seen if each.stopped_at]
    if ends and max(ends) >= since:
        stats.timing(f"jobflow.{service}.end_to_event", max(time.time() - max(ends), 0.0) * 1000)
