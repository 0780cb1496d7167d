"""The static files: the page's files, and their headers."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import pytest

from airflow_jobflow.links import JobsLink
from airflow_jobflow.ui import console_links, notes
from airflow_jobflow.ui.files import FILES, HEADERS
from airflow_jobflow.ui.registration import JobflowPlugin
from tests.ui.server import Server

NAMES = ["", "index.html", "jobs.css", "jobs.js", "icon.svg"]
MOST = 72_000
"""Maximum bytes of all files together; compressed, as Airflow sends them, they have about a third of that."""

RUNS_WITHIN = 0.05
"""Target for the import time of the plugin in a task's process, in seconds; reported, not asserted."""


def test_airflow_finds_the_plugin() -> None:
    """It is found by its entry point: plugins in the provider info are not loaded by default."""
    [entry] = [each for each in entry_points(group="airflow.plugins") if each.name == "jobflow"]
    assert entry.load() is JobflowPlugin


@pytest.mark.parametrize("name", NAMES)
def test_every_file_has_the_security_headers(airflow: Server, name: str) -> None:
    """A page may only load Airflow's own files, run no inline script, and be framed by Airflow only."""
    status, headers, _ = airflow.get(f"jobflow/{name}")
    got = {key.lower(): value for key, value in headers.items()}
    assert status == 200
    assert {key: got.get(key) for key in HEADERS} == HEADERS
    policy = dict(each.split(" ", 1) for each in got["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}


def test_nothing_else_is_served(airflow: Server) -> None:
    """Neither other files of the package nor of the machine are served."""
    for path in ("notes.py", "../notes.py", "..%2fnotes.py", "%2e%2e/files.py", "/etc/passwd"):
        status, _, body = airflow.get(f"jobflow/{path}")
        assert b"import" not in body
        assert b"root:" not in body
        assert status == 404 or b'id="root"' in body, f"{path} is neither unknown nor Airflow's own page"


def test_the_files_are_small_and_self_contained() -> None:
    """There are no dependencies, fonts, inline scripts or styles, and no markup made of text."""
    files = {path.name: path.read_text() for path in FILES.iterdir()}
    assert sum(len(text.encode()) for text in files.values()) < MOST
    page, script = files["index.html"], files["jobs.js"]
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
    known = {"http://www.w3.org/2000/svg"}
    for text in files.values():
        assert set(re.findall(r"https?://[\w./-]+", text)) <= known


def test_the_link_is_relative_and_names_the_instance() -> None:
    """It works under any path of Airflow."""
    from airflow.models.taskinstancekey import TaskInstanceKey

    key = TaskInstanceKey("a dag", "group.task", "manual__2026-11-22T03:00:00+00:00", 1, 3)
    operator: object = None
    address = JobsLink().get_link(operator, ti_key=key)  # type: ignore[arg-type]
    run = "manual__2026-11-22T03%3A00%3A00%2B00%3A00"
    assert address == f"dags/a%20dag/runs/{run}/tasks/group.task/mapped/3/plugin/jobflow"


def test_every_operator_and_sensor_has_the_button() -> None:
    """A missing one would only show in a user's UI."""
    from airflow_jobflow.provider_info import get_provider_info

    button, *_ = JobflowPlugin.operator_extra_links
    modules = [
        import_module(name)
        for kind in ("operators", "sensors")
        for each in get_provider_info()[kind]
        for name in each["python-modules"]
    ]
    defines = {(module, each) for module in modules for each in button.operators if each in vars(module).values()}
    assert {each for _, each in defines} == set(button.operators)
    assert {module for module, _ in defines} == set(modules)


def test_each_link_of_an_operator_has_a_button_of_the_same_name() -> None:
    """Otherwise Airflow would look for its URL in an XCom that nobody writes."""
    buttons = {
        (each, link.name, link.xcom_key) for link in JobflowPlugin.operator_extra_links for each in link.operators
    }
    links = {
        (each, link.name, link.xcom_key)
        for each in JobflowPlugin.operator_extra_links[0].operators
        for link in each.operator_extra_links
    }
    assert links
    assert {each for each in buttons if each[1] != "Jobs"} == links


def test_the_note_is_found_by_its_key() -> None:
    """The plugin contains the key, so that it need not import the module that writes the note."""
    assert console_links.NOTE == notes.KEY


def test_loading_the_plugin_is_fast(record_property: Any) -> None:
    """Every process of Airflow loads it, so it imports no web framework, operator or AWS module."""
    code = (
        "import sys, time, airflow.sdk.plugins_manager; before = set(sys.modules); begun = time.perf_counter(); "
        "import airflow_jobflow.ui.registration; seconds = time.perf_counter() - begun; "
        "new = set(sys.modules) - before; "
        "print([each for each in new if each.startswith(('starlette', 'fastapi', 'boto', 'airflow_jobflow.operators', "
        "'airflow_jobflow.sensors', 'airflow_jobflow.triggers', 'airflow.providers'))], f'{seconds:.4f}', len(new))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    heavy, _, figures = answer.stdout.strip().splitlines()[-1].partition("] ")
    assert heavy == "["
    record_property("seconds_and_modules", figures)
    sys.stdout.write(
        f"loading the plugin: {figures} seconds and modules; {RUNS_WITHIN} s are wanted\n"
    )  # shown by pytest -rP
