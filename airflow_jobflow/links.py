"""Buttons on a task's page that lead to AWS's console.

Airflow stores each link of an operator as an XCom, which costs a request for each and each time a worker is done with
the task. So the URLs of one task are stored together: in the note for the "Jobs" tab, which a waiting task writes
anyway, or in the XCom ``jobflow_links``. The plugin's links (``plugin.console_links``) read them in the API server.

Only for the classes of this package: Airflow gives links of a plugin to the classes that it names, and not to classes
derived from them. Tasks of these store each URL in an XCom of its own, as with any operator.

How the console's URLs look is the Amazon provider's knowledge; it is imported where a URL is made, for the classes here
are imported with every DAG. With ``[jobflow] console_url`` all links lead to the pages of a local AWS instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from airflow.sdk import BaseOperatorLink

from airflow_jobflow.airflow_compat.xcoms import are_in_database

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from airflow_jobflow.jobs.model import Snapshot


KEY = "jobflow_links"
"""Key of the XCom with the URLs of a task, where its note does not have them: ``{key of the link: URL}``."""


def api_server_reads_notes() -> bool:
    """Return whether the API server can read a note: an XCom backend may store it elsewhere."""
    return are_in_database()


class _JobLink(BaseOperatorLink):
    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> Any:  # noqa: ARG002
        """Return the URL that was kept for this task instance, or nothing.

        A worker calls this when it is done with the task, deferred or ended, and stores the answer as an XCom.
        """
        kept: dict[str, str] = getattr(operator, "kept_links", {})
        return kept.get(self.xcom_key, "")


class _AllLinks(_JobLink):
    """All URLs of a task at once. Only for an operator that is executed: it is no button."""

    name = "All pages"
    xcom_key = KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> Any:  # noqa: ARG002
        """Return the URLs that were kept for this task instance, by the keys of their links."""
        return dict(getattr(operator, "kept_links", {}))


ALL_LINKS = _AllLinks()


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


TAB = "jobflow"
"""The last part of the tab's address."""


class JobsLink(BaseOperatorLink):
    """Leads to the task's "Jobs" tab. The plugin adds it: no XCom holds it, for it is known without one."""

    name = "Jobs"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the tab's address, relative to Airflow's root, under whatever path that is served."""
        dag, run, task = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
        mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index >= 0 else ""
        return f"dags/{dag}/runs/{run}/tasks/{task}{mapped}/plugin/{TAB}"


class FargateTaskLink(_JobLink):
    """Leads to the task."""

    name = "Fargate task"


class GlueCrawlerLink(_JobLink):
    """Leads to the crawler, whose page lists its crawls."""

    name = "Glue crawler"


class GlueJobRunLink(_JobLink):
    """Leads to the run of the job."""

    name = "Glue job run"


def crawl_links(snapshot: Snapshot) -> dict[type[BaseOperatorLink], str]:
    """Return the console's pages for a Glue crawl. The Amazon provider has no such link."""
    place = _place(snapshot)
    if not all(place.values()):
        return {}
    path = f"crawlers/view/{quote(snapshot.name, safe='')}"
    url = f"https://console.{place['aws_domain']}/glue/home?region={snapshot.region}#/v2/data-catalog/{path}"
    return {GlueCrawlerLink: url, **_log_link(snapshot)}


def run_links(snapshot: Snapshot) -> dict[type[BaseOperatorLink], str]:
    """Return the console's pages for the run of a Glue job."""
    from airflow.providers.amazon.aws.links.glue import GlueJobRunDetailsLink

    place = _place(snapshot)
    if not all(place.values()):
        return {}
    which = {"job_name": quote(snapshot.name, safe=""), "job_run_id": snapshot.job_id}
    return {GlueJobRunLink: GlueJobRunDetailsLink().format_link(**place, **which), **_log_link(snapshot)}


def ecs_links(snapshot: Snapshot) -> dict[type[BaseOperatorLink], str]:
    """Return the console's pages for a Fargate task. The Amazon provider has no such link."""
    place = _place(snapshot)
    if not all(place.values()) or not snapshot.queue:
        return {}
    cluster = snapshot.queue.rpartition("/")[2]
    url = f"https://console.{place['aws_domain']}/ecs/v2/clusters/{cluster}/tasks/{snapshot.name}"
    return {FargateTaskLink: f"{url}/configuration?region={snapshot.region}", **_log_link(snapshot)}


def batch_links(snapshot: Snapshot) -> dict[type[BaseOperatorLink], str]:
    """Return the console's pages for a Batch job, as far as they are known by now."""
    from airflow.providers.amazon.aws.links import batch

    place = _place(snapshot)
    if not all(place.values()):
        return {}
    pages: dict[type[BaseOperatorLink], tuple[Any, dict[str, str | None]]] = {
        BatchJobLink: (batch.BatchJobDetailsLink(), {"job_id": snapshot.job_id}),
        BatchJobDefinitionLink: (batch.BatchJobDefinitionLink(), {"job_definition_arn": snapshot.definition}),
        BatchJobQueueLink: (batch.BatchJobQueueLink(), {"job_queue_arn": snapshot.queue}),
    }
    known = {link: each for link, each in pages.items() if all(each[1].values())}
    links = {link: page.format_link(**place, **details) for link, (page, details) in known.items()}
    return {**links, **_log_link(snapshot)}


def _log_link(snapshot: Snapshot) -> dict[type[BaseOperatorLink], str]:
    from airflow.providers.amazon.aws.links.logs import CloudWatchEventsLink

    if not snapshot.log:
        return {}
    where = {"awslogs_group": snapshot.log.group, "awslogs_stream_name": snapshot.log.stream}
    region = snapshot.log.region or snapshot.region
    url = CloudWatchEventsLink().format_link(**_place(snapshot), awslogs_region=region, **where)
    return {JobLogLink: url}


def _place(snapshot: Snapshot) -> dict[str, str | None]:
    from airflow.providers.amazon.aws.links.base_aws import BaseAwsLink

    return {"region_name": snapshot.region, "aws_domain": BaseAwsLink.get_aws_domain(snapshot.partition)}


_AWS: Mapping[str, Callable[[Snapshot], dict[type[BaseOperatorLink], str]]] = {
    "batch": batch_links,
    "ecs": ecs_links,
    "glue_crawl": crawl_links,
    "glue_run": run_links,
}
"""What builds the pages of AWS's console for a job, the job's own first, by our name of its service."""

_LOCAL: Final[Mapping[str, Mapping[type[BaseOperatorLink], tuple[str, Mapping[str, str]]]]] = {
    "batch": {
        BatchJobLink: ("batch-job", {"job": "job_id"}),
        BatchJobDefinitionLink: ("batch-job-definition", {"definition": "definition"}),
        BatchJobQueueLink: ("batch-job-queue", {"queue": "queue"}),
    },
    "ecs": {FargateTaskLink: ("ecs-task", {"cluster": "queue", "task": "name"})},
    "glue_crawl": {GlueCrawlerLink: ("glue-crawler", {"crawler": "name"})},
    "glue_run": {GlueJobRunLink: ("glue-job-run", {"job": "name", "run": "job_id"})},
}
"""The same for the pages of a local AWS: the page, and of which member of the snapshot each of its parameters is."""


def console_links(service: str, snapshot: Snapshot) -> dict[type[BaseOperatorLink], str]:
    """Return the console's pages for a job, the job's own first, as far as they are known by now.

    :param service: our name of the service.
    """
    from airflow.sdk import conf

    base = conf.get("jobflow", "console_url", fallback="")
    return _local_links(base, service, snapshot) if base else _AWS[service](snapshot)


def _local_links(base: str, service: str, snapshot: Snapshot) -> dict[type[BaseOperatorLink], str]:
    """Return the pages of a local AWS for a job.

    :param base: the URL of the local AWS's pages.
    """
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
    given = {name: value for name, value in parameters.items() if value}
    return f"{base.rstrip('/')}/{page}?{urlencode(given)}"


def pages(service: str, snapshot: Snapshot) -> dict[str, str]:
    """Return the console's pages for a job, by the key of the link to each.

    :param service: our name of the service.
    """
    return {link().xcom_key: url for link, url in console_links(service, snapshot).items()}
