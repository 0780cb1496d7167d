"""The tries of one task instance: what changes in its context with a retry and with a clear, and how one dies."""

from __future__ import annotations

import uuid
from operator import attrgetter
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow.operators import submission
from airflow_jobflow.operators.base import AwsJobOperator

RESPONSE = "the response to the submit"
"""A point at which a worker dies: AWS has started the job, and the task has not taken note of it."""


class Killed(BaseException):
    """The worker's process ends here, without a chance to do anything about it."""


def retried(context: Any) -> Any:
    """The same task, in its next try: Airflow gives it a new id."""
    context["ti"].try_number += 1
    context["ti"].id = str(uuid.uuid4())
    return context


def cleared(context: Any, *, changes_max_tries: bool = True) -> Any:
    """The same task, after a user's clear.

    :param changes_max_tries: whether Airflow gives it more tries, which it does not if `retries` was lowered meanwhile.
    """
    context["dag_run"].clear_number += 1
    if changes_max_tries:
        context["ti"].max_tries += 1
    return retried(context)


def dies(*_: Any, **__: Any) -> None:
    """End the worker's process."""
    raise Killed


def killed(operator: AwsJobOperator, at: str, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute, and die before a method is called, of the operator or of an object that it has; or at `RESPONSE`."""
    submit_once: Any = submission.submit_once

    def submits_and_dies(*arguments: Any, **options: Any) -> None:
        submit_once(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        if at == RESPONSE:
            patch.setattr(submission, "submit_once", submits_and_dies)
        else:
            *path, method = at.split(".")
            patch.setattr(attrgetter(".".join(path))(operator) if path else operator, method, dies)
        with pytest.raises(Killed):
            operator.execute(context)


def deferred(operator: AwsJobOperator, context: Any) -> TaskDeferred:
    """Execute up to the deferral, where the worker's part ends."""
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(context)
    return raised.value


def resumed(operator: AwsJobOperator, deferral: TaskDeferred, event: Any, context: Any) -> Any:
    """Continue after a deferral on another worker, as Airflow does."""
    return operator.resume_execution(deferral.method_name, {**(deferral.kwargs or {}), "event": event}, context)
