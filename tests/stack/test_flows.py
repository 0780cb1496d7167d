"""The four sample flows on a whole Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from airflow_jobflow.local.glue.samples import CRAWLER, JOB
from airflow_jobflow.local.samples import BUCKET, COLORS
from tests.stack.errors import eventually
from tests.stack.kit import ENDED, Kit, Run
from tests.stack.verdicts import DUPLICATE, ORPHAN, WRONG, breaches, duplicates

GLUE: Final = "glue_crawler_then_job"
ITEMS: Final = {
    "fargate_map": ["item-01", "broken-item", "item-03"],
    "fargate_map_expand": ["item-11", "broken-item", "item-13"],
}
"""The variants of the third flow; some items have no input."""


class Flows:
    """A run of each flow, all at the same time."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.tasks_before = len(kit.aws.started("ecs"))
        self.one = kit.run("batch_job_status_poller", jobName="flow-1", wait_time=1)
        self.two = kit.run("batch_array_notify", jobName="flow-2", jobDefinition="print-color-failing", wait_time=1)
        self.three = [kit.run(form, parameter=items, wait_time=1) for form, items in ITEMS.items()]
        self.four = kit.run(GLUE, wait_time=1, polls=60)


@pytest.fixture(scope="module")
def flows(running: Kit) -> Iterator[Flows]:
    """All flows, on a stack that is repaired afterwards."""
    yield Flows(running)
    running.restore()
    assert duplicates(running) == []


def test_the_stack_is_healthy(flows: Flows) -> None:
    """Every healthcheck succeeds, both triggerers are alive, and every DAG can be imported."""
    flows.kit.stack.await_healthy()
    eventually(lambda: flows.kit.airflow.alive("TriggererJob") == 2, "two triggerers alive, and none that was")
    assert flows.kit.airflow.import_errors() == []


def test_flow_1_runs_its_job(flows: Flows) -> None:
    """After submit and wait, the branch that is not chosen is skipped."""
    run, ledger = flows.one, flows.kit.ledger
    assert run.ends() == "success"
    assert run.states == {
        "run_job": "success",
        "job_complete": "success",
        "get_final_job_status": "success",
        "job_failed": "skipped",
    }
    outcome = run.returned("run_job")
    assert "Hello world" in ledger.log(outcome)
    assert [each.job_id for each in ledger.started("flow-1")] == [outcome["job_id"]]


def test_flow_2_notifies_once(flows: Flows) -> None:
    """A failed child is notified once, and fails the run."""
    run = flows.two
    assert run.ends() == "failed"
    assert run.states == {"print_colors": "success", "notify_once": "failed"}
    notified = [line for line in run.log("notify_once").splitlines() if line.startswith("Notification: ")]
    assert len(notified) == 1
    assert f"{len(COLORS) - 1} of {len(COLORS)} succeeded, failed: [3]" in notified[0]
    assert len(flows.kit.ledger.started("flow-2")) == 1


def test_flow_3_has_a_result_for_each_item(flows: Flows) -> None:
    """A failed item does not stop the others, in any variant."""
    assert [run.ends() for run in flows.three] == ["success", "success"]
    aws = flows.kit.aws
    for run in flows.three:
        items = ITEMS[run.dag_id]
        results: list[dict[str, Any]] = run.returned("results")
        assert [(each["item"], each["result"]) for each in results] == list(
            zip(items, ("Success", "Fail", "Success"), strict=True)
        )
        assert aws.client("s3").get_object(Bucket=BUCKET, Key=f"fargate_map/output/{items[-1]}.json")
    assert len(aws.started("ecs")) - flows.tasks_before == sum(map(len, ITEMS.values()))


def test_flow_4_crawls_then_runs(flows: Flows) -> None:
    """The job reads the table that the crawl has created."""
    run = flows.four
    assert run.ends() == "success"
    assert run.states["run_final_glue_job"] == "success"
    eventually(lambda: set(flows.kit.airflow.runs(GLUE).values()) <= set(ENDED), "the end of the run of the schedule")
    runs = [Run(flows.kit, GLUE, run_id) for run_id in flows.kit.airflow.runs(GLUE)]
    crawls = {each.returned("crawl")["details"]["crawl_id"] for each in runs}
    jobs = {each.returned("run_final_glue_job")["job_id"] for each in runs}
    assert len(crawls) == len(jobs) == len(runs)
    noted = [each for each in flows.kit.aws.started("glue") if {JOB, CRAWLER} & set(each.values())]
    assert sorted(each.get("run_id") or each["crawl_id"] for each in noted) == sorted(crawls | jobs)
    output = flows.kit.aws.client("s3").list_objects_v2(Bucket="test-glue00", Prefix="se2/out0")["Contents"]
    assert any(each["Key"].endswith(".parquet") for each in output)


def test_the_checks_find_breaches(kit: Kit) -> None:
    """The checks of all other tests find a job too many, a job that keeps running, and a failed one."""
    run = kit.run("stack_batch_again", seconds=1, code=3)
    run.ends()
    kit.aws.client("batch").submit_job(
        jobName=f"{run.token}too-many",
        jobQueue="hello-world-queue",
        jobDefinition="hello-world",
        containerOverrides={"command": ["sleep", "60"]},
    )
    assert [each.kind for each in breaches(kit, run)] == [WRONG, DUPLICATE, ORPHAN]
