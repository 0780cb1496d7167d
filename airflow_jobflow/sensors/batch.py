"""Sensors for AWS Batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from airflow_jobflow.links import (
    BatchJobDefinitionLink,
    BatchJobLink,
    BatchJobQueueLink,
    JobLogLink,
)
from airflow_jobflow.sensors.base import AwsJobSensor


class BatchJobSensor(AwsJobSensor):
    """Wait until a Batch job, an array of jobs, or each of several jobs has ended.

    :param job_id: the job's id, the outcome that an operator returned for it, or a list of these; templated. A child
        of an array is ``<parent>:<index>``.

    The other parameters are those of :class:`airflow_jobflow.sensors.base.AwsJobSensor`.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`; for a list of ids, a list of them.
    """

    service: ClassVar[str] = "batch"
    names_jobs: ClassVar[str] = "job_id"
    template_fields: Sequence[str] = (*AwsJobSensor.template_fields, "job_id")
    operator_extra_links = (BatchJobLink(), JobLogLink(), BatchJobQueueLink(), BatchJobDefinitionLink())
    ui_color = "#fbe9d9"

    def __init__(self, *, job_id: str | Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
