"""The end of a task in the triggerer: what a worker would leave behind, left from here.

Only where all has gone well and nothing would be lost (see ``workerless``); for all else a worker is woken.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TaskSuccessEvent
from asgiref.sync import sync_to_async

from airflow_jobflow.aws import ATTEMPTS, Access, no_answer
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.links import pages
from airflow_jobflow.verdict import Judge

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

OUTCOME, OUTCOMES, NOTHING = "outcome", "outcomes", "nothing"
"""What a task returns: the outcome of its one job, a list of outcomes, or nothing, as ``do_xcom_push=False`` says."""


async def success(
    task_instance: Any, access: Access, service: str, seen: Sequence[Snapshot], returns: str
) -> TaskSuccessEvent | None:
    """Return the event that ends a task, if its jobs have succeeded and all that a worker would leave can be left.

    :param task_instance: the task instance.
    :param access: whom to ask for what a sweep does not tell.
    :param service: our name of the service.
    :param seen: the last snapshots of the jobs, in the order in which the task names them.
    :param returns: one of the words above.
    """
    if any(snapshot.state is not JobState.SUCCEEDED for snapshot in seen):
        return None
    try:
        xcoms = {} if returns == NOTHING else await sync_to_async(_xcoms, thread_sensitive=False)(
            access, service, seen, several=returns == OUTCOMES
        )  # fmt: skip
    except no_answer() as error:
        log.info("A worker asks once more for the details of the job: %s", error)
        return None
    if xcoms and _has_its_own_backend():
        # The event would have them written past it.
        await sync_to_async(_push, thread_sensitive=False)(task_instance, xcoms)
        xcoms = {}
    return TaskSuccessEvent(xcoms=xcoms)


def _xcoms(access: Access, service: str, seen: Sequence[Snapshot], *, several: bool) -> dict[str, Any]:
    """Build what a worker would push: the outcomes, and the console's pages for the first job."""
    module = job_service(service)

    def client(name: str = module.CLIENT) -> Any:
        return access.client(name, attempts=ATTEMPTS)

    settled = [module.settled(client, snapshot) for snapshot in seen]
    judge = Judge(service=service, module=module, client=client, log_lines=0)
    outcomes = [judge.outcome(snapshot).to_dict() for snapshot in settled]
    return {**pages(service, settled[0]), "return_value": outcomes if several else outcomes[0]}


def _has_its_own_backend() -> bool:
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.xcom import XCom

    return XCom is not BaseXCom


def _push(task_instance: Any, xcoms: Mapping[str, Any]) -> None:
    from airflow.sdk.execution_time.xcom import XCom

    for key, value in xcoms.items():
        XCom.set(
            key=key,
            value=value,
            dag_id=task_instance.dag_id,
            task_id=task_instance.task_id,
            run_id=task_instance.run_id,
            map_index=task_instance.map_index,
        )
