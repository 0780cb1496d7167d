"""The sensor for ECS tasks on Fargate and on any other capacity."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow import params
from airflow_jobflow.links import EcsTaskLink, JobLogLink
from airflow_jobflow.sensors.base import AwsJobSensor
from airflow_jobflow.sensors.targets import target_of

if TYPE_CHECKING:
    from airflow_jobflow.jobs.targets import Target


class EcsTaskSensor(AwsJobSensor):
    """Wait until an ECS task, or each of several tasks of a cluster, has stopped, or has reached another status.

    The capacity of the task does not matter.

    :param cluster: name or ARN of the cluster; templated.
    :param task_arn: ARN or id of the task, the outcome that an operator returned for it, or a list of these; templated.
    :param target_state: the status of ECS to wait for, such as ``RUNNING``; templated. A status that the task has
        passed counts as reached, even if the task has stopped and failed since: the outcome says so. Default None: wait
        until the task has stopped, and fail if it failed.
    :param failure_states: with ``target_state``, the statuses in which the sensor fails if the target was not reached
        before; templated. A task that has stopped without reaching it always fails the sensor. Default ``STOPPED``.

    The other parameters are those of :class:`airflow_jobflow.sensors.base.AwsJobSensor`.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`; for a list, a list of them.
    """

    service: ClassVar[str] = "ecs"
    names_jobs: ClassVar[str] = "task_arn"
    template_fields: Sequence[str] = (
        *AwsJobSensor.template_fields,
        "cluster",
        "task_arn",
        "target_state",
        "failure_states",
    )
    operator_extra_links = (EcsTaskLink(), JobLogLink())
    ui_color = "#fbe9d9"

    def __init__(
        self,
        *,
        cluster: str,
        task_arn: str | Sequence[str],
        target_state: str | None = None,
        failure_states: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.task_arn = task_arn
        self.target_state = target_state
        self.failure_states = failure_states

    def _target(self) -> Target | None:
        """Return the status to wait for."""
        return target_of(self)

    def _scope(self) -> str | None:
        """Return the cluster, which a describe call is confined to."""
        return params.non_empty_string("cluster", self.cluster)


FargateTaskSensor = EcsTaskSensor
"""Another name, for readers who look for Fargate."""
