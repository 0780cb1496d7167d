"""What the operators for ECS start: a task."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.operators.changes import add_change, values_of
from airflow_jobflow.operators.ecs_parameters import ECS_PARAMETERS, EcsParameters, changed, changes_of
from airflow_jobflow.operators.inputs import log_left_out
from airflow_jobflow.operators.spec import JobSpec

if TYPE_CHECKING:
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.reattach import Found
    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.params import ParameterTable
    from airflow_jobflow.waiting.remote import RemoteJobs

log = logging.getLogger(__name__)

TOKEN_IN_USE: Final = "ConflictException"  # noqa: S105 -- no secret
"""ECS's error code for a token that a different request used: one of an earlier try, whose task was not found yet."""

SPOT_ATTEMPTS: Final = 4
"""How many attempts one try of the task makes of a job whose Spot capacity is taken back, the first included."""


class EcsTaskSpec(JobSpec):
    """A task.

    :param values: the validated parameters of the operator, see ``EcsParameters``.
    :param table: its table of parameters. Default ``ECS_PARAMETERS``.
    :raises InvalidParameter: two of them contradict each other.
    """

    when_stuck = "Check the subnets, the account's limits, and the requested capacity."

    def __init__(self, values: Mapping[str, Any], table: ParameterTable = ECS_PARAMETERS) -> None:
        self.parameters = EcsParameters(values)
        self.values = values
        self.cluster: str = values["cluster"]
        self.scope: str | None = self.cluster
        self.container: str | None = values.get("container_name")
        self.changes = changes_of(values, table)

    def submit(self, record: AttemptRecord, jobs: RemoteJobs) -> list[str]:
        """Run the task under a token that starts nothing twice, and return its ARN; see the base."""
        from airflow_jobflow.jobs import ecs
        from airflow_jobflow.jobs.attempt import TRY_TAG
        from airflow_jobflow.jobs.owner import with_owner_tags
        from airflow_jobflow.operators import submission

        definition, before, owner = self.parameters.definition, record.attempt, record.owner
        definition.check_containers(jobs)
        values = changed(self.parameters.values, values_of(before.changes))
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
            is_needed = bool(uri) or any(name in values for name in ecs.OF_CONTAINER)
            if container is None and (is_needed or context):
                container = definition.main_container
            if container is None and is_needed:
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
        from airflow_jobflow.jobs.causes import SPOT_RECLAIMED
        from airflow_jobflow.jobs.diagnosis import diagnose
        from airflow_jobflow.jobs.model import Snapshot

        interrupted = any(diagnose(Snapshot.from_dict(seen)) is SPOT_RECLAIMED for seen in event["jobs"].values())
        if not interrupted or self.parameters.values["on_spot_interruption"] == "fail":
            return False
        if attempt.interruptions + 1 >= SPOT_ATTEMPTS:
            return False
        attempt.interruptions += 1
        log.info("AWS reclaimed the Spot capacity of attempt %d of at most %d", attempt.interruptions, SPOT_ATTEMPTS)
        if self.changes:
            add_change(self.changes, attempt, Snapshot.from_dict(next(iter(event["jobs"].values()))), log)
        return True
