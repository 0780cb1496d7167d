"""Validate the values of a request against botocore's shapes, as AWS does before a service handles it. Pure functions.

`botocore.validate` is for clients: it rejects unknown members, which AWS ignores, accepts a boolean as a number, and
does not check patterns, enums, maxima, and members that AWS requires in addition to the model.

Invariants: a result contains only known members, and no null. Arguments are not changed.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from botocore.utils import parse_to_aware_datetime

REQUIRED_BY_AWS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("batch", "ContainerProperties"): ("image",),
    ("batch", "KeyValuePair"): ("name",),
    ("ecs", "KeyValuePair"): ("name",),
    ("ecs", "Tag"): ("key",),
}
"""Members that AWS requires although the models do not, by service and shape."""

ANY_CASE: Final = frozenset({("batch", "RetryAction")})
"""Enums whose values AWS accepts in upper and lower case."""

BEYOND_THE_BASIC_PLANE: Final = (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
"""The characters above U+FFFF in the patterns of the models, which are written for Java, and in those of Python."""

BITS: Final = {"integer": 31, "long": 63}
"""Bits of the absolute value of each type."""
SECONDS: Final = (-62135596800, 253402300799)
"""The first and last second of the years 1 to 9999, the range of `datetime`."""
LONGEST_SHOWN: Final = 100
"""Maximum length of a value in a message."""
SURROGATE: Final = re.compile("[\ud800-\udfff]")


class WrongType(Exception):
    """A value does not have the type of its member. The message is that of AWS services."""


class Violations(Exception):
    """Values violate constraints. The message is that of AWS services.

    :param found: the violations.
    """

    def __init__(self, found: list[str]) -> None:
        count = len(found)
        super().__init__(f"{count} validation error{'s' * (count > 1)} detected: {'; '.join(found)}")


def validated(service: str, shape: Any, value: Any, *, as_sent: bool = True) -> Any:
    """Validate a value, and return it without unknown members and nulls.

    :param service: botocore's name of the service.
    :param shape: the shape in botocore's model.
    :param value: the value: JSON, or the parsed parameters of a form.
    :param as_sent: whether members have their names in requests (the default) or those in the model.
    :raises WrongType: a value does not have the type of the shape.
    :raises Violations: values violate constraints of the shape.
    """
    validation = _Validation(service, as_sent=as_sent)
    result = validation.validate(shape, value, "")
    if validation.violations:
        raise Violations(validation.violations)
    return result


class _Validation:
    """One recursive validation of a value."""

    def __init__(self, service: str, *, as_sent: bool) -> None:
        self._service = service
        self._as_sent = as_sent
        self.violations: list[str] = []

    def validate(self, shape: Any, value: Any, path: str) -> Any:
        """Return a validated value. `path` identifies it in violations."""
        return VALIDATORS[shape.type_name](self, shape, value, path)

    def structure(self, shape: Any, value: Any, path: str) -> Any:
        if getattr(shape, "is_document_type", False):
            return value
        if not isinstance(value, Mapping):
            raise WrongType(_unexpected(value, "structure"))
        result = {}
        for name, member in shape.members.items():
            sent = self._name(name, member)
            if (given := value.get(sent)) is not None:
                result[sent] = self.validate(member, given, _join(path, name))
        required = (*shape.required_members, *REQUIRED_BY_AWS.get((self._service, shape.name), ()))
        for name in required:
            if self._name(name, shape.members[name]) not in result:
                self._violate(None, _join(path, name), "Member must not be null")
        if getattr(shape, "is_tagged_union", False) and len(result) != 1:
            self._violate(None, path, "Member must have exactly one of the members of a union")
        return result

    def list(self, shape: Any, value: Any, path: str) -> Any:
        if not isinstance(value, list):
            raise WrongType(_unexpected(value, "list"))
        self._check_range(shape, value, len(value), path, "length")
        return [self._element(shape.member, each, f"{path}.{place}.member") for place, each in enumerate(value, 1)]

    def map(self, shape: Any, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            raise WrongType(_unexpected(value, "map"))
        # an empty map is accepted despite the model's minimum, as in botocore
        if len(value) > shape.metadata.get("max", len(value)):
            self._check_range(shape, value, len(value), path, "length")
        for name in value:
            self.validate(shape.key, name, f"{path}.key")
        return {name: self._element(shape.value, each, f"{path}.{name}.member") for name, each in value.items()}

    def string(self, shape: Any, value: Any, path: str) -> Any:
        if not isinstance(value, str):
            raise WrongType(_cannot_convert(value, "a String"))
        if SURROGATE.search(value):
            raise WrongType("Unpaired surrogate in a String")
        self._check_range(shape, value, len(value), path, "length")
        if values := getattr(shape, "enum", None):
            known = value.upper() if (self._service, shape.name) in ANY_CASE else value
            if known not in values:
                self._violate(value, path, f"Member must satisfy enum value set: [{', '.join(values)}]")
        elif pattern := shape.metadata.get("pattern"):
            compiled = _compiled(pattern)
            if compiled is not None and not compiled.fullmatch(value):
                self._violate(value, path, f"Member must satisfy regular expression pattern: {pattern}")
        return value

    def integer(self, shape: Any, value: Any, path: str) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            raise WrongType(_cannot_convert(value, "an Integer"))
        if not -(2 ** BITS[shape.type_name]) <= value < 2 ** BITS[shape.type_name]:
            raise WrongType(f"A number is out of the range of the type {shape.type_name}")
        self._check_range(shape, value, value, path, "value")
        return value

    def number(self, shape: Any, value: Any, path: str) -> Any:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise WrongType(_cannot_convert(value, "a Double"))
        self._check_range(shape, value, value, path, "value")
        return value

    def boolean(self, shape: Any, value: Any, path: str) -> Any:  # noqa: ARG002 -- same signature for all
        if not isinstance(value, bool):
            raise WrongType(_cannot_convert(value, "a Boolean"))
        return value

    def timestamp(self, shape: Any, value: Any, path: str) -> Any:  # noqa: ARG002 -- same signature for all
        if isinstance(value, datetime):
            return value
        if isinstance(value, str):
            try:
                parse_to_aware_datetime(value)
            except (ValueError, TypeError, AttributeError, OverflowError):
                raise WrongType(_cannot_convert(value, "a Timestamp")) from None
        elif not isinstance(value, int | float) or isinstance(value, bool) or not SECONDS[0] <= value <= SECONDS[1]:
            raise WrongType(_cannot_convert(value, "a Timestamp"))
        return value

    def blob(self, shape: Any, value: Any, path: str) -> Any:  # noqa: ARG002 -- same signature for all
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            raise WrongType(_cannot_convert(value, "a Blob"))
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise WrongType("A Blob is not valid Base64") from None
        return value

    def _name(self, name: str, member: Any) -> str:
        sent: str = member.serialization.get("name", name) if self._as_sent else name
        return sent

    def _element(self, shape: Any, value: Any, path: str) -> Any:
        if value is not None:
            return self.validate(shape, value, path)
        self._violate(None, path, "Member must not be null")
        return None

    def _check_range(self, shape: Any, value: Any, size: float, path: str, kind: str) -> None:
        least, most = shape.metadata.get("min"), shape.metadata.get("max")
        if least is not None and size < least:
            self._violate(value, path, f"Member must have {kind} greater than or equal to {least}")
        if most is not None and size > most:
            self._violate(value, path, f"Member must have {kind} less than or equal to {most}")

    def _violate(self, value: Any, path: str, constraint: str) -> None:
        shown = "null" if value is None else f"'{str(value)[:LONGEST_SHOWN]}'"
        self.violations.append(f"Value {shown} at '{path}' failed to satisfy constraint: {constraint}")


VALIDATORS: Final[Mapping[str, Callable[[_Validation, Any, Any, str], Any]]] = {
    "structure": _Validation.structure,
    "list": _Validation.list,
    "map": _Validation.map,
    "string": _Validation.string,
    "character": _Validation.string,
    "integer": _Validation.integer,
    "long": _Validation.integer,
    "float": _Validation.number,
    "double": _Validation.number,
    "boolean": _Validation.boolean,
    "timestamp": _Validation.timestamp,
    "blob": _Validation.blob,
}


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """Compile a pattern of a model; None if Python does not support its syntax."""
    try:
        return re.compile(pattern.replace(*BEYOND_THE_BASIC_PLANE), re.DOTALL)
    except re.error:
        return None


def _join(path: str, member: str) -> str:
    """Return the path of a member, whose first letter AWS writes in lower case."""
    name = member[:1].lower() + member[1:]
    return f"{path}.{name}" if path else name


def _cannot_convert(value: Any, what: str) -> str:
    if isinstance(value, Mapping | list):
        return _unexpected(value, "")
    kind = {bool: f"{value}_VALUE".upper(), str: "STRING_VALUE", int: "NUMBER_VALUE", float: "DECIMAL_VALUE"}
    return f"{kind.get(type(value), 'VALUE')} can not be converted to {what}"


def _unexpected(value: Any, expected: str) -> str:
    if isinstance(value, Mapping):
        return "Start of structure or map found where not expected."
    if isinstance(value, list):
        return "Start of list found where not expected."
    return f"Unexpected value: a {expected} was expected"
