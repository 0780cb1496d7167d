"""A map's trigger where time works against it: what AWS forgets, what is not shown yet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom

from airflow_jobflow.jobs import ecs_map
from airflow_jobflow.jobs.packing import pack
from airflow_jobflow.local import LocalAws, Settings
from airflow_jobflow.triggers import map_run
from airflow_jobflow.triggers.map import MapTrigger
from tests.local.conftest import EcsKit
from tests.local.maps import again, dies


@pytest.fixture
def forgetful(here: Callable[[Any], None]) -> Iterator[EcsKit]:
    """A cluster of an AWS that forgets a stopped task after two seconds."""
    with LocalAws(settings=Settings(time_scale=0.01, stopped_visible=200)) as server:
        here(server)
        yield EcsKit(server)


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The XComs of all tasks, as there is no Airflow to keep them."""
    kept: dict[str, Any] = {}

    def publish(key: str, value: Any, **_: Any) -> None:
        kept[key] = json.loads(json.dumps(value))

    monkeypatch.setattr(XCom, "set", publish)
    monkeypatch.setattr(XCom, "get_one", lambda key, **_: kept.get(key))
    return kept


def a_map(kit: EcsKit, script: str, size: int) -> MapTrigger:
    """A trigger that runs a script for each item, in a triggerer."""
    definition = kit.define(kit.container(["sh", "-c", script]))
    requests = [ecs_map.item(kit.request(taskDefinition=definition), "main", index, {}) for index in range(size)]
    return in_a_triggerer(
        MapTrigger(
            service="ecs",
            scope=kit.cluster,
            family=ecs_map.family(kit.cluster, "0123abcd", "retry"),
            size=size,
            indexes=f"0-{size - 1}",
            requests=pack(json.dumps(request) for request in requests),
            aws_conn_id=None,
            poll_interval=0.2,
        )
    )


def in_a_triggerer(trigger: MapTrigger) -> MapTrigger:
    """Let a trigger know whose it is."""
    trigger._task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)
    return trigger


def test_what_aws_has_forgotten_is_not_run_again(
    forgetful: EcsKit, gate: Any, xcoms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trigger that follows a crash knows from its predecessor's notes what had ended."""
    monkeypatch.setattr(ecs_map, "CHECKPOINT", 0.2)
    monkeypatch.setattr(map_run, "AGREEING", 0.1)
    script = (
        f'test $JOBFLOW_MAP_INDEX = 0 || while [ ! -e {gate} ]; do sleep 0.02; done; test "$JOBFLOW_MAP_INDEX" != 2'
    )
    trigger = a_map(forgetful, script, 3)
    asyncio.run(dies(forgetful, trigger, lambda: bool(xcoms) and "S" in json.dumps(decoded(xcoms))))
    stopped = next(iter(forgetful.listed(desiredStatus="STOPPED")))
    forgetful.eventually(lambda: stopped not in forgetful.listed(desiredStatus="STOPPED"), "that it is forgotten")
    gate.touch()
    event = asyncio.run(in_a_triggerer(again(trigger)).wait())
    assert event["statuses"] == "SSF"
    assert len(forgetful.aws.started("ecs")) == 3


def decoded(xcoms: dict[str, Any]) -> list[str]:
    """How all items stood at each note."""
    from airflow_jobflow.jobs.packing import unpack

    return [unpack(value["packed"])[0] for value in xcoms.values()]


def test_notes_that_cannot_be_kept_do_not_end_the_map(
    forgetful: EcsKit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever an XCom backend raises."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no XComs today")

    monkeypatch.setattr(XCom, "set", fail)
    monkeypatch.setattr(XCom, "get_one", fail)
    monkeypatch.setattr(ecs_map, "CHECKPOINT", 0.1)
    monkeypatch.setattr(map_run, "AGREEING", 0.1)
    event = asyncio.run(a_map(forgetful, "sleep 0.3", 2).wait())
    assert event["statuses"] == "SS"
    assert "no XComs today" in caplog.text
