"""The variables and results of jobs, against the local AWS: jobs really write to its S3."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_jobflow import exceptions, results
from airflow_jobflow.aws import ONCE
from airflow_jobflow.local import Faults
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from tests.local.conftest import DagRun, Store, TaskInstance
from tests.local.tries import deferred, retried

JSON = "-H content-type:application/json"
WRITE = f"""write() {{ curl -sf -X PUT {JSON} --data-binary "$1" "$AWS_ENDPOINT_URL/${{2#s3://}}"; }}\n"""
CONTEXT = ("AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_TASK_ID", "AIRFLOW_CTX_DAG_RUN_ID", "AIRFLOW_CTX_TRY_NUMBER")


@pytest.fixture
def bucket(kit: Any) -> str:
    """A new bucket."""
    name = f"results-{uuid.uuid4().hex}"
    kit.aws.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def task(kit: Any, here: Callable[[Any], None], bucket: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make an operator whose jobs return something, and that waits here."""
    here(kit.aws)
    monkeypatch.setattr(results, "ARRIVAL", 0.0)
    monkeypatch.setattr(results, "READ", ONCE)

    def make(script: str, kind: Any = BatchJobOperator, **parameters: Any) -> Any:
        definition = kit.define(["sh", "-c", WRITE + script])
        given = {"task_id": "t", "job_name": "hello", "job_queue": kit.queue, "job_definition": definition}
        defaults = {"aws_conn_id": None, "deferrable": False, "result": f"s3://{bucket}/etl"}
        return kind(**{**given, **defaults, **parameters})

    return make


@pytest.fixture
def faults(kit: Any) -> Iterator[Callable[..., None]]:
    """Set faults of the local AWS until the end of the test."""
    yield lambda **given: kit.aws.set_faults(Faults(**given))
    kit.aws.set_faults(Faults())


def test_a_job_returns_what_it_writes(task: Any, context: Any, bucket: str) -> None:
    """To an address that no other attempt has."""
    outcome = task("""write '{"rows": 3}' "$JOBFLOW_RESULT_URI" """).execute(context)
    assert (outcome["result"], outcome["result_error"]) == ({"rows": 3}, None)
    assert outcome["result_uri"].startswith(f"s3://{bucket}/etl/")
    assert outcome == json.loads(json.dumps(outcome))


def test_a_job_gets_variables_that_name_its_task(task: Any, context: Any) -> None:
    """Under the names that Airflow uses; a variable of the user's own takes precedence."""
    names = (*CONTEXT, "AIRFLOW_CTX_LOGICAL_DATE")
    script = "echo JOBFLOW_RESULT [" + ",".join(f'\\"${name}\\"' for name in names) + "]"
    outcome = task(script, result="log", environment={"AIRFLOW_CTX_TASK_ID": "mine"}).execute(context)
    ti = context["ti"]
    assert outcome["result"] == [ti.dag_id, "mine", ti.run_id, "1", "2026-01-02T00:00:00+00:00"]
    another = {"ti": TaskInstance(), "dag_run": DagRun(), "task_state_store": Store()}
    bare = task(script, result="log", pass_context=False).execute(another)
    assert bare["result"] == [""] * len(names)


def test_a_job_may_return_a_line_of_its_log(task: Any, context: Any) -> None:
    """It then needs no access to S3."""
    script = """echo 'JOBFLOW_RESULT {"rows": 1}'; echo 'JOBFLOW_RESULT {"rows": 2}'; echo done"""
    outcome = task(script, result="log").execute(context)
    assert (outcome["result"], outcome["result_uri"]) == ({"rows": 2}, None)


def test_a_result_is_read_from_the_jobs_own_log_group(task: Any, context: Any, kit: Any) -> None:
    """Only Glue has a second group for standard output; a group of the user can have the same ending as Glue's."""
    options = {"awslogs-group": "/app/error"}
    script = {"script": "echo 'JOBFLOW_RESULT 1'", "logConfiguration": {"logDriver": "awslogs", "options": options}}
    outcome = task("true", result="log", job_definition=kit.define_several(main=script)).execute(context)
    assert (outcome["result"], outcome["log"]["group"]) == (1, "/app/error")


@pytest.mark.parametrize(
    ("script", "why"),
    [("true", "wrote nothing"), ("""write '{"rows":' "$JOBFLOW_RESULT_URI" """, "is not JSON")],
)
def test_a_result_that_is_missing_or_malformed_does_not_fail_the_job(
    task: Any, context: Any, script: str, why: str
) -> None:
    """Unless it is required: then the retry starts another job, which may return one."""
    outcome = task(script).execute(context)
    assert (outcome["state"], outcome["result"]) == ("SUCCEEDED", None)
    assert why in outcome["result_error"]
    again = retried(context)
    with pytest.raises(exceptions.JobFailed, match=why) as raised:
        task(script, result_required=True).execute(again)
    assert raised.value.diagnosis is not None
    assert raised.value.diagnosis.cause == "no_result"
    first: Any = raised.value.outcome
    good = task("""write 1 "$JOBFLOW_RESULT_URI" """, result_required=True).execute(retried(again))
    assert (good["result"], good["job_id"] != first["job_id"]) == (1, True)


def test_a_result_that_cannot_be_read_is_read_by_the_retry(
    task: Any, context: Any, faults: Callable[..., None]
) -> None:
    """The job has done its work, so it is not started again."""
    operator = task("""write 1 "$JOBFLOW_RESULT_URI" """, result_required=True)
    faults(denied=("s3.GetObject",))
    with pytest.raises(exceptions.JobFailed, match=r"result in s3://\S+ could not be read") as raised:
        operator.execute(context)
    assert raised.value.diagnosis is not None
    assert raised.value.diagnosis.cause == "result_not_read"
    first: Any = raised.value.outcome
    faults()
    outcome = task("exit 1", result_required=True).execute(retried(context))
    assert (outcome["result"], outcome["job_id"]) == (1, first["job_id"])


def test_the_triggerer_reads_the_result_of_a_task_that_ends_there(task: Any, context: Any, gate: Any) -> None:
    """So that a result does not cost a worker; without one, the worker decides."""
    wait = f"while [ ! -e {gate} ]; do sleep 0.02; done\n"
    operator = task(wait + """write 5 "$JOBFLOW_RESULT_URI" """, deferrable=True)
    trigger = deferred(operator, context).trigger
    assert trigger.result == operator.result
    assert trigger.serialize()[1]["result"] == operator.result
    array = task(wait, deferrable=True, array_size=2)
    with pytest.raises(TaskDeferred) as raised:
        array.execute(context)
    trigger = raised.value.trigger
    assert trigger.result_kind is None
    gate.touch()


def test_children_of_an_array_return_a_list(task: Any, context: Any) -> None:
    """Each appends its index; the missing are named."""
    script = """[ $AWS_BATCH_JOB_ARRAY_INDEX = 1 ] || write 1$AWS_BATCH_JOB_ARRAY_INDEX"""
    outcome = task(script + ' "$JOBFLOW_RESULT_URI/${AWS_BATCH_JOB_ARRAY_INDEX:-0}"', array_size=3).execute(context)
    assert outcome["result"] == [10, None, 12]
    assert outcome["result_error"] == "missing results (1): 1"


def test_a_child_that_has_failed_returns_nothing(task: Any, context: Any) -> None:
    """What it wrote before it failed may be incomplete."""
    script = """index=$AWS_BATCH_JOB_ARRAY_INDEX; write $index "$JOBFLOW_RESULT_URI/$index"; exit $index"""
    outcome = task(script, array_size=2, tolerated_failure_count=1).execute(context)
    assert (outcome["result"], outcome["result_error"]) == ([0, None], None)


def test_a_redriven_array_returns_the_results_of_all_tries(task: Any, context: Any, tmp_path: Any) -> None:
    """The children that succeeded before wrote to another address."""
    script = f"""
    index=${{AWS_BATCH_JOB_ARRAY_INDEX:-0}}
    [ -e {tmp_path}/again ] || [ $index != 1 ] || exit 1
    write "\\"$JOBFLOW_ARRAY_INDEXES $index\\"" "$JOBFLOW_RESULT_URI/$index" """
    operator = task(script, array_size=3, redrive=True)
    with pytest.raises(exceptions.JobFailed):
        operator.execute(context)
    (tmp_path / "again").touch()
    outcome = task(script, array_size=3, redrive=True, job_definition=operator.job_definition).execute(retried(context))
    assert outcome["result"] == [" 0", "1 0", " 2"]
    assert outcome["result_error"] is None


def test_items_of_a_map_return_a_list_over_all_tries(task: Any, context: Any, tmp_path: Any) -> None:
    """Each has an address of its own, and nothing to append."""
    script = f"""
    [ -e {tmp_path}/again ] || [ $JOBFLOW_MAP_INDEX != 1 ] || exit 1
    write "\\"$JOBFLOW_MAP_INDEX $AIRFLOW_CTX_TRY_NUMBER\\"" "$JOBFLOW_RESULT_URI" """
    operator = task(script, kind=BatchMapOperator, items=[{}, {}, {}], redrive=True)
    with pytest.raises(exceptions.JobFailed):
        operator.execute(context)
    (tmp_path / "again").touch()
    again = task(
        script, kind=BatchMapOperator, items=[{}, {}, {}], redrive=True, job_definition=operator.job_definition
    )
    outcome = again.execute(retried(context))
    assert outcome["result"] == ["0 1", "1 2", "2 1"]
    assert outcome["usage"]["vcpu_seconds"] is not None
    assert outcome["usage"]["estimated"] is False


def test_many_results_are_in_a_manifest(task: Any, context: Any, kit: Any, bucket: str) -> None:
    """More than 48 KB in all would slow down Airflow's database."""
    script = """write "\\"$(printf %030000d 0)\\"" "$JOBFLOW_RESULT_URI/$AWS_BATCH_JOB_ARRAY_INDEX" """
    outcome = task(script, array_size=2).execute(context)
    assert (outcome["result"], outcome["result_error"]) == (None, None)
    key = outcome["result_uri"].removeprefix(f"s3://{bucket}/")
    manifest = json.loads(kit.aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    assert [each["bytes"] for each in manifest["results"]] == [30_002, 30_002]


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"result": "bucket/prefix"}, "s3://bucket/prefix"),
        ({"result": "s3://Bucket"}, "s3://bucket/prefix"),
        ({"environment": {"JOBFLOW_RESULT_URI": "s3://mine/fixed"}}, "remove one of them"),
        (
            {"container_overrides": {"environment": [{"name": "JOBFLOW_RESULT_URI", "value": "x"}]}},
            "remove one of them",
        ),
        ({"node_overrides": {"numNodes": 2}}, "cannot be combined with result"),
        ({"result": "log", "array_size": 2}, "must be an address in S3"),
        ({"wait_for_completion": False}, "needs wait_for_completion=True"),
        ({"result_required": "maybe"}, "true or false"),
    ],
)
def test_what_contradicts_a_result_is_rejected(task: Any, parameters: dict[str, Any], why: str) -> None:
    """Before anything is started; an address of the user's own could hold the result of an earlier try."""
    with pytest.raises(exceptions.InvalidParameter, match=why):
        task("true", **parameters).check()
