"""Environment variables in container overrides of ECS and Batch.

Ours are added to the user's: the address for the result and, if there is room, the variables that name the Airflow
task. The user's values take precedence.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.calls import Call

RESULT_ARGUMENT = "--jobflow_result_uri"
"""The argument of a Glue run with the address for its result."""

log = logging.getLogger(__name__)

MAX_OVERRIDES_LENGTH = 8192
"""The most characters of overrides that ECS takes."""

MAX_BATCH_OVERRIDES_LENGTH = MAX_OVERRIDES_LENGTH - 1024
"""The same for Batch, which adds variables of its own, with names of up to 128 characters."""

RESULT_URI = "JOBFLOW_RESULT_URI"
"""The variable with the address to which a job writes its result."""


def variables(container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that the overrides of a container set, by name.

    :param container: the overrides.
    """
    return {each["name"]: each.get("value", "") for each in container.get("environment", [])}


def with_variables(container: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides of a container with more variables, which replace those of the same name.

    :param container: the overrides.
    :param more: the variables by name; values are converted to text.
    """
    values = variables(container) | {name: str(value) for name, value in more.items()}
    return {**container, "environment": [{"name": name, "value": value} for name, value in values.items()]}


def with_context(
    container: Mapping[str, Any], context: Mapping[str, str], room: int
) -> tuple[dict[str, Any], list[str]]:
    """Return the overrides of a container with Airflow's variables, and the names of those that did not fit.

    :param container: the overrides. Variables that they set stay as they are.
    :param context: the variables by name, the most important first.
    :param room: how many more characters the overrides may have.
    """
    own, added, left_out = variables(container), {}, []
    if "environment" not in container:
        room -= len(', "environment": []')
    for name, value in context.items():
        size = len(json.dumps({"name": name, "value": value})) + len(", ")
        if name in own:
            continue
        if size > room:
            left_out.append(name)
        else:
            added[name], room = value, room - size
    return (with_variables(container, added) if added else dict(container)), left_out


def of_item(container: Mapping[str, Any], job_group: Mapping[str, Any], index: int, room: int) -> dict[str, Any]:
    """Return the overrides of a map's container with the address for its item's result, and the map's context.

    :param container: the overrides.
    :param job_group: of the map; ``result``, ``variables`` and ``context`` may be missing.
    :param index: of the item.
    :param room: how many more characters the overrides may have.
    """
    more = dict(job_group.get("variables", {}))
    if uri := job_group.get("result"):
        more[RESULT_URI] = f"{uri}/{index}"
    if more:
        before = len(json.dumps(container))
        container = with_variables(container, more)
        room -= len(json.dumps(container)) - before
    return with_context(container, job_group.get("context", {}), room)[0]


def start_without_if_rejected(
    call: Call, start: Callable[[Call, Mapping[str, Any]], str], request: Mapping[str, Any], plain: Mapping[str, Any]
) -> str:
    """Start a job, and return its id. If AWS rejects the overrides, it is started without Airflow's variables.

    Only the job definition says whether a job takes ``containerOverrides``: one of several nodes, of several
    containers, or on EKS does not.

    :param call: makes the API calls.
    :param start: sends a request, and returns the id of the job.
    :param request: the request with Airflow's variables.
    :param plain: the request without them.
    :raises CallError: as ``start``.
    """
    try:
        return start(call, request)
    except CallError as error:
        if request == plain or error.fault is not Fault.REJECTED or "override" not in error.message.lower():
            raise
        log.info("The job gets no AIRFLOW_CTX variables, because AWS rejected them: %s", error)
        return start(call, plain)
