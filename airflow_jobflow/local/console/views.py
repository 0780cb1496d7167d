"""The console pages for ECS tasks, Glue and logs, and the table of all pages."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Final

from airflow_jobflow.local.console import batch as console_batch
from airflow_jobflow.local.console.html import Cell, Page, Table, Text, at, environment, log_line, took
from airflow_jobflow.local.console.style import ENDED, Json, NotFound, Query, RegionReader, name_of, number, pairs
from airflow_jobflow.local.ecs import model as ecs_model
from airflow_jobflow.local.ecs.task import log_stream

LOG_PAGE: Final = 500
"""Lines on a page of a log."""


def ecs_task(reader: RegionReader, query: Query) -> Page:
    """Return the page of an ECS task with its containers.

    :param reader: reads the local AWS.
    :param query: the parameters of the request.
    """
    request = {"cluster": query["cluster"], "tasks": [query["task"]], "include": ["TAGS"]}
    found = reader.ask("ecs", "DescribeTasks", request)["tasks"]
    if not found:
        raise NotFound(f"ECS task {query['task']} of cluster {name_of(query['cluster'])}")
    task: Json = found[0]
    definition = reader.task_definition(task["taskDefinitionArn"]) or {}
    defined = {each["name"]: each for each in definition.get("containerDefinitions", ())}
    overrides = {each["name"]: each for each in task["overrides"].get("containerOverrides", ())}
    task_id = name_of(task["taskArn"])
    runtimes = {each["name"]: each.get("runtimeId", "") for each in task["containers"]}
    logs = {name: log_stream(each, task_id, runtimes.get(name, "")) for name, each in defined.items()}
    facts: dict[str, Cell] = {
        "Task": task["taskArn"],
        "Stop code": task.get("stopCode"),
        "Reason": task.get("stoppedReason"),
        "Created": at(task["createdAt"]),
        "Started": at(task.get("startedAt")),
        "Stopped": at(task.get("stoppedAt")),
        "Duration": took(task.get("startedAt"), task.get("stoppedAt")),
        "Cluster": name_of(task["clusterArn"]),
        "Definition": name_of(task["taskDefinitionArn"]),
        "Started by": task.get("startedBy"),
        "Capacity": task.get("capacityProviderName") or task["launchType"],
        "Size": f"{task['cpu']} CPU units, {task['memory']} MiB",
    }
    rows = []
    for each in task["containers"]:
        name, log = each["name"], logs.get(each["name"])
        essential = "yes" if defined.get(name, {}).get("essential", True) else "no"
        link = reader.link("log", "log", group=log[0], stream=log[1]) if log else None
        rows.append((name, essential, each["lastStatus"], each.get("exitCode"), each.get("reason"), link))
    header = ("Container", "Essential", "Status", "Exit code", "Reason", "")
    sections: list[Table | Text] = [Table("Containers", header, rows)]
    for name, each in defined.items():
        merged = ecs_model.overridden(each, task["overrides"]) if name in overrides else each
        if (log := logs[name]) and reader.log(*log) is not None:
            sections.append(reader.tail(*log, name))
        sections.append(Text(f"Command of {name}", [shlex.join(ecs_model.arguments(merged))]))
        sections.append(environment(merged.get("environment", ()), f"Environment of {name}"))
    sections.append(pairs("Tags", {each["key"]: each.get("value", "") for each in task.get("tags", ())}))
    title = f"{definition.get('family', '')} {task_id}"
    return Page("ECS task", title, task["lastStatus"], facts, sections, live=task["lastStatus"] not in ENDED)


def glue_crawler(reader: RegionReader, query: Query) -> Page:
    """Return the page of a crawler and its crawls.

    :param reader: reads the local AWS.
    :param query: the parameters of the request.
    """
    name = query["crawler"]
    crawler: Json = reader.ask("glue", "GetCrawler", {"Name": name})["Crawler"]
    crawls = reader.ask("glue", "ListCrawls", {"CrawlerName": name})["Crawls"]
    last = crawler.get("LastCrawl", {})
    targets = [each["Path"] for each in crawler.get("Targets", {}).get("S3Targets", ())]
    facts: dict[str, Cell] = {
        "Last crawl": last.get("Status"),
        "Error": last.get("ErrorMessage"),
        "Database": crawler.get("DatabaseName"),
        "Targets": ", ".join(targets),
        "Role": crawler.get("Role"),
    }
    rows = [
        (
            each["CrawlId"],
            each["State"],
            at(each["StartTime"]),
            took(each["StartTime"], each.get("EndTime")),
            each.get("ErrorMessage"),
        )
        for each in crawls
    ]
    table = Table("Crawls, newest first", ("Crawl", "State", "Started", "Duration", "Error"), rows)
    sections: list[Table | Text] = [table]
    if crawls:
        sections.append(reader.tail(crawls[0]["LogGroup"], crawls[0]["LogStream"]))
    return Page("Glue crawler", name, crawler["State"], facts, sections, live=crawler["State"] != "READY")


def glue_job_run(reader: RegionReader, query: Query) -> Page:
    """Return the page of a Glue job run.

    :param reader: reads the local AWS.
    :param query: the parameters of the request.
    """
    run: Json = reader.ask("glue", "GetJobRun", {"JobName": query["job"], "RunId": query["run"]})["JobRun"]
    facts: dict[str, Cell] = {
        "Run": run["Id"],
        "Error": run.get("ErrorMessage"),
        "Started": at(run["StartedOn"]),
        "Completed": at(run.get("CompletedOn")),
        "Execution time": f"{run['ExecutionTime']} s",
        "Attempt": run["Attempt"] or None,
        "Previous run": run.get("PreviousRunId"),
        "Time-out": f"{run['Timeout']} min",
        "Glue version": run.get("GlueVersion"),
    }
    logs = [
        reader.tail(f"{run['LogGroupName']}/{stream}", run["Id"], f"standard {stream}")
        for stream in ("error", "output")
    ]
    arguments = [{"name": name, "value": value} for name, value in (run.get("Arguments") or {}).items()]
    sections: list[Table | Text] = [*logs, environment(arguments, "Arguments")]
    state: str = run["JobRunState"]
    return Page("Glue job run", query["job"], state, facts, sections, live=state not in ENDED)


def log(reader: RegionReader, query: Query) -> Page:
    """Return a page of a log stream; the last one by default.

    :param reader: reads the local AWS.
    :param query: the parameters of the request.
    """
    group, stream = query["group"], query["stream"]
    events = reader.log(group, stream)
    if events is None:
        raise NotFound(f"Log stream {stream} of log group {group}")
    end = min(number(query, "end", len(events)), len(events))
    start = max(0, end - LOG_PAGE)
    more = []
    if start > 0:
        more.append(reader.link("Earlier lines", "log", group=group, stream=stream, end=start))
    if end < len(events):
        more.append(reader.link("Later lines", "log", group=group, stream=stream, end=end + LOG_PAGE))
    lines = [log_line(*each) for each in events[start:end]] or ["(no lines)"]
    title = f"Lines {start + 1} to {end} of {len(events)}" if events else "Lines"
    return Page(
        "Log stream", stream, facts={"Log group": group, "Region": reader.region}, sections=[Text(title, lines, more)]
    )


VIEWS: Final[Mapping[str, tuple[str, Callable[[RegionReader, Query], Page]]]] = {
    "batch-job": ("batch", console_batch.batch_job),
    "batch-job-queue": ("batch", console_batch.batch_job_queue),
    "batch-job-definition": ("batch", console_batch.batch_job_definition),
    "ecs-task": ("ecs", ecs_task),
    "glue-crawler": ("glue", glue_crawler),
    "glue-job-run": ("glue", glue_job_run),
    "log": ("", log),
}
"""The service and the view of each page, by the name of the page."""
