"""The IAM policies: each allows the calls of its operator or sensors, and nothing more.

Every call is recorded as boto3 makes it, while an operator runs through all of its scenarios on the template's own
resources. A call that the policy does not allow fails the test, and so does a permission that no call needed.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore
import botocore.session
import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome
from cfnlint.data import AdditionalSpecs  # type: ignore[import-untyped]
from cfnlint.helpers import load_resource  # type: ignore[import-untyped]

import airflow_jobflow
from airflow_jobflow import exceptions
from airflow_jobflow import results as read_results
from airflow_jobflow.aws import ONCE, Access, RetriedCall, service_client
from airflow_jobflow.definition_cleanup import deregister_unused_definitions
from airflow_jobflow.events.asset_stream import StateChangeStream
from airflow_jobflow.jobs import results
from airflow_jobflow.jobs.model import JobState, Snapshot
from airflow_jobflow.jobs.owner import ARGUMENT, Owner, attempt_token
from airflow_jobflow.jobs.registration import LAST_USED, REGISTRIES, find_or_register
from airflow_jobflow.local import Faults
from airflow_jobflow.operators import definitions
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator, GlueJobRunOperator
from airflow_jobflow.reaper import stop_orphans
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.sensors.ecs import FargateTaskSensor
from airflow_jobflow.sensors.glue import GlueCrawlSensor, GlueJobRunSensor
from airflow_jobflow.watchers import shared_watcher
from tests.infra.deployment import Stack
from tests.infra.permissions import NEEDS, Call, actions, problems
from tests.local.conftest import DagRun, Store, TaskInstance, eventually
from tests.local.tries import RESPONSE, killed, retried

TAGS = {"team": "a"}
FAILS, LASTS = "echo why >&2; exit 1", "sleep 60"
BATCH = {"job_name": "t", "job_queue": "hello-world-queue", "job_definition": "hello-world"}
JOB_SCRIPT = "import sys, time\nif 'fail' in sys.argv: sys.exit('why')\nif 'last' in sys.argv: time.sleep(60)"
CLIENT_CALL = re.compile(
    r"""\bclient(?:\([^)]*\))?\.([a-z_]+)\("""
    r"""|\b(?:call|_pages|_change|_run)\((?:self\._change, |call, )?"([a-z_]+)\""""
)


class Airflow:
    """Runs an operator or a sensor like Airflow.

    :param stack: the stack on which it runs.
    :param calls: the calls that were made.
    :param defaults: parameters of all tasks.
    """

    def __init__(self, stack: Stack, calls: list[Call], **defaults: Any) -> None:
        self.stack = stack
        self.calls = calls
        self.aws = stack.aws
        self.defaults = {"task_id": "t", "aws_conn_id": None, "deferrable": False, **defaults}

    def context(self) -> dict[str, Any]:
        """Return the context of a task's first try."""
        return {"ti": TaskInstance(), "dag_run": DagRun(), "task_state_store": Store()}

    def runs(self, kind: Any, context: Any = None, **parameters: Any) -> Any:
        """Run a task to its end on the worker."""
        return kind(**{**self.defaults, **parameters}).execute(context or self.context())

    def fails(self, kind: Any, error: type[Exception], context: Any = None, **parameters: Any) -> None:
        """Run a task that fails."""
        with pytest.raises(error):
            self.runs(kind, context, **parameters)

    def dies(self, kind: Any, at: str, context: Any, monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> None:
        """Run a task whose worker is killed before it calls a method, or at `RESPONSE`; a retry comes next."""
        killed(kind(**{**self.defaults, **parameters}), at, context, monkeypatch)
        retried(context)

    def defers(self, kind: Any, **parameters: Any) -> Any:
        """Execute a task until it defers, and return its trigger."""
        operator = kind(**{**self.defaults, "deferrable": True, **parameters})
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(self.context())
        return deferred.value.trigger

    def is_killed(self, kind: Any, **parameters: Any) -> None:
        """Execute a task until it defers, and kill it like a user."""
        asyncio.run(self.defers(kind, **parameters).on_kill())

    def map_is_killed(self, kind: Any, start: str, **parameters: Any) -> None:
        """Run a map until its trigger has made a call that starts a job, and kill it."""
        trigger, before = self.defers(kind, **parameters), self.aws.calls[start]

        async def run() -> None:
            waiting = asyncio.create_task(trigger.wait())
            await asyncio.to_thread(eventually, lambda: self.aws.calls[start] > before)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await trigger.on_kill()

        asyncio.run(run())

    @contextmanager
    def lost_response(self, call: str) -> Iterator[None]:
        """Lose the response to the next such call."""
        self.aws.set_faults(Faults(actions=(call,), lose_answers=1))
        try:
            yield
        finally:
            self.aws.set_faults(Faults())

    @contextmanager
    def no_environment(self) -> Iterator[None]:
        """Disable the compute environments."""
        batch, name = self.aws.client("batch"), self.stack.ids["ComputeEnvironment"]
        batch.update_compute_environment(computeEnvironment=name, state="DISABLED")
        try:
            yield
        finally:
            batch.update_compute_environment(computeEnvironment=name, state="ENABLED")

    @contextmanager
    def no_data(self) -> Iterator[None]:
        """Let the crawler crawl a missing folder."""
        glue, targets = self.aws.client("glue"), self.stack.properties("Crawler")["Targets"]
        glue.update_crawler(Name="se2_in0", Targets={"S3Targets": [{"Path": "s3://there-is-no-such-bucket/"}]})
        try:
            yield
        finally:
            glue.update_crawler(Name="se2_in0", Targets=targets)


@pytest.fixture(autouse=True)
def _found(here: Callable[[Any], None], stack: Stack) -> None:
    """Make this process use the stack's AWS."""
    here(stack.aws)


def sh(script: str) -> list[str]:
    """Return a shell script as a command."""
    return ["sh", "-c", script]


def python(script: str) -> list[str]:
    """Return a command for the task definition, whose entry point is Python."""
    return ["-c", script]


# The scenarios of each operator and sensor.


def batch_job(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, fail, fail as an array, be retried, lose a response, stay in the queue, time out, be killed."""
    job = {**BATCH, "kind": BatchJobOperator}
    airflow.runs(**job, tags=TAGS, stream_logs=True)
    airflow.fails(**job, error=exceptions.JobFailed, command=sh(FAILS))
    context = airflow.context()
    airflow.fails(**job, error=exceptions.JobFailed, context=context, command=sh(FAILS), array_size=2)
    retried(context)
    airflow.runs(**job, context=context, array_size=2, redrive=True)
    context = airflow.context()
    airflow.dies(**job, at=RESPONSE, context=context, monkeypatch=monkeypatch)
    airflow.runs(**job, context=context)
    with airflow.lost_response("batch.SubmitJob"):
        airflow.runs(**job)
    with airflow.no_environment():
        airflow.fails(**job, error=exceptions.QueueTimeout, queued_timeout=0.5, cancel_on_timeout=False)
    airflow.fails(**job, error=exceptions.JobTimeout, command=sh(LASTS), job_timeout=0.5)
    airflow.is_killed(**job, command=sh(LASTS))


def batch_map(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, fail, be retried, lose a response, time out, be killed."""
    items = {**BATCH, "kind": BatchMapOperator, "items": [{}, {}]}
    airflow.runs(**items, tags=TAGS)
    context = airflow.context()
    airflow.fails(**items, error=exceptions.JobFailed, context=context, command=sh(FAILS), redrive=True)
    retried(context)
    airflow.runs(**items, context=context, redrive=True)
    context = airflow.context()
    airflow.dies(**items, at="execute_complete", context=context, monkeypatch=monkeypatch)
    airflow.runs(**items, context=context)
    with airflow.lost_response("batch.SubmitJob"):
        airflow.runs(**items)
    airflow.fails(**items, error=exceptions.JobTimeout, command=sh(LASTS), job_timeout=1)
    airflow.map_is_killed(**items, start="batch.SubmitJob", command=sh(LASTS))


def fargate(airflow: Airflow) -> dict[str, Any]:
    """Return where Fargate tasks run, from the stack's output."""
    told = json.loads(airflow.stack.outputs["FargateMapParams"])
    names = ("cluster", "subnets", "assign_public_ip")
    return {
        "task_definition": "process-item",
        "command": python("print('done')"),
        **{name: told[name] for name in names},
    }


def fargate_task(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, fail, be retried, lose a response, time out, be killed."""
    task = {**fargate(airflow), "kind": FargateTaskOperator}
    lasting = {**task, "command": python("import time; time.sleep(60)")}
    airflow.runs(**task, tags=TAGS, stream_logs=True)
    airflow.fails(**{**task, "command": python("raise SystemExit('why')")}, error=exceptions.JobFailed)
    context = airflow.context()
    airflow.dies(**task, at=RESPONSE, context=context, monkeypatch=monkeypatch)
    airflow.runs(**task, context=context)
    with airflow.lost_response("ecs.RunTask"):
        airflow.runs(**task)
    airflow.fails(**lasting, error=exceptions.JobTimeout, job_timeout=0.5)
    airflow.is_killed(**lasting)


def fargate_map(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, fail, be retried, lose a response, time out, be killed."""
    items = {**fargate(airflow), "kind": FargateMapOperator, "items": [{}, {}]}
    airflow.runs(**items, tags=TAGS)
    airflow.fails(**{**items, "command": python("raise SystemExit('why')")}, error=exceptions.JobFailed)
    context = airflow.context()
    airflow.dies(**items, at="execute_complete", context=context, monkeypatch=monkeypatch)
    airflow.runs(**items, context=context)
    with airflow.lost_response("ecs.RunTask"):
        airflow.runs(**items)
    lasting = {**items, "command": python("import time; time.sleep(60)")}
    airflow.fails(**lasting, error=exceptions.JobTimeout, job_timeout=1)
    airflow.map_is_killed(**lasting, start="ecs.RunTask")


def ready(airflow: Airflow) -> None:
    """Wait until the crawler is READY."""
    glue = airflow.aws.client("glue")
    eventually(lambda: glue.get_crawler(Name="se2_in0")["Crawler"]["State"] == "READY")


def idle(airflow: Airflow) -> None:
    """Wait until no run of the job is running, because it allows one at a time."""
    glue = airflow.aws.client("glue")
    over = ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT")
    eventually(lambda: all(run["JobRunState"] in over for run in glue.get_job_runs(JobName="se2_job0")["JobRuns"]))


def glue_crawl_operator(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, join a crawl, fail, be retried, lose a response, time out, be killed."""
    crawl: dict[str, Any] = {"kind": GlueCrawlOperator, "crawler_name": "se2_in0"}
    airflow.runs(**crawl)
    airflow.aws.client("glue").start_crawler(Name="se2_in0")
    airflow.runs(**crawl)
    with airflow.no_data():
        airflow.fails(**crawl, error=exceptions.JobFailed)
    context = airflow.context()
    airflow.dies(**crawl, at=RESPONSE, context=context, monkeypatch=monkeypatch)
    airflow.runs(**crawl, context=context)
    with airflow.lost_response("glue.StartCrawler"):
        airflow.runs(**crawl)
    airflow.fails(**crawl, error=exceptions.JobTimeout, job_timeout=0.1)
    ready(airflow)
    airflow.is_killed(**crawl)
    ready(airflow)


def glue_job_run(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, fail, be retried, lose a response, time out, be killed."""
    run = {"kind": GlueJobRunOperator, "job_name": "se2_job0"}
    lasting: dict[str, Any] = {**run, "script_args": {"--do": "last"}}
    airflow.runs(**run, stream_logs=True)
    airflow.fails(**run, error=exceptions.JobFailed, script_args={"--do": "fail"})
    context = airflow.context()
    airflow.dies(**run, at=RESPONSE, context=context, monkeypatch=monkeypatch)
    airflow.runs(**run, context=context)
    with airflow.lost_response("glue.StartJobRun"):
        airflow.runs(**run)
    airflow.fails(**lasting, error=exceptions.JobTimeout, job_timeout=0.5)
    airflow.is_killed(**lasting)


def batch_sensors(airflow: Airflow, _: pytest.MonkeyPatch) -> None:
    """Wait for a job, for several, and for an array with failed children."""
    batch = airflow.aws.client("batch")

    def submit(script: str, **more: Any) -> str:
        request = {"jobName": "t", "jobQueue": "hello-world-queue", "jobDefinition": "hello-world"}
        return str(batch.submit_job(**request, containerOverrides={"command": sh(script)}, **more)["jobId"])

    airflow.runs(BatchJobSensor, job_id=[submit("true"), submit("true")])
    airflow.fails(BatchJobSensor, exceptions.JobFailed, job_id=submit(FAILS))
    airflow.fails(BatchJobSensor, exceptions.JobFailed, job_id=submit(FAILS, arrayProperties={"size": 2}))
    last = submit(LASTS)
    airflow.fails(BatchJobSensor, exceptions.JobTimeout, job_id=last, job_timeout=0.5)
    batch.terminate_job(jobId=last, reason="the test is over")


def ecs_sensors(airflow: Airflow, _: pytest.MonkeyPatch) -> None:
    """Wait for a task, for several, and for a failed one."""
    ecs = airflow.aws.client("ecs")

    def run(script: str) -> str:
        awsvpc = {"awsvpcConfiguration": {"subnets": airflow.stack.subnets}}
        overrides = {"containerOverrides": [{"name": "process-item", "command": python(script)}]}
        request = {"cluster": "jobflow", "taskDefinition": "process-item", "launchType": "FARGATE"}
        [task] = ecs.run_task(**request, networkConfiguration=awsvpc, overrides=overrides)["tasks"]
        return str(task["taskArn"])

    wait = {"kind": FargateTaskSensor, "cluster": "jobflow"}
    airflow.runs(**wait, task_arn=[run("pass"), run("pass")])
    airflow.fails(**wait, error=exceptions.JobFailed, task_arn=run("raise SystemExit('why')"))


def glue_sensors(airflow: Airflow, _: pytest.MonkeyPatch) -> None:
    """Wait for a crawl, a failed one, a run, several, and a failed one."""
    glue = airflow.aws.client("glue")
    since = "2020-01-01"
    glue.start_crawler(Name="se2_in0")
    ready(airflow)
    airflow.runs(GlueCrawlSensor, crawler_name="se2_in0", since=since)
    [newest, *_] = glue.list_crawls(CrawlerName="se2_in0")["Crawls"]
    after = f"se2_in0@{newest['StartTime'].isoformat()}#{newest['MessagePrefix']}"
    with airflow.no_data():
        glue.start_crawler(Name="se2_in0")
        airflow.fails(GlueCrawlSensor, exceptions.JobFailed, crawler_name=after, since=since)
        ready(airflow)

    def run(**arguments: str) -> str:
        idle(airflow)
        return str(glue.start_job_run(JobName="se2_job0", Arguments=arguments)["JobRunId"])

    wait = {"kind": GlueJobRunSensor, "job_name": "se2_job0"}
    runs = [run(), run()]
    airflow.runs(**wait, run_id=runs)
    airflow.runs(**wait, run_id=runs[0], stream_logs=True)
    airflow.fails(**wait, error=exceptions.JobFailed, run_id=run(**{"--do": "fail"}))


def orphan_reaper(airflow: Airflow, _: pytest.MonkeyPatch) -> None:
    """Stop a job of each service, and find that a Glue run has ended in the meantime."""
    batch, ecs, glue = (airflow.aws.client(name) for name in ("batch", "ecs", "glue"))
    owner = Owner("dag", "task", "run", deployment="here")
    name = f"job-{owner.group}-t1m0c0-{attempt_token('ti', 1)}"
    request = {"jobName": name, "jobQueue": "hello-world-queue", "jobDefinition": "hello-world", "tags": owner.tags()}
    batch.submit_job(**request, containerOverrides={"command": sh(LASTS)})
    ecs.run_task(
        cluster="jobflow",
        taskDefinition="process-item",
        launchType="FARGATE",
        startedBy=owner.group,
        tags=[{"key": key, "value": value} for key, value in owner.tags().items()],
        networkConfiguration={"awsvpcConfiguration": {"subnets": airflow.stack.subnets}},
        overrides={"containerOverrides": [{"name": "process-item", "command": python("import time; time.sleep(60)")}]},
    )
    idle(airflow)
    arguments = {"--do": "last", ARGUMENT: owner.argument()}
    run = glue.start_job_run(JobName="se2_job0", Arguments=arguments)["JobRunId"]

    def states(*_: object) -> dict[str, dict[str, str]]:
        glue.batch_stop_job_run(JobName="se2_job0", JobRunIds=[run])
        idle(airflow)
        return {"run": {"task": "failed"}}

    report = stop_orphans(
        job_queues=["hello-world-queue", "print-color-queue"],
        clusters=["jobflow"],
        glue_jobs=["se2_job0"],
        dry_run=False,
        access=Access(None),
        deployment_id="here",
        states=states,
        now=lambda: time.time() + 660,
    )
    assert report["counts"]["stopped"] == 3


def job_results(airflow: Airflow, _: pytest.MonkeyPatch) -> None:
    """Read the result of a job, those of an array, and write the manifest of one that is too large."""
    s3, bucket = airflow.aws.client("s3"), airflow.stack.outputs["BucketName"]
    uri = f"s3://{bucket}/results/group/token"
    for key, body in (("", b"1"), ("/0", b"2"), ("/1", b"[" + b" " * results.MAX_INLINE + b"]")):
        s3.put_object(Bucket=bucket, Key=f"results/group/token{key}", Body=body)
    ended = Snapshot("job", JobState.SUCCEEDED, "SUCCEEDED", result_uri=uri)
    assert read_results.of_job(Access(None), "batch", uri, ended, retry=ONCE).value == 1
    part = results.Part(uri, {0: 0, 1: 1})
    assert read_results.of_many(Access(None), [part], 1, [0], {}, retry=ONCE).error is None
    assert read_results.of_many(Access(None), [part], 2, [0, 1], {}, retry=ONCE).uri == f"{uri}/manifest.json"


def role(airflow: Airflow) -> str:
    """The role that starts containers."""
    return str(airflow.stack.properties("ProcessItem")["ExecutionRoleArn"])


def none_registered(airflow: Airflow) -> None:
    """Have no definitions that were registered from an image."""
    for service, registry in REGISTRIES.items():
        call = RetriedCall(service_client(Access(None), service))
        for revision in registry.active(call):
            registry.deregister(call, revision)
    airflow.calls.clear()


def long_ago(airflow: Airflow) -> None:
    """Have definitions been used long ago, and looked up by another process."""
    before = list(airflow.calls)
    for service in REGISTRIES:
        call = RetriedCall(service_client(Access(None), service))
        for revision in REGISTRIES[service].active(call):
            REGISTRIES[service].tag(call, revision.arn, {LAST_USED: "2026-01-01"})
    del airflow.calls[len(before) :]
    definitions.forget_definitions()


def batch_image(airflow: Airflow, _: pytest.MonkeyPatch) -> None:
    """Register a definition, use it, use it on another day; fail, which reads the log; as a job and as a map."""
    none_registered(airflow)
    job = {"job_name": "t", "job_queue": "hello-world-queue", "image": "busybox", "log_group": "/jobflow/batch"}
    ours = {**job, "execution_role": role(airflow), "command": sh("true")}
    airflow.runs(BatchJobOperator, **ours)
    long_ago(airflow)
    airflow.runs(BatchMapOperator, **ours, items=[{}])
    airflow.fails(BatchJobOperator, exceptions.JobFailed, **{**ours, "command": sh(FAILS)})


def fargate_image(airflow: Airflow, _: pytest.MonkeyPatch) -> None:
    """Register a definition, use it, use it on another day; fail, which reads the log; as a task and as a map."""
    none_registered(airflow)
    task = {name: value for name, value in fargate(airflow).items() if name != "task_definition"}
    ours = {**task, "image": "busybox", "execution_role": role(airflow), "command": sh("true")}
    airflow.runs(FargateTaskOperator, **ours)
    long_ago(airflow)
    airflow.runs(FargateMapOperator, **ours, items=[{}])
    airflow.fails(FargateTaskOperator, exceptions.JobFailed, **{**ours, "command": sh(FAILS)})


def definition_cleanup(airflow: Airflow, _: pytest.MonkeyPatch) -> None:
    """Deregister a definition of each service."""
    none_registered(airflow)
    batch = definitions.of_batch({"image": "i", "platform": "EC2"})
    ecs = definitions.of_ecs({"image": "i", "execution_role": role(airflow)}, "FARGATE")
    for made in (batch, ecs):
        assert made.build
        call = RetriedCall(service_client(Access(None), made.service))
        find_or_register(call, made.service, made.build(call.region), "2026-01-01")
    airflow.calls.clear()
    report = deregister_unused_definitions(dry_run=False, access=Access(None))
    assert {each["action"] for each in report["definitions"]} == {"deregistered"}
    assert {each["service"] for each in report["definitions"]} == {"batch", "ecs"}


STORIES: dict[str, Callable[[Airflow, pytest.MonkeyPatch], None]] = {
    "BatchJobOperatorPolicy": batch_job,
    "BatchMapOperatorPolicy": batch_map,
    "BatchSensorsPolicy": batch_sensors,
    "FargateTaskOperatorPolicy": fargate_task,
    "FargateMapOperatorPolicy": fargate_map,
    "EcsSensorsPolicy": ecs_sensors,
    "GlueCrawlOperatorPolicy": glue_crawl_operator,
    "GlueJobRunOperatorPolicy": glue_job_run,
    "GlueSensorsPolicy": glue_sensors,
    "OrphanReaperPolicy": orphan_reaper,
    "DefinitionCleanupPolicy": definition_cleanup,
    "JobResultsPolicy": job_results,
}
"""The users of each policy, which it must suffice for."""

ADDITIONS: dict[str, tuple[str, Callable[[Airflow, pytest.MonkeyPatch], None]]] = {
    "BatchImagePolicy": ("BatchJobOperatorPolicy", batch_image),
    "FargateImagePolicy": ("FargateTaskOperatorPolicy", fargate_image),
}
"""What adds to which other policy, and what both together have to suffice for."""


def event_queue(airflow: Airflow) -> None:
    """Wake a wait by one message, and release another one until it is deleted."""
    sqs, queue = airflow.aws.client("sqs"), airflow.stack.outputs["EventQueueUrl"]
    sqs.purge_queue(QueueUrl=queue)
    for job_id in ("known", "another"):
        told = {"source": "aws.batch", "detail-type": "Batch Job State Change", "detail": {"jobId": job_id}}
        sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(told))

    def is_empty() -> bool:
        counts = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        told = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=list(counts))["Attributes"]
        return all(told[count] == "0" for count in counts)

    async def listen() -> None:
        with shared_watcher(Access(None), "batch", None, events=True).subscribe(["known"], 600.0):
            await asyncio.to_thread(eventually, is_empty)

    asyncio.run(listen())


def watcher_queue(airflow: Airflow) -> None:
    """Fire the events of the queue, and delete its messages once Airflow has stored them."""
    batch = airflow.aws.client("batch")
    batch.submit_job(jobName="t", jobQueue="hello-world-queue", jobDefinition="hello-world")

    async def hand_on() -> None:
        queue = StateChangeStream(Access(None), airflow.stack.outputs["WatcherQueueUrl"])
        async for _event, payload in queue.open_stream():
            await queue.advance([AdvanceItem(payload, AdvanceOutcome(acked=1, failed=0))])
            break
        await queue.aclose()

    asyncio.run(hand_on())


READERS: dict[str, Callable[[Airflow], None]] = {
    "EventQueueReaderPolicy": event_queue,
    "WatcherQueueReaderPolicy": watcher_queue,
}
"""The readers of a queue, whose permissions are added to those of a triggerer."""


def policy(stack: Stack, name: str) -> dict[str, Any]:
    """Return the deployed document of a policy."""
    versions = stack.aws.client("iam").get_policy_version(PolicyArn=stack.outputs[f"{name}Arn"], VersionId="v1")
    deployed: dict[str, Any] = versions["PolicyVersion"]["Document"]
    said: dict[str, Any] = stack.properties(name)["PolicyDocument"]
    assert actions(deployed) == actions(said)
    return said


@pytest.fixture
def roles(stack: Stack) -> list[str]:
    """Return the roles that RunTask passes to a task."""
    task = stack.properties("ProcessItem")
    return [task["TaskRoleArn"], task["ExecutionRoleArn"]]


@pytest.mark.parametrize("name", STORIES)
def test_a_policy_allows_exactly_the_calls(
    stack: Stack, calls: list[Call], roles: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It allows them on the called resources only."""
    bucket = stack.outputs["BucketName"]
    s3 = stack.aws.client("s3")
    s3.put_object(Bucket=bucket, Key="se2/in0/se2_in0.csv", Body=b"a,b\n1,2\n")
    s3.put_object(Bucket=bucket, Key="se2/scripts/se2_job0.py", Body=JOB_SCRIPT.encode())
    STORIES[name](Airflow(stack, calls), monkeypatch)
    assert problems(policy(stack, name), calls, stack.account, roles) == []


@pytest.mark.parametrize("name", ADDITIONS)
def test_a_policy_adds_what_another_lacks_and_nothing_more(
    stack: Stack, calls: list[Call], roles: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, neither suffices."""
    base, story = ADDITIONS[name]
    story(Airflow(stack, calls), monkeypatch)
    passed = [] if "Batch" in name else roles
    with_base = {"Statement": [*policy(stack, base)["Statement"], *policy(stack, name)["Statement"]]}
    spare = actions(policy(stack, base)) - actions(policy(stack, name))
    assert problems(with_base, calls, stack.account, passed, spare) == []
    assert problems(policy(stack, base), calls, stack.account, passed, spare) != []


@pytest.mark.parametrize("name", READERS)
def test_a_policy_allows_exactly_the_reads_of_its_queue(
    stack: Stack, calls: list[Call], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is attached in addition to the policies of waits."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__EVENT_QUEUE_URL", stack.outputs["EventQueueUrl"])
    READERS[name](Airflow(stack, calls))
    of_queues = [call for call in calls if call.service == "sqs"]
    assert problems(policy(stack, name), of_queues, stack.account) == []


def test_every_call_in_the_code_is_classified() -> None:
    """This includes calls that are too rare for the scenarios here."""
    package = Path(airflow_jobflow.__file__).parent
    sources = [path for path in package.rglob("*.py") if package / "local" not in path.parents]
    methods = {"".join(found) for path in sources for found in CLIENT_CALL.findall(path.read_text())}
    session = botocore.session.get_session()
    of_aws = {
        botocore.xform_name(operation)
        for service in ("batch", "ecs", "glue", "logs", "s3", "sqs")
        for operation in session.get_service_model(service).operation_names
    }
    known = {botocore.xform_name(call.partition(":")[2]) for call in NEEDS}
    assert len(methods & known) > 20
    assert methods & of_aws <= known


def test_only_actions_without_resources_have_a_wildcard(stack: Stack) -> None:
    """The Service Authorization Reference, of which cfn-lint has a copy, lists them."""
    reference = load_resource(AdditionalSpecs, "Policies.json")
    for name in stack.of_type("AWS::IAM::ManagedPolicy"):
        for statement in stack.properties(name)["PolicyDocument"]["Statement"]:
            if statement["Resource"] == "*" and "Condition" not in statement:
                for action in statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]:
                    service, _, call = action.partition(":")
                    assert reference[service]["Actions"][call.lower()].get("Resources", []) == [], (name, action)


def test_every_policy_is_tested(stack: Stack) -> None:
    """A policy without a test may lack permissions, or have too many."""
    assert set(stack.of_type("AWS::IAM::ManagedPolicy")) == {*STORIES, *READERS, *ADDITIONS}
