"""The comparison of calls with policies finds what is wrong with a policy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.permissions import Call, problems

ACCOUNT = "123456789012"
BATCH, ECS = (f"arn:aws:{service}:us-east-1:{ACCOUNT}" for service in ("batch", "ecs"))
SUBMIT = Call("batch", "SubmitJob", {"jobQueue": "q", "jobDefinition": "d"})
RUN = Call("ecs", "RunTask", {"cluster": "c", "taskDefinition": "t"})
STOP = Call("batch", "TerminateJob", {"jobId": "1"})
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"


def statement(action: Any, resource: Any, **condition: Any) -> dict[str, Any]:
    """Return a statement that allows an action."""
    said = {"Effect": "Allow", "Action": action, "Resource": resource}
    return {**said, "Condition": condition} if condition else said


QUEUE, DEFINITION = f"{BATCH}:job-queue/q", f"{BATCH}:job-definition/d:*"
IN_CLUSTER = {"ArnEquals": {"ecs:cluster": f"{ECS}:cluster/c"}}
TO_TASKS = {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
RUNS = statement("ecs:RunTask", f"{ECS}:task-definition/t:*", **IN_CLUSTER)
PASSES = statement("iam:PassRole", ROLE, **TO_TASKS)


@pytest.mark.parametrize(
    ("statements", "calls", "found"),
    [
        ([statement("batch:SubmitJob", [QUEUE, DEFINITION])], [SUBMIT], []),
        ([statement("batch:SubmitJob", QUEUE)], [SUBMIT], ["lacks batch:SubmitJob on job-definition/d:1"]),
        (
            [statement("batch:SubmitJob", [QUEUE, DEFINITION.removesuffix(":*")])],
            [SUBMIT],
            ["lacks batch:SubmitJob on job-definition/d:1"],
        ),
        ([statement("batch:SubmitJob", [QUEUE, DEFINITION])], [SUBMIT, STOP], ["lacks batch:TerminateJob on job/1"]),
        (
            [statement(["batch:SubmitJob", "batch:TerminateJob"], [QUEUE, DEFINITION])],
            [SUBMIT],
            ["holds batch:TerminateJob, which nothing called"],
        ),
        ([RUNS, PASSES], [RUN], []),
        ([RUNS], [RUN], [f"lacks iam:PassRole on {ROLE}"]),
        (
            [{**RUNS, "Condition": {"ArnEquals": {"ecs:cluster": f"{ECS}:cluster/other"}}}, PASSES],
            [RUN],
            ["lacks ecs:RunTask on task-definition/t:1"],
        ),
        (
            [RUNS, {**PASSES, "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}}],
            [RUN],
            [f"lacks iam:PassRole on {ROLE}"],
        ),
    ],
)
def test_missing_and_superfluous_permissions_are_found(
    statements: list[dict[str, Any]], calls: list[Call], found: list[str]
) -> None:
    """Actions, resources with their revisions, and conditions are compared."""
    assert problems({"Statement": statements}, calls, ACCOUNT, [ROLE]) == found


def test_an_unknown_call_is_an_error() -> None:
    """Someone must look up its permissions first."""
    with pytest.raises(KeyError, match="batch:CancelJob"):
        problems({"Statement": []}, [Call("batch", "CancelJob", {"jobId": "1"})], ACCOUNT)
