"""A metered stand-in for AWS: describe calls for jobs with scripted ends.

``POST /start`` starts the clock for all jobs and responds with their ends and results; from then on, the service
responds to any caller in AWS's format. ``GET /started`` returns how many items of a map have a job. It ends with its
standard input, so that it cannot outlive the benchmark, and then prints its counts.

It is small and uses no framework, because no side may ever wait for it. The duration of its responses and its CPU time
are in the meter, as evidence.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter, deque
from dataclasses import asdict
from typing import cast

from benchmarks.figures import Call, Meter, Scenario
from benchmarks.standin import outage
from benchmarks.standin.batch import Batch, BatchMap
from benchmarks.standin.ecs import Ecs
from benchmarks.standin.glue import GlueCrawls, GlueRuns
from benchmarks.standin.logs import EcsLogs
from benchmarks.standin.script import Answer, Service

SERVICES: dict[str, type[Service]] = {
    "batch": Batch,
    "batch_map": BatchMap,
    "ecs": Ecs,
    "ecs_logs": EcsLogs,
    "glue_crawl": GlueCrawls,
    "glue_run": GlueRuns,
}

PATHS = {
    "/v1/describejobs": "DescribeJobs",
    "/v1/listjobs": "ListJobs",
    "/v1/submitjob": "SubmitJob",
    "/v1/terminatejob": "TerminateJob",
    "/v1/canceljob": "CancelJob",
}
"""Operations of the only service that has them in the path; the others have them in a header."""

TARGET = re.compile(rb"(?i)\r\nx-amz-target: *[^.\r]+\.(\w+)")
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Metered:
    """The service with its clock and its meter."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._service = SERVICES[scenario.service](scenario)
        self._started = time.time()
        self._allowed = None if scenario.service == "ecs_logs" else scenario.throttle
        self._recent: deque[float] = deque(maxlen=scenario.throttle)
        self._calls: list[Call] = []
        self._throttled = 0
        self._slowest = 0.0
        self._bytes = 0
        self._jobs = 0
        self._refused: list[float] = []
        self._credential_requests: list[float] = []
        self._stops = 0
        self._foreign = 0
        self._scopes: Counter[str] = Counter()

    def answer(self, head: bytes, body: bytes) -> Answer | None:
        """Respond to a request; None for no response."""
        path, now = head.split(b" ", 2)[1].decode(), time.time()
        if path == "/start":
            self._started = now
            return Answer(json.dumps(self._service.start(now)).encode())
        if path == "/started":
            starts = self._service.starts if isinstance(self._service, BatchMap) else {}
            return Answer(str(len(starts)).encode())
        if outage.for_credentials(path, body):
            self._credential_requests.append(round(now - self._started, 3))
            return outage.credentials(self.scenario, path, now, now - self._started)
        target = TARGET.search(head)
        operation = target[1].decode() if target else PATHS.get(path, "")
        return self._refused_or_stopped(operation, head, now) or self._metered(operation, path, body)

    def _refused_or_stopped(self, operation: str, head: bytes, now: float) -> Answer | None:
        """Return an error or the response to a stop call; None for all other calls."""
        if operation in outage.STOPS:
            self._stops += 1
            return Answer(b"{}")
        if outage.is_foreign(self.scenario, head):
            self._foreign += 1
            return Answer(b'{"jobs": []}')
        refusal = outage.refusal(self.scenario, operation, now - self._started)
        if refusal:
            self._refused.append(round(now - self._started, 3))
        return refusal

    def _metered(self, operation: str, path: str, body: bytes) -> Answer:
        if operation not in self._service.calls:
            return Answer.refusal("UnknownOperationException", f"there is no {operation} at {path}", "404 Not Found")
        asked_at, now = time.perf_counter(), time.time()
        if self._allowed is not None and len(self._recent) == self._allowed and now - self._recent[0] < 1:
            self._throttled += 1
            return Answer.refusal("TooManyRequestsException", "Too Many Requests", "429 Too Many Requests")
        request = json.loads(body)
        answer = self._service.calls[operation](request, now)
        if now - self._started < self.scenario.shortest and (scope := request.get("JobName", request.get("cluster"))):
            self._scopes[scope] += 1
        if answer.error == "ThrottlingException":
            self._throttled += 1
            return answer
        self._recent.append(now)
        self._calls.append((round(now - self._started, 3), operation, answer.jobs))
        if answer.jobs:
            self._bytes += len(answer.body)
            self._jobs += answer.jobs
        self._slowest = max(self._slowest, time.perf_counter() - asked_at)
        return answer

    def meter(self) -> Meter:
        """Return the counts."""
        starts = self._service.starts if isinstance(self._service, BatchMap) else {}
        return Meter(
            calls=self._calls,
            throttled=self._throttled,
            cpu=time.process_time(),
            slowest=self._slowest,
            answer_bytes=self._bytes // self._jobs if self._jobs else 0,
            started=len(starts),
            twice=sum(count > 1 for count in starts.values()),
            refused=self._refused,
            credential_requests=self._credential_requests,
            stops=self._stops,
            foreign=self._foreign,
            by_scope=dict(self._scopes),
        )


class Connection(asyncio.Protocol):
    """The connection of one client, with the parts of HTTP that SDKs use."""

    def __init__(self, counter: Metered) -> None:
        self._counter = counter
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for responses."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Respond to every request that has arrived completely."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end])
            length = LENGTH.search(head)
            whole = end + 4 + int(length[1] if length else 0)
            if len(self._buffer) < whole:
                return
            body = bytes(self._buffer[end + 4 : whole])
            del self._buffer[:whole]
            answer = self._counter.answer(head, body)
            if answer is None:
                continue
            latency = outage.latency(self._counter.scenario, body)
            if latency:
                asyncio.get_running_loop().call_later(latency, self._reply, answer)
            else:
                self._reply(answer)

    def _reply(self, answer: Answer) -> None:
        headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
        if answer.error:
            headers["x-amzn-errortype"] = answer.error
        lines = [f"HTTP/1.1 {answer.status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self._transport.write("\r\n".join(lines).encode() + answer.body)


async def serve(scenario: Scenario) -> None:
    """Print the port, serve until standard input ends, and print the meter."""
    loop = asyncio.get_running_loop()
    counter = Metered(scenario)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    server = await loop.create_server(lambda: Connection(counter), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()
    print(json.dumps(asdict(counter.meter())))


if __name__ == "__main__":
    asyncio.run(serve(Scenario(**json.loads(sys.argv[1]))))
