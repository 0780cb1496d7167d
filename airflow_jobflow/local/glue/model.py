"""What AWS Glue decides about crawls and job runs, as plain functions of plain data, and what all its calls share.

What always holds: nothing here reads a clock or changes its arguments; whatever names a member of Glue's API spells it
as the API does.
"""

from __future__ import annotations

import ast
import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow_jobflow.local.errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Json = dict[str, Any]
T = TypeVar("T")

# States of job runs
STARTING: Final = "STARTING"
RUNNING: Final = "RUNNING"
STOPPING: Final = "STOPPING"
STOPPED: Final = "STOPPED"
SUCCEEDED: Final = "SUCCEEDED"
FAILED: Final = "FAILED"
TIMEOUT: Final = "TIMEOUT"
ERROR: Final = "ERROR"
WAITING: Final = "WAITING"
EXPIRED: Final = "EXPIRED"

ENDED: Final = frozenset({STOPPED, SUCCEEDED, FAILED, TIMEOUT, ERROR, EXPIRED})
COUNTED: Final = frozenset({STARTING, RUNNING, STOPPING})
"""States in which a run counts towards its job's MaxConcurrentRuns."""

# States of crawlers, of crawls as ListCrawls tells them, and of crawls as LastCrawl does
READY: Final = "READY"
COMPLETED: Final = "COMPLETED"
LAST_CRAWL: Final = {COMPLETED: "SUCCEEDED", STOPPED: "CANCELLED", FAILED: "FAILED"}

SHELL: Final = "pythonshell"
COMMANDS: Final = (SHELL, "glueetl", "gluestreaming", "glueray")
LOG_GROUPS: Final = {SHELL: "/aws-glue/python-jobs"}
SPARK_LOGS: Final = "/aws-glue/jobs"
SPARK: Final = frozenset({"pyspark", "awsglue"})
"""Modules that a script needs Spark for."""
DEFAULT_TIMEOUT: Final = 2880
DEFAULT_SHELL_CAPACITY: Final = 0.0625
QUEUED_DAYS: Final = 15
"""A queued run that has not started after so many days expires."""

MAX_PAGE: Final = 1000
MAX_RUNS_PAGE: Final = 200
MAX_CRAWLERS: Final = 100
MAX_STOPPED: Final = 25

TRACEBACK: Final = "Traceback (most recent call last):"
EXCEPTION: Final = re.compile(r"[A-Za-z_][\w.]*(: .*)?")
EXCEPTION_NAME: Final = re.compile(r"([\w.]*\.)?\w*(Error|Exception|Interrupt|Exit|Warning)(: .*)?")


def refused(why: str) -> AwsError:
    """A request that Glue does not accept."""
    return AwsError("InvalidInputException", why)


def given(request: Mapping[str, Any], name: str) -> str:
    """A member that must be there."""
    value: str = request.get(name) or ""
    if not value:
        raise refused(f"1 validation error detected: Value null at '{name}' failed to satisfy constraint")
    return value


def page(
    items: Sequence[T], number: Callable[[T], int], request: Mapping[str, Any], most: int, default: int
) -> tuple[list[T], str | None]:
    """One page of items numbered upwards in their order, and the token for the next one.

    The token holds the number of the page's last item, so that nothing is skipped or told twice when items come in
    between.
    """
    size = request.get("MaxResults") or default
    if not 1 <= size <= most:
        raise refused(f"MaxResults must be between 1 and {most}")
    start = _position(request.get("NextToken"))
    rest = [item for item in items if number(item) > start]
    if len(rest) <= size:
        return rest, None
    last = str(number(rest[size - 1]))
    return rest[:size], base64.urlsafe_b64encode(last.encode()).decode()


def _position(token: str | None) -> float:
    if not token:
        return float("-inf")
    try:
        return int(base64.urlsafe_b64decode(token.encode()))
    except ValueError:
        raise refused("Invalid NextToken") from None


def arguments(job: Mapping[str, Any], asked: Mapping[str, str]) -> list[str]:
    """What a run's script is called with.

    A job's defaults give way to the run's arguments, and those to what nothing overrides in the job. An argument
    without a value is passed as its name alone.
    """
    merged = {
        "--JOB_NAME": job["Name"],
        "--scriptLocation": job["Command"].get("ScriptLocation", ""),
        **(job.get("DefaultArguments") or {}),
        **asked,
        **(job.get("NonOverridableArguments") or {}),
    }
    return [part for name, value in merged.items() for part in (name, value) if part]


def cannot_run(job: Mapping[str, Any], request: Mapping[str, Any], script: bytes | None) -> str | None:
    """Why a run is not started, be it by Glue or because this machine has no Spark; None if it is."""
    command = job["Command"].get("Name")
    if command not in COMMANDS:
        return f"Could not find command {command}"
    if command == SHELL:
        sized = "WorkerType" in request or "NumberOfWorkers" in request
        return f"Worker Type is not supported for Job Command {SHELL}" if sized else None
    asked = {**(job.get("DefaultArguments") or {}), **(request.get("Arguments") or {})}
    needs = sorted(imported(script or b"") & SPARK)
    if asked.get("--job-language", "python") != "python":
        needs = ["Scala"]
    if not needs:
        return None
    return (
        f"The local AWS has no Spark. Job {job['Name']} is a {command} job whose script needs {', '.join(needs)}; "
        f"only scripts that run in plain Python are run here, as {SHELL} jobs or others"
    )


def imported(script: bytes) -> set[str]:
    """The top-level modules a Python script imports; none if it is no Python."""
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError):
        return set()
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    return {name.partition(".")[0] for name in names}


def wrong_with_capacity(request: Mapping[str, Any]) -> str | None:
    """Why Glue refuses how large a job or run is to be; None if it does not."""
    if "AllocatedCapacity" in request and "MaxCapacity" in request:
        return "Please set only Allocated Capacity or Max Capacity."
    if "MaxCapacity" in request and ("WorkerType" in request or "NumberOfWorkers" in request):
        return "Please do not set Max Capacity if using Worker Type and Number of Workers."
    return None


def capacity(job: Mapping[str, Any], request: Mapping[str, Any]) -> Json:
    """What a run shows of its size."""
    shown = {name: request.get(name, job.get(name)) for name in ("WorkerType", "NumberOfWorkers", "MaxCapacity")}
    if "AllocatedCapacity" in request:
        shown["MaxCapacity"] = request["AllocatedCapacity"]
    workers = shown["NumberOfWorkers"]
    if shown["MaxCapacity"] is None:
        shown["MaxCapacity"] = DEFAULT_SHELL_CAPACITY if job["Command"].get("Name") == SHELL else float(workers or 10)
    shown["MaxCapacity"] = float(shown["MaxCapacity"])
    shown["AllocatedCapacity"] = int(shown["MaxCapacity"])
    return {name: value for name, value in shown.items() if value is not None}


def failure(code: int | None, errors: Sequence[str]) -> str:
    """ErrorMessage of a run whose script ended with an exit code: the exception it died of, if it wrote a traceback."""
    lines = [line for line in errors if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.strip() == TRACEBACK]
    if code == 1 and starts:
        raised = [line for line in lines[starts[-1] + 1 :] if not line.startswith(" ")]
        if raised and EXCEPTION.fullmatch(raised[0]):
            return raised[0]
    if code == 1 and lines and EXCEPTION_NAME.fullmatch(lines[-1]):  # a SyntaxError has no traceback
        return lines[-1]
    return f"Command failed with exit code {code}"


FIELDS: Final = {
    "CRAWL_ID": "CrawlId",
    "STATE": "State",
    "START_TIME": "StartTime",
    "END_TIME": "EndTime",
    "DPU_HOUR": "DPUHour",
}
FILTER_MEMBERS: Final = ("FieldName", "FilterOperator", "FieldValue")
OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "GT": lambda one, other: bool(one > other),
    "GE": lambda one, other: bool(one >= other),
    "LT": lambda one, other: bool(one < other),
    "LE": lambda one, other: bool(one <= other),
    "EQ": lambda one, other: bool(one == other),
    "NE": lambda one, other: bool(one != other),
}


def wrong_with_filters(filters: Sequence[Mapping[str, str]]) -> str | None:
    """Why ListCrawls refuses its filters; None if it does not."""
    for each in filters:
        if not all(each.get(name) for name in FILTER_MEMBERS):
            shown = ", ".join(f"{name}: {each.get(name) or 'null'}" for name in FILTER_MEMBERS)
            return f"Invalid Filter Provided: {shown}"
        if each["FieldName"] in ("STATE", "CRAWL_ID") and each["FilterOperator"] not in ("EQ", "NE"):
            return f"Only EQ or NE operator is allowed for field : {each['FieldName']}"
        if each["FieldName"] not in ("STATE", "CRAWL_ID"):
            _number(each["FieldValue"])
    return None


def matches(crawl: Mapping[str, Any], filters: Sequence[Mapping[str, str]]) -> bool:
    """Whether ListCrawls' filters, all of them, let a crawl through; one lacks what has not happened yet."""
    for each in filters:
        name, compare = FIELDS[each["FieldName"]], OPERATORS[each["FilterOperator"]]
        value, wanted = crawl.get(name), each["FieldValue"]
        if value is None:
            return False
        if not compare(value, _number(wanted) if isinstance(value, float) else wanted):
            return False
    return True


def _number(text: str) -> float:
    """A number, or a moment in ISO 8601 or in milliseconds since the epoch, as a number."""
    try:
        number = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise refused(f"{text} is neither a number nor a time") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return number / 1000 if number > 1e11 else number  # noqa: PLR2004 -- seconds until the year 5138
