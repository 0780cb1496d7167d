"""The operators with an image in place of a definition, on the local AWS."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_jobflow import exceptions
from airflow_jobflow.aws import Access, run_blocking, service_client
from airflow_jobflow.jobs.registration import LAST_USED, MANAGED, find_or_register
from airflow_jobflow.local import CannedResponse, Faults
from airflow_jobflow.local.samples import EXECUTION_ROLE
from airflow_jobflow.operators import definitions
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from tests.local.conftest import DagRun, Store, TaskInstance

OPERATORS: dict[str, Any] = {
    "batch": BatchJobOperator,
    "batch_map": BatchMapOperator,
    "fargate": FargateTaskOperator,
    "fargate_map": FargateMapOperator,
}
ALL = pytest.mark.parametrize("kind", OPERATORS)
SINGLE = pytest.mark.parametrize("kind", ["batch", "fargate"])
MAPS = pytest.mark.parametrize("kind", ["batch_map", "fargate_map"])


class Runs:
    """Makes operators of one kind that run an image of their own.

    :param kind: the operator.
    :param kit: of its service.
    """

    def __init__(self, kind: str, kit: Any) -> None:
        self.kind = kind
        self.kit = kit
        self.is_batch = kind.startswith("batch")
        self.client = kit.batch if self.is_batch else kit.ecs
        self.image = f"registry/{uuid.uuid4().hex}:1"

    def make(self, **parameters: Any) -> Any:
        """Make the operator, which waits in this process."""
        batch = {"job_name": "hello", "job_queue": self.kit.queue} if self.is_batch else {}
        ecs = {} if self.is_batch else {"cluster": self.kit.cluster, "subnets": ["subnet-1"]}
        items: dict[str, Any] = {"items": [{}, {}]} if self.kind.endswith("_map") else {}
        own = {"task_id": "t", "aws_conn_id": None, "deferrable": False, "image": self.image, "command": ["true"]}
        given = {**own, **batch, **ecs, **items, "execution_role": EXECUTION_ROLE, **parameters}
        return OPERATORS[self.kind](**given)

    def revisions(self) -> list[dict[str, Any]]:
        """The active revisions of the image's definition, as AWS describes them, with their names and tags."""
        if self.is_batch:
            listed = self.client.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
            found = [each for each in listed if each.get("containerProperties", {}).get("image") == self.image]
            return [{**each, "name": f"{each['jobDefinitionName']}:{each['revision']}"} for each in found]
        revisions = []
        for arn in self.client.list_task_definitions()["taskDefinitionArns"]:
            told = self.client.describe_task_definition(taskDefinition=arn, include=["TAGS"])
            described = told["taskDefinition"]
            if described["containerDefinitions"][0]["image"] == self.image:
                tags = {tag["key"]: tag["value"] for tag in told["tags"]}
                revisions.append({**described, "name": arn.rpartition("/")[2], "tags": tags})
        return revisions

    def change(self) -> None:
        """Register a revision by hand, under our name, with more memory."""
        [ours] = self.revisions()
        if self.is_batch:
            container = {**ours["containerProperties"]}
            container["resourceRequirements"] = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "4096"}]
            self.client.register_job_definition(
                jobDefinitionName=ours["jobDefinitionName"],
                type="container",
                platformCapabilities=["FARGATE"],
                containerProperties=container,
                tags=ours["tags"],
            )
            return
        names = ("family", "requiresCompatibilities", "networkMode", "executionRoleArn", "containerDefinitions")
        self.client.register_task_definition(
            **{name: ours[name] for name in names}, cpu="1024", memory="4096", tags=[{"key": MANAGED, "value": "x"}]
        )

    def used(self) -> set[str]:
        """The revisions that were started."""
        if self.is_batch:
            every = [{"name": "JOB_NAME", "values": ["*"]}]
            jobs = self.client.list_jobs(jobQueue=self.kit.queue, filters=every)["jobSummaryList"]
            return {job["jobDefinition"].rpartition("/")[2] for job in jobs}
        described = [
            self.kit.look(each["taskArn"])
            for each in self.kit.aws.started("ecs")
            if f"/{self.kit.cluster}/" in each["taskArn"]
        ]
        return {task["taskDefinitionArn"].rpartition("/")[2] for task in described}


@pytest.fixture
def new_context() -> Callable[[], Any]:
    """Makes what Airflow hands to ``execute``, of a task instance each."""
    return lambda: {"ti": TaskInstance(), "dag_run": DagRun(), "task_state_store": Store()}


@pytest.fixture
def runs(kind: str, request: pytest.FixtureRequest, here: Callable[[Any], None]) -> Runs:
    """Operators of a kind on the local AWS that tests share."""
    kit = request.getfixturevalue("kit" if kind.startswith("batch") else "ecs_kit")
    here(kit.aws)
    return Runs(kind, kit)


@pytest.fixture
def own_runs(kind: str, request: pytest.FixtureRequest, here: Callable[[Any], None]) -> Runs:
    """The same on a local AWS of the test's own, for faults."""
    kit = request.getfixturevalue("own_kit" if kind.startswith("batch") else "own_ecs_kit")
    here(kit.aws)
    return Runs(kind, kit)


@ALL
def test_an_image_runs_without_a_definition_that_somebody_registered(
    runs: Runs, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The first start registers it; the log names the revision."""
    caplog.set_level(logging.INFO)
    assert runs.make().execute(context)["state"] == "SUCCEEDED"
    [revision] = runs.revisions()
    assert runs.used() == {revision["name"]}
    assert revision["name"].startswith("jobflow-")
    assert set(revision["tags"]) == {MANAGED, LAST_USED}
    assert f"Registered definition {revision['name']}" in caplog.text


@ALL
def test_many_starts_register_once_and_look_up_once(runs: Runs, new_context: Callable[[], Any]) -> None:
    """Whatever differs between the runs, as long as it is not the image, the size or a role."""
    before = runs.kit.aws.calls
    for number in range(5):
        runs.make(environment={"DAY": str(number)}).execute(new_context())
    calls = runs.kit.aws.calls - before
    asked = {name: count for name, count in calls.items() if "Definition" in name}
    lookup = "batch.DescribeJobDefinitions" if runs.is_batch else "ecs.DescribeTaskDefinition"
    register = "batch.RegisterJobDefinition" if runs.is_batch else "ecs.RegisterTaskDefinition"
    # Where a task logs, and which of its containers are essential, is read once for each definition.
    assert asked == {lookup: 1 if runs.is_batch else 2, register: 1}
    assert len(runs.revisions()) == 1


@ALL
def test_another_process_finds_the_definition(runs: Runs, new_context: Callable[[], Any]) -> None:
    """Each task of Airflow runs in a process of its own."""
    for _ in range(3):
        definitions.forget_definitions()
        runs.make().execute(new_context())
    [revision] = runs.revisions()
    assert runs.used() == {revision["name"]}


@ALL
def test_a_definition_that_was_changed_by_hand_is_not_used(
    runs: Runs, new_context: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what differs, and ours is registered anew."""
    runs.make().execute(new_context())
    runs.change()
    definitions.forget_definitions()
    runs.make().execute(new_context())
    first, changed, ours = sorted(each["name"] for each in runs.revisions())
    assert runs.used() == {first, ours}
    assert f"Somebody changed definition {changed}: " in caplog.text


@SINGLE
def test_a_deregistered_definition_is_registered_again(runs: Runs, new_context: Callable[[], Any]) -> None:
    """By the next process that starts a job."""
    runs.make().execute(new_context())
    [revision] = runs.revisions()
    if runs.is_batch:
        runs.client.deregister_job_definition(jobDefinition=revision["name"])
    else:
        runs.client.deregister_task_definition(taskDefinition=revision["name"])
    definitions.forget_definitions()
    runs.make().execute(new_context())
    assert [each["revision"] for each in runs.revisions()] == [2]


@ALL
def test_an_image_that_does_not_exist_fails_the_job_with_a_diagnosis(runs: Runs, context: Any) -> None:
    """AWS pulls it when the job starts."""
    with pytest.raises(exceptions.JobFailed, match="CannotPullContainerError") as raised:
        runs.make(image=f"missing/{uuid.uuid4().hex}").execute(context)
    assert "image" in str(raised.value)


@SINGLE
def test_a_throttled_registration_waits(own_runs: Runs, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a start that AWS throttles: nothing was started, and no retry is used up."""
    monkeypatch.setattr("airflow_jobflow.operators.submission.PATIENCE", 0.0)
    actions = ("RegisterJobDefinition", "RegisterTaskDefinition")
    throttled = CannedResponse("ThrottlingException", "Rate exceeded", actions=actions, calls=2)
    own_runs.kit.aws.set_faults(Faults(respond_with=(throttled,)))
    assert own_runs.make().execute(context)["state"] == "SUCCEEDED"
    assert len(own_runs.revisions()) == 1


@pytest.mark.parametrize("kind", ["fargate"])
def test_a_registration_that_meets_another_one_uses_what_that_registered(
    own_runs: Runs, new_context: Callable[[], Any]
) -> None:
    """ECS refuses all but one of several at the same time; the error is no rejection."""
    message = "Too many concurrent attempts to create a new revision of the specified family."
    refused = CannedResponse(
        "ClientException", message, actions=("RegisterTaskDefinition",), calls=1, takes_effect=True
    )
    own_runs.kit.aws.set_faults(Faults(respond_with=(refused,)))
    assert own_runs.make().execute(new_context())["state"] == "SUCCEEDED"
    assert len(own_runs.revisions()) == 1


@ALL
def test_registrations_at_the_same_time_end_with_one_in_use(runs: Runs, new_context: Callable[[], Any]) -> None:
    """Of workers that all found none. No start fails, and all later ones use the same revision."""
    service = "batch" if runs.is_batch else "ecs"
    image = {"image": runs.image, "execution_role": EXECUTION_ROLE}
    build = (definitions.of_batch(image) if runs.is_batch else definitions.of_ecs(image, "FARGATE")).build
    assert build

    def worker(_: int) -> str:
        return run_blocking(
            service_client(Access(None), service), find_or_register, service, build("us-east-1"), "2026-11-28"
        )

    with ThreadPoolExecutor(8) as pool:
        registered = set(pool.map(worker, range(8)))
    for _ in range(2):
        definitions.forget_definitions()
        runs.make().execute(new_context())
    [used] = runs.used()
    newest = max(runs.revisions(), key=lambda each: each["revision"])
    assert used == newest["name"]
    assert used in registered


@ALL
def test_a_denied_registration_is_reported(own_runs: Runs, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the call; nothing was started."""
    monkeypatch.setattr("airflow_jobflow.operators.submission.PATIENCE", 0.0)
    own_runs.kit.aws.set_faults(Faults(denied=("RegisterJobDefinition", "RegisterTaskDefinition")))
    with pytest.raises(exceptions.SubmissionError, match=r"not permitted, and nothing was started.*Register\w+Defin"):
        own_runs.make().execute(context)


@MAPS
def test_a_map_makes_one_lookup_for_all_its_items(runs: Runs, context: Any) -> None:
    """And items may have sizes of their own."""
    sized = {"vcpus": 1} if runs.is_batch else {"cpu": 1024}
    items: list[dict[str, Any]] = [*({} for _ in range(5)), {**sized, "memory": 2048}]
    result = runs.make(items=items).execute(context)
    assert result["statuses"] == "SSSSSS"
    assert len(runs.revisions()) == 1


@MAPS
def test_a_size_of_an_item_that_fargate_does_not_have_is_rejected(runs: Runs, context: Any) -> None:
    """Before anything is started; the item and the nearest size are named."""
    with pytest.raises(exceptions.InvalidParameter, match=r"items\[1\]=.*the nearest has 1 vCPU .* and 8192 MiB"):
        runs.make(items=[{}, {"memory": 8000}]).execute(context)
    assert runs.revisions() == []


@SINGLE
def test_a_definition_in_aws_shape_runs(runs: Runs, context: Any) -> None:
    """Rendered as JSON, as a template has it."""
    if runs.is_batch:
        container = {"image": runs.image, "vcpus": 1, "memory": 128, "command": ["sh", "-c", "exit $CODE"]}
        given: dict[str, Any] = {"jobDefinitionName": "mine", "containerProperties": container}
    else:
        container = {"name": "etl", "image": runs.image, "command": ["sh", "-c", "exit $CODE"]}
        fargate = {"requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "cpu": "256", "memory": "512"}
        given = {"family": "mine", "containerDefinitions": [container], **fargate}
    ours = {"image": None, "execution_role": None, "command": None, "definition": json.dumps(given)}
    outcome = runs.make(**ours, environment={"CODE": "0"}).execute(context)
    assert outcome["state"] == "SUCCEEDED"
    [revision] = runs.revisions()
    assert revision["name"].startswith("jobflow-mine-")
    assert runs.used() == {revision["name"]}


@pytest.mark.parametrize("kind", ["fargate"])
def test_the_container_of_an_image_can_be_named(runs: Runs, context: Any) -> None:
    """And then it is the one that counts."""
    outcome = runs.make(container_name="etl", environment={"A": "1"}).execute(context)
    assert outcome["state"] == "SUCCEEDED"
    [revision] = runs.revisions()
    assert [each["name"] for each in revision["containerDefinitions"]] == ["etl"]


@ALL
def test_what_makes_the_definition_is_templated(kind: str) -> None:
    """An image by date, a role by environment."""
    names = {"image", "definition", "job_role", "execution_role", "log_group"}
    assert names <= set(OPERATORS[kind].template_fields)
