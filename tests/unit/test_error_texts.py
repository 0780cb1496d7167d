"""The exact errors that users read, one for each situation.

Each says what happened, to which job, why, and what to do. Users act on these sentences, so a change of one is a change
of behaviour. They are in ``error_texts.toml``.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_jobflow.aws import Access
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import map_statuses
from airflow_jobflow.jobs.attempt import MapRecord
from airflow_jobflow.jobs.model import JobState, LogStream, Snapshot
from airflow_jobflow.jobs.packing import pack
from airflow_jobflow.jobs.starting import NotStarted
from airflow_jobflow.jobs.wording import jobs_named
from airflow_jobflow.maps.stopper import Unstopped
from airflow_jobflow.maps.tracker import failed_snapshot, result_line
from airflow_jobflow.operators import capacity, submission
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from airflow_jobflow.operators.glue import GlueCrawlOperator
from airflow_jobflow.polling.errors import DescribeRejected, NotFound
from airflow_jobflow.sensors.batch import BatchJobSensor
from tests.unit.scripted_aws import ScriptedAws, context

BATCH: dict[str, Any] = {"job_name": "n", "job_queue": "q", "job_definition": "d"}
DENIED = CallError(
    Fault.DENIED,
    "An error occurred (AccessDeniedException) when calling the DescribeJobs operation: User a is not authorized",
)
NO_CREDENTIALS = CallError(Fault.CREDENTIALS, "DescribeJobs: Unable to locate credentials", sent=False)
LOG = LogStream("/aws/batch/job", "d/default/1")
TEXTS: dict[str, str] = tomllib.loads((Path(__file__).parent / "error_texts.toml").read_text())


class Aws(ScriptedAws):
    """A scripted AWS in which some calls fail.

    :param failing: the error of each call of an operation.
    :param status: the status of the Batch job. Default: the one of its state.
    """

    def __init__(self, failing: Mapping[str, Exception] | None = None, *, status: str = "", **more: Any) -> None:
        super().__init__(**more)
        self.failing = dict(failing or {})
        self.status = status

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Make one call."""
        if operation in self.failing:
            raise self.failing[operation]
        return super().__call__(operation, **parameters)

    def describe_jobs(self, jobs: list[str]) -> Any:
        """Respond with the members that a link and a log need."""
        logged = {**({"exitCode": 1} if self.job.ended else {}), "logStreamName": LOG.stream}
        arn = "arn:aws:batch:eu-west-1:123456789012:job/job-1"
        job = {
            "jobName": "hello",
            "jobArn": arn,
            "status": self.status or self.job,
            "jobQueue": "q",
            "container": logged,
        }
        return {"jobs": [{**job, "jobId": each} for each in jobs if each == "job-1"]}

    def get_log_events(self, **_: Any) -> Any:
        """Respond with log lines."""
        return {"events": [{"message": "reading part 7"}]}

    def get_job_queue_snapshot(self, **_: Any) -> Any:
        """Respond with an empty queue."""
        return {"frontOfQueue": {"jobs": [{"jobArn": "arn:aws:batch:eu-west-1:1:job/x"}, {"jobArn": "a:job/job-1"}]}}

    def terminate_job(self, **_: Any) -> Any:
        """Respond with success."""
        return {}

    def list_tasks(self, **_: Any) -> Any:
        """Respond with an empty list."""
        return {"taskArns": []}


class Clock:
    """A clock on which every pause takes a quarter of an hour."""

    def __init__(self) -> None:
        self.passed = 0.0

    def time(self) -> float:
        """Return the time."""
        return time.time() + self.passed

    def sleep(self, _: float) -> None:
        """Advance the clock."""
        self.passed += 900.0


Use = Callable[[Aws], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Return a function that directs all calls to a scripted AWS."""

    def scripted(aws: Aws) -> None:
        def run_scripted(_: Any, function: Callable[..., Any], *arguments: Any, **__: Any) -> Any:
            return function(aws, *arguments)

        client = SimpleNamespace(origin="aws_default in eu-west-1")
        for module in ("airflow_jobflow.aws", "airflow_jobflow.outcomes"):
            monkeypatch.setattr(f"{module}.run_blocking", run_scripted)
            monkeypatch.setattr(f"{module}.service_client", lambda *_: client)
        monkeypatch.setattr(submission, "LOOKUPS", (0.0,))
        monkeypatch.setattr(submission, "PATIENCE", 0.0)
        monkeypatch.setattr(capacity, "time", Clock())

    scripted(Aws())
    return scripted


def seen(state: JobState = JobState.RUNNING, **more: Any) -> dict[str, Any]:
    """Return the last snapshot of a job in a trigger."""
    fields: dict[str, Any] = {"status": state.value, "name": "hello", "region": "eu-west-1", **more}
    return Snapshot("job-1", state, **fields).to_dict()


def event(**more: Any) -> dict[str, Any]:
    """Return the event of a trigger that waits for one job."""
    return {"job_ids": ["job-1"], "jobs": {}, "errors": {}, "limit": None, **more}


def error_of(function: Callable[[], Any]) -> str:
    """Return the class and text of an exception, without the random part of the job's name."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 -- the class is asserted with the text
        function()
    text = re.sub(r"n-[0-9a-f]{10}-t1m1c0-[0-9a-f]{10}", "NAME", str(raised.value))
    text = re.sub(r"\bn-[0-9a-f]{10}\b", "n-TOKEN", text)
    return f"{raised.type.__name__}: {text}"


def completed(task: Any, of: Mapping[str, Any], *, tries_left: bool = True, **attempt: Any) -> str:
    """Return the error of a task that is resumed with an event."""
    task_context: Any = context()
    task_context["ti"].max_tries = 1 if tries_left else 0
    began = {"job_ids": ["job-1"], "number": 1, "where": {"job_name": "n", "queue": "q"}, **attempt}
    if isinstance(task, BatchJobSensor):
        return error_of(lambda: task.execute_complete(task_context, of))
    return error_of(lambda: task.execute_complete(task_context, of, attempt=began))


def unwatched(kind: str, error: Exception, **more: Any) -> dict[str, Any]:
    """Return the event of a job that can no longer be watched."""
    return event(errors={"job-1": {"kind": kind, "message": str(error)}}, **more)


def job(**given: Any) -> Any:
    """Return a task that runs a Batch job."""
    return BatchJobOperator(task_id="t", **BATCH, **given)


def sensor(job_id: Any = "job-1", **given: Any) -> Any:
    """Return a task that waits for Batch jobs."""
    return BatchJobSensor(task_id="t", job_id=job_id, **given)


VANISHED = NotFound("job-1", 300.2)
NO_REGION = "client creation: You must specify a region."
BAD_ID = "An error occurred (ClientException) when calling the DescribeJobs operation: bad id"
UNREACHABLE = CallError(Fault.TRANSIENT, "DescribeJobs: Could not connect (Connection refused)", sent=False)
NO_ANSWERS = Aws({"describe_jobs": UNREACHABLE, "terminate_job": UNREACHABLE})
DESCRIBED = {"job-1": seen(log=LOG)}
SOME_VANISHED = {each: {"kind": "vanished", "message": str(VANISHED)} for each in ("job-1", "b")}

ENDED: dict[str, tuple[Any, Mapping[str, Any], Aws]] = {
    "vanished": (job(), unwatched("vanished", VANISHED), Aws()),
    "vanished, described before": (job(), unwatched("vanished", VANISHED, jobs=DESCRIBED), Aws()),
    "two of a sensor vanished": (
        sensor(["job-1", "b"]),
        event(job_ids=["job-1", "b"], jobs=DESCRIBED, errors=SOME_VANISHED),
        Aws(),
    ),
    "denied": (job(), unwatched("denied", DescribeRejected("job-1", 301, 12, DENIED), jobs=DESCRIBED), Aws()),
    "denied once, to a sensor": (sensor(), unwatched("denied", DescribeRejected("job-1", 0, 1, DENIED)), Aws()),
    "no credentials": (job(), unwatched("credentials", DescribeRejected("job-1", 301, 12, NO_CREDENTIALS)), Aws()),
    "no region": (
        sensor(aws_conn_id="team_b"),
        unwatched("credentials", DescribeRejected("job-1", 301, 12, CallError(Fault.CREDENTIALS, NO_REGION))),
        Aws(),
    ),
    "describe rejected": (
        job(),
        unwatched("unanswerable", DescribeRejected("job-1", 61, 3, CallError(Fault.REJECTED, BAD_ID))),
        Aws(),
    ),
    "timed out, stopped": (
        job(job_timeout=60),
        event(limit="deadline", jobs=DESCRIBED, stopped=["job-1"], unstopped={}),
        Aws(),
    ),
    "timed out, not stopped yet": (
        job(job_timeout=60),
        event(limit="deadline", jobs=DESCRIBED, unstopped={"job-1": "TerminateJob: no response"}),
        Aws(),
    ),
    "timed out, left running": (
        job(execution_timeout=timedelta(hours=1), cancel_on_timeout=False),
        event(limit="deadline"),
        Aws(),
    ),
    "timed out, AWS is unreachable": (job(job_timeout=60), event(limit="deadline"), NO_ANSWERS),
    "timed out, no job": (job(job_timeout=60, durable=False), event(job_ids=[], limit="deadline"), Aws()),
    "stuck in the queue": (
        job(queued_timeout=60),
        event(limit="queue_deadline"),
        Aws(job=JobState.SUBMITTED, status="RUNNABLE"),
    ),
    "attempt timed out": (
        job(),
        event(jobs={"job-1": seen(JobState.FAILED, attempt=1, reason="Job attempt duration exceeded timeout")}),
        Aws(),
    ),
    "sensor timed out": (sensor(timeout=8), event(limit="deadline"), Aws()),
    "sensor of three timed out": (
        sensor(["job-1", "b", "c"], job_timeout=8),
        event(job_ids=["job-1", "b", "c"], limit="deadline", jobs={"c": seen(JobState.SUCCEEDED)}),
        Aws(),
    ),
    "stopped": (
        job(),
        event(jobs={"job-1": seen(JobState.FAILED, reason="not needed any more", stopped_by_request=True)}),
        Aws(),
    ),
    "failed": (
        job(),
        event(jobs={"job-1": seen(JobState.FAILED, reason="Essential container in task exited", exit_code=1, log=LOG)}),
        Aws(),
    ),
    "failed, and its log was copied": (
        job(),
        event(
            jobs={"job-1": seen(JobState.FAILED, reason="Essential container in task exited", exit_code=1, log=LOG)},
            copied=["job-1"],
        ),
        Aws(),
    ),
    "the pod started no container": (
        job(),
        event(
            jobs={"job-1": seen(JobState.FAILED, container_reason="InvalidImageName", details={"pod": "aws-batch.1"})}
        ),
        Aws(),
    ),
    "another node failed first": (
        job(),
        event(
            jobs={
                "job-1": seen(
                    JobState.FAILED,
                    exit_code=1,
                    log=LOG,
                    details={"main_node": 0, "nodes": 8, "failed_nodes": {"5": "exit code 137, OutOfMemoryError"}},
                )
            }
        ),
        Aws(),
    ),
    "a reason that nobody knows": (
        job(),
        event(jobs={"job-1": seen(JobState.FAILED, reason="The flux capacitor is misaligned.")}),
        Aws(),
    ),
}
"""Tasks that are resumed with an event."""


@pytest.mark.parametrize("name", ENDED)
def test_a_wait_that_ended(use: Use, name: str) -> None:
    """The message names the job, the connection and the region, and the actual cause."""
    task, of, aws = ENDED[name]
    use(aws)
    assert completed(task, of) == TEXTS[name]


@pytest.mark.usefixtures("use")
def test_a_job_without_another_try() -> None:
    """No further try will look it up."""
    text = completed(job(), unwatched("vanished", VANISHED), tries_left=False)
    assert text == TEXTS["vanished, no try left"]


def submit_error(fault: Fault, message: str, code: str = "ClientException", *, sent: bool = False) -> CallError:
    """Return the error of a submit."""
    return CallError(fault, f"SubmitJob: {message}", code, "SubmitJob", sent)


LOST = submit_error(Fault.TRANSIENT, "Read timeout", "", sent=True)
NOT_SUBMITTED: dict[str, dict[str, Exception]] = {
    "submission rejected": {"submit_job": submit_error(Fault.SCOPE_NOT_FOUND, "JobQueue q not found")},
    "submission without credentials": {
        "submit_job": submit_error(Fault.CREDENTIALS, "Unable to locate credentials", "")
    },
    "submission denied": {"submit_job": submit_error(Fault.DENIED, "not authorized")},
    "nothing sent": {"submit_job": submit_error(Fault.TRANSIENT, "Connection refused", "")},
    "submission rejected by a proxy": {"submit_job": submit_error(Fault.REJECTED, "Not Found", "404")},
    "submission lost": {"submit_job": LOST},
    "submission lost, no lookup": {"submit_job": LOST, "list_jobs": UNREACHABLE},
}
"""Failed submits, with the errors of their calls."""


@pytest.mark.parametrize("name", NOT_SUBMITTED)
def test_a_failed_submit(use: Use, name: str) -> None:
    """The message says whether a job was started, the cause, and what to do."""
    use(Aws(NOT_SUBMITTED[name]))
    assert error_of(lambda: job().execute(context())) == TEXTS[name]


CAPACITY: dict[str, Exception] = {
    "no capacity": CallError(Fault.NO_CAPACITY, "RunTask: Capacity is unavailable.", sent=False),
    "throttled": CallError(Fault.THROTTLED, "RunTask: Rate exceeded", sent=False),
    "no capacity, says ECS": NotStarted("RESOURCE:MEMORY", Fault.NO_CAPACITY),
}


@pytest.mark.parametrize("name", CAPACITY)
@pytest.mark.parametrize("limit", ["job_timeout", "queued_timeout"])
def test_a_start_without_capacity(use: Use, name: str, limit: str) -> None:
    """The start is repeated until the deadline, and the message says how often."""
    use(Aws({"run_task": CAPACITY[name]}))
    given: dict[str, Any] = {"cluster": "c", "task_definition": "d", "subnets": ["s"], limit: 600}
    task: Any = FargateTaskOperator(task_id="t", deferrable=False, **given)
    assert error_of(lambda: task.execute(context())) == TEXTS[f"{name}, {limit}"]


def test_a_running_crawler(use: Use) -> None:
    """The operator has ``if_running="fail"``."""
    use(Aws(busy=True))
    task: Any = GlueCrawlOperator(task_id="t", crawler_name="c", if_running="fail")
    assert error_of(lambda: task.execute(context())) == TEXTS["crawler at work"]


@pytest.mark.usefixtures("use")
def test_a_kill_while_the_job_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what happened to the job."""
    task = job()

    def killed(*_: object) -> list[str]:
        task.on_kill()
        return ["job-1"]

    monkeypatch.setattr(task._execution.spec, "submit", killed)
    assert error_of(lambda: task.execute(context())) == TEXTS["killed while starting"]


@pytest.mark.usefixtures("use")
def test_a_connection_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the connection, and no job is started."""
    task_context: Any = context()
    task_context["ti"].try_number = 2
    task = job(aws_conn_id="team_b")

    def no_region(*_: Any, **__: Any) -> Any:
        raise CallError(Fault.CREDENTIALS, "client creation: Airflow has no connection 'team_b' (aws_conn_id)")

    monkeypatch.setattr(task._execution.jobs, "call", no_region)
    assert error_of(lambda: task.execute(task_context)) == TEXTS["connection not usable"]


def map_error(statuses: str, *lines: str, tries_left: bool = True, timeout: float | None = None, **more: Any) -> str:
    """Return the error of a map that is resumed with an event."""
    task: Any = BatchMapOperator(task_id="t", **BATCH, items=[{}] * len(statuses), job_timeout=timeout)
    task_context: Any = context()
    task_context["ti"].max_tries = 1 if tries_left else 0
    task._execution.record.begin(task_context)
    task._execution.record.attempt.token, task._execution.record.attempt.number = "0123456789", 1
    task._execution.record.attempt.map = MapRecord(digest="d", indexes=f"0-{len(statuses) - 1}")
    task._execution.record.save()
    ended = {
        "statuses": statuses,
        "lines": pack(lines),
        "running": pack(["job-1"] if "R" in statuses else ()),
        "limit": None,
        "error": None,
        "unstopped": None,
        "times": [None] * 3,
        **more,
    }
    return error_of(lambda: task.execute_complete(task_context, ended))


MAPS: dict[str, Callable[[], str]] = {
    "map rejected": lambda: map_error("---", error={"kind": "refused", "message": "items[0]: JobQueue q not found"}),
    "map denied": lambda: map_error("SR-", error={"kind": "denied", "message": "SubmitJob: not authorized."}),
    "map denied, no try left": lambda: map_error(
        "SR-", error={"kind": "denied", "message": "SubmitJob: not authorized."}, tries_left=False
    ),
    "map without credentials": lambda: map_error("SR-", error={"kind": "credentials", "message": str(NO_CREDENTIALS)}),
    "map not described": lambda: map_error("SR-", error={"kind": "unanswerable", "message": f"ListJobs: {BAD_ID}"}),
    "map trigger failed": lambda: map_error("SR-", error={"kind": "failed", "message": "RuntimeError('bug')"}),
    "map killed": lambda: map_error("SK-", error={"kind": "killed", "message": "the task was killed"}),
    "map timed out": lambda: map_error(
        "SK-",
        result_line(1, failed_snapshot("job-1", "STOPPED", "The deadline has passed")),
        timeout=60,
        limit="deadline",
        unstopped={"count": 0, "message": ""},
    ),
    "map timed out, one not stopped": lambda: map_error(
        "SKK", timeout=60, limit="deadline", unstopped={"count": 1, "message": str(Unstopped(("job-1",)))}
    ),
    "map timed out, not listed": lambda: map_error(
        "SKK", timeout=60, limit="deadline", unstopped={"count": 2, "message": str(Unstopped(("a", "b"), DENIED))}
    ),
    "map item rejected": lambda: map_error(
        "SFS", result_line(1, failed_snapshot("", map_statuses.REFUSED, "SubmitJob: bad value"))
    ),
    "map item not described": lambda: map_error(
        "SSU", result_line(2, failed_snapshot("job-2", map_statuses.UNKNOWN, f"could not be described: {VANISHED}"))
    ),
}
"""Maps that are resumed with an event."""


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.usefixtures("use")
def test_a_map_that_ended(name: str) -> None:
    """The message says how many items ran, what happened to the jobs, and what to do."""
    assert MAPS[name]() == TEXTS[name]


def test_a_sensor_of_many_failed_jobs_makes_a_short_message(use: Use) -> None:
    """A log of 16 KB for each of a thousand jobs would make 16 MB, and need a call per job."""
    aws = Aws()
    use(aws)
    ids = [f"job-{number}" for number in range(1000)]
    last = {"reason": "Essential container in task exited", "exit_code": 1, "log": LOG, "name": "hello"}
    jobs = {each: Snapshot(each, JobState.FAILED, "FAILED", **last).to_dict() for each in ids}  # type: ignore[arg-type]
    *first, final = completed(sensor(ids), event(job_ids=ids, jobs=jobs)).split("\n\n")
    assert [each.count("reading part 7") for each in first] == [1, 1, 1]
    assert final.splitlines()[0] == "Batch job hello (job-3) failed with exit code 1."
    assert final.splitlines()[7:] == ["And 990 more failed."]
    assert len(aws.sent("get_log_events")) == 3


def test_every_text_is_used() -> None:
    """A text without a situation would be dead."""
    capacity = [f"{name}, {limit}" for name in CAPACITY for limit in ("job_timeout", "queued_timeout")]
    others = ["vanished, no try left", "crawler at work", "killed while starting", "connection not usable"]
    assert [*TEXTS] == [*ENDED, *NOT_SUBMITTED, *capacity, *others, *MAPS]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_contradicts_itself(text: str) -> None:
    """Earlier texts did, or named a wrong cause (F6)."""
    for words in ("last seen never", "max retries", "not known whether", "refused: Unable", "keeps running"):
        assert words not in text
    assert not ("It was stopped" in text and "Nothing was stopped" in text)
    assert ".." not in text


def test_a_message_names_a_limited_number_of_jobs() -> None:
    """A sensor may wait for a thousand."""
    many = jobs_named("Batch job", [str(each) for each in range(12)])
    assert many == "12 Batch jobs: 0; 1; 2; 3; 4; 5; 6; 7; 8; 9; and 2 more"
    assert jobs_named("Batch job", ["a"], of=3) == "1 of 3 Batch jobs: a"


@pytest.mark.parametrize(
    ("access", "text"),
    [
        (Access(), "aws_default"),
        (Access("team_b", "eu-west-1"), "team_b in eu-west-1"),
        (Access(None, "eu-west-1"), "boto3's default credentials in eu-west-1"),
    ],
)
def test_how_a_connection_is_named(access: Access, text: str) -> None:
    """The region is part of the name if it is known."""
    assert str(access) == text
