"""The documentation of the local AWS: every fault in it is valid."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow.local import CannedResponse, Faults, StartFailure
from airflow_jobflow.local.start_failures import CAPACITY, CONFIGURATION, TRANSIENT

PAGE = (Path(__file__).parents[2] / "docs" / "local-aws.md").read_text()
SHOWN = re.findall(r"`((?:Faults|CannedResponse|StartFailure)\([^`]*\))`", PAGE)


@pytest.mark.parametrize("code", SHOWN)
def test_documented_fault_is_valid(code: str) -> None:
    """It can be set over HTTP as documented."""
    kinds: dict[str, Any] = {"Faults": Faults, "CannedResponse": CannedResponse, "StartFailure": StartFailure}
    fault = eval(code, {**kinds, "job_id": "job-1", "task_arn": "arn:aws:ecs:task/a"})
    if isinstance(fault, CannedResponse):
        fault = Faults(respond_with=(fault,))
    faults = Faults(fail_starts=(fault,)) if isinstance(fault, StartFailure) else fault
    assert Faults.from_json(faults.to_json()) == faults
    assert faults != Faults()


def test_every_kind_of_fault_is_described() -> None:
    """The class that defines it, which the API page shows, is documented."""
    assert len(SHOWN) > 15
    for kind in (Faults, CannedResponse, StartFailure):
        described = re.findall(r":param (\w+):", kind.__doc__ or "")
        assert described == [each.name for each in fields(kind)]


def test_every_reason_of_a_failed_start_is_listed() -> None:
    """The table has who must act, in the same order."""
    rows = dict(re.findall(r"^\| (transient|capacity|configuration) \| (.*) \|$", PAGE, re.MULTILINE))
    listed = {kind: re.findall(r"`(\w+)`", row) for kind, row in rows.items()}
    assert listed == {
        "transient": list(TRANSIENT),
        "capacity": list(CAPACITY),
        "configuration": list(CONFIGURATION),
    }
