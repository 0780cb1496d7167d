"""Buttons on a task's page that link to the AWS console.

Airflow stores each link of an operator as an XCom, with one request per link each time a worker has finished with the
task. So the URLs of one task are stored together: in the progress report for the "Jobs" tab, which a waiting task
pushes anyway, or in the XCom ``jobflow_links``. The plugin's links (``ui.console_links``) read them in the API server.

This works only for the classes of this package: Airflow adds a plugin's links to the classes that the plugin names, but
not to their subclasses. Tasks of subclasses store each URL in its own XCom, as with any operator.

The Amazon provider builds the console's URLs. It is imported only when a URL is built, because the classes here are
imported with every DAG. With ``[jobflow] console_url`` all links lead to the pages of a local AWS instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from airflow.sdk import BaseOperatorLink

from airflow_jobflow.airflow_compat.xcoms import are_in_database

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from airflow_jobflow.jobs.model import Snapshot


KEY = "jobflow_links"
"""Key of the XCom with the URLs of a task, if its progress report does not have them: ``{key of the link: URL}``."""


def api_server_reads_notes() -> bool:
    """Return whether the API server can read progress reports: a custom XCom backend may store them elsewhere."""
    return are_in_database()


class _JobLink(BaseOperatorLink):
    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> Any:  # noqa: ARG002
        """Return the URL for this task instance; empty if there is none.

        A worker calls this when the task was deferred or has ended, and stores the result as an XCom.

        :param operator: the operator that was executed.
        :param ti_key: not used.
        """
        kept: dict[str, str] = getattr(operator, "kept_links", {})
        return kept.get(self.xcom_key, "")


class _AllLinks(_JobLink):
    """All URLs of a task in one XCom. Used only while an operator is executed, and not shown as a button."""

    name = "All pages"
    xcom_key = KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> Any:  # noqa: ARG002
        """Return the URLs for this task instance, by the keys of their links.

        :param operator: the operator that was executed.
        :param ti_key: not used.
        """
        return dict(getattr(operator, "kept_links", {}))


ALL_LINKS = _AllLinks()


class BatchJobLink(_JobLink):
    """Links to the job."""

    name = "Batch job"


class BatchJobDefinitionLink(_JobLink):
    """Links to the job definition."""

    name = "Batch job definition"


class BatchJobQueueLink(_JobLink):
    """Links to the queue to which the job was submitted."""

    name = "Batch job queue"


class JobLogLink(_JobLink):
    """Links to the job's log stream."""

    name = "Job log"


TAB = "jobflow"
"""The last part of the tab's URL."""


class JobsLink(BaseOperatorLink):
    """Links to the task's "Jobs" tab. The plugin adds it. It needs no XCom, because its URL can be computed."""

    name = "Jobs"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the tab's URL, relative to Airflow's root, so that any base path works.

        :param operator: not used.
        :param ti_key: the task instance.
        """
        dag, run, task = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
        mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index >= 0 else ""
        return f"dags/{dag}/runs/{run}/tasks/{task}{mapped}/plugin/{TAB}"


class EcsTaskLink(_JobLink):
    """Links to the task."""

    name = "ECS task"


class GlueCrawlerLink(_JobLink):
    """Links to the crawler, whose page lists its crawls."""

    name = "Glue crawler"


class GlueJobRunLink(_JobLink):
    """Links to the job run."""

    name = "Glue job run"


_Links = dict[type[BaseOperatorLink], str]
"""URLs by link."""

_Location = Mapping[str, str | None]
"""The region and the domain of the console, as the Amazon provider's links call them."""


def _crawl_links(snapshot: Snapshot, location: _Location) -> _Links:
    """Return the page of a crawler. The Amazon provider has no such link."""
    path = f"crawlers/view/{quote(snapshot.name, safe='')}"
    url = f"https://console.{location['aws_domain']}/glue/home?region={snapshot.region}#/v2/data-catalog/{path}"
    return {GlueCrawlerLink: url}


def _run_links(snapshot: Snapshot, location: _Location) -> _Links:
    from airflow.providers.amazon.aws.links.glue import GlueJobRunDetailsLink

    run = {"job_name": quote(snapshot.name, safe=""), "job_run_id": snapshot.job_id}
    return {GlueJobRunLink: GlueJobRunDetailsLink().format_link(**location, **run)}


def _ecs_links(snapshot: Snapshot, location: _Location) -> _Links:
    """Return the page of a task, if its cluster is known. The Amazon provider has no such link."""
    if not snapshot.queue:
        return {}
    cluster = snapshot.queue.rpartition("/")[2]
    url = f"https://console.{location['aws_domain']}/ecs/v2/clusters/{cluster}/tasks/{snapshot.name}"
    return {EcsTaskLink: f"{url}/configuration?region={snapshot.region}"}


def _batch_links(snapshot: Snapshot, location: _Location) -> _Links:
    from airflow.providers.amazon.aws.links import batch

    pages: dict[type[BaseOperatorLink], tuple[Any, dict[str, str | None]]] = {
        BatchJobLink: (batch.BatchJobDetailsLink(), {"job_id": snapshot.job_id}),
        BatchJobDefinitionLink: (batch.BatchJobDefinitionLink(), {"job_definition_arn": snapshot.definition}),
        BatchJobQueueLink: (batch.BatchJobQueueLink(), {"job_queue_arn": snapshot.queue}),
    }
    known = {link: each for link, each in pages.items() if all(each[1].values())}
    return {link: page.format_link(**location, **details) for link, (page, details) in known.items()}


_AWS: Mapping[str, Callable[[Snapshot, _Location], _Links]] = {
    "batch": _batch_links,
    "ecs": _ecs_links,
    "glue_crawl": _crawl_links,
    "glue_run": _run_links,
}
"""Functions that build the AWS console pages of a job, its own page first, by our name of its service."""


def _aws_links(service: str, snapshot: Snapshot) -> _Links:
    """Return the AWS console pages of a job, if its region is known."""
    from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink
    from airflow.providers.amazon.aws.links.logs import CloudWatchEventsLink

    location = {"region_name": snapshot.region, "aws_domain": BaseAwsLink.get_aws_domain(snapshot.partition)}
    if not all(location.values()):
        return {}
    links = _AWS[service](snapshot, location)
    if links and (log := snapshot.log):
        stream = {"awslogs_group": log.group, "awslogs_stream_name": log.stream}
        region = log.region or snapshot.region
        links[JobLogLink] = CloudWatchEventsLink().format_link(**location, awslogs_region=region, **stream)
    return links


_LOCAL: Final[Mapping[str, Mapping[type[BaseOperatorLink], tuple[str, Mapping[str, str]]]]] = {
    "batch": {
        BatchJobLink: ("batch-job", {"job": "job_id"}),
        BatchJobDefinitionLink: ("batch-job-definition", {"definition": "definition"}),
        BatchJobQueueLink: ("batch-job-queue", {"queue": "queue"}),
    },
    "ecs": {EcsTaskLink: ("ecs-task", {"cluster": "queue", "task": "name"})},
    "glue_crawl": {GlueCrawlerLink: ("glue-crawler", {"crawler": "name"})},
    "glue_run": {GlueJobRunLink: ("glue-job-run", {"job": "name", "run": "job_id"})},
}
"""The pages of a local AWS: for each link the page, and the snapshot's attribute for each of its parameters."""


def console_links(service: str, snapshot: Snapshot) -> _Links:
    """Return the console pages of a job, its own page first, as far as their parts are known yet.

    :param service: our name of the service, such as ``batch``.
    :param snapshot: the job.
    :return: URLs by link.
    """
    from airflow.sdk import conf

    if service == "glue_run" and snapshot.details:  # each of Glue's retries has a page of its own
        snapshot = replace(snapshot, job_id=snapshot.details.get("run_id", snapshot.job_id))
    base = conf.get("jobflow", "console_url", fallback="")
    return _local_links(base, service, snapshot) if base else _aws_links(service, snapshot)


def _local_links(base: str, service: str, snapshot: Snapshot) -> _Links:
    """Return the pages of a local AWS for a job, whose base URL is given."""
    links = {}
    for link, (page, members) in _LOCAL[service].items():
        parameters = {name: getattr(snapshot, member) for name, member in members.items()}
        if all(parameters.values()):
            links[link] = _local_page(base, page, region=snapshot.region, **parameters)
    if log := snapshot.log:
        region = log.region or snapshot.region
        links[JobLogLink] = _local_page(base, "log", region=region, group=log.group, stream=log.stream)
    return links


def _local_page(base: str, page: str, **parameters: str | None) -> str:
    known = {name: value for name, value in parameters.items() if value}
    return f"{base.rstrip('/')}/{page}?{urlencode(known)}"


def pages(service: str, snapshot: Snapshot) -> dict[str, str]:
    """Return the console pages of a job by the XCom key of their links.

    :param service: our name of the service, such as ``batch``.
    :param snapshot: the job.
    """
    return {link().xcom_key: url for link, url in console_links(service, snapshot).items()}
