"""The metered stand-in for AWS as a service of the stack: Batch, and Fargate tasks. Jobs start when first named.

``python -m benchmarks.stack.standin PORT``. A job starts when it is submitted, or when a sensor first describes it, so
that every wait is a real one even if it starts late. No job fails. In addition to AWS's calls, ``POST /plan`` drops all
jobs and counts and sets the duration of new jobs, ``POST /end`` ends all running jobs soon, and ``GET /state`` returns
the counts and the end of each job.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

from benchmarks.figures import Scenario
from benchmarks.stack.jobs import index_of, job_id
from benchmarks.standin import ecs
from benchmarks.standin.batch import ARN, MOST, Batch, listed_by_name
from benchmarks.standin.script import Answer, Script
from benchmarks.standin.server import SERVICES, Connection, Metered

SUBMITTED = 1_000_000
"""Added to the index of a job, to distinguish its id from that of a job that a sensor waits for."""


class Jobs(Batch):
    """Jobs that start when they are first named. A job's key is the index of the task instance that waits for it."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.fargate = Fargate(scenario)
        self.calls = {
            **self.fargate.calls,
            "DescribeJobs": self._describe,
            "SubmitJob": self._submit,
            "ListJobs": lambda request, now: listed_by_name(
                self._submitted, request, lambda job: self.status(job, now)
            ),
        }
        self.starts: dict[str, int] = {}
        """How often a job was submitted for each index."""
        self._submitted: list[Script] = []
        """Jobs that were submitted, the newest last."""

    def _script(self) -> None:
        """Do nothing: there are no jobs beforehand."""

    def _begin(self, index: int, id_of_job: str, name: str, now: float) -> None:
        drawn = random.Random(f"{self.scenario.seed} {index}").uniform(self.scenario.shortest, self.scenario.longest)
        self.jobs[id_of_job] = Script(str(index), id_of_job, name, drawn, fails=False, began=now)

    def _describe(self, request: dict[str, Any], now: float) -> Answer:
        for each in request["jobs"][:MOST]:
            if each not in self.jobs and index_of(each) < SUBMITTED:
                self._begin(index_of(each), each, "", now)
        return super()._describe(request, now)

    def _submit(self, request: dict[str, Any], now: float) -> Answer:
        index = int(request["parameters"]["index"])
        count = self.starts[str(index)] = self.starts.get(str(index), 0) + 1
        named = job_id(index + count * SUBMITTED)
        self._begin(index, named, request["jobName"], now)
        self._submitted.append(self.jobs[named])
        answer = {"jobArn": f"{ARN}:job/{named}", "jobName": request["jobName"], "jobId": named}
        return Answer(json.dumps(answer).encode(), 1)

    def end(self, seconds: float, now: float) -> None:
        """Let the running jobs end one after the other, evenly within some seconds."""
        running = [job for job in self.jobs.values() if job.ends > now]
        for number, job in enumerate(running, 1):
            job.seconds = now - job.began + seconds * number / len(running)


class Fargate(ecs.Ecs):
    """Tasks that begin when they are run. A token starts one task. The variable INDEX says whose task it is."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.calls = {**self.calls, "RunTask": self._run, "ListTasks": lambda *_: Answer(b'{"taskArns": []}')}
        self.starts: dict[str, int] = {}
        """How often a task was run for each index."""
        self._by_token: dict[str, str] = {}

    def _run(self, request: dict[str, Any], now: float) -> Answer:
        [container] = request["overrides"]["containerOverrides"]
        index = next(each["value"] for each in container["environment"] if each["name"] == "INDEX")
        arn = self._by_token.get(request["clientToken"])
        if arn is None:
            self.starts[index] = self.starts.get(index, 0) + 1
            arn = f"{ecs.ARN}:task/{ecs.CLUSTER}/{self.rng.getrandbits(128):032x}"
            self._by_token[request["clientToken"]] = arn
            job = self.add(index, arn, ecs.CLUSTER)
            job.fails, job.began = False, now
        return Answer(b'{"tasks": ' + self.listed([self.jobs[arn]], now) + b', "failures": []}', 1)


SERVICES["stack"] = Jobs


class Planned(Metered):
    """A counter whose service can be configured while it runs."""

    def answer(self, head: bytes, body: bytes) -> Answer | None:
        """Respond to a request."""
        match head.split(b" ", 2)[1]:
            case b"/plan":
                self.__init__(Scenario(waits=0, interval=0, service="stack", **json.loads(body)))  # type: ignore[misc]
            case b"/end":
                self.jobs.end(json.loads(body)["seconds"], time.time())
            case b"/state":
                return Answer(json.dumps(self.state()).encode())
            case b"/health":
                pass
            case _:
                return super().answer(head, body)
        return Answer(b"{}")

    @property
    def jobs(self) -> Jobs:
        """The jobs."""
        assert isinstance(self._service, Jobs)
        return self._service

    def state(self) -> dict[str, Any]:
        """Return the counts, and the owner, start and end of each job."""
        meter, fargate = self.meter(), self.jobs.fargate
        every = [*self.jobs.jobs.values(), *fargate.jobs.values()]
        starts = [*self.jobs.starts.values(), *fargate.starts.values()]
        return {
            "calls": meter.by_operation,
            "busiest": meter.busiest("DescribeJobs"),
            "describes": meter.times("DescribeJobs"),
            "began": self._started,
            "cpu": meter.cpu,
            "slowest": meter.slowest,
            "jobs": [(int(job.key), job.began, job.ends) for job in every],
            "submitted": sum(starts),
            "twice": sum(count > 1 for count in starts),
        }


async def serve(port: int) -> None:
    """Serve until killed."""
    counter = Planned(Scenario(waits=0, shortest=5, longest=5, interval=0, service="stack"))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(counter), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
