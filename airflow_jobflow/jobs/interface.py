"""The interface that the module of each service has, so that all else is the same for every service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.model import LogStream, Snapshot


class Service(Protocol):
    """The interface of a service's module in ``jobs/``. The module itself is the object."""

    CLIENT: str
    """Name of the boto3 client."""
    DISPLAY_NAME: str
    """What messages call such a job: ``Batch job``."""
    BATCH_SIZE: int
    """The most ids that one ``describe`` takes."""
    RETENTION: str
    """For how long AWS describes a job that has ended, as a text."""

    def describe(self, call: Call, job_ids: Sequence[str], scope: str | None) -> Mapping[str, Snapshot | None]:
        """Describe jobs.

        :param call: makes the API calls.
        :param job_ids: at most ``BATCH_SIZE``.
        :param scope: what the call is restricted to, such as a cluster; None if the service has no scope.
        :return: snapshots by id, without unknown ids; None for jobs that must be described alone.
        """

    def with_final_details(self, call: Call, snapshot: Snapshot) -> Snapshot:
        """Add details that ``describe`` does not return.

        :param call: makes the API calls, if there are such details.
        :param snapshot: the last one of a job that has ended.
        """

    def log_streams(self, snapshot: Snapshot) -> Mapping[str, LogStream]:
        """Return where a job logs, as far as its snapshot says, by the name of the container or of the stream.

        :param snapshot: of the job. For some services, only ``with_final_details`` adds where a running job logs.
        """

    def stop(self, call: Call, job_id: str, scope: str | None, reason: str) -> None:
        """Stop a job. Does nothing to a job that has ended.

        :param call: makes the API calls.
        :param job_id: the job's id.
        :param scope: as for ``describe``.
        :param reason: why, if the service takes a reason.
        """
