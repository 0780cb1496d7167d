"""The effect of every parameter of every operator and sensor: the tables for ``test_parameters``.

A row of a table has a value for the parameter, where its effect is visible, and what is expected there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_jobflow.exceptions import JobFailed, JobFailedFinally, JobflowError
from airflow_jobflow.jobs.attempt import Attempt
from airflow_jobflow.jobs.changes import CAUSES
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot
from airflow_jobflow.jobs.packing import pack, unpack
from airflow_jobflow.operators import batch_parameters, ecs_parameters
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import EcsMapOperator, EcsTaskOperator, FargateMapOperator, FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.sensors.ecs import EcsTaskSensor
from airflow_jobflow.sensors.glue import GlueCrawlSensor, GlueJobRunSensor
from tests.unit.scripted_aws import ARN, ScriptedAws

FAR = datetime(2100, 1, 1, tzinfo=UTC)

BASE: dict[type, dict[str, Any]] = {
    BatchJobOperator: {"job_name": "n", "job_queue": "q", "job_definition": "d"},
    BatchMapOperator: {"job_name": "n", "job_queue": "q", "job_definition": "d", "items": [{}]},
    EcsTaskOperator: {"cluster": "c", "task_definition": "d", "subnets": ["s"]},
    EcsMapOperator: {"cluster": "c", "task_definition": "d", "subnets": ["s"], "items": [{}]},
    FargateTaskOperator: {"cluster": "c", "task_definition": "d", "subnets": ["s"]},
    FargateMapOperator: {"cluster": "c", "task_definition": "d", "subnets": ["s"], "items": [{}]},
    GlueCrawlOperator: {"crawler_name": "c"},
    GlueJobRunOperator: {"job_name": "j"},
    BatchJobSensor: {"job_id": "a"},
    EcsTaskSensor: {"cluster": "c", "task_arn": ARN},
    GlueCrawlSensor: {"crawler_name": "c", "since": "2026-01-02"},
    GlueJobRunSensor: {"job_name": "j", "run_id": "jr_1"},
}
"""Every operator and sensor, with its required parameters."""

OPERATORS = (BatchJobOperator, EcsTaskOperator, FargateTaskOperator, GlueCrawlOperator, GlueJobRunOperator)
MAPS = (BatchMapOperator, EcsMapOperator, FargateMapOperator)
TABLES = {
    BatchMapOperator: batch_parameters.PARAMETERS,
    EcsMapOperator: ecs_parameters.ECS_PARAMETERS,
    FargateMapOperator: ecs_parameters.FARGATE_PARAMETERS,
}
SENSORS = (BatchJobSensor, EcsTaskSensor, GlueCrawlSensor, GlueJobRunSensor)


@dataclass
class Seen:
    """What a task has done.

    :param task: the task.
    :param aws: the calls that it has made.
    :param trigger: the arguments of the trigger to which it deferred.
    :param result: what it returned or raised.
    """

    task: Any
    aws: ScriptedAws
    trigger: dict[str, Any] = field(default_factory=dict)
    result: Any = None

    @property
    def request(self) -> Any:
        """The request that starts the job; for a map, that of its first item; empty if none was made."""
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
"""Returns the visible effect of a parameter."""


@dataclass(frozen=True)
class HasEffect:
    """A parameter has an effect.

    :param value: the value of the parameter.
    :param see: where its effect is visible.
    :param expected: what is expected there.
    :param beside: other parameters, with and without it.
    :param job: the state of the job in all describe calls. Default: it runs.
    :param busy: whether the crawler is already running.
    :param tries: how many tries the task makes.
    :param late: whether the effect comes after the deferral: ``see`` resumes the task. See ``LATE``.
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
"""Parameters whose effect comes after the deferral. Add one only with a ``see`` that resumes the task."""


@dataclass(frozen=True)
class Rejected:
    """A parameter has no effect, and is rejected by name.

    :param value: the value of the parameter.
    :param why: a part of the error message.
    """

    value: Any
    why: str


@dataclass(frozen=True)
class Internal:
    """A parameter is not for DAGs.

    :param why: who sets it.
    """

    why: str


def argument(name: str) -> See:
    """Return a function that reads an argument of the trigger."""
    return lambda seen: seen.trigger[name]


def member(path: str, request: See = lambda seen: seen.request) -> See:
    """Return a function that reads a member of the request that starts the job, or of another one.

    Names and values are read as a dict.
    """

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


def registered(name: str, value: Any, path: str, expected: Any = None, **beside: Any) -> tuple[str, HasEffect]:
    """Return a row: the value is a member of the definition that is registered in place of one that exists."""
    see = member(path, lambda seen: seen.registered)
    other = "job_definition" if path.startswith(("containerProperties", "platform")) else "task_definition"
    return name, HasEffect(value, see, value if expected is None else expected, beside={other: None, **beside})


IMAGE = {"image": "i", "execution_role": "r"}


def changes(name: str, **rule: Any) -> tuple[str, HasEffect]:
    """Return a row for what an attempt changes after a failure."""
    letter = next(letter for letter, cause in CAUSES.items() if cause.parameter == name)
    return name, HasEffect(rule, lambda seen: seen.task._execution.spec.changes.rules.get(letter), rule)


def sent(name: str, value: Any, path: str, expected: Any = None, **more: Any) -> tuple[str, HasEffect]:
    """Return a row for a value that is sent as a member of the request."""
    return name, HasEffect(value, member(path), value if expected is None else expected, **more)


def is_bounded(name: str) -> See:
    """Return a function that checks whether the trigger has a deadline within a century."""
    return lambda seen: (seen.trigger[name] or FAR.timestamp()) < datetime.now(UTC).timestamp() + 3600


def kind_of_result(seen: Seen) -> type:
    """Return the type of what was returned or raised."""
    return type(seen.result)


def state(seen: Seen) -> Any:
    """Return the state in the outcome; None if there is none."""
    return seen.result.get("state") if isinstance(seen.result, dict) else None


def lines_read(seen: Seen) -> Any:
    """Return how many lines of a job's log are requested."""
    running = Snapshot("a", JobState.RUNNING, "RUNNING", log=LogStream("g", "s"))
    of_task = seen.task._wait if isinstance(seen.task, SENSORS) else seen.task._execution
    of_task.jobs.outcome_builder.last_lines(running, arrival=0.0)
    return seen.aws.sent("get_log_events")[-1]["limit"]


def map_returns(seen: Seen) -> bool:
    """Return whether a map with a failed item returns instead of raising."""
    event = {"statuses": "F", "lines": pack(()), "running": pack(()), "limit": None, "error": None}
    try:
        seen.task.execute_complete(
            seen.task._execution.record.context, {**event, "unstopped": None, "times": [None] * 3}
        )
    except JobflowError:
        return False
    return True


OF_ALL: dict[str, Any] = {
    "aws_conn_id": HasEffect("other", argument("aws_conn_id"), "other"),
    "region_name": HasEffect("eu-central-1", argument("region_name"), "eu-central-1"),
    "verify": HasEffect("False", argument("verify"), False),
    "botocore_config": HasEffect({"tcp_keepalive": True}, argument("botocore_config"), {"tcp_keepalive": True}),
    "deferrable": HasEffect(False, lambda seen: bool(seen.trigger), False),
    "poll_interval": HasEffect("7", argument("poll_interval"), 7.0),
    "job_timeout": HasEffect("60", is_bounded("deadline"), True),
    "number_logs_exception": HasEffect("3", lines_read, 3, late=True),
    "start_trigger_args": Internal("Airflow gives it to an instance of a mapped task, as partial has found it"),
    "stream_logs": HasEffect("True", argument("stream_logs"), True),
    "max_log_lines": HasEffect("7", argument("max_log_lines"), 7),
    "number_logs_success": HasEffect("7", argument("number_logs_success"), 7),
}

ONE_STREAM = "all crawls of a crawler write to one log stream"

OF_ONE = {"raise_on_failure": HasEffect(False, state, "FAILED", job=JobState.FAILED)}


def told_dag(seen: Seen) -> bool:
    """Whether the job gets a variable with its DAG."""
    return "AIRFLOW_CTX_DAG_ID" in json.dumps([seen.request, seen.trigger.get("job_group")])


def told_address(seen: Seen) -> bool:
    """Whether the job gets the address for its result."""
    return "s3://bucket/prefix/" in json.dumps([seen.request, seen.trigger.get("job_group")])


def requires_result(seen: Seen) -> bool:
    """Whether a missing result fails the task."""
    return bool(seen.task._execution.record.inputs.required)


OF_OPERATORS: dict[str, Any] = {
    **OF_ALL,
    **OF_ONE,
    "pass_context": HasEffect(False, told_dag, False),
    "result": HasEffect("s3://bucket/prefix/", told_address, True),
    "result_required": HasEffect("true", requires_result, True),
    "wait_for_completion": HasEffect(False, state, "SUBMITTED"),
    "queued_timeout": HasEffect("60", is_bounded("queue_deadline"), True, job=JobState.SUBMITTED),
    "cancel_on_kill": HasEffect(False, argument("cancel_on_kill"), False),
    "cancel_on_timeout": HasEffect(False, argument("cancel_on_timeout"), False),
    "start_from_trigger": HasEffect(True, lambda seen: seen.task.start_from_trigger, True),
}

EXIT_CODE = {
    "skip_on_exit_code": HasEffect("[1]", kind_of_result, AirflowSkipException, job=JobState.FAILED),
    "fail_on_exit_code": HasEffect(1, kind_of_result, JobFailedFinally, job=JobState.FAILED),
}
NO_EXIT_CODE = dict.fromkeys(EXIT_CODE, Rejected(1, "is for jobs with an exit code, and Glue reports none"))
ITEMS_EXIT = dict.fromkeys(EXIT_CODE, Rejected([1], "each item of a map has an exit code of its own"))

SINGLE = "applies only to arrays and maps, and this operator runs a single job"
OF_SINGLE_JOBS: dict[str, Any] = {
    **OF_OPERATORS,
    "redrive": Rejected(True, SINGLE),
    "tolerated_failure_count": Rejected("1", SINGLE),
    "tolerated_failure_percentage": Rejected(1.5, SINGLE),
}

OF_MAPS: dict[str, Any] = {
    **OF_OPERATORS,
    **ITEMS_EXIT,
    "raise_on_failure": HasEffect(False, map_returns, True, late=True),
    "wait_for_completion": Rejected(False, "a map starts jobs as others end"),
    "queued_timeout": Rejected(60, "a map has no queue timeout"),
    "durable": Rejected(False, "a map finds its jobs by their tokens"),
    "number_logs_success": Rejected("7", "a map copies no logs of successful items"),
    "items": HasEffect([{"tags": {"K": "v"}}], lambda seen: "K" in json.dumps(seen.request["tags"]), True,
                      beside={"tags": {"other": "tag"}}),
    "max_concurrency": HasEffect("7", argument("max_concurrency"), 7),
    "on_item_failure": HasEffect("continue", argument("on_item_failure"), "continue"),
    "item_attempts": HasEffect("7", argument("attempts"), 7, beside={"on_capacity": {"memory": 4096}}),
    "redrive": HasEffect(True, argument("on_item_failure"), "continue"),
    "tolerated_failure_count": HasEffect("7", argument("tolerated_failure_count"), 7),
    "tolerated_failure_percentage": HasEffect("7", argument("tolerated_failure_percentage"), 7),
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
        ("container_name", HasEffect("side", argument("container_name"), "side")),
        changes("on_out_of_memory", memory="x2", max=8192),
        changes("on_capacity", job_queue="other"),
        changes("on_timeout", attempt_timeout="x2"),
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
        changes("on_out_of_memory", memory="x2", max=8192),
        changes("on_capacity", subnets=["other"]),
    ]
)
ON_INSTANCES: dict[str, Any] = dict(
    [
        registered("network_mode", "host", "networkMode", subnets=None, **IMAGE),
        registered(
            "definition",
            {"networkMode": "awsvpc", "containerDefinitions": [{"image": "other"}]},
            "containerDefinitions.0.image",
            "other",
        ),
        sent("gpus", "1", "overrides.containerOverrides.0.resourceRequirements.GPU"),
        sent("launch_type", "EC2", "launchType"),
        sent("placement_constraints", [{"type": "distinctInstance"}], "placementConstraints"),
        sent("placement_strategy", [{"type": "binpack", "field": "memory"}], "placementStrategy"),
    ]
)


def spot_was_interrupted(seen: Seen) -> bool:
    """Return whether another attempt follows a Spot interruption."""
    ended = Snapshot(ARN, JobState.FAILED, "STOPPED", code="SpotInterruption").to_dict()
    return bool(seen.task._execution.spec.runs_again({"jobs": {ARN: ended}}, Attempt()))


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
        sent("script", "s3://bucket/new.py", "Arguments.--scriptLocation"),
        sent(
            "script_prefix",
            "s3://bucket/other/",
            "Arguments.--scriptLocation",
            f"s3://bucket/other/parameter_rows-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]}.py",
            beside={"script": __file__, "script_prefix": "s3://bucket/prefix"},
        ),
        (
            "update_job",
            HasEffect(
                "true",
                lambda seen: [each["JobUpdate"]["Command"] for each in seen.aws.sent("update_job")],
                [{"Name": "pythonshell", "ScriptLocation": "s3://bucket/new.py"}],
                beside={"script": "s3://bucket/new.py"},
            ),
        ),
        changes("on_out_of_memory", worker_type="G.2X"),
        changes("on_timeout", attempt_timeout="x2"),
    ]
)

OF_SENSORS: dict[str, Any] = {
    **OF_ALL,
    **OF_ONE,
    "timeout": HasEffect(60, is_bounded("deadline"), True),
    "poke_interval": HasEffect(7, argument("poll_interval"), 7.0),
    "soft_fail": HasEffect(True, kind_of_result, AirflowSkipException, job=JobState.FAILED),
    "never_fail": HasEffect(True, kind_of_result, AirflowSkipException, job=JobState.FAILED),
    "start_from_trigger": HasEffect(False, lambda seen: seen.task.start_from_trigger, False),
    "mode": Rejected("reschedule", "is not supported, because deferring replaces it"),
    "exponential_backoff": Rejected(True, "polls are shared by all waits"),
    "max_wait": Rejected(60, "polls are shared by all waits"),
    "silent_fail": Rejected(True, "soft_fail skips a task that would fail"),
}

ROWS: dict[type, dict[str, Any]] = {
    BatchJobOperator: {
        **OF_OPERATORS,
        **EXIT_CODE,
        **BATCH,
        **BATCH_SINGLE,
        "tolerated_failure_count": HasEffect(1, state, "SUCCEEDED", **TOLERATED),
        "tolerated_failure_percentage": HasEffect(50, state, "SUCCEEDED", **TOLERATED),
        # A retry must know which job runs which part.
        "redrive": HasEffect(
            True,
            lambda seen: seen.task._execution.record.context["task_state_store"]["jobflow"].get("job_ids"),
            ["job-1"],
            beside={"array_size": 2},
        ),
    },
    BatchMapOperator: {
        **OF_MAPS,
        **BATCH,
        "job_queue": HasEffect("other", lambda seen: seen.trigger["job_group"]["queue"], "other"),
        "job_name": HasEffect("other", lambda seen: seen.trigger["job_group"]["stem"].split("-")[0], "other"),
        "array_size": Rejected(3, NOT_ON_A_MAP),
        "array_properties": Rejected({"size": 3}, NOT_ON_A_MAP),
        "node_overrides": Rejected({"numNodes": 2}, NOT_ON_A_MAP),
        "ecs_properties_override": Rejected({"taskProperties": []}, NOT_ON_A_MAP),
        "eks_properties_override": Rejected({"podProperties": {}}, NOT_ON_A_MAP),
    },
    EcsTaskOperator: {
        **OF_SINGLE_JOBS,
        **EXIT_CODE,
        **ECS,
        **ON_INSTANCES,
        "cluster": HasEffect("other", argument("scope"), "other"),
        "durable": HasEffect(False, lambda seen: "clientToken" in seen.request, False),
        "on_spot_interruption": HasEffect("fail", spot_was_interrupted, False, late=True),
    },
    EcsMapOperator: {
        **OF_MAPS,
        **ECS,
        **ON_INSTANCES,
        "cluster": HasEffect("other", argument("scope"), "other"),
        "on_spot_interruption": HasEffect("fail", argument("attempts"), 1),
    },
    FargateTaskOperator: {
        **OF_SINGLE_JOBS,
        **EXIT_CODE,
        **ECS,
        "cluster": HasEffect("other", argument("scope"), "other"),
        "durable": HasEffect(False, lambda seen: "clientToken" in seen.request, False),
        "on_spot_interruption": HasEffect("fail", spot_was_interrupted, False, late=True),
    },
    FargateMapOperator: {
        **OF_MAPS,
        **ECS,
        "cluster": HasEffect("other", argument("scope"), "other"),
        "on_spot_interruption": HasEffect("fail", argument("attempts"), 1),
    },
    GlueCrawlOperator: {
        **OF_SINGLE_JOBS,
        **NO_EXIT_CODE,
        **{
            name: Rejected(value, "is for jobs that run a command")
            for name, value in (("pass_context", True), ("result", "log"), ("result_required", True))
        },
        "start_from_trigger": Internal("a crawl starts on a worker; its log says so"),
        "crawler_name": HasEffect("other", lambda seen: seen.aws.sent("start_crawler")[0]["Name"], "other"),
        "stream_logs": Rejected("True", ONE_STREAM),
        "if_running": HasEffect("fail", lambda seen: isinstance(seen.result, JobflowError), True, busy=True),
        # Without it, the second try treats the crawl of the first as someone else's.
        "durable": HasEffect(
            False, lambda seen: "is already running" in str(seen.result), True, beside={"if_running": "fail"}, tries=2
        ),
    },
    GlueJobRunOperator: {
        **OF_SINGLE_JOBS,
        **NO_EXIT_CODE,
        **GLUE_RUN,
        "pass_context": HasEffect(True, told_dag, True),
        "durable": HasEffect(False, lambda seen: "Arguments" in seen.request, False),
    },
    BatchJobSensor: {**OF_SENSORS, "job_id": HasEffect('["a", "b"]', argument("job_ids"), ["a", "b"])},
    EcsTaskSensor: {
        **OF_SENSORS,
        "cluster": HasEffect("other", argument("scope"), "other"),
        "task_arn": HasEffect([ARN], argument("job_ids"), [ARN], beside={"task_arn": "x"}),
        "target_state": HasEffect("RUNNING", state, "RUNNING"),
        "failure_states": HasEffect(
            "RUNNING", lambda seen: isinstance(seen.result, JobFailed), True, beside={"target_state": "STOPPED"}
        ),
    },
    GlueCrawlSensor: {
        **OF_SENSORS,
        "crawler_name": HasEffect("other", argument("job_ids"), ["other@2026-01-02T00:00:00+00:00"]),
        "stream_logs": Rejected("True", ONE_STREAM),
        "since": HasEffect("2026-01-03", argument("job_ids"), ["c@2026-01-03T00:00:00+00:00"]),
    },
    GlueJobRunSensor: {
        **OF_SENSORS,
        "job_name": HasEffect("other", argument("scope"), "other"),
        "run_id": HasEffect("jr_2", argument("job_ids"), ["jr_2"]),
    },
}
