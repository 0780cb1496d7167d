"""How AWS answers a call whose permission is missing or whose credentials have expired."""

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
"""Code and HTTP status by service. The others, whose protocol is JSON, answer AccessDeniedException with 400."""

TAGGED: Final[Mapping[str, tuple[str, Callable[[str], str]]]] = {
    "batch.SubmitJob": ("jobDefinition", lambda name: f"job-definition/{name}"),
    "ecs.RunTask": ("cluster", lambda name: f"task/{name}/*"),
}
"""The resource on which TagResource is denied: the member of the request that names it, and its ARN's last part."""


def denial(call: Call, action: str, account: str, resource: str | None = None) -> AwsError:
    """What a call is answered that lacks the permission for an action.

    :param action: the permission's, without the service: ``TagResource``.
    :param account: the caller's.
    :param resource: what the permission is missing for; if None, what AWS names, or ``*``.
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
    """What a call is answered that was signed with an expired key."""
    return AwsError("ExpiredTokenException", "The security token included in the request is expired")


def _resource(call: Call, action: str, account: str) -> str:
    if action != "TagResource" or call.name not in TAGGED:
        return ANY_RESOURCE
    member, end = TAGGED[call.name]
    name = str(call.request.get(member) or "default")
    if name.startswith("arn:") and call.service == "batch":
        return name
    return f"arn:aws:{call.service}:{call.region}:{account}:{end(name.rsplit('/', 1)[-1])}"
