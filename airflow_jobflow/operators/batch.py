"""Operators for AWS Batch.

A map repeats the parameters of the single job in its constructor. Airflow reads the signature of each class, for
``default_args`` and ``partial``, and editors and type checkers show it; a shared base would be one more class to read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from airflow_jobflow.links import (
    BatchJobDefinitionLink,
    BatchJobLink,
    BatchJobQueueLink,
    JobLogLink,
)
from airflow_jobflow.operators.base import AwsJobOperator
from airflow_jobflow.operators.batch_map_spec import BatchMapSpec
from airflow_jobflow.operators.batch_parameters import PARAMETERS
from airflow_jobflow.operators.batch_spec import BatchJobSpec
from airflow_jobflow.operators.inputs import NOT_IN_CONTAINER_OVERRIDES
from airflow_jobflow.operators.map import AwsMapOperator


class BatchJobOperator(AwsJobOperator):
    """Run a job, or an array of jobs, on AWS Batch.

    Parameters mean what they mean in `SubmitJob <https://docs.aws.amazon.com/batch/latest/APIReference/
    API_SubmitJob.html>`_; all are templated; what the user did not set is not sent, so that the job definition decides.

    :param job_name: the job's name: 1 to 128 letters, digits, hyphens and underscores. A token of a few characters
        is appended, unless ``durable=False``.
    :param job_queue: name or ARN of the queue.
    :param job_definition: name, name with revision, or ARN of a job definition that exists. Give either this, or
        ``image``, or ``definition``.
    :param image: an image. Its job definition is registered, once, under a name that has a hash of its content.
    :param platform: for ``image``: ``FARGATE`` or ``EC2``, to match the queue's compute environments. Default: ``EC2``
        with ``gpus``, else ``FARGATE``.
    :param job_role, execution_role: for ``image``: ARNs of the role that the job uses, and of the role that pulls the
        image and writes the log. Fargate requires the second one. Default None.
    :param log_group: for ``image``: the log group. Default: ``/aws/batch/job``.
    :param assign_public_ip: for ``image`` on Fargate: whether the job gets a public address. Default: it does not.
    :param definition: the job definition to register, as the request of RegisterJobDefinition. Its name becomes part of
        the name under which it is registered.
    :param command: the container's command, as a list of strings: short for a part of ``container_overrides``.
    :param environment: environment variables of the container, by name, such as ``{"DAY": "{{ ds }}"}``: added to those
        in ``container_overrides``.
    :param vcpus, memory, gpus: the container's vCPUs, for example 0.25 or 4, its MiB, and its GPUs: short for its
        ``resourceRequirements`` in ``container_overrides``. Default: as the definition says; for ``image`` the smallest
        size that Fargate has, or 1 vCPU and 2048 MiB on EC2.
    :param container_overrides: everything about the container that the five parameters before it do not cover. A value
        that is set in both places is rejected.
    :param array_size: 1 to 10,000 for an array of so many children; each finds its index in
        ``AWS_BATCH_JOB_ARRAY_INDEX``. AWS has no array of one: 1 runs a plain job, without that variable, whose
        outcome is that of an array of one. Short for ``array_properties``.
    :param array_properties: the properties of an array, as AWS takes them.
    :param parameters: values for the definition's ``Ref::`` placeholders.
    :param depends_on: jobs to wait for in the queue, as ``[{"jobId": …, "type": …}]``.
    :param retry_strategy: how often, and when, Batch itself tries again.
    :param attempt_timeout: seconds, or a timedelta, of at least 60, after which Batch ends an attempt.
    :param tags, propagate_tags: tags of the job, and whether the ECS task gets them too.
    :param share_identifier, scheduling_priority_override: its position in a queue with fair shares.
    :param node_overrides, ecs_properties_override, eks_properties_override: as in SubmitJob.
    :param consumable_resource_properties_override: as in SubmitJob.
    :param container_name: of a job of several containers, the one whose exit code, reason and log count. Batch itself
        decides whether the job has failed. Default: the first essential one that failed by itself.
    :param on_out_of_memory: what a retry changes if the job ran out of memory, such as ``{"memory": "x2", "max":
        61440}``: twice of what the job had, 61,440 MiB at most. On Fargate, sizes are rounded up to those that it has.
        At ``max``, the task fails at once. The value of any of these may be set: ``job_queue``, ``memory``, ``vcpus``,
        ``gpus``, ``attempt_timeout``, ``retry_strategy``, ``share_identifier``, ``scheduling_priority_override``. With
        ``redrive``, it applies to each child by itself. Default None: a retry changes nothing.
    :param on_capacity: the same if AWS took the capacity away or had none, such as ``{"job_queue": "on-demand"}``.
        Another queue needs Airflow 3.3.
    :param on_timeout: the same if Batch ended the job after its attempt time-out, such as ``{"attempt_timeout":
        "x2"}``.

    The other parameters are those of :class:`airflow_jobflow.operators.base.AwsJobOperator`.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`.
    """

    service: ClassVar[str] = "batch"
    template_fields: Sequence[str] = (*AwsJobOperator.template_fields, *PARAMETERS)
    template_fields_renderers: ClassVar[dict[str, str]] = PARAMETERS.renderers
    operator_extra_links = (BatchJobLink(), JobLogLink(), BatchJobQueueLink(), BatchJobDefinitionLink())
    ui_color = "#f7d5b5"

    def __init__(
        self,
        *,
        job_name: str,
        job_queue: str,
        job_definition: str | None = None,
        image: str | None = None,
        definition: dict[str, Any] | str | None = None,
        platform: str | None = None,
        job_role: str | None = None,
        execution_role: str | None = None,
        log_group: str | None = None,
        assign_public_ip: bool | str | None = None,
        command: Sequence[str] | str | None = None,
        environment: dict[str, Any] | str | None = None,
        vcpus: float | str | None = None,
        memory: int | str | None = None,
        gpus: int | str | None = None,
        container_overrides: dict[str, Any] | str | None = None,
        array_size: int | str | None = None,
        array_properties: dict[str, Any] | str | None = None,
        parameters: dict[str, Any] | str | None = None,
        depends_on: Sequence[dict[str, Any]] | str | None = None,
        retry_strategy: dict[str, Any] | str | None = None,
        attempt_timeout: float | str | timedelta | None = None,
        tags: dict[str, str] | str | None = None,
        propagate_tags: bool | str | None = None,
        share_identifier: str | None = None,
        scheduling_priority_override: int | str | None = None,
        node_overrides: dict[str, Any] | str | None = None,
        ecs_properties_override: dict[str, Any] | str | None = None,
        eks_properties_override: dict[str, Any] | str | None = None,
        consumable_resource_properties_override: dict[str, Any] | str | None = None,
        container_name: str | None = None,
        on_out_of_memory: dict[str, Any] | str | None = None,
        on_capacity: dict[str, Any] | str | None = None,
        on_timeout: dict[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.job_queue = job_queue
        self.job_definition = job_definition
        self.image = image
        self.definition = definition
        self.platform = platform
        self.job_role = job_role
        self.execution_role = execution_role
        self.log_group = log_group
        self.assign_public_ip = assign_public_ip
        self.command = command
        self.environment = environment
        self.vcpus = vcpus
        self.memory = memory
        self.gpus = gpus
        self.container_overrides = container_overrides
        self.array_size = array_size
        self.array_properties = array_properties
        self.parameters = parameters
        self.depends_on = depends_on
        self.retry_strategy = retry_strategy
        self.attempt_timeout = attempt_timeout
        self.tags = tags
        self.propagate_tags = propagate_tags
        self.share_identifier = share_identifier
        self.scheduling_priority_override = scheduling_priority_override
        self.node_overrides = node_overrides
        self.ecs_properties_override = ecs_properties_override
        self.eks_properties_override = eks_properties_override
        self.consumable_resource_properties_override = consumable_resource_properties_override
        self.container_name = container_name
        self.on_out_of_memory = on_out_of_memory
        self.on_capacity = on_capacity
        self.on_timeout = on_timeout

    def _job_spec(self) -> BatchJobSpec:
        return BatchJobSpec(PARAMETERS.of(self), redrive=self.redrive)


class BatchMapOperator(AwsMapOperator):
    """Run one Batch job for each item, from one task instance.

    :param items: each may set ``command``, ``environment``, ``vcpus``, ``memory``, ``gpus``, ``parameters``,
        ``container_overrides``, ``attempt_timeout``, ``tags``, ``retry_strategy``, ``share_identifier``,
        ``scheduling_priority_override``.
    :param job_name, job_queue, job_definition: see :class:`BatchJobOperator`. Jobs are named
        ``<job_name>-<token>-<index>``.
    :param image, platform, job_role, execution_role, log_group, assign_public_ip, definition: see
        :class:`BatchJobOperator`. The definition is the same for all items; sizes of an item override it.
    :param command, environment, vcpus, memory, gpus, container_overrides, container_name: see
        :class:`BatchJobOperator`.
    :param parameters, depends_on, retry_strategy, attempt_timeout, tags, propagate_tags: see
        :class:`BatchJobOperator`.
    :param share_identifier, scheduling_priority_override, consumable_resource_properties_override: see
        :class:`BatchJobOperator`.
    :param array_size, array_properties: have no meaning for a map, and are rejected.
    :param node_overrides, ecs_properties_override, eks_properties_override: have no meaning for a map either, and are
        rejected.
    :param on_out_of_memory, on_capacity, on_timeout: see :class:`BatchJobOperator`. They change the next attempt at a
        single item, within the same try of the task, and need neither retries nor Airflow 3.3.

    The other parameters, and what is returned, are those of :class:`airflow_jobflow.operators.map.AwsMapOperator`.
    """

    service: ClassVar[str] = "batch"
    NOT_HONOURED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("array_size", "array_properties", *NOT_IN_CONTAINER_OVERRIDES),
        "is not supported by maps: each item is a job of its own",
    )
    template_fields: Sequence[str] = (*AwsMapOperator.template_fields, *PARAMETERS)
    template_fields_renderers: ClassVar[dict[str, str]] = {**PARAMETERS.renderers, "items": "json"}
    operator_extra_links = BatchJobOperator.operator_extra_links
    ui_color = "#f7d5b5"

    def __init__(
        self,
        *,
        job_name: str,
        job_queue: str,
        job_definition: str | None = None,
        image: str | None = None,
        definition: dict[str, Any] | str | None = None,
        platform: str | None = None,
        job_role: str | None = None,
        execution_role: str | None = None,
        log_group: str | None = None,
        assign_public_ip: bool | str | None = None,
        command: Sequence[str] | str | None = None,
        environment: dict[str, Any] | str | None = None,
        vcpus: float | str | None = None,
        memory: int | str | None = None,
        gpus: int | str | None = None,
        container_overrides: dict[str, Any] | str | None = None,
        array_size: int | str | None = None,
        array_properties: dict[str, Any] | str | None = None,
        parameters: dict[str, Any] | str | None = None,
        depends_on: Sequence[dict[str, Any]] | str | None = None,
        retry_strategy: dict[str, Any] | str | None = None,
        attempt_timeout: float | str | timedelta | None = None,
        tags: dict[str, str] | str | None = None,
        propagate_tags: bool | str | None = None,
        share_identifier: str | None = None,
        scheduling_priority_override: int | str | None = None,
        node_overrides: dict[str, Any] | str | None = None,
        ecs_properties_override: dict[str, Any] | str | None = None,
        eks_properties_override: dict[str, Any] | str | None = None,
        consumable_resource_properties_override: dict[str, Any] | str | None = None,
        container_name: str | None = None,
        on_out_of_memory: dict[str, Any] | str | None = None,
        on_capacity: dict[str, Any] | str | None = None,
        on_timeout: dict[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.job_queue = job_queue
        self.job_definition = job_definition
        self.image = image
        self.definition = definition
        self.platform = platform
        self.job_role = job_role
        self.execution_role = execution_role
        self.log_group = log_group
        self.assign_public_ip = assign_public_ip
        self.command = command
        self.environment = environment
        self.vcpus = vcpus
        self.memory = memory
        self.gpus = gpus
        self.container_overrides = container_overrides
        self.array_size = array_size
        self.array_properties = array_properties
        self.parameters = parameters
        self.depends_on = depends_on
        self.retry_strategy = retry_strategy
        self.attempt_timeout = attempt_timeout
        self.tags = tags
        self.propagate_tags = propagate_tags
        self.share_identifier = share_identifier
        self.scheduling_priority_override = scheduling_priority_override
        self.node_overrides = node_overrides
        self.ecs_properties_override = ecs_properties_override
        self.eks_properties_override = eks_properties_override
        self.consumable_resource_properties_override = consumable_resource_properties_override
        self.container_name = container_name
        self.on_out_of_memory = on_out_of_memory
        self.on_capacity = on_capacity
        self.on_timeout = on_timeout

    def _map_spec(self) -> BatchMapSpec:
        return BatchMapSpec(PARAMETERS.of(self))
