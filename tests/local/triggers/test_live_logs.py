"""Logs of jobs that are copied into the logs of their tasks: on the local AWS, in Airflow's own trigger runner."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from airflow_jobflow.exceptions import JobFailed
from airflow_jobflow.local import CannedResponse, Faults
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.sensors.batch import BatchJobSensor
from airflow_jobflow.triggers.job import JobTrigger
from tests.local.glue_kit import GlueKit
from tests.triggerer import TaskLogs, Triggerer, task


@pytest.fixture
def task_logs() -> Iterator[TaskLogs]:
    """Return the log lines by task."""
    handler = TaskLogs()
    logger = logging.getLogger("airflow_jobflow")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _no_portal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's trigger runner does without a portal for blocking code."""
    monkeypatch.setenv("AIRFLOW_DISABLE_GREENBACK_PORTAL", "true")


@pytest.fixture
def quick(kit: Any, here: Callable[[Any], None]) -> Any:
    """The local AWS of all tests."""
    here(kit.aws)
    return kit


@pytest.fixture
def faulty(own_kit: Any, here: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A local AWS of the test's own with faults: lines arrive late."""
    here(own_kit.aws)
    monkeypatch.setattr("airflow_jobflow.polling.log_stream.ARRIVAL", 0.3)
    return own_kit


def trigger(job_ids: list[str], service: str = "batch", **arguments: Any) -> JobTrigger:
    """Return a trigger that copies logs."""
    arguments = {"aws_conn_id": None, "poll_interval": 0.2, "stream_logs": True, **arguments}
    return JobTrigger(service=service, job_ids=job_ids, **arguments)


async def in_triggerer(triggers: Mapping[str, JobTrigger]) -> dict[str, Any]:
    """Run triggers in one triggerer to their ends, and return their tasks."""
    triggerer = Triggerer()
    tasks = {name: task(number, task_id=name) for number, name in enumerate(triggers)}
    await asyncio.gather(*(triggerer.start(triggers[name], each) for name, each in tasks.items()))
    return tasks


def written(lines: list[str], start: str = "line") -> list[str]:
    """Return the lines of jobs from log records, each of which may contain several."""
    return [line for record in lines for line in record.split("\n") if line.startswith((start, "["))]


def test_each_task_gets_all_lines_of_its_own_job(faulty: Any, task_logs: TaskLogs) -> None:
    """They are in order, including those of a short job, for all sizes of pages."""
    faulty.aws.set_faults(Faults(log_page=3, log_empty_pages=1, log_delay=0.2))
    jobs = {name: faulty.sh(f"for i in $(seq 20); do echo line-{name}-$i; done") for name in "abcd"}
    tasks = asyncio.run(in_triggerer({name: trigger([job]) for name, job in jobs.items()}))
    for name, each in tasks.items():
        assert written(task_logs.of(each)) == [f"line-{name}-{number}" for number in range(1, 21)]


def test_lines_are_copied_while_the_job_runs(quick: Any, task_logs: TaskLogs, gate: Any) -> None:
    """The job ends only after its first line was copied."""
    job = quick.sh(f"echo line-1; while [ ! -e {gate} ]; do sleep 0.02; done; echo line-2")

    async def scenario() -> Any:
        running = asyncio.create_task(in_triggerer({"t": trigger([job])}))
        copied = lambda: [line for _, line in task_logs.lines if line == "line-1"]  # noqa: E731
        await asyncio.to_thread(quick.eventually, copied)
        gate.touch()
        return (await running)["t"]

    assert written(task_logs.of(asyncio.run(scenario()))) == ["line-1", "line-2"]


def test_lines_of_several_jobs_begin_with_the_job(quick: Any, task_logs: TaskLogs) -> None:
    """A sensor waits for a list of jobs."""
    jobs = [quick.sh(f"echo hello-{number}") for number in range(2)]
    tasks = asyncio.run(in_triggerer({"t": trigger(jobs)}))
    assert sorted(written(task_logs.of(tasks["t"]))) == sorted(
        f"[{job}] hello-{number}" for number, job in enumerate(jobs)
    )


def test_a_task_copies_no_more_than_max_log_lines(quick: Any, task_logs: TaskLogs) -> None:
    """One more line says where the rest is."""
    job = quick.sh("for i in $(seq 50); do echo line-$i; done")
    tasks = asyncio.run(in_triggerer({"t": trigger([job], max_log_lines=7)}))
    lines = task_logs.of(tasks["t"])
    assert written(lines) == [f"line-{number}" for number in range(1, 8)]
    stream = quick.wait(job)["container"]["logStreamName"]
    said = f"No more lines are copied: max_log_lines is 7. The rest is in stream {stream} of log group /aws/batch/job"
    assert lines.count(said) == 1


def test_a_burst_of_unusual_lines_is_copied(quick: Any, task_logs: TaskLogs) -> None:
    """Colours are removed, invalid bytes replaced, and long lines truncated with a note; no line is lost."""
    script = (
        "printf 'line-\\033[31mred\\033[0m\\n'; printf 'line-\\377\\001\\n'; "
        "printf line-; head -c 300000 /dev/zero | tr '\\0' x; echo; seq -f 'line-%g' 5000"
    )
    tasks = asyncio.run(in_triggerer({"t": trigger([quick.sh(script)])}))
    red, binary, long, *rest = written(task_logs.of(tasks["t"]))
    assert red == "line-red"
    assert binary.isprintable()
    assert long.startswith("line-xxx")
    assert len(long) < 10_000
    assert rest == [f"line-{number}" for number in range(1, 5001)]


NO_GROUP = CannedResponse(
    code="ResourceNotFoundException", message="The specified log group does not exist.", actions=("GetLogEvents",)
)
DENIED = CannedResponse(
    code="AccessDeniedException", message="not authorized to perform: logs:GetLogEvents", actions=("GetLogEvents",)
)


@pytest.mark.parametrize(
    ("response", "said"), [(NO_GROUP, "does not exist yet"), (DENIED, "cannot be copied from stream")]
)
def test_an_unreadable_log_is_reported_once_and_does_not_fail_the_wait(
    faulty: Any, task_logs: TaskLogs, response: CannedResponse, said: str
) -> None:
    """The group does not exist, is in another region, or may not be read."""
    faulty.aws.set_faults(Faults(respond_with=(response,)))
    waiting = trigger([faulty.sh("echo line-1")])
    tasks = asyncio.run(in_triggerer({"t": waiting}))
    assert len([line for line in task_logs.of(tasks["t"]) if said in line]) == 1
    assert [each.state for each in waiting._seen.values()] == ["SUCCEEDED"]


def test_another_log_driver_is_reported_once(quick: Any, task_logs: TaskLogs) -> None:
    """CloudWatch does not have the lines of splunk, for example."""
    definition = quick.define(["sleep", "0.5"], containerProperties={"logConfiguration": {"logDriver": "splunk"}})
    job = quick.submit(jobDefinition=definition)
    tasks = asyncio.run(in_triggerer({"t": trigger([job])}))
    assert len([line for line in task_logs.of(tasks["t"]) if "has no log in CloudWatch Logs" in line]) == 1


# Streams of the services.


def test_the_lines_of_each_container_are_marked(ecs_kit: Any, here: Callable[[Any], None], task_logs: TaskLogs) -> None:
    """A running task does not have its log streams; its definition does, which is read once."""
    here(ecs_kit.aws)
    first = [{"containerName": "side", "condition": "SUCCESS"}]
    arn = ecs_kit.run(
        ecs_kit.container(["echo", "hello from main"], name="main", dependsOn=first),
        ecs_kit.container(["echo", "hello from side"], name="side", essential=False),
    )
    waiting = {
        "all": trigger([arn], "ecs", scope=ecs_kit.cluster),
        "side": trigger([arn], "ecs", scope=ecs_kit.cluster, container_name="side"),
    }
    tasks = asyncio.run(in_triggerer(waiting))
    both = ["[main] hello from main", "[side] hello from side"]
    assert sorted(written(task_logs.of(tasks["all"]))) == both
    assert written(task_logs.of(tasks["side"]), "hello") == ["hello from side"]


def test_a_throttled_definition_does_not_end_the_copy_of_a_running_task(
    own_ecs_kit: Any, here: Callable[[Any], None], task_logs: TaskLogs, gate: Any
) -> None:
    """Only the definition says where a running task logs, and many triggers that begin at once read many of them."""
    here(own_ecs_kit.aws)
    throttled = CannedResponse(code="ThrottlingException", actions=("DescribeTaskDefinition",), calls=1)
    script = f"echo line-1; while [ ! -e {gate} ]; do sleep 0.02; done"
    arn = own_ecs_kit.run(own_ecs_kit.container(["sh", "-c", script]))
    own_ecs_kit.aws.set_faults(Faults(respond_with=(throttled,)))

    async def scenario() -> None:
        running = asyncio.create_task(in_triggerer({"t": trigger([arn], "ecs", scope=own_ecs_kit.cluster)}))
        copied = lambda: [line for _, line in task_logs.lines if line == "line-1"]  # noqa: E731
        await asyncio.to_thread(own_ecs_kit.eventually, copied)
        gate.touch()
        await running

    asyncio.run(scenario())


def test_output_and_errors_of_a_glue_run_are_marked(
    aws: Any, here: Callable[[Any], None], task_logs: TaskLogs, eventually: Callable[..., Any]
) -> None:
    """Glue writes them to two log groups."""
    here(aws)
    kit = GlueKit(aws, eventually)
    job = kit.job("import sys\nprint('out')\nprint('err', file=sys.stderr)")
    run_id = kit.glue.start_job_run(JobName=job)["JobRunId"]
    tasks = asyncio.run(in_triggerer({"t": trigger([run_id], "glue_run", scope=job)}))
    lines = written(task_logs.of(tasks["t"]))
    assert {"[output] out", "[error] err"} <= set(lines)


# At the end.


def test_only_logs_of_failed_children_are_copied_at_the_end(quick: Any, task_logs: TaskLogs) -> None:
    """An array is not followed, because ten thousand children would be ten thousand streams."""
    script = 'echo "child $AWS_BATCH_JOB_ARRAY_INDEX"; [ "$AWS_BATCH_JOB_ARRAY_INDEX" != 1 ]'
    array = quick.sh(script, arrayProperties={"size": 3})
    alone = quick.sh("echo line-1; exit 3")
    waiting = {"array": trigger([array]), "alone": trigger([alone], stream_logs="failed")}
    tasks = asyncio.run(in_triggerer(waiting))
    assert written(task_logs.of(tasks["array"]), "child") == ["child 1"]  # the only one, so without its index
    assert written(task_logs.of(tasks["alone"])) == ["line-1"]


def test_the_last_lines_of_a_success_are_copied_before_the_task_ends(quick: Any, task_logs: TaskLogs) -> None:
    """No worker is needed, and the rest is not copied; those of a failure are in the error."""
    jobs = [quick.sh(f"for i in 1 2 3 4; do echo line-$i; done; exit {code}") for code in (0, 1)]
    waiting = [trigger([job], stream_logs=False, number_logs_success=2) for job in jobs]
    tasks = asyncio.run(in_triggerer({"good": waiting[0], "bad": waiting[1]}))
    assert written(task_logs.of(tasks["good"])) == ["line-3", "line-4"]
    assert written(task_logs.of(tasks["bad"])) == []


# Restarts.


def test_another_trigger_continues_where_the_first_was_cancelled(
    quick: Any, task_logs: TaskLogs, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer restarts: lines written meanwhile are copied, and copied ones are not repeated."""
    xcoms: dict[str, Any] = {}
    monkeypatch.setattr("airflow_jobflow.triggers.log_positions.SAVE_INTERVAL", 0.05)
    monkeypatch.setattr(
        "airflow_jobflow.triggers.log_positions.set_xcom", lambda _, key, value: xcoms.update({key: json.dumps(value)})
    )
    monkeypatch.setattr(
        "airflow_jobflow.triggers.log_positions.get_xcom", lambda _, key: json.loads(xcoms.get(key, "null"))
    )
    job = quick.sh(f"echo line-1; while [ ! -e {gate} ]; do sleep 0.02; done; echo line-2")

    async def first() -> None:
        triggerer = Triggerer()
        running = triggerer.start(trigger([job], reports_progress=True), task())
        await asyncio.to_thread(quick.eventually, lambda: xcoms)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(first())
    gate.touch()
    quick.wait(job)
    tasks = asyncio.run(in_triggerer({"t": trigger([job], reports_progress=True, deferred_at=1.0)}))
    assert written(task_logs.of(tasks["t"])) == ["line-1", "line-2"]


# Operators and sensors.


def job(quick: Any, script: str, **parameters: Any) -> BatchJobOperator:
    """An operator that runs a script and waits for it in this process."""
    return BatchJobOperator(
        task_id="t",
        job_name="j",
        job_queue=quick.queue,
        job_definition=quick.define(["true"]),
        command=["sh", "-c", script],
        aws_conn_id=None,
        deferrable=False,
        **parameters,
    )


def test_an_operator_that_waits_on_the_worker_copies_logs(quick: Any, task_logs: TaskLogs, context: Any) -> None:
    """``airflow dags test`` does so too, because it runs triggers in the same way."""
    job(quick, "echo line-1; echo line-2", stream_logs=True).execute(context)
    assert written([line for _, line in task_logs.lines]) == ["line-1", "line-2"]


@pytest.mark.parametrize(
    ("parameters", "is_quoted"),
    [
        ({"stream_logs": True}, False),
        ({"stream_logs": "failed"}, False),
        ({"stream_logs": True, "max_log_lines": 1}, True),
        ({"stream_logs": False}, True),
    ],
)
def test_an_error_quotes_only_lines_that_the_log_does_not_have(
    quick: Any, task_logs: TaskLogs, context: Any, parameters: dict[str, Any], is_quoted: bool
) -> None:
    """It says where they are instead, and the Jobs tab shows them in both cases."""
    with pytest.raises(JobFailed) as raised:
        job(quick, "echo line-1; echo line-2; exit 3", **parameters).execute(context)
    text = str(raised.value)
    assert ("  | line-2" in text) is is_quoted
    assert ("The last lines of the log of the job are in the log of this task" in text) is not is_quoted
    assert list(raised.value.log_lines) == ([] if is_quoted else ["line-1", "line-2"])
    assert is_quoted or written([line for _, line in task_logs.lines]) == ["line-1", "line-2"]
    assert "Last lines of the log:\n" in context["ti"].xcoms["jobflow_jobs"]["error"]
    assert "  | line-2" in context["ti"].xcoms["jobflow_jobs"]["error"]


def test_a_sensor_copies_the_logs_of_a_job_that_has_ended_before(
    quick: Any, task_logs: TaskLogs, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting also applies to it; there is no deferral."""
    monkeypatch.setenv("AIRFLOW__JOBFLOW__STREAM_LOGS", "True")
    job_id = quick.sh("echo line-1")
    quick.wait(job_id)
    BatchJobSensor(task_id="t", job_id=job_id, aws_conn_id=None).execute(context)
    assert written([line for _, line in task_logs.lines]) == ["line-1"]


def test_a_map_copies_the_logs_of_its_failed_items(quick: Any, task_logs: TaskLogs, context: Any) -> None:
    """Each line begins with the index of its item; those of successful items are omitted."""
    script = 'echo "item $JOBFLOW_MAP_INDEX"; [ "$JOBFLOW_MAP_INDEX" = 1 ]'
    items = BatchMapOperator(
        task_id="t",
        job_name="j",
        job_queue=quick.queue,
        job_definition=quick.define(["true"]),
        command=["sh", "-c", script],
        items=[{}, {}, {}],
        tolerated_failure_count=2,
        stream_logs="failed",
        aws_conn_id=None,
        deferrable=False,
    )
    items.execute(context)
    assert written([line for _, line in task_logs.lines]) == ["[0] item 0", "[2] item 2"]


def test_the_error_of_a_map_or_an_array_does_not_repeat_a_log(quick: Any, task_logs: TaskLogs, context: Any) -> None:
    """It names the item or child whose log was copied."""
    common: Any = {"task_id": "t", "job_name": "j", "job_queue": quick.queue, "aws_conn_id": None, "deferrable": False}
    common |= {
        "job_definition": quick.define(["true"]),
        "stream_logs": "failed",
        "command": ["sh", "-c", "echo a; false"],
    }
    for operator in (BatchMapOperator(**common, items=[{}, {}]), BatchJobOperator(**common, array_size=2)):
        with pytest.raises(JobFailed, match=r"lines of the log of \[\d\] are in the log of this task") as raised:
            operator.execute(context)
        assert "  | a" not in str(raised.value)
        assert list(raised.value.log_lines) == ["a"]
        assert "  | a" in context["ti"].xcoms["jobflow_jobs"]["error"]
    assert any(line.endswith("a") for _, line in task_logs.lines)


def test_a_wait_that_starts_in_the_triggerer_copies_logs() -> None:
    """Its trigger is made there, and not by the deferral of a worker."""
    sensor = BatchJobSensor(task_id="t", job_id="a", stream_logs="True", max_log_lines="7")
    trigger = sensor._wait.trigger(["a"])
    assert (trigger.stream_logs, trigger.max_log_lines) == (True, 7)
