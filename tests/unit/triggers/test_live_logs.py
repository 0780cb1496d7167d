"""Which streams are copied of jobs whose describe responses do not say where they log: nodes and pods."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobflow.aws import Access
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import batch
from airflow_jobflow.jobs.model import LogStream
from airflow_jobflow.polling.log_reader import LogReader
from airflow_jobflow.polling.log_stream import Page, Position
from airflow_jobflow.triggers import live_logs
from airflow_jobflow.triggers.live_logs import LiveLogs
from airflow_jobflow.triggers.log_positions import LogPositions
from tests.unit.jobs.scripted_calls import ScriptedClient

NODES = {"numNodes": 2, "mainNode": 0, "nodeRangeProperties": [{"targetNodes": "0:"}]}
POD = {"eksProperties": {"podProperties": {"podName": "p", "nodeName": "n", "containers": [{"name": "main"}]}}}
ENDED_POD = {
    "eksClusterArn": "arn:aws:eks:eu-west-1:1:cluster/c",
    "podName": "p",
    "podNamespace": "s",
    "nodeName": "n",
    "stoppedAt": 9_000,
    "containers": [{"name": "main", "containerID": "i", "exitCode": 1}],
}
POD_LOG = "n-application.var.log.containers.p_s_main-i.log"


def job(status: str, **members: Any) -> Any:
    """Return the snapshot of a job."""
    return batch.snapshot({"jobId": "a", "jobName": "n", "status": status, "startedAt": 1_000, **members})


class Nodes(ScriptedClient):
    """A multi-node job; its main node logs to another stream in each attempt."""

    def __init__(self) -> None:
        self.attempt = 1
        self.described: list[str] = []

    def describe_jobs(self, jobs: list[str]) -> Any:
        """Return the main node."""
        self.described += jobs
        container = {"logStreamName": f"main/{self.attempt}"}
        return {"jobs": [{"jobId": "a#0", "jobName": "n", "status": "RUNNING", "container": container}]}


class Logs:
    """Logs of one line, which names the stream. Those that are not in ``streams`` do not exist.

    :param streams: names of the streams.
    """

    def __init__(self, *streams: str) -> None:
        self.streams = streams
        self.written: list[str] = []

    async def fetch(self, log: LogStream, position: Position) -> Page:
        """Return the one page, then nothing."""
        if log.stream not in self.streams:
            return Page((), position, missing="The specified log group does not exist.")
        return Page([log.stream] if position.token is None else (), Position("end"))

    async def write(self, lines: Any) -> None:
        """Write lines to the task's log."""
        self.written += lines


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """Direct all calls for jobs to a multi-node job; lines arrive at once."""
    monkeypatch.setattr("airflow_jobflow.polling.log_stream.ARRIVAL", 0.0)
    scripted = Nodes()

    async def run(_: Any, function: Any, *arguments: Any, **__: Any) -> Any:
        return function(scripted, *arguments)

    monkeypatch.setattr(live_logs, "run", run)
    monkeypatch.setattr(live_logs, "service_client", lambda *_: None)
    return scripted


def copied(logs: Logs, nodes: Nodes, monkeypatch: pytest.MonkeyPatch, *snapshots: Any) -> set[str]:
    """Copy the logs of a job that is seen in several states, and return the ids of completely copied jobs."""

    async def scenario() -> set[str]:
        reader: Any = LogReader(logs.fetch, SimpleNamespace(acquire=lambda: asyncio.sleep(0)))
        monkeypatch.setattr(live_logs, "shared_log_reader", lambda *_: reader)
        positions = LogPositions(None, may_resume=False)
        live = LiveLogs(Access(None), "batch", writer=logs, positions=positions, max_lines=100)  # type: ignore[arg-type]
        for snapshot in snapshots:
            live.observe(snapshot)
            for _ in range(20):
                await asyncio.sleep(0)
            nodes.attempt += snapshot.status == "RUNNABLE"
        await live.finish()
        return live.copied()

    return asyncio.run(scenario())


def test_every_attempt_of_a_main_node_is_copied_while_it_runs(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt has a stream of its own, and only the description of the node names it: one call each."""
    first = {"container": {"exitCode": 9, "logStreamName": "main/1"}, "startedAt": 1_000, "stoppedAt": 2_000}
    last = {"container": {"exitCode": 3, "logStreamName": "main/2"}, "startedAt": 3_000, "stoppedAt": 4_000}
    logs = Logs("main/1", "main/2")
    seen = [
        job("RUNNING", nodeProperties=NODES),
        job("RUNNING", nodeProperties=NODES),
        job("RUNNABLE", nodeProperties=NODES, attempts=[first]),
        job("RUNNING", nodeProperties=NODES, attempts=[first]),
    ]
    copied(logs, nodes, monkeypatch, *seen)
    assert logs.written == ["main/1", "main/2"]
    assert nodes.described == ["a#0", "a#0"]
    logs.written.clear()
    assert copied(logs, nodes, monkeypatch, job("FAILED", nodeProperties=NODES, attempts=[first, last])) == {"a"}
    assert logs.written == ["main/2"]


def test_the_log_of_a_pod_is_copied_when_it_has_ended(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While it runs, AWS does not name its container; one line in the task's log says so."""
    caplog.set_level(logging.INFO)
    logs = Logs(POD_LOG)
    ended = job("FAILED", **POD, eksAttempts=[ENDED_POD], stoppedAt=9_000)
    assert copied(logs, nodes, monkeypatch, job("RUNNING", **POD), job("RUNNING", **POD), ended) == {"a"}
    assert logs.written == [POD_LOG]
    assert nodes.described == []
    assert [line for line in caplog.messages if "Batch job a" in line] == [
        "Batch job a runs in a pod, so its log is copied when it has ended"
    ]


def test_a_log_without_lines_is_not_called_copied(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error then says why there are none."""
    ended = job("FAILED", **POD, eksAttempts=[ENDED_POD], stoppedAt=9_000)
    assert copied(Logs(), nodes, monkeypatch, ended) == set()


def test_a_main_node_that_cannot_be_described_is_tried_again(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the job changes."""
    responses = [CallError(Fault.TRANSIENT, "no response")]
    describe = nodes.describe_jobs

    def describe_jobs(jobs: list[str]) -> Any:
        if responses:
            raise responses.pop()
        return describe(jobs)

    monkeypatch.setattr(nodes, "describe_jobs", describe_jobs)
    logs = Logs("main/1")
    running = job("RUNNING", nodeProperties=NODES)
    copied(logs, nodes, monkeypatch, running, running)
    assert logs.written == ["main/1"]
