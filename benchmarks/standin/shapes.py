"""Check the responses of the stand-ins against botocore's models: every call, in every status of a job.

``python -m benchmarks.standin.shapes``; the benchmark of waits does it before it measures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import botocore.session

from benchmarks.figures import Scenario
from benchmarks.stack.jobs import job_id
from benchmarks.stack.standin import SUBMITTED
from benchmarks.standin.conformance import violations
from benchmarks.standin.ecs import DEFINITION
from benchmarks.standin.script import Answer, Service
from benchmarks.standin.server import SERVICES

CLIENTS = {
    "batch": "batch",
    "batch_map": "batch",
    "ecs": "ecs",
    "ecs_logs": "ecs",
    "glue_crawl": "glue",
    "glue_run": "glue",
    "stack": "batch",
}

JOBS = 40
"""So many that one of them fails."""


def requests(name: str, service: Service) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return calls that request all jobs, and one that does not exist."""
    names = list(service.jobs)
    match name:
        case "batch":
            yield "DescribeJobs", {"jobs": [*names, "no-such-job"]}
        case "batch_map":
            yield "SubmitJob", {"jobName": f"map-{len(names)}", "jobQueue": "queue", "jobDefinition": "definition"}
            yield "ListJobs", {"jobQueue": "queue", "filters": [{"name": "JOB_NAME", "values": ["map-*"]}]}
            yield "DescribeJobs", {"jobs": names}
        case "stack":
            parameters = {"index": f"{len(names)}"}
            yield "SubmitJob", {"jobName": "j", "jobQueue": "q", "jobDefinition": "d", "parameters": parameters}
            yield "DescribeJobs", {"jobs": [*{*names, job_id(0), job_id(1), job_id(9 * SUBMITTED)}]}
        case "ecs":
            yield "DescribeTasks", {"cluster": "nightly", "tasks": [*names, "0" * 32]}
            yield "DescribeTaskDefinition", {"taskDefinition": DEFINITION}
        case "ecs_logs":
            for each in names:
                yield "GetLogEvents", {"logStreamName": f"model/{each}", "startFromHead": True, "limit": 10}
        case "glue_crawl":
            yield "BatchGetCrawlers", {"CrawlerNames": [*names, "no-such-crawler"]}
            yield from (("GetCrawler", {"Name": each}) for each in names)
        case "glue_run":
            yield "GetJobRuns", {"JobName": "nightly-load-00"}
            yield "GetJobRuns", {"JobName": "nightly-load-00", "NextToken": "200", "MaxResults": 7}
            yield from (("GetJobRun", {"JobName": job.scope, "RunId": job.name}) for job in service.jobs.values())


def check() -> int:
    """Check all responses against the models, and return their number.

    :raises ValueError: one deviates from its model.
    """
    session = botocore.session.get_session()
    checked = 0
    for name, kind in SERVICES.items():
        model = session.get_service_model(CLIENTS[name])
        scenario = Scenario(JOBS, shortest=10, longest=10, interval=1, service=name, scopes=2, lines_per_second=3)
        service = kind(scenario)
        service.start(0.0)
        # The jobs are submitted from 0 to 7, so that a map has jobs in every status at each step.
        for now in (0.0, 0.5, 1.0, 2.0, 7.0, 9.0, 9.5, 10.0, 12.0, 20.0):
            for operation, request in requests(name, service):
                answer: Answer = service.calls[operation](request, now)
                of = session.get_service_model("logs") if operation == "GetLogEvents" else model
                shape = of.operation_model(operation).output_shape
                if answer.error or (wrong := violations(shape, json.loads(answer.body), operation)):
                    raise ValueError(f"{name} at {now:g} s: {answer.error or wrong[:5]}")
                checked += 1
    return checked


if __name__ == "__main__":
    print(f"{check()} answers are as botocore's models say")
