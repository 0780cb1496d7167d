"""The page on the local AWS: every fault that it shows is one."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from airflow_jobflow.local import CannedResponse, Faults

PAGE = (Path(__file__).parents[2] / "docs" / "local-aws.md").read_text()
SHOWN = re.findall(r"`((?:Faults|CannedResponse)\([^`]*\))`", PAGE)


@pytest.mark.parametrize("code", SHOWN)
def test_documented_fault_is_one(code: str) -> None:
    """It can be set over HTTP as it is written."""
    names = {"Faults": Faults, "CannedResponse": CannedResponse, "job_id": "job-1", "task_arn": "arn:aws:ecs:task/a"}
    fault = eval(code, names)
    faults = fault if isinstance(fault, Faults) else Faults(respond_with=(fault,))
    assert Faults.from_json(faults.to_json()) == faults
    assert faults != Faults()


def test_every_kind_of_fault_is_described() -> None:
    """By the class that has it, which the API page shows."""
    assert len(SHOWN) > 15
    for kind in (Faults, CannedResponse):
        described = re.findall(r":param (\w+):", kind.__doc__ or "")
        assert described == [each.name for each in fields(kind)]
