"""The watchers of this process: one per service, connection, region and scope, shared by all waits for its jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from airflow.sdk import conf

from airflow_jobflow import metrics
from airflow_jobflow.aws import Access, Rate, full_jitter, run_paid, service_client
from airflow_jobflow.events.wakeup_queue import listen_for
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.polling.watcher import Watcher

_watchers: dict[tuple[asyncio.AbstractEventLoop, str, str, str | None], Watcher[Snapshot]] = {}


def shared_watcher(access: Access, service: str, scope: str | None, *, events: bool = False) -> Watcher[Snapshot]:
    """Return this event loop's watcher for the given jobs. Creates one if there is none, or if it has ended.

    :param access: the AWS connection to use.
    :param service: our name of the service, such as ``batch``.
    :param scope: the cluster or Glue job that describe calls name, if the service needs one; else None.
    :param events: whether to listen for events too, if an event queue is configured. For triggers in a triggerer, which
        is long-lived. Default False.
    """
    key = (asyncio.get_running_loop(), access.key, service, scope)
    if (existing := _watchers.get(key)) and not existing.ended:
        return existing
    module = job_service(service)
    client = service_client(access, module.CLIENT)

    async def describe(job_ids: Sequence[str]) -> Mapping[str, Snapshot | None]:
        return await run_paid(client, module.describe, job_ids, scope)

    def close() -> None:
        stop_listening()
        if _watchers.get(key) is watcher:
            del _watchers[key]
        publish_gauges()

    def publish_gauges() -> None:
        of_service = (each for (_, _, name, _), each in _watchers.items() if name == service)
        metrics.publish_gauges(of_service, service)

    watcher = _watchers[key] = Watcher(
        metrics.measured(describe, service, publish_gauges),
        client.turns(Rate.POLL),
        missing_grace=conf.getfloat("jobflow", "missing_grace"),
        denied_grace=conf.getfloat("jobflow", "denied_grace"),
        batch_size=module.BATCH_SIZE,
        jitter=full_jitter,
        close=close,
    )
    stop_listening = listen_for(watcher, access, service) if events else lambda: None
    return watcher
