"""Create the resources of the sample DAGs in a local AWS: queues, definitions, a cluster, a bucket. Uses only boto3."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.client import REGION, LocalAwsClient
from airflow_jobflow.local.glue import samples as glue_samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMPUTE_ENVIRONMENT: Final = "local"
EXECUTION_ROLE: Final = "arn:aws:iam::123456789012:role/execution"
"""The execution role of definitions for Fargate, which needs one. The local AWS does not look it up."""
ON_FARGATE: Final[Mapping[str, Any]] = {
    "executionRoleArn": EXECUTION_ROLE,
    "resourceRequirements": [{"type": "VCPU", "value": "0.25"}, {"type": "MEMORY", "value": "512"}],
    "networkConfiguration": {"assignPublicIp": "ENABLED"},
}
"""Container properties for Fargate."""
ROLE: Final = "local-batch-service"
QUEUES: Final = ("hello-world-queue", "print-color-queue")
COLORS: Final = ("RED", "ORANGE", "YELLOW", "GREEN", "BLUE", "INDIGO", "VIOLET")
FAILING_INDEX: Final = 3

PRINT_COLOR: Final = f"""\
set -- {" ".join(COLORS)}
shift "${{AWS_BATCH_JOB_ARRAY_INDEX:-0}}"
if [ "$1" = "$FAIL_ON" ]; then echo "No ink left for $1" >&2; exit 1; fi
sleep 1
echo "$1"
"""

DEFINITIONS: Final[Mapping[str, Sequence[str]]] = {
    "hello-world": ["echo", "Hello world"],
    "print-color": ["sh", "-c", PRINT_COLOR],
    "print-color-failing": ["sh", "-c", f"FAIL_ON={COLORS[FAILING_INDEX]}\n{PRINT_COLOR}"],
}
"""The command of each job definition."""

ARRAY_EVENTS: Final = "jobflow-array-events"
"""The name of a queue, and of the rule that sends it the ends of arrays: parents have a size and no index."""
ARRAY_ENDS: Final[Mapping[str, Any]] = {
    "source": ["aws.batch"],
    "detail-type": ["Batch Job State Change"],
    "detail": {
        "status": ["SUCCEEDED", "FAILED"],
        "arrayProperties": {"size": [{"exists": True}], "index": [{"exists": False}]},
    },
}

CLUSTER: Final = "jobflow"
BUCKET: Final = "jobflow-samples"
FAMILY: Final = "process-item"
LOG_GROUP: Final = "/jobflow/process-item"
INPUTS: Final = "fargate_map/input/"
ITEMS: Final[Mapping[str, Mapping[str, Any]]] = {
    **{f"item-{number:02}": {"number": number, "square": number**2} for number in range(1, 46)},
    "broken-item": {"fail": True},
}
"""The inputs of the map over Fargate tasks: more items than run at a time, and one that fails."""
TASK_ROLE: Final = "local-ecs-task"

PROCESS_ITEM: Final = """\
import json, os, sys
import boto3

bucket, source, target = (os.environ[name] for name in ("S3_BUCKET", "INPUT_KEY", "OUTPUT_KEY"))
s3 = boto3.client("s3")
item = json.load(s3.get_object(Bucket=bucket, Key=source)["Body"])
print(f"Processing s3://{bucket}/{source}: {item}", flush=True)
if item.get("fail"):
    sys.exit(f"This item cannot be processed: {item}")
result = {"input": item, "keys": sorted(item)}
s3.put_object(Bucket=bucket, Key=target, Body=json.dumps(result).encode())
print(f"Wrote s3://{bucket}/{target}")
"""
"""Reads an item from S3 and writes an output; an item ``{"fail": true}`` fails."""


def provision(endpoint_url: str) -> None:
    """Create all resources that do not exist yet.

    :param endpoint_url: the address of the local AWS.
    """
    aws = LocalAwsClient(endpoint_url)
    batch = aws.client("batch")
    role = _role(aws.client("iam"), TASK_ROLE, "ecs-tasks")
    _compute_environment(aws, batch)
    existing = {queue["jobQueueName"] for queue in batch.describe_job_queues()["jobQueues"]}
    for name in QUEUES:
        if name not in existing:
            create_queue(batch, name)
    defined = batch.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    commands = {each["jobDefinitionName"]: each.get("containerProperties", {}).get("command") for each in defined}
    for name, command in DEFINITIONS.items():
        if commands.get(name) != command:
            properties = {**ON_FARGATE, "executionRoleArn": role}
            register_definition(batch, name, command, platformCapabilities=["FARGATE"], containerProperties=properties)
    _array_events(aws)
    _inputs(aws.client("s3"))
    _process_item(aws, role)
    glue_samples.provision(aws, _role(aws.client("iam"), glue_samples.ROLE, "glue"))


def create_queue(batch: Any, name: str, environment: str = COMPUTE_ENVIRONMENT) -> None:
    """Create a job queue with one compute environment.

    :param batch: a boto3 client.
    :param name: the name of the queue.
    :param environment: the compute environment. Default ``local``.
    """
    batch.create_job_queue(
        jobQueueName=name,
        state="ENABLED",
        priority=1,
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment}],
    )


def register_definition(batch: Any, name: str, command: Sequence[str], **more: Any) -> str:
    """Register a job definition, and return its ARN.

    :param batch: a boto3 client.
    :param name: its name.
    :param command: its command.
    :param more: other parameters of RegisterJobDefinition.
    """
    properties = {
        "image": "public.ecr.aws/docker/library/busybox:stable",
        "command": list(command),
        "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "128"}],
        **more.pop("containerProperties", {}),
    }
    answer = batch.register_job_definition(
        jobDefinitionName=name, type="container", containerProperties=properties, **more
    )
    return str(answer["jobDefinitionArn"])


def create_environment(iam: Any, batch: Any, name: str) -> None:
    """Create a compute environment without a network, which is faster than `create_fargate_environment`.

    :param iam: a boto3 client.
    :param batch: a boto3 client.
    :param name: its name.
    """
    batch.create_compute_environment(
        computeEnvironmentName=name, type="UNMANAGED", state="ENABLED", serviceRole=_role(iam, ROLE, "batch")
    )


def create_fargate_environment(aws: LocalAwsClient, name: str) -> None:
    """Create a managed compute environment on Fargate in the default network.

    :param aws: the local AWS.
    :param name: its name.
    """
    ec2 = aws.client("ec2")
    subnets = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    groups = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["default"]}])["SecurityGroups"]
    aws.client("batch").create_compute_environment(
        computeEnvironmentName=name,
        type="MANAGED",
        state="ENABLED",
        computeResources={
            "type": "FARGATE",
            "maxvCpus": 16,
            "subnets": [each["SubnetId"] for each in subnets],
            "securityGroupIds": [groups[0]["GroupId"]],
        },
        serviceRole=_role(aws.client("iam"), ROLE, "batch"),
    )


def create_cluster(ecs: Any, name: str) -> None:
    """Create an ECS cluster with the capacity providers of Fargate.

    :param ecs: a boto3 client.
    :param name: its name.
    """
    ecs.create_cluster(clusterName=name, capacityProviders=["FARGATE", "FARGATE_SPOT"])


def register_task(ecs: Any, family: str, *containers: Mapping[str, Any], **more: Any) -> str:
    """Register a task definition for Fargate, and return its ARN.

    :param ecs: a boto3 client.
    :param family: its family.
    :param containers: container definitions, each with at least a name.
    :param more: other parameters of RegisterTaskDefinition.
    """
    image = {"image": "public.ecr.aws/docker/library/busybox:stable", "essential": True}
    size = {"cpu": "256", "memory": "512"}
    on_fargate = {"requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "executionRoleArn": EXECUTION_ROLE}
    request = {**on_fargate, **size, **more}
    definitions = [{**image, **container} for container in containers]
    answer = ecs.register_task_definition(family=family, containerDefinitions=definitions, **request)
    return str(answer["taskDefinition"]["taskDefinitionArn"])


def _array_events(aws: LocalAwsClient) -> None:
    """Create the queue of the DAG that is triggered by the ends of arrays."""
    sqs, events = aws.client("sqs"), aws.client("events")
    url = sqs.create_queue(QueueName=ARRAY_EVENTS)["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    events.put_rule(Name=ARRAY_EVENTS, EventPattern=json.dumps(ARRAY_ENDS))
    events.put_targets(Rule=ARRAY_EVENTS, Targets=[{"Id": ARRAY_EVENTS, "Arn": attributes["QueueArn"]}])


def _inputs(s3: Any) -> None:
    """Create the bucket of the map over Fargate tasks, with an input for each item."""
    s3.create_bucket(Bucket=BUCKET)  # succeeds if it exists
    existing = {each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET, Prefix=INPUTS).get("Contents", [])}
    for item, content in ITEMS.items():
        key = f"{INPUTS}{item}.json"
        if key not in existing:
            s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(content).encode())


def _process_item(aws: LocalAwsClient, role: str) -> None:
    """Create the cluster, log group and task definition of the map over Fargate tasks."""
    ecs, logs = aws.client("ecs"), aws.client("logs")
    if not any(each["status"] == "ACTIVE" for each in ecs.describe_clusters(clusters=[CLUSTER])["clusters"]):
        create_cluster(ecs, CLUSTER)
    groups = logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]
    if not any(each["logGroupName"] == LOG_GROUP for each in groups):
        logs.create_log_group(logGroupName=LOG_GROUP)
    arns = ecs.list_task_definitions(familyPrefix=FAMILY, status="ACTIVE")["taskDefinitionArns"]
    defined = [ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"] for arn in arns]
    command = ["-c", PROCESS_ITEM]
    if not any(each["containerDefinitions"][0].get("command") == command for each in defined):
        options = {"awslogs-group": LOG_GROUP, "awslogs-region": REGION, "awslogs-stream-prefix": "jobflow"}
        container = {
            "name": FAMILY,
            "image": "public.ecr.aws/lambda/python:3.13",  # has boto3
            "entryPoint": ["python"],
            "command": command,
            "logConfiguration": {"logDriver": "awslogs", "options": options},
        }
        register_task(ecs, FAMILY, container, taskRoleArn=role, executionRoleArn=role)


def _role(iam: Any, name: str, service: str) -> str:
    """Return the ARN of a role for a service; create it if it does not exist."""
    roles = {role["RoleName"]: role["Arn"] for role in iam.list_roles()["Roles"]}
    if name not in roles:
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": f"{service}.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
        trust = {"Version": "2012-10-17", "Statement": [statement]}
        roles[name] = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    return str(roles[name])


def _compute_environment(aws: LocalAwsClient, batch: Any) -> None:
    environments = batch.describe_compute_environments()["computeEnvironments"]
    if COMPUTE_ENVIRONMENT not in {each["computeEnvironmentName"] for each in environments}:
        create_fargate_environment(aws, COMPUTE_ENVIRONMENT)
