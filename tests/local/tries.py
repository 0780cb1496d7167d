"""The tries of one task instance: how a retry and a clear change its context, and how a worker dies."""

from __future__ import annotations

import uuid
from operator import attrgetter
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow.operators import submission
from airflow_jobflow.operators.base import AwsJobOperator

RESPONSE = "the response to the submit"
"""A point at which a worker dies: AWS has started the job, but the task has not received the response."""


class Killed(BaseException):
    """The worker's process ends here, and no code of it runs any more."""


def retried(context: Any) -> Any:
    """Return the same task in its next try: Airflow gives it a new id."""
    context["ti"].try_number += 1
    context["ti"].id = str(uuid.uuid4())
    return context


def cleared(context: Any, *, changes_max_tries: bool = True) -> Any:
    """Return the same task after a user's clear.

    :param changes_max_tries: whether Airflow increases max_tries; it does not if `retries` was lowered meanwhile.
    """
    context["dag_run"].clear_number += 1
    if changes_max_tries:
        context["ti"].max_tries += 1
    return retried(context)


def end_worker(*_: Any, **__: Any) -> None:
    """End the worker's process."""
    raise Killed


def killed(operator: AwsJobOperator, at: str, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute an operator, and die before a call of a method of it or one of its objects, or at `RESPONSE`."""
    submit_once: Any = submission.submit_once

    def submits_and_dies(*arguments: Any, **options: Any) -> None:
        submit_once(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        if at == RESPONSE:
            patch.setattr(submission, "submit_once", submits_and_dies)
        else:
            *path, method = at.split(".")
            patch.setattr(attrgetter(".".join(path))(operator) if path else operator, method, end_worker)
        with pytest.raises(Killed):
            operator.execute(context)


def deferred(operator: AwsJobOperator, context: Any) -> TaskDeferred:
    """Execute an operator until it defers, where the worker's part ends."""
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(context)
    return raised.value


def resumed(operator: AwsJobOperator, deferral: TaskDeferred, event: Any, context: Any) -> Any:
    """Continue after a deferral on another worker, like Airflow."""
    return operator.resume_execution(deferral.method_name, {**(deferral.kwargs or {}), "event": event}, context)
