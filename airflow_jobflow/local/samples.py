"""What the sample DAGs need in a local AWS: queues and job definitions. Made through boto3 only, as on
AWS.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.server import LocalAwsClient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMPUTE_ENVIRONMENT: Final = "local"
ROLE: Final = "local-batch-service"
QUEUES: Final = ("hello-world-queue", "print-color-queue")
COLORS: Final = ("RED", "ORANGE", "YELLOW", "GREEN", "BLUE", "INDIGO", "VIOLET")
FAILING_INDEX: Final = 3

PRINT_COLOR: Final = f"""\
set -- {" ".join(COLORS)}
shift "${{AWS_BATCH_JOB_ARRAY_INDEX:-0}}"
if [ "$1" = "$FAIL_ON" ]; then echo "No ink left for $1" >&2; exit 1; fi
echo "$1"
"""

DEFINITIONS: Final[Mapping[str, Sequence[str]]] = {
    "hello-world": ["echo", "Hello world"],
    "print-color": ["sh", "-c", PRINT_COLOR],
    "print-color-failing": ["sh", "-c", f"FAIL_ON={COLORS[FAILING_INDEX]}\n{PRINT_COLOR}"],
}
"""Commands of the job definitions."""


def provision(endpoint_url: str) -> None:
    """Create what is not there yet."""
    aws = LocalAwsClient(endpoint_url)
    batch = aws.client("batch")
    _compute_environment(aws.client("iam"), batch)
    there = {queue["jobQueueName"] for queue in batch.describe_job_queues()["jobQueues"]}
    for name in QUEUES:
        if name not in there:
            create_queue(batch, name)
    defined = batch.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    commands = {
        each["jobDefinitionName"]: each.get("containerProperties", {}).get("command") for each in defined
    }
    for name, command in DEFINITIONS.items():
        if commands.get(name) != command:
            register_definition(batch, name, command)


def create_queue(batch: Any, name: str, environment: str = COMPUTE_ENVIRONMENT) -> None:
    """A job queue on one compute environment."""
    batch.create_job_queue(
        jobQueueName=name,
        state="ENABLED",
        priority=1,
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment}],
    )


def register_definition(batch: Any, name: str, command: Sequence[str], **more: Any) -> str:
    """A job definition that runs `command`; returns its ARN. `more` goes to RegisterJobDefinition."""
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
    """A compute environment of one's own machines, which is what this is."""
    roles = {role["RoleName"]: role["Arn"] for role in iam.list_roles()["Roles"]}
    if ROLE not in roles:
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "batch.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
        role = iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
        roles[ROLE] = role["Arn"]
    batch.create_compute_environment(
        computeEnvironmentName=name, type="UNMANAGED", state="ENABLED", serviceRole=roles[ROLE]
    )


def _compute_environment(iam: Any, batch: Any) -> None:
    environments = batch.describe_compute_environments()["computeEnvironments"]
    if COMPUTE_ENVIRONMENT not in {each["computeEnvironmentName"] for each in environments}:
        create_environment(iam, batch, COMPUTE_ENVIRONMENT)
