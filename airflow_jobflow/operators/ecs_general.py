"""Operators for ECS tasks on any capacity. Import them from ``airflow_jobflow.operators.ecs``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from airflow_jobflow.links import EcsTaskLink, JobLogLink
from airflow_jobflow.operators.base import AwsJobOperator
from airflow_jobflow.operators.ecs_map_spec import EcsMapSpec
from airflow_jobflow.operators.ecs_parameters import ECS_PARAMETERS
from airflow_jobflow.operators.ecs_spec import EcsTaskSpec
from airflow_jobflow.operators.map import AwsMapOperator


class EcsTaskOperator(AwsJobOperator):
    """Run a task on ECS: on EC2 instances, external instances, managed instances or Fargate.

    Parameters mean what they mean in `RunTask <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/
    API_RunTask.html>`_; all are templated; what the user did not set is not sent, so that the task definition and the
    cluster decide. See also :class:`airflow_jobflow.operators.ecs.FargateTaskOperator`.

    :param cluster: name or ARN of the cluster.
    :param task_definition: family, family with revision, or ARN of a task definition that exists. Give either this, or
        ``image``, or ``definition``.
    :param image: an image. Its task definition is registered, once, under a name that has a hash of its content.
    :param job_role, execution_role: for ``image``: ARNs of the role that the task uses, and of the role that pulls the
        image and writes the log. Fargate requires the second one. Default None.
    :param log_group: for ``image``: the log group, which is created if the execution role, or the instance's, may do
        so. Default: ``/jobflow/ecs``.
    :param network_mode: for ``image``: ``bridge``, ``host``, ``awsvpc`` or ``none``. Default: ``awsvpc`` with
        ``subnets`` or ``network_configuration``, else ``bridge``.
    :param definition: the task definition to register, as the request of RegisterTaskDefinition. Its family becomes
        part of the family under which it is registered.
    :param command: the container's command, as a list of strings.
    :param environment: environment variables of the container, by name.
    :param container_name: the container that command, environment and gpus are for, by default the definition's first
        essential one; for ``image``, the name of its container, by default ``main``. If it is given, this container
        alone also decides whether the task has succeeded, and its exit code, reason and log count. Default: all
        essential containers must end with 0.
    :param cpu, memory: of the whole task, in CPU units (at least 128) and MiB. Default: as the definition says; for
        ``image`` no limit, and 512 MiB that the instance must have free.
    :param gpus: how many GPUs the container gets. Default: as the definition says; for ``image`` none.
    :param ephemeral_storage: GiB of the whole task, 20 to 200. Only on Fargate.
    :param overrides: everything that the short forms do not cover, for example several containers. A value that is set
        in both places is rejected.
    :param subnets, security_groups: lists of ids, for the network mode ``awsvpc``. Other network modes take none.
    :param assign_public_ip: whether the task gets a public address. Only on Fargate.
    :param network_configuration: the whole network configuration, in place of the three before.
    :param launch_type: ``EC2``, ``EXTERNAL`` or ``FARGATE``. Managed instances are used by their capacity provider.
        Default: as ``capacity_provider_strategy`` or the cluster's default strategy says.
    :param capacity_provider_strategy: AWS's list, or weights by provider: ``{"spot-instances": 4, "on-demand": 1}``.
        Default: the cluster's default strategy, if there is no ``launch_type``.
    :param placement_constraints, placement_strategy: lists in AWS's shape, which say on which instances tasks are
        placed. Fargate has no instances.
    :param on_spot_interruption: what to do when AWS takes a Spot instance back, or the instance of a task ends, which
        is not the task's fault: ``fail``, or ``retry``, an attempt on the same capacity. At most three times in one
        try of the task. Default ``retry``.
    :param platform_version: only on Fargate, as in RunTask.
    :param enable_execute_command, enable_ecs_managed_tags, propagate_tags: as in RunTask.
    :param group, reference_id, volume_configurations: as in RunTask.
    :param tags: tags of the task, by name.
    :param on_out_of_memory: what a retry changes if the task ran out of memory, such as ``{"memory": "x2", "max":
        61440}``: twice of what it had, 61,440 MiB at most. At ``max``, the Airflow task fails at once. The value of any
        of these may be set: ``cpu``, ``memory``, ``ephemeral_storage``, ``launch_type``,
        ``capacity_provider_strategy``, ``placement_constraints``, ``placement_strategy``, ``subnets``,
        ``security_groups``, ``assign_public_ip``, ``platform_version``. Default None: a retry changes nothing.
    :param on_capacity: the same if AWS took the capacity away or had none, such as ``{"capacity_provider_strategy":
        {"on-demand": 1}}``. After a Spot interruption, the next attempt follows within the same try.

    The other parameters are those of :class:`airflow_jobflow.operators.base.AwsJobOperator`.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`.
    """

    service: ClassVar[str] = "ecs"
    template_fields: Sequence[str] = (*AwsJobOperator.template_fields, *ECS_PARAMETERS)
    template_fields_renderers: ClassVar[dict[str, str]] = ECS_PARAMETERS.renderers
    operator_extra_links = (EcsTaskLink(), JobLogLink())
    ui_color = "#f7d5b5"

    def __init__(
        self,
        *,
        cluster: str,
        task_definition: str | None = None,
        image: str | None = None,
        definition: dict[str, Any] | str | None = None,
        job_role: str | None = None,
        execution_role: str | None = None,
        log_group: str | None = None,
        network_mode: str | None = None,
        command: Sequence[str] | str | None = None,
        environment: dict[str, str] | str | None = None,
        container_name: str | None = None,
        cpu: int | str | None = None,
        memory: int | str | None = None,
        gpus: int | str | None = None,
        ephemeral_storage: int | str | None = None,
        overrides: dict[str, Any] | str | None = None,
        subnets: Sequence[str] | str | None = None,
        security_groups: Sequence[str] | str | None = None,
        assign_public_ip: bool | str | None = None,
        network_configuration: dict[str, Any] | str | None = None,
        launch_type: str | None = None,
        capacity_provider_strategy: Sequence[dict[str, Any]] | dict[str, int] | str | None = None,
        placement_constraints: Sequence[dict[str, Any]] | str | None = None,
        placement_strategy: Sequence[dict[str, Any]] | str | None = None,
        on_spot_interruption: str = "retry",
        platform_version: str | None = None,
        enable_execute_command: bool | str | None = None,
        enable_ecs_managed_tags: bool | str | None = None,
        propagate_tags: str | None = None,
        tags: dict[str, str] | str | None = None,
        group: str | None = None,
        reference_id: str | None = None,
        volume_configurations: Sequence[dict[str, Any]] | str | None = None,
        on_out_of_memory: dict[str, Any] | str | None = None,
        on_capacity: dict[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.task_definition = task_definition
        self.image = image
        self.definition = definition
        self.job_role = job_role
        self.execution_role = execution_role
        self.log_group = log_group
        self.network_mode = network_mode
        self.command = command
        self.environment = environment
        self.container_name = container_name
        self.cpu = cpu
        self.memory = memory
        self.gpus = gpus
        self.ephemeral_storage = ephemeral_storage
        self.overrides = overrides
        self.subnets = subnets
        self.security_groups = security_groups
        self.assign_public_ip = assign_public_ip
        self.network_configuration = network_configuration
        self.launch_type = launch_type
        self.capacity_provider_strategy = capacity_provider_strategy
        self.placement_constraints = placement_constraints
        self.placement_strategy = placement_strategy
        self.on_spot_interruption = on_spot_interruption
        self.platform_version = platform_version
        self.enable_execute_command = enable_execute_command
        self.enable_ecs_managed_tags = enable_ecs_managed_tags
        self.propagate_tags = propagate_tags
        self.tags = tags
        self.group = group
        self.reference_id = reference_id
        self.volume_configurations = volume_configurations
        self.on_out_of_memory = on_out_of_memory
        self.on_capacity = on_capacity

    def _job_spec(self) -> EcsTaskSpec:
        return EcsTaskSpec(ECS_PARAMETERS.of(self), ECS_PARAMETERS)


class EcsMapOperator(AwsMapOperator):
    """Run one task for each item on any capacity of ECS, from one task instance.

    :param items: each may set ``command``, ``environment``, ``overrides``, ``cpu``, ``memory``, ``gpus``,
        ``ephemeral_storage``, ``tags``, ``container_name``.
    :param cluster, task_definition, command, environment, container_name: see :class:`EcsTaskOperator`.
    :param image, job_role, execution_role, log_group, network_mode, definition: see :class:`EcsTaskOperator`. The
        definition is the same for all items; sizes of an item override it.
    :param cpu, memory, gpus, ephemeral_storage, overrides: see :class:`EcsTaskOperator`.
    :param subnets, security_groups, assign_public_ip, network_configuration: see :class:`EcsTaskOperator`.
    :param launch_type, capacity_provider_strategy, platform_version: see :class:`EcsTaskOperator`.
    :param placement_constraints, placement_strategy, on_spot_interruption: see :class:`EcsTaskOperator`.
    :param enable_execute_command, enable_ecs_managed_tags, propagate_tags, tags: see :class:`EcsTaskOperator`.
    :param group, reference_id, volume_configurations: see :class:`EcsTaskOperator`.
    :param on_out_of_memory, on_capacity: see :class:`EcsTaskOperator`.

    The other parameters, and what is returned, are those of :class:`airflow_jobflow.operators.map.AwsMapOperator`.
    ECS describes a stopped task for about an hour, with the same consequences as for
    :class:`airflow_jobflow.operators.ecs.FargateMapOperator`.
    """

    service: ClassVar[str] = "ecs"
    template_fields: Sequence[str] = (*AwsMapOperator.template_fields, *ECS_PARAMETERS)
    template_fields_renderers: ClassVar[dict[str, str]] = {**ECS_PARAMETERS.renderers, "items": "json"}
    operator_extra_links = EcsTaskOperator.operator_extra_links
    ui_color = "#f7d5b5"

    def __init__(
        self,
        *,
        cluster: str,
        task_definition: str | None = None,
        image: str | None = None,
        definition: dict[str, Any] | str | None = None,
        job_role: str | None = None,
        execution_role: str | None = None,
        log_group: str | None = None,
        network_mode: str | None = None,
        command: Sequence[str] | str | None = None,
        environment: dict[str, str] | str | None = None,
        container_name: str | None = None,
        cpu: int | str | None = None,
        memory: int | str | None = None,
        gpus: int | str | None = None,
        ephemeral_storage: int | str | None = None,
        overrides: dict[str, Any] | str | None = None,
        subnets: Sequence[str] | str | None = None,
        security_groups: Sequence[str] | str | None = None,
        assign_public_ip: bool | str | None = None,
        network_configuration: dict[str, Any] | str | None = None,
        launch_type: str | None = None,
        capacity_provider_strategy: Sequence[dict[str, Any]] | dict[str, int] | str | None = None,
        placement_constraints: Sequence[dict[str, Any]] | str | None = None,
        placement_strategy: Sequence[dict[str, Any]] | str | None = None,
        on_spot_interruption: str = "retry",
        platform_version: str | None = None,
        enable_execute_command: bool | str | None = None,
        enable_ecs_managed_tags: bool | str | None = None,
        propagate_tags: str | None = None,
        tags: dict[str, str] | str | None = None,
        group: str | None = None,
        reference_id: str | None = None,
        volume_configurations: Sequence[dict[str, Any]] | str | None = None,
        on_out_of_memory: dict[str, Any] | str | None = None,
        on_capacity: dict[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.task_definition = task_definition
        self.image = image
        self.definition = definition
        self.job_role = job_role
        self.execution_role = execution_role
        self.log_group = log_group
        self.network_mode = network_mode
        self.command = command
        self.environment = environment
        self.container_name = container_name
        self.cpu = cpu
        self.memory = memory
        self.gpus = gpus
        self.ephemeral_storage = ephemeral_storage
        self.overrides = overrides
        self.subnets = subnets
        self.security_groups = security_groups
        self.assign_public_ip = assign_public_ip
        self.network_configuration = network_configuration
        self.launch_type = launch_type
        self.capacity_provider_strategy = capacity_provider_strategy
        self.placement_constraints = placement_constraints
        self.placement_strategy = placement_strategy
        self.on_spot_interruption = on_spot_interruption
        self.platform_version = platform_version
        self.enable_execute_command = enable_execute_command
        self.enable_ecs_managed_tags = enable_ecs_managed_tags
        self.propagate_tags = propagate_tags
        self.tags = tags
        self.group = group
        self.reference_id = reference_id
        self.volume_configurations = volume_configurations
        self.on_out_of_memory = on_out_of_memory
        self.on_capacity = on_capacity

    def _map_spec(self) -> EcsMapSpec:
        return EcsMapSpec(ECS_PARAMETERS.of(self), ECS_PARAMETERS)
