"""What the operators for ECS on Fargate start: a task."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow import params, params_json
from airflow_jobflow.exceptions import InvalidParameter, invalid_parameter
from airflow_jobflow.operators import definitions
from airflow_jobflow.operators.inputs import log_left_out
from airflow_jobflow.operators.spec import JobSpec
from airflow_jobflow.params import Parameter, ParameterTable

if TYPE_CHECKING:
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.reattach import Found
    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.waiting.remote import RemoteJobs

log = logging.getLogger(__name__)

FARGATE: Final = "FARGATE"

TOKEN_IN_USE: Final = "ConflictException"  # noqa: S105 -- no secret
"""ECS's error code for a token that a different request used: one of an earlier try, whose task was not found yet."""

PUBLIC_IP: Final = {True: "ENABLED", False: "DISABLED", None: None}

SPOT_ATTEMPTS: Final = 4
"""How many attempts one try of the task makes of a job whose Spot capacity is taken back, the first included."""


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


PARAMETERS: Final = ParameterTable(
    {
        "cluster": Parameter("cluster", params.non_empty_string, required=True),
        **definitions.FARGATE_PARAMETERS,
        "command": Parameter("", params_json.string_list, in_item=True),
        "environment": Parameter("", params_json.string_map, in_item=True),
        "container_name": Parameter("", params.non_empty_string, in_item=True),
        "cpu": Parameter("", partial(params.integer, least=256, unit="CPU units; 1024 are a vCPU"), in_item=True),
        "memory": Parameter("", partial(params.integer, least=512, unit="MiB"), in_item=True),
        "ephemeral_storage": Parameter("", partial(params.integer, least=20, most=200), in_item=True),
        "overrides": Parameter("overrides", params_json.AwsShape("ecs", "RunTask", "overrides"), in_item=True),
        "subnets": Parameter("", params_json.string_list),
        "security_groups": Parameter("", params_json.string_list),
        "assign_public_ip": Parameter("", params.boolean),
        "network_configuration": Parameter(
            "networkConfiguration", params_json.AwsShape("ecs", "RunTask", "networkConfiguration")
        ),
        "capacity_provider_strategy": Parameter("capacityProviderStrategy", _strategy),
        "on_spot_interruption": Parameter(
            "", partial(params.one_of, allowed=("fail", "retry", "on_demand")), required=True
        ),
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
    }
)
"""The parameters of RunTask, those that make a task definition, and ``on_spot_interruption``."""


class FargateParameters:
    """The parameters of a task on Fargate, and the requests made of them.

    :param values: the validated parameters of the operator, see ``PARAMETERS``.
    :raises InvalidParameter: two of them contradict each other.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.definition = definitions.of_fargate(values)
        short = [name for name in ("subnets", "security_groups", "assign_public_ip") if name in values]
        if short and "network_configuration" in values:
            raise invalid_parameter(
                short[0], values[short[0]], "is also set in network_configuration; set it in one place only"
            )
        if not values.get("subnets") and "network_configuration" not in values:
            raise invalid_parameter("subnets", values.get("subnets"), "a Fargate task needs at least one subnet")
        self.reject_contradictions(values.get("container_name"))

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
        :param on_demand: whether to ignore the capacity provider strategy. Default False.
        """
        from airflow_jobflow.jobs import ecs

        strategy = None if on_demand else values.get("capacity_provider_strategy")
        awsvpc = {
            "subnets": values.get("subnets"),
            "securityGroups": values.get("security_groups"),
            "assignPublicIp": PUBLIC_IP[values.get("assign_public_ip")],
        }
        short = {"awsvpcConfiguration": {name: value for name, value in awsvpc.items() if value is not None}}
        return ecs.request(
            {
                **{name: values.get(name) for name in PARAMETERS.members},
                "capacity_provider_strategy": strategy,
                "launch_type": None if strategy else FARGATE,
                "network_configuration": values.get("network_configuration") or short,
                "overrides": ecs.overrides(values, container),
                "tags": ecs.tags(values.get("tags", {})) or None,
            },
            {**PARAMETERS.members, "launch_type": "launchType"},
        )


class FargateTaskSpec(JobSpec):
    """A task on Fargate.

    :param values: the validated parameters of the operator, see ``PARAMETERS``.
    :raises InvalidParameter: two of them contradict each other.
    """

    when_stuck = "Check the subnets, the account's limits, and the requested capacity."

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.parameters = FargateParameters(values)
        self.values = values
        self.cluster: str = values["cluster"]
        self.scope: str | None = self.cluster
        self.container: str | None = values.get("container_name")

    def submit(self, record: AttemptRecord, jobs: RemoteJobs) -> list[str]:
        """Run the task under a token that starts nothing twice, and return its ARN; see the base."""
        from airflow_jobflow.jobs import ecs
        from airflow_jobflow.jobs.attempt import TRY_TAG
        from airflow_jobflow.jobs.owner import with_owner_tags
        from airflow_jobflow.operators import submission

        values, definition = self.parameters.values, self.parameters.definition
        definition.check_containers(jobs)
        before, owner = record.attempt, record.owner
        interruptions = before.interruptions if before.number else 0
        was_declined = bool(before.number) and before.declined
        by = (record.is_repeated and before.submitted_by) or str(record.this_try)
        context = before.context if record.is_repeated else record.inputs.context(record)
        token = record.new_attempt(submitted_by=by, interruptions=interruptions, context=context)
        if was_declined:  # ECS would return the same response to this token again
            record.attempt.declined = False
            token = record.next_token()
        identity = {"clientToken": token, "startedBy": owner.group} if record.durable else {}
        tags, _ = with_owner_tags(values.get("tags", {}), {**owner.tags(), TRY_TAG: f"{by}-{token}"})
        on_demand = interruptions > 0 and values["on_spot_interruption"] == "on_demand"

        what = f"{ecs.DISPLAY_NAME} of {definition.label}"
        revision = definition.resolve(jobs, what)

        def run(call: Call) -> str:
            container = values.get("container_name")
            uri, context = record.inputs.result_uri(record), record.attempt.context
            if container is None and (uri or context or "command" in values or "environment" in values):
                container = definition.main_container
            if container is None and (uri or "command" in values or "environment" in values):
                container = ecs.main_container(call, revision)
            elif container is None and context and not (container := ecs.main_container_if_readable(call, revision)):
                context = {}
            if container is not None and "container_name" not in values:
                self.parameters.reject_contradictions(container)
            request = self.parameters.request({**values, "task_definition": revision}, container, on_demand=on_demand)
            request |= identity
            if uri or context:
                request["overrides"], left_out = ecs.with_job_variables(
                    request.get("overrides", {}), container or "", uri, context
                )
                log_left_out(left_out)
            if found := record.before_submit(call):
                return found
            return self._start_or_find(call, record, jobs, request, {**request, "tags": ecs.tags(tags)})

        jobs.log.info("Running %s on cluster %s, attempt %d", revision, self.scope, interruptions + 1)
        arn = submission.submit_once(jobs.call, run, None, what, repeatable=record.durable, origin=lambda: jobs.origin)
        return [arn]

    def _start_or_find(
        self,
        call: Call,
        record: AttemptRecord,
        jobs: RemoteJobs,
        request: Mapping[str, Any],
        tagged: Mapping[str, Any],
    ) -> str:
        """Run a task, or find the one that was started in spite of an error, and return its ARN.

        :param request, tagged: see ``jobs.starting.start_tagged``.
        :raises NotStarted: ECS responds that there is no task, or that another request used the token, and none is
            found. The token cannot be used again.
        """
        from airflow_jobflow.faults import CallError, Fault
        from airflow_jobflow.jobs import ecs
        from airflow_jobflow.jobs.starting import NotStarted, start_tagged

        try:
            return start_tagged(call, ecs.run_task, request, tagged)
        except NotStarted as error:
            declined = error
        except CallError as error:
            if error.code != TOKEN_IN_USE:
                raise
            declined = NotStarted(str(error), Fault.TRANSIENT)
        if record.durable and (found := self._find_again(call, record, jobs)):
            return found
        record.attempt.declined = True
        raise declined

    def find_started(self, call: Call, record: AttemptRecord) -> str | None:
        """Return the task of this attempt: ECS may respond that it started none, and start it."""
        from airflow_jobflow.jobs import ecs

        return ecs.find(call, self.cluster, record.group, record.attempt.token, record.attempt.began_at)

    def _find_again(self, call: Call, record: AttemptRecord, jobs: RemoteJobs) -> str | None:
        """Look for the task of this attempt right after ECS reported that there is none; the next start looks again."""
        from airflow_jobflow.faults import CallError

        try:
            return self.find_started(call, record)
        except CallError as error:
            jobs.log.warning(
                "Could not check whether ECS has started the task despite the failure it reported: %s", error
            )
            return None

    def find_group(self, call: Call, group: str, recorded: Attempt) -> list[Found]:  # noqa: ARG002
        """Return all tasks of this task instance in the cluster."""
        from airflow_jobflow.jobs import ecs

        return ecs.find_group(call, self.cluster, group)

    def runs_again(self, event: Mapping[str, Any], attempt: Attempt) -> bool:
        """Return whether AWS took Spot capacity back, and another attempt follows."""
        from airflow_jobflow.jobs import ecs

        interrupted = any(seen.get("code") in ecs.INTERRUPTIONS for seen in event["jobs"].values())
        if not interrupted or self.parameters.values["on_spot_interruption"] == "fail":
            return False
        if attempt.interruptions + 1 >= SPOT_ATTEMPTS:
            return False
        attempt.interruptions += 1
        log.info("AWS reclaimed the Spot capacity of attempt %d of at most %d", attempt.interruptions, SPOT_ATTEMPTS)
        return True
