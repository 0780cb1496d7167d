"""Validation of parameters after rendering, when numbers may still be strings. Pure.

Each validator returns the value as its type, or raises InvalidParameter with the parameter, the value and the rule.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from airflow_jobflow.exceptions import InvalidParameter

JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def invalid_parameter(parameter: str, value: object, rule: str) -> InvalidParameter:
    """Return the exception for a wrong parameter.

    :param parameter: the name of the parameter.
    :param value: the wrong value.
    :param rule: what the value must be.
    """
    return InvalidParameter(f"{parameter}={value!r}: {rule}")


EMPTY = ("", "None")
"""What a template renders to if its value is empty or None."""


def _hint(value: object) -> str:
    """Return a hint for the end of a rule if the value is empty."""
    came_out_empty = value is None or (isinstance(value, str) and value.strip() in EMPTY)
    return " (did a template come out empty?)" if came_out_empty else ""


def number(
    parameter: str, value: Any, *, least: float = -math.inf, most: float = math.inf, above: bool = False
) -> float:
    """Validate a number, a string that holds one, or a timedelta, which counts as its seconds.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :param least, most: the range, inclusive. Default: any finite number.
    :param above: whether ``least`` itself is outside the range. Default False.
    :raises InvalidParameter: it is no number, or out of range.
    """
    lower = "" if least == -math.inf else f" {'above' if above else 'of at least'} {least:g}"
    upper = "" if most == math.inf else f" and at most {most:g}"
    rule = f"must be a number{lower}{upper}"
    plain = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(plain, bool) or not isinstance(plain, int | float | str):
        raise invalid_parameter(parameter, value, rule)
    try:
        result = float(plain)
    except (ValueError, OverflowError):
        raise invalid_parameter(parameter, value, rule) from None
    if not math.isfinite(result) or not (least < result or (result == least and not above)) or not result <= most:
        raise invalid_parameter(parameter, value, rule)
    return result


def integer(parameter: str, value: Any, *, least: float = -math.inf, most: float = math.inf) -> int:
    """Validate an integer, or a string that holds one.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :param least, most: the range, inclusive. Default: any integer.
    :raises InvalidParameter: it is no integer, or out of range.
    """
    result = number(parameter, value, least=least, most=most)
    if result != int(result):
        raise invalid_parameter(parameter, value, "must be a whole number")
    return int(result)


def seconds(parameter: str, value: Any) -> float:
    """Validate a duration: a timedelta, or a number of seconds above 0.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: seconds.
    :raises InvalidParameter: it is no duration.
    """
    return number(parameter, value, least=0, above=True)


def utc_datetime(parameter: str, value: Any) -> datetime:
    """Validate a datetime, or a string in ISO 8601. Without a time zone it counts as UTC.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: the datetime, in UTC.
    :raises InvalidParameter: it is no datetime.
    """
    try:
        result = datetime.fromisoformat(str(value))
    except ValueError:
        raise invalid_parameter(parameter, value, "must be a datetime, such as '2026-11-22T03:00:00+00:00'") from None
    return result.astimezone(UTC) if result.tzinfo else result.replace(tzinfo=UTC)


def boolean(parameter: str, value: Any) -> bool:
    """Validate a boolean, or a string that holds one.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :raises InvalidParameter: it is no boolean.
    """
    if isinstance(value, bool):
        return value
    booleans = {"true": True, "false": False}
    if isinstance(value, str) and value.strip().lower() in booleans:
        return booleans[value.strip().lower()]
    raise invalid_parameter(parameter, value, "must be true or false")


AS_AWS = "in the shape AWS takes"


def mapping(parameter: str, value: Any, of: str = AS_AWS) -> dict[str, Any]:
    """Validate a dict, or a string that holds one as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :param of: which shape, for the message. Default: the shape that AWS takes.
    :raises InvalidParameter: it is no dict.
    """
    value = _from_json(parameter, value)
    if not isinstance(value, Mapping):
        raise invalid_parameter(parameter, value, f"must be a dict {of}, or the same as JSON{_hint(value)}")
    return dict(value)


def elements(parameter: str, value: Any) -> list[Any]:
    """Validate a list, or a string that holds one as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :raises InvalidParameter: it is no list.
    """
    value = _from_json(parameter, value)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise invalid_parameter(parameter, value, f"must be a list, or the same as JSON{_hint(value)}")
    return list(value)


def mappings(parameter: str, value: Any, of: str = AS_AWS) -> list[dict[str, Any]]:
    """Validate a list of dicts, or a string that holds one as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :param of: which shape each has, for the message. Default: the shape that AWS takes.
    :raises InvalidParameter: it is no list of dicts.
    """
    value = _from_json(parameter, value)
    if isinstance(value, str | Mapping) or not isinstance(value, list | tuple):
        raise invalid_parameter(parameter, value, f"must be a list of dicts {of}, or the same as JSON{_hint(value)}")
    return [mapping(f"{parameter}[{place}]", item, of) for place, item in enumerate(value)]


def string_list(parameter: str, value: Any) -> list[str]:
    """Validate a list of strings, such as a command, or a string that holds one as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: the strings; see ``as_text`` for how other types are converted.
    :raises InvalidParameter: it is no list, or has an element without a text.
    """
    value = _from_json(parameter, value)
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise invalid_parameter(parameter, value, f"must be a list of words, such as ['echo', 'hello']{_hint(value)}")
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
        raise invalid_parameter(parameter, value, "must have a value (did a template come out as None?)")
    raise invalid_parameter(
        parameter, value, f"must be text, a number, a dict or a list, and is of type {type(value).__name__}"
    )


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
        for key, each in mapping(parameter, value).items()
    }


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


def non_empty_string(parameter: str, value: Any) -> str:
    """Validate a string that is not empty. The text ``None``, as templates render it, counts as empty.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :raises InvalidParameter: it is no string, or empty.
    """
    if not isinstance(value, str):
        rule = f"must be a string, and is of type {type(value).__name__} (native rendering reads digits as a number)"
        raise invalid_parameter(parameter, value, rule)
    if value.strip() in EMPTY:
        raise invalid_parameter(parameter, value, f"must be a string that is not empty{_hint(value)}")
    return value


Check = Callable[[str, Any], Any]
"""Validates a parameter of the given name, and returns its value as its type."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an API.

    :param member: the member of the request that it is sent as; empty if it is a part of another member, or not sent.
    :param check: validates it, and returns its value as its type.
    :param required: whether it is validated even if it is None: a template must not render it as None. Default False.
    :param in_item: whether an item of a map may set it. Default False.
    """

    member: str
    check: Check
    required: bool = False
    in_item: bool = False


class ParameterTable(Mapping[str, Parameter]):
    """The parameters of one API, by name: for validation, requests, template fields, renderers and item fields.

    :param rows: the parameters.
    """

    def __init__(self, rows: Mapping[str, Parameter]) -> None:
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> Parameter:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, task: object) -> dict[str, Any]:
        """Return the parameters of a task as they are now, rendered or not.

        :param task: an operator with an attribute for each parameter.
        """
        return {name: getattr(task, name) for name in self}

    def validated(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Validate parameters, and return those that were given, as their types.

        :param values: what ``of`` returned.
        :raises InvalidParameter: one of them is wrong.
        """
        return {
            name: row.check(name, values[name])
            for name, row in self.items()
            if values[name] is not None or row.required
        }

    @property
    def members(self) -> dict[str, str]:
        """The member of the request for each parameter that is sent as one."""
        return {name: row.member for name, row in self.items() if row.member}

    @property
    def item_fields(self) -> tuple[str, ...]:
        """The names of the parameters that an item of a map may set."""
        return tuple(name for name, row in self.items() if row.in_item)

    def validated_item(self, name: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """Validate an item of a map, and return its values as their types.

        :param name: how messages name the item, such as ``items[3]``.
        :param item: the item.
        :raises InvalidParameter: a key is unknown, or a value is wrong.
        """
        known = self.item_fields
        if unknown := [key for key in item if key not in known]:
            raise invalid_parameter(name, item, f"{unknown[0]!r} is none of {', '.join(known)}")
        return {key: self[key].check(f"{name}[{key!r}]", value) for key, value in item.items() if value is not None}

    @property
    def renderers(self) -> dict[str, str]:
        """The renderer in Airflow's UI of each parameter that is shown as JSON."""
        objects = (mapping, mappings, string_map, string_list)
        return {name: "json" for name, row in self.items() if isinstance(row.check, AwsShape) or row.check in objects}


NOT_GIVEN = ("", "none", "false", "0", "0.0")
"""The texts, in lower case, of values that count as not given: defaults, or templates that render to them."""


def reject(task: object, table: Mapping[str, str]) -> None:
    """Reject parameters that a task does not support, if they were given.

    :param task: an operator or a sensor.
    :param table: their names, each with the reason.
    :raises InvalidParameter: one was given; it is named, with the reason.
    """
    for name, why in table.items():
        value = getattr(task, name)
        if str(value).strip().lower() not in NOT_GIVEN:
            raise invalid_parameter(name, value, why)


def several(parameter: str, value: Any) -> Any:
    """Return a parameter that names one or several jobs, with JSON parsed: templates render lists and dicts as text.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    """
    is_object = isinstance(value, str) and value.lstrip().startswith(("[", "{"))
    return _from_json(parameter, value) if is_object else value


def ids(parameter: str, value: Any) -> list[str]:
    """Validate a job id, the outcome that an operator returned for a job, or a list of these, which may be empty.

    A list or an outcome may be a string that holds it as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: the job ids.
    :raises InvalidParameter: it is none of these.
    """
    value = several(parameter, value)
    each_of = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(each_of, list | tuple):
        raise invalid_parameter(parameter, value, "must be an id, an operator's outcome, or a list of these")
    return [non_empty_string(parameter, each.get("job_id") if isinstance(each, Mapping) else each) for each in each_of]


def one_of(parameter: str, value: Any, allowed: Collection[str]) -> str:
    """Validate one of a set of strings.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :param allowed: the allowed values.
    :raises InvalidParameter: it is none of them.
    """
    if value not in allowed:
        raise invalid_parameter(parameter, value, f"must be one of {', '.join(allowed)}")
    return str(value)


def job_name(parameter: str, value: Any) -> str:
    """Validate a name of a Batch job.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :raises InvalidParameter: Batch does not allow it.
    """
    if not JOB_NAME.fullmatch(non_empty_string(parameter, value)):
        rule = "must be 1 to 128 letters, digits, hyphens and underscores, the first a letter or digit"
        raise invalid_parameter(parameter, value, rule)
    return str(value)


def _from_json(parameter: str, value: Any) -> Any:
    """Parse a string that holds JSON, such as a rendered template; return any other value unchanged.

    :raises InvalidParameter: it holds a dict or a list as Python writes it, because the filter ``tojson`` is missing.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (json.JSONDecodeError, RecursionError):
        if _is_python(value):
            rule = (
                "is text that Python wrote, and no JSON: end the template with the filter tojson, as in "
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
