"""What Airflow is told about the tab. Every process that loads plugins imports this, so it imports next to nothing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_jobflow.links import TAB, JobsLink
from airflow_jobflow.plugin.files import Page

OPERATORS = {
    "airflow_jobflow.operators.batch": ("BatchJobOperator", "BatchMapOperator"),
    "airflow_jobflow.operators.ecs": ("FargateTaskOperator", "FargateMapOperator"),
    "airflow_jobflow.operators.glue": ("GlueCrawlOperator", "GlueJobRunOperator"),
    "airflow_jobflow.sensors.batch": ("BatchJobSensor",),
    "airflow_jobflow.sensors.ecs": ("FargateTaskSensor",),
    "airflow_jobflow.sensors.glue": ("GlueCrawlSensor", "GlueJobRunSensor"),
}
"""The operators and sensors whose tasks have the button, by module; imported only where a button is drawn."""

PREFIX = "/jobflow"
"""Where the page is served, below Airflow's own root."""

ASKED = "dag_id={DAG_ID}&run_id={RUN_ID}"
"""What Airflow fills in for a run; for a task instance there is more."""


class _Button(JobsLink):
    @property
    def operators(self) -> list[Any]:  # type: ignore[override]
        """The classes whose tasks have it."""
        return [getattr(import_module(module), name) for module, names in OPERATORS.items() for name in names]


class JobflowPlugin(AirflowPlugin):
    """Adds the tab to task instances and to DAG runs, and the button that leads to it."""

    name = "jobflow"
    fastapi_apps = [{"app": Page(), "url_prefix": PREFIX, "name": "Jobflow"}]  # noqa: RUF012 -- as in Airflow's base
    # Without a slash in front, it is found below the path that Airflow itself is served under.
    external_views = [  # noqa: RUF012 -- likewise
        {
            "name": "Jobs",
            "href": f"{PREFIX[1:]}/?{ASKED}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": TAB,
            "icon": f"{PREFIX[1:]}/icon.svg",
        },
        {
            "name": "Jobs",
            "href": f"{PREFIX[1:]}/?{ASKED}",
            "destination": "dag_run",
            "url_route": f"{TAB}-run",
            "icon": f"{PREFIX[1:]}/icon.svg",
        },
    ]
    operator_extra_links = [_Button()]  # noqa: RUF012 -- likewise
