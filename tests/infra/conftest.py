"""The template on a local AWS, and the calls to that AWS."""

from __future__ import annotations

from collections.abc import Iterator

import botocore
import pytest

from airflow_jobflow.jobs import ecs
from airflow_jobflow.local import LocalAws, Settings
from tests.infra.deployment import Stack
from tests.infra.permissions import Call


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The template, deployed to a local AWS whose crawls take some seconds."""
    with LocalAws(settings=Settings(time_scale=0.01, stop_grace=5, crawl_seconds=2.0)) as aws:
        yield Stack(aws)


@pytest.fixture
def calls(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    """All calls with boto3 sessions of the test, such as those of an operator, without those of the stack."""
    made: list[Call] = []

    def note(params: dict[str, object], model: object, **_: object) -> None:
        made.append(Call(model.service_model.service_name, model.name, dict(params)))  # type: ignore[attr-defined]

    def listen(session: object) -> None:
        session.register("before-parameter-build", note)  # type: ignore[attr-defined]

    monkeypatch.setattr(ecs, "_definitions", {})  # what one test has cached, another would not request
    botocore.register_initializer(listen)
    yield made
    botocore.unregister_initializer(listen)
