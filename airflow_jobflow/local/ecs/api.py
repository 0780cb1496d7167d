"""ECS's calls about tasks, for one account and region. Replaces moto's; what tasks are made of stays moto's.

What always holds: a handler takes the request as it came and its length, and returns the answer or raises what AWS
would; what it looks at it looks at under the lock of `ecs_tasks`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from airflow_jobflow.local.ecs import model
from airflow_jobflow.local.ecs.backend import Cluster, EcsBackend, definition_named
from airflow_jobflow.local.ecs.errors import TokenConflict, invalid, no_cluster, refused
from airflow_jobflow.local.ecs.task import Ending, Start, Task, now
from airflow_jobflow.local.ecs.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_jobflow.local.ecs.model import Json
    from airflow_jobflow.local.service import Shared


class Ecs:
    """The tasks of one account and region, as ECS's API shows them."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._resources = shared.resources
        self._backend = EcsBackend(shared.resources.account, shared.resources.region)
        self._tasks = Tasks(shared, self._backend)
        self._by_token: dict[tuple[str, str], tuple[Json, list[Task]]] = {}
        """By cluster and clientToken: the request, and what it started."""
        self.actions: dict[str, Callable[[Json, int], Json]] = {
            "RunTask": self.run_task,
            "DescribeTasks": self.describe_tasks,
            "ListTasks": self.list_tasks,
            "StopTask": self.stop_task,
            "StartTask": self.start_task,
        }
        """Handlers by action."""
        self.checks: dict[str, Callable[[Json], None]] = {"RegisterTaskDefinition": _check_definition}
        """Checks of what moto answers, by action."""

    def close(self) -> None:
        """Deliver the last events. Call it when the processes have ended."""
        self._tasks.close()

    def reconsider(self) -> None:
        """Nothing moto answers lets a task run that waits: tasks wait for slots only."""

    def interrupt(
        self,
        task: str,
        stop_code: str = model.SPOT,
        stopped_reason: str | None = None,
        container_reason: str | None = None,
        exit_code: int | None = None,
    ) -> bool:
        """End a task in AWS's words, as a Spot reclaim or the kernel would; False if there is none that goes on.

        :raises ValueError: there is no such stop code.
        """
        if stop_code not in model.REASONS:
            raise ValueError(f"No such stop code: {stop_code}. There are: {', '.join(model.REASONS)}")
        found = self._tasks.by_id.get(model.name_of(task))
        ending = Ending(stop_code, stopped_reason or model.REASONS[stop_code], container_reason, exit_code)
        return found is not None and self._tasks.end(found, ending)

    def run_task(self, request: Json, _length: int) -> Json:
        """RunTask."""
        if why := model.wrong_with_run(request):
            raise invalid(why)
        cluster = self._cluster(request)
        token = request.pop("clientToken", None)
        with self._tasks.lock:
            if token is not None and (cluster.name, token) in self._by_token:
                return _started(self._again(request, cluster, token))
            definition = self._definition(request)
            providers = _capacity_providers(request, cluster)
            if not model.fits_fargate(definition):
                raise invalid("Task definition does not support launch_type FARGATE.")
            if why := model.wrong_with_definition(definition, request):
                raise refused(why)
            if why := model.wrong_with_request(definition, request):
                raise invalid(why)
            if reason := self._shared.faults.refuses_tasks():
                return {"tasks": [], "failures": [{"reason": reason} for _ in providers]}
            start = Start(request, definition, cluster, self._resources.account, self._resources.region)
            tasks = [self._tasks.start(start, provider, _tags(start)) for provider in providers]
            if token is not None:
                self._by_token[cluster.name, token] = (request, tasks)
            for task in tasks:
                self._note(task, token)
            return _started(tasks)

    def describe_tasks(self, request: Json, _length: int) -> Json:
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
                task = self._remembered(task_id, cluster)
                if task is not None and self._visible(task):
                    answer["tasks"].append(task.detail(tags=tags))
                else:
                    answer["failures"].append({"arn": self._arn(task_id, cluster), "reason": model.MISSING})
        return answer

    def list_tasks(self, request: Json, _length: int) -> Json:
        """ListTasks: in no particular order, as on AWS, but in the same one on every page."""
        cluster = self._cluster(request)
        if why := model.wrong_with_list(request):
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

    def stop_task(self, request: Json, _length: int) -> Json:
        """StopTask: an ended task stays as it is."""
        cluster = self._cluster(request)
        with self._tasks.lock:
            task = self._remembered(self._id(request["task"], cluster), cluster)
            if task is None:
                raise invalid("The referenced task was not found.")
            reason = request.get("reason") or model.REASONS[model.USER]
            if self._tasks.end(task, Ending(model.USER, reason)):
                task.tagged.tags.clear()
            return {"task": task.detail()}

    def start_task(self, _request: Json, _length: int) -> Json:
        """StartTask, which places tasks on container instances of one's own."""
        raise invalid(model.FARGATE_ONLY)

    def _cluster(self, request: Json) -> Cluster:
        if why := model.is_elsewhere(request.get("cluster") or "", self._resources.account, self._resources.region):
            raise invalid(why)
        cluster = self._backend.cluster(model.name_of(request.get("cluster") or "default"))
        if cluster is None:
            raise no_cluster()
        return cluster

    def _definition(self, request: Json) -> Json:
        if why := model.is_elsewhere(request["taskDefinition"], self._resources.account, self._resources.region):
            raise invalid(why)
        try:
            definition = definition_named(self._backend, request["taskDefinition"])
        except ValueError as error:
            raise invalid(str(error)) from None
        if definition is None:
            raise refused("TaskDefinition not found.")
        if definition["status"] != "ACTIVE":
            raise refused("TaskDefinition is inactive")
        return definition

    def _again(self, request: Json, cluster: Cluster, token: str) -> list[Task]:
        """What a clientToken started before, if it was for the same."""
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
        self._shared.ledger.note("ecs", started)

    def _id(self, identifier: str, cluster: Cluster) -> str:
        account, region = self._resources.account, self._resources.region
        if why := model.wrong_with_task(identifier, account, region, cluster.name):
            raise invalid(why)
        return model.name_of(identifier)

    def _arn(self, task_id: str, cluster: Cluster) -> str:
        return f"arn:aws:ecs:{self._resources.region}:{self._resources.account}:task/{cluster.name}/{task_id}"

    def _remembered(self, task_id: str, cluster: Cluster) -> Task | None:
        """A task of a cluster that has not been stopped for so long that ECS forgot it."""
        task = self._tasks.by_id.get(task_id)
        if task is None or task.start.cluster.name != cluster.name:
            return None
        settings = self._shared.settings
        kept = settings.stopped_visible * settings.time_scale
        return None if task.stopped_at is not None and now() - task.stopped_at >= kept else task

    def _visible(self, task: Task) -> bool:
        """Return whether no fault hides a task."""
        return not self._shared.faults.hides(now() - task.created_at, task.arn)

    def _listed(self, task: Task, request: Json, cluster: Cluster) -> bool:
        if self._remembered(task.task_id, cluster) is None or not self._visible(task):
            return False
        asked = {
            "startedBy": task.start.request.get("startedBy"),
            "family": task.start.definition["family"],
            "launchType": "FARGATE",
            "serviceName": None,
            "containerInstance": None,
            "daemonName": None,
        }
        wanted = request.get("desiredStatus", model.RUNNING)
        return task.desired_status == wanted and all(
            request[name] == value for name, value in asked.items() if request.get(name)
        )


def _started(tasks: list[Task]) -> Json:
    return {"tasks": [task.detail(tags=True) for task in tasks], "failures": []}


def _capacity_providers(request: Json, cluster: Cluster) -> list[str | None]:
    """The capacity provider of each task to be started; none if the launch type says where."""
    count = request.get("count", 1)
    if request.get("launchType") == "FARGATE":
        return [None] * count
    strategy = request.get("capacityProviderStrategy") or ([] if "launchType" in request else cluster.default_strategy)
    if not strategy:  # that is launch type EC2, or another that needs machines of one's own
        raise invalid(model.FARGATE_ONLY)
    if why := model.wrong_with_strategy(strategy, cluster.capacity_providers):
        raise invalid(why)
    return list(model.placements(strategy, count))


def _check_definition(request: Json) -> None:
    """Reject a task definition whose containers are incomplete, or that has a size that Fargate does not have."""
    if why := model.wrong_with_containers(request):
        raise refused(why)
    if "FARGATE" in request.get("requiresCompatibilities", ()) and (why := model.wrong_with_size(request, {})):
        raise refused(why)


def _tags(start: Start) -> list[dict[str, str]]:
    """The tags of a new task: its own, those of its definition, and ECS's, where the request wants them."""
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
