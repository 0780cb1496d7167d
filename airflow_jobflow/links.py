"""Buttons on a task's page that lead to AWS's console.

Each URL is kept in an XCom of its own from the moment it is known, so that it works while the task is deferred. How
the console's URLs look is the Amazon provider's knowledge; it is imported where a URL is made, for the classes here
are imported with every DAG.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from airflow_jobflow.jobs.model import Snapshot


class _JobLink(BaseOperatorLink):
    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the URL that was kept for this task instance, or nothing."""
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""


class BatchJobLink(_JobLink):
    """Leads to the job."""

    name = "Batch job"


class BatchJobDefinitionLink(_JobLink):
    """Leads to the job's definition."""

    name = "Batch job definition"


class BatchJobQueueLink(_JobLink):
    """Leads to the queue the job was submitted to."""

    name = "Batch job queue"


class JobLogLink(_JobLink):
    """Leads to the job's log stream."""

    name = "Job log"


def batch_links(snapshot: Snapshot) -> dict[type[BaseOperatorLink], str]:
    """Return the console's pages for a Batch job, as far as they are known by now."""
    from airflow.providers.amazon.aws.links import batch, logs

    place = _place(snapshot)
    log = snapshot.log
    pages: dict[type[BaseOperatorLink], tuple[Any, dict[str, str | None]]] = {
        BatchJobLink: (batch.BatchJobDetailsLink(), {"job_id": snapshot.job_id}),
        BatchJobDefinitionLink: (batch.BatchJobDefinitionLink(), {"job_definition_arn": snapshot.definition}),
        BatchJobQueueLink: (batch.BatchJobQueueLink(), {"job_queue_arn": snapshot.queue}),
        JobLogLink: (
            logs.CloudWatchEventsLink(),
            {
                "awslogs_region": snapshot.region,
                "awslogs_group": log.group if log else None,
                "awslogs_stream_name": log.stream if log else None,
            },
        ),
    }
    return {
        link: page.format_link(**place, **details)
        for link, (page, details) in pages.items()
        if all(details.values()) and all(place.values())
    }


def _place(snapshot: Snapshot) -> dict[str, str | None]:
    from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink

    return {"region_name": snapshot.region, "aws_domain": BaseAwsLink.get_aws_domain(snapshot.partition)}
