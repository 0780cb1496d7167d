"""Holds what the stand-ins answer to botocore's models: every call, in every status a job has.

``python -m benchmarks.standin.shapes``; the benchmark does it before it measures. Botocore ignores what it does not
know, so nobody else would notice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import botocore.session

from benchmarks.figures import Scenario
from benchmarks.standin.ecs import DEFINITION
from benchmarks.standin.script import Answer, Service
from benchmarks.standin.server import SERVICES

TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "boolean": (bool,),
    "double": (float, int),
    "float": (float, int),
    "timestamp": (float, int),
}

CLIENTS = {"batch": "batch", "batch_map": "batch", "ecs": "ecs", "glue_crawl": "glue", "glue_run": "glue"}

AWS_LEAVES_OUT = {("JobDetail", "startedAt"), ("JobSummary", "startedAt")}
"""What the model calls required and AWS leaves out: a job that has not started has no start."""

JOBS = 40
"""Enough for one that fails."""


def requests(name: str, service: Service) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give calls that ask for all jobs, and for one there is not."""
    names = list(service.jobs)
    match name:
        case "batch":
            yield "DescribeJobs", {"jobs": [*names, "no-such-job"]}
        case "batch_map":
            yield "SubmitJob", {"jobName": f"map-{len(names)}", "jobQueue": "queue", "jobDefinition": "definition"}
            yield "ListJobs", {"jobQueue": "queue", "filters": [{"name": "JOB_NAME", "values": ["map-*"]}]}
            yield "DescribeJobs", {"jobs": names}
        case "ecs":
            yield "DescribeTasks", {"cluster": "nightly", "tasks": [*names, "0" * 32]}
            yield "DescribeTaskDefinition", {"taskDefinition": DEFINITION}
        case "glue_crawl":
            yield "BatchGetCrawlers", {"CrawlerNames": [*names, "no-such-crawler"]}
            yield from (("GetCrawler", {"Name": each}) for each in names)
        case "glue_run":
            yield "GetJobRuns", {"JobName": "nightly-load-00"}
            yield "GetJobRuns", {"JobName": "nightly-load-00", "NextToken": "200", "MaxResults": 7}
            yield from (("GetJobRun", {"JobName": job.scope, "RunId": job.name}) for job in service.jobs.values())


def check() -> int:
    """Hold all answers to the models, and return how many there were.

    :raises ValueError: one is not as its model says.
    """
    session = botocore.session.get_session()
    checked = 0
    for name, kind in SERVICES.items():
        model = session.get_service_model(CLIENTS[name])
        scenario = Scenario(JOBS, shortest=10, longest=10, interval=1, service=name, scopes=2)
        service = kind(scenario)
        service.start(0.0)
        # Submitted at 0 to 7: at each step a map has jobs in every status.
        for now in (0.0, 0.5, 1.0, 2.0, 7.0, 9.0, 9.5, 10.0, 12.0, 20.0):
            for operation, request in requests(name, service):
                answer: Answer = service.calls[operation](request, now)
                shape = model.operation_model(operation).output_shape
                if answer.error or (wrong := list(violations(shape, json.loads(answer.body), operation))):
                    raise ValueError(f"{name} at {now:g} s: {answer.error or wrong[:5]}")
                checked += 1
    return checked


def violations(shape: Any, value: Any, path: str) -> Iterator[str]:
    """Say what in a value is not as a shape says: unknown or missing members, wrong types, no such enum."""
    kind = shape.type_name
    is_of_kind: bool = isinstance(value, TYPES[kind])
    if not is_of_kind or (kind != "boolean" and isinstance(value, bool)):
        yield f"{path} is {value!r}, not a {kind}"
    elif kind == "structure":
        required = (name for name in shape.required_members if (shape.name, name) not in AWS_LEAVES_OUT)
        yield from (f"{path}.{name} is missing" for name in required if name not in value)
        for name, member in value.items():
            if name in shape.members:
                yield from violations(shape.members[name], member, f"{path}.{name}")
            else:
                yield f"{path}.{name} is unknown"
    elif kind == "list":
        for member in value:
            yield from violations(shape.member, member, f"{path}[]")
    elif kind == "map":
        for name, member in value.items():
            yield from violations(shape.value, member, f"{path}.{name}")
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{path} is {value!r}, not one of {shape.enum}"


if __name__ == "__main__":
    print(f"{check()} answers are as botocore's models say")
