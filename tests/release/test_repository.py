"""What surrounds the package: its changelog, its workflows and its sample DAGs fit it and each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from airflow_jobflow import __version__

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
MAKEFILE = (ROOT / "Makefile").read_text()


def read(workflow: Path) -> dict[str, Any]:
    """Parse a workflow."""
    document: dict[str, Any] = yaml.safe_load(workflow.read_text())
    return document


def steps(workflow: Path) -> list[dict[str, Any]]:
    """All steps of its jobs."""
    return [step for job in read(workflow)["jobs"].values() for step in job.get("steps", [])]


def test_the_changelog_begins_with_this_version() -> None:
    """Who looks there wants to know what has come."""
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__


@pytest.mark.parametrize("page", ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_what_a_page_says_to_make_or_to_read_is_there(page: str) -> None:
    """A command or a file that is not there is a bad start."""
    text = (ROOT / page).read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for file in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text):
        assert (ROOT / file).exists(), file


def test_the_workflows_fit_their_schema() -> None:
    """GitHub's own, as check-jsonschema carries it; a workflow that does not is not run, and nobody is told."""
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    answer = subprocess.run([*check, *map(str, WORKFLOWS)], capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert [each.name for each in WORKFLOWS] == ["audit.yaml", "docs.yaml", "release.yaml", "tests.yaml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda each: each.stem)
def test_an_action_is_pinned_by_commit(workflow: Path) -> None:
    """A tag may be moved to something else. The version beside it is for people and for Dependabot."""
    used = re.findall(r"uses: (?!\./)(.*)", workflow.read_text())
    for each in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), each


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda each: each.stem)
def test_a_workflow_may_do_nothing_that_a_job_does_not_ask_for(workflow: Path) -> None:
    """And no job asks for more than to read, but the one that publishes."""
    document = read(workflow)
    assert document["permissions"] == {}
    for name, job in document["jobs"].items():
        publishes = (workflow.stem, name) == ("release", "publish")
        assert job["permissions"] == ({"id-token": "write"} if publishes else {"contents": "read"}), name
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"] == {"persist-credentials": False}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda each: each.stem)
def test_a_workflow_makes_what_can_be_made(workflow: Path) -> None:
    """A target that is renamed breaks it."""
    for target in re.findall(r"run: make ([a-z-]+)", workflow.read_text()):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_each_python_that_is_promised_is_tested() -> None:
    """The classifiers are the promise."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))
    jobs = read(ROOT / ".github" / "workflows" / "tests.yaml")["jobs"]
    for name in ("test", "installed"):
        assert jobs[name]["strategy"]["matrix"]["python"] == promised
    pinned = sorted({each.name.split("-")[1].rpartition(".")[0] for each in (ROOT / "tests/constraints").iterdir()})
    assert jobs["installed"]["strategy"]["matrix"]["airflow"] == ["lowest", "newest", *pinned]
    assert jobs["pinned"]["strategy"]["matrix"]["airflow"] == [*pinned, "lowest"]


def test_the_floors_are_below_what_every_supported_airflow_pins() -> None:
    """Or the package has no solution under the constraints with which people and managed services install."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = [Requirement(each) for each in dependencies if not each.startswith("apache-airflow>")]
    files = sorted((ROOT / "tests/constraints").iterdir())
    assert [each.name for each in files] == ["airflow-3.2.1-python3.12.txt", "airflow-3.3.1-python3.12.txt"]
    for file in files:
        pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", file.read_text(), re.MULTILINE))
        for floor in floors:
            assert floor.specifier.contains(pins[floor.name]), f"{file.name} pins {floor.name}=={pins[floor.name]}"


def test_nothing_is_published_that_was_not_tested_and_audited() -> None:
    """From the environment that PyPI trusts, with attestations."""
    publish = read(ROOT / ".github" / "workflows" / "release.yaml")["jobs"]["publish"]
    assert set(publish["needs"]) == {"tests", "audit", "build"}
    assert publish["environment"]["name"] == "pypi"
    assert publish["steps"][-1]["with"]["attestations"] is True


@pytest.mark.parametrize("dag", sorted((ROOT / "dags").glob("*.py")), ids=lambda each: each.stem)
def test_a_sample_dag_is_short_enough_to_copy(dag: Path) -> None:
    """It is read before it is copied."""
    assert len(dag.read_text().splitlines()) < 120
