"""### Run a Fargate Spot task for each item of a list

Flow 3, **Map over Fargate tasks**: for each item of `parameter`, a Fargate task reads `fargate_map/input/<item>.json`
from S3 and writes `fargate_map/output/<item>.json`. At most 40 tasks run at a time. There are two variants:

- `fargate_map` has one Airflow task for all items. Use it for many items.
- `fargate_map_expand` has one Airflow task, and so one worker process, per item. You can clear each separately.

A failed item does not stop the others: each ends as "Success" or "Fail". An item that loses Spot capacity is retried.
"""

from __future__ import annotations

import logging
from collections import Counter
from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from airflow_jobflow.retry_policy import JobRetryPolicy

ITEMS = [f"item-{number:02}" for number in range(1, 46)]
DAG: dict[str, Any] = {
    "tags": ["jobflow", "ecs"],
    "doc_md": __doc__,
    "render_template_as_native_obj": True,
    "params": {
        "parameter": Param(ITEMS, type="array", items={"type": "string"}, description="The items, one on a line"),
        "s3_bucket": Param("jobflow-samples", type="string", description="Bucket of inputs and outputs"),
        "cluster": Param("jobflow", type="string", description="ECS cluster with Fargate Spot: name or ARN"),
        "task_definition": Param("process-item", type="string", description="Family, family:revision or ARN"),
        "subnets": Param(["subnet-1"], type="array", items={"type": "string"}, description="Ids, one on a line"),
        "assign_public_ip": Param(True, type="boolean", description="Needed in public subnets, to pull the image"),
        "wait_time": Param(60, type="number", exclusiveMinimum=0, description="Seconds between two polls of a task"),
    },
}
TASK: dict[str, Any] = {
    "cluster": "{{ params.cluster }}",
    "task_definition": "{{ params.task_definition }}",
    "subnets": "{{ params.subnets }}",
    "assign_public_ip": "{{ params.assign_public_ip }}",
    "capacity_provider_strategy": {"FARGATE_SPOT": 1},
    "on_spot_interruption": "retry",
    "poll_interval": "{{ params.wait_time }}",
    "job_timeout": timedelta(hours=4),
    "raise_on_failure": False,  # an item's failure is its result
    "retries": 6,  # for AWS errors; an item that takes too long is not retried
    "retry_delay": timedelta(seconds=2),
    "retry_exponential_backoff": 2,
    "retry_policy": JobRetryPolicy(soon=2, retry_timeouts=False),
}


def environment(item: str, s3_bucket: str) -> dict[str, str]:
    """Return the environment variables of an item's task."""
    folder, name = "fargate_map", f"{item}.json"
    return {"S3_BUCKET": s3_bucket, "INPUT_KEY": f"{folder}/input/{name}", "OUTPUT_KEY": f"{folder}/output/{name}"}


def report(parameter: list[str], outcomes: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Return the result of each item. A task that could not run, or took too long, has no outcome."""
    results = []
    for item, outcome in zip(parameter, outcomes, strict=True):
        if outcome and outcome["state"] == "SUCCEEDED":
            results.append({"item": item, "result": "Success"})
        else:
            why = outcome or {"reason": "see the log of its Airflow task", "exit_code": None}
            results.append({"item": item, "result": "Fail", "reason": why["reason"], "exit_code": why["exit_code"]})
    logging.getLogger(__name__).info("Results: %s", dict(Counter(each["result"] for each in results)))
    return results


@dag(schedule=None, **DAG)
def fargate_map() -> None:
    """Run one Airflow task for all items."""

    @task
    def items(parameter: list[str], s3_bucket: str) -> list[dict[str, Any]]:
        return [{"environment": environment(item, s3_bucket)} for item in parameter]

    process_items = FargateMapOperator(
        task_id="process_items",
        items=items("{{ params.parameter }}", "{{ params.s3_bucket }}"),
        max_concurrency=40,
        tolerated_failure_percentage=100,
        **TASK,
    )

    @task
    def results(parameter: list[str], outcome: dict[str, Any]) -> list[dict[str, Any]]:
        ended = dict(enumerate({"state": "SUCCEEDED"} if status == "S" else None for status in outcome["statuses"]))
        return report(parameter, list((ended | {each["index"]: each for each in outcome["failed"]}).values()))

    results("{{ params.parameter }}", process_items.output)


@dag(schedule=None, **DAG)
def fargate_map_expand() -> None:
    """Run one Airflow task for each item."""

    @task
    def environments(parameter: list[str], s3_bucket: str) -> list[dict[str, str]]:
        return [environment(item, s3_bucket) for item in parameter]

    process_item = FargateTaskOperator.partial(task_id="process_item", max_active_tis_per_dagrun=40, **TASK).expand(
        environment=environments("{{ params.parameter }}", "{{ params.s3_bucket }}")
    )

    @task(trigger_rule="all_done")
    def results(parameter: list[str], ti: Any = None) -> list[dict[str, Any]]:
        return report(parameter, ti.xcom_pull(task_ids="process_item", map_indexes=range(len(parameter))))

    process_item >> results("{{ params.parameter }}")


fargate_map()
fargate_map_expand()
