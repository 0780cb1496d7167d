"""Every code block of the documentation and the README runs or can be parsed, or has a comment that says why not."""

from __future__ import annotations

import configparser
import inspect
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from airflow.providers.amazon.aws.hooks import base_aws
from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper

from airflow_jobflow.provider_info import get_provider_info

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "infra").glob("*.md"))]

NAMES: Final = """
from datetime import timedelta
from airflow.sdk import DAG, Asset, AssetWatcher, dag, task
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from airflow_jobflow.retry_policy import JobRetryPolicy
from airflow_jobflow.sensors.ecs import EcsTaskSensor
from airflow_jobflow.triggers.state_change import JobStateChangeTrigger
"""
"""What a block may use without importing it."""

REASON: Final = re.compile(r"<!-- not run: (.+) -->\s*\Z")
"""The comment before a block that cannot run."""


def blocks(language: str) -> Iterator[tuple[str, str, str]]:
    """Return every block of a language: its place, the text before it, and its content."""
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{page.relative_to(ROOT)}:{line}", text[: found.start()], found[1]


def params(language: str) -> list[object]:
    """Return the blocks as parameters of a test, with the place as id."""
    return [pytest.param(before, code, id=where) for where, before, code in blocks(language)]


@pytest.mark.parametrize(("before", "code"), params("python"))
def test_a_block_of_python_runs(before: str, code: str) -> None:
    """Readers would copy a mistyped name."""
    compiled = compile(code, "block", "exec")
    if REASON.search(before):
        return
    namespace: dict[str, object] = {"__name__": "block"}
    exec(NAMES, namespace)
    exec(compiled, namespace)


@pytest.mark.parametrize(("before", "code"), [*params("sh"), *params("bash")])
def test_a_block_of_shell_can_be_parsed(before: str, code: str) -> None:
    """A missing quote would be copied. Blocks that can run here have their own tests."""
    assert subprocess.run(["bash", "-n"], input=code, text=True, check=False).returncode == 0


@pytest.mark.parametrize(("before", "code"), [*params("json"), *params("yaml")])
def test_a_block_of_data_can_be_parsed(before: str, code: str) -> None:
    """A missing comma would be copied."""
    assert isinstance(yaml.safe_load(code), dict)  # JSON is YAML


@pytest.mark.parametrize(("before", "code"), params("json"))
def test_a_connection_is_accepted_by_the_amazon_provider(before: str, code: str) -> None:
    """Its hook silently ignores an unknown member."""
    stored = json.loads(code)
    extra = stored["extra"]
    read = AwsConnectionWrapper.from_connection_metadata(
        "aws_default", stored.get("login"), stored.get("password"), extra
    )
    assert read.region_name == extra["region_name"]
    assert read.aws_access_key_id == stored.get("login")
    assert read.role_arn == extra.get("role_arn")
    assert read.assume_role_method == (extra.get("assume_role_method", "assume_role") if read.role_arn else None)
    assert read.assume_role_kwargs == extra.get("assume_role_kwargs", {})
    hook = set(re.findall(r"assume_role_with_web_identity_\w+", inspect.getsource(base_aws)))
    assert {name for name in extra if name.startswith("assume_role_with_web_identity_")} <= hook


def states(machine: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Return every state of a state machine with its siblings, including those in maps."""
    for state in machine.get("States", {}).values():
        yield state, machine["States"]
        yield from states(state.get("Iterator", {}))


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "state_machines").glob("*.json")), ids=lambda file: file.stem)
def test_every_state_of_a_state_machine_ends_or_continues(file: Path) -> None:
    """The next state must exist."""
    for state, beside in states(json.loads(file.read_text())):
        nexts = [each["Next"] for each in (state, *state.get("Choices", [])) if "Next" in each]
        nexts += [state["Default"]] if "Default" in state else []
        assert set(nexts) <= set(beside)
        assert nexts or state.get("End") or state["Type"] == "Fail"


@pytest.mark.parametrize(("before", "code"), params("ini"))
def test_a_block_of_settings_names_only_existing_settings(before: str, code: str) -> None:
    """Airflow silently ignores an unknown setting."""
    parser = configparser.ConfigParser()
    parser.read_string(code)
    assert set(parser["jobflow"]) <= set(get_provider_info()["config"]["jobflow"]["options"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_what_exists(page: Path) -> None:
    """Settings, commands of make, files of the checkout, names of the package."""
    text = page.read_text()
    options = set(get_provider_info()["config"]["jobflow"]["options"])
    assert set(re.findall(r"\[jobflow\] (\w+)", text)) <= options
    assert {name.lower() for name in re.findall(r"AIRFLOW__JOBFLOW__(\w+)", text)} <= options
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= set(targets)
    files = re.findall(r"`((?:infra|dags|benchmarks|docs|tests)/[\w./-]*)`", text)
    made = "docs/_build"  # by `make docs`
    assert [name for name in files if name != made and not (ROOT / name).exists()] == []


def test_no_page_names_a_path_of_a_developers_machine() -> None:
    """Such a path has no meaning for readers."""
    sources = [*PAGES, *(ROOT / "docs").rglob("*.py"), *(ROOT / "docs").rglob("*.rst")]
    assert [str(page) for page in sources if re.search(r"/work/|/home/|/root/|/Users/", page.read_text())] == []
