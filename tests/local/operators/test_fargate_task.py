"""FargateTaskOperator on the local AWS: one task is started, explained, and started again after a Spot interruption."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.jobs import ecs_snapshot
from airflow_jobflow.local import Faults
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.operators.ecs_parameters import FARGATE_PARAMETERS


@pytest.fixture
def make(ecs_kit: Any, here: Callable[[Any], None]) -> Callable[..., FargateTaskOperator]:
    """Return a function that creates an operator for the test's cluster, which by default waits on the worker."""
    here(ecs_kit.aws)
    return maker(ecs_kit)


def maker(kit: Any) -> Callable[..., FargateTaskOperator]:
    """Return a function that creates operators for a cluster."""

    def operator(script: str = "true", **parameters: Any) -> FargateTaskOperator:
        if "task_definition" not in parameters:
            parameters["task_definition"] = kit.define(kit.container(["sh", "-c", script]))
        defaults = {"task_id": "t", "cluster": kit.cluster, "subnets": ["subnet-1"], "aws_conn_id": None}
        return FargateTaskOperator(**{**defaults, "deferrable": False, **parameters})

    return operator


@pytest.fixture
def own_make(
    own_ecs_kit: Any, here: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., FargateTaskOperator]:
    """Return a function that creates an operator on a local AWS of the test's own, for faults."""
    here(own_ecs_kit.aws)
    return maker(own_ecs_kit)


def test_a_task_runs_and_its_outcome_is_returned(ecs_kit: Any, make: Any, context: Any) -> None:
    """The outcome has the same format for all services, with log and console page."""
    outcome = make("echo hi").execute(context)
    assert (outcome["service"], outcome["state"], outcome["exit_code"]) == ("ecs", "SUCCEEDED", 0)
    task_id = outcome["job_id"].rpartition("/")[2]
    assert outcome["log"] == {"group": ecs_kit.group, "stream": f"test/main/{task_id}"}
    assert f"/clusters/{ecs_kit.cluster}/tasks/{task_id}/" in outcome["console_url"]


def test_a_deferred_task_ends_the_same_way(make: Any, context: Any, gate: Any) -> None:
    """The trigger is the same as for Batch."""
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    gate.touch()
    event = asyncio.run(deferred.value.trigger.wait())
    assert operator.execute_complete(context, event)["state"] == "SUCCEEDED"


def test_all_parameters_reach_the_task(ecs_kit: Any, make: Any, context: Any) -> None:
    """Command, environment, size, tags and network are sent."""
    outcome = make(
        "echo unused",
        command=["sh", "-c", "echo $WHO"],
        environment={"WHO": "you"},
        cpu="512",
        memory=1024,
        ephemeral_storage=30,
        tags={"team": "a"},
        security_groups=["sg-1"],
        assign_public_ip="true",
        platform_version="1.4.0",
        enable_execute_command=True,
    ).execute(context)
    task = ecs_kit.look(outcome["job_id"])
    assert ecs_kit.output(outcome["job_id"]) == ["you"]
    assert (task["cpu"], task["memory"], task["platformVersion"]) == ("512", "1024", "1.4.0")
    assert task["enableExecuteCommand"] is True
    [started] = [each for each in ecs_kit.aws.started("ecs") if each["taskArn"] == outcome["job_id"]]
    assert started["overrides"]["ephemeralStorage"] == {"sizeInGiB": 30}


@pytest.mark.parametrize(
    "strategy",
    [{"FARGATE_SPOT": 4, "FARGATE": 1}, [{"capacityProvider": "FARGATE_SPOT", "weight": 4}], '{"FARGATE_SPOT": "1"}'],
)
def test_a_capacity_provider_strategy_has_two_formats(ecs_kit: Any, make: Any, context: Any, strategy: Any) -> None:
    """Weights by provider and AWS's list are accepted, and both as text."""
    outcome = make(capacity_provider_strategy=strategy).execute(context)
    assert ecs_kit.look(outcome["job_id"])["capacityProviderName"] == "FARGATE_SPOT"


def test_the_error_of_a_failed_task(make: Any, context: Any) -> None:
    """It has the exit code, AWS's reason, diagnosis and log lines."""
    with pytest.raises(exceptions.JobFailed, match="with exit code 3") as error:
        make("echo why; exit 3").execute(context)
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == "command_failed"
    assert "  | why" in str(error.value)


def test_the_essential_container_decides(ecs_kit: Any, make: Any, context: Any) -> None:
    """A sidecar that is killed after the work does not fail the task."""
    sidecar = ecs_kit.container(["sh", "-c", "sleep 60"], name="sidecar", essential=False)
    worker = ecs_kit.container(["sh", "-c", "exit 0"], name="worker")
    outcome = make(task_definition=ecs_kit.define(sidecar, worker)).execute(context)
    assert (outcome["state"], outcome["exit_code"]) == ("SUCCEEDED", 0)
    context["ti"] = type(context["ti"])()  # another task instance
    failing = ecs_kit.container(["sh", "-c", "exit 4"], name="worker")
    with pytest.raises(exceptions.JobFailed, match="exit code 4"):
        make(task_definition=ecs_kit.define(sidecar, failing)).execute(context)


@pytest.mark.parametrize(
    "fault",
    [
        Faults(actions=("DescribeTaskDefinition",), error_every=2),
        Faults(actions=("DescribeTaskDefinition",), drop_every=2),
    ],
    ids=["5xx", "dropped"],
)
def test_a_transient_error_of_the_definition_decides_nothing(
    own_ecs_kit: Any, own_make: Any, context: Any, fault: Faults
) -> None:
    """A killed sidecar must not become a failure because of a transient fault."""
    sidecar = own_ecs_kit.container(["sh", "-c", "sleep 60"], name="sidecar", essential=False)
    worker = own_ecs_kit.container(["sh", "-c", "sleep 1"], name="worker")
    operator = own_make(task_definition=own_ecs_kit.define(sidecar, worker), poll_interval=0.2)
    own_ecs_kit.aws.set_faults(fault)
    own_ecs_kit.ecs.describe_task_definition(taskDefinition=operator.task_definition)  # the next one fails
    assert operator.execute(context)["state"] == "SUCCEEDED"


def test_without_permission_for_the_definition_every_container_counts(
    own_ecs_kit: Any, own_make: Any, context: Any
) -> None:
    """The containers cannot be distinguished, but the wait ends."""
    operator = own_make("exit 0")
    own_ecs_kit.aws.set_faults(Faults(denied=("ecs.DescribeTaskDefinition",)))
    assert operator.execute(context)["state"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("cause", "container"),
    [("image_not_pulled", {"image": "missing/image:1"}), ("command_not_found", {"command": ["no-such-command"]})],
)
def test_a_task_that_never_started_is_not_a_success(
    ecs_kit: Any, make: Any, context: Any, cause: str, container: dict[str, Any]
) -> None:
    """A missing exit code is not 0."""
    definition = ecs_kit.define({**ecs_kit.container(), **container})
    with pytest.raises(exceptions.JobFailed) as error:
        make(task_definition=definition).execute(context)
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == cause
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["exit_code"] is None


def test_a_task_that_someone_else_stops_counts_as_stopped(ecs_kit: Any, make: Any, context: Any, gate: Any) -> None:
    """The stop code outweighs the exit codes."""
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    [arn] = deferred.value.trigger.job_ids
    ecs_kit.wait(arn, "RUNNING")
    ecs_kit.ecs.stop_task(cluster=ecs_kit.cluster, task=arn, reason="Not needed any more")
    with pytest.raises(exceptions.JobStopped, match="Not needed any more"):
        operator.execute_complete(context, asyncio.run(deferred.value.trigger.wait()))


SPOT = {"capacity_provider_strategy": {"FARGATE_SPOT": 1}}


@pytest.mark.parametrize(("policy", "provider"), [("retry", "FARGATE_SPOT"), ("on_demand", "FARGATE")])
def test_an_interrupted_task_gets_another_attempt(
    own_ecs_kit: Any, own_make: Any, context: Any, policy: str, provider: str
) -> None:
    """It starts on the same capacity or on demand, within one try of the Airflow task."""
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=1))
    outcome = own_make("sleep 0.3", on_spot_interruption=policy, **SPOT).execute(context)
    assert outcome["state"] == "SUCCEEDED"
    started = own_ecs_kit.aws.started("ecs")
    assert len({each["clientToken"] for each in started}) == len(started) == 2
    task = own_ecs_kit.look(outcome["job_id"])
    assert (task.get("capacityProviderName") or task["launchType"]) == provider


def test_attempts_after_interruptions_are_limited(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """The number of attempts has a maximum."""
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=99))
    with pytest.raises(exceptions.JobFailed) as error:
        own_make("sleep 5", **SPOT).execute(context)
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == "spot_reclaimed"
    assert len(own_ecs_kit.aws.started("ecs")) == 4


def test_on_spot_interruption_fail_fails_the_task(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """No further attempt is made."""
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=1))
    with pytest.raises(exceptions.JobFailed, match="taken away"):
        own_make("sleep 5", on_spot_interruption="fail", **SPOT).execute(context)
    assert len(own_ecs_kit.aws.started("ecs")) == 1


def test_a_start_whose_response_is_lost_starts_one_task(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """The token makes the call idempotent."""
    operator = own_make()
    own_ecs_kit.aws.set_faults(Faults(actions=("RunTask",), lose_answers=2))
    assert operator.execute(context)["state"] == "SUCCEEDED"
    assert len(own_ecs_kit.aws.started("ecs")) == 1


def test_a_response_without_a_task_is_an_error(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """RunTask responds with status 200 and failures[], for a permanent reason."""
    operator = own_make()
    own_ecs_kit.aws.set_faults(Faults(run_task_failures=1, run_task_reason="MISSING"))
    with pytest.raises(exceptions.SubmissionRejected, match=r"nothing was started: .*MISSING"):
        operator.execute(context)


def test_a_task_missing_for_a_while_is_waited_for(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """A task that was just started may be MISSING."""
    own_ecs_kit.aws.set_faults(Faults(visible_after=1))
    assert own_make("sleep 0.1").execute(context)["state"] == "SUCCEEDED"


def test_a_task_past_its_deadline_is_stopped(ecs_kit: Any, make: Any, context: Any, gate: Any) -> None:
    """It is the same as for Batch."""
    with pytest.raises(exceptions.JobTimeout, match="It was stopped"):
        make(f"while [ ! -e {gate} ]; do sleep 0.02; done", job_timeout=1).execute(context)
    [arn] = [each["taskArn"] for each in ecs_kit.aws.started("ecs") if f"/{ecs_kit.cluster}/" in each["taskArn"]]
    assert ecs_kit.wait(arn)["stopCode"] == "UserInitiated"


def test_the_error_of_a_hanging_task_has_its_last_log_lines(make: Any, context: Any, gate: Any) -> None:
    """Its log is only in the task definition, which was not read before."""
    with pytest.raises(exceptions.JobTimeout) as error:
        make(f"echo stuck; while [ ! -e {gate} ]; do sleep 0.02; done", job_timeout=2).execute(context)
    assert "\nLast lines of the log:\n  | stuck\nConsole: https://" in str(error.value)


@pytest.fixture
def with_router(ecs_kit: Any) -> str:
    """A task with an essential router that must be killed after the work."""
    router = ["sh", "-c", "trap 'exit 137' TERM; while :; do sleep 0.02; done"]  # as if killed
    work = ["sh", "-c", "sleep 0.3; echo done"]
    return str(ecs_kit.define(ecs_kit.container(work), ecs_kit.container(router, name="router")))


@pytest.mark.parametrize("waits", ["in the worker", "in the triggerer"])
def test_a_named_container_decides_alone(make: Any, context: Any, with_router: str, waits: str) -> None:
    """Without a name, the router's exit code 137 is a failure; with the main container's name, the task succeeds."""
    parameters = {"task_definition": with_router, "deferrable": waits == "in the triggerer"}

    def outcome(**more: Any) -> Any:
        operator = make(**parameters, **more)
        if not operator._execution.wait.parameters.defers:
            return operator.execute(context)
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context)
        event = asyncio.run(deferral.value.trigger.wait())
        return make(**parameters, **more).execute_complete(context, event, **(deferral.value.kwargs or {}))

    with pytest.raises(exceptions.JobFailed, match="exit code 137"):
        outcome()
    context["ti"].id = str(uuid.uuid4())  # with the token of the same task instance, no new task would start
    ended = outcome(container_name="main")
    assert (ended["state"], ended["exit_code"]) == ("SUCCEEDED", 0)
    assert ended["log"]["stream"].startswith("test/main/")


def test_a_named_container_decides_which_task_a_retry_adopts(make: Any, context: Any, with_router: str) -> None:
    """A task whose named container succeeded is not run again because another one was killed."""
    parameters = {"task_definition": with_router, "container_name": "main"}
    first = make(**parameters).execute(context)
    context["ti"].try_number, context["ti"].max_tries = 2, 1
    assert make(**parameters).execute(context)["job_id"] == first["job_id"]


def test_an_unknown_container_is_rejected(ecs_kit: Any, make: Any, context: Any, with_router: str) -> None:
    """No task is started, and the error has the existing names."""
    with pytest.raises(exceptions.InvalidParameter, match=r"container_name='mian': .* which has main, router") as error:
        make(task_definition=with_router, container_name="mian").execute(context)
    assert with_router in str(error.value)
    assert not [each for each in ecs_kit.aws.started("ecs") if f"/{ecs_kit.cluster}/" in each["taskArn"]]


def test_a_start_needs_no_permission_for_the_definition(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """DescribeTaskDefinition may be denied."""
    own_ecs_kit.aws.set_faults(Faults(denied=("ecs.DescribeTaskDefinition",)))
    operator = own_make(container_name="main")
    assert operator.execute(context)["state"] == "SUCCEEDED"


@pytest.mark.parametrize("parameter", ["cluster", "task_definition"])
def test_unknown_resources_are_rejected(make: Any, context: Any, parameter: str) -> None:
    """No task is started, and the Airflow task is not retried."""
    with pytest.raises(exceptions.SubmissionRejected, match="nothing was started"):
        make(**{parameter: "nowhere"}).execute(context)


def test_a_definition_that_cannot_run_on_fargate_is_rejected(ecs_kit: Any, make: Any, context: Any) -> None:
    """The error has AWS's message."""
    definition = ecs_kit.define(requiresCompatibilities=["EC2"])
    with pytest.raises(exceptions.SubmissionRejected, match="FARGATE"):
        make(task_definition=definition).execute(context)


OVERRIDES = {"containerOverrides": [{"name": "main", "command": ["b"]}]}
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-2"]}}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"subnets": None}, "subnets=None: a Fargate task needs at least one subnet"),
        ({"subnets": []}, r"subnets=\[\]: a Fargate task needs"),
        ({"subnets": "subnet-1"}, "subnets='subnet-1': must be a list"),
        ({"network_configuration": NETWORK}, r"subnets=\['subnet-1'\]: is also set in network_configuration"),
        ({"on_spot_interruption": "panic"}, "on_spot_interruption='panic': must be one of fail, retry, on_demand"),
        ({"capacity_provider_strategy": {"FARGATE": "much"}}, r"capacity_provider_strategy\['FARGATE'\]='much'"),
        ({"cpu": 1}, "cpu=1: must be a number of at least 256"),
        ({"cluster": None}, "cluster=None"),
        (
            {"command": ["a"], "container_name": "main", "overrides": OVERRIDES},
            r"command=\['a'\]: is also set in overrides",
        ),
        ({"command": ["a"], "overrides": OVERRIDES}, r"command=\['a'\]: is also set in overrides"),
    ],
)
def test_invalid_parameters_start_no_task(make: Any, context: Any, parameters: dict[str, Any], words: str) -> None:
    """The error has the parameter, the value and the rule."""
    with pytest.raises(exceptions.InvalidParameter, match=words):
        make(**parameters).execute(context)


def test_a_command_with_overrides_of_another_container(ecs_kit: Any, make: Any, context: Any) -> None:
    """The main container is the first essential one of the definition."""
    sidecar = ecs_kit.container(["false"], name="sidecar", essential=False)
    definition = ecs_kit.define(sidecar, ecs_kit.container(["false"]))
    overrides = {"containerOverrides": [{"name": "sidecar", "command": ["true"]}]}
    outcome = make(task_definition=definition, command=["true"], overrides=overrides).execute(context)
    assert outcome["state"] == "SUCCEEDED"


def test_the_full_network_configuration_is_accepted(ecs_kit: Any, make: Any, context: Any) -> None:
    """It replaces the short forms."""
    assert make(subnets=None, network_configuration=NETWORK).execute(context)["state"] == "SUCCEEDED"


def test_statuses_and_stop_codes_are_those_of_botocore() -> None:
    """A missing one would be classified wrongly."""
    import botocore.session

    model: Any = botocore.session.get_session().get_service_model("ecs")
    codes = set(model.shape_for("TaskStopCode").enum)
    assert {*ecs_snapshot.BY_REQUEST, "TaskFailedToStart", "EssentialContainerExited"} <= codes
    said = set(FARGATE_PARAMETERS.members.values()) | {"launchType", "count", "clientToken", "startedBy"}
    on_ec2_only = {"placementConstraints", "placementStrategy"}
    assert said | on_ec2_only == set(model.operation_model("RunTask").input_shape.members)


TELLS = (
    """echo "JOBFLOW_RESULT [\\"$AIRFLOW_CTX_DAG_ID\\", \\"$AIRFLOW_CTX_TRY_NUMBER\\", \\"$JOBFLOW_RESULT_URI\\"]" """
)


def test_a_fargate_task_gets_its_variables_and_returns_a_result(make: Any, context: Any) -> None:
    """Its definition says which container gets the variables."""
    outcome = make(TELLS, result="log").execute(context)
    assert outcome["result"] == [context["ti"].dag_id, "1", ""]
    assert outcome["usage"]["capacity"] == "FARGATE"
    assert outcome["usage"]["vcpu_seconds"] >= 0
