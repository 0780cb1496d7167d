"""The end of a task in the triggerer: it stores what a worker would store.

Only for a task whose jobs have reached their target and that loses nothing (see ``trigger_eligibility``). Every other
task is resumed on a worker.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TaskSuccessEvent

from airflow_jobflow.airflow_compat.xcoms import set_xcom
from airflow_jobflow.aws import ONCE, Access, run_blocking, service_client
from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.jobs.model import Snapshot
from airflow_jobflow.links import KEY, pages
from airflow_jobflow.metrics import publish_usage
from airflow_jobflow.outcomes import OutcomeBuilder
from airflow_jobflow.results import of_job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

OUTCOME, OUTCOMES, RESULT, NOTHING = "outcome", "outcomes", "result", "nothing"
"""What a task returns: the outcome of its one job, a list of outcomes, what the function of its job returned, or
nothing because of ``do_xcom_push=False``."""


async def success(
    task_instance: Any,
    access: Access,
    service: str,
    seen: Sequence[Snapshot],
    returns: str,
    *,
    noted: Mapping[str, str] | None = None,
    result: str | None = None,
) -> TaskSuccessEvent | None:
    """Push the task's result, and return the event that ends the task.

    :param task_instance: the task instance.
    :param access: the AWS connection to use for details that a poll does not return.
    :param service: our name of the service, such as ``batch``.
    :param seen: the last snapshots of the jobs, in the order in which the task names them.
    :param returns: what the task returns, one of the constants of this module.
    :param noted: the console URLs that are stored for the task already. Default None, for none.
    :param result: where the one job writes its result. Default None: it has none.
    :return: None if a worker must end the task, because its result could not be pushed.
    """
    links: dict[str, Any] = {}
    try:
        if returns != NOTHING:
            push = functools.partial(_push_result, returns=returns, result=result)
            links = await asyncio.to_thread(push, task_instance, access, service, seen)
    except Exception as error:  # noqa: BLE001 -- whatever AWS or an XCom backend raises, a worker tries again
        log.warning("Could not complete the task in the triggerer; resuming on a worker: %s", error)
        return None
    return TaskSuccessEvent(xcoms={KEY: links} if links and links != noted else {})


def _push_result(
    task_instance: Any,
    access: Access,
    service: str,
    seen: Sequence[Snapshot],
    *,
    returns: str,
    result: str | None,
) -> dict[str, str]:
    """Push the outcomes, as a worker would, and return the console URLs of the first job.

    The event does not carry the outcomes: the next task would read a dict as a str, and Airflow would bypass an XCom
    backend. The event carries the URLs: the API server reads them, bypassing any XCom backend, and a push is expensive,
    because the triggerer answers one request in each iteration of its loop.
    """
    module = job_service(service)
    client = service_client(access, module.CLIENT)
    with_final_details = [run_blocking(client, module.with_final_details, snapshot, retry=ONCE) for snapshot in seen]
    outcome_builder = OutcomeBuilder(service=service, module=module, access=access, log_lines=0)
    outcomes = [outcome_builder.outcome(snapshot).to_dict() for snapshot in with_final_details]
    if result is not None:  # once: a worker waits for one that arrives late, and decides about one that is missing
        returned = of_job(access, service, result, with_final_details[0], retry=ONCE, arrival=0.0)
        if returned.error:
            raise LookupError(returned.error)
        outcomes[0] |= returned.to_dict()
    for outcome in outcomes:
        publish_usage(service, outcome["usage"])
    value = {OUTCOMES: outcomes, OUTCOME: outcomes[0], RESULT: outcomes[0].get("result")}[returns]
    if value is not None:  # as Airflow on a worker
        set_xcom(task_instance, "return_value", value)
    return pages(service, with_final_details[0])
