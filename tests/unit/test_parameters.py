"""Every parameter of every operator and sensor has an effect, or is rejected by name: none is accepted and ignored.

The rows are in ``parameter_rows``. An effect must not be visible without the parameter, and must not be the attribute
in which the task keeps it: a parameter that is kept and never read has no effect. The tables must have a row for each
parameter of a class, and for no other. What only reaches the trigger must be read there.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from airflow_jobflow import trigger_eligibility
from airflow_jobflow.exceptions import InvalidParameter, JobflowError
from airflow_jobflow.jobs.model import JobState
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from airflow_jobflow.triggers.job import JobTrigger
from airflow_jobflow.triggers.map import MapTrigger
from airflow_jobflow.triggers.start import StartTrigger
from tests.unit.parameter_rows import (
    BASE,
    BATCH,
    ECS,
    LATE,
    MAPS,
    ON_INSTANCES,
    OPERATORS,
    ROWS,
    SENSORS,
    TABLES,
    HasEffect,
    Rejected,
    Seen,
)
from tests.unit.scripted_aws import ScriptedAws, context


def parameters(kind: type) -> set[str]:
    """Return the parameters of a class that Airflow's operators do not have; Airflow honours its own."""
    names = {
        name
        for each in kind.__mro__
        if (trigger_eligibility.is_ours(each) and "airflow_compat" not in each.__module__) or each is BaseSensorOperator
        for name, parameter in inspect.signature(each.__init__).parameters.items()  # type: ignore[misc]
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return names - set(inspect.signature(BaseOperator.__init__).parameters)


NEEDS = {"start_from_trigger": pytest.mark.needs("starts")}
"""Parameters that only have a meaning with a feature of Airflow."""


def cases(kind_of_row: type) -> list[Any]:
    """Return each row of a kind, with its class and parameter."""
    return [
        pytest.param(kind, name, row, id=f"{kind.__name__}-{name}", marks=NEEDS.get(name, ()))
        for kind, rows in ROWS.items()
        for name, row in rows.items()
        if isinstance(row, kind_of_row)
    ]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Return a function that runs a task against a scripted AWS, up to its deferral or its end."""

    def execute(kind: Any, given: Mapping[str, Any], row: HasEffect | Rejected) -> Seen:
        aws = ScriptedAws(getattr(row, "job", JobState.RUNNING), busy=getattr(row, "busy", False))

        def run_scripted(_: Any, function: Callable[..., Any], *arguments: Any, **__: Any) -> Any:
            return function(aws, *arguments)

        async def waits_here(trigger: Any) -> Any:
            raise WaitsOnWorker

        for module in ("airflow_jobflow.aws", "airflow_jobflow.outcomes"):
            monkeypatch.setattr(f"{module}.run_blocking", run_scripted)
            monkeypatch.setattr(f"{module}.service_client", lambda *_: None)
        for trigger_class in ("job.JobTrigger", "map.MapTrigger"):
            monkeypatch.setattr(f"airflow_jobflow.triggers.{trigger_class}.wait", waits_here)
        seen, task_context = Seen(kind(task_id="t", **given), aws), context()
        for number in range(1, getattr(row, "tries", 1) + 1):
            task_context["ti"].try_number = number
            try:
                seen.result = seen.task.execute(task_context)
            except TaskDeferred as deferral:
                trigger: Any = deferral.trigger
                seen.trigger, seen.result = dict(trigger.serialize()[1]), None
            except (JobflowError, AirflowSkipException, WaitsOnWorker) as error:
                seen.result = error
        return seen

    return execute


class WaitsOnWorker(Exception):
    """The task waits on the worker."""


@pytest.mark.parametrize("kind", BASE, ids=lambda kind: kind.__name__)
def test_every_parameter_has_a_row(kind: type) -> None:
    """A parameter without a row might be ignored."""
    assert ROWS[kind].keys() == parameters(kind)


@pytest.mark.parametrize("kind", BASE, ids=lambda kind: kind.__name__)
def test_every_parameter_is_documented(kind: type) -> None:
    """The documentation is in the class that a DAG names, or in its base class."""
    texts = [each.__doc__ or "" for each in kind.__mro__ if trigger_eligibility.is_ours(each)]
    listed = [names for text in texts for names in re.findall(r":param ([\w,\s]+?):", text)]
    documented = {name.strip() for names in listed for name in names.split(",")}
    of_airflow = set(inspect.signature(BaseSensorOperator.__init__).parameters)
    assert parameters(kind) - documented - of_airflow == set()


def test_every_operator_and_sensor_is_tested() -> None:
    """The list must contain all public ones."""
    from airflow_jobflow import operators, sensors
    from airflow_jobflow.operators.base import AwsJobOperator
    from airflow_jobflow.operators.map import AwsMapOperator
    from airflow_jobflow.sensors.base import AwsJobSensor

    def of(kind: type[Any]) -> Iterator[type[Any]]:
        for each in kind.__subclasses__():
            yield each
            yield from of(each)

    assert operators
    assert sensors
    bases = (AwsJobOperator, AwsMapOperator, AwsJobSensor)
    found = {each for base in bases for each in of(base) if trigger_eligibility.is_ours(each)}
    assert {each for each in found if not each.__name__.startswith("_")} == set(BASE)


@pytest.mark.parametrize("kind", BASE, ids=lambda kind: kind.__name__)
def test_an_operator_has_one_base_class_of_ours(kind: type) -> None:
    """Its code can be read top to bottom, without a second class in which to look up methods."""
    between = [each for each in kind.__mro__[1:] if trigger_eligibility.is_ours(each)]
    assert len([each for each in between if "airflow_compat" not in each.__module__]) == 1


@pytest.mark.parametrize(("kind", "name", "row"), cases(HasEffect))
def test_a_parameter_has_its_effect(run: Any, kind: Any, name: str, row: HasEffect) -> None:
    """The effect is visible in the request, in the trigger or in the result, and only with the parameter."""
    without = {**BASE[kind], **row.beside}
    assert row.see(run(kind, without, row)) != row.expected
    seen = run(kind, {**without, name: row.value}, row)
    assert row.see(seen) == row.expected
    if row.late:
        assert name in LATE
    elif name in vars(seen.task):
        vars(seen.task)[name] = object()
        assert row.see(seen) == row.expected, "this is where the task keeps it, and no effect"


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(kind, name, id=f"{kind.__name__}-{name}") for kind in MAPS for name in TABLES[kind].item_fields],
)
def test_a_parameter_of_an_item_has_its_effect(run: Any, kind: Any, name: str) -> None:
    """It has the same effect on the item's request as the operator's parameter."""
    row = {"batch": BATCH, "ecs": {**ECS, **ON_INSTANCES}}[kind.service][name]
    beside = {key: value for key, value in row.beside.items() if key in TABLES[kind].item_fields}
    assert row.see(run(kind, {**BASE[kind], "items": [beside]}, row)) != row.expected
    assert row.see(run(kind, {**BASE[kind], "items": [{**beside, name: row.value}]}, row)) == row.expected


def keeps(statement: ast.AST, names: Sequence[str]) -> bool:
    """Return whether a statement only keeps an argument: ``self.x = x``."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    return isinstance(target, ast.Attribute) and target.attr in names


@pytest.mark.parametrize("trigger", [JobTrigger, MapTrigger, StartTrigger])
def test_every_argument_of_a_trigger_is_read(trigger: Any) -> None:
    """An argument that is only kept and stored has no effect."""
    classes = [each for each in trigger.__mro__ if trigger_eligibility.is_ours(each)]
    methods = [
        method
        for each in classes
        for method in ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    read = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for method in methods
        for statement in method.body
        if not keeps(statement, trigger.argument_names)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    assert set(trigger.argument_names) - read == set()


def test_a_parameter_that_is_kept_and_ignored_is_found(run: Any) -> None:
    """A row could only look at the attribute of such a parameter."""

    class Ignoring(BatchJobOperator):
        def __init__(self, *, colour: str = "", **given: Any) -> None:
            super().__init__(**given)
            self.colour = colour

    BASE[Ignoring] = BASE[BatchJobOperator]
    try:
        with pytest.raises(AssertionError, match="and no effect"):
            test_a_parameter_has_its_effect(
                run, Ignoring, "colour", HasEffect("red", lambda seen: seen.task.colour, "red")
            )
    finally:
        del BASE[Ignoring]


@pytest.mark.parametrize(("kind", "name", "row"), cases(Rejected))
def test_a_parameter_without_effect_is_rejected_by_name(run: Any, kind: Any, name: str, row: Rejected) -> None:
    """The error has the reason, and no job is started."""
    seen = run(kind, {**BASE[kind], name: row.value}, row)
    assert isinstance(seen.result, InvalidParameter)
    assert str(seen.result).startswith(f"{name}=")
    assert row.why in str(seen.result)
    assert seen.aws.calls == []


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (BatchJobOperator, {"container_name": "nope"}),
        (BatchMapOperator, {"container_name": "nope"}),
        (FargateTaskOperator, {"container_name": "nope"}),
        (FargateMapOperator, {"container_name": "nope"}),
        (FargateMapOperator, {"items": [{}, {"container_name": "nope"}]}),
    ],
)
def test_an_unknown_container_is_rejected_by_name(
    run: Any, monkeypatch: pytest.MonkeyPatch, kind: Any, given: dict[str, Any]
) -> None:
    """The error has the existing names, and no job is started."""
    containers = [{"name": "main"}, {"name": "side"}]
    definition = {"ecsProperties": {"taskProperties": [{"containers": containers}]}, "revision": 1}
    monkeypatch.setattr(ScriptedAws, "describe_job_definitions", lambda *_, **__: {"jobDefinitions": [definition]})
    seen = run(kind, {**BASE[kind], **given}, Rejected("nope", ""))
    assert str(seen.result) == "container_name='nope': must be one of the named containers of d, which has main, side"
    assert not any(seen.aws.sent(operation) for operation in ("submit_job", "run_task"))


@pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("value", [False, 0, "0", "False", "None", "", None])
def test_an_empty_template_is_not_rejected(run: Any, kind: Any, value: Any) -> None:
    """``{{ params.redrive }}`` may render to an empty value."""
    assert run(kind, {**BASE[kind], "redrive": value}, Rejected(value, "")).trigger


@pytest.mark.parametrize("name", ["redrive", "tolerated_failure_count", "tolerated_failure_percentage"])
def test_a_batch_job_that_is_not_an_array_rejects_parameters_of_arrays(run: Any, name: str) -> None:
    """Other operators of single jobs reject them too."""
    seen = run(BatchJobOperator, {**BASE[BatchJobOperator], name: 1}, Rejected(1, ""))
    assert isinstance(seen.result, InvalidParameter)
    assert str(seen.result).startswith(f"{name}=")


@pytest.mark.parametrize("kind", SENSORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ["mode", "exponential_backoff", "max_wait", "silent_fail"])
@pytest.mark.needs("starts")
def test_a_sensor_with_a_rejected_parameter_starts_on_a_worker(kind: Any, name: str) -> None:
    """Only a worker checks parameters; the triggerer would ignore it."""
    assert kind(task_id="t", **BASE[kind]).start_from_trigger
    assert not kind(task_id="t", **BASE[kind], **{name: ROWS[kind][name].value}).start_from_trigger
