"""Python functions that run in jobs, with the decorators, on the local AWS."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.execution_time import comms, task_runner

from airflow_jobflow import exceptions, results
from airflow_jobflow.aws import ONCE
from airflow_jobflow.decorators.batch import batch_map_task, batch_task
from airflow_jobflow.decorators.ecs import ecs_map_task, ecs_task, fargate_map_task, fargate_task
from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.operators.ecs import FargateTaskOperator
from tests.local.conftest import DagRun, Store, TaskInstance
from tests.local.tries import deferred, resumed, retried
from tests.triggerer import Triggerer
from tests.triggerer import task as task_of_triggerer

if TYPE_CHECKING:
    from datetime import date

DECORATORS: dict[str, Any] = {
    "batch": batch_task,
    "batch_map": batch_map_task,
    "fargate": fargate_task,
    "fargate_map": fargate_map_task,
    "ecs": ecs_task,
    "ecs_map": ecs_map_task,
}
SINGLE = pytest.mark.parametrize("kind", ["batch", "fargate"])
BATCH = pytest.mark.parametrize("kind", ["batch"])
MAPS = pytest.mark.parametrize("kind", ["batch_map", "fargate_map", "ecs_map"])
BATCH_MAP = pytest.mark.parametrize("kind", ["batch_map"])
FACTOR = 10
"""A default value."""


class Functions:
    """Makes the operators of decorated functions of one kind, which wait in this process."""

    def __init__(self, kind: str, kit: Any) -> None:
        self.kind = kind
        self.kit = kit
        if kind.startswith("batch"):
            self.parameters = {"job_queue": kit.queue, "job_definition": kit.define()}
        else:
            self.parameters = {"cluster": kit.cluster, "task_definition": kit.define(), "subnets": ["subnet-1"]}
        if kind.startswith("ecs"):
            self.parameters["launch_type"] = "FARGATE"
        self.parameters |= {"aws_conn_id": None, "deferrable": False}
        self.bucket = f"functions-{uuid.uuid4().hex}"

    @property
    def s3(self) -> str:
        """A prefix for results in a new bucket."""
        self.kit.aws.client("s3").create_bucket(Bucket=self.bucket)
        return f"s3://{self.bucket}/results"

    def task(self, function: Callable[..., Any], *args: Any, **parameters: Any) -> Any:
        """Return the operator of a function that is called with some arguments."""
        with DAG("dag", schedule=None):
            made: Any = DECORATORS[self.kind](**self.parameters, **parameters)(function)(*args)
        return made.operator


@pytest.fixture
def functions(
    kind: str, request: pytest.FixtureRequest, here: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> Functions:
    """Functions of a kind, on the local AWS."""
    kit = request.getfixturevalue("kit" if kind.startswith("batch") else "ecs_kit")
    here(kit.aws)
    monkeypatch.setattr(results, "ARRIVAL", 0.0)
    monkeypatch.setattr(results, "READ", ONCE)
    return Functions(kind, kit)


def another_task() -> Any:
    """The context of another task instance."""
    return {"ti": TaskInstance(), "dag_run": DagRun(), "task_state_store": Store()}


def add(first: int, second: int = FACTOR, *, day: date | None = None) -> dict[str, Any]:
    """A function whose default and annotations need its file."""
    print("adding", end="")
    return {"sum": first + second, "day": day}


def broken(number: int) -> float:
    """A function that fails below its own frame."""

    def divide() -> float:
        return number / 0

    return divide()


def square(number: int, by: int = 1) -> float:
    """A function of two arguments."""
    return number * number / by


@pytest.mark.parametrize(("kind", "result"), [("batch", "log"), ("batch", "s3"), ("ecs", "log")])
def test_a_function_returns_its_value(functions: Functions, context: Any, result: str) -> None:
    """And not the outcome of its job, whatever it prints."""
    task = functions.task(add, 1, result=functions.s3 if result == "s3" else "log")
    assert task.execute(context) == {"sum": 11, "day": None}
    assert (task.task_id, task.custom_operator_name) == ("add", f"@task.{functions.kind}")


@pytest.mark.parametrize(("kind", "result"), [("batch", "log"), ("fargate", "s3")])
def test_an_exception_fails_the_task_with_its_traceback(functions: Functions, context: Any, result: str) -> None:
    """With the lines of the function's own file, without those of what calls it."""
    task = functions.task(broken, 1, result=functions.s3 if result == "s3" else "log")
    with pytest.raises(exceptions.JobFailed) as raised:
        task.execute(context)
    first, *lines = str(raised.value).split("\n")
    assert "with exit code 1" in first
    assert lines[0] == "Function broken raised ZeroDivisionError: division by zero"
    assert lines[1] == "  | Traceback (most recent call last):"
    line = broken.__code__.co_firstlineno
    frames = [each for each in lines if each.startswith('  |   File "')]
    assert frames == [
        f'  |   File "{__file__}", line {line + 6}, in broken',
        f'  |   File "{__file__}", line {line + 4}, in divide',
    ]
    assert "  |     return number / 0" in lines
    assert raised.value.diagnosis is not None
    assert raised.value.diagnosis.cause == "command_failed"


@BATCH
def test_a_job_that_is_killed_fails_as_any_other(functions: Functions, context: Any) -> None:
    """Nothing was raised then."""

    def dies() -> None:
        import os

        os._exit(3)

    with pytest.raises(exceptions.JobFailed, match="exit code 3"):
        functions.task(dies).execute(context)


@BATCH
def test_a_function_can_skip_its_task(functions: Functions, context: Any) -> None:
    """By its exit code, as any job."""

    def skips() -> None:
        import sys

        sys.exit(99)

    with pytest.raises(AirflowSkipException):
        functions.task(skips, skip_on_exit_code=99).execute(context)


@BATCH
def test_a_value_that_arrives_late_is_awaited(
    functions: Functions, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, the next try would call the function a second time. A function that exits has none."""
    waited: list[float] = []
    monkeypatch.setattr(results, "ARRIVAL", 3.0)
    monkeypatch.setattr(results, "time", SimpleNamespace(sleep=waited.append))

    def leaves() -> None:
        import sys

        sys.exit(0)

    with pytest.raises(exceptions.JobFailed, match=r"no line of stream .* begins with JOBFLOW_RESULT"):
        functions.task(leaves).execute(context)
    assert waited == [15.0]


@BATCH
def test_a_value_that_is_not_json_fails_with_its_place(functions: Functions, context: Any) -> None:
    """Whether it is an argument, before anything is started, or the return value."""
    with pytest.raises(exceptions.InvalidParameter, match=r"argument first\['days'\]\[1\] is a set, which is not JSON"):
        functions.task(add, {"days": [1, {2}]}).execute(context)

    def bad() -> Any:
        return {"a": [1.5, float("nan")]}

    with pytest.raises(exceptions.JobFailed, match=r"the return value\['a'\]\[1\] is nan, which is not JSON"):
        functions.task(bad).execute(retried(context))


@BATCH
def test_a_return_value_that_is_too_large_says_what_to_do(functions: Functions, context: Any) -> None:
    """A line of a log holds less than an object in S3, and that less than S3 could."""

    def many(count: int) -> str:
        return "x" * count

    with pytest.raises(
        exceptions.JobFailed, match=r"has 20,002 .* result='log' takes at most 15,000. With result='s3://buck"
    ):
        functions.task(many, 20_000).execute(context)
    result = functions.s3
    assert len(functions.task(many, 20_000, result=result).execute(another_task())) == 20_000
    with pytest.raises(exceptions.JobFailed, match=r"takes at most 49,152. Write it to S3 in the function"):
        functions.task(many, 50_000, result=result).execute(another_task())


@BATCH
def test_a_call_that_is_too_long_travels_through_s3(functions: Functions, context: Any) -> None:
    """Without S3, the error has both lengths."""
    long = "".join(uuid.uuid5(uuid.NAMESPACE_DNS, str(number)).hex for number in range(400))

    def length(text: str) -> int:
        return len(text)

    with pytest.raises(
        exceptions.InvalidParameter, match=r"take \d,\d+ characters, and it needs 1\d,\d+ for its source"
    ):
        functions.task(length, long).execute(context)
    assert functions.task(length, long, result=functions.s3).execute(retried(context)) == len(long)


@pytest.mark.parametrize(
    ("kind", "result", "size"), [("batch", "log", 0), ("batch", "s3", 0), ("fargate", "log", 0), ("fargate", "s3", 400)]
)
def test_a_function_makes_at_most_two_calls_more_than_a_command(functions: Functions, result: str, size: int) -> None:
    """One to write what is too long for the request, and one to read what the function returned."""

    def work(_: list[str]) -> int:
        return 1

    def calls_of(operator: Any) -> Counter[str]:
        before = functions.kit.aws.calls
        operator.execute(another_task())
        calls = functions.kit.aws.calls - before
        return Counter({call: count for call, count in calls.items() if "Describe" not in call})

    plain: Any = BatchJobOperator if functions.kind == "batch" else FargateTaskOperator
    name = {"job_name": "plain"} if functions.kind == "batch" else {}
    of_command = calls_of(plain(task_id="t", **functions.parameters, **name))
    argument = [uuid.uuid4().hex for _ in range(size)]
    of_function = calls_of(functions.task(work, argument, result=functions.s3 if result == "s3" else "log"))
    of_job = {"s3.PutObject": int(result == "s3"), "s3.GetObject": int(size > 0)}
    more = of_function - of_command - Counter(of_job)
    assert 1 <= sum(more.values()) <= 2, more


@BATCH
def test_cloudpickle_carries_what_json_cannot(functions: Functions, context: Any) -> None:
    """Both ways; what cannot be pickled is named."""

    def mirror(value: set[int]) -> dict[str, Any]:
        import datetime

        return {"value": value, "day": datetime.date(2026, 1, 2)}

    assert functions.task(mirror, {1, 2}, serializer="cloudpickle").execute(context)["value"] == {1, 2}
    with pytest.raises(exceptions.InvalidParameter, match="argument value cannot be pickled"):
        functions.task(mirror, (each for each in [1]), serializer="cloudpickle").execute(context)
    with pytest.raises(exceptions.InvalidParameter, match="serializer='yaml': must be one of json, cloudpickle"):
        functions.task(mirror, 1, serializer="yaml").execute(context)


@BATCH
def test_a_value_that_the_worker_cannot_unpickle_is_an_error_that_says_so(functions: Functions, context: Any) -> None:
    """The image may have packages that the worker lacks; the job is not run again for that."""

    def local() -> Any:
        import sys
        import types

        module = sys.modules["only_here"] = types.ModuleType("only_here")
        exec("class Value: pass", module.__dict__)
        return module.__dict__["Value"]()

    task, before = functions.task(local, serializer="cloudpickle"), functions.kit.aws.calls.copy()
    for again in (context, retried(context)):
        with pytest.raises(exceptions.JobFailed, match=r"cannot be unpickled .* No module named 'only_here'"):
            task.execute(again)
        task = functions.task(local, serializer="cloudpickle")
    assert (functions.kit.aws.calls - before)["batch.SubmitJob"] == 1


@BATCH
@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"command": ["true"]}, "the function is the command"),
        ({"container_overrides": {"command": ["true"]}}, "set it in one place only"),
        ({"array_size": 3}, "is not supported for functions"),
        ({"node_overrides": {"numNodes": 2}}, "is not supported for functions"),
        ({"raise_on_failure": False}, "returns its value, or fails"),
        ({"wait_for_completion": False}, "needs wait_for_completion=True"),
        ({"result": "bucket"}, "must be 'log', or s3://bucket/prefix"),
        ({"python_command": ""}, "must be a string that is not empty"),
        ({"environment": {"BIG": "x" * 7000}}, "needs .* for everything else"),
    ],
)
def test_a_parameter_that_has_no_meaning_for_a_function_is_rejected(
    functions: Functions, context: Any, parameters: dict[str, Any], why: str
) -> None:
    """By name, before anything is started."""
    with pytest.raises(exceptions.InvalidParameter, match=why):
        functions.task(square, 2, **parameters).execute(context)


@BATCH
def test_a_retry_returns_the_value_of_the_job_that_still_runs(functions: Functions, context: Any, gate: Any) -> None:
    """A function is not called twice."""

    def wait(path: str) -> str:
        import os
        import time

        while not os.access(path, os.F_OK):
            time.sleep(0.02)
        return os.environ["AIRFLOW_CTX_TRY_NUMBER"]

    first = functions.task(wait, str(gate))
    first.deferrable = True
    deferred(first, context)
    gate.touch()
    assert functions.task(wait, str(gate)).execute(retried(context)) == "1"


class Supervisor:
    """Records pushed XComs."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def send(self, message: Any) -> None:
        """Record an XCom."""
        assert isinstance(message, comms.SetXCom)
        self.xcoms[message.key] = message.value


@pytest.mark.parametrize(("kind", "value"), [("batch", {"rows": 3}), ("fargate", None)])
def test_a_function_defers_and_ends_without_a_worker(
    functions: Functions, context: Any, value: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggerer stores the value, as a worker would return it; none for None."""
    monkeypatch.setenv("AIRFLOW_DISABLE_GREENBACK_PORTAL", "true")

    def wait(path: str, value: Any) -> Any:
        import os
        import time

        while not os.access(path, os.F_OK):
            time.sleep(0.02)
        return value

    task = functions.task(wait, str(gate), value)
    task.deferrable = True
    deferral = deferred(task, context)
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    gate.touch()

    async def scenario() -> list[Any]:
        triggerer = Triggerer()
        await triggerer.start(deferral.trigger, task_of_triggerer())
        return triggerer.events

    assert asyncio.run(scenario()) == ["success"]
    assert supervisor.xcoms.get("return_value") == value
    assert ("return_value" in supervisor.xcoms) == (value is not None)
    event = asyncio.run(type(deferral.trigger)(**deferral.trigger.serialize()[1]).wait())
    assert resumed(functions.task(wait, str(gate), value), deferral, event, context) == value


@BATCH
def test_a_function_starts_on_a_worker(functions: Functions) -> None:
    """The triggerer does not have the DAG's file."""
    assert not functions.task(square, 2, start_from_trigger=True).start_from_trigger


@BATCH
def test_default_args_apply_to_a_function(functions: Functions, context: Any) -> None:
    """Those of this package's operators too."""
    with DAG("dag", schedule=None, default_args={"job_name": "mine", "result": functions.s3}):
        made: Any = batch_task(**functions.parameters)(square)(2)
    task = made.operator
    assert (task.job_name, task.result) == ("mine", f"s3://{functions.bucket}/results")
    assert functions.task(square, 2).job_name == "square"
    other: Any = batch_task(**functions.parameters)(square).override(task_id="other", job_name="theirs")(2)
    assert (other.operator.task_id, other.operator.job_name) == ("other", "theirs")


@BATCH
@pytest.mark.parametrize(
    ("name", "expected"), [("zähle_größen", "z-hle_gr-en"), ("_", "function"), ("x" * 200, "x" * 128)]
)
def test_any_name_of_a_function_gives_a_name_for_its_job(functions: Functions, name: str, expected: str) -> None:
    """Batch takes fewer characters than Python, and fewer of them."""

    def named() -> None:
        pass

    named.__name__ = name
    task = functions.task(named, task_id="t")
    assert task.job_name == expected
    task.check()


# Maps.


@MAPS
def test_a_map_calls_the_function_for_each_element(functions: Functions, context: Any) -> None:
    """In one task instance; the values are a list in the order of the elements."""
    assert functions.task(square, [1, 2, 3], 2, result=functions.s3).execute(context) == [0.5, 2.0, 4.5]


@BATCH_MAP
def test_what_the_calls_of_a_map_share_may_be_long(functions: Functions, context: Any) -> None:
    """It is written to S3 once, for all of them."""

    def pick(number: int, words: list[str]) -> str:
        return words[number]

    words = [uuid.uuid4().hex for _ in range(400)]
    assert functions.task(pick, [0, 399], words, result=functions.s3).execute(context) == [words[0], words[399]]


@BATCH_MAP
def test_a_map_without_result_returns_nothing(functions: Functions, context: Any) -> None:
    """It may only write files; no bucket is needed then."""
    assert functions.task(square, [1, 2]).execute(context) is None
    assert functions.task(square, [], result=functions.s3).execute(retried(context)) == []


@BATCH_MAP
def test_a_call_of_a_map_that_raises_fails_it_with_its_traceback(functions: Functions, context: Any) -> None:
    """The other calls have ended by then."""

    def inverse(number: int) -> float:
        return 1 / number

    task = functions.task(inverse, [1, 0, 2], on_item_failure="continue")
    with pytest.raises(exceptions.JobFailed, match=r"Failed items \(1\): 1") as raised:
        task.execute(context)
    assert "return 1 / number" in str(raised.value)
    assert "ZeroDivisionError" in str(raised.value)
    assert "JOBFLOW_RESULT" not in str(raised.value)


@BATCH_MAP
def test_many_values_of_a_map_are_in_a_manifest(functions: Functions, context: Any) -> None:
    """The next task gets its address."""

    def large(number: int) -> str:
        return str(number) * 30_000

    address = functions.task(large, [1, 2], result=functions.s3).execute(context)
    bucket, _, key = address.removeprefix("s3://").partition("/")
    manifest = json.loads(functions.kit.aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    assert [each["bytes"] for each in manifest["results"]] == [30_002, 30_002]


@BATCH_MAP
@pytest.mark.parametrize(
    ("items", "why"),
    [
        ("abc", "argument number must be a list"),
        ({"a": 1}, "argument number must be a list"),
        (5, "argument number must be a list"),
        ([1, {1}], r"argument number\[1\] is a set"),
        ([1, "x" * 9000], r"9,\d{3} for the argument of call 1"),
    ],
)
def test_an_element_that_cannot_travel_is_named(functions: Functions, context: Any, items: Any, why: str) -> None:
    """Before any job is started."""
    with pytest.raises(exceptions.InvalidParameter, match=why):
        functions.task(square, items, result="s3://bucket/prefix").execute(context)


@BATCH_MAP
def test_a_retry_calls_the_function_again_for_the_failed_elements_only(
    functions: Functions, context: Any, tmp_path: Any
) -> None:
    """Even if its source was fixed in the meantime."""

    def once(number: int, folder: str) -> int:
        import pathlib

        pathlib.Path(folder, str(number)).mkdir()
        return 1 // number

    def fixed(number: int, folder: str) -> int:
        return -1

    fixed.__name__ = "once"
    result = functions.s3
    with pytest.raises(exceptions.JobFailed):
        functions.task(once, [0, 1], str(tmp_path), result=result, redrive=True).execute(context)
    values = functions.task(fixed, [0, 1], str(tmp_path), result=result, redrive=True).execute(retried(context))
    assert values == [-1, 1]


@BATCH_MAP
def test_five_thousand_calls_fit_into_one_trigger(functions: Functions, context: Any) -> None:
    """Airflow stores it in its database."""
    task = functions.task(square, list(range(5000)), result=functions.s3)
    task.deferrable = True
    trigger = deferred(task, context).trigger
    assert len(json.dumps(trigger.serialize()[1])) < 64 * 1024
