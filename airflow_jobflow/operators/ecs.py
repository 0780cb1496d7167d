"""Operators for ECS tasks on Fargate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow import params
from airflow_jobflow.exceptions import InvalidParameter
from airflow_jobflow.links import FargateTaskLink, JobLogLink
from airflow_jobflow.operators.base import OF_ONE_JOB, JobOperator
from airflow_jobflow.operators.map import MapOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.reattach import Found

FARGATE = "FARGATE"

TOKEN_IN_USE = "ConflictException"  # noqa: S105 -- no secret
"""ECS's error code for a token that a different request has used: an earlier try's, whose task was not found yet."""

PUBLIC_IP = {True: "ENABLED", False: "DISABLED", None: None}

SPOT_ATTEMPTS = 4
"""How many attempts one try of the task makes of a job whose Spot capacity is taken away, the first included."""


def _strategy(name: str, value: Any) -> list[dict[str, Any]]:
    """Check a capacity provider strategy: AWS's list, or weights by provider: ``{"FARGATE_SPOT": 4, "FARGATE": 1}``."""
    try:
        weights = params.mapping(name, value)
    except InvalidParameter:
        strategy: list[dict[str, Any]] = params.AwsShape("ecs", "RunTask", "capacityProviderStrategy")(name, value)
        return strategy
    return [
        {"capacityProvider": provider, "weight": params.integer(f"{name}[{provider!r}]", weight, least=0, most=1000)}
        for provider, weight in weights.items()
    ]


CHECKS: dict[str, params.Check] = {
    "cluster": params.non_empty_string,
    "task_definition": params.non_empty_string,
    "command": params.string_list,
    "environment": params.string_map,
    "container_name": params.non_empty_string,
    "cpu": lambda name, value: params.integer(name, value, least=256),
    "memory": lambda name, value: params.integer(name, value, least=512),
    "ephemeral_storage": lambda name, value: params.integer(name, value, least=20, most=200),
    "overrides": params.AwsShape("ecs", "RunTask", "overrides"),
    "subnets": params.string_list,
    "security_groups": params.string_list,
    "assign_public_ip": params.boolean,
    "network_configuration": params.AwsShape("ecs", "RunTask", "networkConfiguration"),
    "capacity_provider_strategy": _strategy,
    "on_spot_interruption": lambda name, value: params.one_of(name, value, ("fail", "retry", "on_demand")),
    "platform_version": params.non_empty_string,
    "enable_execute_command": params.boolean,
    "enable_ecs_managed_tags": params.boolean,
    "propagate_tags": lambda name, value: params.one_of(name, value, ("TASK_DEFINITION", "NONE")),
    "tags": params.string_map,
    "group": params.non_empty_string,
    "reference_id": params.non_empty_string,
    "volume_configurations": params.AwsShape("ecs", "RunTask", "volumeConfigurations"),
}
"""What RunTask is told, by our parameter, and what each must be."""

REQUIRED = ("cluster", "task_definition", "on_spot_interruption")
"""What a template must not render as None."""


class FargateTaskOperator(JobOperator):
    """Run a task on ECS, on Fargate or Fargate Spot.

    Parameters mean what they mean in `RunTask <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/
    API_RunTask.html>`_; all are templated; what is not given is not sent, so that the task definition decides.

    :param cluster: name or ARN of the cluster.
    :param task_definition: family, family with revision, or ARN of the task definition.
    :param command: the container's command, as a list of words.
    :param environment: environment variables of the container, by name.
    :param container_name: whose command and environment are meant, by default the definition's first essential one. If
        it is given, this container alone also decides whether the task has succeeded, and its exit code, reason and log
        count: what others end with, such as a router that is killed once the work is done, does not matter then.
        Default: all essential containers must end with 0.
    :param cpu, memory: of the whole task, in CPU units and MiB.
    :param ephemeral_storage: GiB of the whole task, 20 to 200.
    :param overrides: ``overrides``, for all that the short forms do not say, such as several containers.
    :param subnets, security_groups: lists of ids.
    :param assign_public_ip: whether the task gets a public address. Default: as AWS decides.
    :param network_configuration: ``networkConfiguration``, in place of the three before.
    :param capacity_provider_strategy: AWS's list, or weights by provider: ``{"FARGATE_SPOT": 4, "FARGATE": 1}``.
        Default: Fargate.
    :param on_spot_interruption: what to do when AWS takes Spot capacity back, which is no fault of the task's:
        ``fail``; ``retry``, an attempt on the same capacity; ``on_demand``, an attempt on Fargate. At most three times
        in one try of the task. Default ``retry``.
    :param platform_version, enable_execute_command, enable_ecs_managed_tags, propagate_tags, group, reference_id,
        volume_configurations: as in RunTask.
    :param tags: tags of the task, by name.

    The others are those of :class:`airflow_jobflow.operators.base.JobOperator` and
    :class:`airflow_jobflow.waiting.JobWaiter`.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`.
    """

    service: ClassVar[str] = "ecs"
    NOT_HONOURED: ClassVar[Mapping[str, str]] = OF_ONE_JOB
    template_fields: Sequence[str] = (*JobOperator.template_fields, *CHECKS)
    template_fields_renderers: ClassVar[dict[str, str]] = params.renderers(CHECKS)
    operator_extra_links = (FargateTaskLink(), JobLogLink())
    when_stuck: ClassVar[str] = "Look at the subnets, the account's limits, and the capacity that was asked for."
    ui_color = "#f7d5b5"

    def __init__(
        self,
        *,
        cluster: str,
        task_definition: str,
        command: Sequence[str] | str | None = None,
        environment: dict[str, str] | str | None = None,
        container_name: str | None = None,
        cpu: int | str | None = None,
        memory: int | str | None = None,
        ephemeral_storage: int | str | None = None,
        overrides: dict[str, Any] | str | None = None,
        subnets: Sequence[str] | str | None = None,
        security_groups: Sequence[str] | str | None = None,
        assign_public_ip: bool | str | None = None,
        network_configuration: dict[str, Any] | str | None = None,
        capacity_provider_strategy: Sequence[dict[str, Any]] | dict[str, int] | str | None = None,
        on_spot_interruption: str = "retry",
        platform_version: str | None = None,
        enable_execute_command: bool | str | None = None,
        enable_ecs_managed_tags: bool | str | None = None,
        propagate_tags: str | None = None,
        tags: dict[str, str] | str | None = None,
        group: str | None = None,
        reference_id: str | None = None,
        volume_configurations: Sequence[dict[str, Any]] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.task_definition = task_definition
        self.command = command
        self.environment = environment
        self.container_name = container_name
        self.cpu = cpu
        self.memory = memory
        self.ephemeral_storage = ephemeral_storage
        self.overrides = overrides
        self.subnets = subnets
        self.security_groups = security_groups
        self.assign_public_ip = assign_public_ip
        self.network_configuration = network_configuration
        self.capacity_provider_strategy = capacity_provider_strategy
        self.on_spot_interruption = on_spot_interruption
        self.platform_version = platform_version
        self.enable_execute_command = enable_execute_command
        self.enable_ecs_managed_tags = enable_ecs_managed_tags
        self.propagate_tags = propagate_tags
        self.tags = tags
        self.group = group
        self.reference_id = reference_id
        self.volume_configurations = volume_configurations

    def scope(self) -> str | None:
        """Return the cluster, which a describe call is confined to."""
        return self.cluster

    def container(self) -> str | None:
        """Return the name of the container that counts."""
        return None if self.container_name is None else params.non_empty_string("container_name", self.container_name)

    def check(self) -> None:
        """Check the parameters; see the base."""
        super().check()
        self.values()

    def values(self) -> dict[str, Any]:
        """Check the parameters, and return those that are given.

        :raises InvalidParameter: one of them is wrong, or two contradict each other.
        """
        values = params.validated(self, CHECKS, REQUIRED)
        short = [name for name in ("subnets", "security_groups", "assign_public_ip") if name in values]
        if short and "network_configuration" in values:
            raise params.invalid_parameter(short[0], values[short[0]], "network_configuration says it too; keep one")
        if not values.get("subnets") and "network_configuration" not in values:
            raise params.invalid_parameter("subnets", self.subnets, "a Fargate task needs at least one subnet")
        self.reject_contradictions(values, values.get("container_name"))
        return values

    def reject_contradictions(self, values: Mapping[str, Any], container: str | None) -> None:
        """Reject a short form that ``overrides`` contradict.

        :param values: what ``values`` returned.
        :param container: whose command and environment are meant; None if that is not known yet.
        :raises InvalidParameter: there is one.
        """
        from airflow_jobflow.jobs import ecs

        for name in ecs.duplicates(values, values.get("overrides", {}), container):
            raise params.invalid_parameter(name, getattr(self, name), "overrides says it too; keep one")

    def request(self, values: dict[str, Any], container: str | None, attempt: int) -> dict[str, Any]:
        """Build the RunTask request of one attempt, but for its token.

        :param values: what ``values`` returned.
        :param container: whose command and environment are meant.
        :param attempt: from 1; later ones follow Spot interruptions.
        """
        from airflow_jobflow.jobs import ecs

        strategy = values.get("capacity_provider_strategy")
        if attempt > 1 and values["on_spot_interruption"] == "on_demand":
            strategy = None
        awsvpc = {
            "subnets": values.get("subnets"),
            "securityGroups": values.get("security_groups"),
            "assignPublicIp": PUBLIC_IP[values.get("assign_public_ip")],
        }
        short = {"awsvpcConfiguration": {name: value for name, value in awsvpc.items() if value is not None}}
        return ecs.request(
            {
                **{name: values.get(name) for name in ecs.REQUEST_FIELDS},
                "capacity_provider_strategy": strategy,
                "launch_type": None if strategy else FARGATE,
                "network_configuration": values.get("network_configuration") or short,
                "overrides": ecs.overrides(values, container),
                "tags": ecs.tags(values.get("tags", {})) or None,
            }
        )

    def submit(self, context: Context) -> Sequence[str]:
        """Run the task under a token that starts nothing twice, and return its ARN."""
        from airflow_jobflow.jobs import ecs
        from airflow_jobflow.jobs.attempt import TRY_TAG
        from airflow_jobflow.jobs.owner import with_owner_tags
        from airflow_jobflow.operators.submission import submit_once

        self.check_container(ecs.container_names, self.task_definition)
        before = dict(self.attempt.details) if self.attempt.number else {}
        interruptions = before.get("interruptions", 0)
        by = (self.resubmits and self.attempt.where.get("try")) or str(self.this_try(context))
        token = self.new_attempt(context, where={"try": by}, details={"interruptions": interruptions})
        if before.get("declined"):  # the token would bring the same response again, for ever
            self.attempt.details.pop("declined", None)
            token = self.attempt.follow(str(context["ti"].id))
            self.save(context)
        values, owner = self.values(), self.job_owner(context)
        identity = {"clientToken": token, "startedBy": owner.group} if self.durable else {}
        owner_tags = {**owner.tags(), TRY_TAG: f"{by}-{token}"}
        tags, _ = with_owner_tags(values.get("tags", {}), owner_tags)

        def run(call: Call) -> str:
            container = values.get("container_name")
            if container is None and ("command" in values or "environment" in values):
                container = ecs.main_container(call, values["task_definition"])
                self.reject_contradictions(values, container)
            request = {**self.request(values, container, interruptions + 1), **identity}
            tagged = {**request, "tags": ecs.tags(tags)}
            return self._start_or_find(call, context, request, tagged)

        what = f"{ecs.DISPLAY_NAME} of {self.task_definition}"
        self.log.info("Running %s on cluster %s, attempt %d", self.task_definition, self.cluster, interruptions + 1)
        return [submit_once(self.call, run, None, what, repeatable=self.durable, origin=self.origin)]

    def _start_or_find(
        self, call: Call, context: Context, request: Mapping[str, Any], tagged: Mapping[str, Any]
    ) -> str:
        """Run a task, or find the one that was started all the same, and return its ARN.

        :param request, tagged: see ``jobs.tagging.start_tagged``.
        :raises NotStarted: ECS says that there is no task, or that another request has used the token, and none is
            found. The token is of no use any more.
        """
        from airflow_jobflow.faults import CallError, Fault
        from airflow_jobflow.jobs import ecs
        from airflow_jobflow.jobs.starting import NotStarted
        from airflow_jobflow.jobs.tagging import start_tagged

        try:
            return start_tagged(call, ecs.run_task, request, tagged)
        except NotStarted as error:
            declined = error
        except CallError as error:
            if error.code != TOKEN_IN_USE:
                raise
            declined = NotStarted(str(error), Fault.TRANSIENT)
        if self.durable and (found := self._find_again(call, context)):
            return found
        self.attempt.details["declined"] = True
        raise declined

    def find_started(self, call: Call, context: Context) -> str | None:
        """Return the task of this attempt: ECS may say that it started none, and start it all the same."""
        from airflow_jobflow.jobs import ecs

        group, attempt = self.group_of(context, self.attempt), self.attempt
        return ecs.find(call, self.cluster, group, attempt.token, attempt.began_at)

    def _find_again(self, call: Call, context: Context) -> str | None:
        """Look for the task of this attempt right after ECS has said that there is none; the next start looks again."""
        from airflow_jobflow.faults import CallError

        try:
            return self.find_started(call, context)
        except CallError as error:
            self.log.warning("Could not check whether the task was started all the same: %s", error)
            return None

    def find_group(self, call: Call, context: Context, recorded: Attempt) -> list[Found]:
        """Return all tasks of this task instance in the cluster."""
        from airflow_jobflow.jobs import ecs

        return ecs.find_group(call, self.cluster, self.group_of(context, recorded))

    def again(self, context: Context, event: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Make another attempt where AWS took Spot capacity back, which is no fault of the task's."""
        from airflow_jobflow.jobs import ecs

        interrupted = any(seen.get("code") in ecs.INTERRUPTIONS for seen in event["jobs"].values())
        if not interrupted or self.on_spot_interruption == "fail":
            return False
        interruptions = self.attempt.details.get("interruptions", 0) + 1
        if interruptions >= SPOT_ATTEMPTS:
            return False
        self.log.info("Spot capacity was taken back from attempt %d of at most %d", interruptions, SPOT_ATTEMPTS)
        self.attempt.details["interruptions"] = interruptions
        return True


class FargateMapOperator(MapOperator, FargateTaskOperator):
    """Run one task for each item on Fargate or Fargate Spot, from one task instance.

    :param items: each may say ``command``, ``environment``, ``overrides``, ``cpu``, ``memory``, ``ephemeral_storage``,
        ``tags``, ``container_name``.

    The others are those of :class:`airflow_jobflow.operators.map.MapOperator` and of :class:`FargateTaskOperator`.

    ECS tells of a stopped task for about an hour. The triggerer notes every quarter of an hour what has ended, for
    another that takes over, and what it told at a deadline is kept for a retry. Only where a try ended without a word
    of its trigger's, a retry that goes on with its map more than an hour after tasks have stopped runs their items
    again.
    """

    NOT_HONOURED: ClassVar[Mapping[str, str]] = {}
    ITEM: ClassVar[Mapping[str, params.Check]] = {
        name: CHECKS[name]
        for name in (
            "command",
            "environment",
            "overrides",
            "cpu",
            "memory",
            "ephemeral_storage",
            "tags",
            "container_name",
        )
    }
    template_fields: Sequence[str] = (*FargateTaskOperator.template_fields, *MapOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **FargateTaskOperator.template_fields_renderers,
        "items": "json",
    }

    def requests(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Build the RunTask request of each item, but for its token."""
        from airflow_jobflow.jobs import ecs, ecs_map
        from airflow_jobflow.jobs.environment import variables
        from airflow_jobflow.operators.submission import submit_once

        common = self.values()
        named = {item["container_name"] for item in items if "container_name" in item}
        self.check_container(ecs.container_names, common["task_definition"], *sorted(named))
        main = common.get("container_name")
        if main is None and not all("container_name" in item for item in items):
            main = submit_once(
                self.call,
                lambda call: ecs.main_container(call, common["task_definition"]),
                None,
                f"A map of {self.task_definition}",
                repeatable=True,
                origin=self.origin,
            )
            self.reject_contradictions(common, main)
        result = []
        for index, item in enumerate(items):
            container, overrides = item.get("container_name", main), item.get("overrides", {})
            for name in ecs.duplicates(item, overrides, container):
                raise params.invalid_parameter(f"items[{index}]", item, f"overrides says the {name} too; keep one")
            # What the item's overrides say goes before the operator's short forms, except for single variables.
            replaced = set(ecs.duplicates(common, overrides, container)) - {"environment"}
            values = {name: value for name, value in common.items() if name not in replaced} | dict(item)
            said = variables(ecs.container_overrides(overrides, container))
            environment = common.get("environment", {}) | said | item.get("environment", {})
            values.pop("environment", None)
            request = self.request(values, container, attempt=1)
            result.append(ecs_map.item(request, container, index, environment))
        return result

    def family(self, context: Context) -> dict[str, Any]:
        """Return what tells the tasks of this attempt's map from all others."""
        from airflow_jobflow.jobs import ecs_map

        owner = self.job_owner(context)
        return ecs_map.family(self.cluster, owner.group, self.attempt.token, self.on_spot_interruption, owner.tags())

    def map_name(self) -> str:
        """Return what a person calls the map."""
        return self.task_definition.rpartition("/")[2]

    def attempts(self) -> int:
        """Return how many attempts an item gets whose Spot capacity is taken back."""
        return 1 if self.on_spot_interruption == "fail" else SPOT_ATTEMPTS
