"""Jobs and tasks of several containers on the local AWS: their order, which end counts, and their results."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.containers import Progress, may_start

FOREVER = "while :; do sleep 0.02; done"
ASIDE: dict[str, Any] = {"essential": False}


def until(file: Any) -> str:
    """Return a script that waits for a file."""
    return f"while [ ! -e {file} ]; do sleep 0.02; done"


def after(other: str, condition: str) -> dict[str, Any]:
    """Return a container that depends on another one."""
    return {"dependsOn": [{"containerName": other, "condition": condition}]}


class BatchJobs:
    """Runs containers as a Batch job."""

    def __init__(self, kit: Any) -> None:
        self.kit = kit

    def run(self, **containers: dict[str, Any]) -> dict[str, Any]:
        """Run containers to their end; return their results by name, and the result of the whole."""
        job = self.kit.wait(self.kit.submit(jobDefinition=self.kit.define_several(**containers)))
        (task,) = job["ecsProperties"]["taskProperties"]
        shown = {each["name"]: each for each in task["containers"]}
        (attempt,) = job["attempts"]
        ended = {each["name"]: each.get("exitCode") for each in attempt["taskProperties"][0]["containers"]}
        assert ended == {name: each.get("exitCode") for name, each in shown.items()}
        assert "container" not in job
        assert "container" not in attempt
        return {**shown, "status": job["status"], "reason": job["statusReason"]}

    def lines(self, container: dict[str, Any]) -> list[str]:
        """Return the output of a container."""
        return list(self.kit.lines(container["logStreamName"]))


class EcsTasks:
    """Runs containers as an ECS task."""

    def __init__(self, kit: Any) -> None:
        self.kit = kit

    def run(self, **containers: dict[str, Any]) -> dict[str, Any]:
        """Run containers to their end; return their results by name, and the result of the whole."""
        several = [
            self.kit.container(["sh", "-c", each["script"]], name=name)
            | {member: value for member, value in each.items() if member != "script"}
            for name, each in containers.items()
        ]
        arn = self.kit.run(*several)
        task = self.kit.wait(arn)
        shown = {each["name"]: {**each, "task": arn} for each in task["containers"]}
        failed = task["stopCode"] != "EssentialContainerExited" or any(
            each.get("exitCode") for name, each in shown.items() if containers[name].get("essential", True)
        )
        return {**shown, "status": "FAILED" if failed else "SUCCEEDED", "reason": task["stoppedReason"]}

    def lines(self, container: dict[str, Any]) -> list[str]:
        """Return the output of a container."""
        return list(self.kit.lines(container["task"], container["name"]))


@pytest.fixture(params=[BatchJobs, EcsTasks])
def runs(request: pytest.FixtureRequest) -> Any:
    """Run containers on either service."""
    return request.param(request.getfixturevalue("kit" if request.param is BatchJobs else "ecs_kit"))


def codes(ended: dict[str, Any]) -> dict[str, int | None]:
    """Return the exit codes by container."""
    return {name: each.get("exitCode") for name, each in ended.items() if isinstance(each, dict)}


def test_the_end_of_a_sidecar_has_no_effect(runs: Any, tmp_path: Any) -> None:
    """Its exit code does not matter; each container has its own log."""
    ended = runs.run(
        sidecar={"script": f"echo beside; touch {tmp_path}/over; exit 3", **ASIDE},
        main={"script": f"{until(tmp_path / 'over')}; echo work"},
    )
    assert codes(ended) == {"sidecar": 3, "main": 0}
    assert ended["status"] == "SUCCEEDED"
    assert (runs.lines(ended["sidecar"]), runs.lines(ended["main"])) == (["beside"], ["work"])


def test_the_end_of_an_essential_container_stops_the_others(runs: Any, tmp_path: Any) -> None:
    """A container that handles SIGTERM ends with 143, the others are killed; neither hides the first exit code."""
    up = f"touch {tmp_path}/"
    ended = runs.run(
        deaf={"script": f"{up}deaf; {FOREVER}", **ASIDE},
        polite={"script": f"trap 'exit 143' TERM; {up}polite; {FOREVER}"},
        main={"script": f"{until(tmp_path / 'deaf')}; {until(tmp_path / 'polite')}; exit 2"},
    )
    assert codes(ended) == {"deaf": 137, "polite": 143, "main": 2}
    assert (ended["status"], ended["reason"]) == ("FAILED", "Essential container in task exited")


def test_containers_start_in_the_order_of_their_dependencies(runs: Any, tmp_path: Any) -> None:
    """The proxy must have started before main, and the preparation must have succeeded."""
    ended = runs.run(
        main={
            "script": f"[ -e {tmp_path}/prepared ] && [ -e {tmp_path}/proxy ]",
            "dependsOn": [
                {"containerName": "prepare", "condition": "SUCCESS"},
                {"containerName": "cleanup", "condition": "COMPLETE"},
                {"containerName": "proxy", "condition": "START"},
            ],
        },
        prepare={"script": f"{until(tmp_path / 'proxy')}; touch {tmp_path}/prepared", **ASIDE},
        cleanup={"script": "exit 7", **ASIDE},
        proxy={"script": f"touch {tmp_path}/proxy; {FOREVER}", **ASIDE},
    )
    assert codes(ended) == {"main": 0, "prepare": 0, "cleanup": 7, "proxy": 137}
    assert ended["status"] == "SUCCEEDED"


def test_a_container_that_depends_on_a_failure_is_never_started(runs: Any) -> None:
    """Its own dependents do not start either; because it is essential, the whole job fails to start."""
    ended = runs.run(
        main={"script": "exit 0", "dependsOn": [{"containerName": "middle", "condition": "START"}]},
        middle={"script": "exit 0", "dependsOn": [{"containerName": "prepare", "condition": "SUCCESS"}], **ASIDE},
        prepare={"script": "exit 9", **ASIDE},
    )
    assert codes(ended) == {"main": None, "middle": None, "prepare": 9}
    assert (ended["status"], ended["reason"]) == ("FAILED", "Task failed to start")


def test_a_job_of_many_containers_takes_one_slot(own_aws: LocalAws, own_kit: Any, tmp_path: Any) -> None:
    """On two slots, more containers than slots wait for each other, and all end."""
    names = [f"c{number}" for number in range(5)]
    all_up = "; ".join(until(tmp_path / each) for each in names)
    scripts = {name: {"script": f"touch {tmp_path}/{name}; {all_up}", "essential": name == "c0"} for name in names}
    assert own_kit.wait(own_kit.submit(jobDefinition=own_kit.define_several(**scripts)))["status"] == "SUCCEEDED"


def test_a_terminated_job_ends_all_its_containers(kit: Any) -> None:
    """Containers that have not started never do, and have no exit code."""
    definition = kit.define_several(
        main={"script": f"echo up; {FOREVER}"},
        late={"script": "true", "dependsOn": [{"containerName": "wait", "condition": "COMPLETE"}]},
        wait={"script": FOREVER, **ASIDE},
    )
    job_id = kit.submit(jobDefinition=definition)
    kit.wait(job_id, "RUNNING")
    kit.batch.terminate_job(jobId=job_id, reason="enough")
    job = kit.wait(job_id)
    ended = {each["name"]: each.get("exitCode") for each in job["ecsProperties"]["taskProperties"][0]["containers"]}
    assert ended == {"main": 137, "late": None, "wait": 137}
    assert (job["status"], job["statusReason"]) == ("FAILED", "enough")


def test_a_retry_runs_all_containers_again(kit: Any, tmp_path: Any) -> None:
    """The exit code of the container that ended the attempt decides."""
    script = f"if [ -e {tmp_path}/tried ]; then exit 0; fi; touch {tmp_path}/tried; exit 4"
    definition = kit.define_several(side={"script": FOREVER, **ASIDE}, main={"script": script})
    rules = [{"onExitCode": "4", "action": "RETRY"}, {"onExitCode": "*", "action": "EXIT"}]
    job = kit.wait(kit.submit(jobDefinition=definition, retryStrategy={"attempts": 3, "evaluateOnExit": rules}))
    assert job["status"] == "SUCCEEDED"
    each = [attempt["taskProperties"][0]["containers"] for attempt in job["attempts"]]
    assert [[container.get("exitCode") for container in containers] for containers in each] == [[137, 4], [137, 0]]


def test_overrides_apply_to_the_named_container(kit: Any) -> None:
    """Command and environment are overridden."""
    definition = kit.define_several(main={"script": "echo $WHO"}, side={"script": "echo $WHO", **ASIDE})
    variables = [{"name": "WHO", "value": "main"}]
    override = {"name": "main", "command": ["sh", "-c", "sleep 0.2; echo I am $WHO"], "environment": variables}
    overrides = {"taskProperties": [{"containers": [override]}]}
    job = kit.wait(kit.submit(jobDefinition=definition, ecsPropertiesOverride=overrides))
    main, side = job["ecsProperties"]["taskProperties"][0]["containers"]
    assert (kit.lines(main["logStreamName"]), kit.lines(side["logStreamName"])) == (["I am main"], [""])


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"containerOverrides": {"command": ["true"]}}, "cannot be used with job definition"),
        ({"ecsPropertiesOverride": {"taskProperties": [{"containers": [{"name": "mian"}]}]}}, "does not have: mian"),
    ],
)
def test_overrides_of_unknown_containers_are_rejected(kit: Any, request_: dict[str, Any], said: str) -> None:
    """No job is created."""
    with pytest.raises(kit.batch.exceptions.ClientException, match=said):
        kit.submit(jobDefinition=kit.define_several(main={"script": "true"}), **request_)


@pytest.mark.parametrize(
    ("containers", "said"),
    [
        ({"a": ASIDE}, "At least one container must be essential"),
        ({"a": after("b", "START"), "b": after("a", "START")}, "must not depend on others"),
        ({"a": {}, "b": after("c", "START")}, "c, which is not another container"),
        ({"a": {}, "b": after("a", "COMPLETE")}, "which is essential"),
        ({"a": {}, "b": after("a", "HEALTHY")}, "must be one of START"),
    ],
)
def test_containers_that_could_never_run_are_rejected(kit: Any, containers: dict[str, Any], said: str) -> None:
    """The definition is not registered."""
    with pytest.raises(kit.batch.exceptions.ClientException, match=said):
        kit.define_several(**{name: {"script": "true", **each} for name, each in containers.items()})


def test_definitions_of_several_containers_have_revisions(kit: Any) -> None:
    """They share the revisions with definitions of one container, and DescribeJobDefinitions returns them."""
    first = kit.define(["true"])
    name = first.rsplit("/", 1)[1].split(":")[0]
    properties = {"taskProperties": [{"containers": [{"name": "main", "image": "busybox", "command": ["true"]}]}]}
    second = kit.batch.register_job_definition(jobDefinitionName=name, type="container", ecsProperties=properties)
    assert (second["revision"], second["jobDefinitionName"]) == (2, name)
    (shown,) = kit.batch.describe_job_definitions(jobDefinitions=[second["jobDefinitionArn"]])["jobDefinitions"]
    assert shown["ecsProperties"] == properties
    assert kit.wait(kit.submit(jobDefinition=name))["jobDefinition"] == second["jobDefinitionArn"]


@pytest.mark.parametrize(
    ("condition", "other", "expected"),
    [
        ("START", Progress(), None),
        ("START", Progress(started=True), True),
        ("START", Progress(stopped=True), False),
        ("HEALTHY", Progress(started=True), True),
        ("COMPLETE", Progress(started=True), None),
        ("COMPLETE", Progress(started=True, stopped=True, exit_code=1), True),
        ("SUCCESS", Progress(started=True), None),
        ("SUCCESS", Progress(started=True, stopped=True, exit_code=0), True),
        ("SUCCESS", Progress(started=True, stopped=True, exit_code=1), False),
        ("SUCCESS", Progress(stopped=True), False),
    ],
)
def test_a_condition_is_met_or_not_yet_or_never(condition: str, other: Progress, expected: bool | None) -> None:
    """A condition that can never be met must not be waited for."""
    assert may_start([{"containerName": "other", "condition": condition}], {"other": other}) is expected
    assert may_start([{"containerName": "none", "condition": condition}], {"other": other}) is False
