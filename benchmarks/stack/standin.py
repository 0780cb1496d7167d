"""The metered stand-in for AWS as a service of the stack. Batch jobs start when they are first named.

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
from benchmarks.standin.batch import ARN, MOST, Batch
from benchmarks.standin.script import Answer, Script
from benchmarks.standin.server import SERVICES, Connection, Metered

SUBMITTED = 1_000_000
"""Added to the index of a job, to distinguish its id from that of a job that a sensor waits for."""


class Jobs(Batch):
    """Jobs that start when they are first named. A job's key is the index of the task instance that waits for it."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.calls = {"DescribeJobs": self._describe, "SubmitJob": self._submit}
        self.starts: dict[str, int] = {}
        """How often a job was submitted for each index."""

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
        answer = {"jobArn": f"{ARN}:job/{named}", "jobName": request["jobName"], "jobId": named}
        return Answer(json.dumps(answer).encode(), 1)

    def end(self, seconds: float, now: float) -> None:
        """Let the running jobs end one after the other, evenly within some seconds."""
        running = [job for job in self.jobs.values() if job.ends > now]
        for number, job in enumerate(running, 1):
            job.seconds = now - job.began + seconds * number / len(running)


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
        meter = self.meter()
        return {
            "calls": meter.by_operation,
            "busiest": meter.busiest("DescribeJobs"),
            "describes": meter.times("DescribeJobs"),
            "began": self._started,
            "cpu": meter.cpu,
            "slowest": meter.slowest,
            "jobs": [(int(job.key), job.began, job.ends) for job in self.jobs.jobs.values()],
            "twice": sum(count > 1 for count in self.jobs.starts.values()),
        }


async def serve(port: int) -> None:
    """Serve until killed."""
    counter = Planned(Scenario(waits=0, shortest=5, longest=5, interval=0, service="stack"))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(counter), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
