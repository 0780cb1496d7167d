"""The buttons that lead to AWS's console: what the API server reads from what tasks have stored."""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.parse import quote

import pytest

from airflow_jobflow.ui.console_links import url
from tests.ui.cases import CONSOLE, PARENT
from tests.ui.rights import READER, VIEWER
from tests.ui.seed_run import RUN
from tests.ui.server import Server

KEY = "_link_BatchJobLink"
LOCAL = "http://127.0.0.1:5000/jobflow-console/batch-job?job=j"
PAGE, OTHER = "https://console.aws.amazon.com/a", "https://console.aws.amazon.com/b"


def links(airflow: Server, task: str, map_index: int = -1, user: str = VIEWER) -> dict[str, Any]:
    """Return a task instance's links from Airflow's API."""
    where = f"api/v2/dags/jobs_page/dagRuns/{quote(RUN, safe='')}/taskInstances/{task}/links?map_index={map_index}"
    bearer = {"Authorization": f"Bearer {airflow.token(user)}"}
    with urllib.request.urlopen(urllib.request.Request(f"{airflow.url}/{where}", headers=bearer), timeout=30) as answer:
        return dict(json.load(answer)["extra_links"])


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ([], ""),
        ([("jobflow_jobs", {"links": {KEY: PAGE}})], PAGE),
        ([("jobflow_links", {KEY: PAGE})], PAGE),
        ([("jobflow_links", json.dumps({KEY: PAGE}))], PAGE),  # the data of a trigger's event
        ([("jobflow_jobs", {"links": {KEY: OTHER}}), ("jobflow_links", {KEY: PAGE})], PAGE),
        ([("jobflow_jobs", {"links": {KEY: PAGE}}), ("jobflow_links", {"another": OTHER})], PAGE),
        ([("jobflow_jobs", {"v": 1, "jobs": []})], ""),
        ([("jobflow_jobs", {"links": None})], ""),
        ([("jobflow_jobs", {"links": [PAGE]})], ""),
        ([("jobflow_jobs", {"links": {KEY: ["x"]}})], ""),
        ([("jobflow_jobs", {"links": {KEY: "javascript:alert(1)"}})], ""),
        ([("jobflow_links", {KEY: LOCAL})], LOCAL),
        ([("jobflow_links", {KEY: "http://127.0.0.1:5000/elsewhere"})], ""),
        ([("jobflow_links", {KEY: "http://user@host/jobflow-console/x"})], ""),
        ([("jobflow_links", "s3://bucket/what-a-backend-has-stored")], ""),
        ([("jobflow_links", "[1"), ("jobflow_jobs", 7)], ""),
        ([("jobflow_links", None)], ""),
    ],
)
def test_any_xcom_gives_a_url_or_none(stored: Any, found: str) -> None:
    """An exception would remove all links of the task."""
    assert url(KEY, stored) == found


def test_the_buttons_of_a_deferred_task_lead_to_its_job(airflow: Server) -> None:
    """They come from Airflow's own API, which the UI uses."""
    found = links(airflow, "live")
    assert found["Batch job"] == CONSOLE + PARENT
    assert found["Batch job queue"].startswith(CONSOLE.partition("#")[0])
    assert found["Batch job definition"] is None  # not known yet
    assert found["Jobs"].endswith("/tasks/live/plugin/jobflow")


def test_the_buttons_of_an_ended_task_use_the_last_stored_urls(airflow: Server) -> None:
    """The scheduler has stored them from the event of a trigger."""
    assert links(airflow, "job")["Job log"] == f"{CONSOLE}log"


def test_each_instance_of_a_mapped_task_has_its_own_buttons(airflow: Server) -> None:
    """Airflow handles the links of plugins differently for mapped tasks."""
    first, second = (links(airflow, "mapped", index)["ECS task"] for index in range(2))
    assert (first, second) == (None, f"{CONSOLE}second")


def test_permission_to_see_a_task_includes_its_buttons(airflow: Server) -> None:
    """XComs need not be readable, as for every link of Airflow."""
    assert links(airflow, "live", user=READER)["Batch job"] == CONSOLE + PARENT


@pytest.mark.parametrize("task", ["hostile", "malformed", "newer", "waiting", "sensor", "crawl", "other"])
def test_tasks_without_jobs_have_no_urls(airflow: Server, task: str) -> None:
    """Their other links work."""
    assert {name for name, address in links(airflow, task).items() if address} <= {"Jobs"}
