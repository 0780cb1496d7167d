"""The template on a local AWS, and what is asked of that AWS."""

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
    """The template, deployed to a local AWS whose crawls take a moment."""
    with LocalAws(settings=Settings(time_scale=0.01, stop_grace=5, crawl_seconds=2.0)) as aws:
        yield Stack(aws)


@pytest.fixture
def calls(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    """All calls that are made with boto3 sessions of the test's own, such as an operator's; not the stack's."""
    made: list[Call] = []

    def note(params: dict[str, object], model: object, **_: object) -> None:
        made.append(Call(model.service_model.service_name, model.name, dict(params)))  # type: ignore[attr-defined]

    def listen(session: object) -> None:
        session.register("before-parameter-build", note)  # type: ignore[attr-defined]

    monkeypatch.setattr(ecs, "_definitions", {})  # what one test has read, another would not ask for
    botocore.register_initializer(listen)
    yield made
    botocore.unregister_initializer(listen)
