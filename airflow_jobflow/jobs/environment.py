"""Environment variables of a container, as ECS and Batch take them in overrides. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def variables(container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that the overrides of a container set, by name."""
    return {each["name"]: each.get("value", "") for each in container.get("environment", [])}


def with_variables(container: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides of a container with these variables too, in place of those of the same name."""
    said = variables(container) | {name: str(value) for name, value in more.items()}
    return {**container, "environment": [{"name": name, "value": value} for name, value in said.items()]}
