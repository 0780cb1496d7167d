"""Moto: its own tests of Batch, ECS and Glue, from its source distribution, on the local AWS.

They test the behaviour of moto, which is not always that of AWS. Each failing test is in ``moto_differences.yaml``,
with the reason why the local AWS is right. The list is exact: a test that passes must be removed from it, unless it
fails only ``sometimes``.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import moto
import pytest
import yaml

from tests.clients.environments import python_environment, source

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION: Final = moto.__version__
PACKAGES: Final = (f"moto[all,server]=={VERSION}", "pytest==9.1.1", "freezegun==1.5.5")
HERE: Final = Path(__file__).parent
DIFFERENCES: Final = yaml.safe_load((HERE / "moto_differences.yaml").read_text())


@pytest.mark.parametrize("suite", ["batch", "batch_simple", "ecs", "glue"])
def test_only_the_listed_tests_of_moto_fail(suite: str, run: Callable[..., str], tmp_path: Path) -> None:
    """No other test fails, and no listed test passes."""
    python = python_environment("moto", *PACKAGES) / "python"
    place = source("moto-source", f"moto=={VERSION}")
    outcomes = tmp_path / "outcomes.json"
    environment = {
        "PYTHONPATH": f"{place}:{HERE / 'programs'}",
        "FRESH_AWS_PYTHON": sys.executable,
        "OUTCOMES": str(outcomes),
    }
    run([python, "-m", "pytest", "-q", "-p", "moto_plugin", place / "tests" / f"test_{suite}"], environment)

    ended = {name.removeprefix("tests/"): outcome for name, outcome in json.loads(outcomes.read_text()).items()}
    failed = {name: error for name, error in ended.items() if error.startswith("failed")}
    entries = {name: each for each in DIFFERENCES for name in each["tests"] if name.startswith(f"test_{suite}/")}
    always = {name for name, entry in entries.items() if not entry.get("sometimes")}
    print(suite, dict(Counter(outcome.partition(":")[0] for outcome in ended.values())))  # noqa: T201 -- with -s
    unlisted = [f"{name} {error}" for name, error in failed.items() if name not in entries]
    assert not unlisted, "not on the list:\n" + "\n".join(unlisted)
    passed = sorted(always - set(failed))
    assert not passed, "on the list, but not failing:\n" + "\n".join(passed)
