"""Malformed requests: generated from botocore's models, then broken in one or two places. The generator is seeded."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, urlencode

from botocore.loaders import Loader
from botocore.model import ServiceModel

SERVICES: Final = (
    "batch",
    "ecs",
    "glue",
    "logs",
    "events",
    "cloudformation",
    "sqs",
    "sns",
    "iam",
    "sts",
    "s3",
)
"""The services that are tested: those for jobs and their events. EC2 is omitted, because its model takes seconds."""

OURS: Final[Mapping[str, tuple[str, ...]]] = {
    "batch": ("SubmitJob", "DescribeJobs", "ListJobs", "CancelJob", "TerminateJob", "GetJobQueueSnapshot"),
    "ecs": ("RunTask", "StartTask", "DescribeTasks", "ListTasks", "StopTask"),
    "glue": (
        "StartCrawler",
        "StopCrawler",
        "UpdateCrawler",
        "DeleteCrawler",
        "GetCrawler",
        "GetCrawlers",
        "BatchGetCrawlers",
        "GetCrawlerMetrics",
        "ListCrawls",
        "StartJobRun",
        "GetJobRun",
        "GetJobRuns",
        "BatchStopJobRun",
    ),
}
"""Operations that moto does not handle."""

NAMES: Final[Mapping[str, str]] = {
    "CrawlerName": "victim",
    "JobName": "victim",
    "Name": "victim",
    "cluster": "victim",
    "computeEnvironment": "victim",
    "jobDefinition": "victim",
    "jobName": "victim",
    "jobQueue": "victim",
    "taskDefinition": "victim",
    "logGroupName": "victim",
    "DatabaseName": "victim",
    "Rule": "victim",
}
"""Values of members, so that requests refer to existing resources."""

STRANGE: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**70,
    1.5,
    1e300,
    "",
    " ",
    "x",
    "x" * 5000,
    "\x00",
    "\ud800",
    "ünï\u2028",
    "arn:",
    "arn:aws:batch",
    "../..",
    [],
    [None],
    [[]],
    ["x"] * 300,
    {},
    {"": None},
    {"AsDict": 1},
    {"x": {"y": []}},
)
"""Values that a member may get instead of its own."""


@dataclass
class Sent:
    """A request to send.

    :param length: the value of Content-Length; None for the length of the body.
    """

    service: str
    operation: str
    method: str = "POST"
    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    region: str = "us-east-1"
    length: str | None = None
    signed: bool = True

    def raw(self) -> bytes:
        """Return the request as HTTP."""
        headers = {"Host": "localhost", **self.headers}
        if self.signed:
            scope = f"jobflowlocal/20260101/{self.region}/{self.service}/aws4_request"
            headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
        if "Transfer-Encoding" not in headers:
            headers["Content-Length"] = str(len(self.body)) if self.length is None else self.length
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


class Generator:
    """Generates requests, the same ones for the same seed.

    :param seed: the seed of the random numbers.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        loader = Loader()
        self.models = {name: ServiceModel(loader.load_service_model(name, "service-2"), name) for name in SERVICES}
        self.operations = [
            (service, operation) for service, model in self.models.items() for operation in model.operation_names
        ]

    def requests(self, count: int) -> list[Sent]:
        """Return broken requests, half of them for operations that moto does not handle."""
        ours = [(service, operation) for service, operations in OURS.items() for operation in operations]
        chosen = [
            (self.operations if number % 2 else ours)[number // 2 % self._many(number)] for number in range(count)
        ]
        return [self._broken(service, operation) for service, operation in chosen]

    def _many(self, number: int) -> int:
        return len(self.operations) if number % 2 else sum(len(operations) for operations in OURS.values())

    def _broken(self, service: str, operation: str) -> Sent:
        model = self.models[service].operation_model(operation)
        members = {} if model.input_shape is None else self._value(model.input_shape, operation, 0)
        for _ in range(self._random.choice((0, 1, 1, 1, 2, 3))):
            members = self._break_value(members)
        sent = self._written(service, model, members if isinstance(members, dict) else {"": members})
        return self._random.choice(BREAKS)(sent, self._random) if self._random.random() < 0.3 else sent

    def _value(self, shape: Any, name: str, depth: int) -> Any:
        """Return a value that a shape more or less allows."""
        kind = shape.type_name
        if kind == "structure":
            wanted = set(shape.required_members)
            optional = [each for each in shape.members if each not in wanted and depth < 3]
            wanted |= set(self._random.sample(optional, min(len(optional), self._random.randrange(4))))
            return {each: self._value(shape.members[each], each, depth + 1) for each in sorted(wanted) if depth < 6}
        if kind == "list":
            return [self._value(shape.member, name, depth + 1) for _ in range(self._random.choice((1, 1, 2)))]
        if kind == "map":
            return {"key": self._value(shape.value, name, depth + 1)}
        if kind == "string":
            return self._random.choice(shape.enum) if shape.enum else NAMES.get(name, "victim")
        plain: Mapping[str, Any] = {
            "boolean": True,
            "blob": "eA==",
            "timestamp": 1780000000,
            "double": 1.5,
            "float": 1.5,
        }
        return plain.get(kind, max(shape.metadata.get("min", 1), 1))

    def _break_value(self, value: Any) -> Any:
        """Return a value with one element replaced, removed, added or repeated."""
        chance = self._random.random()
        if isinstance(value, dict) and value and chance < 0.85:
            name = self._random.choice(sorted(value))
            if chance < 0.15:
                return {each: value[each] for each in value if each != name}
            if chance < 0.25:
                return {**value, "Unknown": self._random.choice(STRANGE)}
            return {**value, name: self._break_value(value[name])}
        if isinstance(value, list) and value and chance < 0.7:
            return [self._break_value(value[0]), *value[1:]]
        return self._random.choice(STRANGE)

    def _written(self, service: str, model: Any, members: dict[str, Any]) -> Sent:
        """Return a request in the protocol of its service."""
        metadata = model.service_model.metadata
        if metadata["protocol"] == "json":
            headers = {
                "X-Amz-Target": f"{metadata['targetPrefix']}.{model.name}",
                "Content-Type": f"application/x-amz-json-{metadata['jsonVersion']}",
            }
            return Sent(service, model.name, headers=headers, body=_json(members))
        if metadata["protocol"] == "query":
            form = {"Action": model.name, "Version": metadata["apiVersion"], **dict(_flat("", members))}
            body = urlencode(form, errors="replace").encode()
            return Sent(service, model.name, headers={"Content-Type": "application/x-www-form-urlencoded"}, body=body)
        return self._rest(service, model, members)

    def _rest(self, service: str, model: Any, members: dict[str, Any]) -> Sent:
        path: str = model.http["requestUri"]
        query, body = {}, {}
        for name, value in members.items():
            member = model.input_shape.members.get(name) if model.input_shape else None
            sent = name if member is None else member.serialization.get("name", name)
            location = None if member is None else member.serialization.get("location")
            label = quote(_text(value), safe="") or "x"
            if location == "uri":
                path = path.replace(f"{{{sent}}}", label).replace(f"{{{sent}+}}", label)
            elif location == "querystring":
                query[sent] = _text(value)
            elif location is None:
                body[sent] = value
        if query:
            path += f"{'&' if '?' in path else '?'}{urlencode(query, errors='replace')}"
        content = _json(body) if service == "batch" else b"<x>" + _json(body) + b"</x>"
        return Sent(service, model.name, model.http["method"], path, body=content if body else b"")


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _text(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode()[:300]


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    """Return the parameters of a form."""
    dot = f"{prefix}." if prefix else ""
    if isinstance(value, dict):
        return [each for name, member in value.items() for each in _flat(f"{dot}{name}", member)]
    if isinstance(value, list):
        return [each for place, member in enumerate(value[:20], 1) for each in _flat(f"{dot}member.{place}", member)]
    return [(prefix, "true" if value is True else str(value))]


def _cut(sent: Sent, numbers: random.Random) -> Sent:
    return replace(sent, body=sent.body[: numbers.randrange(len(sent.body) + 1)])


def _cut_off(sent: Sent, numbers: random.Random) -> Sent:
    return replace(sent, length=str(len(sent.body) + numbers.randrange(1, 50)))


def _with_bytes(sent: Sent, numbers: random.Random) -> Sent:
    place = numbers.randrange(len(sent.body) + 1)
    return replace(
        sent, body=sent.body[:place] + numbers.choice((b"\xff\xfe", b"\x00", b"{", b'"')) + sent.body[place:]
    )


def _with_length(sent: Sent, numbers: random.Random) -> Sent:
    return replace(sent, length=numbers.choice(("-1", "-999", "abc", "", "1e3", "0", "1", "9" * 30)))


def _with_header(name: str, *values: str) -> Callable[[Sent, random.Random], Sent]:
    return lambda sent, numbers: replace(sent, headers={**sent.headers, name: numbers.choice(values)})


def _without_header(name: str) -> Callable[[Sent, random.Random], Sent]:
    return lambda sent, _: replace(sent, headers={key: value for key, value in sent.headers.items() if key != name})


def _with_body(*bodies: bytes) -> Callable[[Sent, random.Random], Sent]:
    return lambda sent, numbers: replace(sent, body=numbers.choice(bodies))


def _chunked(sent: Sent, numbers: random.Random) -> Sent:
    good = b"%x\r\n%s\r\n0\r\n\r\n" % (len(sent.body), sent.body) if sent.body else b"0\r\n\r\n"
    body = numbers.choice((good, good, b"zz\r\n" + sent.body, b"-5\r\nhello\r\n", good[:-7], sent.body, b""))
    return replace(sent, headers={**sent.headers, "Transfer-Encoding": "chunked"}, body=body)


BREAKS: Final[tuple[Callable[[Sent, random.Random], Sent], ...]] = (
    _cut,
    _cut_off,
    _with_bytes,
    _with_length,
    _chunked,
    _chunked,
    _with_body(b"", b"[]", b"null", b"1", b'"x"', b"{", b"{}", b"[" * 100_000, b'{"a":' * 5_000, b'{"a": NaN}', b"a=b"),
    _with_header("Content-Type", "text/plain", "application/xml", "application/x-www-form-urlencoded", "", "\xff"),
    _with_header("X-Amz-Target", "", "x", "AWSGlue.", "AWSGlue.Nothing", "Nothing.GetCrawlers", "a.b.c.d"),
    _with_header("Content-Encoding", "gzip", "br"),
    _without_header("X-Amz-Target"),
    _without_header("Content-Type"),
    lambda sent, numbers: replace(sent, method=numbers.choice(("GET", "PUT", "DELETE", "PATCH", "BREW"))),
    lambda sent, numbers: replace(
        sent, path=numbers.choice(("/", "/x", "/v1/nothing", "//", "/%00", "/v1/describejobs/"))
    ),
    lambda sent, numbers: replace(sent, region=numbers.choice(("", "mars-1", "eu-west-1"))),
    lambda sent, _: replace(sent, signed=False),
)
"""Ways to break a request apart from its values."""
