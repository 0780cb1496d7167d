"""Find deviations of a JSON value from a shape of botocore's models.

Botocore ignores unknown members, so that nobody would notice them. Standard library only: the tests of the local AWS
also check its responses with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

NUMBER: Final = (float, int)

TYPES: Final[dict[str, tuple[type, ...]]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "boolean": (bool,),
    "double": NUMBER,
    "float": NUMBER,
}

AWS_LEAVES_OUT: Final = {("JobDetail", "startedAt")}
"""Members that are required in the model and omitted by AWS: a job that has not started has no start time."""


def violations(shape: Any, value: Any, path: str = "answer", *, moments: tuple[type, ...] = NUMBER) -> list[str]:
    """Yield the deviations of a JSON value from a botocore shape: unknown or missing members, wrong types and enums.

    :param path: the name of the value in the results.
    :param moments: the type of times: numbers in responses, strings in events of EventBridge.
    """
    return list(_violations(shape, value, path, {**TYPES, "timestamp": moments}))


def _violations(shape: Any, value: Any, path: str, types: dict[str, tuple[type, ...]]) -> Iterator[str]:
    kind = shape.type_name
    is_of_kind: bool = isinstance(value, types[kind]) and (kind == "boolean" or not isinstance(value, bool))
    if not is_of_kind:
        yield f"{path} is {value!r}, not a {kind}"
    elif kind == "structure":
        required = (name for name in shape.required_members if (shape.name, name) not in AWS_LEAVES_OUT)
        yield from (f"{path}.{name} is missing" for name in required if name not in value)
        for name, member in value.items():
            if name in shape.members:
                yield from _violations(shape.members[name], member, f"{path}.{name}", types)
            else:
                yield f"{path}.{name} is unknown"
    elif kind == "list":
        for member in value:
            yield from _violations(shape.member, member, f"{path}[]", types)
    elif kind == "map":
        for name, member in value.items():
            yield from _violations(shape.value, member, f"{path}.{name}", types)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{path} is {value!r}, not one of {shape.enum}"
