"""How jobs are started with tags, or without them if the role may not tag, and errors of starts.

A role that may submit jobs may lack the permission to tag them. AWS then denies the whole request, and starts nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.calls import Call

log = logging.getLogger(__name__)

LOOKUPS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each lookup of a job whose submit response was lost: AWS lists new jobs with a delay."""


class NotStarted(Exception):
    """The service responded to a start without an error, and started nothing.

    :param message: the service's reason.
    :param fault: what the reason means.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message, fault)
        self.fault = fault

    @property
    def may_pass(self) -> bool:
        """Whether a later start may succeed."""
        return self.fault in (Fault.NO_CAPACITY, Fault.THROTTLED, Fault.TRANSIENT)

    def __str__(self) -> str:
        return str(self.args[0])


def start_tagged(
    call: Call, start: Callable[[Call, Mapping[str, Any]], str], request: Mapping[str, Any], tagged: Mapping[str, Any]
) -> str:
    """Start a job, and return its id. If AWS denies the tags, this and the following jobs are started without them.

    :param call: makes the API calls.
    :param start: sends a request, and returns the id of the job.
    :param request: the request without the owner's tags.
    :param tagged: the request with the owner's tags.
    :raises CallError: as ``start``.
    """
    if call.may_tag:
        try:
            return start(call, tagged)
        except CallError as error:
            if not concerns_tags(error) or tagged == request:
                raise
            call.may_tag = False
            log.warning(
                "Jobs are started without tags, so the orphan reaper will not find them: the role may not tag (%s)",
                error,
            )
    return start(call, request)


def concerns_tags(error: CallError) -> bool:
    """Return whether AWS has refused the tags of a request rather than the request itself.

    :param error: the refusal.
    """
    is_denied = error.fault is Fault.DENIED and "TagResource" in error.message
    # ECS cannot tag tasks in accounts that still use the old ARN format.
    return is_denied or (error.fault is Fault.REJECTED and "ARN and resource ID format" in error.message)
