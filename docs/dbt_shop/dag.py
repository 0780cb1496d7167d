"""A dbt project whose seeds, snapshots, models and tests are Batch jobs."""

from __future__ import annotations

from pathlib import Path

from cosmos import DbtDag, ExecutionConfig, ProjectConfig, RenderConfig
from cosmos.constants import DbtResourceType, ExecutionMode, LoadMode, TestBehavior
from node_converters import batch_jobs

from airflow_jobflow.retry_policy import JobRetryPolicy

run, test = batch_jobs(
    job_queue="hello-world-queue",
    image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/dbt-shop:1.4.0",
    execution_role="arn:aws:iam::123456789012:role/execution",
    job_role="arn:aws:iam::123456789012:role/dbt-shop",
    vcpus=0.5,
    memory=1024,
    on_out_of_memory={"memory": "x2", "max": 16384},
    number_logs_success=20,
    retries=2,
    retry_policy=JobRetryPolicy(),
)

dbt_shop = DbtDag(
    dag_id="dbt_shop",
    schedule=None,
    project_config=ProjectConfig(manifest_path=Path(__file__).with_name("manifest.json"), project_name="shop"),
    execution_config=ExecutionConfig(execution_mode=ExecutionMode.AWS_ECS, dbt_project_path="/dbt"),
    render_config=RenderConfig(
        load_method=LoadMode.DBT_MANIFEST,
        test_behavior=TestBehavior.AFTER_EACH,
        node_converters={
            DbtResourceType.SEED: run,
            DbtResourceType.SNAPSHOT: run,
            DbtResourceType.MODEL: run,
            DbtResourceType.TEST: test,
        },
        node_conversion_by_task_group=False,
        should_detach_multiple_parents_tests=True,
    ),
)
