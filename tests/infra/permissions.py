"""The IAM permissions that a call needs, and whether a policy grants them. Pure functions.

An action has the name of its call, except for those in `NEEDS`. The resources and conditions are those of AWS's Service
Authorization Reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from airflow_jobflow.local.client import REGION

Params = Mapping[str, Any]

NONE: Final = "*"
"""The resource of an action that AWS checks without a resource."""
ECS_TASKS: Final = "ecs-tasks.amazonaws.com"
REVISION: Final = 1
"""A request is checked with the revision that it names."""

OF_CRAWLERS: Final = ("StartCrawler", "StopCrawler", "GetCrawler")
OF_JOBS: Final = ("StartJobRun", "BatchStopJobRun", "GetJobRun", "GetJobRuns", "GetJob", "UpdateJob")
OF_TASK_DEFINITIONS: Final = (
    "DescribeTaskDefinition",
    "ListTaskDefinitionFamilies",
    "ListTaskDefinitions",
    "DeregisterTaskDefinition",
)
OF_QUEUES: Final = ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility")


@dataclass(frozen=True)
class Call:
    """A call of AWS's API.

    :param service: boto3's name of the service.
    :param operation: its name in AWS's API.
    :param params: its parameters in boto3's format.
    """

    service: str
    operation: str
    params: Params


@dataclass(frozen=True)
class Need:
    """A permission that a call needs.

    :param action: such as ``batch:SubmitJob``.
    :param resource: what is checked, without its service, region and account, unless it is a complete ARN or `NONE`.
    :param context: condition keys.
    """

    action: str
    resource: str = NONE
    context: Mapping[str, str] = field(default_factory=dict)


def arn(service: str, account: str, resource: str) -> str:
    """Return the complete ARN of a resource."""
    if resource == NONE or resource.startswith("arn:"):
        return resource
    return f"arn:aws:{service}:{REGION}:{account}:{resource}"


def name(name_or_arn: str) -> str:
    """Return the name in an ARN; a name is returned unchanged."""
    return name_or_arn.rpartition("/")[2]


def _definition(given: str) -> str:
    return name(given) if ":" in name(given) else f"{name(given)}:{REVISION}"


def _cluster(params: Params) -> dict[str, str]:
    return {"ecs:cluster": f"cluster/{name(params['cluster'])}"}


def _submit_job(params: Params) -> Iterable[Need]:
    yield Need("batch:SubmitJob", f"job-queue/{name(params['jobQueue'])}")
    yield Need("batch:SubmitJob", f"job-definition/{_definition(params['jobDefinition'])}")
    if params.get("tags"):
        yield Need("batch:TagResource", "job/new")


def _register_job_definition(params: Params) -> Iterable[Need]:
    resource = f"job-definition/{params['jobDefinitionName']}"
    yield Need("batch:RegisterJobDefinition", resource)
    if params.get("tags"):
        yield Need("batch:TagResource", f"{resource}:{REVISION}")
    container = params.get("containerProperties", {})
    yield from _passed(container.get("executionRoleArn"), container.get("jobRoleArn"))


def _register_task_definition(params: Params) -> Iterable[Need]:
    resource = f"task-definition/{params['family']}:{REVISION}"
    yield Need("ecs:RegisterTaskDefinition", resource)
    if params.get("tags"):
        yield Need("ecs:TagResource", resource, {"ecs:CreateAction": "RegisterTaskDefinition"})
    yield from _passed(params.get("executionRoleArn"), params.get("taskRoleArn"))


def _passed(*roles: str | None) -> Iterable[Need]:
    """Yield the permissions to pass roles to what a definition runs."""
    return [Need("iam:PassRole", role, {"iam:PassedToService": ECS_TASKS}) for role in roles if role]


def _run_task(params: Params) -> Iterable[Need]:
    yield Need("ecs:RunTask", f"task-definition/{_definition(params['taskDefinition'])}", _cluster(params))
    if params.get("tags"):
        yield Need("ecs:TagResource", f"task/{name(params['cluster'])}/new", {"ecs:CreateAction": "RunTask"})


def _tasks(action: str, params: Params, tasks: Sequence[str]) -> list[Need]:
    where = name(params["cluster"])
    return [Need(action, f"task/{where}/{name(task)}", _cluster(params)) for task in tasks]


def _log_stream(params: Params) -> str:
    return f"log-group:{params['logGroupName']}:log-stream:{params['logStreamName']}"


def _one(action: str, kind: str, member: str) -> Callable[[Params], list[Need]]:
    """Return a function for calls about one resource of a kind, named by a member of the request."""
    return lambda params: [Need(action, f"{kind}{name(params[member])}")]


def _of_object(action: str) -> Callable[[Params], list[Need]]:
    """What a call needs that is about one object in S3."""
    return lambda params: [Need(action, f"arn:aws:s3:::{params['Bucket']}/{params['Key']}")]


def _unconfined(action: str) -> Callable[[Params], list[Need]]:
    """What a call needs that AWS checks against no resource."""
    return lambda _: [Need(action)]


NEEDS: Final[Mapping[str, Callable[[Params], Iterable[Need]]]] = {
    "batch:SubmitJob": _submit_job,
    "batch:DescribeJobs": lambda _: [Need("batch:DescribeJobs")],
    "batch:ListJobs": lambda _: [Need("batch:ListJobs")],
    "batch:TerminateJob": _one("batch:TerminateJob", "job/", "jobId"),
    "batch:GetJobQueueSnapshot": _one("batch:GetJobQueueSnapshot", "job-queue/", "jobQueue"),
    "batch:RegisterJobDefinition": _register_job_definition,
    "batch:DescribeJobDefinitions": lambda _: [Need("batch:DescribeJobDefinitions")],
    "batch:DeregisterJobDefinition": _one("batch:DeregisterJobDefinition", "job-definition/", "jobDefinition"),
    "batch:TagResource": _one("batch:TagResource", "job-definition/", "resourceArn"),
    "ecs:RunTask": _run_task,
    "ecs:RegisterTaskDefinition": _register_task_definition,
    "ecs:TagResource": _one("ecs:TagResource", "task-definition/", "resourceArn"),
    **{f"ecs:{call}": _unconfined(f"ecs:{call}") for call in OF_TASK_DEFINITIONS},
    "ecs:DescribeTasks": lambda params: _tasks("ecs:DescribeTasks", params, params["tasks"]),
    "ecs:StopTask": lambda params: _tasks("ecs:StopTask", params, [params["task"]]),
    "ecs:ListTasks": lambda params: [Need("ecs:ListTasks", NONE, _cluster(params))],
    "glue:BatchGetCrawlers": lambda params: [
        Need("glue:BatchGetCrawlers", f"crawler/{each}") for each in params["CrawlerNames"]
    ],
    "glue:ListCrawls": _one("glue:ListCrawls", "crawler/", "CrawlerName"),
    **{f"glue:{call}": _one(f"glue:{call}", "crawler/", "Name") for call in OF_CRAWLERS},
    **{f"glue:{call}": _one(f"glue:{call}", "job/", "JobName") for call in OF_JOBS},
    "logs:GetLogEvents": lambda params: [Need("logs:GetLogEvents", _log_stream(params))],
    **{f"s3:{call}": _of_object(f"s3:{call}") for call in ("GetObject", "PutObject")},
    "s3:ListObjectsV2": lambda params: [Need("s3:ListBucket", f"arn:aws:s3:::{params['Bucket']}")],
    **{f"sqs:{call}{batch}": _one(f"sqs:{call}", "", "QueueUrl") for call in OF_QUEUES for batch in ("", "Batch")},
}
"""What a call needs. A missing call is not covered by any policy here."""


def needs(call: Call, roles: Sequence[str]) -> list[Need]:
    """Return all permissions that a call needs.

    :param roles: ARNs of the roles that RunTask passes to a task.
    """
    needed = list(NEEDS[f"{call.service}:{call.operation}"](call.params))
    if call.operation == "RunTask":
        needed += [Need("iam:PassRole", role, {"iam:PassedToService": ECS_TASKS}) for role in roles]
    return needed


def actions(policy: Mapping[str, Any]) -> set[str]:
    """Return all actions that a policy allows."""
    return {action for statement in policy["Statement"] for action in _list(statement["Action"])}


def allows(policy: Mapping[str, Any], need: Need, account: str) -> bool:
    """Return whether a policy grants a permission."""
    resource = arn(need.action.partition(":")[0], account, need.resource)
    return any(
        need.action in _list(statement["Action"])
        and any(fnmatchcase(resource, pattern) for pattern in _list(statement["Resource"]))
        and _holds(statement.get("Condition", {}), need, account)
        for statement in policy["Statement"]
    )


def _holds(conditions: Mapping[str, Mapping[str, str]], need: Need, account: str) -> bool:
    if unknown := set(conditions) - {"ArnEquals", "StringEquals"}:
        raise ValueError(f"A condition that nothing here understands: {unknown}")
    keys = {key: arn("ecs", account, value) if key == "ecs:cluster" else value for key, value in need.context.items()}
    wanted = [(key, value) for condition in conditions.values() for key, value in condition.items()]
    return all(keys.get(key) == value for key, value in wanted)


def problems(
    policy: Mapping[str, Any], calls: Iterable[Call], account: str, roles: Sequence[str] = (), spare: Iterable[str] = ()
) -> list[str]:
    """Return what is wrong with a policy for these calls: missing permissions, and superfluous ones.

    :param spare: actions that it grants although none of these calls needs them.
    """
    needed = {(need.action, need.resource): need for call in calls for need in needs(call, roles)}
    lacks = [f"lacks {need.action} on {need.resource}" for need in needed.values() if not allows(policy, need, account)]
    used = {need.action for need in needed.values()} | set(spare)
    return sorted(lacks) + sorted(f"holds {action}, which nothing called" for action in actions(policy) - used)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
