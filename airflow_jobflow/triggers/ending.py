"""The end of a task in the triggerer: what a worker would leave behind, left from here.

Only where all has gone well and nothing would be lost (see ``trigger_eligibility``); for all else a worker is woken.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TaskSuccessEvent

from airflow_jobflow.aws import ONCE, Access, run_blocking, service_client
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.links import KEY, pages
from airflow_jobflow.outcomes import OutcomeBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

OUTCOME, OUTCOMES, NOTHING = "outcome", "outcomes", "nothing"
"""What a task returns: the outcome of its one job, a list of outcomes, or nothing, as ``do_xcom_push=False`` says."""


async def success(
    task_instance: Any,
    access: Access,
    service: str,
    seen: Sequence[Snapshot],
    returns: str,
    *,
    noted: Mapping[str, str] | None = None,
) -> TaskSuccessEvent | None:
    """Return the event that ends a task, if its jobs have succeeded and all that a worker would leave can be left.

    :param task_instance: the task instance.
    :param access: whom to ask for what a sweep does not tell.
    :param service: our name of the service.
    :param seen: the last snapshots of the jobs, in the order in which the task names them.
    :param returns: one of the words above.
    :param noted: the URLs that the task's buttons find already; None for none.
    """
    if any(snapshot.state is not JobState.SUCCEEDED for snapshot in seen):
        return None
    links: dict[str, Any] = {}
    try:
        if returns != NOTHING:
            several = returns == OUTCOMES
            links = await asyncio.to_thread(_leave, task_instance, access, service, seen, several=several)
    except Exception as error:  # noqa: BLE001 -- whatever AWS or an XCom backend raises, a worker tries it again
        log.warning("The triggerer could not end the task, so a worker will: %s", error)
        return None
    return TaskSuccessEvent(xcoms={KEY: links} if links and links != noted else {})


def _leave(
    task_instance: Any, access: Access, service: str, seen: Sequence[Snapshot], *, several: bool
) -> dict[str, str]:
    """Push the outcomes, as a worker would, and return the console's pages for the first job.

    Outcomes not with the event: the next task would read a dict as a str, and Airflow would write it past an XCom
    backend. Pages with it: the API server reads them, past any XCom backend, and the triggerer answers one request,
    such as a push, in each round of its loop, which takes the longer the more triggers there are.
    """
    from airflow.sdk.execution_time.xcom import XCom

    module = job_service(service)
    client = service_client(access, module.CLIENT)
    with_final_details = [
        run_blocking(client, module.with_final_details, snapshot, retry=ONCE) for snapshot in seen
    ]  # else a worker asks
    outcome_builder = OutcomeBuilder(service=service, module=module, access=access, log_lines=0)
    outcomes = [outcome_builder.outcome(snapshot).to_dict() for snapshot in with_final_details]
    XCom.set(
        key="return_value",
        value=outcomes if several else outcomes[0],
        dag_id=task_instance.dag_id,
        task_id=task_instance.task_id,
        run_id=task_instance.run_id,
        map_index=task_instance.map_index,
    )
    return pages(service, with_final_details[0])
