"""GlueJobRunOperator on the local AWS: one run is started within the concurrency limit, explained and stopped."""

from __future__ import annotations

import ast
import asyncio
import json
import pickle
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import DAG
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_jobflow import exceptions
from airflow_jobflow.aws import ONCE
from airflow_jobflow.jobs.owner import ARGUMENT, Owner, read_argument
from airflow_jobflow.local import CannedResponse, Faults, LocalAws, Settings
from airflow_jobflow.operators import capacity
from airflow_jobflow.operators.capacity import CapacityWait
from airflow_jobflow.operators.glue import GlueJobRunOperator
from airflow_jobflow.triggers.job import JobTrigger
from tests.local.glue_kit import SLEEP, GlueKit, run, until
from tests.local.tries import cleared, resumed


@pytest.fixture
def kit(aws: LocalAws, here: Callable[[Any], None], eventually: Any) -> Iterator[GlueKit]:
    """A bucket of scripts on the shared AWS, whose minutes take 0.6 s."""
    here(aws)
    kit = GlueKit(aws, eventually)
    yield kit
    kit.close()


@pytest.fixture
def own_kit(own_aws: LocalAws, here: Callable[[Any], None], eventually: Any) -> GlueKit:
    """A bucket of scripts on an AWS of the test's own, for faults."""
    here(own_aws)
    return GlueKit(own_aws, eventually)


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch, here: Callable[[Any], None]) -> None:
    """Make the pauses between starts long enough to defer for."""
    monkeypatch.setattr(capacity, "SHORTEST_CAPACITY_PAUSE", 20.0)
    monkeypatch.setattr(capacity, "LONGEST_CAPACITY_PAUSE", 50.0)


def task(job: str, **parameters: Any) -> GlueJobRunOperator:
    """Return an operator that by default waits on the worker."""
    defaults = {"task_id": "t", "job_name": job, "aws_conn_id": None, "deferrable": False}
    return GlueJobRunOperator(**{**defaults, **parameters})


def deferred(operator: GlueJobRunOperator, context: Any) -> Any:
    """Execute an operator until it defers, and return the deferral."""
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(context)
    return raised.value


# Success.


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_job_runs_and_its_outcome_is_returned(
    kit: GlueKit, context: Any, tmp_path: Any, gate: Any, *, deferrable: bool
) -> None:
    """The outcome has the same format for all services."""
    operator = task(kit.job(until(gate) if deferrable else ""), deferrable=deferrable)
    if deferrable:
        trigger = deferred(operator, context).trigger
        gate.touch()
        outcome = operator.execute_complete(context, run(trigger))
    else:
        outcome = operator.execute(context)
    [run_id] = kit.runs(operator.job_name)
    told = kit.look(operator.job_name, run_id)
    assert outcome == json.loads(json.dumps(outcome))
    times = [outcome.pop(name) for name in ("created_at", "started_at", "stopped_at")]
    assert times == sorted(times)
    url = outcome.pop("console_url")
    assert operator.job_name in url
    assert run_id in url
    assert operator.kept_links["_link_GlueJobRunLink"] == url
    assert outcome == {
        "service": "glue_run",
        "job_id": run_id,
        "name": operator.job_name,
        "state": "SUCCEEDED",
        "status": "SUCCEEDED",
        "reason": None,
        "exit_code": None,
        "log": {"group": "/aws-glue/python-jobs/error", "stream": run_id},
        "array": None,
        "details": {"execution_seconds": told["ExecutionTime"]},
        "usage": {
            **dict.fromkeys(("vcpu_seconds", "gib_seconds", "gpu_seconds", "cost")),
            "capacity": told.get("ExecutionClass"),
            "dpu_seconds": told["MaxCapacity"] * told["ExecutionTime"],
            "queued_seconds": pytest.approx((told["CompletedOn"] - told["StartedOn"]).total_seconds(), abs=1.0),
            "estimated": False,
        },
        **dict.fromkeys(("result", "result_uri", "result_error", "changes")),
    }


def test_without_waiting_the_started_run_is_returned(kit: GlueKit, context: Any) -> None:
    """A sensor can wait for it."""
    job = kit.job()
    outcome = task(job, wait_for_completion=False).execute(context)
    assert (outcome["state"], outcome["job_id"]) == ("SUBMITTED", kit.runs(job)[0])


def test_all_parameters_reach_the_run(kit: GlueKit, context: Any) -> None:
    """Arguments are strings, the timeout is in minutes, further members have AWS's names, and numbers may be text."""
    outcome = task(
        kit.job("import sys; print(sys.argv[1:], file=sys.stderr)"),
        script_args='{"--day": "2026-11-22", "--count": 3}',
        attempt_timeout="300",
        max_capacity="1",
        execution_class="STANDARD",
        security_configuration="safe",
        run_job_kwargs={"NotificationProperty": {"NotifyDelayAfter": 5}},
    ).execute(context)
    told = kit.look(outcome["name"], outcome["job_id"])
    owner = told["Arguments"].pop(ARGUMENT)
    assert told["Arguments"] == {"--day": "2026-11-22", "--count": "3"}
    ti = context["ti"]
    assert Owner.from_argument(owner) == Owner(ti.dag_id, ti.task_id, ti.run_id)
    assert read_argument(owner)["attempt"] == context["task_state_store"]["jobflow"]["token"]
    assert (told["Timeout"], told["MaxCapacity"], told["SecurityConfiguration"]) == (5, 1.0, "safe")
    assert told["NotificationProperty"] == {"NotifyDelayAfter": 5}
    logs = kit.aws.client("logs")
    lines = logs.get_log_events(logGroupName=outcome["log"]["group"], logStreamName=outcome["job_id"])["events"]
    given = ast.literal_eval(lines[0]["message"])
    assert {"--count": "3", ARGUMENT: owner}.items() <= dict(zip(given[::2], given[1::2], strict=True)).items()


def test_workers_reach_a_spark_job(kit: GlueKit, context: Any) -> None:
    """worker_type and number_of_workers are sent."""
    location = f"s3://{kit.name}/plain.py"
    kit.s3.put_object(Bucket=kit.name, Key="plain.py", Body=b"print('plain')")
    job = kit.job(Command={"Name": "glueetl", "ScriptLocation": location})
    outcome = task(job, worker_type="G.1X", number_of_workers="3").execute(context)
    told = kit.look(job, outcome["job_id"])
    assert (told["WorkerType"], told["NumberOfWorkers"]) == ("G.1X", 3)
    assert outcome["log"]["group"] == "/aws-glue/jobs/error"


def test_without_durable_no_token_is_sent(kit: GlueKit, context: Any) -> None:
    """The job's own arguments do not change."""
    outcome = task(kit.job(), durable=False).execute(context)
    assert "Arguments" not in kit.look(outcome["name"], outcome["job_id"])


def test_arguments_may_be_in_awss_format(kit: GlueKit, context: Any) -> None:
    """The token is added to them."""
    outcome = task(kit.job(), run_job_kwargs={"Arguments": {"--a": "b"}}).execute(context)
    assert set(kit.look(outcome["name"], outcome["job_id"])["Arguments"]) == {"--a", ARGUMENT}


def test_a_run_in_glues_own_queue_is_waited_for(kit: GlueKit, context: Any, gate: Any) -> None:
    """WAITING is neither an error nor an end."""
    job = kit.job(until(gate))
    kit.start(job)
    operator = task(job, run_job_kwargs={"JobRunQueuingEnabled": True}, deferrable=True)
    trigger = deferred(operator, context).trigger
    assert trigger.reported_statuses == {trigger.job_ids[0]: "WAITING"}
    gate.touch()
    assert operator.execute_complete(context, run(trigger))["state"] == "SUCCEEDED"


# Failures.


def test_the_error_of_a_failed_run(kit: GlueKit, context: Any) -> None:
    """It has Glue's message, a diagnosis, the end of the error log and the console link, and it can be pickled."""
    script = "import sys\nprint('one', file=sys.stderr)\nprint('out')\nraise KeyError('no such thing')"
    with pytest.raises(exceptions.JobFailed) as error:
        task(kit.job(script), number_logs_exception=2).execute(context)
    outcome = error.value.outcome
    assert isinstance(outcome, dict)
    lines = str(error.value).splitlines()
    assert lines[0] == f"Glue job run {outcome['name']} ({outcome['job_id']}) failed on attempt 1 of 1."
    assert lines[1].startswith("Why: The command itself ended with an error.")
    assert lines[2] == "AWS says: KeyError: 'no such thing'"
    assert lines[-2] == "  | KeyError: 'no such thing'"
    assert lines[-1] == f"Console: {outcome['console_url']}"
    assert len([line for line in lines if line.startswith("  | ")]) == 2
    again = pickle.loads(pickle.dumps(error.value))
    assert (str(again), again.outcome, again.diagnosis) == (str(error.value), outcome, error.value.diagnosis)


def test_an_unreadable_log_does_not_change_the_outcome(own_kit: GlueKit, context: Any) -> None:
    """The run has failed anyway."""
    job = own_kit.job("import sys; sys.exit(3)")
    own_kit.aws.set_faults(Faults(denied=("logs.GetLogEvents",)))
    with pytest.raises(exceptions.JobFailed, match="exit code 3") as error:
        task(job).execute(context)
    assert "the log could not be read" in str(error.value)


def test_a_failed_run_is_returned_with_raise_on_failure_false(kit: GlueKit, context: Any) -> None:
    """A branch can decide on the outcome."""
    outcome = task(kit.job("raise ValueError('x')"), raise_on_failure=False).execute(context)
    assert (outcome["state"], outcome["status"], outcome["reason"]) == ("FAILED", "FAILED", "ValueError: x")


def test_a_run_that_glue_times_out_has_failed(kit: GlueKit, context: Any) -> None:
    """attempt_timeout is sent in whole minutes."""
    with pytest.raises(exceptions.JobFailed, match="attempt time-out") as error:
        task(kit.job(SLEEP), attempt_timeout=timedelta(minutes=1)).execute(context)
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["status"] == "TIMEOUT"


def test_a_run_that_expires_in_glues_queue_has_failed(
    here: Callable[[Any], None], eventually: Any, context: Any
) -> None:
    """It never started, so the script is not the cause."""
    with LocalAws(settings=Settings(time_scale=1e-6)) as aws:
        here(aws)
        kit = GlueKit(aws, eventually)
        job = kit.job(SLEEP, Timeout=10**8)
        kit.start(job)
        with pytest.raises(exceptions.JobFailed, match="expired in the queue") as error:
            task(job, run_job_kwargs={"JobRunQueuingEnabled": True}).execute(context)
    assert error.value.diagnosis
    assert error.value.diagnosis.cause == "queue_expired"


def test_an_internal_error_of_glue_fails_the_run(kit: GlueKit, context: Any) -> None:
    """Its state is ERROR, not FAILED."""
    operator = task(kit.job(SLEEP), deferrable=True)
    trigger = deferred(operator, context).trigger
    kit.wait(operator.job_name, trigger.job_ids[0], "RUNNING")
    kit.aws.interrupt_run(trigger.job_ids[0], message="Internal service error")
    with pytest.raises(exceptions.JobFailed, match="Internal service error") as error:
        operator.execute_complete(context, run(trigger))
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["status"] == "ERROR"


def test_a_run_that_someone_else_stops_counts_as_stopped(kit: GlueKit, context: Any) -> None:
    """Its state is first STOPPING."""
    operator = task(kit.job(SLEEP), deferrable=True)
    trigger = deferred(operator, context).trigger
    kit.wait(operator.job_name, trigger.job_ids[0], "RUNNING")
    kit.glue.batch_stop_job_run(JobName=operator.job_name, JobRunIds=trigger.job_ids)
    with pytest.raises(exceptions.JobStopped, match="was stopped") as error:
        operator.execute_complete(context, run(trigger))
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["status"] == "STOPPED"


# Retries by Glue itself.


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_run_that_glue_retries_succeeds_with_its_last_retry(
    kit: GlueKit, context: Any, tmp_path: Any, *, deferrable: bool
) -> None:
    """The task waits for it, under the id of the run that was started, and starts no other."""
    script = f"import pathlib\ntries = pathlib.Path({str(tmp_path)!r}, 'tries')\n"
    script += (
        "tries.write_text(text := (tries.read_text() if tries.exists() else '') + 'x')\nassert text == 'xxx', text"
    )
    job = kit.job(script, MaxRetries=3)
    operator = task(job, deferrable=deferrable)
    outcome = (
        operator.execute_complete(context, run(deferred(operator, context).trigger))
        if deferrable
        else operator.execute(context)
    )
    [first, *retries] = kit.runs(job)
    assert retries == [f"{first}_attempt_1", f"{first}_attempt_2"]
    assert (outcome["state"], outcome["job_id"]) == ("SUCCEEDED", first)
    assert outcome["details"]["run_id"] == outcome["log"]["stream"] == retries[-1]
    assert retries[-1] in outcome["console_url"]


def test_a_run_that_fails_in_all_retries_has_failed(kit: GlueKit, context: Any) -> None:
    """The error has the log of the last retry."""
    job = kit.job("import sys\nprint('tried', file=sys.stderr)\nraise ValueError('always')", MaxRetries=1)
    with pytest.raises(exceptions.JobFailed, match=r"failed on attempt 2 of 2\.") as error:
        task(job).execute(context)
    assert len(kit.runs(job)) == 2
    assert "ValueError: always" in str(error.value)
    assert isinstance(error.value.outcome, dict)
    assert error.value.outcome["log"]["stream"] == kit.runs(job)[1]


def test_a_kill_between_two_attempts_stops_the_retry(kit: GlueKit, context: Any, tmp_path: Any) -> None:
    """Nothing can be stopped at the time of the kill, so the stop is repeated until the retry runs."""
    once = tmp_path / "once"
    job = kit.job(
        f"import os\nif not os.path.exists({str(once)!r}): open({str(once)!r}, 'w'); raise SystemExit(1)\n" + SLEEP,
        MaxRetries=1,
    )
    operator = task(job, deferrable=True)
    [run_id] = deferred(operator, context).trigger.job_ids
    kit.wait(job, run_id, "FAILED")
    operator.on_kill()
    assert kit.wait(job, f"{run_id}_attempt_1")["JobRunState"] == "STOPPED"


# Another script than the job's.


def objects(kit: GlueKit, prefix: str) -> list[str]:
    """Return the addresses of the objects under a prefix of the kit's bucket."""
    found = kit.s3.list_objects_v2(Bucket=kit.name, Prefix=prefix).get("Contents", [])
    return [f"s3://{kit.name}/{each['Key']}" for each in found]


def test_a_local_script_runs_instead_of_the_jobs(kit: GlueKit, context: Any, tmp_path: Any) -> None:
    """It is uploaded once, under a hash of its content, and the job does not change."""
    job = kit.job("raise ValueError('the script of the job')")
    script = tmp_path / "load.py"
    script.write_text("import sys\nprint('mine', sys.argv[sys.argv.index('--day') + 1], file=sys.stderr)")
    mine = {"script": str(script), "script_prefix": f"s3://{kit.name}/scripts/", "script_args": {"--day": "today"}}
    before = kit.glue.get_job(JobName=job)["Job"]
    outcome = task(job, **mine).execute(context)
    [uploaded] = objects(kit, "scripts/load-")
    assert kit.look(job, outcome["job_id"])["Arguments"]["--scriptLocation"] == uploaded
    logs = kit.aws.client("logs").get_log_events(
        logGroupName=outcome["log"]["group"], logStreamName=outcome["log"]["stream"]
    )
    assert [each["message"] for each in logs["events"]] == ["mine today"]
    assert task(job, **mine).execute(cleared(context))
    assert objects(kit, "scripts/load-") == [uploaded]
    assert kit.glue.get_job(JobName=job)["Job"] == before
    script.write_text("print('another')")
    assert task(job, **mine).execute(cleared(context))
    assert len(objects(kit, "scripts/load-")) == 2


def test_a_relative_script_is_beside_the_dag(kit: GlueKit, context: Any, tmp_path: Any) -> None:
    """As Airflow's own template files."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "load.py").write_text("print('mine')")
    with DAG("d", schedule=None) as dag:
        operator = task(kit.job("1 / 0"), script="scripts/load.py", script_prefix=f"s3://{kit.name}/beside")
    dag.fileloc = str(tmp_path / "dag.py")
    assert operator.execute(context)["state"] == "SUCCEEDED"


def test_the_job_is_updated_only_on_request(kit: GlueKit, context: Any) -> None:
    """Everything else about it stays as it is; the run itself uses the script either way."""
    kit.s3.put_object(Bucket=kit.name, Key="new.py", Body=b"print('new')")
    job = kit.job("1 / 0", MaxRetries=1, DefaultArguments={"--a": "b"}, ExecutionProperty={"MaxConcurrentRuns": 3})
    before = kit.glue.get_job(JobName=job)["Job"]
    new = f"s3://{kit.name}/new.py"
    assert task(job, script=new, update_job=True).execute(context)["state"] == "SUCCEEDED"
    after = kit.glue.get_job(JobName=job)["Job"]
    assert after["Command"] == {**before["Command"], "ScriptLocation": new}
    changed = {"Command", "LastModifiedOn"}
    assert {k: v for k, v in after.items() if k not in changed} == {k: v for k, v in before.items() if k not in changed}
    assert task(job).execute(cleared(context))["state"] == "SUCCEEDED"


def test_a_bucket_that_does_not_exist_fails_the_task(kit: GlueKit, context: Any, tmp_path: Any) -> None:
    """No run is started, and the task is not retried."""
    (tmp_path / "load.py").write_text("print('mine')")
    job = kit.job()
    with pytest.raises(exceptions.SubmissionRejected, match=r"(?s)s3://there-is-none/p/load-.*NoSuchBucket"):
        task(job, script=str(tmp_path / "load.py"), script_prefix="s3://there-is-none/p").execute(context)
    assert kit.runs(job) == []


def test_a_denied_upload_fails_the_try(own_kit: GlueKit, context: Any, tmp_path: Any) -> None:
    """The error says that nothing was started; the permission may be granted before the next try."""
    (tmp_path / "load.py").write_text("print('mine')")
    job = own_kit.job()
    own_kit.aws.set_faults(Faults(denied=("s3.PutObject",)))
    with pytest.raises(exceptions.SubmissionError, match="nothing was started") as error:
        task(job, script=str(tmp_path / "load.py"), script_prefix=f"s3://{own_kit.name}/p").execute(context)
    assert not isinstance(error.value, exceptions.SubmissionRejected)
    assert "load-" in str(error.value)
    assert own_kit.runs(job) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read on this worker: No such file"), (b" \n", "is empty"), ("dir", "is not a file")],
)
def test_a_file_that_is_not_a_script_is_rejected(
    kit: GlueKit, context: Any, tmp_path: Any, content: Any, words: str
) -> None:
    """Glue would only say that the run failed."""
    script, job = tmp_path / "load.py", kit.job()
    if content == "dir":
        script.mkdir()
    elif content:
        script.write_bytes(content)
    with pytest.raises(exceptions.InvalidParameter, match=rf"script='{script}': {script} {words}"):
        task(job, script=str(script), script_prefix=f"s3://{kit.name}/p").execute(context)
    assert kit.runs(job) == []


def test_a_resumed_task_does_not_need_its_script(kit: GlueKit, context: Any, tmp_path: Any, gate: Any) -> None:
    """Another worker, which may not have the file, finishes the task."""
    script = tmp_path / "load.py"
    script.write_text(until(gate))
    parameters = {"script": str(script), "script_prefix": f"s3://{kit.name}/p", "deferrable": True}
    job = kit.job("1 / 0")
    deferral = deferred(task(job, **parameters), context)
    script.unlink()
    gate.touch()
    assert resumed(task(job, **parameters), deferral, run(deferral.trigger), context)["state"] == "SUCCEEDED"


# Rejected starts.


def test_an_unknown_job_is_rejected(kit: GlueKit, context: Any) -> None:
    """No run is started, and the task is not retried."""
    with pytest.raises(exceptions.SubmissionRejected, match="nothing was started") as error:
        task("nowhere").execute(context)
    assert isinstance(error.value, AirflowFailException)
    assert "Glue job run of nowhere" in str(error.value)


def test_a_rejection_by_glue_fails_the_task(kit: GlueKit, context: Any) -> None:
    """The error has Glue's message."""
    job = kit.job()
    with pytest.raises(exceptions.SubmissionRejected, match="Worker Type is not supported"):
        task(job, worker_type="G.1X", number_of_workers=2).execute(context)
    assert kit.runs(job) == []


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"job_name": None}, "job_name=None: must be a string"),
        ({"run_job_kwargs": {"NoSuchMember": 1}}, "run_job_kwargs=.* AWS has no member 'NoSuchMember' here"),
        ({"job_name": "None"}, "did a template render to nothing"),
        ({"script_args": ["--a", "b"]}, r"script_args=\['--a', 'b'\]: must be a dict"),
        ({"script_args": "--a b"}, "script_args='--a b': must be a dict"),
        ({"run_job_kwargs": "x"}, "run_job_kwargs='x': must be a dict"),
        (
            {"script_args": {"--a": "b"}, "run_job_kwargs": {"Arguments": {}}},
            "script_args=.*: is also set in run_job_kwargs, as Arguments; set it in one place only",
        ),
        ({"run_job_kwargs": {"JobName": "x"}}, "job_name='j': is also set in run_job_kwargs, as JobName"),
        (
            {"attempt_timeout": 120, "run_job_kwargs": '{"Timeout": 1}'},
            "attempt_timeout=120: is also set in run_job_kwargs, as Timeout",
        ),
        ({"attempt_timeout": 90}, "attempt_timeout=90: must be whole minutes"),
        ({"attempt_timeout": 30}, "attempt_timeout=30: must be whole minutes"),
        ({"attempt_timeout": 0}, "attempt_timeout=0: must be a number above 0"),
        ({"attempt_timeout": timedelta(seconds=61)}, "attempt_timeout=.*: must be whole minutes"),
        ({"number_of_workers": 0}, "number_of_workers=0: must be a number of at least 1"),
        ({"number_of_workers": "2.5"}, "number_of_workers='2.5': must be a whole number"),
        ({"number_of_workers": "many"}, "number_of_workers='many'"),
        ({"max_capacity": 0}, "max_capacity=0: must be a number above 0"),
        ({"max_capacity": True}, "max_capacity=True"),
        ({"worker_type": ""}, "worker_type=''"),
        ({"execution_class": "CHEAP"}, "execution_class='CHEAP': must be one of STANDARD, FLEX"),
        ({"poll_interval": 0}, "poll_interval=0"),
        ({"script": "load.py"}, "script_prefix=None: is required for a local script"),
        ({"script": ""}, "script='': must be a string that is not empty"),
        ({"script": "gs://b/load.py"}, "script='gs://b/load.py': must be a path, or an object in S3"),
        ({"script": "s3://bucket"}, "script='s3://bucket': must be a path, or an object in S3"),
        ({"script": "s3://bucket/folder/"}, "script='s3://bucket/folder/': must be a path, or an object in S3"),
        ({"script": "s3://bucket/a.py", "script_prefix": "s3://bucket/p"}, "script_prefix=.*: has no effect"),
        ({"script": "a.py", "script_prefix": "bucket"}, "script_prefix='bucket': must be s3://bucket/prefix"),
        ({"script": "a.py", "script_prefix": "log"}, "script_prefix='log': must be s3://bucket/prefix"),
        ({"script_prefix": "s3://bucket/p"}, "script_prefix=.*: has no effect without script"),
        ({"update_job": True}, "update_job=True: has no effect without script"),
        ({"update_job": "maybe"}, "update_job='maybe': must be true or false"),
        (
            {"script": "s3://bucket/a.py", "script_args": {"--scriptLocation": "s3://bucket/b.py"}},
            "script=.*: --scriptLocation is an argument of the run, too",
        ),
    ],
)
def test_invalid_parameters_make_no_call(kit: GlueKit, context: Any, parameters: dict[str, Any], words: str) -> None:
    """The error has the parameter, the value and the rule."""
    with pytest.raises(exceptions.InvalidParameter, match=words):
        task("j", **parameters).execute(context)


# Concurrency limits.


LIMITS = {
    "ConcurrentRunsExceededException": "Concurrent runs exceeded for job",
    "ResourceNumberLimitExceededException": "Resource number limit exceeded",
}


@pytest.mark.parametrize("code", LIMITS)
def test_a_reached_limit_is_not_an_error(own_kit: GlueKit, context: Any, code: str) -> None:
    """The start is repeated, and starts one run in the same attempt."""
    operator = task(own_kit.job())
    refusal = CannedResponse(code=code, message=LIMITS[code], actions=("StartJobRun",), calls=3)
    own_kit.aws.set_faults(Faults(respond_with=(refusal,)))
    assert operator.execute(context)["state"] == "SUCCEEDED"
    assert own_kit.aws.calls["glue.StartJobRun"] == 4
    assert len(own_kit.runs(operator.job_name)) == 1
    assert context["task_state_store"]["jobflow"]["number"] == 1


def test_a_run_waits_for_the_previous_one(
    own_kit: GlueKit, context: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits on the worker."""
    job = own_kit.job(until(gate))
    first = own_kit.start(job)
    operator = task(job)
    wait_for_capacity = CapacityWait.wait

    def waits(wait: Any, full: Any) -> None:
        if own_kit.aws.calls["glue.StartJobRun"] >= 3:
            gate.touch()
        wait_for_capacity(wait, full)

    monkeypatch.setattr(CapacityWait, "wait", waits)
    outcome = operator.execute(context)
    assert own_kit.runs(job) == [first, outcome["job_id"]]
    assert outcome["state"] == "SUCCEEDED"


@pytest.mark.usefixtures("long_pauses")
def test_a_reached_limit_is_awaited_in_the_triggerer(kit: GlueKit, context: Any, gate: Any) -> None:
    """The task defers with growing pauses, and the resumed task has all the data that it needs."""
    job = kit.job(until(gate))
    first = kit.start(job)
    wait = deferred(task(job, deferrable=True), context)
    waits = [wait]
    for _ in range(3):
        with pytest.raises(TaskDeferred) as raised:
            resumed(task(job, deferrable=True), waits[-1], "the moment", context)
        waits.append(raised.value)
    assert all(isinstance(wait.trigger, DateTimeTrigger) for wait in waits)
    assert [round(wait.timeout.total_seconds()) - 60 for wait in waits] == [20, 40, 50, 50]
    gate.touch()
    kit.wait(job, first)
    gate.unlink()
    operator = task(job, deferrable=True)
    with pytest.raises(TaskDeferred) as raised:
        resumed(operator, waits[-1], "the moment", context)
    assert isinstance(raised.value.trigger, JobTrigger)
    gate.touch()
    outcome = operator.execute_complete(context, run(raised.value.trigger))
    assert kit.runs(job) == [first, outcome["job_id"]]
    assert (outcome["state"], context["task_state_store"]["jobflow"]["number"]) == ("SUCCEEDED", 1)


@pytest.mark.usefixtures("long_pauses")
def test_the_last_start_comes_before_the_deadline(kit: GlueKit, context: Any) -> None:
    """A pause that is too short for a deferral happens on the worker."""
    job = kit.job(SLEEP)
    kit.start(job)
    wait = deferred(task(job, deferrable=True, job_timeout=12), context)
    assert 60 < wait.timeout.total_seconds() <= 72
    context["task_state_store"].clear()
    with pytest.raises(exceptions.JobTimeout):
        task(job, deferrable=True, job_timeout=1).execute(context)


@pytest.mark.parametrize(
    ("limit", "kind"), [("job_timeout", exceptions.JobTimeout), ("queued_timeout", exceptions.QueueTimeout)]
)
def test_a_limit_that_stays_reached_fails_the_task(kit: GlueKit, context: Any, limit: str, kind: Any) -> None:
    """The error has Glue's message; no run was started, and running ones are not stopped."""
    job = kit.job(SLEEP)
    first = kit.start(job)
    with pytest.raises(kind, match=r"Concurrent runs exceeded.*nothing was started"):
        task(job, **{limit: 0.8}).execute(context)
    assert kit.runs(job) == [first]
    assert kit.look(job, first)["JobRunState"] in ("STARTING", "RUNNING")


@pytest.mark.usefixtures("long_pauses")
@pytest.mark.parametrize("room", [True, False])
def test_a_deferral_timeout_before_the_deadline_repeats_the_start(
    kit: GlueKit, context: Any, gate: Any, *, room: bool
) -> None:
    """This happens if no triggerer is alive."""
    job = kit.job(until(gate))
    first = kit.start(job)
    deferred(task(job, deferrable=True), context)
    if room:
        gate.touch()
        kit.wait(job, first)
        gate.unlink()
    operator = task(job, deferrable=True)
    with pytest.raises(TaskDeferred) as raised:
        operator.resume_execution("__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, context)
    assert isinstance(raised.value.trigger, JobTrigger if room else DateTimeTrigger)
    assert len(kit.runs(job)) == (2 if room else 1)


@pytest.mark.usefixtures("long_pauses")
def test_a_deferral_timeout_after_the_deadline_starts_no_run(kit: GlueKit, context: Any, gate: Any) -> None:
    """A run that starts then would be stopped immediately."""
    job = kit.job(until(gate))
    first = kit.start(job)
    deferred(task(job, deferrable=True, job_timeout=60), context)
    gate.touch()
    kit.wait(job, first)
    context["task_state_store"]["jobflow"]["deadline"] -= 60
    with pytest.raises(exceptions.JobTimeout, match=r"Concurrent runs exceeded.*tried once.*nothing was started"):
        task(job, deferrable=True, job_timeout=60).resume_execution(
            "__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, context
        )
    assert kit.runs(job) == [first]


def test_a_task_killed_before_its_start_starts_no_run(
    kit: GlueKit, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal handler does not end the process."""
    job = kit.job(SLEEP)
    first = kit.start(job)
    operator = task(job)
    monkeypatch.setattr("airflow_jobflow.operators.capacity.time.sleep", lambda _: operator.on_kill())
    with pytest.raises(exceptions.JobStopped, match=r"killed while it waited; nothing was started"):
        operator.execute(context)
    assert kit.runs(job) == [first]


# One start per attempt.


def test_a_start_whose_response_is_lost_starts_one_run(own_kit: GlueKit, context: Any) -> None:
    """The run is found by its token and not started again, although the limit is one run."""
    job = own_kit.job()
    own_kit.aws.set_faults(Faults(actions=("StartJobRun",), lose_answers=1))
    outcome = task(job).execute(context)
    assert own_kit.runs(job) == [outcome["job_id"]]
    assert own_kit.aws.calls["glue.StartJobRun"] == 1


def test_a_lost_run_that_appears_late_is_adopted(own_kit: GlueKit, context: Any) -> None:
    """The repeated start fails because the first run counts towards the limit; the run is then found by its token."""
    job = own_kit.job("import time\ntime.sleep(1.5)")
    own_kit.aws.set_faults(Faults(actions=("StartJobRun",), lose_answers=1, visible_after=0.5))
    outcome = task(job).execute(context)
    assert own_kit.runs(job) == [outcome["job_id"]]
    assert outcome["state"] == "SUCCEEDED"
    assert own_kit.aws.calls["glue.StartJobRun"] > 1


def test_a_start_that_did_not_arrive_is_repeated(own_kit: GlueKit, context: Any) -> None:
    """The run is looked up first, and then started once more."""
    job, other = own_kit.job(), own_kit.job()
    own_kit.aws.set_faults(Faults(actions=("StartJobRun",), error_every=2))
    own_kit.start(other)
    outcome = task(job).execute(context)
    assert own_kit.runs(job) == [outcome["job_id"]]


@pytest.mark.parametrize("durable", [True, False])
def test_a_start_that_cannot_be_looked_up_is_not_repeated(own_kit: GlueKit, context: Any, *, durable: bool) -> None:
    """A second run would be worse than an error about an unknown state."""
    job = own_kit.job()
    own_kit.aws.set_faults(Faults(actions=("StartJobRun", "GetJobRuns"), drop_every=1))
    with pytest.raises(exceptions.SubmissionError, match="may have been started") as error:
        task(job, durable=durable).execute(context)
    assert not isinstance(error.value, exceptions.SubmissionRejected)
    assert own_kit.aws.calls["glue.StartJobRun"] == 1


# Stops.


@pytest.mark.parametrize("cancel", [True, False])
def test_cancel_on_kill_decides_whether_a_killed_worker_stops_its_run(
    kit: GlueKit, context: Any, gate: Any, *, cancel: bool
) -> None:
    """By default, the run is stopped."""
    operator = task(kit.job(until(gate)), wait_for_completion=False, cancel_on_kill=cancel)
    run_id = operator.execute(context)["job_id"]
    operator.on_kill()
    operator.on_kill()  # a run that is stopping or has stopped is not stopped again
    gate.touch()
    assert kit.wait(operator.job_name, run_id)["JobRunState"] == ("STOPPED" if cancel else "SUCCEEDED")
    operator.on_kill()


def test_a_killed_task_stops_its_run_from_the_triggerer(kit: GlueKit, context: Any) -> None:
    """This happens for mark failed, mark success and clear."""
    operator = task(kit.job(SLEEP), deferrable=True)
    trigger = deferred(operator, context).trigger
    asyncio.run(trigger.on_kill())
    assert kit.wait(operator.job_name, trigger.job_ids[0])["JobRunState"] == "STOPPED"


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_run_past_its_deadline_is_stopped(kit: GlueKit, context: Any, *, deferrable: bool) -> None:
    """The error has its last state."""
    operator = task(kit.job(SLEEP), job_timeout=0.8, deferrable=deferrable)

    def wait() -> Any:
        if deferrable:
            return operator.execute_complete(context, run(deferred(operator, context).trigger))
        return operator.execute(context)

    with pytest.raises(
        exceptions.JobTimeout,
        match=r"(RUNNING|STARTING).*, did not end within 0\.8 s \(job_timeout\)\. It was stopped",
    ):
        wait()
    [run_id] = kit.runs(operator.job_name)
    assert kit.wait(operator.job_name, run_id)["JobRunState"] == "STOPPED"


def test_a_deadline_is_reported_even_if_the_run_cannot_be_stopped(
    own_kit: GlueKit, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says that the run may continue, and what to do."""
    monkeypatch.setattr("airflow_jobflow.triggers.job.STOP_TIMEOUT_IN_WORKER", 0.5)
    monkeypatch.setattr("airflow_jobflow.stopping.FIRST_RETRY", ONCE)
    job = own_kit.job(SLEEP)
    own_kit.aws.set_faults(Faults(denied=("glue.BatchStopJobRun",)))
    with pytest.raises(exceptions.JobTimeout, match=r"It could not be stopped yet \(.*BatchStopJobRun"):
        task(job, job_timeout=0.5).execute(context)


def test_queued_timeout_applies_to_a_run_in_glues_queue(kit: GlueKit, context: Any, gate: Any) -> None:
    """The advice mentions limits, not compute environments."""
    job = kit.job(until(gate))
    first = kit.start(job)
    with pytest.raises(
        exceptions.QueueTimeout, match=r"WAITING, did not leave the queue .*It was stopped\. Check what else is running"
    ) as error:
        task(job, run_job_kwargs={"JobRunQueuingEnabled": True}, queued_timeout=0.5).execute(context)
    assert "compute environment" not in str(error.value)
    assert kit.wait(job, kit.runs(job)[1])["JobRunState"] == "STOPPED"
    gate.touch()
    assert kit.wait(job, first)["JobRunState"] == "SUCCEEDED"


def test_a_script_can_ignore_the_token(kit: GlueKit, context: Any) -> None:
    """A script that reads its own arguments gets them."""
    script = (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a')\nassert p.parse_known_args()[0].a == 'b'"
    )
    assert task(kit.job(script), script_args={"--a": "b"}).execute(context)["state"] == "SUCCEEDED"
