"""The decisions of AWS Glue about crawls and job runs, as pure functions of plain data.

Invariants: nothing here reads a clock or changes its arguments. Members of Glue's API have their names in the API.
"""

from __future__ import annotations

import ast
import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow_jobflow.jobs.glue_run import DPUS_PER_WORKER
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

# States of crawlers, of crawls in ListCrawls, and of crawls in LastCrawl
READY: Final = "READY"
COMPLETED: Final = "COMPLETED"
LAST_CRAWL: Final = {COMPLETED: "SUCCEEDED", STOPPED: "CANCELLED", FAILED: "FAILED"}

SHELL: Final = "pythonshell"
COMMANDS: Final = (SHELL, "glueetl", "gluestreaming", "glueray")
LOG_GROUPS: Final = {SHELL: "/aws-glue/python-jobs"}
SPARK_LOGS: Final = "/aws-glue/jobs"
SPARK: Final = frozenset({"pyspark", "awsglue"})
"""Modules that need Spark."""
SCRIPT: Final = "--scriptLocation"
DEFAULT_TIMEOUT: Final = 2880
DEFAULT_SHELL_CAPACITY: Final = 0.0625
QUEUED_DAYS: Final = 15
"""Days until a queued run expires."""

MAX_PAGE: Final = 1000
MAX_RUNS_PAGE: Final = 200
MAX_CRAWLERS: Final = 100
MAX_STOPPED: Final = 25

TRACEBACK: Final = "Traceback (most recent call last):"
EXCEPTION: Final = re.compile(r"[A-Za-z_][\w.]*(: .*)?")
EXCEPTION_NAME: Final = re.compile(r"([\w.]*\.)?\w*(Error|Exception|Interrupt|Exit|Warning)(: .*)?")


def rejected(why: str) -> AwsError:
    """Return the error for a request that Glue rejects.

    :param why: the reason.
    """
    return AwsError("InvalidInputException", why)


def required(request: Mapping[str, Any], name: str) -> str:
    """Return a required member of a request.

    :param request: the request.
    :param name: the member.
    :raises AwsError: it is missing or empty.
    """
    value: str = request.get(name) or ""
    if not value:
        raise rejected(f"1 validation error detected: Value null at '{name}' failed to satisfy constraint")
    return value


def page(
    items: Sequence[T], number: Callable[[T], int], request: Mapping[str, Any], most: int, default: int
) -> tuple[list[T], str | None]:
    """Return a page of items, and the token for the next page.

    The token contains the number of the last item on the page, so that no item is skipped or repeated if others are
    added.

    :param items: the items, with ascending numbers.
    :param number: returns the number of an item.
    :param request: the request, with ``MaxResults`` and ``NextToken``.
    :param most: the maximum size of a page.
    :param default: the default size of a page.
    :raises AwsError: the size or the token is invalid.
    """
    size = request.get("MaxResults") or default
    if not 1 <= size <= most:
        raise rejected(f"MaxResults must be between 1 and {most}")
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
        raise rejected("Invalid NextToken") from None


def script_location(job: Mapping[str, Any], asked: Mapping[str, str]) -> str:
    """Return where the script of a run is: ``--scriptLocation`` overrides the job's command.

    :param job: the job.
    :param asked: the arguments of the run.
    """
    merged = {**(job.get("DefaultArguments") or {}), **asked, **(job.get("NonOverridableArguments") or {})}
    return str(merged.get(SCRIPT, job["Command"].get("ScriptLocation", "")))


def arguments(job: Mapping[str, Any], asked: Mapping[str, str]) -> list[str]:
    """Return the arguments of a run's script.

    The arguments of the run override the job's defaults. The job's ``NonOverridableArguments`` override both. An
    argument without a value is passed as its name only.

    :param job: the job.
    :param asked: the arguments of the run.
    """
    merged = {
        "--JOB_NAME": job["Name"],
        SCRIPT: job["Command"].get("ScriptLocation", ""),
        **(job.get("DefaultArguments") or {}),
        **asked,
        **(job.get("NonOverridableArguments") or {}),
    }
    return [part for name, value in merged.items() for part in (name, value) if part]


def cannot_run(job: Mapping[str, Any], request: Mapping[str, Any], script: bytes | None) -> str | None:
    """Return why Glue rejects a run, or why it cannot run here, or None.

    :param job: the job.
    :param request: the request of StartJobRun.
    :param script: the job's script, if it exists.
    """
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
        f"The local AWS has no Spark, but the script of {command} job {job['Name']} needs {', '.join(needs)}. It runs "
        f"only scripts in plain Python, in {SHELL} and other jobs"
    )


def imported(script: bytes) -> set[str]:
    """Return the top-level modules that a script imports; none if it is not valid Python.

    :param script: the script.
    """
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


def capacity_error(request: Mapping[str, Any]) -> str | None:
    """Return why Glue rejects the size of a job or run, or None.

    :param request: the request.
    """
    if "AllocatedCapacity" in request and "MaxCapacity" in request:
        return "Please set only Allocated Capacity or Max Capacity."
    if "MaxCapacity" in request and ("WorkerType" in request or "NumberOfWorkers" in request):
        return "Please do not set Max Capacity if using Worker Type and Number of Workers."
    return None


def capacity(job: Mapping[str, Any], request: Mapping[str, Any]) -> Json:
    """Return the size of a run as in GetJobRun.

    :param job: the job.
    :param request: the request of StartJobRun.
    """
    shown = {name: request.get(name, job.get(name)) for name in ("WorkerType", "NumberOfWorkers", "MaxCapacity")}
    if "AllocatedCapacity" in request:
        shown["MaxCapacity"] = request["AllocatedCapacity"]
    workers = shown["NumberOfWorkers"]
    if shown["MaxCapacity"] is None:
        per_worker = DPUS_PER_WORKER.get(shown["WorkerType"], 1.0)
        is_shell = job["Command"].get("Name") == SHELL
        shown["MaxCapacity"] = DEFAULT_SHELL_CAPACITY if is_shell else (workers or 10) * per_worker
    shown["MaxCapacity"] = float(shown["MaxCapacity"])
    shown["AllocatedCapacity"] = int(shown["MaxCapacity"])
    return {name: value for name, value in shown.items() if value is not None}


def failure(code: int | None, errors: Sequence[str]) -> str:
    """Return the ErrorMessage of a failed run: its exception, if it printed a traceback, or else its exit code.

    :param code: the exit code.
    :param errors: the last lines of standard error.
    """
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


def filters_error(filters: Sequence[Mapping[str, str]]) -> str | None:
    """Return why ListCrawls rejects its filters, or None.

    :param filters: the filters.
    :raises AwsError: a value is neither a number nor a time.
    """
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
    """Return whether a crawl matches all filters of ListCrawls. A missing value does not match.

    :param crawl: the crawl as in ListCrawls.
    :param filters: the filters.
    """
    for each in filters:
        name, compare = FIELDS[each["FieldName"]], OPERATORS[each["FilterOperator"]]
        value, wanted = crawl.get(name), each["FieldValue"]
        if value is None:
            return False
        if not compare(value, _number(wanted) if isinstance(value, float) else wanted):
            return False
    return True


def _number(text: str) -> float:
    """Return the value of a number, or of a time in ISO 8601 or in milliseconds since the epoch."""
    try:
        number = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise rejected(f"{text} is neither a number nor a time") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return number / 1000 if number > 1e11 else number  # noqa: PLR2004 -- seconds until the year 5138
