"""The use of moto's internals by this package.

moto stores the resources: queues, compute environments, job definitions, log groups, event rules. The local services
read them, and write logs and events. The supported versions of moto are limited, and a test checks what is used here.

Invariants: moto's backends are not thread-safe. Logs and events are written under a lock, and values are copied when
they are read.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moto.batch.models import BatchBackend, ComputeEnvironment, JobDefinition, JobQueue, batch_backends
from moto.core.base_backend import BackendDict
from moto.core.exceptions import AWSError as MotoError
from moto.core.exceptions import JsonRESTError, ServiceException
from moto.ecs.models import EC2ContainerServiceBackend, ecs_backends
from moto.events.models import EventsBackend, events_backends
from moto.iam.models import IAMBackend, iam_backends
from moto.logs.exceptions import ResourceNotFoundException
from moto.logs.models import LogsBackend, logs_backends

from airflow_jobflow.local.errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moto.events.utils import EventMessageType

    from airflow_jobflow.local.batch.model import Json

log = logging.getLogger(__name__)

events_lock = threading.Lock()
"""Held while rules are matched and events are delivered, and by the server during calls to EventBridge."""
definitions_lock = threading.Lock()
"""Held while a revision of a definition is stored: two registrations at the same time must get two numbers."""
BATCH = "batch.amazonaws.com"
BATCH_ROLE = "AWSServiceRoleForBatch"
_logs_lock = threading.Lock()


def forget_account(account: str) -> None:
    """Drop all resources of an account in moto.

    :param account: the account.
    """
    for backends in list(BackendDict._instances):  # type: ignore[misc]  # noqa: SLF001 -- moto offers no other way
        dropped = backends.pop(account, None)
        if dropped is not None:
            dropped.reset()


def region_exists(account: str, region: str) -> bool:
    """Return whether AWS has a region.

    :param account: any account.
    :param region: the region.
    """
    return region in batch_backends[account]


class RegisteredDefinition(JobDefinition):
    """A revision of a job definition, also with ``ecsProperties``, which moto does not support.

    :param backend: moto's Batch.
    :param request: the request of RegisterJobDefinition.
    """

    def __init__(self, backend: BatchBackend, request: Json) -> None:
        self.ecs_properties = request.get("ecsProperties")
        name = request["jobDefinitionName"]
        revisions = [int(each.revision) for each in backend.describe_job_definitions(name)]
        given: Any = request  # moto takes None for what is not given, although its types do not say so
        for rule in given.get("retryStrategy", {}).get("evaluateOnExit", ()):
            rule["action"] = rule["action"].lower()  # as Batch returns it
        super().__init__(
            name,
            request.get("parameters"),
            request["type"],
            container_properties=request.get("containerProperties"),
            node_properties=request.get("nodeProperties"),
            eks_properties=request.get("eksProperties"),
            tags=request.get("tags", {}),
            retry_strategy=given.get("retryStrategy"),
            timeout=given.get("timeout"),
            backend=backend,
            platform_capabilities=given.get("platformCapabilities"),
            propagate_tags=given.get("propagateTags"),
            revision=max(revisions, default=0),
        )

    def _validate(self) -> None:
        """Check the properties, except ``ecsProperties``: moto would require other ones."""
        if self.ecs_properties is None:
            super()._validate()

    def describe(self) -> Json:
        """Return the definition as in DescribeJobDefinitions."""
        described = super().describe()
        return described if self.ecs_properties is None else {**described, "ecsProperties": self.ecs_properties}


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of one account and region in moto.

    :param account: the account.
    :param region: the region.
    """

    account: str
    region: str

    @property
    def _batch(self) -> BatchBackend:
        return batch_backends[self.account][self.region]

    @property
    def _logs(self) -> LogsBackend:
        return logs_backends[self.account][self.region]

    @property
    def _events(self) -> EventsBackend:
        return events_backends[self.account][self.region]

    def queue(self, name_or_arn: str) -> JobQueue | None:
        """Return a job queue, or None; use only its `arn`, `name` and `state`.

        :param name_or_arn: the queue.
        """
        return self._batch.get_job_queue(name_or_arn)

    def enabled_environment(self, queue: JobQueue) -> str | None:
        """Return the name of the first enabled compute environment of a queue, or None.

        :param queue: the queue.
        """
        environments: list[ComputeEnvironment] = queue.environments
        return next((each.name for each in environments if (each.state or "ENABLED") == "ENABLED"), None)

    def definition(self, identifier: str) -> Json | None:
        """Return an active job definition, or None.

        :param identifier: its ARN, ``name:revision``, or name, which means the newest active revision.
        """
        active: list[JobDefinition] = self._batch.describe_job_definitions(status="ACTIVE")
        identifier = identifier.removeprefix(f"arn:aws:batch:{self.region}:{self.account}:job-definition/")
        found = [each for each in active if identifier in (each.name, f"{each.name}:{each.revision}")]
        if not found:
            return None
        newest = max(found, key=lambda each: int(each.revision))
        return copy.deepcopy(newest.describe())

    def register_definition(self, request: Json) -> Json:
        """Store a revision of a job definition, and return the response of RegisterJobDefinition.

        :param request: the request of RegisterJobDefinition.
        :raises AwsError: moto rejects the request.
        """
        try:
            with definitions_lock:
                definition = RegisteredDefinition(self._batch, request)  # type: ignore[abstract]  # as all of moto's
                self._batch._job_definitions[definition.arn] = definition  # noqa: SLF001 -- moto offers no other way
        except MotoError as error:
            raise AwsError(error.TYPE or "ClientException", error.message) from None
        return {
            "jobDefinitionName": definition.name,
            "jobDefinitionArn": definition.arn,
            "revision": definition.revision,
        }

    def create_environment(self, request: Json) -> ComputeEnvironment:
        """Create a compute environment, with Batch's service-linked role unless the request names another.

        :param request: the request of CreateComputeEnvironment.
        :raises AwsError: moto rejects the request.
        """
        compute_resources: Any = request.get("computeResources")  # absent in an unmanaged environment
        try:
            return self._batch.create_compute_environment(
                compute_environment_name=request["computeEnvironmentName"],
                _type=request["type"],
                state=request.get("state", "ENABLED"),
                compute_resources=compute_resources,
                service_role=request.get("serviceRole") or self._batch_role(),
                tags=request.get("tags"),
            )
        except JsonRESTError as error:
            raise AwsError(error.error_type, error.message) from None

    def _batch_role(self) -> str:
        """ARN of Batch's service-linked role, which is created when it is first needed."""
        iam: IAMBackend = iam_backends[self.account]["aws"]
        roles = {role.name: role for role in iam.get_roles()}
        path = f"/aws-service-role/{BATCH}/"
        role = roles.get(BATCH_ROLE) or iam.create_role(
            BATCH_ROLE, "{}", path, None, "", [], "3600", linked_service=BATCH
        )
        return str(role.arn)

    def register_task(self, family: str, container: Json) -> None:
        """Register the ECS task definition that Batch creates for a job definition, unless there is an active one.

        :param family: the name of the job definition.
        :param container: the container as in DescribeJobs.
        """
        ecs: EC2ContainerServiceBackend = ecs_backends[self.account][self.region]
        if any(each.status == "ACTIVE" for each in ecs.task_definitions.get(family, {}).values()):
            return
        sizes = {each["type"]: each["value"] for each in container["resourceRequirements"]}
        definition = {"name": "default", "image": container["image"], "command": container["command"]}
        ecs.register_task_definition(
            family,
            [definition],
            network_mode="awsvpc",
            requires_compatibilities=["FARGATE"],
            cpu=str(int(float(sizes.get("VCPU", 1)) * 1024)),
            memory=sizes.get("MEMORY", "2048"),
        )

    def tag(self, arn: str, tags: dict[str, str]) -> None:
        """Store the tags of a job for ListTagsForResource.

        :param arn: the job.
        :param tags: its tags.
        """
        self._batch.tag_resource(arn, tags)

    def open_log(self, group: str, stream: str) -> None:
        """Create a log stream, and its group if it does not exist.

        :param group: the log group.
        :param stream: the log stream.
        """
        with _logs_lock:
            self._logs.ensure_log_group(group)
            self._logs.ensure_log_stream(group, stream)

    def write_log(self, group: str, stream: str, lines: Sequence[str]) -> None:
        """Append lines to a log stream. They are lost if it has been deleted, as on AWS.

        :param group: the log group.
        :param stream: the log stream.
        :param lines: the lines.
        """
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line} for line in lines]
        with _logs_lock, contextlib.suppress(ResourceNotFoundException):
            self._logs.put_log_events(group, stream, events)

    def read_log(self, group: str, stream: str) -> list[tuple[float, str]] | None:
        """Return all events of a log stream, as seconds since the epoch and message; None if it does not exist.

        :param group: the log group.
        :param stream: the log stream.
        """
        with _logs_lock:
            found = self._logs.groups.get(group)
            if found is None or stream not in found.streams:
                return None
            return [(each.timestamp / 1000, each.message) for each in found.streams[stream].events]

    def publish(self, source: str, detail_type: str, resources: Sequence[str], detail: Json) -> None:
        """Send an event to the rules of the account's default event bus.

        PutEvents is not used: moto's omits the account, ignores the state of rules, and takes milliseconds per event. A
        target that has been deleted is skipped.

        :param source: the source of the event.
        :param detail_type: its ``detail-type``.
        :param resources: its ``resources``.
        :param detail: its ``detail``.
        """
        event: EventMessageType = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": self.account,
            "time": int(time.time()),
            "region": self.region,
            "resources": list(resources),
            "detail": detail,
        }
        with events_lock:
            for rule in list(self._events.describe_event_bus("default").rules.values()):
                for target in rule.targets if rule.state == "ENABLED" else ():
                    alone = copy.copy(rule)
                    alone.targets = [target]
                    try:
                        alone.send_to_targets(event, transform_input="InputTransformer" in target)
                    except ServiceException as error:
                        log.warning("Rule %s could not deliver to %s: %s", rule.name, target["Arn"], error)
