"""The server: its address, its processes, and its use of moto."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import boto3
import moto
import psutil  # type: ignore[import-untyped]
import pytest
from moto.batch.models import BatchBackend, ComputeEnvironment, JobDefinition, JobQueue
from moto.core.base_backend import BackendDict
from moto.ecs.models import EC2ContainerServiceBackend
from moto.events.models import EventsBackend, Rule
from moto.iam.models import IAMBackend
from moto.logs.models import LogsBackend
from moto.moto_server.werkzeug_app import MotoRequestHandler

from airflow_jobflow.aws import ONCE, Access, run_blocking, service_client
from airflow_jobflow.faults import CallError
from airflow_jobflow.local import LocalAws, LocalAwsClient, Settings, __main__, samples
from airflow_jobflow.local.samples import create_environment, create_queue, register_definition

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEPERS = "(setsid sleep {0} &); env -i /bin/sleep {0} & exec sleep {0}"
"""A job that leaves a daemon and a child without environment behind."""


def sleepers(seconds: str) -> list[int]:
    """Return the ids of processes that sleep for a number of seconds."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[1:] == [seconds] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A server in its own process, with the samples."""
    command = [sys.executable, "-m", "airflow_jobflow.local", "--port", "0", "--samples"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        yield server
        server.kill()


def endpoint(process: subprocess.Popen[str]) -> str:
    """Wait for the line that a server prints when it is ready, and return the address in it."""
    assert process.stdout is not None
    ready = process.stdout.readline().strip()
    assert ready.startswith("ready on http://127.0.0.1:")
    return ready.removeprefix("ready on ")


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGTERM, "86401"), (signal.SIGINT, "86402"), (signal.SIGKILL, "86403")]
)
def test_no_process_outlives_the_server(
    process: subprocess.Popen[str], eventually: Any, number: signal.Signals, seconds: str
) -> None:
    """No job, no child of a job and no daemon survives, regardless of how the server ends."""
    aws = LocalAwsClient(endpoint(process))
    batch = aws.client("batch")
    definition = register_definition(batch, "sleepers", ["sh", "-c", SLEEPERS.format(seconds)])
    batch.submit_job(jobName="x", jobQueue="hello-world-queue", jobDefinition=definition)
    eventually(lambda: len(sleepers(seconds)) == 3)
    process.send_signal(number)
    assert process.wait(20) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    eventually(lambda: not sleepers(seconds))


def test_job_leaves_no_process_behind(kit: Any, eventually: Any) -> None:
    """The end of a container ends everything in it, including a daemon that holds its output open."""
    kit.wait(kit.sh("setsid sleep 86404 & sleep 86404 & exit 0"))
    eventually(lambda: not sleepers("86404"))


def test_leaving_the_context_ends_the_jobs(eventually: Any) -> None:
    """The context manager returns when its jobs have ended."""
    with LocalAws() as aws:
        batch = aws.client("batch")
        create_environment(aws.client("iam"), batch, "local")
        create_queue(batch, "queue")
        definition = register_definition(batch, "x", ["sleep", "86405"])
        batch.submit_job(jobName="x", jobQueue="queue", jobDefinition=definition)
        eventually(lambda: sleepers("86405"))
    assert not sleepers("86405")


def test_samples_run(process: subprocess.Popen[str], eventually: Any) -> None:
    """The three sample definitions do what the sample DAGs expect; provisioning twice changes nothing."""
    url = endpoint(process)
    samples.provision(url)
    aws = LocalAwsClient(url)
    batch, logs = aws.client("batch"), aws.client("logs")
    assert len(batch.describe_job_definitions()["jobDefinitions"]) == len(samples.DEFINITIONS)
    assert len(batch.describe_job_queues()["jobQueues"]) == len(samples.QUEUES)

    def run(queue: str, definition: str, **request: Any) -> dict[str, Any]:
        job_id = batch.submit_job(jobName="x", jobQueue=queue, jobDefinition=definition, **request)["jobId"]

        def ended() -> dict[str, Any] | None:
            (job,) = batch.describe_jobs(jobs=[job_id])["jobs"]
            return job if job["status"] in ("SUCCEEDED", "FAILED") else None

        return dict(eventually(ended))

    def output(job_id: str) -> list[str]:
        (job,) = batch.describe_jobs(jobs=[job_id])["jobs"]
        stream = job["container"]["logStreamName"]
        events = logs.get_log_events(logGroupName="/aws/batch/job", logStreamName=stream)["events"]
        return [event["message"] for event in events]

    assert output(run("hello-world-queue", "hello-world")["jobId"]) == ["Hello world"]
    array = {"arrayProperties": {"size": 7}}
    colors = run("print-color-queue", "print-color", **array)
    assert colors["status"] == "SUCCEEDED"
    assert [output(f"{colors['jobId']}:{index}") for index in range(7)] == [[each] for each in samples.COLORS]
    failing = run("print-color-queue", "print-color-failing", **array)
    assert failing["arrayProperties"]["statusSummary"] == {
        **dict.fromkeys(failing["arrayProperties"]["statusSummary"], 0),
        "SUCCEEDED": 6,
        "FAILED": 1,
    }
    assert output(f"{failing['jobId']}:3") == ["No ink left for GREEN"]


def test_server_listens_on_loopback_by_default() -> None:
    """It executes all received commands, so nobody else may send any."""
    with pytest.raises(ValueError, match=r"does not listen on 0\.0\.0\.0"):
        LocalAws(host="0.0.0.0")
    with LocalAws(host="0.0.0.0", allow_remote_code_execution=True) as aws:
        assert aws.health()["status"] == "ok"


def test_cli_rejects_an_open_address() -> None:
    """The error explains why."""
    ended = subprocess.run(
        [sys.executable, "-m", "airflow_jobflow.local", "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert "does not listen on 0.0.0.0" in ended.stderr


def test_boto3_finds_the_server_by_the_environment(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other settings have no influence."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in aws.environment().items():
        monkeypatch.setenv(name, value)
    assert boto3.Session().client("sts").get_caller_identity()["Account"] == aws.account_id


def test_servers_of_one_process_share_nothing(aws: LocalAws) -> None:
    """Each has its own account, and a new one starts empty."""
    for _ in range(2):
        with LocalAws() as other:
            assert other.account_id != aws.account_id
            assert other.client("batch").describe_job_queues()["jobQueues"] == []
            assert other.client("logs").describe_log_groups()["logGroups"] == []
            create_environment(other.client("iam"), other.client("batch"), "local")
            create_queue(other.client("batch"), "queue")
            other.client("logs").create_log_group(logGroupName="x")


def test_clients_of_the_package_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may test the DAGs of several users, and keeps its clients."""
    for _ in range(2):
        with LocalAws() as aws:
            for name, value in aws.environment().items():
                monkeypatch.setenv(name, value)
            client = service_client(Access(None), "batch")
            with pytest.raises(CallError, match="none not found"):
                run_blocking(client, lambda call: call("list_jobs", jobQueue="none"), retry=ONCE)
            assert aws.calls["batch.ListJobs"] == 1


def test_other_services_are_handled_by_moto(aws: LocalAws) -> None:
    """S3, SQS, logs and others respond as in moto."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="a-bucket")
    s3.put_object(Bucket="a-bucket", Key="a/b c", Body=b"content")
    assert s3.get_object(Bucket="a-bucket", Key="a/b c")["Body"].read() == b"content"
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="a-queue")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="hello")
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "hello"


def test_a_thousand_children_run_and_are_described(kit: Any) -> None:
    """They run on four slots; a describe call of a hundred looks up each once."""
    job_id = kit.submit(arrayProperties={"size": 1000})
    assert kit.wait(job_id)["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 1000
    assert {child["status"] for child in kit.children(job_id, 100)} == {"SUCCEEDED"}


def test_slots_limit_the_number_of_concurrent_jobs(own_kit: Any) -> None:
    """At most two jobs run on two slots."""
    job_id = own_kit.sh("sleep 0.2", arrayProperties={"size": 8})
    most = 0
    while own_kit.look(job_id)["status"] == "PENDING":
        summary = own_kit.look(job_id)["arrayProperties"]["statusSummary"]
        most = max(most, summary["STARTING"] + summary["RUNNING"])
        time.sleep(0.01)
    assert most == 2


def test_used_internals_of_moto_exist() -> None:
    """This test fails first if moto changes what this package uses of it."""
    assert moto.__version__ == "5.2.5"
    for owner, names in {
        BatchBackend: [
            "get_job_queue",
            "describe_job_definitions",
            "tag_resource",
            "create_compute_environment",
        ],
        EC2ContainerServiceBackend: ["register_task_definition", "describe_container_instances"],
        IAMBackend: ["get_roles", "create_role"],
        JobDefinition: ["describe"],
        LogsBackend: ["ensure_log_group", "ensure_log_stream", "put_log_events"],
        EventsBackend: ["describe_event_bus"],
        Rule: ["send_to_targets"],
        MotoRequestHandler: ["log"],
    }.items():
        for name in names:
            assert callable(getattr(owner, name))
    assert "environments" in JobQueue.__init__.__annotations__
    assert "state" in ComputeEnvironment.__init__.__annotations__
    assert "transform_input" in Rule.send_to_targets.__annotations__
    assert isinstance(BackendDict._instances, list)  # type: ignore[misc]


def test_every_setting_has_an_option_on_the_command_line() -> None:
    """The option has the same default, and accepts a number."""
    parser = __main__._parser()
    defaults = parser.parse_args([])
    for setting in dataclasses.fields(Settings):
        assert getattr(defaults, setting.name) == setting.default
        number = 5 if isinstance(setting.default, int) else 0.5
        given = parser.parse_args([f"--{setting.name.replace('_', '-')}", str(number)])
        assert getattr(given, setting.name) == number
    assert set(__main__.SETTINGS) == {setting.name for setting in dataclasses.fields(Settings)}
