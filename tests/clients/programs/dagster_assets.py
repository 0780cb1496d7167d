"""Two assets of Dagster, each materialized by a process that reports with Pipes: a Fargate task and a Glue job run.

The processes get their input from Pipes: the task through its environment, the run through S3. They report through the
logs in CloudWatch.
"""

import sys
from pathlib import Path

import boto3
import dagster as dg
import dagster_pipes
from dagster_aws.pipes import (
    PipesCloudWatchMessageReader,
    PipesECSClient,
    PipesGlueClient,
    PipesS3ContextInjector,
)

BUCKET, JOB, FAMILY = "test-glue00", "pipes", "pipes"
REPORT = """
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes({loaders}) as pipes:
    pipes.log.info("hello from " + pipes.asset_key)
    pipes.report_asset_materialization({{"rows": pipes.get_extra("rows")}})
"""
GLUE_REPORT = f"""
import sys
sys.path.append({str(Path(dagster_pipes.__file__).parents[1])!r})  # in place of --additional-python-modules
import boto3
from dagster_pipes import PipesCliArgsParamsLoader, PipesS3ContextLoader
""" + REPORT.format(
    loaders="context_loader=PipesS3ContextLoader(boto3.client('s3')), params_loader=PipesCliArgsParamsLoader()"
)


@dg.asset
def by_task(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Run a Fargate task."""
    client = PipesECSClient()
    run = {
        "cluster": "jobflow",
        "taskDefinition": FAMILY,
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    }
    invocation = client.run(context=context, run_task_params=run, extras={"rows": 3}, waiter_config={"Delay": 1})
    return invocation.get_materialize_result()


@dg.asset
def by_run(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Run a Glue job."""
    client = PipesGlueClient(
        context_injector=PipesS3ContextInjector(client=boto3.client("s3"), bucket=BUCKET),
        message_reader=PipesCloudWatchMessageReader(client=boto3.client("logs")),
    )
    invocation = client.run(context=context, start_job_run_params={"JobName": JOB}, extras={"rows": 4})
    return invocation.get_materialize_result()


def create_resources() -> None:
    """Create the task definition and the job."""
    options = {
        "awslogs-group": "/jobflow/process-item",
        "awslogs-region": "us-east-1",
        "awslogs-stream-prefix": "pipes",
    }
    container = {
        "name": "main",
        "image": "public.ecr.aws/docker/library/python:3.13",
        "command": [sys.executable, "-c", REPORT.format(loaders="")],
        "logConfiguration": {"logDriver": "awslogs", "options": options},
    }
    boto3.client("ecs").register_task_definition(
        family=FAMILY,
        containerDefinitions=[container],
        cpu="256",
        memory="512",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        executionRoleArn="arn:aws:iam::123456789012:role/execution",
    )
    boto3.client("s3").put_object(Bucket=BUCKET, Key="pipes.py", Body=GLUE_REPORT.encode())
    command = {"Name": "pythonshell", "ScriptLocation": f"s3://{BUCKET}/pipes.py", "PythonVersion": "3.9"}
    boto3.client("glue").create_job(Name=JOB, Role="local-glue", Command=command, MaxCapacity=0.0625)


create_resources()
result = dg.materialize([by_task, by_run])
for event in result.get_asset_materialization_events():
    rows = event.materialization.metadata["rows"].value
    print(f"{event.asset_key.to_user_string()}: {rows} rows")  # noqa: T201
