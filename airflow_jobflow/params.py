"""Validation of parameters after rendering, when numbers may still be strings. Pure.

Each validator returns the value as its type, or raises InvalidParameter with the parameter, the value and the rule.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.params_json import (
    EMPTY,
    AwsShape,
    change_rule,
    from_json,
    hint,
    mapping,
    mappings,
    string_list,
    string_map,
)

RESULT = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/\S{0,800})?")

EXIT_CODES = (list, tuple, set, frozenset, range)
"""The types that hold several exit codes."""

JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def number(
    parameter: str, value: Any, *, least: float = -math.inf, most: float = math.inf, above: bool = False, unit: str = ""
) -> float:
    """Validate a number, a string that holds one, or a timedelta, which counts as its seconds.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :param least, most: the range, inclusive. Default: any finite number.
    :param above: whether ``least`` itself is outside the range. Default False.
    :param unit: what is counted, for the message. Default: none.
    :raises InvalidParameter: it is not a number, or out of range.
    """
    lower = "" if least == -math.inf else f" {'above' if above else 'of at least'} {least:g}"
    upper = "" if most == math.inf else f" and at most {most:g}"
    rule = f"must be a number{lower}{upper}" + (f" ({unit})" if unit else "")
    plain = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(plain, bool) or not isinstance(plain, int | float | str):
        raise invalid_parameter(parameter, value, rule)
    try:
        result = float(plain)
    except (ValueError, OverflowError):
        raise invalid_parameter(parameter, value, rule) from None
    if not math.isfinite(result) or not (least < result or (result == least and not above)) or not result <= most:
        raise invalid_parameter(parameter, value, rule)
    return plain if isinstance(plain, int) else result


def integer(parameter: str, value: Any, *, least: float = -math.inf, most: float = math.inf, unit: str = "") -> int:
    """Validate an integer, or a string that holds one.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :param least, most: the range, inclusive. Default: any integer.
    :param unit: what is counted, for the message. Default: none.
    :raises InvalidParameter: it is not an integer, or out of range.
    """
    result = number(parameter, value, least=least, most=most, unit=unit)
    if result != int(result):
        raise invalid_parameter(parameter, value, "must be a whole number")
    return int(result)


def seconds(parameter: str, value: Any) -> float:
    """Validate a duration: a timedelta, or a number of seconds above 0.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: seconds.
    :raises InvalidParameter: it is not a duration.
    """
    return number(parameter, value, least=0, above=True)


def utc_datetime(parameter: str, value: Any) -> datetime:
    """Validate a datetime, or a string in ISO 8601. Without a time zone it counts as UTC.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: the datetime, in UTC.
    :raises InvalidParameter: it is not a datetime.
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
    :raises InvalidParameter: it is not a boolean.
    """
    if isinstance(value, bool):
        return value
    booleans = {"true": True, "false": False}
    if isinstance(value, str) and value.strip().lower() in booleans:
        return booleans[value.strip().lower()]
    raise invalid_parameter(parameter, value, "must be true or false")


def non_empty_string(parameter: str, value: Any) -> str:
    """Validate a string that is not empty. The text ``None``, as templates render it, counts as empty.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :raises InvalidParameter: it is not a string, or empty.
    """
    if not isinstance(value, str):
        rule = f"must be a string, not {type(value).__name__} (native rendering turns digits into a number)"
        raise invalid_parameter(parameter, value, rule)
    if value.strip() in EMPTY:
        raise invalid_parameter(parameter, value, f"must be a string that is not empty{hint(value)}")
    return value


def result(parameter: str, value: Any) -> str:
    """Validate where jobs write their results: ``log``, or ``s3://bucket/prefix``.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: the value, without a slash at its end.
    :raises InvalidParameter: it is neither.
    """
    text = non_empty_string(parameter, value).rstrip("/")
    if text != "log" and not RESULT.fullmatch(text):
        rule = "must be 'log', or s3://bucket/prefix with at most 800 characters and without spaces"
        raise invalid_parameter(parameter, value, rule)
    return text


def exit_codes(parameter: str, value: Any) -> list[int]:
    """Validate an exit code, or several of them: a list, a tuple, a set, a range, or a string that holds a list.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: the exit codes, in order.
    :raises InvalidParameter: one is not an integer other than 0, with which a job has succeeded.
    """
    value = several(parameter, value)
    codes = [integer(parameter, code) for code in (value if isinstance(value, EXIT_CODES) else [value])]
    if 0 in codes:
        raise invalid_parameter(parameter, value, "must not have 0, because a job with exit code 0 has succeeded")
    return sorted(codes)


def unchecked(parameter: str, value: Any) -> Any:  # noqa: ARG001 -- as every validator
    """Return a value as it is.

    :param parameter: the name of the parameter.
    :param value: the value.
    """
    return value


Check = Callable[[str, Any], Any]
"""Validates a parameter of the given name, and returns its value as its type."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an API, or of a task.

    :param member: the member of the request that it is sent as; empty if it is a part of another member, or not sent.
    :param check: validates it, and returns its value as its type.
    :param required: whether it is validated even if it is None: a template must not render it as None. Default False.
    :param in_item: whether an item of a map may set it. Default False.
    :param templated: whether Airflow renders it. Default True.
    """

    member: str
    check: Check
    required: bool = False
    in_item: bool = False
    templated: bool = True


class ParameterTable(dict[str, Parameter]):
    """The parameters of one API, by name: for validation, requests, template fields, renderers and item fields.

    :param rows: the parameters.
    """

    def __init__(self, rows: Mapping[str, Parameter]) -> None:
        super().__init__(rows)
        self.members = {name: row.member for name, row in rows.items() if row.member}
        """The member of the request for each parameter that is sent as one."""
        self.item_fields = tuple(name for name, row in rows.items() if row.in_item)
        """The names of the parameters that an item of a map may set."""
        self.template_fields = tuple(name for name, row in rows.items() if row.templated)
        """The names of the parameters that Airflow renders."""

    def of(self, task: object) -> dict[str, Any]:
        """Validate the parameters of a task, and return those that were given, converted to their types.

        :param task: an operator or sensor with an attribute for each parameter, after rendering.
        :raises InvalidParameter: one of them is wrong.
        """
        return self.validated({name: getattr(task, name) for name in self})

    def validated(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Validate parameters, and return those that were given, converted to their types.

        :param values: the value of each parameter; None for one that was not given.
        :raises InvalidParameter: one of them is wrong.
        """
        return {
            name: row.check(name, values[name])
            for name, row in self.items()
            if values[name] is not None or row.required
        }

    def validated_items(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Validate the items of a map, and return their values, converted to their types.

        :param items: the items.
        :raises InvalidParameter: a key is unknown, or a value is wrong; the item is named by its index.
        """
        return [self._validated_item(f"items[{index}]", item) for index, item in enumerate(items)]

    def _validated_item(self, name: str, item: Mapping[str, Any]) -> dict[str, Any]:
        if unknown := [key for key in item if key not in self.item_fields]:
            raise invalid_parameter(name, item, f"{unknown[0]!r} is not one of {', '.join(self.item_fields)}")
        return {key: self[key].check(f"{name}[{key!r}]", value) for key, value in item.items() if value is not None}

    @property
    def renderers(self) -> dict[str, str]:
        """The renderer in Airflow's UI of each parameter that is shown as JSON."""
        objects = (mapping, mappings, string_map, string_list, change_rule)
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
    return from_json(parameter, value) if is_object else value


def ids(parameter: str, value: Any) -> list[str]:
    """Validate a job id, the outcome that an operator returned for a job, or a list of these, which may be empty.

    A list or an outcome may be a string that holds it as JSON.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: the job ids.
    :raises InvalidParameter: it is not one of these.
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
    :raises InvalidParameter: it is not one of them.
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
