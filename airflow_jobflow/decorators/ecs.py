"""``@task.fargate`` and ``@task.ecs``: a Python function runs in an ECS task; with ``_map``, one for each element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow.decorators.base import FUNCTION_RULES, RunsFunction, decorator
from airflow_jobflow.jobs.environment import MAX_OVERRIDES_LENGTH
from airflow_jobflow.operators.ecs import (
    EcsMapOperator,
    EcsTaskOperator,
    FargateMapOperator,
    FargateTaskOperator,
)

if TYPE_CHECKING:
    from airflow_jobflow.airflow_compat.decorators import TaskDecorator
    from airflow_jobflow.decorators.base import MapDecorator
    from airflow_jobflow.operators.ecs_map_spec import EcsMapSpec
    from airflow_jobflow.operators.ecs_spec import EcsTaskSpec
    from airflow_jobflow.waiting.trigger_start import StartRules


class _EcsFunction(RunsFunction):
    OVERRIDES: ClassVar = ("overrides", MAX_OVERRIDES_LENGTH)


class _FargateFunctionOperator(_EcsFunction, FargateTaskOperator):
    start_rules: ClassVar[StartRules] = FUNCTION_RULES
    custom_operator_name = "@task.fargate"
    template_fields: Sequence[str] = (*RunsFunction.template_fields, *FargateTaskOperator.template_fields)

    def _job_spec(self) -> EcsTaskSpec:
        return self.with_function(super()._job_spec)


class _FargateFunctionMapOperator(_EcsFunction, FargateMapOperator):
    start_rules: ClassVar[StartRules] = FUNCTION_RULES
    custom_operator_name = "@task.fargate_map"
    template_fields: Sequence[str] = (*RunsFunction.template_fields, *FargateMapOperator.template_fields)
    is_map = True

    def _map_spec(self) -> EcsMapSpec:
        return self.with_function(super()._map_spec)


class _EcsFunctionOperator(_EcsFunction, EcsTaskOperator):
    start_rules: ClassVar[StartRules] = FUNCTION_RULES
    custom_operator_name = "@task.ecs"
    template_fields: Sequence[str] = (*RunsFunction.template_fields, *EcsTaskOperator.template_fields)

    def _job_spec(self) -> EcsTaskSpec:
        return self.with_function(super()._job_spec)


class _EcsFunctionMapOperator(_EcsFunction, EcsMapOperator):
    start_rules: ClassVar[StartRules] = FUNCTION_RULES
    custom_operator_name = "@task.ecs_map"
    template_fields: Sequence[str] = (*RunsFunction.template_fields, *EcsMapOperator.template_fields)
    is_map = True

    def _map_spec(self) -> EcsMapSpec:
        return self.with_function(super()._map_spec)


def fargate_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Run a Python function in a Fargate task. In DAGs, this is ``@task.fargate``.

    :param python_callable: the function. Default None: the decorator has parameters.
    :param kwargs: parameters of :class:`airflow_jobflow.operators.ecs.FargateTaskOperator`, with ``result`` ``log`` by
        default, and ``result_required`` True; ``serializer``, ``python_command`` and ``multiple_outputs``.
    :raises TypeError: the function cannot run in a container; the message says why.
    """
    made: TaskDecorator = decorator(_FargateFunctionOperator, python_callable, **kwargs)
    return made


def fargate_map_task(**kwargs: Any) -> MapDecorator:
    """Run a Python function in Fargate tasks, one for each element of its first argument: ``@task.fargate_map``.

    :param kwargs: parameters of :class:`airflow_jobflow.operators.ecs.FargateMapOperator` without ``items``, with
        ``result_required`` True by default; ``serializer`` and ``python_command``.
    :raises TypeError: the function cannot run in a container; the message says why.
    """
    made: MapDecorator = decorator(_FargateFunctionMapOperator, None, **kwargs)
    return made


def ecs_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Run a Python function in an ECS task on any capacity. In DAGs, this is ``@task.ecs``.

    :param python_callable: the function. Default None: the decorator has parameters.
    :param kwargs: parameters of :class:`airflow_jobflow.operators.ecs.EcsTaskOperator`, and those of
        :func:`fargate_task`.
    :raises TypeError: the function cannot run in a container; the message says why.
    """
    made: TaskDecorator = decorator(_EcsFunctionOperator, python_callable, **kwargs)
    return made


def ecs_map_task(**kwargs: Any) -> MapDecorator:
    """Run a Python function in ECS tasks on any capacity, one for each element: ``@task.ecs_map``.

    :param kwargs: parameters of :class:`airflow_jobflow.operators.ecs.EcsMapOperator` without ``items``, and those of
        :func:`fargate_map_task`.
    :raises TypeError: the function cannot run in a container; the message says why.
    """
    made: MapDecorator = decorator(_EcsFunctionMapOperator, None, **kwargs)
    return made
