"""The README's DAG runs as it stands there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow.operators.ecs import FargateMapOperator

README = Path(__file__).parents[2] / "README.md"


def test_the_array_job_of_the_readme_runs(
    database: None, samples: Any, here: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first thing a new user copies."""
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


def test_the_map_of_the_readme_is_a_good_one() -> None:
    """A parameter that is not there, or an item that is refused, would be a bad start."""
    [code] = re.findall(r"```python\n(FargateMapOperator.*?)```", README.read_text(), re.DOTALL)
    operator = eval(code.strip(), {"FargateMapOperator": FargateMapOperator})
    operator.check()
    assert len(operator._items()) == 2000


@pytest.mark.parametrize("target", ["demo", "test", "ui", "bench"])
def test_what_the_readme_says_to_make_can_be_made(target: str) -> None:
    """A command that is not there is a bad start."""
    assert f"make {target}" in README.read_text()
    assert re.search(rf"^{target}:", (README.parent / "Makefile").read_text(), re.MULTILINE)
