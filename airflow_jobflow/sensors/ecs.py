"""The sensor for ECS tasks on Fargate and on any other capacity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from airflow_jobflow import params
from airflow_jobflow.links import EcsTaskLink, JobLogLink
from airflow_jobflow.sensors.base import AwsJobSensor


class EcsTaskSensor(AwsJobSensor):
    """Wait until an ECS task, or each of several tasks of a cluster, has stopped, whatever its capacity.

    :param cluster: name or ARN of the cluster; templated.
    :param task_arn: ARN or id of the task, the outcome that an operator returned for it, or a list of these; templated.

    The other parameters are those of :class:`airflow_jobflow.sensors.base.AwsJobSensor`.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`; for a list, a list of them.
    """

    service: ClassVar[str] = "ecs"
    names_jobs: ClassVar[str] = "task_arn"
    template_fields: Sequence[str] = (*AwsJobSensor.template_fields, "cluster", "task_arn")
    operator_extra_links = (EcsTaskLink(), JobLogLink())
    ui_color = "#fbe9d9"

    def __init__(self, *, cluster: str, task_arn: str | Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.task_arn = task_arn

    def _scope(self) -> str | None:
        """Return the cluster, which a describe call is confined to."""
        return params.non_empty_string("cluster", self.cluster)


FargateTaskSensor = EcsTaskSensor
"""Another name, for readers who look for Fargate."""
