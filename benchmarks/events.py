"""How soon waits are woken by events, and with how many describe calls: ``python -m benchmarks.events WAITS RESULT``.

The waits are in one event loop, and the local AWS in a separate process: jobs that are processes, a rule that forwards
their events, and an SQS queue. For a while, no job ends, which shows the cost of waiting; then the jobs end one after
the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from benchmarks.meters import versions

BEGINNING: Final = 45.0
"""Seconds for the jobs to start, with their events, and for the first polls."""
QUIET: Final = 300.0
"""Seconds in which no job ends: the slow poll interval, so that each job is polled once."""
ENDING: Final = 60.0
"""Seconds in which the jobs end, one after the other."""
EVENT_QUEUE: Final = "AIRFLOW__JOBFLOW__EVENT_QUEUE_URL"
QUEUE: Final = "bench"


@dataclass(frozen=True)
class Woken:
    """The results of waits that were woken."""

    waits: int
    delays: list[float]
    """Seconds from a job's end to the trigger's event; sorted."""
    quiet_seconds: float
    quiet_calls: dict[str, int]
    """Calls while no job ended, by operation."""
    calls: dict[str, int]
    """All calls, from the first wait to the last event."""
    seconds: float


@contextmanager
def local_aws(slots: int, home: str) -> Iterator[Any]:
    """Run the local AWS in another process, and use it in this process."""
    from airflow_jobflow.local import LocalAwsClient

    with subprocess.Popen(
        [sys.executable, "-m", "airflow_jobflow.local", "--slots", str(slots), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": home},
    ) as process:
        assert process.stdout
        try:
            found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stdout)))
            aws = LocalAwsClient(found[0])
            os.environ.update({**aws.environment(), "AIRFLOW_HOME": home})
            yield aws
        finally:
            process.terminate()


def event_queue(aws: Any) -> str:
    """Create a queue that gets the events of all jobs, and return its URL."""
    url: str = aws.client("sqs").create_queue(QueueName=QUEUE)["QueueUrl"]
    arn = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["aws.batch"], "detail-type": ["Batch Job State Change"]}
    aws.client("events").put_rule(Name=QUEUE, EventPattern=json.dumps(pattern))
    aws.client("events").put_targets(Rule=QUEUE, Targets=[{"Id": "1", "Arn": arn}])
    return url


def submit(aws: Any, waits: int) -> list[str]:
    """Submit jobs that end one after the other after the quiet time."""
    from airflow_jobflow.local.samples import create_environment, create_queue, register_definition

    batch, begun = aws.client("batch"), time.time()
    create_environment(aws.client("iam"), batch, "local")
    create_queue(batch, QUEUE)
    definition = register_definition(batch, QUEUE, ["sh", "-c", "sleep $SECONDS_LEFT"])
    ids = []
    for number in range(waits):
        left = begun + BEGINNING + QUIET + ENDING * number / waits - time.time()
        overrides = {"environment": [{"name": "SECONDS_LEFT", "value": f"{left:.2f}"}]}
        job = batch.submit_job(jobName=QUEUE, jobQueue=QUEUE, jobDefinition=definition, containerOverrides=overrides)
        ids.append(job["jobId"])
    return ids


async def wait_for(aws: Any, job_ids: list[str], begun: float) -> Woken:
    """Wait for all jobs, each in a trigger."""
    from airflow_jobflow.triggers.job import JobTrigger

    delays: list[float] = []

    async def wait(job_id: str) -> None:
        trigger = JobTrigger(service="batch", job_ids=[job_id], aws_conn_id=None, poll_interval=10.0)
        in_a_triggerer: Any = SimpleNamespace(task_id="wait", task=None)  # it only listens there
        trigger.task_instance = in_a_triggerer
        async for event in trigger.run():
            snapshot = event.payload["jobs"][job_id]
            delays.append(time.time() - datetime.fromisoformat(snapshot["stopped_at"]).timestamp())

    def count() -> Counter[str]:
        return Counter({name: number for name, number in aws.calls.items() if name.startswith(("batch.D", "sqs."))})

    first = await asyncio.to_thread(count)
    waiting = [asyncio.create_task(wait(job_id)) for job_id in job_ids]
    await asyncio.sleep(begun + BEGINNING - time.time())
    before = await asyncio.to_thread(count)
    await asyncio.sleep(begun + BEGINNING + QUIET - 2 - time.time())
    after = await asyncio.to_thread(count)
    await asyncio.gather(*waiting)
    return Woken(
        waits=len(job_ids),
        delays=sorted(round(delay, 3) for delay in delays),
        quiet_seconds=QUIET - 2,
        quiet_calls=dict(after - before),
        calls=dict(await asyncio.to_thread(count) - first),
        seconds=time.time() - begun,
    )


def main(waits: int) -> Woken:
    """Start the AWS and the jobs, and wait."""
    with tempfile.TemporaryDirectory(prefix="jobflow-bench-") as home, local_aws(waits, home) as aws:
        os.environ[EVENT_QUEUE] = event_queue(aws)
        begun = time.time()
        job_ids = submit(aws, waits)
        return asyncio.run(wait_for(aws, job_ids, begun))


if __name__ == "__main__":
    woken = main(int(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps({"woken": asdict(woken), "versions": versions()}))
