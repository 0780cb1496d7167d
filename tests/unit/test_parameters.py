"""Every parameter of every operator and sensor is honoured, or rejected by name: none is accepted and ignored.

A row of a table says what to give, where its effect is seen, and what is seen there. The effect must not be seen
without it, and must not be the attribute in which the task keeps what it was given: a parameter that is kept and never
read has none. The tables must have a row for each parameter that a class takes, and for no other. What only reaches the
trigger must be read there.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from airflow_jobflow import trigger_eligibility
from airflow_jobflow.exceptions import InvalidParameter, JobflowError
from airflow_jobflow.jobs.attempt import Attempt
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot
from airflow_jobflow.jobs.packing import pack, unpack
from airflow_jobflow.operators import batch_spec, ecs_spec
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.sensors.ecs import FargateTaskSensor
from airflow_jobflow.sensors.glue import GlueCrawlSensor, GlueJobRunSensor
from airflow_jobflow.triggers.job import JobTrigger
from airflow_jobflow.triggers.map import MapTrigger
from airflow_jobflow.triggers.start import StartTrigger
from tests.unit.scripted_aws import ARN, ScriptedAws, context

FAR = datetime(2100, 1, 1, tzinfo=UTC)

BASE: dict[type, dict[str, Any]] = {
    BatchJobOperator: {"job_name": "n", "job_queue": "q", "job_definition": "d"},
    BatchMapOperator: {"job_name": "n", "job_queue": "q", "job_definition": "d", "items": [{}]},
    FargateTaskOperator: {"cluster": "c", "task_definition": "d", "subnets": ["s"]},
    FargateMapOperator: {"cluster": "c", "task_definition": "d", "subnets": ["s"], "items": [{}]},
    GlueCrawlOperator: {"crawler_name": "c"},
    GlueJobRunOperator: {"job_name": "j"},
    BatchJobSensor: {"job_id": "a"},
    FargateTaskSensor: {"cluster": "c", "task_arn": ARN},
    GlueCrawlSensor: {"crawler_name": "c", "since": "2026-01-02"},
    GlueJobRunSensor: {"job_name": "j", "run_id": "jr_1"},
}
"""Every operator and sensor, with what it cannot do without."""

OPERATORS = (BatchJobOperator, FargateTaskOperator, GlueCrawlOperator, GlueJobRunOperator)
MAPS = (BatchMapOperator, FargateMapOperator)
TABLES = {BatchMapOperator: batch_spec.PARAMETERS, FargateMapOperator: ecs_spec.PARAMETERS}
SENSORS = (BatchJobSensor, FargateTaskSensor, GlueCrawlSensor, GlueJobRunSensor)


@dataclass
class Seen:
    """What a task has done.

    :param task: the task.
    :param aws: what it has called.
    :param trigger: the arguments of the trigger that it deferred to.
    :param result: what it returned, or raised.
    """

    task: Any
    aws: ScriptedAws
    trigger: dict[str, Any] = field(default_factory=dict)
    result: Any = None

    @property
    def request(self) -> Any:
        """The request that starts the job; of a map, that of its first item; empty if none was made."""
        if "requests" in self.trigger:
            return json.loads(unpack(self.trigger["requests"])[0])
        return self._last("submit_job", "run_task", "start_job_run")

    @property
    def registered(self) -> Any:
        """The request that registers the job's definition; empty if none was made."""
        return self._last("register_job_definition", "register_task_definition")

    def _last(self, *operations: str) -> Any:
        sent = [each for name in operations for each in self.aws.sent(name)]
        return sent[-1] if sent else {}


See = Callable[[Seen], Any]
"""Returns what is seen of the effect of a parameter."""


@dataclass(frozen=True)
class Honoured:
    """A parameter has an effect.

    :param value: what is given.
    :param see: where its effect is seen.
    :param expected: what is seen there.
    :param beside: what else is given, with and without it.
    :param job: the state of the job in all describe calls. Default: it runs.
    :param busy: whether the crawler makes a crawl already.
    :param tries: how many tries the task makes.
    :param late: whether the effect comes after the deferral: ``see`` has the task go on. See ``LATE``.
    """

    value: Any
    see: See
    expected: Any
    beside: Mapping[str, Any] = field(default_factory=dict)
    job: JobState = JobState.RUNNING
    busy: bool = False
    tries: int = 1
    late: bool = False


LATE = {"number_logs_exception", "on_spot_interruption", "raise_on_failure"}
"""Parameters whose effect comes after the deferral. One more is added only with a ``see`` that has the task go on."""


@dataclass(frozen=True)
class Rejected:
    """A parameter has no effect, and is rejected by name.

    :param value: what is given.
    :param why: words of the error.
    """

    value: Any
    why: str


@dataclass(frozen=True)
class Internal:
    """A parameter is not for DAGs.

    :param why: who gives it.
    """

    why: str


def argument(name: str) -> See:
    """An argument of the trigger."""
    return lambda seen: seen.trigger[name]


def member(path: str, request: See = lambda seen: seen.request) -> See:
    """A member of the request that starts the job, or of another; names and values are read as a dict."""

    def see(seen: Seen) -> Any:
        found = request(seen)
        for step in path.split("."):
            if isinstance(found, list) and not step.isdecimal():
                labels = ("name", "key", "type")
                found = {next(each[label] for label in labels if label in each): each["value"] for each in found}
            found = found.get(step) if isinstance(found, dict) else found[int(step)]
            if found is None:
                return None
        return found

    return see


def registered(name: str, value: Any, path: str, expected: Any = None, **beside: Any) -> tuple[str, Honoured]:
    """A row: what is given is a member of the definition that is registered in place of one that exists."""
    see = member(path, lambda seen: seen.registered)
    other = "job_definition" if path.startswith(("containerProperties", "platform")) else "task_definition"
    return name, Honoured(value, see, value if expected is None else expected, beside={other: None, **beside})


IMAGE = {"image": "i", "execution_role": "r"}


def sent(name: str, value: Any, path: str, expected: Any = None, **more: Any) -> tuple[str, Honoured]:
    """A row: what is given is sent as a member of the request."""
    return name, Honoured(value, member(path), value if expected is None else expected, **more)


def is_bounded(name: str) -> See:
    """Whether the trigger has a deadline within the century."""
    return lambda seen: (seen.trigger[name] or FAR.timestamp()) < datetime.now(UTC).timestamp() + 3600


def kind_of_result(seen: Seen) -> type:
    """The type of what was returned or raised."""
    return type(seen.result)


def state(seen: Seen) -> Any:
    """The state in the outcome; None if there is none."""
    return seen.result.get("state") if isinstance(seen.result, dict) else None


def lines_read(seen: Seen) -> Any:
    """How many lines of a job's log are asked for."""
    running = Snapshot("a", JobState.RUNNING, "RUNNING", log=LogStream("g", "s"))
    of_task = seen.task._wait if isinstance(seen.task, SENSORS) else seen.task._execution
    of_task.jobs.outcome_builder.last_lines(running, arrival=0.0)
    return seen.aws.sent("get_log_events")[-1]["limit"]


def map_returns(seen: Seen) -> bool:
    """Whether a map of which an item has failed returns, and does not raise."""
    event = {"statuses": "F", "lines": pack(()), "running": pack(()), "limit": None, "error": None}
    try:
        seen.task.execute_complete(
            seen.task._execution.record.context, {**event, "unstopped": None, "times": [None] * 3}
        )
    except JobflowError:
        return False
    return True


OF_ALL: dict[str, Any] = {
    "aws_conn_id": Honoured("other", argument("aws_conn_id"), "other"),
    "region_name": Honoured("eu-central-1", argument("region_name"), "eu-central-1"),
    "verify": Honoured("False", argument("verify"), False),
    "botocore_config": Honoured({"tcp_keepalive": True}, argument("botocore_config"), {"tcp_keepalive": True}),
    "deferrable": Honoured(False, lambda seen: bool(seen.trigger), False),
    "poll_interval": Honoured("7", argument("poll_interval"), 7.0),
    "job_timeout": Honoured("60", is_bounded("deadline"), True),
    "number_logs_exception": Honoured("3", lines_read, 3, late=True),
    "start_trigger_args": Internal("Airflow gives it to an instance of a mapped task, as partial has found it"),
}

OF_ONE = {"raise_on_failure": Honoured(False, state, "FAILED", job=JobState.FAILED)}

OF_OPERATORS: dict[str, Any] = {
    **OF_ALL,
    **OF_ONE,
    "wait_for_completion": Honoured(False, state, "SUBMITTED"),
    "queued_timeout": Honoured("60", is_bounded("queue_deadline"), True, job=JobState.SUBMITTED),
    "cancel_on_kill": Honoured(False, argument("cancel_on_kill"), False),
    "cancel_on_timeout": Honoured(False, argument("cancel_on_timeout"), False),
    "start_from_trigger": Honoured(True, lambda seen: seen.task.start_from_trigger, True),
}

SINGLE = "applies only to arrays and maps, and this operator runs a single job"
OF_SINGLE_JOBS: dict[str, Any] = {
    **OF_OPERATORS,
    "redrive": Rejected(True, SINGLE),
    "tolerated_failure_count": Rejected("1", SINGLE),
    "tolerated_failure_percentage": Rejected(1.5, SINGLE),
}

OF_MAPS: dict[str, Any] = {
    **OF_OPERATORS,
    "raise_on_failure": Honoured(False, map_returns, True, late=True),
    "wait_for_completion": Rejected(False, "a map starts jobs as others end"),
    "queued_timeout": Rejected(60, "a map has no queue timeout"),
    "durable": Rejected(False, "a map finds its jobs by their tokens"),
    "items": Honoured([{"tags": {"K": "v"}}], lambda seen: "K" in json.dumps(seen.request["tags"]), True,
                      beside={"tags": {"other": "tag"}}),
    "max_concurrency": Honoured("7", argument("max_concurrency"), 7),
    "on_item_failure": Honoured("continue", argument("on_item_failure"), "continue"),
    "redrive": Honoured(True, argument("on_item_failure"), "continue"),
    "tolerated_failure_count": Honoured("7", argument("tolerated_failure_count"), 7),
    "tolerated_failure_percentage": Honoured("7", argument("tolerated_failure_percentage"), 7),
}  # fmt: skip

BATCH: dict[str, Any] = dict(
    [
        sent("job_definition", "other", "jobDefinition"),
        registered("image", "other", "containerProperties.image", execution_role="r"),
        registered("definition", {"containerProperties": {"image": "other"}}, "containerProperties.image", "other"),
        registered("job_role", "other", "containerProperties.jobRoleArn", **IMAGE),
        registered("execution_role", "other", "containerProperties.executionRoleArn", image="i"),
        registered("log_group", "g", "containerProperties.logConfiguration.options.awslogs-group", **IMAGE),
        registered("platform", "EC2", "platformCapabilities.0", **IMAGE),
        registered(
            "assign_public_ip", "true", "containerProperties.networkConfiguration.assignPublicIp", "ENABLED", **IMAGE
        ),
        sent("command", ["a"], "containerOverrides.command"),
        sent("environment", {"K": 1}, "containerOverrides.environment.K", "1"),
        sent("vcpus", "0.5", "containerOverrides.resourceRequirements.VCPU"),
        sent("memory", 2048, "containerOverrides.resourceRequirements.MEMORY", "2048"),
        sent("gpus", 1, "containerOverrides.resourceRequirements.GPU", "1"),
        sent("container_overrides", {"instanceType": "t"}, "containerOverrides.instanceType", "t"),
        sent("parameters", {"K": "v"}, "parameters.K", "v"),
        sent("depends_on", [{"jobId": "a"}], "dependsOn"),
        sent("retry_strategy", {"attempts": 3}, "retryStrategy.attempts", 3),
        sent("attempt_timeout", "60", "timeout.attemptDurationSeconds", 60),
        sent("tags", {"K": "v"}, "tags.K", "v"),
        sent("propagate_tags", "true", "propagateTags", True),
        sent("share_identifier", "s", "shareIdentifier"),
        sent("scheduling_priority_override", "5", "schedulingPriorityOverride", 5),
        sent(
            "consumable_resource_properties_override",
            {"consumableResourceList": []},
            "consumableResourcePropertiesOverride",
        ),
        ("container_name", Honoured("side", argument("container_name"), "side")),
    ]
)
BATCH_SINGLE: dict[str, Any] = dict(
    [
        sent("job_queue", "other", "jobQueue"),
        sent("job_name", "other", "jobName", "other", beside={"durable": False}),
        sent("durable", False, "jobName", "n"),
        sent("array_size", "3", "arrayProperties.size", 3),
        sent("array_properties", {"size": 3}, "arrayProperties.size", 3),
        sent("node_overrides", {"numNodes": 2}, "nodeOverrides"),
        sent("ecs_properties_override", {"taskProperties": []}, "ecsPropertiesOverride"),
        sent("eks_properties_override", {"podProperties": {}}, "eksPropertiesOverride"),
    ]
)
TOLERATED: Mapping[str, Any] = {"beside": {"array_size": 2, "raise_on_failure": False}, "job": JobState.FAILED}
NOT_ON_A_MAP = "is not supported by maps"

ECS: dict[str, Any] = dict(
    [
        sent("task_definition", "other", "taskDefinition"),
        registered("image", "other", "containerDefinitions.0.image", execution_role="r"),
        registered(
            "definition", {"containerDefinitions": [{"image": "other"}]}, "containerDefinitions.0.image", "other"
        ),
        registered("job_role", "other", "taskRoleArn", **IMAGE),
        registered("execution_role", "other", "executionRoleArn", image="i"),
        registered("log_group", "g", "containerDefinitions.0.logConfiguration.options.awslogs-group", **IMAGE),
        sent("command", ["a"], "overrides.containerOverrides.0.command"),
        sent("environment", {"K": 1}, "overrides.containerOverrides.0.environment.K", "1"),
        sent("container_name", "side", "overrides.containerOverrides.0.name", beside={"command": ["a"]}),
        sent("cpu", "512", "overrides.cpu"),
        sent("memory", 1024, "overrides.memory", "1024"),
        sent("ephemeral_storage", "30", "overrides.ephemeralStorage.sizeInGiB", 30),
        sent("overrides", {"executionRoleArn": "r"}, "overrides.executionRoleArn", "r"),
        sent("subnets", ["other"], "networkConfiguration.awsvpcConfiguration.subnets"),
        sent("security_groups", ["g"], "networkConfiguration.awsvpcConfiguration.securityGroups"),
        sent("assign_public_ip", "true", "networkConfiguration.awsvpcConfiguration.assignPublicIp", "ENABLED"),
        sent(
            "network_configuration",
            {"awsvpcConfiguration": {"subnets": ["other"]}},
            "networkConfiguration",
            beside={"subnets": None},
        ),
        sent(
            "capacity_provider_strategy",
            {"FARGATE_SPOT": "1"},
            "capacityProviderStrategy",
            [{"capacityProvider": "FARGATE_SPOT", "weight": 1}],
        ),
        sent("platform_version", "1.4.0", "platformVersion"),
        sent("enable_execute_command", "true", "enableExecuteCommand", True),
        sent("enable_ecs_managed_tags", "true", "enableECSManagedTags", True),
        sent("propagate_tags", "NONE", "propagateTags"),
        sent("tags", {"K": "v"}, "tags.K", "v"),
        sent("group", "g", "group"),
        sent("reference_id", "r", "referenceId"),
        sent("volume_configurations", [{"name": "v"}], "volumeConfigurations"),
    ]
)


def spot_was_interrupted(seen: Seen) -> bool:
    """Whether an attempt follows a Spot interruption."""
    return bool(seen.task._execution.spec.runs_again({"jobs": {ARN: {"code": "SpotInterruption"}}}, Attempt()))


GLUE_RUN: dict[str, Any] = dict(
    [
        sent("job_name", "other", "JobName"),
        sent("script_args", {"--K": 1}, "Arguments.--K", "1"),
        sent("run_job_kwargs", {"JobRunQueuingEnabled": True}, "JobRunQueuingEnabled", True),
        sent("worker_type", "G.1X", "WorkerType"),
        sent("number_of_workers", "10", "NumberOfWorkers", 10),
        sent("max_capacity", "0.0625", "MaxCapacity", 0.0625),
        sent("attempt_timeout", "120", "Timeout", 2),
        sent("execution_class", "FLEX", "ExecutionClass"),
        sent("security_configuration", "s", "SecurityConfiguration"),
    ]
)

OF_SENSORS: dict[str, Any] = {
    **OF_ALL,
    **OF_ONE,
    "timeout": Honoured(60, is_bounded("deadline"), True),
    "poke_interval": Honoured(7, argument("poll_interval"), 7.0),
    "soft_fail": Honoured(True, kind_of_result, AirflowSkipException, job=JobState.FAILED),
    "never_fail": Honoured(True, kind_of_result, AirflowSkipException, job=JobState.FAILED),
    "start_from_trigger": Honoured(False, lambda seen: seen.task.start_from_trigger, False),
    "mode": Rejected("reschedule", "is not supported, because deferring replaces it"),
    "exponential_backoff": Rejected(True, "polls are shared by all waits"),
    "max_wait": Rejected(60, "polls are shared by all waits"),
    "silent_fail": Rejected(True, "soft_fail skips a task that would fail"),
}

ROWS: dict[type, dict[str, Any]] = {
    BatchJobOperator: {
        **OF_OPERATORS,
        **BATCH,
        **BATCH_SINGLE,
        "tolerated_failure_count": Honoured(1, state, "SUCCEEDED", **TOLERATED),
        "tolerated_failure_percentage": Honoured(50, state, "SUCCEEDED", **TOLERATED),
        # A retry has to know which job runs which part.
        "redrive": Honoured(
            True,
            lambda seen: seen.task._execution.record.context["task_state_store"]["jobflow"].get("job_ids"),
            ["job-1"],
            beside={"array_size": 2},
        ),
    },
    BatchMapOperator: {
        **OF_MAPS,
        **BATCH,
        "job_queue": Honoured("other", lambda seen: seen.trigger["job_group"]["queue"], "other"),
        "job_name": Honoured("other", lambda seen: seen.trigger["job_group"]["stem"].split("-")[0], "other"),
        "array_size": Rejected(3, NOT_ON_A_MAP),
        "array_properties": Rejected({"size": 3}, NOT_ON_A_MAP),
        "node_overrides": Rejected({"numNodes": 2}, NOT_ON_A_MAP),
        "ecs_properties_override": Rejected({"taskProperties": []}, NOT_ON_A_MAP),
        "eks_properties_override": Rejected({"podProperties": {}}, NOT_ON_A_MAP),
    },
    FargateTaskOperator: {
        **OF_SINGLE_JOBS,
        **ECS,
        "cluster": Honoured("other", argument("scope"), "other"),
        "durable": Honoured(False, lambda seen: "clientToken" in seen.request, False),
        "on_spot_interruption": Honoured("fail", spot_was_interrupted, False, late=True),
    },
    FargateMapOperator: {
        **OF_MAPS,
        **ECS,
        "cluster": Honoured("other", argument("scope"), "other"),
        "on_spot_interruption": Honoured("fail", argument("attempts"), 1),
    },
    GlueCrawlOperator: {
        **OF_SINGLE_JOBS,
        "start_from_trigger": Internal("a crawl starts on a worker; its log says so"),
        "crawler_name": Honoured("other", lambda seen: seen.aws.sent("start_crawler")[0]["Name"], "other"),
        "if_running": Honoured("fail", lambda seen: isinstance(seen.result, JobflowError), True, busy=True),
        # Without, the second try takes the crawl of the first for somebody else's.
        "durable": Honoured(
            False, lambda seen: "is already running" in str(seen.result), True, beside={"if_running": "fail"}, tries=2
        ),
    },
    GlueJobRunOperator: {
        **OF_SINGLE_JOBS,
        **GLUE_RUN,
        "durable": Honoured(False, lambda seen: "Arguments" in seen.request, False),
    },
    BatchJobSensor: {**OF_SENSORS, "job_id": Honoured('["a", "b"]', argument("job_ids"), ["a", "b"])},
    FargateTaskSensor: {
        **OF_SENSORS,
        "cluster": Honoured("other", argument("scope"), "other"),
        "task_arn": Honoured([ARN], argument("job_ids"), [ARN], beside={"task_arn": "x"}),
    },
    GlueCrawlSensor: {
        **OF_SENSORS,
        "crawler_name": Honoured("other", argument("job_ids"), ["other@2026-01-02T00:00:00+00:00"]),
        "since": Honoured("2026-01-03", argument("job_ids"), ["c@2026-01-03T00:00:00+00:00"]),
    },
    GlueJobRunSensor: {
        **OF_SENSORS,
        "job_name": Honoured("other", argument("scope"), "other"),
        "run_id": Honoured("jr_2", argument("job_ids"), ["jr_2"]),
    },
}


def parameters(kind: type) -> set[str]:
    """What a class takes beside what Airflow's operators take, which is Airflow's to honour."""
    names = {
        name
        for each in kind.__mro__
        if (trigger_eligibility.is_ours(each) and "airflow_compat" not in each.__module__) or each is BaseSensorOperator
        for name, parameter in inspect.signature(each.__init__).parameters.items()  # type: ignore[misc]
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return names - set(inspect.signature(BaseOperator.__init__).parameters)


NEEDS = {"start_from_trigger": pytest.mark.needs("starts")}
"""Parameters that mean something only with a feature of Airflow."""


def cases(kind_of_row: type) -> list[Any]:
    """Each row of a kind, with its class and parameter."""
    return [
        pytest.param(kind, name, row, id=f"{kind.__name__}-{name}", marks=NEEDS.get(name, ()))
        for kind, rows in ROWS.items()
        for name, row in rows.items()
        if isinstance(row, kind_of_row)
    ]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Run a task against a scripted AWS, up to its deferral or its end."""

    def execute(kind: Any, given: Mapping[str, Any], row: Honoured | Rejected) -> Seen:
        aws = ScriptedAws(getattr(row, "job", JobState.RUNNING), busy=getattr(row, "busy", False))

        def run_scripted(_: Any, function: Callable[..., Any], *arguments: Any, **__: Any) -> Any:
            return function(aws, *arguments)

        async def waits_here(trigger: Any) -> Any:
            raise WaitsHere

        for module in ("airflow_jobflow.aws", "airflow_jobflow.outcomes"):
            monkeypatch.setattr(f"{module}.run_blocking", run_scripted)
            monkeypatch.setattr(f"{module}.service_client", lambda *_: None)
        for trigger_class in ("job.JobTrigger", "map.MapTrigger"):
            monkeypatch.setattr(f"airflow_jobflow.triggers.{trigger_class}.wait", waits_here)
        seen, task_context = Seen(kind(task_id="t", **given), aws), context()
        for number in range(1, getattr(row, "tries", 1) + 1):
            task_context["ti"].try_number = number
            try:
                seen.result = seen.task.execute(task_context)
            except TaskDeferred as deferral:
                trigger: Any = deferral.trigger
                seen.trigger, seen.result = dict(trigger.serialize()[1]), None
            except (JobflowError, AirflowSkipException, WaitsHere) as error:
                seen.result = error
        return seen

    return execute


class WaitsHere(Exception):
    """The task waits in the worker."""


@pytest.mark.parametrize("kind", BASE, ids=lambda kind: kind.__name__)
def test_every_parameter_has_a_row(kind: type) -> None:
    """One that is forgotten here may be ignored."""
    assert ROWS[kind].keys() == parameters(kind)


@pytest.mark.parametrize("kind", BASE, ids=lambda kind: kind.__name__)
def test_every_parameter_is_documented(kind: type) -> None:
    """In the class that a DAG names, or in its base."""
    texts = [each.__doc__ or "" for each in kind.__mro__ if trigger_eligibility.is_ours(each)]
    listed = [names for text in texts for names in re.findall(r":param ([\w,\s]+?):", text)]
    documented = {name.strip() for names in listed for name in names.split(",")}
    of_airflow = set(inspect.signature(BaseSensorOperator.__init__).parameters)
    assert parameters(kind) - documented - of_airflow == set()


def test_every_operator_and_sensor_is_here() -> None:
    """Those that the package offers."""
    from airflow_jobflow import operators, sensors
    from airflow_jobflow.operators.base import AwsJobOperator
    from airflow_jobflow.operators.map import AwsMapOperator
    from airflow_jobflow.sensors.base import AwsJobSensor

    def of(kind: type[Any]) -> Iterator[type[Any]]:
        for each in kind.__subclasses__():
            yield each
            yield from of(each)

    assert operators
    assert sensors
    bases = (AwsJobOperator, AwsMapOperator, AwsJobSensor)
    assert {each for base in bases for each in of(base) if trigger_eligibility.is_ours(each)} == set(BASE)


@pytest.mark.parametrize("kind", BASE, ids=lambda kind: kind.__name__)
def test_one_class_of_ours_stands_between_airflows_and_the_one_that_a_dag_names(kind: type) -> None:
    """Its code is read top to bottom, without a second base to look a method up in."""
    between = [each for each in kind.__mro__[1:] if trigger_eligibility.is_ours(each)]
    assert len([each for each in between if "airflow_compat" not in each.__module__]) == 1


@pytest.mark.parametrize(("kind", "name", "row"), cases(Honoured))
def test_it_has_its_effect_and_nothing_else_has(run: Any, kind: Any, name: str, row: Honoured) -> None:
    """On the request, on the trigger, or on what comes of it."""
    without = {**BASE[kind], **row.beside}
    assert row.see(run(kind, without, row)) != row.expected
    seen = run(kind, {**without, name: row.value}, row)
    assert row.see(seen) == row.expected
    if row.late:
        assert name in LATE
    elif name in vars(seen.task):
        vars(seen.task)[name] = object()
        assert row.see(seen) == row.expected, "this is where the task keeps it, and no effect"


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(kind, name, id=f"{kind.__name__}-{name}") for kind in MAPS for name in TABLES[kind].item_fields],
)
def test_what_an_item_says_has_its_effect_on_the_items_request(run: Any, kind: Any, name: str) -> None:
    """As the operator's own parameter has."""
    row = {"batch": BATCH, "ecs": ECS}[kind.service][name]
    beside = {key: value for key, value in row.beside.items() if key in TABLES[kind].item_fields}
    assert row.see(run(kind, {**BASE[kind], "items": [beside]}, row)) != row.expected
    assert row.see(run(kind, {**BASE[kind], "items": [{**beside, name: row.value}]}, row)) == row.expected


def keeps(statement: ast.AST, names: Sequence[str]) -> bool:
    """Whether a statement only keeps an argument: ``self.x = x``."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    return isinstance(target, ast.Attribute) and target.attr in names


@pytest.mark.parametrize("trigger", [JobTrigger, MapTrigger, StartTrigger])
def test_every_argument_of_a_trigger_is_read_in_it(trigger: Any) -> None:
    """One that is only kept, and stored, has no effect."""
    classes = [each for each in trigger.__mro__ if trigger_eligibility.is_ours(each)]
    methods = [
        method
        for each in classes
        for method in ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    read = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for method in methods
        for statement in method.body
        if not keeps(statement, trigger.argument_names)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    assert set(trigger.argument_names) - read == set()


def test_a_parameter_that_is_kept_and_ignored_is_found(run: Any) -> None:
    """By a row that looks at the attribute, for there is nothing else to look at."""

    class Ignoring(BatchJobOperator):
        def __init__(self, *, colour: str = "", **given: Any) -> None:
            super().__init__(**given)
            self.colour = colour

    BASE[Ignoring] = BASE[BatchJobOperator]
    try:
        with pytest.raises(AssertionError, match="and no effect"):
            test_it_has_its_effect_and_nothing_else_has(
                run, Ignoring, "colour", Honoured("red", lambda seen: seen.task.colour, "red")
            )
    finally:
        del BASE[Ignoring]


@pytest.mark.parametrize(("kind", "name", "row"), cases(Rejected))
def test_it_is_rejected_by_name_before_anything_is_started(run: Any, kind: Any, name: str, row: Rejected) -> None:
    """With the reason."""
    seen = run(kind, {**BASE[kind], name: row.value}, row)
    assert isinstance(seen.result, InvalidParameter)
    assert str(seen.result).startswith(f"{name}=")
    assert row.why in str(seen.result)
    assert seen.aws.calls == []


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (BatchJobOperator, {"container_name": "nope"}),
        (BatchMapOperator, {"container_name": "nope"}),
        (FargateTaskOperator, {"container_name": "nope"}),
        (FargateMapOperator, {"container_name": "nope"}),
        (FargateMapOperator, {"items": [{}, {"container_name": "nope"}]}),
    ],
)
def test_a_container_that_does_not_exist_is_rejected_by_name_before_anything_is_started(
    run: Any, monkeypatch: pytest.MonkeyPatch, kind: Any, given: dict[str, Any]
) -> None:
    """With the names that there are."""
    containers = [{"name": "main"}, {"name": "side"}]
    definition = {"ecsProperties": {"taskProperties": [{"containers": containers}]}, "revision": 1}
    monkeypatch.setattr(ScriptedAws, "describe_job_definitions", lambda *_, **__: {"jobDefinitions": [definition]})
    seen = run(kind, {**BASE[kind], **given}, Rejected("nope", ""))
    assert str(seen.result) == "container_name='nope': must be one of the named containers of d, which has main, side"
    assert not any(seen.aws.sent(operation) for operation in ("submit_job", "run_task"))


@pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("value", [False, 0, "0", "False", "None", "", None])
def test_a_template_that_asks_for_nothing_is_not_rejected(run: Any, kind: Any, value: Any) -> None:
    """``{{ params.redrive }}`` may render to it."""
    assert run(kind, {**BASE[kind], "redrive": value}, Rejected(value, "")).trigger


@pytest.mark.parametrize("name", ["redrive", "tolerated_failure_count", "tolerated_failure_percentage"])
def test_a_batch_job_that_is_no_array_rejects_what_is_for_arrays(run: Any, name: str) -> None:
    """As the other operators of single jobs do."""
    seen = run(BatchJobOperator, {**BASE[BatchJobOperator], name: 1}, Rejected(1, ""))
    assert isinstance(seen.result, InvalidParameter)
    assert str(seen.result).startswith(f"{name}=")


@pytest.mark.parametrize("kind", SENSORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ["mode", "exponential_backoff", "max_wait", "silent_fail"])
@pytest.mark.needs("starts")
def test_what_a_sensor_rejects_does_not_start_in_the_triggerer(kind: Any, name: str) -> None:
    """There, it would be ignored: only a worker checks it."""
    assert kind(task_id="t", **BASE[kind]).start_from_trigger
    assert not kind(task_id="t", **BASE[kind], **{name: ROWS[kind][name].value}).start_from_trigger
