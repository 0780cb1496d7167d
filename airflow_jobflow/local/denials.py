"""The errors for calls whose permission is missing or whose credentials have expired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_jobflow.local.call import ANY_RESOURCE
from airflow_jobflow.local.errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_jobflow.local.call import Call

DENIED: Final[Mapping[str, tuple[str, int]]] = {
    "batch": ("AccessDeniedException", 403),
    "s3": ("AccessDenied", 403),
    "sqs": ("AccessDenied", 403),
    "iam": ("AccessDenied", 403),
    "sts": ("AccessDenied", 403),
    "ec2": ("UnauthorizedOperation", 403),
}
"""Error code and HTTP status by service. All others respond with AccessDeniedException and 400."""

TAGGED: Final[Mapping[str, tuple[str, Callable[[str], str]]]] = {
    "batch.SubmitJob": ("jobDefinition", lambda name: f"job-definition/{name}"),
    "ecs.RunTask": ("cluster", lambda name: f"task/{name}/*"),
}
"""The resource for which TagResource is denied: the member of the request that names it, and the end of its ARN."""


def denial(call: Call, action: str, account: str, resource: str | None = None) -> AwsError:
    """Return the error for a call that lacks the permission for an action.

    :param call: the call.
    :param action: the action of the permission, without the service: ``TagResource``.
    :param account: the caller's account.
    :param resource: the resource. Default: the one that AWS names, or ``*``.
    """
    code, status = DENIED.get(call.service, ("AccessDeniedException", 400))
    permission = f"{call.service}:{action}"
    resource = resource or _resource(call, action, account)
    message = (
        f"User: arn:aws:iam::{account}:user/local is not authorized to perform: {permission} on resource: {resource} "
        f"because no identity-based policy allows the {permission} action"
    )
    return AwsError(code, message, status)


def expired() -> AwsError:
    """Return the error for a call that was signed with an expired key."""
    return AwsError("ExpiredTokenException", "The security token included in the request is expired")


def _resource(call: Call, action: str, account: str) -> str:
    if action != "TagResource" or call.name not in TAGGED:
        return ANY_RESOURCE
    member, end = TAGGED[call.name]
    name = str(call.request.get(member) or "default")
    if name.startswith("arn:") and call.service == "batch":
        return name
    return f"arn:aws:{call.service}:{call.region}:{account}:{end(name.rsplit('/', 1)[-1])}"
