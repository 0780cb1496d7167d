"""SubmitJob requests: what each of our parameters is there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_jobflow.jobs.environment import variables, with_variables

RESOURCES = {"vcpus": "VCPU", "memory": "MEMORY", "gpus": "GPU"}
"""Our short form of each type of ``resourceRequirements``."""

SHORT_FORMS = ("command", "environment", *RESOURCES)
"""Our parameters that are short for parts of ``container_overrides``."""


def duplicates(short: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[str]:
    """Return the short forms that contradict ``containerOverrides``, because these say the same.

    :param short: checked values by our names, see SHORT_FORMS.
    """
    types = {each.get("type") for each in overrides.get("resourceRequirements", [])}
    said = {
        name for name, kind in RESOURCES.items() if kind in types or name in overrides
    }  # the names are AWS's old ones
    said |= {"command"} & overrides.keys()
    if variables(overrides).keys() & short.get("environment", {}).keys():
        said.add("environment")
    return [name for name in SHORT_FORMS if name in short and name in said]


def request(parameters: Mapping[str, Any], members: Mapping[str, str]) -> dict[str, Any]:
    """Build a SubmitJob request. What is None is not sent, for an explicit default replaces the job definition's own.

    :param parameters: checked values by our names; those in SHORT_FORMS go before what
        ``container_overrides`` says; ``array_size`` is short for the size in ``array_properties``;
        ``attempt_timeout`` is in seconds; ``container_name`` says how the job is read, and is not sent.
    :param members: the member of the request for each parameter.
    """
    values = {name: value for name, value in parameters.items() if value is not None and name != "container_name"}
    short = {name: values.pop(name) for name in SHORT_FORMS if name in values}
    if short:
        values["container_overrides"] = _overridden(values.get("container_overrides", {}), short)
    if "array_size" in values:
        values["array_properties"] = {**values.get("array_properties", {}), "size": values.pop("array_size")}
    if "attempt_timeout" in values:
        values["attempt_timeout"] = {"attemptDurationSeconds": values["attempt_timeout"]}
    return {members[name]: value for name, value in values.items()}


def _overridden(overrides: Mapping[str, Any], short: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``containerOverrides`` with what the short forms say, in place of what they say of the same."""
    result = {name: value for name, value in overrides.items() if name not in short or name not in RESOURCES}
    if "command" in short:
        result["command"] = short["command"]
    if "environment" in short:
        result = with_variables(result, short["environment"])
    if amounts := {RESOURCES[name]: f"{value:g}" for name, value in short.items() if name in RESOURCES}:
        others = [each for each in result.get("resourceRequirements", []) if each.get("type") not in amounts]
        own = [{"type": kind, "value": amount} for kind, amount in amounts.items()]
        result["resourceRequirements"] = [*others, *own]
    return result
