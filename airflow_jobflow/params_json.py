"""Validation of parameters that are dicts or lists, or JSON of these, and their conversion to what AWS takes. Pure.

A template renders a dict or a list as text, and with native rendering, text may become a value of another type.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from airflow_jobflow.exceptions import invalid_parameter

EMPTY = ("", "None")
"""What a template renders to if its value is empty or None."""


def hint(value: object) -> str:
    """Return a hint for the end of a rule if the value is empty.

    :param value: the value that breaks the rule.
    """
    came_out_empty = value is None or (isinstance(value, str) and value.strip() in EMPTY)
    return " (did a template render to nothing?)" if came_out_empty else ""


AS_AWS = "in the shape AWS takes"
BY_NAME = "with a value for each name, such as {'NAME': 'value'}"


def mapping(parameter: str, value: Any, of: str = AS_AWS) -> dict[str, Any]:
    """Validate a dict, or a string that holds one as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :param of: which shape, for the message. Default: the shape that AWS takes.
    :raises InvalidParameter: it is not a dict.
    """
    value = from_json(parameter, value)
    if not isinstance(value, Mapping):
        raise invalid_parameter(parameter, value, f"must be a dict {of}, or the same as JSON{hint(value)}")
    return dict(value)


def elements(parameter: str, value: Any) -> list[Any]:
    """Validate a list, or a string that holds one as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :raises InvalidParameter: it is not a list.
    """
    value = from_json(parameter, value)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise invalid_parameter(parameter, value, f"must be a list, or the same as JSON{hint(value)}")
    return list(value)


def mappings(parameter: str, value: Any, of: str = AS_AWS) -> list[dict[str, Any]]:
    """Validate a list of dicts, or a string that holds one as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :param of: which shape each has, for the message. Default: the shape that AWS takes.
    :raises InvalidParameter: it is not a list of dicts.
    """
    value = from_json(parameter, value)
    if isinstance(value, str | Mapping) or not isinstance(value, list | tuple):
        raise invalid_parameter(parameter, value, f"must be a list of dicts {of}, or the same as JSON{hint(value)}")
    return [mapping(f"{parameter}[{place}]", item, of) for place, item in enumerate(value)]


def string_list(parameter: str, value: Any) -> list[str]:
    """Validate a list of strings, such as a command, or a string that holds one as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: the strings; see ``as_text`` for how other types are converted.
    :raises InvalidParameter: it is not a list, or has an element without a text.
    """
    value = from_json(parameter, value)
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise invalid_parameter(parameter, value, f"must be a list of strings, such as ['echo', 'hello']{hint(value)}")
    return [as_text(f"{parameter}[{place}]", word) for place, word in enumerate(value)]


def as_text(parameter: str, value: Any) -> str:
    """Return a value as text for AWS. Native rendering may have turned text into another type.

    Numbers and dates are written as Python writes them, booleans as ``true`` and ``false``, dicts and lists as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :raises InvalidParameter: it is None, or of a type without a text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal | date | UUID):  # a datetime is a date
        return str(value)
    if isinstance(value, Mapping | Sequence) and not isinstance(value, bytes | bytearray):
        return json.dumps(_plain(parameter, value), ensure_ascii=False)
    if value is None:
        raise invalid_parameter(parameter, value, "must have a value (did a template render to None?)")
    raise invalid_parameter(parameter, value, f"must be text, a number, a dict or a list, not {type(value).__name__}")


def _plain(parameter: str, value: Any) -> Any:
    """Return a value with JSON's types only. None stays None, which is null.

    :raises InvalidParameter: it holds a type without a text.
    """
    if isinstance(value, Mapping):
        return {map_key(parameter, key): _plain(f"{parameter}[{key!r}]", each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [_plain(f"{parameter}[{place}]", each) for place, each in enumerate(value)]
    return value if value is None or isinstance(value, bool | int | float) else as_text(parameter, value)


def map_key(parameter: str, key: Any) -> str:
    """Return the key of a map as text. Native rendering turns digits into numbers.

    :param parameter: the name of the parameter, for messages.
    :param key: the key.
    :raises InvalidParameter: it is None or empty, or a dict or list.
    """
    if key is None or key == "" or isinstance(key, Mapping | tuple | frozenset):
        raise invalid_parameter(parameter, {key: "…"}, f"the key {key!r} must be text that is not empty")
    return as_text(parameter, key)


def string_map(parameter: str, value: Any) -> dict[str, str]:
    """Validate a map of strings to strings, such as tags: a dict, or a string that holds one as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: the map; see ``as_text`` for its values.
    :raises InvalidParameter: a value is None; the key is named.
    """
    return {
        map_key(parameter, key): as_text(f"{parameter}[{key!r}]", each)
        for key, each in mapping(parameter, value, BY_NAME).items()
    }


def change_rule(parameter: str, value: Any) -> dict[str, Any]:
    """Validate what a retry changes: a dict that is not empty, or a string that holds one as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :raises InvalidParameter: it is not a dict, or empty.
    """
    rule = mapping(parameter, value, "with what the next attempt gets, such as {'memory': 'x2', 'max': 61440}")
    if not rule:
        raise invalid_parameter(parameter, value, "must set at least one parameter, such as {'memory': 'x2'}")
    return {map_key(parameter, key): each for key, each in rule.items()}


@dataclass(frozen=True, slots=True)
class AwsShape:
    """Validates a dict or list in the shape of a part of an AWS request, or the same as JSON.

    Values are converted to the types that AWS takes, as rendering may have changed them; see ``aws.shapes``.

    :param service, operation: botocore's names of the request.
    :param member: the member of the request. Default: the whole request.
    """

    service: str
    operation: str
    member: str = ""

    def __call__(self, parameter: str, value: Any) -> Any:
        """Validate a parameter, and return it with the types that AWS takes.

        :param parameter: the name of the parameter, for messages.
        :param value: the value.
        :raises InvalidParameter: it has another shape.
        """
        from airflow_jobflow.aws.shapes import fit, input_shape

        shape = input_shape(self.service, self.operation, self.member)
        typed = mappings(parameter, value) if shape.type_name == "list" else mapping(parameter, value)
        return fit(parameter, typed, shape)


def from_json(parameter: str, value: Any) -> Any:
    """Parse a string that holds JSON, such as a rendered template; return any other value unchanged.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :raises InvalidParameter: it holds a dict or a list as Python writes it, because the filter ``tojson`` is missing.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (json.JSONDecodeError, RecursionError):
        if _is_python(value):
            rule = (
                "is a Python literal, not JSON: end the template with the filter tojson, as in "
                "{{ params.names | tojson }}, or set render_template_as_native_obj=True on the DAG"
            )
            raise invalid_parameter(parameter, value, rule) from None
        return value


def _is_python(value: str) -> bool:
    """Return whether text is a dict or list as Python writes it, such as ``['a']``."""
    if not value.lstrip().startswith(("[", "{", "(")):
        return False
    try:
        return isinstance(ast.literal_eval(value.strip()), list | tuple | dict | set)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
