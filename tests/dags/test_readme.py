"""The code in the README and in the documentation of maps works as written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow.operators.ecs import FargateMapOperator

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_the_dag_of_the_readme_runs_as_written(
    database: None, samples: Any, here: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new user copies it first."""
    from airflow.dag_processing.dagbag import DagBag

    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    [code] = [block for block in blocks if "my_array()" in block]
    (tmp_path / "my_array.py").write_text(code)
    here(samples)
    bundle = {
        "name": "readme",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(tmp_path)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    bag = DagBag(tmp_path)
    assert bag.import_errors == {}
    assert str(bag.dags["my_array"].test().state) == "success"


def test_the_map_on_the_page_of_maps_is_accepted() -> None:
    """Readers would copy an unknown parameter or a rejected item."""
    page = (ROOT / "docs" / "arrays-and-maps.md").read_text()
    [code] = re.findall(r"```python\n(FargateMapOperator.*?)```", page, re.DOTALL)
    operator = eval(code.strip(), {"FargateMapOperator": FargateMapOperator})
    operator.check()
    assert len(operator._execution.spec.items(operator.items)) == 2000


def test_the_two_commands_are_on_the_first_screen() -> None:
    """A newcomer who has to scroll for them may not find them."""
    first = README.read_text().splitlines()[:12]
    assert [line.split()[1] for line in first if line.startswith("make ")] == ["demo", "test"]


def test_the_readme_has_only_figures_that_were_measured() -> None:
    """A ratio that the benchmarks do not report is a promise that nobody checked."""
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    ratios = re.findall(r"\b1/\d+(?:\.\d+)?\b", README.read_text())
    assert len(ratios) >= 5
    assert [ratio for ratio in ratios if not re.search(rf"\b{re.escape(ratio)}(?![\d.])", results)] == []
    figures = re.findall(r"\b[\d,]*\d(?:\.\d+)? (?:s|MB)(?= |\b)", README.read_text().split("## Compared")[1])
    assert [figure for figure in figures if figure not in results] == []


@pytest.mark.parametrize("target", ["demo", "test", "ui", "bench"])
def test_a_make_command_of_the_readme_exists(target: str) -> None:
    """A command that does not exist is a bad start."""
    assert f"make {target}" in README.read_text()
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
