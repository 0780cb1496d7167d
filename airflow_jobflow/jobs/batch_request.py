"""SubmitJob requests: which member each of our parameters sets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_jobflow.jobs.environment import variables, with_variables

RESOURCES = {"vcpus": "VCPU", "memory": "MEMORY", "gpus": "GPU"}
"""Our short form of each type of ``resourceRequirements``."""

SHORT_FORMS = ("command", "environment", *RESOURCES)
"""Our parameters that are short forms of parts of ``container_overrides``."""


LONG = 1000
"""Characters above which a variable is not logged as a whole."""


def duplicates(short: Mapping[str, Any], overrides: Mapping[str, Any]) -> list[str]:
    """Return the short forms that ``containerOverrides`` set too.

    :param short: validated values by our names, see SHORT_FORMS.
    :param overrides: ``containerOverrides``.
    """
    types = {each.get("type") for each in overrides.get("resourceRequirements", [])}
    both = {
        name for name, kind in RESOURCES.items() if kind in types or name in overrides
    }  # the names are AWS's old ones
    both |= {"command"} & overrides.keys()
    if "environment" in short and variables(overrides).keys() & short["environment"].keys():
        both.add("environment")
    return [name for name in SHORT_FORMS if name in short and name in both]


def request(parameters: Mapping[str, Any], members: Mapping[str, str]) -> dict[str, Any]:
    """Build a SubmitJob request. None is not sent, because an explicit default replaces that of the job definition.

    :param parameters: validated values by our names. Those in SHORT_FORMS override ``container_overrides``.
        ``array_size`` is short for the size in ``array_properties``. ``attempt_timeout`` is in seconds.
    :param members: the member of the request for each parameter; others are not sent.
    """
    sent = (*members, *SHORT_FORMS, "array_size")
    values = {name: value for name, value in parameters.items() if value is not None and name in sent}
    short = {name: values.pop(name) for name in SHORT_FORMS if name in values}
    if short:
        values["container_overrides"] = _overridden(values.get("container_overrides", {}), short)
    if "array_size" in values:
        values["array_properties"] = {**values.get("array_properties", {}), "size": values.pop("array_size")}
    if "attempt_timeout" in values:
        values["attempt_timeout"] = {"attemptDurationSeconds": values["attempt_timeout"]}
    return {members[name]: value for name, value in values.items()}


def shortened(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request for the log, with only the beginnings of long variables, such as the source of a function.

    :param request: the SubmitJob request.
    """
    overrides = request.get("containerOverrides", {})
    long = {name: f"{value[:20]}…" for name, value in variables(overrides).items() if len(value) > LONG}
    return {**request, "containerOverrides": with_variables(overrides, long)} if long else dict(request)


def _overridden(overrides: Mapping[str, Any], short: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``containerOverrides`` in which the short forms replace what they set."""
    result = {name: value for name, value in overrides.items() if name not in short or name not in RESOURCES}
    if "command" in short:
        result["command"] = short["command"]
    if "environment" in short:
        result = with_variables(result, short["environment"])
    if amounts := {RESOURCES[name]: f"{value:.10g}" for name, value in short.items() if name in RESOURCES}:
        others = [each for each in result.get("resourceRequirements", []) if each.get("type") not in amounts]
        own = [{"type": kind, "value": amount} for kind, amount in amounts.items()]
        result["resourceRequirements"] = [*others, *own]
    return result
