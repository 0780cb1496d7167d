"""Environment variables in container overrides of ECS and Batch. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RESULT_URI = "JOBFLOW_RESULT_URI"
"""The variable that tells a job where to write its result."""


def variables(container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that the overrides of a container set, by name.

    :param container: the overrides.
    """
    return {each["name"]: each.get("value", "") for each in container.get("environment", [])}


def with_variables(container: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides of a container with more variables, which replace those of the same name.

    :param container: the overrides.
    :param more: the variables by name; values are converted to text.
    """
    values = variables(container) | {name: str(value) for name, value in more.items()}
    return {**container, "environment": [{"name": name, "value": value} for name, value in values.items()]}
