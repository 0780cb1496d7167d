"""Checks of parameters, made after rendering, when numbers may still be strings. Pure.

Each returns the value as its type, or raises InvalidParameter, which says the parameter, the value and the rule.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_jobflow.exceptions import InvalidParameter

JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def invalid(parameter: str, value: object, rule: str) -> InvalidParameter:
    """Say which parameter is wrong, with which value, against which rule."""
    return InvalidParameter(f"{parameter}={value!r}: {rule}")


def number(parameter: str, value: Any, *, least: float, most: float = float("inf"), above: bool = False) -> float:
    """Check a number, a string that holds one, or a timedelta, which counts as its seconds.

    :param least, most: the range; with ``above``, the least itself is not in it.
    """
    upper = "" if most == float("inf") else f" and at most {most:g}"
    rule = f"must be a number {'above' if above else 'of at least'} {least:g}{upper}"
    plain = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(plain, bool) or not isinstance(plain, int | float | str):
        raise invalid(parameter, value, rule)
    try:
        result = float(plain)
    except ValueError:
        raise invalid(parameter, value, rule) from None
    if not math.isfinite(result) or not (least < result or (result == least and not above)) or not result <= most:
        raise invalid(parameter, value, rule)
    return result


def whole(parameter: str, value: Any, *, least: int, most: float = float("inf")) -> int:
    """Check a whole number, or a string that holds one."""
    result = number(parameter, value, least=least, most=most)
    if result != int(result):
        raise invalid(parameter, value, "must be a whole number")
    return int(result)


def seconds(parameter: str, value: Any) -> float:
    """Check a duration: a timedelta, or a number of seconds; above 0."""
    return number(parameter, value, least=0, above=True)


def moment(parameter: str, value: Any) -> datetime:
    """Check a moment: a datetime, or a string in ISO 8601; in UTC unless it says otherwise."""
    try:
        result = datetime.fromisoformat(str(value))
    except ValueError:
        raise invalid(parameter, value, "must be a moment, such as '2026-11-22T03:00:00+00:00'") from None
    return result.astimezone(UTC) if result.tzinfo else result.replace(tzinfo=UTC)


def flag(parameter: str, value: Any) -> bool:
    """Check a truth value, or a string that holds one."""
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise invalid(parameter, value, "must be true or false")


def mapping(parameter: str, value: Any) -> dict[str, Any]:
    """Check an object in the shape AWS takes: a dict, or a string that holds one as JSON."""
    value = _from_json(value)
    if not isinstance(value, Mapping):
        raise invalid(parameter, value, "must be a dict in the shape AWS takes, or the same as JSON")
    return dict(value)


def mappings(parameter: str, value: Any) -> list[dict[str, Any]]:
    """Check a list of objects in the shape AWS takes, or a string that holds one as JSON."""
    value = _from_json(value)
    if isinstance(value, str | Mapping) or not isinstance(value, list | tuple):
        raise invalid(parameter, value, "must be a list of dicts in the shape AWS takes, or the same as JSON")
    return [mapping(f"{parameter}[{place}]", item) for place, item in enumerate(value)]


def words(parameter: str, value: Any) -> list[str]:
    """Check a command: a list of words, or a string that holds one as JSON."""
    value = _from_json(value)
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise invalid(parameter, value, "must be a list of words, such as ['echo', 'hello']")
    return [str(word) for word in value]


def text(parameter: str, value: Any) -> str:
    """Check a string that says something; a template that came out empty or as None does not."""
    if not isinstance(value, str):
        rule = f"must be a string, and is of type {type(value).__name__} (native rendering reads digits as a number)"
        raise invalid(parameter, value, rule)
    if value.strip() in ("", "None"):
        raise invalid(parameter, value, "must be a string that is not empty (did a template come out empty?)")
    return value


Check = Callable[[str, Any], Any]
"""Checks a parameter of the given name, and returns its value as its type."""


def given(task: object, table: Mapping[str, Check], required: Collection[str]) -> dict[str, Any]:
    """Check the parameters of a task that a table names; return those that were given.

    :param required: those that count as given in any case: a template must not render them as None.
    :raises InvalidParameter: one of them is wrong.
    """
    values = {name: getattr(task, name) for name in table}
    return {name: table[name](name, value) for name, value in values.items() if value is not None or name in required}


def renderers(table: Mapping[str, Check]) -> dict[str, str]:
    """Say which parameters of a table the UI is to show as JSON."""
    return {name: "json" for name, check in table.items() if check in (mapping, mappings, words)}


def ids(parameter: str, value: Any) -> list[str]:
    """Check the id of a job, the outcome that an operator returned for it, or a list of at least one of these."""
    several = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(several, list | tuple) or not several:
        raise invalid(parameter, value, "must be an id, an operator's outcome, or a list of at least one of these")
    return [text(parameter, each.get("job_id") if isinstance(each, Mapping) else each) for each in several]


def one_of(parameter: str, value: Any, allowed: Collection[str]) -> str:
    """Check a word against those that mean something."""
    if value not in allowed:
        raise invalid(parameter, value, f"must be one of {', '.join(allowed)}")
    return str(value)


def job_name(parameter: str, value: Any) -> str:
    """Check a name against Batch's rule."""
    if not JOB_NAME.fullmatch(text(parameter, value)):
        rule = "must be 1 to 128 letters, digits, hyphens and underscores, the first a letter or digit"
        raise invalid(parameter, value, rule)
    return str(value)


def _from_json(value: Any) -> Any:
    """Read a string that holds JSON, as a template that renders a dict or a list gives it; others stay as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
