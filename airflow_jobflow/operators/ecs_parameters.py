"""The parameters of the operators for ECS, and the RunTask requests that are made of them.

The operators for Fargate and the general ones differ in data: in their tables, and in the launch type that ``fargate``
adds. What a launch type does not support is in ``NOT_SUPPORTED``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from airflow_jobflow import params, params_json
from airflow_jobflow.exceptions import InvalidParameter, invalid_parameter
from airflow_jobflow.jobs.changes import Changes
from airflow_jobflow.jobs.definitions import AWSVPC, EC2, EXTERNAL, FARGATE
from airflow_jobflow.operators import change_rules, definitions
from airflow_jobflow.params import Parameter, ParameterTable

LAUNCH_TYPES: Final = (EC2, EXTERNAL, FARGATE)
"""The launch types that RunTask takes. Managed instances are used by their capacity provider."""

FARGATE_PROVIDERS: Final = frozenset({"FARGATE", "FARGATE_SPOT"})
"""AWS's own capacity providers. All others have instances."""


def _strategy(name: str, value: Any) -> list[dict[str, Any]]:
    """Validate a capacity provider strategy: AWS's list, or weights by provider: ``{"FARGATE_SPOT": 4}``."""
    try:
        weights = params_json.mapping(name, value)
    except InvalidParameter:
        strategy: list[dict[str, Any]] = params_json.AwsShape("ecs", "RunTask", "capacityProviderStrategy")(name, value)
        return strategy
    return [
        {"capacityProvider": provider, "weight": params.integer(f"{name}[{provider!r}]", weight, least=0, most=1000)}
        for provider, weight in weights.items()
    ]


def _launch_type(name: str, value: Any) -> str:
    """Validate a launch type."""
    if value == "MANAGED_INSTANCES":
        rule = "RunTask does not take it; name the capacity provider of the instances in capacity_provider_strategy"
        raise invalid_parameter(name, value, rule)
    return params.one_of(name, value, LAUNCH_TYPES)


COMMON: Final = {
    "cluster": Parameter("cluster", params.non_empty_string, required=True),
    **definitions.ECS_PARAMETERS,
    "command": Parameter("", params_json.string_list, in_item=True),
    "environment": Parameter("", params_json.string_map, in_item=True),
    "container_name": Parameter("", params.non_empty_string, in_item=True),
    "cpu": Parameter("", partial(params.integer, least=128, unit="CPU units; 1024 are a vCPU"), in_item=True),
    "memory": Parameter("", partial(params.integer, least=6, unit="MiB"), in_item=True),
    "ephemeral_storage": Parameter("", partial(params.integer, least=20, most=200), in_item=True),
    "overrides": Parameter("overrides", params_json.AwsShape("ecs", "RunTask", "overrides"), in_item=True),
    "subnets": Parameter("", params_json.string_list),
    "security_groups": Parameter("", params_json.string_list),
    "assign_public_ip": Parameter("", params.boolean),
    "network_configuration": Parameter(
        "networkConfiguration", params_json.AwsShape("ecs", "RunTask", "networkConfiguration")
    ),
    "capacity_provider_strategy": Parameter("capacityProviderStrategy", _strategy),
    "on_spot_interruption": Parameter("", partial(params.one_of, allowed=("fail", "retry")), required=True),
    "platform_version": Parameter("platformVersion", params.non_empty_string),
    "enable_execute_command": Parameter("enableExecuteCommand", params.boolean),
    "enable_ecs_managed_tags": Parameter("enableECSManagedTags", params.boolean),
    "propagate_tags": Parameter("propagateTags", partial(params.one_of, allowed=("TASK_DEFINITION", "NONE"))),
    "tags": Parameter("tags", params_json.string_map, in_item=True),
    "group": Parameter("group", params.non_empty_string),
    "reference_id": Parameter("referenceId", params.non_empty_string),
    "volume_configurations": Parameter(
        "volumeConfigurations", params_json.AwsShape("ecs", "RunTask", "volumeConfigurations")
    ),
    **{name: row for name, row in change_rules.PARAMETERS.items() if name != "on_timeout"},  # ECS has no such limit
}

ECS_PARAMETERS: Final = ParameterTable(
    {
        **COMMON,
        "network_mode": Parameter("", partial(params.one_of, allowed=("bridge", "host", AWSVPC, "none"))),
        "gpus": Parameter("", partial(params.integer, least=1), in_item=True),
        "launch_type": Parameter("launchType", _launch_type),
        "placement_constraints": Parameter(
            "placementConstraints", params_json.AwsShape("ecs", "RunTask", "placementConstraints")
        ),
        "placement_strategy": Parameter(
            "placementStrategy", params_json.AwsShape("ecs", "RunTask", "placementStrategy")
        ),
    }
)
"""The parameters of RunTask, those that make a task definition, and ``on_spot_interruption``."""

FARGATE_PARAMETERS: Final = ParameterTable(
    {
        **COMMON,
        "cpu": Parameter("", partial(params.integer, least=256, unit="CPU units; 1024 are a vCPU"), in_item=True),
        "memory": Parameter("", partial(params.integer, least=512, unit="MiB"), in_item=True),
        "on_spot_interruption": Parameter(
            "", partial(params.one_of, allowed=("fail", "retry", "on_demand")), required=True
        ),
    }
)
"""The same for Fargate, which has no placement, and sizes of its own."""

_FARGATE_ONLY: Final = dict.fromkeys(
    ("platform_version", "ephemeral_storage", "assign_public_ip"), "only Fargate supports it"
)
_NO_INSTANCES: Final = "Fargate has no instances to choose from"
_NO_NETWORK: Final = "external instances take no network configuration"

NOT_SUPPORTED: Final[Mapping[str | None, Mapping[str, str]]] = {
    FARGATE: {
        "placement_constraints": _NO_INSTANCES,
        "placement_strategy": _NO_INSTANCES,
        "gpus": "Fargate has no GPUs",
    },
    EC2: _FARGATE_ONLY,
    EXTERNAL: {
        **_FARGATE_ONLY,
        "subnets": _NO_NETWORK,
        "security_groups": _NO_NETWORK,
        "network_configuration": _NO_NETWORK,
    },
}
"""The parameters that a launch type does not support, each with the reason."""


CHANGEABLE: Final = (
    "cpu",
    "memory",
    "ephemeral_storage",
    "capacity_provider_strategy",
    "launch_type",
    "subnets",
    "security_groups",
    "assign_public_ip",
    "platform_version",
    "placement_constraints",
    "placement_strategy",
)
"""The parameters that an attempt can change after a failure."""


def changed(values: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with what an attempt changes: a launch type and a strategy replace each other.

    :param values: validated parameters.
    :param change: those that change.
    """
    replaced = {"launch_type": "capacity_provider_strategy", "capacity_provider_strategy": "launch_type"}
    left_out = {replaced[name] for name in change if name in replaced} - change.keys()
    return {name: value for name, value in {**values, **change}.items() if name not in left_out}


def changes_of(values: Mapping[str, Any], table: ParameterTable) -> Changes:
    """Return what an attempt changes after a failure.

    :param values: the validated parameters of the operator.
    :param table: its table.
    :raises InvalidParameter: a rule is wrong, or contradicts another one, or other parameters.
    """

    def check(fixed: Mapping[str, Any]) -> None:
        after = changed(values, fixed)
        other = EcsParameters(fargate(after) if table is FARGATE_PARAMETERS else after)
        if "image" in values and other.made_for != EcsParameters(values).made_for:
            rule = "the next attempt would need another task definition; use task_definition or definition"
            raise invalid_parameter("image", values["image"], rule)

    return change_rules.changes_of(values, table, CHANGEABLE, check)


def fargate(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a task on Fargate: the launch type is added, unless there is a strategy.

    :param values: validated parameters, see ``FARGATE_PARAMETERS``.
    :raises InvalidParameter: the strategy has other capacity providers than those of Fargate.
    """
    strategy = values.get("capacity_provider_strategy") or ()
    for provider in (each.get("capacityProvider") for each in strategy):
        if provider not in FARGATE_PROVIDERS:
            rule = f"{provider} is not a capacity provider of Fargate; use EcsTaskOperator or EcsMapOperator"
            raise invalid_parameter("capacity_provider_strategy", strategy, rule)
    return dict(values) if strategy else {**values, "launch_type": FARGATE}


class EcsParameters:
    """The parameters of a task, and the requests made of them.

    :param values: the validated parameters of the operator, see ``ECS_PARAMETERS`` and ``fargate``.
    :raises InvalidParameter: two of them contradict each other.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        strategy, launch_type = values.get("capacity_provider_strategy") or (), values.get("launch_type")
        if strategy and launch_type:
            rule = "capacity_provider_strategy is also given; keep only one of them"
            raise invalid_parameter("launch_type", launch_type, rule)
        if strategy and all(each.get("capacityProvider") in FARGATE_PROVIDERS for each in strategy):
            launch_type = FARGATE
        self._unsupported = NOT_SUPPORTED.get(launch_type, {})
        self.reject_unsupported(values)
        self.definition = definitions.of_ecs(values, launch_type)
        self.made_for = launch_type == FARGATE, self.definition.network_mode
        """Whether the task definition is for Fargate, and its network mode."""
        self._check_network(launch_type)
        self.reject_contradictions(values.get("container_name"))

    def reject_unsupported(self, values: Mapping[str, Any], item: str = "") -> None:
        """Reject parameters that the launch type does not support.

        :param values: validated parameters, of the operator or of an item.
        :param item: names the item. Default: they are the operator's.
        :raises InvalidParameter: there is one.
        """
        for name, why in self._unsupported.items():
            if values.get(name):
                raise invalid_parameter(f"{item}[{name!r}]" if item else name, values[name], why)

    def _check_network(self, launch_type: str | None) -> None:
        """Check that the task has subnets if its network mode needs them, and none otherwise."""
        values, mode = self.values, self.definition.network_mode
        short = [name for name in ("subnets", "security_groups", "assign_public_ip") if name in values]
        whole = "network_configuration" in values
        if short and whole:
            rule = "is also set in network_configuration; set it in one place only"
            raise invalid_parameter(short[0], values[short[0]], rule)
        if launch_type != FARGATE and mode not in (None, AWSVPC) and (short or whole):
            name = short[0] if short else "network_configuration"
            rule = f"the network mode {mode} of the task definition takes no network; leave it out, or use {AWSVPC}"
            raise invalid_parameter(name, values[name], rule)
        if values.get("subnets") or whole:
            return
        rule = ""
        if launch_type == FARGATE:
            rule = "a Fargate task needs at least one subnet"
        elif mode == AWSVPC:
            rule = f"the network mode {AWSVPC} needs at least one subnet; give subnets, or use the mode bridge or host"
        elif short:
            rule = f"{short[0]} needs at least one subnet"
        if rule:
            raise invalid_parameter("subnets", values.get("subnets"), rule)

    def reject_contradictions(self, container: str | None) -> None:
        """Reject a short form that ``overrides`` contradict.

        :param container: the container that command and environment are for.
        :raises InvalidParameter: there is one.
        """
        from airflow_jobflow.jobs import ecs

        for name in ecs.duplicates(self.values, self.values.get("overrides", {}), container):
            raise invalid_parameter(name, self.values[name], "is also set in overrides; set it in one place only")

    def request(self, values: Mapping[str, Any], container: str | None, *, on_demand: bool = False) -> dict[str, Any]:
        """Return the RunTask request, without its token.

        :param values: validated parameters.
        :param container: the container that command and environment are for.
        :param on_demand: whether to run on Fargate, and ignore the capacity provider strategy. Default False.
        """
        from airflow_jobflow.jobs import ecs
        from airflow_jobflow.jobs.ecs_network import awsvpc

        short = awsvpc(values)
        network = values.get("network_configuration") or (short and {"awsvpcConfiguration": short})
        parts = {
            **{name: values.get(name) for name in ECS_PARAMETERS.members},
            "capacity_provider_strategy": None if on_demand else values.get("capacity_provider_strategy") or None,
            "launch_type": FARGATE if on_demand else values.get("launch_type"),
            "network_configuration": network or None,
            "overrides": ecs.overrides(values, container),
            "tags": ecs.tags(values.get("tags", {})) or None,
        }
        members = ECS_PARAMETERS.members
        return {"count": 1, **{members[name]: value for name, value in parts.items() if value is not None}}
