"""FargateTaskOperator against the local AWS: started once, understood, tried again when Spot capacity goes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.jobs import ecs, ecs_snapshot
from airflow_jobflow.local import Faults
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.operators.ecs_spec import PARAMETERS


@pytest.fixture
def make(ecs_kit: Any, here: Callable[[Any], None]) -> Callable[..., FargateTaskOperator]:
    """Make an operator for the test's cluster that waits here, unless told otherwise."""
    here(ecs_kit.aws)
    return maker(ecs_kit)


def maker(kit: Any) -> Callable[..., FargateTaskOperator]:
    """Make operators for a cluster."""

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
    """An operator on a local AWS of the test's own, for faults."""
    here(own_ecs_kit.aws)
    return maker(own_ecs_kit)


def test_a_task_runs_and_its_outcome_is_returned(ecs_kit: Any, make: Any, context: Any) -> None:
    """In the shape that every service has, with its log and its page in the console."""
    outcome = make("echo hi").execute(context)
    assert (outcome["service"], outcome["state"], outcome["exit_code"]) == ("ecs", "SUCCEEDED", 0)
    task_id = outcome["job_id"].rpartition("/")[2]
    assert outcome["log"] == {"group": ecs_kit.group, "stream": f"test/main/{task_id}"}
    assert f"/clusters/{ecs_kit.cluster}/tasks/{task_id}/" in outcome["console_url"]


def test_a_deferred_task_ends_the_same_way(make: Any, context: Any, gate: Any) -> None:
    """By way of the triggerer, and the same trigger as Batch's."""
    operator = make(f"while [ ! -e {gate} ]; do sleep 0.02; done", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    gate.touch()
    event = asyncio.run(deferred.value.trigger.wait())
    assert operator.execute_complete(context, event)["state"] == "SUCCEEDED"


def test_what_is_said_reaches_the_task(ecs_kit: Any, make: Any, context: Any) -> None:
    """Command, environment, size, tags, network."""
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
def test_capacity_is_said_in_short_or_as_aws_does(ecs_kit: Any, make: Any, context: Any, strategy: Any) -> None:
    """Weights by provider, AWS's list, or either as text."""
    outcome = make(capacity_provider_strategy=strategy).execute(context)
    assert ecs_kit.look(outcome["job_id"])["capacityProviderName"] == "FARGATE_SPOT"


def test_a_failed_task_says_all_a_person_needs(make: Any, context: Any) -> None:
    """Exit code, AWS's reason, diagnosis, log lines."""
    with pytest.raises(exceptions.JobFailed, match="with exit code 3") as error:
        make("echo why; exit 3").execute(context)
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == "command_failed"
    assert "  | why" in str(error.value)


def test_the_essential_container_decides(ecs_kit: Any, make: Any, context: Any) -> None:
    """A sidecar that is killed when the work is done has not failed the task."""
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
def test_a_definition_that_cannot_be_read_now_decides_nothing(
    own_ecs_kit: Any, own_make: Any, context: Any, fault: Faults
) -> None:
    """A passing fault must not make a failure of a sidecar that was killed when the work was done."""
    sidecar = own_ecs_kit.container(["sh", "-c", "sleep 60"], name="sidecar", essential=False)
    worker = own_ecs_kit.container(["sh", "-c", "sleep 1"], name="worker")
    operator = own_make(task_definition=own_ecs_kit.define(sidecar, worker), poll_interval=0.2)
    own_ecs_kit.aws.set_faults(fault)
    own_ecs_kit.ecs.describe_task_definition(taskDefinition=operator.task_definition)  # the next one fails
    assert operator.execute(context)["state"] == "SUCCEEDED"


def test_a_definition_that_may_not_be_read_makes_every_container_count(
    own_ecs_kit: Any, own_make: Any, context: Any
) -> None:
    """There is then no telling them apart; the wait ends all the same."""
    operator = own_make("exit 0")
    own_ecs_kit.aws.set_faults(Faults(denied=("ecs.DescribeTaskDefinition",)))
    assert operator.execute(context)["state"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("cause", "container"),
    [("image_not_pulled", {"image": "missing/image:1"}), ("command_not_found", {"command": ["no-such-command"]})],
)
def test_a_task_that_never_started_is_no_success(
    ecs_kit: Any, make: Any, context: Any, cause: str, container: dict[str, Any]
) -> None:
    """An absent exit code is not 0."""
    definition = ecs_kit.define({**ecs_kit.container(), **container})
    with pytest.raises(exceptions.JobFailed) as error:
        make(task_definition=definition).execute(context)
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == cause
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["exit_code"] is None


def test_a_task_that_somebody_else_stops_is_stopped_not_failed(
    ecs_kit: Any, make: Any, context: Any, gate: Any
) -> None:
    """The stop code comes before the containers."""
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
def test_a_spot_interruption_deserves_another_try(
    own_ecs_kit: Any, own_make: Any, context: Any, policy: str, provider: str
) -> None:
    """On the same capacity or on demand, within one try of the task."""
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=1))
    outcome = own_make("sleep 0.3", on_spot_interruption=policy, **SPOT).execute(context)
    assert outcome["state"] == "SUCCEEDED"
    started = own_ecs_kit.aws.started("ecs")
    assert len({each["clientToken"] for each in started}) == len(started) == 2
    task = own_ecs_kit.look(outcome["job_id"])
    assert (task.get("capacityProviderName") or task["launchType"]) == provider


def test_interruptions_are_not_followed_for_ever(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """The number of attempts is bounded."""
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=99))
    with pytest.raises(exceptions.JobFailed) as error:
        own_make("sleep 5", **SPOT).execute(context)
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == "spot_reclaimed"
    assert len(own_ecs_kit.aws.started("ecs")) == 4


def test_an_interruption_fails_where_told_so(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """on_spot_interruption="fail"."""
    own_ecs_kit.aws.set_faults(Faults(interrupt_spot=1))
    with pytest.raises(exceptions.JobFailed, match="taken away"):
        own_make("sleep 5", on_spot_interruption="fail", **SPOT).execute(context)
    assert len(own_ecs_kit.aws.started("ecs")) == 1


def test_a_start_whose_answer_is_lost_starts_one_task(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """The token makes the call repeatable."""
    operator = own_make()
    own_ecs_kit.aws.set_faults(Faults(actions=("RunTask",), lose_answers=2))
    assert operator.execute(context)["state"] == "SUCCEEDED"
    assert len(own_ecs_kit.aws.started("ecs")) == 1


def test_an_answer_without_a_task_is_no_start(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """RunTask answers 200 with failures[], and for a reason that does not pass."""
    operator = own_make()
    own_ecs_kit.aws.set_faults(Faults(run_task_failures=1, run_task_reason="MISSING"))
    with pytest.raises(exceptions.SubmissionRejected, match=r"nothing was started: .*MISSING"):
        operator.execute(context)


def test_a_task_missing_for_a_while_is_waited_for(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """Just started may be MISSING."""
    own_ecs_kit.aws.set_faults(Faults(visible_after=1))
    assert own_make("sleep 0.1").execute(context)["state"] == "SUCCEEDED"


def test_a_task_past_its_deadline_is_stopped(ecs_kit: Any, make: Any, context: Any, gate: Any) -> None:
    """As with Batch."""
    with pytest.raises(exceptions.JobTimeout, match="It was stopped"):
        make(f"while [ ! -e {gate} ]; do sleep 0.02; done", job_timeout=1).execute(context)
    [arn] = [each["taskArn"] for each in ecs_kit.aws.started("ecs") if f"/{ecs_kit.cluster}/" in each["taskArn"]]
    assert ecs_kit.wait(arn)["stopCode"] == "UserInitiated"


def test_a_task_that_hangs_shows_what_it_wrote_last(make: Any, context: Any, gate: Any) -> None:
    """Where it logs, only its definition says, which is not read before."""
    with pytest.raises(exceptions.JobTimeout) as error:
        make(f"echo stuck; while [ ! -e {gate} ]; do sleep 0.02; done", job_timeout=2).execute(context)
    assert "\nLast lines of the log:\n  | stuck\nConsole: https://" in str(error.value)


@pytest.fixture
def with_router(ecs_kit: Any) -> str:
    """A task whose router, which is essential, has to be killed once the work is done."""
    router = ["sh", "-c", "trap 'exit 137' TERM; while :; do sleep 0.02; done"]  # as if killed
    work = ["sh", "-c", "sleep 0.3; echo done"]
    return str(ecs_kit.define(ecs_kit.container(work), ecs_kit.container(router, name="router")))


@pytest.mark.parametrize("waits", ["in the worker", "in the triggerer"])
def test_a_named_container_decides_alone(make: Any, context: Any, with_router: str, waits: str) -> None:
    """Without a name the router's 137 is a failure; with one, the work was done."""
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
    context["ti"].id = str(uuid.uuid4())  # the token of the same task instance starts nothing new
    ended = outcome(container_name="main")
    assert (ended["state"], ended["exit_code"]) == ("SUCCEEDED", 0)
    assert ended["log"]["stream"].startswith("test/main/")


def test_a_named_container_decides_what_a_retry_takes_over(make: Any, context: Any, with_router: str) -> None:
    """A task that has succeeded by its name is not run again because another container was killed."""
    parameters = {"task_definition": with_router, "container_name": "main"}
    first = make(**parameters).execute(context)
    context["ti"].try_number, context["ti"].max_tries = 2, 1
    assert make(**parameters).execute(context)["job_id"] == first["job_id"]


def test_a_container_that_does_not_exist_is_refused(ecs_kit: Any, make: Any, context: Any, with_router: str) -> None:
    """Before anything is started, and with the names that there are."""
    with pytest.raises(exceptions.InvalidParameter, match=r"container_name='mian': .* which has main, router") as error:
        make(task_definition=with_router, container_name="mian").execute(context)
    assert with_router in str(error.value)
    assert not [each for each in ecs_kit.aws.started("ecs") if f"/{ecs_kit.cluster}/" in each["taskArn"]]


def test_a_definition_that_may_not_be_read_starts_all_the_same(own_ecs_kit: Any, own_make: Any, context: Any) -> None:
    """The permission for it is not needed."""
    own_ecs_kit.aws.set_faults(Faults(denied=("ecs.DescribeTaskDefinition",)))
    operator = own_make(container_name="main")
    assert operator.execute(context)["state"] == "SUCCEEDED"


@pytest.mark.parametrize("parameter", ["cluster", "task_definition"])
def test_what_does_not_exist_is_refused(make: Any, context: Any, parameter: str) -> None:
    """Nothing is started, and nothing retried."""
    with pytest.raises(exceptions.SubmissionRejected, match="nothing was started"):
        make(**{parameter: "nowhere"}).execute(context)


def test_a_definition_that_cannot_run_on_fargate_is_refused(ecs_kit: Any, make: Any, context: Any) -> None:
    """With AWS's words."""
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
def test_bad_input_starts_nothing(make: Any, context: Any, parameters: dict[str, Any], words: str) -> None:
    """Said with the parameter, the value and the rule."""
    with pytest.raises(exceptions.InvalidParameter, match=words):
        make(**parameters).execute(context)


def test_a_command_goes_beside_another_containers(ecs_kit: Any, make: Any, context: Any) -> None:
    """The main container is the definition's first essential one."""
    sidecar = ecs_kit.container(["false"], name="sidecar", essential=False)
    definition = ecs_kit.define(sidecar, ecs_kit.container(["false"]))
    overrides = {"containerOverrides": [{"name": "sidecar", "command": ["true"]}]}
    outcome = make(task_definition=definition, command=["true"], overrides=overrides).execute(context)
    assert outcome["state"] == "SUCCEEDED"


def test_the_full_network_configuration_can_be_said(ecs_kit: Any, make: Any, context: Any) -> None:
    """In place of the short forms."""
    assert make(subnets=None, network_configuration=NETWORK).execute(context)["state"] == "SUCCEEDED"


def test_status_and_stop_codes_are_botocores() -> None:
    """A status or code that is forgotten is decided wrongly."""
    import botocore.session

    model: Any = botocore.session.get_session().get_service_model("ecs")
    codes = set(model.shape_for("TaskStopCode").enum)
    assert {*ecs_snapshot.BY_REQUEST, *ecs.INTERRUPTIONS, "TaskFailedToStart", "EssentialContainerExited"} <= codes
    said = set(PARAMETERS.members.values()) | {"launchType", "count", "clientToken", "startedBy"}
    on_ec2_only = {"placementConstraints", "placementStrategy"}
    assert said | on_ec2_only == set(model.operation_model("RunTask").input_shape.members)
