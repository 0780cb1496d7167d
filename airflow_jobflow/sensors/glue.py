"""Sensors for Glue: crawls, and runs of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from airflow_jobflow import params
from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.links import GlueCrawlerLink, GlueJobRunLink, JobLogLink
from airflow_jobflow.sensors.base import AwsJobSensor


class GlueCrawlSensor(AwsJobSensor):
    """Wait until a Glue crawler, or each of several, has ended a crawl that somebody else started.

    :param crawler_name: name of the crawler, the outcome that an operator returned for a crawl, or its ``job_id``,
        which is then the one waited for, or a list of these; templated.
    :param since: the first crawl that began at or after this moment counts, whatever came of older ones: a datetime,
        or as text in ISO 8601, in UTC unless it says otherwise, counted in whole seconds, as Glue's own times are;
        templated. Default: the start of the DAG run.

    The other parameters are those of :class:`airflow_jobflow.sensors.base.AwsJobSensor`.

    Returns the outcome, as :class:`airflow_jobflow.operators.glue.GlueCrawlOperator` does; for a list, a list of them.
    """

    service: ClassVar[str] = "glue_crawl"
    names_jobs: ClassVar[str] = "crawler_name"
    template_fields: Sequence[str] = (*AwsJobSensor.template_fields, "crawler_name", "since")
    operator_extra_links = (GlueCrawlerLink(), JobLogLink())
    ui_color = "#fbe9d9"

    def __init__(
        self,
        *,
        crawler_name: str | Sequence[str],
        since: datetime | str = "{{ dag_run.start_date }}",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.crawler_name = crawler_name
        self.since = since

    def job_ids(self) -> list[str]:
        """Return which crawls to wait for.

        :raises InvalidParameter: the crawlers, or ``since``, are wrong.
        """
        from airflow_jobflow.jobs.glue_crawl import Since

        moment = params.utc_datetime("since", self.since)
        named = params.several("crawler_name", self.crawler_name)
        each_of = named if isinstance(named, list | tuple) else [named]
        crawls: list[str] = []
        for given, name in zip(each_of, params.ids("crawler_name", named), strict=True):
            try:
                crawls.append(str(Since.read(name)))
            except ValueError as error:
                if isinstance(given, Mapping):
                    raise invalid_parameter("crawler_name", given, f"is not the outcome of a crawl: {error}") from error
                crawls.append(str(Since(name, moment)))
        return crawls


class GlueJobRunSensor(AwsJobSensor):
    """Wait until a run of a Glue job, or each of several runs of it, has ended.

    :param job_name: name of the job; templated.
    :param run_id: id of the run, the outcome that an operator returned for it, or a list of these; templated.

    The other parameters are those of :class:`airflow_jobflow.sensors.base.AwsJobSensor`.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`; for a list, a list of them.
    """

    service: ClassVar[str] = "glue_run"
    names_jobs: ClassVar[str] = "run_id"
    template_fields: Sequence[str] = (*AwsJobSensor.template_fields, "job_name", "run_id")
    operator_extra_links = (GlueJobRunLink(), JobLogLink())
    ui_color = "#fbe9d9"

    def __init__(self, *, job_name: str, run_id: str | Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.run_id = run_id

    def _scope(self) -> str | None:
        """Return the job's name, which a describe call is confined to."""
        return params.non_empty_string("job_name", self.job_name)

    def _job_name(self) -> str:
        """Return the name of the job."""
        return self.job_name
