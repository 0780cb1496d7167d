"""ECS tasks: the environment of a container, and the end of a task."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def ending(task: dict[str, Any]) -> tuple[str, str]:
    """Return stop code and reason of a task."""
    return task["stopCode"], task["stoppedReason"]


def test_output_is_in_the_log_stream_of_the_container(ecs_kit: Any) -> None:
    """The stream's name consists of prefix, container and task id; all times are set, in order."""
    task = ecs_kit.wait(ecs_kit.sh("echo out; echo err >&2; printf last"))
    assert ending(task) == ("EssentialContainerExited", "Essential container in task exited")
    assert (task["lastStatus"], task["desiredStatus"]) == ("STOPPED", "STOPPED")
    (container,) = task["containers"]
    assert (container["lastStatus"], container["exitCode"]) == ("STOPPED", 0)
    assert ecs_kit.lines(task["taskArn"]) == ["out", "err", "last"]
    names = ("created", "pullStarted", "pullStopped", "started", "executionStopped", "stopped")
    moments = [task[f"{name}At"] for name in names]
    assert moments == sorted(moments)
    assert task["startedAt"] <= task["stoppingAt"] <= task["stoppedAt"]
    assert task["connectivityAt"] >= task["createdAt"]


def test_container_has_a_minimal_environment(ecs_kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the variables of the definition and the overrides, and those to find this AWS."""
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    environment = [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]
    overrides = {"containerOverrides": [{"name": "main", "environment": [{"name": "B", "value": "two words"}]}]}
    container = ecs_kit.container(["env"], environment=environment)
    seen = dict(line.split("=", 1) for line in ecs_kit.output(ecs_kit.run(container, overrides=overrides)))
    assert (seen["A"], seen["B"]) == ("1", "two words")
    assert seen["AWS_EXECUTION_ENV"] == "AWS_ECS_FARGATE"
    assert seen["AWS_ENDPOINT_URL"] == ecs_kit.aws.endpoint_url
    assert "SECRET_OF_THE_SERVER" not in seen


def test_command_may_be_overridden_and_use_boto3(ecs_kit: Any) -> None:
    """`python` is this interpreter, and boto3 in it calls the server that started it."""
    script = "import boto3, sys; print(boto3.client('sts').get_caller_identity()['Account'], sys.prefix)"
    overrides = {"containerOverrides": [{"name": "main", "command": ["-c", script]}]}
    task = ecs_kit.run(ecs_kit.container(["-c", "exit(1)"], entryPoint=["python"]), overrides=overrides)
    assert ecs_kit.output(task) == [f"{ecs_kit.aws.account_id} {sys.prefix}"]


def test_failing_command_shows_its_exit_code(ecs_kit: Any) -> None:
    """The stop code is the same as after a success."""
    task = ecs_kit.wait(ecs_kit.sh("exit 7"))
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["containers"][0]["exitCode"] == 7


def test_missing_image_cannot_be_pulled(ecs_kit: Any) -> None:
    """The task never starts: it has neither an exit code nor a start time."""
    task = ecs_kit.wait(ecs_kit.run(ecs_kit.container(image="missing/image:1")))
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    assert task["containers"][0]["reason"] == task["stoppedReason"]
    assert "exitCode" not in task["containers"][0]
    assert not {"startedAt", "executionStoppedAt", "pullStoppedAt"} & set(task)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["no-such-program"], 'exec: "no-such-program": executable file not found in $PATH'),
        (["/no/such/program"], "no such file or directory"),
        ([], "no command specified"),
    ],
)
def test_command_that_cannot_start_has_no_exit_code(ecs_kit: Any, command: list[str], said: str) -> None:
    """The container's reason explains it."""
    task = ecs_kit.wait(ecs_kit.run(ecs_kit.container(command)))
    assert ending(task) == ("TaskFailedToStart", "Task failed to start")
    (container,) = task["containers"]
    assert container["reason"].startswith("CannotStartContainerError: Error response from daemon: ")
    assert said in container["reason"]
    assert "exitCode" not in container


def test_missing_log_group_fails_the_start(ecs_kit: Any) -> None:
    """The container may create it."""
    options = {"awslogs-group": f"{ecs_kit.group}/none", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "test"}
    log = {"logDriver": "awslogs", "options": options}
    task = ecs_kit.wait(ecs_kit.run(ecs_kit.container(["echo", "x"], logConfiguration=log)))
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("ResourceInitializationError: ")
    assert "The specified log group does not exist" in task["stoppedReason"]
    options["awslogs-create-group"] = "true"
    task = ecs_kit.wait(ecs_kit.run(ecs_kit.container(["echo", "x"], logConfiguration=log)))
    assert ecs_kit.lines(task["taskArn"], group=options["awslogs-group"]) == ["x"]


def test_essential_container_ends_the_task_and_its_sidecar(ecs_kit: Any) -> None:
    """The sidecar is stopped, and has the exit code of a killed process."""
    main, sidecar = ecs_kit.container(["sleep", "0.2"]), ecs_kit.container(["sleep", "60"], name="sidecar")
    task = ecs_kit.wait(ecs_kit.run(main, {**sidecar, "essential": False}))
    codes = {container["name"]: container["exitCode"] for container in task["containers"]}
    assert codes == {"main": 0, "sidecar": 137}
    assert ending(task)[0] == "EssentialContainerExited"


def test_container_that_is_not_essential_may_end_before(ecs_kit: Any, gate: Path) -> None:
    """Its exit code does not matter; the task continues."""
    main = ecs_kit.container(["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done"])
    sidecar = ecs_kit.container(["sh", "-c", "echo side; exit 3"], name="sidecar")
    arn = ecs_kit.run({**sidecar, "essential": False}, main)
    ecs_kit.eventually(lambda: ecs_kit.look(arn)["containers"][0]["lastStatus"] == "STOPPED")
    assert ecs_kit.wait(arn, "RUNNING")["desiredStatus"] == "RUNNING"
    assert ecs_kit.lines(arn, "sidecar") == ["side"]
    gate.touch()
    codes = {container["name"]: container["exitCode"] for container in ecs_kit.wait(arn)["containers"]}
    assert codes == {"main": 0, "sidecar": 3}


def test_any_essential_container_ends_the_task(ecs_kit: Any) -> None:
    """The first one to end decides, with its exit code."""
    first, second = ecs_kit.container(["sleep", "60"]), ecs_kit.container(["sh", "-c", "sleep 0.2; exit 5"], name="b")
    task = ecs_kit.wait(ecs_kit.run(first, second))
    assert [container["exitCode"] for container in task["containers"]] == [137, 5]


def test_stop_ends_a_running_task(ecs_kit: Any) -> None:
    """It has the stop code, the given reason, and a killed container's exit code; an ended task does not change."""
    arn = ecs_kit.sh("sleep 60 & wait")
    ecs_kit.wait(arn, "RUNNING")
    answer = ecs_kit.ecs.stop_task(cluster=ecs_kit.cluster, task=arn, reason="enough")["task"]
    assert (answer["desiredStatus"], answer["stopCode"]) == ("STOPPED", "UserInitiated")
    assert ecs_kit.listed() == set()
    task = ecs_kit.wait(arn)
    assert ending(task) == ("UserInitiated", "enough")
    assert task["containers"][0]["exitCode"] == 137
    again = ecs_kit.ecs.stop_task(cluster=ecs_kit.cluster, task=arn, reason="again")["task"]
    assert ending(again) == ("UserInitiated", "enough")


def test_stopped_task_may_clean_up(ecs_kit: Any) -> None:
    """SIGTERM comes first; a container that handles it ends with its own exit code."""
    arn = ecs_kit.sh("trap 'echo bye; exit 143' TERM; echo up; while true; do sleep 0.05; done")
    ecs_kit.wait(arn, "RUNNING")
    ecs_kit.eventually(lambda: "up" in ecs_kit.lines(arn))
    ecs_kit.ecs.stop_task(cluster=ecs_kit.cluster, task=arn)
    task = ecs_kit.wait(arn)
    assert ending(task) == ("UserInitiated", "Task stopped by user")
    assert task["containers"][0]["exitCode"] == 143
    assert "bye" in ecs_kit.lines(arn)


def test_stop_ends_a_task_that_has_not_started(own_ecs_kit: Any, gate: Path) -> None:
    """A task that waits for a slot ends immediately, and has no exit code."""
    busy = [own_ecs_kit.sh(f"while [ ! -e {gate} ]; do sleep 0.02; done") for _ in range(2)]
    for arn in busy:
        own_ecs_kit.wait(arn, "RUNNING")
    arn = own_ecs_kit.run()
    own_ecs_kit.ecs.stop_task(cluster=own_ecs_kit.cluster, task=arn, reason="enough")
    task = own_ecs_kit.look(arn)
    assert (task["lastStatus"], *ending(task)) == ("STOPPED", "UserInitiated", "enough")
    assert "exitCode" not in task["containers"][0]
    gate.touch()
    for arn in busy:
        assert own_ecs_kit.wait(arn)["containers"][0]["exitCode"] == 0


def test_tasks_of_several_containers_do_not_starve_each_other(own_ecs_kit: Any, tmp_path: Path) -> None:
    """On two slots, tasks of two containers that wait for each other all end."""
    sidecar = own_ecs_kit.container(["sh", "-c", f"touch {tmp_path}/$NAME; sleep 60"], name="sidecar")
    wait = f"while ! rm {tmp_path}/$NAME 2>/dev/null; do sleep 0.02; done"
    main = own_ecs_kit.container(["sh", "-c", wait])
    arns = []
    for number in range(4):
        environment = [{"name": "NAME", "value": f"{own_ecs_kit.cluster}-{number}"}]
        definition = own_ecs_kit.define(
            {**main, "environment": environment}, {**sidecar, "environment": environment, "essential": False}
        )
        arns.append(own_ecs_kit.run(taskDefinition=definition))
    for arn in arns:
        assert own_ecs_kit.wait(arn)["containers"][0]["exitCode"] == 0


def test_unknown_task_cannot_be_stopped(ecs_kit: Any) -> None:
    """The call is rejected, without a server error."""
    with pytest.raises(ecs_kit.ecs.exceptions.InvalidParameterException, match="The referenced task was not found"):
        ecs_kit.ecs.stop_task(cluster=ecs_kit.cluster, task="0" * 32)


def test_spot_interruption_has_a_stop_code(ecs_kit: Any) -> None:
    """The container's exit code is that of a stop by a user, so the stop code must be read first."""
    arn = ecs_kit.sh("sleep 60", capacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT"}])
    ecs_kit.wait(arn, "RUNNING")
    ecs_kit.aws.interrupt_task(arn)
    task = ecs_kit.wait(arn)
    assert ending(task) == ("SpotInterruption", "Your Spot Task was interrupted.")
    assert task["containers"][0]["exitCode"] == 137
    with pytest.raises(ValueError, match="nothing to interrupt"):
        ecs_kit.aws.interrupt_task(arn)


@pytest.mark.parametrize("code", ["ServiceSchedulerInitiated", "TerminationNotice"])
def test_task_can_be_ended_with_any_stop_code(ecs_kit: Any, code: str) -> None:
    """The reason can be chosen, too."""
    arn = ecs_kit.sh("sleep 60")
    ecs_kit.wait(arn, "RUNNING")
    ecs_kit.aws.interrupt_task(arn, stop_code=code, stopped_reason="because")
    assert ending(ecs_kit.wait(arn)) == (code, "because")


def test_lost_host_leaves_no_exit_code(ecs_kit: Any) -> None:
    """A missing exit code is not 0."""
    arn = ecs_kit.sh("sleep 60")
    ecs_kit.wait(arn, "RUNNING")
    ecs_kit.aws.interrupt_task(arn, stop_code="InfrastructureHealth")
    task = ecs_kit.wait(arn)
    assert task["stopCode"] == "InfrastructureHealth"
    assert "exitCode" not in task["containers"][0]


def test_out_of_memory_is_a_reason_of_the_container(ecs_kit: Any) -> None:
    """Reason and exit code are the given ones."""
    arn = ecs_kit.sh("sleep 60")
    ecs_kit.wait(arn, "RUNNING")
    reason = "OutOfMemoryError: Container killed due to memory usage"
    ecs_kit.aws.interrupt_task(arn, stop_code="EssentialContainerExited", container_reason=reason, exit_code=137)
    (container,) = ecs_kit.wait(arn)["containers"]
    assert (container["reason"], container["exitCode"]) == (reason, 137)


def test_unknown_stop_code_is_rejected(ecs_kit: Any) -> None:
    """A misspelled one does not end a task."""
    with pytest.raises(ValueError, match="Unknown stop code: Spot"):
        ecs_kit.aws.interrupt_task(ecs_kit.run(), stop_code="Spot")
