"""A metered stand-in for AWS Batch: DescribeJobs for jobs whose ends are scripted.

``POST /start`` starts the clock for all jobs and answers when each will end and how; from then on DescribeJobs answers
in AWS's shape, about 2 KB a job, whoever asks. It ends when its standard input does, so it cannot outlive the
benchmark, and then prints what it has counted.

Small on purpose, and no framework: it must never be what a side waits for. How long its answers took and what CPU it
used is in the meter, as evidence.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
import uuid
from collections import deque
from dataclasses import asdict
from typing import Any, cast

from benchmarks.figures import BATCH, Meter, Scenario

REGION = "eu-central-1"
ACCOUNT = "123456789012"
ARN = f"arn:aws:batch:{REGION}:{ACCOUNT}"

FAILING = 0.05
"""The part of the jobs that fail, so that a side which does not read the answers is found out."""

QUEUED = 0.1
"""The part of its time that a job stands in the queue."""


class Job:
    """One scripted job; its part of an answer is rendered once for every status."""

    def __init__(self, job_id: str, seconds: float, fails: bool) -> None:
        self.job_id = job_id
        self.seconds = seconds
        self.fails = fails
        self._status = ""
        self._rendered = b""

    def rendered(self, started: float, now: float) -> bytes:
        """Render the job as DescribeJobs shows it now."""
        elapsed = now - started
        if elapsed >= self.seconds:
            status = "FAILED" if self.fails else "SUCCEEDED"
        else:
            status = "RUNNING" if elapsed >= QUEUED * self.seconds else "RUNNABLE"
        if status != self._status:
            self._status = status
            self._rendered = json.dumps(self._detail(started, status)).encode()
        return self._rendered

    def _detail(self, started: float, status: str) -> dict[str, Any]:
        created = int(started * 1000)
        stream = f"nightly-model/default/{self.job_id.replace('-', '')}"
        task = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/AWSBatch-nightly-{self.job_id}/{self.job_id.replace('-', '')}"
        container: dict[str, Any] = {
            "image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/nightly-model:2026.3.1",
            "command": ["python", "-m", "nightly_model", "--part", self.job_id, "--input", "s3://a-bucket/input/"],
            "jobRoleArn": f"arn:aws:iam::{ACCOUNT}:role/nightly-model-job",
            "executionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/nightly-model-execution",
            "volumes": [],
            "environment": [
                {"name": "OUTPUT", "value": f"s3://a-bucket/output/{self.job_id}/"},
                {"name": "LOG_LEVEL", "value": "INFO"},
                {"name": "MODEL_VERSION", "value": "2026.3.1"},
                {"name": "MANAGED_BY_AWS", "value": "STARTED_BY_STEP_FUNCTIONS"},
            ],
            "mountPoints": [],
            "ulimits": [],
            "networkInterfaces": [],
            "resourceRequirements": [{"value": "1", "type": "VCPU"}, {"value": "2048", "type": "MEMORY"}],
            "logConfiguration": {"logDriver": "awslogs", "options": {}, "secretOptions": []},
            "secrets": [],
            "fargatePlatformConfiguration": {"platformVersion": "LATEST"},
            "runtimePlatform": {"operatingSystemFamily": "LINUX", "cpuArchitecture": "X86_64"},
        }
        detail: dict[str, Any] = {
            "jobArn": f"{ARN}:job/{self.job_id}",
            "jobName": f"nightly-model-{self.job_id[:8]}",
            "jobId": self.job_id,
            "jobQueue": f"{ARN}:job-queue/nightly",
            "status": status,
            "attempts": [],
            "createdAt": created,
            "retryStrategy": {"attempts": 3, "evaluateOnExit": []},
            "dependsOn": [],
            "jobDefinition": f"{ARN}:job-definition/nightly-model:17",
            "parameters": {"date": "2026-03-01", "part": self.job_id[:8]},
            "container": container,
            "timeout": {"attemptDurationSeconds": 7200},
            "tags": {"team": "forecasting", "flow": "nightly", "environment": "production"},
            "propagateTags": True,
            "platformCapabilities": ["FARGATE"],
            "eksAttempts": [],
            "isCancelled": False,
            "isTerminated": False,
        }
        if status != "RUNNABLE":
            detail["startedAt"] = created + int(QUEUED * self.seconds * 1000)
            container |= {"logStreamName": stream, "taskArn": task}
        if status in ("SUCCEEDED", "FAILED"):
            ended = {"startedAt": detail["startedAt"], "stoppedAt": created + int(self.seconds * 1000)}
            exit_code = {"exitCode": int(self.fails)}
            reason = {"statusReason": "Essential container in task exited"}
            attempt = {"container": {**exit_code, "logStreamName": stream, "taskArn": task}, **ended, **reason}
            container |= exit_code
            detail |= {**ended, **reason, "attempts": [attempt]}
        return detail


class Batch:
    """The service: its jobs, its clock and its meter."""

    def __init__(self, scenario: Scenario) -> None:
        rng = random.Random(scenario.seed)
        self._jobs: dict[str, Job] = {}
        for _ in range(scenario.waits):
            job_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
            seconds = rng.uniform(scenario.shortest, scenario.longest)
            self._jobs[job_id] = Job(job_id, seconds, rng.random() < FAILING)
        self._started = time.time()
        self._allowed = scenario.throttle
        self._recent: deque[float] = deque(maxlen=scenario.throttle)
        self._calls: list[tuple[float, int]] = []
        self._throttled = 0
        self._slowest = 0.0
        self._bytes = 0

    def answer(self, path: str, body: bytes) -> tuple[str, dict[str, str], bytes]:
        """Answer a request with a status line, headers and a body."""
        match path:
            case "/start":
                return "200 OK", {}, self._start()
            case "/v1/describejobs":
                return self._describe(json.loads(body)["jobs"])
            case _:
                return _error("404 Not Found", "ResourceNotFoundException", f"there is nothing at {path}")

    def _start(self) -> bytes:
        self._started = time.time()
        ends = {job.job_id: [self._started + job.seconds, job.fails] for job in self._jobs.values()}
        return json.dumps(ends).encode()

    def _describe(self, ids: list[str]) -> tuple[str, dict[str, str], bytes]:
        asked_at, now = time.perf_counter(), time.time()
        if self._allowed is not None and len(self._recent) == self._allowed and now - self._recent[0] < 1:
            self._throttled += 1
            return _error("429 Too Many Requests", "TooManyRequestsException", "Too Many Requests")
        if len(ids) > BATCH:
            return _error("400 Bad Request", "ClientException", f"{len(ids)} jobs exceed the limit of {BATCH}")
        self._recent.append(now)
        self._calls.append((round(now - self._started, 3), len(ids)))
        jobs = [self._jobs[job_id].rendered(self._started, now) for job_id in ids if job_id in self._jobs]
        body = b'{"jobs": [' + b", ".join(jobs) + b"]}"
        self._bytes += len(body)
        self._slowest = max(self._slowest, time.perf_counter() - asked_at)
        return "200 OK", {}, body

    def meter(self) -> Meter:
        """What has been counted."""
        looks = sum(size for _, size in self._calls)
        size = self._bytes // looks if looks else 0
        return Meter(self._calls, self._throttled, time.process_time(), self._slowest, size)


def _error(status: str, code: str, message: str) -> tuple[str, dict[str, str], bytes]:
    return status, {"x-amzn-errortype": code}, json.dumps({"message": message}).encode()


class Connection(asyncio.Protocol):
    """One client's connection: as much of HTTP as SDKs speak."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that has arrived in full."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end])
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            whole = end + 4 + int(length[1] if length else 0)
            if len(self._buffer) < whole:
                return
            body = bytes(self._buffer[end + 4 : whole])
            del self._buffer[:whole]
            self._reply(*self._batch.answer(head.split(b" ", 2)[1].decode(), body))

    def _reply(self, status: str, headers: dict[str, str], body: bytes) -> None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self._transport.write("\r\n".join(lines).encode() + body)


async def serve(scenario: Scenario) -> None:
    """Print the port, serve until standard input ends, and print the meter."""
    loop = asyncio.get_running_loop()
    batch = Batch(scenario)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    server = await loop.create_server(lambda: Connection(batch), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()
    print(json.dumps(asdict(batch.meter())))


if __name__ == "__main__":
    asyncio.run(serve(Scenario(**json.loads(sys.argv[1]))))
