"""The Airflow plugin that registers the tab and the buttons. Every process that loads plugins imports it, so its own
imports are few.
"""

from __future__ import annotations

from functools import cache, cached_property
from importlib import import_module
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_jobflow import links
from airflow_jobflow.links import TAB, JobsLink
from airflow_jobflow.ui.console_links import ConsoleLink
from airflow_jobflow.ui.files import Page

OPERATORS = {
    "airflow_jobflow.operators.batch": ("BatchJobOperator", "BatchMapOperator"),
    "airflow_jobflow.operators.ecs": (
        "EcsTaskOperator",
        "EcsMapOperator",
        "FargateTaskOperator",
        "FargateMapOperator",
    ),
    "airflow_jobflow.operators.glue": ("GlueCrawlOperator", "GlueJobRunOperator"),
    "airflow_jobflow.sensors.batch": ("BatchJobSensor",),
    "airflow_jobflow.sensors.ecs": ("EcsTaskSensor",),
    "airflow_jobflow.sensors.glue": ("GlueCrawlSensor", "GlueJobRunSensor"),
}
"""The operators and sensors whose tasks have the buttons, by module. They are imported when a button is drawn."""

PREFIX = "/jobflow"
"""The path of the page, below Airflow's root."""

QUERY = "dag_id={DAG_ID}&run_id={RUN_ID}"
"""The query of a run's page, which Airflow fills in. That of a task instance has more."""


CONSOLE_LINKS = (
    links.BatchJobLink,
    links.BatchJobDefinitionLink,
    links.BatchJobQueueLink,
    links.EcsTaskLink,
    links.GlueCrawlerLink,
    links.GlueJobRunLink,
    links.JobLogLink,
)
"""The buttons that link to the AWS console."""


@cache
def _classes() -> list[Any]:
    return [getattr(import_module(module), name) for module, names in OPERATORS.items() for name in names]


class _Button(JobsLink):
    @property
    def operators(self) -> list[Any]:  # type: ignore[override]
        """The classes whose tasks have the button."""
        return _classes()


class _ConsoleButton(ConsoleLink):
    """Replaces an operator's own link of the same name: Airflow prefers the link of a plugin."""

    @cached_property
    def operators(self) -> list[Any]:  # type: ignore[override]
        """The classes whose tasks have the button."""
        return [each for each in _classes() if self.name in {link.name for link in each.operator_extra_links}]


class JobflowPlugin(AirflowPlugin):
    """Adds the tab to task instances and DAG runs, the button that opens it, and the buttons that link to AWS."""

    name = "jobflow"
    fastapi_apps = [{"app": Page(), "url_prefix": PREFIX, "name": "Jobflow"}]  # noqa: RUF012 -- as in Airflow's base
    # Relative addresses, because Airflow may be served below a path.
    external_views = [  # noqa: RUF012 -- as in Airflow
        {
            "name": "Jobs",
            "href": f"{PREFIX[1:]}/?{QUERY}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": TAB,
            "icon": f"{PREFIX[1:]}/icon.svg",
        },
        {
            "name": "Jobs",
            "href": f"{PREFIX[1:]}/?{QUERY}",
            "destination": "dag_run",
            "url_route": f"{TAB}-run",
            "icon": f"{PREFIX[1:]}/icon.svg",
        },
    ]
    operator_extra_links = [_Button(), *map(_ConsoleButton, CONSOLE_LINKS)]  # noqa: RUF012 -- as in Airflow
