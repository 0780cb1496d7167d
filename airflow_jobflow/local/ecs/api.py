"""ECS's calls for tasks, in one account and region. They replace those of moto; all other calls remain moto's.

Invariants: a handler receives the validated request and its length. It returns the response or raises the error of AWS.
Tasks are accessed under the lock of `tasks.Tasks`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from airflow_jobflow.local.ecs import model, validation
from airflow_jobflow.local.ecs.backend import Cluster, EcsBackend
from airflow_jobflow.local.ecs.definitions import Definitions
from airflow_jobflow.local.ecs.errors import TokenConflict, client_error, invalid, no_cluster
from airflow_jobflow.local.ecs.task import Ending, Start, Task, interruption, now
from airflow_jobflow.local.ecs.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_jobflow.local.ecs.model import Json
    from airflow_jobflow.local.service import Shared


class Ecs:
    """The API of ECS for the tasks of one account and region.

    :param shared: what the services share.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._resources = shared.resources
        self._backend = EcsBackend(shared.resources.account, shared.resources.region)
        self._definitions = Definitions(self._backend)
        self._tasks = Tasks(shared, self._backend)
        self._by_token: dict[tuple[str, str], tuple[Json, list[Task]]] = {}
        """The request and the tasks that it started, by cluster and clientToken."""
        self.actions: dict[str, Callable[[Json, int], Json]] = {
            "RunTask": self._run_task,
            "DescribeTasks": self._describe_tasks,
            "ListTasks": self._list_tasks,
            "StopTask": self._stop_task,
            "StartTask": self._start_task,
            **self._definitions.actions,
        }
        """Handlers by action."""
        self.checks: dict[str, Callable[[Json], None]] = {
            "RegisterContainerInstance": self._keep_instances,
            "ListContainerInstances": self._add_instances,
            "DescribeContainerInstances": self._add_instances,
        }
        """Checks by action, for calls that moto handles."""

    def close(self) -> None:
        """Deliver the last events. Call it when the processes have ended."""
        self._tasks.close()

    def reconsider(self) -> None:
        """Do nothing: tasks wait only for slots."""

    def interrupt(
        self,
        task: str,
        stop_code: str | None = None,
        stopped_reason: str | None = None,
        container_reason: str | None = None,
        exit_code: int | None = None,
    ) -> bool:
        """End a task as AWS would, and return whether it was running.

        :param task: its id or ARN.
        :param stop_code: the stop code. Default: that of a Spot interruption, or of the end of the task's instance.
        :param stopped_reason: the reason. Default: the usual one for the stop code.
        :param container_reason: the reason of the containers. Default: none.
        :param exit_code: the exit code of the containers. Default: the real one.
        :raises ValueError: the stop code is unknown.
        """
        if stop_code not in (None, *model.REASONS):
            raise ValueError(f"Unknown stop code: {stop_code}. Known stop codes: {', '.join(model.REASONS)}")
        found = self._tasks.by_id.get(model.name_of(task))
        if found is None:
            return False
        usual = Ending(stop_code, model.REASONS[stop_code]) if stop_code else interruption(found)
        reason = stopped_reason or usual.stopped_reason
        return self._tasks.end(found, Ending(usual.stop_code, reason, container_reason, exit_code))

    def _run_task(self, request: Json, _length: int) -> Json:
        """RunTask."""
        if why := validation.run_error(request):
            raise invalid(why)
        cluster = self._cluster(request)
        token = request.pop("clientToken", None)
        with self._tasks.lock:
            if token is not None and (cluster.name, token) in self._by_token:
                return _started(self._again(request, cluster, token))
            definition = self._definitions.active(request["taskDefinition"])
            launch_type, providers = _capacity(request, cluster)
            start = Start(request, definition, cluster, self._resources.account, self._resources.region, launch_type)
            _check(start)
            if reason := self._shared.faults.rejects_tasks():
                return {"tasks": [], "failures": [{"reason": reason} for _ in providers]}
            tasks, failures = [], []
            for provider in providers:
                place, failed = (None, []) if start.on_fargate else self._tasks.instances.place(start, provider)
                failures += failed
                if not failed:
                    tasks.append(self._tasks.start(start, provider, _tags(start), place))
            if token is not None and tasks:
                self._by_token[cluster.name, token] = (request, tasks)
            for task in tasks:
                self._note(task, token)
            return _started(tasks, failures)

    def _describe_tasks(self, request: Json, _length: int) -> Json:
        """DescribeTasks."""
        cluster = self._cluster(request)
        identifiers = request.get("tasks") or []
        if not identifiers:
            raise invalid("Tasks cannot be empty.")
        if len(identifiers) > model.MAX_DESCRIBED:
            raise invalid(f"Tasks cannot have more than {model.MAX_DESCRIBED} entries.")
        tags = "TAGS" in request.get("include", ())
        answer: Json = {"tasks": [], "failures": []}
        with self._tasks.lock:
            for task_id in dict.fromkeys(self._id(identifier, cluster) for identifier in identifiers):
                task = self._known_task(task_id, cluster)
                if task is not None and self._visible(task):
                    answer["tasks"].append(task.detail(tags=tags))
                else:
                    answer["failures"].append({"arn": self._arn(task_id, cluster), "reason": model.MISSING})
        return answer

    def _list_tasks(self, request: Json, _length: int) -> Json:
        """ListTasks, in the same order on every page."""
        cluster = self._cluster(request)
        if why := validation.list_error(request):
            raise invalid(why)
        after = _position(request.get("nextToken"))
        size = request.get("maxResults", model.MAX_LISTED)
        with self._tasks.lock:
            rest = sorted(
                task_id
                for task_id, task in self._tasks.by_id.items()
                if task_id > after and self._listed(task, request, cluster)
            )
        page = rest[:size]
        answer: Json = {"taskArns": [self._arn(task_id, cluster) for task_id in page]}
        if len(page) < len(rest):
            answer["nextToken"] = base64.urlsafe_b64encode(page[-1].encode()).decode()
        return answer

    def _stop_task(self, request: Json, _length: int) -> Json:
        """StopTask: an ended task is not changed."""
        cluster = self._cluster(request)
        with self._tasks.lock:
            task = self._known_task(self._id(request["task"], cluster), cluster)
            if task is None:
                raise invalid("The referenced task was not found.")
            reason = request.get("reason") or model.REASONS[model.USER]
            if self._tasks.end(task, Ending(model.USER, reason)):
                task.tagged.tags.clear()
            return {"task": task.detail()}

    def _start_task(self, request: Json, _length: int) -> Json:
        """StartTask: one task on each of the given container instances."""
        cluster = self._cluster(request)
        if not 1 <= len(request["containerInstances"]) <= model.MAX_STARTED:
            raise invalid(f"containerInstances must have 1 to {model.MAX_STARTED} entries.")
        tasks, failures = [], []
        with self._tasks.lock:
            definition = self._definitions.active(request["taskDefinition"])
            start = Start(request, definition, cluster, self._resources.account, self._resources.region, model.EC2)
            _check(start)
            for instance in request["containerInstances"]:
                place, failed = self._tasks.instances.place_on(start, instance)
                failures += failed
                if place:
                    tasks.append(self._tasks.start(start, None, _tags(start), place))
            for task in tasks:
                self._note(task, None)
            return _started(tasks, failures)

    def _keep_instances(self, request: Json) -> None:
        """Simulate no instances in a cluster for which moto registers one."""
        cluster = self._cluster(request)
        with self._tasks.lock:
            self._tasks.instances.keep(cluster.name)

    def _add_instances(self, request: Json) -> None:
        """Simulate the instances of a cluster that has none yet, before moto answers a call about them."""
        cluster = self._cluster(request)
        with self._tasks.lock:
            self._tasks.instances.of(cluster.name, model.EC2, None)

    def _cluster(self, request: Json) -> Cluster:
        if why := validation.foreign_arn_error(
            request.get("cluster") or "", self._resources.account, self._resources.region
        ):
            raise invalid(why)
        cluster = self._backend.cluster(model.name_of(request.get("cluster") or "default"))
        if cluster is None:
            raise no_cluster()
        return cluster

    def _again(self, request: Json, cluster: Cluster, token: str) -> list[Task]:
        """Return the tasks that were started with a clientToken, if the request is the same."""
        first, tasks = self._by_token[cluster.name, token]
        if first != request:
            raise TokenConflict([task.arn for task in tasks])
        return tasks

    def _note(self, task: Task, token: str | None) -> None:
        request = task.start.request
        started = {
            "taskArn": task.arn,
            "clusterArn": task.start.cluster.arn,
            "family": task.start.definition["family"],
            "startedBy": request.get("startedBy"),
            "clientToken": token,
            "capacityProviderName": task.capacity_provider,
            "overrides": request.get("overrides", {}),
        }
        self._shared.ledger.record("ecs", started)

    def _id(self, identifier: str, cluster: Cluster) -> str:
        account, region = self._resources.account, self._resources.region
        if why := validation.task_error(identifier, account, region, cluster.name):
            raise invalid(why)
        return model.name_of(identifier)

    def _arn(self, task_id: str, cluster: Cluster) -> str:
        return f"arn:aws:ecs:{self._resources.region}:{self._resources.account}:task/{cluster.name}/{task_id}"

    def _known_task(self, task_id: str, cluster: Cluster) -> Task | None:
        """Return a task of a cluster, unless it stopped so long ago that ECS no longer shows it."""
        task = self._tasks.by_id.get(task_id)
        if task is None or task.start.cluster.name != cluster.name:
            return None
        settings = self._shared.settings
        kept = settings.stopped_visible * settings.time_scale
        return None if task.stopped_at is not None and now() - task.stopped_at >= kept else task

    def _visible(self, task: Task) -> bool:
        """Return whether a task is not hidden by a fault."""
        return not self._shared.faults.hides(now() - task.created_at, task.arn)

    def _listed(self, task: Task, request: Json, cluster: Cluster) -> bool:
        if self._known_task(task.task_id, cluster) is None or not self._visible(task):
            return False
        asked = {
            "startedBy": task.start.request.get("startedBy"),
            "family": task.start.definition["family"],
            "launchType": task.start.launch_type,
            "serviceName": None,
            "containerInstance": None,
            "daemonName": None,
        }
        if instance := request.get("containerInstance"):
            asked["containerInstance"] = instance if task.runs_on(instance) else None
        wanted = request.get("desiredStatus", model.RUNNING)
        return task.desired_status == wanted and all(
            request[name] == value for name, value in asked.items() if request.get(name)
        )


def _started(tasks: list[Task], failures: list[Json] | None = None) -> Json:
    return {"tasks": [task.detail(tags=True) for task in tasks], "failures": failures or []}


def _capacity(request: Json, cluster: Cluster) -> tuple[str, list[str | None]]:
    """Return the launch type, and the capacity provider of each task; None for a task without one."""
    count = request.get("count", 1)
    strategy = request.get("capacityProviderStrategy") or ([] if "launchType" in request else cluster.default_strategy)
    if not strategy:
        return request.get("launchType", model.EC2), [None] * count
    if why := validation.strategy_error(strategy, cluster.capacity_providers):
        raise invalid(why)
    providers = model.placements(strategy, count)
    return model.FARGATE if providers[0] in model.PROVIDERS else model.EC2, list(providers)


def _check(start: Start) -> None:
    """Reject a request that does not match its task definition or its launch type."""
    definition, request, launch_type = start.definition, start.request, start.launch_type
    if not model.supports(definition, launch_type):
        raise invalid(f"Task definition does not support launch_type {launch_type}.")
    rule = validation.definition_error if start.on_fargate else validation.instance_size_error
    if why := rule(definition, request):
        raise client_error(why)
    why = validation.launch_type_error(request, launch_type) or validation.request_error(
        definition, request, launch_type
    )
    if why:
        raise invalid(why)


def _tags(start: Start) -> list[dict[str, str]]:
    """Return the tags of a new task: its own and, if requested, those of its definition and of ECS."""
    request = start.request
    tags = {tag["key"]: tag.get("value", "") for tag in request.get("tags", ())}
    if request.get("propagateTags") == "TASK_DEFINITION":
        tags = {tag["key"]: tag.get("value", "") for tag in start.definition["tags"]} | tags
    if request.get("enableECSManagedTags"):
        tags["aws:ecs:clusterName"] = start.cluster.name
    return [{"key": key, "value": value} for key, value in tags.items()]


def _position(token: str | None) -> str:
    if token is None:
        return ""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise invalid("Invalid token.") from None
