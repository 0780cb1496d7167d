"""The sample DAGs on the resources of the template, which has all that they need."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow.local import samples
from airflow_jobflow.local.glue import samples as glue_samples
from tests.dags.conftest import Run, dags, database, run_on  # noqa: F401 -- fixtures
from tests.infra.deployment import Stack

FLOWS = [
    "batch_job_status_poller",
    "batch_array_notify",
    "fargate_map",
    "fargate_map_expand",
    "glue_crawler_then_job",
    "python_functions",
    "stop_orphans",
    "deregister_definitions",
]
ITEMS = ["item-01", "item-02"]


@pytest.fixture
def files(stack: Stack) -> None:
    """Upload the sample files to the stack's bucket, as described in infra/README.md."""
    s3, bucket = stack.aws.client("s3"), stack.outputs["BucketName"]
    for name, output in ((f"{glue_samples.CRAWLER}.csv", "DataLocation"), (f"{glue_samples.JOB}.py", "ScriptLocation")):
        key = stack.outputs[output].removeprefix(f"s3://{bucket}/") + name
        s3.put_object(Bucket=bucket, Key=key, Body=(glue_samples.FILES / name).read_bytes())
    for item in ITEMS:
        key = f"{stack.outputs['InputLocation'].removeprefix(f's3://{bucket}/')}{item}.json"
        s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(samples.ITEMS[item]).encode())


@pytest.mark.parametrize("flow", FLOWS)
def test_a_sample_runs_on_the_stack(
    stack: Stack,
    files: None,
    run_on: Callable[..., Run],  # noqa: F811
    flow: str,
) -> None:
    """It uses the template's names, and the params from the outputs of the stack."""
    of_map: dict[str, Any] = {"parameter": ITEMS, **json.loads(stack.outputs["FargateMapParams"])}
    of_flow = {
        "fargate_map": of_map,
        "fargate_map_expand": of_map,
        "glue_crawler_then_job": {"polls": 100},
        "python_functions": json.loads(stack.outputs["PythonFunctionsParams"]),
    }
    run = run_on(stack.aws, flow, **of_flow.get(flow, {}))
    assert run.state == "success"
    if flow.startswith("fargate_map"):
        assert [each["result"] for each in run.returned("results")] == ["Success", "Success"]
