"""What is read of jobs on EKS and of multi-node jobs: the responses in ``batch_responses.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml

from airflow_jobflow.jobs import batch
from airflow_jobflow.jobs.diagnosis import diagnose
from airflow_jobflow.jobs.model import Snapshot
from benchmarks.standin.conformance import violations

CORPUS = yaml.safe_load(Path(__file__).with_name("batch_responses.yaml").read_text())
CASES = [pytest.param(case, id=case["what"]) for case in CORPUS["jobs"]]
EACH = pytest.mark.parametrize("case", CASES)


def without_nulls(value: Any) -> Any:
    """Return a value without the members that a case has removed with null."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def job(case: dict[str, Any]) -> Any:
    """Return the job of a case, as in a DescribeJobs response."""
    return without_nulls({**CORPUS["common"], **case["job"]})


def read(snapshot: Snapshot, name: str) -> Any:
    """Return what a case expects of a snapshot: an attribute, the log as text, or the cause of the failure."""
    if name == "cause":
        diagnosis = diagnose(snapshot)
        return diagnosis and diagnosis.cause
    value = getattr(snapshot, name)
    return f"{value.group} {value.stream}" if name == "log" and value else value


@EACH
def test_responses_have_the_shape_that_botocore_describes(case: dict[str, Any]) -> None:
    """Otherwise the corpus would prove nothing."""
    model = botocore.session.get_session().get_service_model("batch").operation_model("DescribeJobs")
    assert violations(model.output_shape, {"jobs": [job(case)]}) == []


@EACH
def test_jobs_on_eks_and_multi_node_jobs_are_read(case: dict[str, Any]) -> None:
    """Attempts, exit code, reason, log, resources and cause are those of the container that counts."""
    snapshot = batch.snapshot(job(case))
    assert {name: read(snapshot, name) for name in case["read"]} == case["read"]
    assert Snapshot.from_dict(snapshot.to_dict()).details == snapshot.details
