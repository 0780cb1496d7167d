"""Flow 2's second variant: a DAG that the ends of arrays start. There is exactly one notification per array."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_jobflow.local import LocalAws
from airflow_jobflow.local.demo.scenarios import ARRAY_FAILED

DAG = "batch_array_event"
NOTIFIED = "print-color FAILED: 6 of 7 succeeded, 1 failed (4c7599ae-0a82-49aa-ba5a-4727fcce14a8)"


@pytest.fixture
def module(dags: Any) -> dict[str, Any]:
    """Return the module of the DAG's file."""
    found: dict[str, Any] = dags[DAG].get_task("arrays_ended").python_callable.__globals__
    return found


@pytest.fixture
def notifications(module: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the notifications, which are recorded instead of the callable that users replace."""
    told: list[str] = []
    monkeypatch.setitem(module, "notify", told.append)
    return told


def ended(job_id: str, **detail: Any) -> dict[str, Any]:
    """Return an event of EventBridge."""
    return {**ARRAY_FAILED, "id": f"event-{job_id}", "detail": {**ARRAY_FAILED["detail"], "jobId": job_id, **detail}}  # type: ignore[dict-item]


def test_a_recorded_event_is_notified(test_dag: Callable[..., Any], notifications: list[str]) -> None:
    """`airflow dags test` has no asset events, so the DAG is tried in this way."""
    run = test_dag(DAG, event=ARRAY_FAILED)
    assert run.state == "success"
    assert notifications == [NOTIFIED]


@pytest.mark.parametrize(
    "event",
    [
        None,
        ended("child", arrayProperties={"index": 3}),
        ended("plain", arrayProperties={}),
        ended("runs", status="RUNNING"),
        ended("other", jobDefinition="arn:aws:batch:us-east-1:1:job-definition/other:1"),
        {"source": "aws.ec2"},
    ],
)
def test_a_run_without_the_end_of_an_array_logs_that(
    test_dag: Callable[..., Any], notifications: list[str], event: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It neither fails nor notifies."""
    run = test_dag(DAG, event=event)
    assert run.state == "success"
    assert run.states == {"arrays_ended": "success", "notify_once": "skipped"}
    assert notifications == []
    assert "No array has ended" in caplog.text


def test_ends_that_share_a_run_are_notified_once_each(
    test_dag: Callable[..., Any], notifications: list[str], module: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes failures and repeated events; an asset event that a user created has no payload."""
    from airflow.models import dagrun
    from airflow.models.asset import AssetEvent, AssetModel
    from sqlalchemy import select

    good = ended("good", status="SUCCEEDED", arrayProperties={"size": 2, "statusSummary": {"SUCCEEDED": 2}})
    payloads = [module["ENDS"].payload(events) for events in ([ARRAY_FAILED, good], [good])]
    extras = [{"from_trigger": True, "payload": payload} for payload in payloads]
    create = dagrun.get_or_create_dagrun

    def with_events(**arguments: Any) -> Any:
        run, session = create(**arguments), arguments["session"]
        asset = session.scalars(select(AssetModel).where(AssetModel.name == "print_color_ends")).one()
        for extra in (*extras, {"from_rest_api": True}):
            run.consumed_asset_events.append(AssetEvent(asset_id=asset.id, extra=extra))
        session.commit()
        return run

    monkeypatch.setattr(dagrun, "get_or_create_dagrun", with_events)
    run = test_dag(DAG)
    assert run.state == "success"
    assert sorted(notifications) == [NOTIFIED, "print-color SUCCEEDED: 2 of 2 succeeded (good)"]
    assert run.states == {"arrays_ended": "success", "notify_once[0]": "success", "notify_once[1]": "success"}


def test_the_end_of_a_sample_array_reaches_the_watcher(
    module: dict[str, Any], samples: LocalAws, here: Callable[[Any], None]
) -> None:
    """The DAG names the queue that the samples and `infra/jobflow.yaml` create; children are ignored."""
    here(samples)
    trigger = module["ENDS"]
    samples.client("sqs").purge_queue(QueueUrl=trigger.queue_url)  # arrays of other tests have ended, too
    job = {"jobName": "mine", "jobQueue": "print-color-queue", "jobDefinition": "print-color-failing"}
    job_id = samples.client("batch").submit_job(**job, arrayProperties={"size": 4})["jobId"]

    async def first_of_it() -> Any:
        producer = trigger.create_shared_stream_producer(trigger.serialize()[1])
        try:
            async with asyncio.timeout(60):
                async for batch, _ in producer.open_stream():
                    assert all("size" in each["array"] for each in batch.jobs)
                    if found := [each for each in batch.jobs if each["job_id"] == job_id]:
                        return found
        finally:
            await producer.aclose()

    [array] = asyncio.run(first_of_it())
    assert (array["state"], array["array"]) == ("FAILED", {"size": 4, "succeeded": 3, "failed": 1})
    assert trigger._filter.matches(array)
