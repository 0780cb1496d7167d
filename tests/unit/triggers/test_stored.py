"""Triggers that other versions have stored can be created and stored again.

``stored/<version>.json`` contains the serialized triggers of a released version. A release adds a file, and no file is
ever changed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow import provider_info
from airflow_jobflow.triggers import stored
from airflow_jobflow.triggers.job import JobTrigger
from airflow_jobflow.triggers.map import MapTrigger
from airflow_jobflow.triggers.start import StartTrigger
from airflow_jobflow.triggers.state_change import JobStateChangeTrigger
from airflow_jobflow.triggers.stored import RENAMED_ARGUMENTS, Stored

FORMS = [
    pytest.param(form["path"], form["arguments"], id=f"{file.stem}-{number}-{form['path'].rpartition('.')[2]}")
    for file in sorted((Path(__file__).parent / "stored").glob("*.json"))
    for number, form in enumerate(json.loads(file.read_text()))
]

ESSENTIAL: dict[type, set[str]] = {
    JobTrigger: {"service", "job_ids"},
    MapTrigger: {"service", "job_group", "size", "indexes", "requests"},
    StartTrigger: {"task_class", "arguments", "seconds"},
    JobStateChangeTrigger: {"queue_url"},
}
"""The required arguments. All others have a default; a new argument must not be added here."""


def made(path: str, arguments: dict[str, Any]) -> Any:
    """Create a trigger on an event loop, like a triggerer."""
    module, _, name = path.rpartition(".")
    trigger_class = getattr(importlib.import_module(module), name)

    async def make() -> Any:
        return trigger_class(**json.loads(json.dumps(arguments)))

    return asyncio.run(make())


@pytest.mark.parametrize(("path", "arguments"), FORMS)
def test_a_trigger_of_a_released_version_can_be_read_and_stored_again(path: str, arguments: dict[str, Any]) -> None:
    """Otherwise an upgrade fails running waits. Arguments are stored under their current names."""
    again, stored_again = made(path, arguments).serialize()
    assert again == path
    current = {RENAMED_ARGUMENTS.get(name, name): value for name, value in arguments.items()}
    assert {name: stored_again[name] for name in current if name in stored_again} == current
    assert stored_again.keys().isdisjoint(RENAMED_ARGUMENTS)
    assert made(again, stored_again).serialize() == (again, stored_again)


@pytest.mark.parametrize(("path", "arguments"), FORMS)
def test_an_additional_or_missing_argument_does_not_fail_a_trigger(path: str, arguments: dict[str, Any]) -> None:
    """Versions are mixed during an upgrade and after a rollback."""
    trigger = made(path, {**arguments, "of_a_later_version": [1]})
    assert "of_a_later_version" not in trigger.serialize()[1]
    for name in arguments:
        if RENAMED_ARGUMENTS.get(name, name) not in ESSENTIAL[type(trigger)]:
            made(path, {each: value for each, value in arguments.items() if each != name})


def test_renamed_arguments_are_not_logged_as_ignored(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have an effect. An unknown name is logged."""
    monkeypatch.setattr(stored, "_logged", set())
    with caplog.at_level(logging.WARNING):
        trigger = made("airflow_jobflow.triggers.job.JobTrigger", {"service": "batch", "job_ids": ["a"], "tells": True})
        assert trigger.reports_progress
        assert not caplog.records
        made("airflow_jobflow.triggers.job.JobTrigger", {"service": "batch", "job_ids": ["a"], "family": {}})
    assert [each.getMessage().rpartition(": ")[2] for each in caplog.records] == ["family"]


def test_an_old_name_in_a_dag_file_is_an_error() -> None:
    """Old names are for stored triggers only."""
    old: dict[str, Any] = {"tells": True}
    with pytest.raises(TypeError, match="tells"):
        JobTrigger(service="batch", job_ids=["a"], **old)


def test_every_trigger_of_the_package_can_be_read() -> None:
    """A new trigger must be covered here, with its stored form."""
    modules = [module for each in provider_info.get_provider_info()["triggers"] for module in each["python-modules"]]
    triggers = {
        each
        for module in modules
        for each in vars(importlib.import_module(module)).values()
        if isinstance(each, type) and issubclass(each, Stored) and each.__module__ == module
    }
    assert triggers == ESSENTIAL.keys()
    paths = {str(form.values[0]) for form in FORMS}
    assert paths == {f"{each.__module__}.{each.__qualname__}" for each in triggers}


def test_ignored_arguments_are_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A triggerer creates thousands of triggers."""
    monkeypatch.setattr(stored, "_logged", set())
    arguments = {"service": "batch", "job_ids": ["a"], "new": 1, "other": 2}
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            made("airflow_jobflow.triggers.job.JobTrigger", arguments)
    [record] = caplog.records
    assert record.getMessage() == (
        "JobTrigger ignores arguments that another version of airflow-jobflow has stored: new, other"
    )


def test_a_typo_in_a_dag_file_is_an_error() -> None:
    """A DAG file is parsed without an event loop."""
    typo: dict[str, Any] = {"job_definitoin": "print-color"}
    with pytest.raises(TypeError, match="job_definitoin"):
        JobStateChangeTrigger(queue_url="https://sqs/q", **typo)
