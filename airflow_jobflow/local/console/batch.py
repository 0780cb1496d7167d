"""The console pages for Batch: a job, a queue, a job definition."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from airflow_jobflow.local.console.html import HIDDEN, SECRET, Cell, Page, Table, Text, at, environment, took
from airflow_jobflow.local.console.style import ENDED, Json, NotFound, Query, RegionReader, name_of, number, pairs

CHILDREN_PAGE: Final = 100
"""Children on a page of an array: the maximum of a DescribeJobs call."""

LOGS: Final = "/aws/batch/job"
"""The default log group of a container."""


def batch_job(reader: RegionReader, query: Query) -> Page:
    """Return the page of a job, an array or an array child.

    :param reader: reads the local AWS.
    :param query: the parameters of the request.
    """
    job_id = query["job"]
    found = reader.ask("batch", "DescribeJobs", {"jobs": [job_id]})["jobs"]
    if not found:
        raise NotFound(f"Batch job {job_id}")
    job: Json = found[0]
    container, array = job.get("container", {}), job.get("arrayProperties", {})
    created, started, stopped = (_seconds(job.get(name)) for name in ("createdAt", "startedAt", "stoppedAt"))
    parent = job_id.partition(":")[0] if "index" in array else None
    attempts: int = job["retryStrategy"]["attempts"]
    facts: dict[str, Cell] = {
        "Job id": job_id,
        "Reason": job.get("statusReason"),
        "Exit code": container.get("exitCode"),
        "Container reason": container.get("reason"),
        "Created": at(created),
        "Started": at(started),
        "Stopped": at(stopped),
        "Duration": took(started, stopped),
        "Attempts": f"{len(job['attempts'])} of {attempts}" if job["attempts"] or attempts > 1 else None,
        "Queue": reader.link(name_of(job["jobQueue"]), "batch-job-queue", queue=job["jobQueue"]),
        "Definition": reader.link(
            name_of(job["jobDefinition"]), "batch-job-definition", definition=job["jobDefinition"]
        ),
        "Array": parent and reader.link(f"child {array['index']} of {parent}", "batch-job", job=parent),
        "Children": _counts(array.get("statusSummary", {})),
        "Depends on": ", ".join(each.get("jobId", "") for each in job["dependsOn"]),
        "Image": container.get("image"),
        "Command": shlex.join(container.get("command", ())),
        "Time-out": f"{job['timeout']['attemptDurationSeconds']} s" if "timeout" in job else None,
    }
    sections = [
        *_containers(reader, job),
        *_children(reader, job, number(query, "children", 0)),
        _attempts(reader, job),
        *(environment(each.get("environment", ()), _of("Environment", each)) for each in _all_containers(job)),
        pairs("Parameters", job["parameters"]),
        pairs("Tags", job["tags"]),
    ]
    return Page("Batch job", job["jobName"], job["status"], facts, sections, live=job["status"] not in ENDED)


def batch_job_queue(reader: RegionReader, query: Query) -> Page:
    """Return the page of a queue, with its newest jobs.

    :param reader: reads the local AWS.
    :param query: the parameters of the request.
    """
    queue = query["queue"]
    request = {"jobQueue": queue, "filters": [{"name": "JOB_NAME", "values": ["*"]}]}
    if token := query.get("after"):
        request["nextToken"] = token
    answer = reader.ask("batch", "ListJobs", request)
    rows = [
        (
            reader.link(each["jobName"], "batch-job", job=each["jobId"]),
            each["status"],
            each.get("arrayProperties", {}).get("size"),
            at(_seconds(each["createdAt"])),
        )
        for each in answer["jobSummaryList"]
    ]
    token = answer.get("nextToken")
    more = [reader.link("Older jobs", "batch-job-queue", queue=queue, after=token)] if token else []
    jobs = Table("Jobs, newest first", ("Job", "Status", "Children", "Created"), rows, more)
    return Page("Batch job queue", name_of(queue), facts={"ARN": queue, "Region": reader.region}, sections=[jobs])


def batch_job_definition(reader: RegionReader, query: Query) -> Page:
    """Return the page of a job definition.

    :param reader: reads the local AWS.
    :param query: the parameters of the request.
    """
    found = reader.job_definition(query["definition"])
    if found is None:
        raise NotFound(f"Active Batch job definition {query['definition']}")
    name = f"{found['jobDefinitionName']}:{found['revision']}"
    text = Text("Definition", json.dumps(_hidden(found), indent=2).splitlines())
    return Page("Batch job definition", name, found["status"], {"ARN": found["jobDefinitionArn"]}, [text])


def _containers(reader: RegionReader, job: Json) -> Iterator[Table | Text]:
    """Return the containers of a job, and their last log lines."""
    containers = _all_containers(job)
    if "container" not in job:
        rows = [
            (
                each["name"],
                "yes" if each.get("essential", True) else "no",
                each.get("exitCode"),
                each.get("reason"),
                shlex.join(each.get("command", ())),
            )
            for each in containers
        ]
        yield Table("Containers", ("Container", "Essential", "Exit code", "Reason", "Command"), rows)
    for each in containers:
        if stream := each.get("logStreamName"):
            yield reader.tail(_log_group(each), stream, each.get("name", ""))


def _of(what: str, container: Json) -> str:
    return f"{what} of {container['name']}" if "name" in container else what


def _all_containers(job: Mapping[str, Json]) -> Sequence[Json]:
    if "container" in job:
        return [job["container"]]
    tasks = job.get("ecsProperties", {}).get("taskProperties", ())
    return [container for task in tasks for container in task["containers"]]


def _log_group(container: Json) -> str:
    options = container.get("logConfiguration", {}).get("options", {})
    return str(options.get("awslogs-group", LOGS))


def _children(reader: RegionReader, job: Json, start: int) -> Iterator[Table]:
    """Return a page of the children of an array, from the index `start`."""
    size, job_id = job.get("arrayProperties", {}).get("size", 0), job["jobId"]
    indexes = range(start, min(start + CHILDREN_PAGE, size))
    if not indexes:
        return
    children = reader.ask("batch", "DescribeJobs", {"jobs": [f"{job_id}:{index}" for index in indexes]})["jobs"]
    rows = [
        (
            reader.link(str(each["arrayProperties"]["index"]), "batch-job", job=each["jobId"]),
            each["status"],
            each.get("container", {}).get("exitCode"),
            each.get("statusReason"),
            took(_seconds(each.get("startedAt")), _seconds(each.get("stoppedAt"))),
        )
        for each in children
    ]
    more = []
    if start > 0:
        before = max(0, start - CHILDREN_PAGE)
        more.append(reader.link("Previous children", "batch-job", job=job_id, children=before))
    if indexes.stop < size:
        more.append(reader.link("Next children", "batch-job", job=job_id, children=indexes.stop))
    title = f"Children {start} to {indexes.stop - 1} of {size}"
    yield Table(title, ("Index", "Status", "Exit code", "Reason", "Duration"), rows, more)


def _attempts(reader: RegionReader, job: Json) -> Table:
    rows = []
    group = _log_group(_all_containers(job)[0])
    for count, each in enumerate(job["attempts"], 1):
        container = each.get("container", {})
        stream = container.get("logStreamName")
        rows.append(
            (
                count,
                at(_seconds(each.get("startedAt"))),
                at(_seconds(each.get("stoppedAt"))),
                container.get("exitCode"),
                container.get("reason") or each.get("statusReason"),
                reader.link("log", "log", group=group, stream=stream) if stream else None,
            )
        )
    return Table("Attempts", ("Attempt", "Started", "Stopped", "Exit code", "Reason", ""), rows)


def _hidden(value: Json) -> Json:
    """Return a definition without the values of environment variables that may be secrets."""
    return json.loads(json.dumps(value), object_hook=_hide)  # type: ignore[no-any-return]


def _hide(pair: Json) -> Json:
    secret = set(pair) == {"name", "value"} and SECRET.search(str(pair["name"]))
    return {**pair, "value": HIDDEN} if secret else pair


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)
