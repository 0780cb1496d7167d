"""A call that the local AWS received: its name, the permissions it needs, and the resources it names.

Invariants: the body of a request is parsed only when a fault needs to know what the request names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from airflow_jobflow.local import bodies

if TYPE_CHECKING:
    from airflow_jobflow.local.protocols import Operation

ANY_RESOURCE: Final = "*"


@dataclass(frozen=True)
class Call:
    """A call that was received.

    :param service: the service in the signature, such as ``batch``.
    :param action: the action, such as ``DescribeJobs``.
    :param access_key: the id of the access key in the signature.
    :param key_expired: whether that key has expired. Default False.
    :param region: the region in the signature.
    :param path: the path of the URL.
    :param body: the body as received; empty for S3, whose requests name their resources in `path`.
    :param operation: the operation in the service's model. Default None: it is unknown, or there is no model.
    """

    service: str
    action: str
    access_key: str = ""
    key_expired: bool = False
    region: str = ""
    path: str = ""
    body: bytes = b""
    operation: Operation | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name in faults and counts: ``batch.DescribeJobs``."""
        return f"{self.service}.{self.action}"

    @cached_property
    def request(self) -> Any:
        """The members of the request; empty if the body is neither a JSON object nor a form."""
        try:
            content = bodies.parsed(self.body)
        except bodies.UnreadableBody:
            return dict(parse_qsl(self.body.decode("utf-8", "replace")))
        return content if isinstance(content, dict) else {}

    @property
    def permissions(self) -> tuple[str, ...]:
        """The actions that IAM must allow: the call's own and, if it sets tags, TagResource."""
        sets_tags = self.request.get("tags") or self.request.get("Tags")
        return (self.action, "TagResource") if sets_tags and self.action != "TagResource" else (self.action,)

    def is_one_of(self, patterns: tuple[str, ...], action: str | None = None) -> bool:
        """Return whether one of the patterns matches this call.

        :param patterns: each like ``batch.DescribeJobs``, ``DescribeJobs`` or ``batch.*``.
        :param action: the action to match. Default: that of the call.
        """
        action = action or self.action
        return any(pattern in (f"{self.service}.{action}", action, f"{self.service}.*") for pattern in patterns)

    def named(self, resources: tuple[str, ...]) -> str | None:
        """Return the first name in the request that matches one of `resources`; None if none does.

        :param resources: ids, names or ARNs, see `means`.
        """
        path = (unquote(part) for part in self.path.split("/"))
        names = (name for source in (texts(self.request), path) for name in source)
        return next((name for name in names if any(means(resource, name) for resource in resources)), None)


def means(resource: str, name: str) -> bool:
    """Return whether a resource of a fault is the one that a request names.

    An ARN also matches the id or name at its end, and vice versa.

    :param resource: the resource of the fault; ``*`` and ``?`` match any text and any character, as in IAM policies.
    :param name: the name in the request.
    """
    if not (resource.startswith("arn:") and name.startswith("arn:")):
        resource, name = _last(resource), _last(name)
    pattern = re.escape(resource).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, name, re.DOTALL) is not None


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1] if name.startswith("arn:") else name


def texts(value: Any) -> Iterator[str]:
    """Yield all strings in a JSON value, without the names of members.

    :param value: the value.
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
