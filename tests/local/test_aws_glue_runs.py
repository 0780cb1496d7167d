"""Job runs of Glue: scripts that really run, and their results."""

from __future__ import annotations

import ast
import json
import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from moto.glue.models import FakeJob

from airflow_jobflow.local import Faults, LocalAws, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OURS = ("StartJobRun", "GetJobRun", "GetJobRuns", "BatchStopJobRun")
ENDED = ("SUCCEEDED", "FAILED", "STOPPED", "TIMEOUT", "ERROR", "EXPIRED")
HOUR = 3600.0


class Kit:
    """A bucket of scripts, with short forms to create jobs, run, describe and wait."""

    def __init__(self, aws: LocalAws, violations: Callable[..., list[str]], eventually: Callable[..., Any]) -> None:
        self.aws = aws
        self.eventually = eventually
        self.glue, self.s3, self.logs = (aws.client(name) for name in ("glue", "s3", "logs"))
        self.bucket = f"scripts-{uuid.uuid4().hex}"
        self.s3.create_bucket(Bucket=self.bucket)

        def check(http_response: Any, model: Any, **_: Any) -> None:
            body = json.loads(http_response.content)
            if http_response.status_code < 300:
                assert violations(model.output_shape, body) == []
            else:
                assert body["__type"] in {shape.name for shape in model.error_shapes} | {"ValidationException"}

        for action in OURS:
            self.glue.meta.events.register(f"after-call.glue.{action}", check)

    def job(self, script: str = "", command: str = "pythonshell", **request: Any) -> str:
        """Create a job that runs a script, and return its name."""
        name = f"job-{uuid.uuid4().hex}"
        self.s3.put_object(Bucket=self.bucket, Key=f"{name}/main.py", Body=script.encode())
        location = f"s3://{self.bucket}/{name}/main.py"
        self.glue.create_job(Name=name, Role="role", Command={"Name": command, "ScriptLocation": location}, **request)
        return name

    def start(self, job: str, **request: Any) -> str:
        """Start a run, and return its id."""
        return str(self.glue.start_job_run(JobName=job, **request)["JobRunId"])

    def look(self, job: str, run_id: str) -> dict[str, Any]:
        """Return a run as in GetJobRun."""
        return dict(self.glue.get_job_run(JobName=job, RunId=run_id)["JobRun"])

    def wait(self, job: str, run_id: str, *states: str) -> dict[str, Any]:
        """Wait until a run has one of these states (by default, a final one), and return the run."""

        def reached() -> dict[str, Any] | None:
            run = self.look(job, run_id)
            return run if run["JobRunState"] in (states or ENDED) else None

        return dict(self.eventually(reached, f"{run_id} in {states or ENDED}"))

    def run(self, job: str, **request: Any) -> dict[str, Any]:
        """Start a run, wait for its end, and return it."""
        return self.wait(job, self.start(job, **request))

    def runs(self, job: str, **request: Any) -> list[dict[str, Any]]:
        """Return the runs as in GetJobRuns."""
        return list(self.glue.get_job_runs(JobName=job, **request)["JobRuns"])

    def lines(self, run: dict[str, Any], stream: str = "output") -> list[str]:
        """Return a log of a run."""
        events = self.logs.get_log_events(
            logGroupName=f"{run['LogGroupName']}/{stream}", logStreamName=run["Id"], startFromHead=True
        )["events"]
        return [event["message"] for event in events]

    def stop(self, job: str, *run_ids: str) -> dict[str, Any]:
        """Call BatchStopJobRun."""
        return dict(self.glue.batch_stop_job_run(JobName=job, JobRunIds=list(run_ids)))


@pytest.fixture(scope="module")
def server() -> Iterator[LocalAws]:
    """An AWS whose minutes take 0.6 s."""
    with LocalAws(settings=Settings(time_scale=0.01, stop_grace=2)) as aws:
        yield aws


@pytest.fixture
def kit(server: LocalAws, violations: Any, eventually: Any) -> Kit:
    """A bucket of the test's own."""
    return Kit(server, violations, eventually)


SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def until(gate: Path) -> str:
    """Return a script that waits for a file."""
    return f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"


def test_script_is_run_with_glues_arguments(kit: Kit) -> None:
    """It gets --JOB_NAME, the job's defaults and the run's own arguments, as names and values."""
    job = kit.job("import sys; print(sys.argv)", DefaultArguments={"--a": "1", "--b": "1", "--flag": ""})
    run = kit.run(job, Arguments={"--b": "two words"})
    assert run["JobRunState"] == "SUCCEEDED"
    path, *arguments = ast.literal_eval(kit.lines(run)[0])
    assert path.endswith("/glue-python-scripts/main.py")
    location = f"s3://{kit.bucket}/{job}/main.py"
    expected = ["--JOB_NAME", job, "--scriptLocation", location, "--a", "1", "--b", "two words", "--flag"]
    assert arguments == expected
    assert run["Arguments"] == {"--b": "two words"}


def test_script_may_use_boto3_against_this_aws(kit: Kit) -> None:
    """The endpoint is in its environment."""
    script = f"import boto3\nboto3.client('s3').put_object(Bucket={kit.bucket!r}, Key='made', Body=b'here')"
    assert kit.run(kit.job(script))["JobRunState"] == "SUCCEEDED"
    assert kit.s3.get_object(Bucket=kit.bucket, Key="made")["Body"].read() == b"here"


def test_run_shows_its_times_and_size(kit: Kit) -> None:
    """As in GetJobRun, there is no end time before the end."""
    job = kit.job(SLEEP, Timeout=500, MaxCapacity=1.0, GlueVersion="3.0")
    run_id = kit.start(job)
    assert re.fullmatch(r"jr_[0-9a-f]{64}", run_id)
    running = kit.wait(job, run_id, "RUNNING")
    assert "CompletedOn" not in running
    assert (running["Timeout"], running["MaxCapacity"], running["GlueVersion"]) == (500, 1.0, "3.0")
    kit.stop(job, run_id)
    ended = kit.wait(job, run_id)
    assert ended["StartedOn"] <= ended["CompletedOn"] == ended["LastModifiedOn"]
    assert "DPUSeconds" not in ended


@pytest.mark.parametrize("how", [{"ExecutionClass": "FLEX"}, {"Arguments": {"--enable-auto-scaling": "true"}}])
def test_glue_counts_dpus_itself_on_flex_and_with_auto_scaling(kit: Kit, how: dict[str, Any]) -> None:
    """Only there the size of the run does not say what it used."""
    job = kit.job("", MaxCapacity=1.0)
    assert kit.wait(job, kit.start(job, **how))["DPUSeconds"] >= 0


def test_logs_are_written_during_the_run_and_separately(kit: Kit) -> None:
    """Standard output and standard error have their own groups, with the run's id as stream."""
    script = "import sys, time\nprint('to output')\nprint('to error', file=sys.stderr)\ntime.sleep(600)"
    job = kit.job(script)
    run = kit.wait(job, kit.start(job), "RUNNING")
    assert run["LogGroupName"] == "/aws-glue/python-jobs"
    kit.eventually(lambda: (kit.lines(run), kit.lines(run, "error")) == (["to output"], ["to error"]))
    kit.stop(job, run["Id"])
    kit.wait(job, run["Id"])


def test_lines_of_both_streams_are_not_mixed(kit: Kit) -> None:
    """Much output is written at once."""
    script = (
        "import sys\nfor n in range(3000):\n print('o' * 99)\n print('e' * 99, file=sys.stderr)\nprint('end', end='')"
    )
    run = kit.run(kit.job(script))
    for stream, letter in (("output", "o"), ("error", "e")):
        assert set(kit.lines(run, stream)) <= {letter * 99, "end"}


def test_failed_run_has_the_exception(kit: Kit) -> None:
    """It has the last line, and the traceback is in the error log."""
    job = kit.job("def f():\n    raise KeyError('no such thing')\nf()")
    run = kit.run(job)
    assert (run["JobRunState"], run["ErrorMessage"]) == ("FAILED", "KeyError: 'no such thing'")
    assert kit.lines(run, "error")[0] == "Traceback (most recent call last):"
    assert kit.lines(run) == []


def test_failed_run_without_an_exception_has_the_exit_code(kit: Kit) -> None:
    """For example, a script misses an argument."""
    run = kit.run(kit.job("import sys; sys.exit(2)"))
    assert (run["JobRunState"], run["ErrorMessage"]) == ("FAILED", "Command failed with exit code 2")


def test_missing_script_fails_the_run(kit: Kit) -> None:
    """The start succeeds."""
    job = kit.job()
    kit.s3.delete_object(Bucket=kit.bucket, Key=f"{job}/main.py")
    run = kit.run(job)
    assert run["JobRunState"] == "FAILED"
    assert run["ErrorMessage"].startswith(f"Failed to download s3://{kit.bucket}/{job}/main.py")


def test_daemon_does_not_prevent_the_end_of_a_run(kit: Kit) -> None:
    """The daemon holds the script's output open."""
    script = "import subprocess\nsubprocess.Popen(['sleep', '600'], start_new_session=True)"
    assert kit.run(kit.job(script))["JobRunState"] == "SUCCEEDED"


def test_timeout_ends_a_run(kit: Kit) -> None:
    """It is in minutes, of the run or else of the job; the run is not retried."""
    job = kit.job(SLEEP, Timeout=1, MaxRetries=1)
    run = kit.run(job)
    assert run["JobRunState"] == "TIMEOUT"
    assert len(kit.runs(job)) == 1
    job = kit.job(SLEEP, Timeout=5000)
    assert kit.run(job, Timeout=1)["JobRunState"] == "TIMEOUT"


def test_failed_run_is_retried(kit: Kit) -> None:
    """The retry is a run of its own that names the previous one."""
    job = kit.job("raise ValueError('always')", MaxRetries=1)
    first = kit.run(job, Arguments={"--x": "y"})
    assert (first["JobRunState"], first["Attempt"]) == ("FAILED", 0)
    kit.eventually(lambda: len(kit.runs(job)) > 1)  # after half a minute, scaled
    second = kit.wait(job, f"{first['Id']}_attempt_1")
    assert (second["JobRunState"], second["Attempt"], second["PreviousRunId"]) == ("FAILED", 1, first["Id"])
    assert second["Arguments"] == {"--x": "y"}
    assert [run["Id"] for run in kit.runs(job)] == [second["Id"], first["Id"]]


def test_number_of_concurrent_runs_is_limited(kit: Kit, tmp_path: Path) -> None:
    """The default is one."""
    gate = tmp_path / "open"
    job = kit.job(until(gate))
    run_id = kit.start(job)
    with pytest.raises(kit.glue.exceptions.ConcurrentRunsExceededException, match=f"exceeded for {job}"):
        kit.start(job)
    gate.touch()
    kit.wait(job, run_id)
    kit.wait(job, kit.start(job))
    gate.unlink()
    two = kit.job(until(gate), ExecutionProperty={"MaxConcurrentRuns": 2})
    ids = [kit.start(two) for _ in range(2)]
    with pytest.raises(kit.glue.exceptions.ConcurrentRunsExceededException):
        kit.start(two)
    gate.touch()
    assert {kit.wait(two, each)["JobRunState"] for each in ids} == {"SUCCEEDED"}


def test_queued_run_waits(kit: Kit, tmp_path: Path) -> None:
    """It is WAITING instead of rejected if queuing is enabled."""
    gate = tmp_path / "open"
    job = kit.job(until(gate))
    first, second = kit.start(job), kit.start(job, JobRunQueuingEnabled=True)
    assert kit.look(job, second)["JobRunState"] == "WAITING"
    gate.touch()
    assert kit.wait(job, first)["JobRunState"] == "SUCCEEDED"
    assert kit.wait(job, second)["JobRunState"] == "SUCCEEDED"


def test_queued_run_expires(violations: Any, eventually: Any) -> None:
    """It does so if it has not started after fifteen days, which take about a second here."""
    with LocalAws(settings=Settings(time_scale=1e-6)) as aws:
        kit = Kit(aws, violations, eventually)
        job = kit.job(SLEEP, Timeout=10**8)
        first, second = kit.start(job), kit.start(job, JobRunQueuingEnabled=True)
        assert kit.wait(job, second)["JobRunState"] == "EXPIRED"
        assert kit.look(job, first)["JobRunState"] in ("STARTING", "RUNNING")


def test_stopped_run_may_clean_up(kit: Kit) -> None:
    """It is first STOPPING, then STOPPED, with any exit code."""
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(0)))\n"
        "print('up')\nwhile True: time.sleep(0.05)"
    )
    job = kit.job(script, MaxRetries=1)
    run = kit.wait(job, kit.start(job), "RUNNING")
    kit.eventually(lambda: "up" in kit.lines(run))
    answer = kit.stop(job, run["Id"], "jr_unknown")
    assert answer["SuccessfulSubmissions"] == [{"JobName": job, "JobRunId": run["Id"]}]
    (error,) = answer["Errors"]
    assert (error["JobRunId"], error["ErrorDetail"]["ErrorCode"]) == ("jr_unknown", "EntityNotFoundException")
    assert kit.wait(job, run["Id"])["JobRunState"] == "STOPPED"
    assert "bye" in kit.lines(run)
    (error,) = kit.stop(job, run["Id"])["Errors"]
    assert error["ErrorDetail"]["ErrorCode"] == "InvalidInputException"
    assert len(kit.runs(job)) == 1


def test_run_that_ignores_a_stop_is_stopping_until_it_is_killed(kit: Kit) -> None:
    """It cannot be stopped twice."""
    job = kit.job("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP)
    run = kit.wait(job, kit.start(job), "RUNNING")
    kit.eventually(lambda: "up" in kit.lines(run))
    kit.stop(job, run["Id"])
    assert kit.look(job, run["Id"])["JobRunState"] == "STOPPING"
    assert "Errors" in kit.stop(job, run["Id"])
    assert kit.wait(job, run["Id"])["JobRunState"] == "STOPPED"


def test_run_without_a_slot_is_starting_and_can_be_stopped(violations: Any, eventually: Any) -> None:
    """It then never runs."""
    with LocalAws(slots=1) as aws:
        kit = Kit(aws, violations, eventually)
        job = kit.job(SLEEP, ExecutionProperty={"MaxConcurrentRuns": 2})
        first = kit.start(job)
        kit.wait(job, first, "RUNNING")
        second = kit.start(job)
        assert kit.look(job, second)["JobRunState"] == "STARTING"
        kit.stop(job, second)
        stopped = kit.look(job, second)
        assert (stopped["JobRunState"], stopped["ExecutionTime"]) == ("STOPPED", 0)


def test_interrupted_run_ends_in_error(kit: Kit) -> None:
    """Tests use it to simulate internal errors."""
    job = kit.job(SLEEP)
    run = kit.wait(job, kit.start(job), "RUNNING")
    kit.aws.interrupt_run(run["Id"], message="The cluster is gone")
    ended = kit.wait(job, run["Id"])
    assert (ended["JobRunState"], ended["ErrorMessage"]) == ("ERROR", "The cluster is gone")
    with pytest.raises(ValueError, match="nothing to interrupt"):
        kit.aws.interrupt_run(run["Id"])


def test_spark_jobs_run_only_if_they_need_no_spark(kit: Kit) -> None:
    """Others are rejected at the start, with an explanation."""
    job = kit.job("print('plain')", command="glueetl", WorkerType="G.1X", NumberOfWorkers=2)
    run = kit.run(job, NumberOfWorkers=3)
    assert (run["JobRunState"], run["LogGroupName"]) == ("SUCCEEDED", "/aws-glue/jobs")
    assert (run["WorkerType"], run["NumberOfWorkers"], run["MaxCapacity"]) == ("G.1X", 3, 3.0)
    assert kit.lines(run) == ["plain"]
    spark = kit.job("import pyspark", command="glueetl")
    with pytest.raises(kit.glue.exceptions.InvalidInputException, match="The local AWS has no Spark"):
        kit.start(spark)
    assert kit.runs(spark) == []
    with pytest.raises(kit.glue.exceptions.InvalidInputException, match="Worker Type is not supported"):
        kit.start(kit.job(), WorkerType="G.1X", NumberOfWorkers=2)


def test_runs_are_listed_newest_first_in_pages(kit: Kit) -> None:
    """A page has at most two hundred; each run is listed once."""
    job = kit.job(ExecutionProperty={"MaxConcurrentRuns": 5})
    ids = [kit.start(job) for _ in range(5)]
    pages = kit.glue.get_paginator("get_job_runs").paginate(JobName=job, PaginationConfig={"PageSize": 2})
    told = [[run["Id"] for run in page["JobRuns"]] for page in pages]
    assert [len(page) for page in told] == [2, 2, 1]
    assert [run_id for page in told for run_id in page] == ids[::-1]
    for run_id in ids:
        kit.wait(job, run_id)
    with pytest.raises(ClientError, match="less than or equal to 200"):
        kit.runs(job, MaxResults=201)


def test_retry_of_a_run_names_it(kit: Kit) -> None:
    """StartJobRun with JobRunId requires an existing run."""
    job = kit.job()
    first = kit.run(job)
    second = kit.run(job, JobRunId=first["Id"])
    assert second["PreviousRunId"] == first["Id"]
    with pytest.raises(kit.glue.exceptions.EntityNotFoundException):
        kit.start(job, JobRunId="jr_unknown")


def test_unknown_jobs_and_runs_are_not_found(kit: Kit) -> None:
    """All calls reject them, except BatchStopJobRun, which lists them in the response."""
    missing = kit.glue.exceptions.EntityNotFoundException
    with pytest.raises(missing, match="Failed to start job run due to missing metadata"):
        kit.start("unknown")
    with pytest.raises(missing):
        kit.runs("unknown")
    with pytest.raises(missing):
        kit.look("unknown", "jr_1")
    with pytest.raises(missing):
        kit.look(kit.job(), "jr_1")
    assert len(kit.stop("unknown", "jr_1")["Errors"]) == 1
    with pytest.raises(ClientError, match="less than or equal to 25"):
        kit.stop(kit.job(), *(f"jr_{number}" for number in range(26)))


def test_new_runs_are_visible_after_a_delay_only(kit: Kit) -> None:
    """They run nevertheless, and are counted."""
    job = kit.job()
    kit.aws.set_faults(Faults(visible_after=HOUR))
    run_id = kit.start(job)
    with pytest.raises(kit.glue.exceptions.EntityNotFoundException):
        kit.look(job, run_id)
    assert kit.runs(job) == []
    kit.aws.set_faults(Faults())
    assert kit.wait(job, run_id)["JobRunState"] == "SUCCEEDED"
    assert [each for each in kit.aws.started("glue") if each.get("job") == job] == [{"job": job, "run_id": run_id}]


def test_one_run_may_be_missing(kit: Kit) -> None:
    """It is neither returned by its id nor listed; others are."""
    job = kit.job()
    run_id = kit.start(job)
    kit.wait(job, run_id)
    other = kit.start(job)
    kit.aws.set_faults(Faults(missing=(run_id,)))
    with pytest.raises(kit.glue.exceptions.EntityNotFoundException):
        kit.look(job, run_id)
    assert [run["Id"] for run in kit.runs(job)] == [other]
    kit.aws.set_faults(Faults())
    assert kit.look(job, run_id)["Id"] == run_id


def test_events_report_the_end(kit: Kit) -> None:
    """They have a severity, and a failed run's error."""
    sqs, events = kit.aws.client("sqs"), kit.aws.client("events")
    url = sqs.create_queue(QueueName=kit.bucket)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["aws.glue"], "detail-type": ["Glue Job State Change"]}
    events.put_rule(Name=kit.bucket, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=kit.bucket, Targets=[{"Id": "1", "Arn": arn}])
    jobs = [kit.job(), kit.job("1 / 0"), kit.job(SLEEP, Timeout=1), kit.job(SLEEP)]
    ids = [kit.start(job) for job in jobs]
    kit.wait(jobs[3], ids[3], "RUNNING")
    kit.stop(jobs[3], ids[3])
    told: dict[str, dict[str, Any]] = {}

    def receive() -> dict[str, dict[str, Any]]:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            detail = json.loads(message["Body"])["detail"]
            told[detail["jobRunId"]] = detail
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return told

    kit.eventually(lambda: set(ids) <= set(receive()))
    events.disable_rule(Name=kit.bucket)
    seen = [[told[run_id][key] for key in ("jobName", "state", "severity", "message")] for run_id in ids]
    assert seen == [
        [jobs[0], "SUCCEEDED", "INFO", "Job run succeeded"],
        [jobs[1], "FAILED", "ERROR", "ZeroDivisionError: division by zero"],
        [jobs[2], "TIMEOUT", "WARN", "Job run timed out"],
        [jobs[3], "STOPPED", "INFO", "Job run stopped"],
    ]


def test_used_internals_of_moto_exist(kit: Kit) -> None:
    """Moto keeps all members of jobs that runs use."""
    assert callable(FakeJob.as_dict)
    asked: dict[str, Any] = {
        "DefaultArguments": {"--a": "b"},
        "NonOverridableArguments": {"--c": "d"},
        "ExecutionProperty": {"MaxConcurrentRuns": 3},
        "MaxRetries": 2,
        "Timeout": 7,
        "GlueVersion": "3.0",
    }
    job = kit.glue.get_job(JobName=kit.job(**asked))["Job"]
    assert {name: job[name] for name in asked} == asked
