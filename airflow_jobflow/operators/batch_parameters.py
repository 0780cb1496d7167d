"""The parameters of the operators for AWS Batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from airflow_jobflow import params, params_json
from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.jobs import batch_request
from airflow_jobflow.jobs.changes import Changes
from airflow_jobflow.operators import change_rules, definitions
from airflow_jobflow.operators.inputs import NOT_IN_CONTAINER_OVERRIDES
from airflow_jobflow.params import Parameter, ParameterTable


def _shape(member: str) -> params_json.AwsShape:
    return params_json.AwsShape("batch", "SubmitJob", member)


PARAMETERS: Final = ParameterTable(
    {
        "job_name": Parameter("jobName", params.job_name, required=True),
        "job_queue": Parameter("jobQueue", params.non_empty_string, required=True),
        **definitions.BATCH_PARAMETERS,
        "command": Parameter("", params_json.string_list, in_item=True),
        "environment": Parameter("", params_json.string_map, in_item=True),
        "vcpus": Parameter("", partial(params.number, least=0, above=True), in_item=True),
        "memory": Parameter("", partial(params.integer, least=4, unit="MiB"), in_item=True),
        "gpus": Parameter("", partial(params.integer, least=1), in_item=True),
        "container_overrides": Parameter("containerOverrides", _shape("containerOverrides"), in_item=True),
        "array_size": Parameter("", partial(params.integer, least=1, most=10_000)),
        "array_properties": Parameter("arrayProperties", _shape("arrayProperties")),
        "parameters": Parameter("parameters", params_json.string_map, in_item=True),
        "depends_on": Parameter("dependsOn", _shape("dependsOn")),
        "retry_strategy": Parameter("retryStrategy", _shape("retryStrategy"), in_item=True),
        "attempt_timeout": Parameter("timeout", partial(params.integer, least=60), in_item=True),
        "tags": Parameter("tags", params_json.string_map, in_item=True),
        "propagate_tags": Parameter("propagateTags", params.boolean),
        "share_identifier": Parameter("shareIdentifier", params.non_empty_string, in_item=True),
        "scheduling_priority_override": Parameter(
            "schedulingPriorityOverride",
            partial(params.integer, least=0, most=9999),
            in_item=True,
        ),
        "node_overrides": Parameter("nodeOverrides", _shape("nodeOverrides")),
        "ecs_properties_override": Parameter("ecsPropertiesOverride", _shape("ecsPropertiesOverride")),
        "eks_properties_override": Parameter("eksPropertiesOverride", _shape("eksPropertiesOverride")),
        "consumable_resource_properties_override": Parameter(
            "consumableResourcePropertiesOverride", _shape("consumableResourcePropertiesOverride")
        ),
        "container_name": Parameter("", params.non_empty_string),
        **change_rules.PARAMETERS,
    }
)
"""The parameters of SubmitJob, those that make a job definition, and some that are not sent."""

CHANGEABLE: Final = (
    "job_queue",
    "memory",
    "vcpus",
    "gpus",
    "attempt_timeout",
    "retry_strategy",
    "share_identifier",
    "scheduling_priority_override",
)
"""The parameters that an attempt can change after a failure."""


def reject_contradictions(values: Mapping[str, Any], *, redrive: bool) -> None:
    """Reject parameters that contradict each other.

    :param values: the validated parameters of the operator, see ``PARAMETERS``.
    :param redrive: whether a retry runs only the children of an array that did not succeed.
    :raises InvalidParameter: two of them do.
    """
    overrides, array = values.get("container_overrides", {}), values.get("array_properties", {})
    for name in batch_request.duplicates(values, overrides) if overrides else ():
        raise invalid_parameter(name, values[name], "is also set in container_overrides; set it in one place only")
    if "size" in array:
        if "array_size" in values:
            rule = "the size is also set in array_properties; set it in one place only"
            raise invalid_parameter("array_size", values["array_size"], rule)
        PARAMETERS["array_size"].check("array_properties['size']", array["size"])
    elsewhere = next((name for name in NOT_IN_CONTAINER_OVERRIDES if name in values), None)
    for name in (*NOT_IN_CONTAINER_OVERRIDES, "container_overrides", "image") if elsewhere else ():
        if name in values and name != elsewhere:
            rule = f"cannot be combined with {elsewhere}, which is for jobs of another type"
            raise invalid_parameter(name, values[name], rule)
    for name in batch_request.SHORT_FORMS if elsewhere else ():
        if name in values:
            rule = f"is short for a part of container_overrides, which does not apply with {elsewhere}; set it there"
            raise invalid_parameter(name, values[name], rule)
    if redrive and elsewhere:
        rule = "cannot be combined with redrive, which passes each child its index in container_overrides"
        raise invalid_parameter(elsewhere, values[elsewhere], rule)


def changes_of(values: Mapping[str, Any]) -> Changes:
    """Return what an attempt changes after a failure.

    :param values: the validated parameters of the operator, see ``PARAMETERS``.
    :raises InvalidParameter: a rule is wrong, or contradicts another one.
    """
    has_container = not any(name in values for name in NOT_IN_CONTAINER_OVERRIDES)
    names = [name for name in CHANGEABLE if has_container or name not in batch_request.SHORT_FORMS]
    return change_rules.changes_of(values, PARAMETERS, names)
