"""``@task.batch`` and ``@task.batch_map``: a Python function runs in a Batch job, or one for each element."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow.decorators.base import FUNCTION_RULES, RunsFunction, decorator
from airflow_jobflow.jobs.environment import MAX_BATCH_OVERRIDES_LENGTH
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator

if TYPE_CHECKING:
    from airflow_jobflow.airflow_compat.decorators import TaskDecorator
    from airflow_jobflow.decorators.base import MapDecorator
    from airflow_jobflow.operators.batch_map_spec import BatchMapSpec
    from airflow_jobflow.operators.batch_spec import BatchJobSpec
    from airflow_jobflow.waiting.trigger_start import StartRules


NOT_IN_NAMES = re.compile("[^a-zA-Z0-9_]+")
"""Matches what Python allows in the name of a function, and Batch does not in that of a job."""


class _BatchFunction(RunsFunction):
    OVERRIDES: ClassVar = ("container_overrides", MAX_BATCH_OVERRIDES_LENGTH)

    def __init__(self, *, python_callable: Callable[..., Any], job_name: str | None = None, **kwargs: Any) -> None:
        name = job_name or NOT_IN_NAMES.sub("-", python_callable.__name__).strip("_-")[:128] or "function"
        super().__init__(python_callable=python_callable, job_name=name, **kwargs)


class _BatchFunctionOperator(_BatchFunction, BatchJobOperator):
    start_rules: ClassVar[StartRules] = FUNCTION_RULES
    custom_operator_name = "@task.batch"
    template_fields: Sequence[str] = (*RunsFunction.template_fields, *BatchJobOperator.template_fields)

    def _job_spec(self) -> BatchJobSpec:
        return self.with_function(super()._job_spec)


class _BatchFunctionMapOperator(_BatchFunction, BatchMapOperator):
    start_rules: ClassVar[StartRules] = FUNCTION_RULES
    custom_operator_name = "@task.batch_map"
    template_fields: Sequence[str] = (*RunsFunction.template_fields, *BatchMapOperator.template_fields)
    is_map = True

    def _map_spec(self) -> BatchMapSpec:
        return self.with_function(super()._map_spec)


def batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Run a Python function in a Batch job. In DAGs, this is ``@task.batch``.

    :param python_callable: the function. Default None: the decorator has parameters.
    :param kwargs: parameters of :class:`airflow_jobflow.operators.batch.BatchJobOperator`, with ``job_name`` the name
        of the function by default, ``result`` ``log``, and ``result_required`` True; ``serializer``, ``python_command``
        and ``multiple_outputs``.
    :raises TypeError: the function cannot run in a container; the message says why.
    """
    made: TaskDecorator = decorator(_BatchFunctionOperator, python_callable, **kwargs)
    return made


def batch_map_task(**kwargs: Any) -> MapDecorator:
    """Run a Python function in Batch jobs, one for each element of its first argument. In DAGs, ``@task.batch_map``.

    :param kwargs: parameters of :class:`airflow_jobflow.operators.batch.BatchMapOperator` without ``items``, with
        ``job_name`` the name of the function by default, and ``result_required`` True; ``serializer`` and
        ``python_command``.
    :raises TypeError: the function cannot run in a container; the message says why.
    """
    made: MapDecorator = decorator(_BatchFunctionMapOperator, None, **kwargs)
    return made
