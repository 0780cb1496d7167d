"""Parameters that native rendering has given another type: they are converted for AWS, or rejected by name."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from airflow_jobflow import params_json
from airflow_jobflow.exceptions import InvalidParameter
from airflow_jobflow.operators import batch_parameters, ecs_parameters, glue_spec
from airflow_jobflow.operators.batch import BatchJobOperator, BatchMapOperator
from airflow_jobflow.operators.ecs import FargateMapOperator, FargateTaskOperator
from airflow_jobflow.operators.glue import GlueJobRunOperator
from tests.unit.scripted_aws import map_requests

BATCH: dict[str, Any] = {"task_id": "t", "job_name": "n", "job_queue": "q", "job_definition": "d"}
ECS: dict[str, Any] = {
    "task_id": "t",
    "cluster": "c",
    "task_definition": "d",
    "subnets": ["s"],
    "container_name": "main",
}


def batch(**given: Any) -> dict[str, Any]:
    """Return the SubmitJob request."""
    return BatchJobOperator(**{**BATCH, **given})._job_spec().request


def ecs(**given: Any) -> dict[str, Any]:
    """Return the RunTask request."""
    task = FargateTaskOperator(**{**ECS, **given})
    parameters = task._job_spec().parameters
    return parameters.request(parameters.values, "main")


def glue(**given: Any) -> dict[str, Any]:
    """Return the StartJobRun request."""
    return GlueJobRunOperator(task_id="t", job_name="j", **given)._job_spec().request


def batch_item(**item: Any) -> dict[str, Any]:
    """Return the SubmitJob request of a map's item."""
    task = BatchMapOperator(**{**BATCH, "items": [item]})
    return map_requests(task)[0]


def ecs_item(**item: Any) -> dict[str, Any]:
    """Return the RunTask request of a map's item."""
    task = FargateMapOperator(**{**ECS, "items": [item]})
    return map_requests(task)[0]


def member(request: Any, path: str) -> Any:
    """Return the member of a request at a path; a list of names and values is read as a dict."""
    for step in path.split("."):
        request = request[int(step)] if step.isdecimal() else request[step]
        if isinstance(request, list) and request and isinstance(request[0], dict) and "value" in request[0]:
            request = {each.get("name", each.get("key", each.get("type"))): each["value"] for each in request}
    return request


VARIABLES = "containerOverrides.environment"
ECS_VARIABLES = "overrides.containerOverrides.0.environment"


def pairs(value: Any) -> list[dict[str, Any]]:
    """Return one variable in AWS's format."""
    return [{"name": "K", "value": value}]


STRING_MAPS: dict[str, tuple[Callable[..., Any], Callable[[Any], dict[str, Any]], str]] = {
    "batch environment": (batch, lambda value: {"environment": {"K": value}}, f"{VARIABLES}.K"),
    "batch parameters": (batch, lambda value: {"parameters": {"K": value}}, "parameters.K"),
    "batch tags": (batch, lambda value: {"tags": {"K": value}}, "tags.K"),
    "batch container_overrides": (
        batch,
        lambda value: {"container_overrides": {"environment": pairs(value)}},
        f"{VARIABLES}.K",
    ),
    "batch node_overrides": (
        batch,
        lambda value: {
            "node_overrides": {
                "nodePropertyOverrides": [
                    {"targetNodes": "0:", "containerOverrides": {"environment": pairs(value)}},
                ]
            }
        },
        f"nodeOverrides.nodePropertyOverrides.0.{VARIABLES}.K",
    ),
    "batch ecs_properties_override": (
        batch,
        lambda value: {
            "ecs_properties_override": {
                "taskProperties": [{"containers": [{"name": "a", "environment": pairs(value)}]}]
            }
        },
        "ecsPropertiesOverride.taskProperties.0.containers.0.environment.K",
    ),
    "batch eks_properties_override": (
        batch,
        lambda value: {"eks_properties_override": {"podProperties": {"metadata": {"labels": {"K": value}}}}},
        "eksPropertiesOverride.podProperties.metadata.labels.K",
    ),
    "batch item environment": (batch_item, lambda value: {"environment": {"K": value}}, f"{VARIABLES}.K"),
    "batch item parameters": (batch_item, lambda value: {"parameters": {"K": value}}, "parameters.K"),
    "batch item tags": (batch_item, lambda value: {"tags": {"K": value}}, "tags.K"),
    "fargate environment": (ecs, lambda value: {"environment": {"K": value}}, f"{ECS_VARIABLES}.K"),
    "fargate tags": (ecs, lambda value: {"tags": {"K": value}}, "tags.K"),
    "fargate overrides": (
        ecs,
        lambda value: {"overrides": {"containerOverrides": [{"name": "main", "environment": pairs(value)}]}},
        f"{ECS_VARIABLES}.K",
    ),
    "fargate item environment": (ecs_item, lambda value: {"environment": {"K": value}}, f"{ECS_VARIABLES}.K"),
    "fargate item tags": (ecs_item, lambda value: {"tags": {"K": value}}, "tags.K"),
    "glue script_args": (glue, lambda value: {"script_args": {"--K": value}}, "Arguments.--K"),
    "glue run_job_kwargs": (
        glue,
        lambda value: {"run_job_kwargs": {"Arguments": {"--K": value}}},
        "Arguments.--K",
    ),
}
"""Every map of strings that reaches AWS: how it is built, set, and found in the request."""

TEXTS = [
    ("20260101", "20260101"),
    (20260101, "20260101"),
    (-1.5, "-1.5"),
    (Decimal("1.50"), "1.50"),
    (True, "true"),
    (False, "false"),
    ("", ""),
    ("None", "None"),
    ("True", "True"),
    ({"a": [1, None, True]}, '{"a": [1, null, true]}'),
    ([], "[]"),
    (("ä", {2: {"b": date(2026, 1, 2)}}), '["ä", {"2": {"b": "2026-01-02"}}]'),
    (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02 03:00:00+00:00"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS, ids=repr)
@pytest.mark.parametrize("where", STRING_MAPS)
def test_a_value_of_a_string_map_arrives_as_text(where: str, value: Any, text: str) -> None:
    """AWS rejects other types, and a container cannot read Python's notation."""
    build, given, path = STRING_MAPS[where]
    assert member(build(**given(value)), path) == text


@pytest.mark.parametrize(
    "value",
    [None, b"bytes", object(), {"a": {"b": object()}}, {"a": {None: 1}}, {1, 2}],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),
)
@pytest.mark.parametrize("where", STRING_MAPS)
def test_a_value_without_a_text_is_rejected_and_its_key_is_named(where: str, value: Any) -> None:
    """A variable with the text None is worse than a task that does not start."""
    build, given, _ = STRING_MAPS[where]
    with pytest.raises(InvalidParameter, match="K'") as error:
        build(**given(value))
    assert next(iter(given(value))) in str(error.value)


def test_every_string_map_of_every_operator_is_tested() -> None:
    """This includes the parameters of items."""
    tables = {
        "batch": batch_parameters.PARAMETERS,
        "fargate": ecs_parameters.FARGATE_PARAMETERS,
        "glue": glue_spec.RUN_PARAMETERS,
    }
    of_string_maps = [
        (of, name, row.in_item)
        for of, table in tables.items()
        for name, row in table.items()
        if row.check is params_json.string_map
    ]
    maps = {f"{of} {name}" for of, name, _ in of_string_maps}
    maps |= {f"{of} item {name}" for of, name, in_item in of_string_maps if in_item}
    assert maps <= STRING_MAPS.keys()
    assert len(maps) >= 10


def test_the_message_for_none_says_what_to_look_for() -> None:
    """It names the variable, the parameter and the cause."""
    with pytest.raises(InvalidParameter) as error:
        batch(container_overrides={"environment": [{"name": "A", "value": "1"}, {"name": "DAY", "value": None}]})
    said = "container_overrides.environment['DAY'].value=None: must have a value (did a template render to None?)"
    assert str(error.value) == said


@pytest.mark.parametrize("key", [None, "", ("a",)])
def test_a_key_must_be_text(key: Any) -> None:
    """AWS would reject the whole request."""
    with pytest.raises(InvalidParameter, match="tags="):
        batch(tags={key: "a"})
    assert batch(tags={2026: "a", True: "b"})["tags"] == {"2026": "a", "true": "b"}


def test_elements_of_a_command_become_text() -> None:
    """A day is a number under native rendering."""
    assert batch(command=["run", 20260101, True, {"a": 1}])["containerOverrides"]["command"] == [
        "run",
        "20260101",
        "true",
        '{"a": 1}',
    ]
    with pytest.raises(InvalidParameter, match=r"command\[1\]=None"):
        batch(command=["run", None])
    with pytest.raises(InvalidParameter, match=r"security_groups\[0\]=None"):
        ecs(security_groups=[None])


def test_text_is_converted_to_the_type_of_the_parameter() -> None:
    """Without native rendering, templates return text."""
    request = batch(
        retry_strategy={"attempts": "3", "evaluateOnExit": '[{"onExitCode": 137, "action": "RETRY"}]'},
        container_overrides={"vcpus": "2", "resourceRequirements": [{"type": "MEMORY", "value": 2048}]},
    )
    assert request["retryStrategy"] == {"attempts": 3, "evaluateOnExit": [{"onExitCode": "137", "action": "RETRY"}]}
    assert request["containerOverrides"] == {
        "vcpus": 2,
        "resourceRequirements": [{"type": "MEMORY", "value": "2048"}],
    }
    request = ecs(
        overrides={"cpu": 512, "ephemeralStorage": {"sizeInGiB": "30"}},
        capacity_provider_strategy=[{"capacityProvider": "FARGATE_SPOT", "weight": "1"}],
        volume_configurations=[
            {"name": "data", "managedEBSVolume": {"roleArn": "r", "sizeInGiB": "20", "encrypted": "true"}}
        ],
    )
    assert request["overrides"] == {"cpu": "512", "ephemeralStorage": {"sizeInGiB": 30}}
    assert request["capacityProviderStrategy"] == [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    assert request["volumeConfigurations"][0]["managedEBSVolume"]["encrypted"] is True
    assert glue(run_job_kwargs={"NotificationProperty": {"NotifyDelayAfter": "5"}})["NotificationProperty"] == {
        "NotifyDelayAfter": 5
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retry_strategy": {"attempts": "many"}}, "retry_strategy.attempts='many': must be a number"),
        ({"retry_strategy": {"attempts": 1.5}}, "retry_strategy.attempts=1.5: must be a whole number"),
        ({"retry_strategy": {"attempts": None}}, "retry_strategy.attempts=None: must be a number"),
        ({"retry_strategy": {"Attempts": 1}}, "AWS has no member 'Attempts' here; there are attempts, evaluateOnExit"),
        (
            {"container_overrides": {"environment": {"A": 1}}},
            "container_overrides.environment={'A': 1}: must be a list",
        ),
        ({"container_overrides": {"environment": ["A=1"]}}, "container_overrides.environment[0]='A=1': must be a dict"),
    ],
    ids=str,
)
def test_the_error_for_a_wrong_type_names_its_path(given: dict[str, Any], message: str) -> None:
    """Nothing is sent before."""
    with pytest.raises(InvalidParameter) as error:
        batch(**given)
    assert message in str(error.value)


@pytest.mark.parametrize("value", ["['a']", "('a', 'b')", " ['a', None]\n"])
@pytest.mark.parametrize("parameter", ["subnets", "command", "volume_configurations"])
def test_a_list_in_pythons_notation_is_rejected_with_advice(parameter: str, value: str) -> None:
    """The text looks correct, so the message must say what is wrong with it."""
    with pytest.raises(InvalidParameter, match=f"{parameter}=") as error:
        ecs(**{parameter: value})
    assert "tojson" in str(error.value)
    assert "render_template_as_native_obj=True" in str(error.value)


@pytest.mark.parametrize("value", ["{'A': 'b'}", "{'A'}"])
def test_a_dict_in_pythons_notation_is_rejected_with_advice(value: str) -> None:
    """The text looks correct, so the message must say what is wrong with it."""
    with pytest.raises(InvalidParameter, match=r"environment=.*tojson"):
        ecs(environment=value)


@pytest.mark.parametrize("value", [1, 2.5, "x", True, {"a": None}, ["b"], None], ids=repr)
def test_json_text_and_objects_are_equivalent(value: Any) -> None:
    """``tojson`` and native rendering have the same result."""
    given = {"K": value}
    if value is None:
        with pytest.raises(InvalidParameter, match=r"p\['K'\]=None"):
            params_json.string_map("p", json.dumps(given))
    else:
        assert params_json.string_map("p", json.dumps(given)) == params_json.string_map("p", given)
