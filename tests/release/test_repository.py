"""The files around the package: the changelog, the workflows and the sample DAGs are consistent."""

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
    """Return all steps of its jobs."""
    return [step for job in read(workflow)["jobs"].values() for step in job.get("steps", [])]


def test_the_changelog_begins_with_this_version() -> None:
    """Users look there for the changes of a release."""
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__


@pytest.mark.parametrize("page", ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_commands_and_files_on_a_page_exist(page: str) -> None:
    """A missing command or file is a bad start for a contributor."""
    text = (ROOT / page).read_text()
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for file in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text):
        assert (ROOT / file).exists(), file


def test_the_workflows_match_their_schema() -> None:
    """The schema is GitHub's own, as included in check-jsonschema; an invalid workflow is silently not run."""
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    answer = subprocess.run([*check, *map(str, WORKFLOWS)], capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert [each.name for each in WORKFLOWS] == ["audit.yaml", "docs.yaml", "release.yaml", "tests.yaml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda each: each.stem)
def test_an_action_is_pinned_by_commit(workflow: Path) -> None:
    """A tag may be moved. The version beside the commit is for people and for Dependabot."""
    used = re.findall(r"uses: (?!\./)(.*)", workflow.read_text())
    for each in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), each


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda each: each.stem)
def test_a_workflow_has_minimal_permissions(workflow: Path) -> None:
    """Only the job that publishes has more than read permissions."""
    document = read(workflow)
    assert document["permissions"] == {}
    for name, job in document["jobs"].items():
        publishes = (workflow.stem, name) == ("release", "publish")
        assert job["permissions"] == ({"id-token": "write"} if publishes else {"contents": "read"}), name
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"] == {"persist-credentials": False}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda each: each.stem)
def test_make_targets_in_a_workflow_exist(workflow: Path) -> None:
    """Renaming a target would break the workflow."""
    for target in re.findall(r"run: make ([a-z-]+)", workflow.read_text()):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_each_supported_python_is_tested() -> None:
    """The classifiers list the supported versions."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))
    jobs = read(ROOT / ".github" / "workflows" / "tests.yaml")["jobs"]
    for name in ("test", "installed"):
        assert jobs[name]["strategy"]["matrix"]["python"] == promised
    pinned = sorted({each.name.split("-")[1].rpartition(".")[0] for each in (ROOT / "tests/constraints").iterdir()})
    assert jobs["installed"]["strategy"]["matrix"]["airflow"] == ["lowest", "newest", *pinned]
    assert jobs["pinned"]["strategy"]["matrix"]["airflow"] == [*pinned, "lowest"]


def test_lower_bounds_are_below_the_constraints_of_every_supported_airflow() -> None:
    """Otherwise the package could not be installed under the official constraints."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = [Requirement(each) for each in dependencies if not each.startswith("apache-airflow>")]
    files = sorted((ROOT / "tests/constraints").iterdir())
    assert [each.name for each in files] == ["airflow-3.2.1-python3.12.txt", "airflow-3.3.1-python3.12.txt"]
    for file in files:
        pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", file.read_text(), re.MULTILINE))
        for floor in floors:
            assert floor.specifier.contains(pins[floor.name]), f"{file.name} pins {floor.name}=={pins[floor.name]}"


def test_a_release_is_tested_and_audited_before_it_is_published() -> None:
    """It is published from the environment that PyPI trusts, with attestations."""
    publish = read(ROOT / ".github" / "workflows" / "release.yaml")["jobs"]["publish"]
    assert set(publish["needs"]) == {"tests", "audit", "build"}
    assert publish["environment"]["name"] == "pypi"
    assert publish["steps"][-1]["with"]["attestations"] is True


@pytest.mark.parametrize("dag", sorted((ROOT / "dags").glob("*.py")), ids=lambda each: each.stem)
def test_a_sample_dag_is_short_enough_to_copy(dag: Path) -> None:
    """Users read it before they copy it."""
    assert len(dag.read_text().splitlines()) < 120
