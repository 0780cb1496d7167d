"""An ECS task of the local AWS, and its representation in DescribeTasks and events.

Invariants: a `Task` is changed only by `tasks.Tasks`, under its lock. Representations are built for each response, so
that they may be changed.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from airflow_jobflow.local.containers import Progress
from airflow_jobflow.local.ecs import model
from airflow_jobflow.local.ecs.backend import Cluster, Tagged
from airflow_jobflow.local.ecs.placement import needed

if TYPE_CHECKING:
    from airflow_jobflow.local.ecs.instances import Place
    from airflow_jobflow.local.ecs.model import Json
    from airflow_jobflow.local.processes import Process

DEFAULT_STORAGE: Final = 20
"""The default ephemeral storage of a Fargate task in GiB."""


def now() -> float:
    """Return the time in seconds since the epoch, to the millisecond, as ECS does."""
    return round(time.time(), 3)


@dataclass(frozen=True, slots=True)
class Start:
    """A RunTask request, with the cluster and the definition at that time."""

    request: Json
    definition: Json
    cluster: Cluster
    account: str
    region: str
    launch_type: str

    @property
    def on_fargate(self) -> bool:
        """Whether it runs on Fargate."""
        return self.launch_type == model.FARGATE

    @property
    def group(self) -> str:
        """The task group."""
        return self.request.get("group") or f"family:{self.definition['family']}"

    @property
    def subnet(self) -> str | None:
        """The subnet of the network interface, the first one in the request; None if there is no interface."""
        network = self.request.get("networkConfiguration", {}).get("awsvpcConfiguration")
        return network["subnets"][0] if network else None

    def arn(self, kind: str, *names: str) -> str:
        """Return an ARN for the cluster.

        :param kind: ``task`` or ``container``.
        :param names: the parts after the name of the cluster.
        """
        return f"arn:aws:ecs:{self.region}:{self.account}:{'/'.join((kind, self.cluster.name, *names))}"

    def size(self, name: str) -> str:
        """Return the size of the task.

        :param name: ``cpu`` or ``memory``.
        """
        size = self.request.get("overrides", {}).get(name) or self.definition.get(name)
        return size or str(getattr(needed(self.definition, self.request.get("overrides", {})), name))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task is ended, and the reasons to show."""

    stop_code: str
    stopped_reason: str
    container_reason: str | None = None
    exit_code: int | None = None

    def exit_code_of(self, code: int | None) -> int | None:
        """Return the exit code to show for a container.

        :param code: the exit code of its process.
        """
        if self.exit_code is not None or self.stop_code in model.WITHOUT_WARNING:
            return self.exit_code
        return code


def log_options(container: Json) -> dict[str, str] | None:
    """Return the options of a container's awslogs driver, or None.

    :param container: the container definition.
    """
    configuration = container.get("logConfiguration") or {}
    if configuration.get("logDriver") != "awslogs":
        return None
    options: dict[str, str] = configuration.get("options") or {}
    return options


def log_stream(container: Json, task_id: str, runtime_id: str) -> tuple[str, str] | None:
    """Return the log group and stream of a container, or None.

    :param container: the container definition.
    :param task_id: the id of the task.
    :param runtime_id: the runtime id of the container.
    """
    options = log_options(container)
    if options is None:
        return None
    prefix = options.get("awslogs-stream-prefix")
    stream = f"{prefix}/{container['name']}/{task_id}" if prefix else runtime_id
    return options.get("awslogs-group", ""), stream


@dataclass(slots=True, eq=False)
class Container:
    """A container of a task."""

    definition: Json
    """The container definition with the overrides of the task."""
    arn: str
    runtime_id: str
    status: str = model.PENDING
    queued: bool = False
    """Whether it has been queued: its dependencies are met."""
    begun: bool = False
    """Whether its process is starting, running or has ended."""
    started: bool = False
    process: Process | None = None
    log: tuple[str, str] | None = None
    exit_code: int | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        """Its name in the task definition."""
        name: str = self.definition["name"]
        return name

    @property
    def essential(self) -> bool:
        """Whether its end is the end of the task."""
        return bool(self.definition.get("essential", True))

    @property
    def depends_on(self) -> list[dict[str, str]]:
        """Its ``dependsOn``."""
        return self.definition.get("dependsOn") or []

    @property
    def progress(self) -> Progress:
        """Its progress, for containers that depend on it."""
        return Progress(self.started, self.status == model.STOPPED, self.exit_code)

    @property
    def log_options(self) -> dict[str, str] | None:
        """The options of its awslogs driver, or None."""
        return log_options(self.definition)


@dataclass(slots=True, eq=False)
class Task:
    """A task."""

    start: Start
    task_id: str
    capacity_provider: str | None
    """None if it was started with a launch type."""
    place: Place | None
    """Where it runs; None on Fargate."""
    to_be_interrupted: bool
    """Whether a fault interrupts it as soon as it runs."""
    tagged: Tagged
    containers: list[Container]
    address: str
    created_at: float = field(default_factory=now)
    status: str = model.PROVISIONING
    version: int = 1
    ending: Ending | None = None
    connected_at: float | None = None
    pull_started_at: float | None = None
    pull_stopped_at: float | None = None
    started_at: float | None = None
    stopping_at: float | None = None
    execution_stopped_at: float | None = None
    stopped_at: float | None = None
    attachment: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def arn(self) -> str:
        """Its ARN."""
        return self.tagged.task_arn

    def runs_on(self, instance: str) -> bool:
        """Return whether it runs on a container instance.

        :param instance: its id or ARN.
        """
        return self.place is not None and model.name_of(self.place.arn) == model.name_of(instance)

    @property
    def desired_status(self) -> str:
        """Its ``desiredStatus``: STOPPED as soon as it is being ended."""
        return model.RUNNING if self.ending is None else model.STOPPED

    def detail(self, *, tags: bool = False) -> Json:
        """Return the task as in DescribeTasks.

        :param tags: whether to include its tags. Default False.
        """
        start, request, ending = self.start, self.start.request, self.ending
        shown: Json = {
            "attachments": [self._interface()] if start.subnet else [],
            "attributes": [{"name": "ecs.cpu-architecture", "value": self._architecture()}],
            "availabilityZone": f"{start.region}a",
            "capacityProviderName": self.capacity_provider,
            "clusterArn": start.cluster.arn,
            "connectivity": None if self.connected_at is None else "CONNECTED",
            "connectivityAt": self.connected_at,
            "containerInstanceArn": self.place and self.place.arn,
            "containers": [self._container(each) for each in self.containers],
            "cpu": start.size("cpu"),
            "createdAt": self.created_at,
            "desiredStatus": self.desired_status,
            "enableExecuteCommand": request.get("enableExecuteCommand", False),
            "executionStoppedAt": self.execution_stopped_at,
            "group": start.group,
            "healthStatus": "UNKNOWN",
            "inferenceAccelerators": [],
            "lastStatus": self.status,
            "launchType": start.launch_type,
            "memory": start.size("memory"),
            "overrides": model.shown_overrides(start.definition, request.get("overrides", {})),
            "pullStartedAt": self.pull_started_at,
            "pullStoppedAt": self.pull_stopped_at,
            "startedAt": self.started_at,
            "startedBy": request.get("startedBy"),
            "stopCode": ending and ending.stop_code,
            "stoppedAt": self.stopped_at,
            "stoppedReason": ending and ending.stopped_reason,
            "stoppingAt": self.stopping_at,
            "tags": [dict(tag) for tag in self.tagged.tags] if tags else [],
            "taskArn": self.arn,
            "taskDefinitionArn": start.definition["taskDefinitionArn"],
            "version": self.version,
        }
        if start.on_fargate:
            platform = {"platformFamily": "Linux", "platformVersion": self._platform_version()}
            shown |= {"ephemeralStorage": self._storage(), **platform}
        return {name: value for name, value in shown.items() if value is not None}

    def event(self) -> Json:
        """Return the task as in events: like DescribeTasks, with times in ISO 8601, ``updatedAt`` and ``eni``."""
        detail = self.detail()
        attachments = [{**each, "type": "eni"} for each in detail["attachments"]]
        shown = {**detail, "attachments": attachments, "updatedAt": now()}
        return {name: _iso(value) if name.endswith("At") else value for name, value in shown.items()}

    def _storage(self) -> Json:
        overrides = self.start.request.get("overrides", {})
        asked = overrides.get("ephemeralStorage") or self.start.definition.get("ephemeralStorage")
        return dict(asked or {"sizeInGiB": DEFAULT_STORAGE})

    def _architecture(self) -> str:
        wanted = self.start.definition.get("runtimePlatform", {}).get("cpuArchitecture", "X86_64")
        return str(wanted).lower()

    def _platform_version(self) -> str:
        wanted: str = self.start.request.get("platformVersion", "LATEST")
        return model.PLATFORM_VERSION if wanted == "LATEST" else wanted

    def _interface(self) -> Json:
        attached = {model.PROVISIONING: "PRECREATED", model.STOPPED: "DELETED"}.get(self.status, "ATTACHED")
        details = {"subnetId": self.start.subnet or ""}
        if attached != "PRECREATED":
            details |= {"networkInterfaceId": f"eni-{self.task_id[:17]}", "privateIPv4Address": self.address}
        return {
            "id": self.attachment,
            "type": "ElasticNetworkInterface",
            "status": attached,
            "details": [{"name": name, "value": value} for name, value in details.items()],
        }

    def _container(self, container: Container) -> Json:
        definition = container.definition
        shown: Json = {
            "containerArn": container.arn,
            "taskArn": self.arn,
            "name": container.name,
            "image": definition["image"],
            "runtimeId": container.runtime_id if container.started else None,
            "lastStatus": container.status,
            "exitCode": container.exit_code,
            "reason": container.reason,
            "networkBindings": [],
            "networkInterfaces": [],
            "healthStatus": "UNKNOWN",
            "cpu": str(definition.get("cpu", 0)),
            "memory": str(definition["memory"]) if "memory" in definition else None,
        }
        if self.status != model.PROVISIONING and self.start.subnet:
            shown["networkInterfaces"] = [{"attachmentId": self.attachment, "privateIpv4Address": self.address}]
        return {name: value for name, value in shown.items() if value is not None}


def interruption(task: Task) -> Ending:
    """Return how a task ends whose Spot capacity is taken back: on EC2, its instance ends.

    :param task: the task.
    """
    if task.place is None:
        return Ending(model.SPOT, model.REASONS[model.SPOT])
    return Ending("TerminationNotice", f"Host EC2 (instance {task.place.instance_id}) terminated.")


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
