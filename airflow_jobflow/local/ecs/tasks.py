"""The tasks of one region: the state machine of the local ECS.

Invariants:

- Every change of a task's status happens under one lock and by `_move`, which updates counts and events.
- Each container is a process. A task uses one slot, which its first container holds. The others run without a slot.
- Health checks and ``secrets`` are ignored: a container is healthy once it has started.
- The first reason to end a task is the one that is reported.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from airflow_jobflow.local.command import Command, Exit
from airflow_jobflow.local.containers import may_start, pull_error, start_error
from airflow_jobflow.local.ecs import model
from airflow_jobflow.local.ecs.backend import EcsBackend, Tagged
from airflow_jobflow.local.ecs.instances import Instances
from airflow_jobflow.local.ecs.task import Container, Ending, Start, Task, interruption, log_stream, now
from airflow_jobflow.local.job_environment import ON_EC2, ON_FARGATE, job_environment
from airflow_jobflow.local.processes import Process
from airflow_jobflow.local.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_jobflow.local.ecs.instances import Place
    from airflow_jobflow.local.ecs.model import Json
    from airflow_jobflow.local.service import Shared

EVENT: Final = "ECS Task State Change"


class Tasks:
    """All started tasks of a region.

    :param shared: what the services share.
    :param backend: the resources of ECS.
    """

    def __init__(self, shared: Shared, backend: EcsBackend) -> None:
        self._shared = shared
        self._resources = shared.resources
        self._backend = backend
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """The number of tasks by cluster and status."""
        self._hosts = itertools.count(10)
        self._events: Publisher[Json] = Publisher("ecs-events", self._publish)
        self.lock = threading.RLock()
        self.instances = Instances(backend, shared.settings)
        self.by_id: dict[str, Task] = {}

    def close(self) -> None:
        """Deliver the last events. Call it when all tasks have ended."""
        self._events.close()

    def start(
        self, start: Start, capacity_provider: str | None, tags: list[dict[str, str]], place: Place | None = None
    ) -> Task:
        """Add a task, queue its first container, and return the task. Call it under the lock.

        :param start: the request.
        :param capacity_provider: its capacity provider, if any.
        :param tags: its tags.
        :param place: where it runs. Default None: on Fargate.
        """
        task_id = uuid.uuid4().hex
        tagged = Tagged(start.arn("task", task_id), tags)
        overrides = start.request.get("overrides", {})
        number = next(self._hosts)
        task = Task(
            start=start,
            task_id=task_id,
            capacity_provider=capacity_provider,
            place=place,
            to_be_interrupted=model.is_spot(capacity_provider) and self._shared.faults.interrupts_spot(_texts(start)),
            tagged=tagged,
            containers=[
                Container(
                    definition=model.overridden(each, overrides),
                    arn=start.arn("container", task_id, str(uuid.uuid4())),
                    runtime_id=f"{task_id}-{index:010}",
                )
                for index, each in enumerate(start.definition["containerDefinitions"])
            ],
            address=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        )
        self._backend.keep_tags(start.cluster.name, tagged)
        self._counts[start.cluster.name][task.status] += 1
        self.by_id[task_id] = task
        self._publish_event(task)
        first = next((each for each in task.containers if not each.depends_on), task.containers[0])
        first.queued = True
        self._shared.processes.put(_Run(self, task, first))
        return task

    def end(self, task: Task, ending: Ending) -> bool:
        """End a task, and return True; return False if it is ending or has ended.

        :param task: the task.
        :param ending: how to end it.
        """
        with self.lock:
            if task.ending is not None:
                return False
            task.ending = ending
            task.stopping_at = now()
            if any(container.started for container in task.containers):
                self._move(task, model.DEACTIVATING)
                self._move(task, model.STOPPING)
            for container in task.containers:
                if container.process is not None:
                    container.process.stop(self._grace(ending))
                elif not container.begun:
                    container.status = model.STOPPED
            self._settle(task)
            return True

    def begin(self, task: Task, container: Container) -> Command | None:
        """Return the command of a container, as a slot is free; None if it must not run.

        :param task: the task.
        :param container: the container.
        """
        with self.lock:
            if task.ending is None and task.status == model.PROVISIONING:
                self._prepare(task)
            if task.ending is not None:
                return None
            container.begun = True
            self._advance(task)
            own = {each["name"]: each.get("value", "") for each in container.definition["environment"]}
            where = ON_FARGATE if task.start.on_fargate else ON_EC2
            variables = job_environment(task.start.region, execution_env=where, own=own)
            return Command(model.arguments(container.definition), variables)

    def _advance(self, task: Task) -> None:
        """Start the containers whose dependencies are met, and stop those whose dependencies can no longer be met."""
        others = {each.name: each.progress for each in task.containers}
        for each in task.containers:
            if each.queued or task.ending is not None or each.status == model.STOPPED:
                continue
            may = may_start(each.depends_on, others)
            if may:
                each.queued = True
                self._shared.processes.run_without_slot(_Run(self, task, each))
            elif may is False:
                each.status = model.STOPPED
                if each.essential:
                    self.end(task, Ending(model.FAILED_TO_START, model.REASONS[model.FAILED_TO_START]))
                self._advance(task)
                return

    def _prepare(self, task: Task) -> None:
        """Attach the network, pull the images and check the log groups; a failure ends the task."""
        task.connected_at = task.pull_started_at = now()
        self._move(task, model.PENDING)
        if failure := self._shared.faults.fails_start(*_names(task)):
            if failure.concerns_container:
                task.containers[0].reason = failure.reason
            self.end(task, Ending(failure.stop_code, failure.reason))
            return
        for container in task.containers:
            container.reason = self._start_error(container)
            if container.reason is not None:
                self.end(task, Ending(model.FAILED_TO_START, container.reason))
                return
        task.pull_stopped_at = now()
        self._move(task, model.ACTIVATING)

    def _start_error(self, container: Container) -> str | None:
        if error := pull_error(container.definition["image"]):
            return error
        options = container.log_options
        if options is not None and options.get("awslogs-create-group") != "true":
            group = options.get("awslogs-group", "")
            if not self._backend.has_log_group(group):
                return (
                    "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 "
                    "times: failed to create Cloudwatch log stream: ResourceNotFoundException: The specified log "
                    "group does not exist. : exit status 1"
                )
        return None

    def started(self, task: Task, container: Container, process: Process) -> None:
        """Record that the process of a container has started.

        :param task: the task.
        :param container: the container.
        :param process: the process.
        """
        with self.lock:
            container.process, container.started = process, True
            container.status = model.RUNNING
            container.log = log_stream(container.definition, task.task_id, container.runtime_id)
            if container.log is not None:
                self._resources.open_log(*container.log)
            if task.ending is not None:
                process.stop(self._grace(task.ending))
            self._advance(task)
            self._run_if_all_started(task)

    def _run_if_all_started(self, task: Task) -> None:
        waiting = any(container.status == model.PENDING for container in task.containers)
        if task.status != model.ACTIVATING or waiting:
            return
        task.started_at = now()
        self._move(task, model.RUNNING)
        if task.to_be_interrupted:
            self.end(task, interruption(task))

    def lines(self, container: Container, lines: Sequence[str]) -> None:
        """Write lines to the log of a container.

        :param container: the container.
        :param lines: the lines.
        """
        if container.log is not None:
            self._resources.write_log(*container.log, lines)

    def ended(self, task: Task, container: Container, how: Exit) -> None:
        """Record that the process of a container has ended, or could not be started.

        :param task: the task.
        :param container: the container.
        :param how: how it ended.
        """
        with self.lock:
            container.status = model.STOPPED
            container.process = None
            if container.started:
                task.execution_stopped_at = now()
            if task.ending is not None:
                container.exit_code = task.ending.exit_code_of(how.code)
                container.reason = task.ending.container_reason
            elif how.error is not None:
                container.reason = start_error(how.error)
            else:
                container.exit_code = how.code
            if container.essential:
                code = model.FAILED_TO_START if how.error is not None else model.CONTAINER_EXITED
                self.end(task, Ending(code, model.REASONS[code]))
            self._advance(task)
            self._run_if_all_started(task)
            self._settle(task)

    def _settle(self, task: Task) -> None:
        """Stop a task that is ending when all of its containers have stopped."""
        all_stopped = all(container.status == model.STOPPED for container in task.containers)
        if task.ending is not None and all_stopped and task.stopped_at is None:
            self._move(task, model.DEPROVISIONING)
            task.stopped_at = now()
            if task.place is not None:
                self.instances.release(task.place)
            self._move(task, model.STOPPED)

    def _grace(self, ending: Ending) -> float:
        """Return the seconds between SIGTERM and SIGKILL."""
        return 0 if ending.stop_code in model.WITHOUT_WARNING else self._shared.settings.stop_grace

    def _move(self, task: Task, status: str) -> None:
        """Change the status of a task, and update counts and events."""
        cluster = task.start.cluster.name
        counts = self._counts[cluster]
        counts[task.status] -= 1
        counts[status] += 1
        task.status = status
        task.version += 1
        self._publish_event(task)
        pending = sum(counts[each] for each in model.NOT_YET_RUNNING)
        self._backend.count(cluster, pending=pending, running=counts[model.RUNNING])

    def _publish_event(self, task: Task) -> None:
        self._events.put(task.event())

    def _publish(self, detail: Json) -> None:
        self._resources.publish("aws.ecs", EVENT, [detail["taskArn"]], detail)


class _Run:
    """A container that waits for a slot or runs."""

    def __init__(self, tasks: Tasks, task: Task, container: Container) -> None:
        self._tasks = tasks
        self._task = task
        self._container = container

    def begin(self) -> Command | None:
        return self._tasks.begin(self._task, self._container)

    def started(self, process: Process) -> None:
        self._tasks.started(self._task, self._container, process)

    def lines(self, lines: Sequence[str]) -> None:
        self._tasks.lines(self._container, lines)

    def ended(self, how: Exit) -> None:
        self._tasks.ended(self._task, self._container, how)


def _names(task: Task) -> tuple[str | None, ...]:
    """Return all names that faults may use for a task."""
    start = task.start
    request, definition = start.request, start.definition
    names = (task.arn, start.cluster.arn, definition["taskDefinitionArn"], definition["family"])
    return (*names, request.get("group"), request.get("startedBy"))


def _texts(start: Start) -> str:
    """Return the texts of a task for `Faults.interrupt_spot_with`: its family, group, ``startedBy`` and overrides."""
    request = start.request
    texts = [start.definition["family"], request.get("startedBy"), request.get("group"), request.get("overrides")]
    return str(texts)
