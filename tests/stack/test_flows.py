"""The four flows, as shipped, on a whole Airflow."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_jobflow.local.glue_samples import CRAWLER, JOB
from airflow_jobflow.local.samples import BUCKET, COLORS
from tests.stack.errors import eventually
from tests.stack.kit import ENDED, Kit
from tests.stack.verdicts import DUPLICATE, ORPHAN, WRONG, breaches


def test_the_stack_is_healthy(kit: Kit) -> None:
    """Every healthcheck of the file says so, both triggerers live, and every DAG can be read."""
    kit.stack.await_healthy()
    eventually(lambda: kit.airflow.alive("TriggererJob") == 2, "two triggerers alive, and none that was")
    assert kit.airflow.import_errors() == []


def test_flow_1_runs_its_job(kit: Kit) -> None:
    """Submit, wait, choose: the branch that is not taken is skipped."""
    run = kit.run("batch_job_status_poller", jobName="flow-1", wait_time=1)
    assert run.ends() == "success"
    assert run.states == {
        "run_job": "success",
        "job_complete": "success",
        "get_final_job_status": "success",
        "job_failed": "skipped",
    }
    outcome = run.returned("run_job")
    assert "Hello world" in kit.ledger.log(outcome)
    assert [each.job_id for each in kit.ledger.started("flow-1")] == [outcome["job_id"]]


def test_flow_2_notifies_once(kit: Kit) -> None:
    """A failed child is told of, once, and fails the run."""
    run = kit.run("batch_array_notify", jobName="flow-2", jobDefinition="print-color-failing", wait_time=1)
    assert run.ends() == "failed"
    assert run.states == {"print_colors": "success", "notify_once": "failed"}
    notified = [line for line in run.log("notify_once").splitlines() if line.startswith("Notification: ")]
    assert len(notified) == 1
    assert f"{len(COLORS) - 1} of {len(COLORS)} succeeded, failed: [3]" in notified[0]
    assert len(kit.ledger.started("flow-2")) == 1


@pytest.mark.parametrize("form", ["fargate_map", "fargate_map_expand"])
def test_flow_3_has_a_result_for_each_item(kit: Kit, form: str) -> None:
    """An item that fails stops no other."""
    items = ["item-01", "broken-item", "item-03"]
    before = len(kit.aws.started("ecs"))
    run = kit.run(form, parameter=items, wait_time=1)
    assert run.ends() == "success"
    results: list[dict[str, Any]] = run.returned("results")
    assert [(each["item"], each["result"]) for each in results] == list(
        zip(items, ("Success", "Fail", "Success"), strict=True)
    )
    assert len(kit.aws.started("ecs")) - before == len(items)
    assert kit.aws.client("s3").get_object(Bucket=BUCKET, Key="fargate_map/output/item-03.json")


def test_flow_4_crawls_then_runs(kit: Kit) -> None:
    """The job reads the table that the crawl has made."""
    dag_id = "glue_crawler_then_job"
    what = "the end of the run that its schedule has made"  # one runs at a time
    eventually(lambda: set(kit.airflow.run_states(dag_id)) <= set(ENDED), what)

    def started() -> list[str]:
        noted = [each for each in kit.aws.started("glue") if {JOB, CRAWLER} & set(each.values())]
        return [each.get("run_id") or each["crawl_id"] for each in noted]

    before = started()
    run = kit.run(dag_id, wait_time=1, polls=60)
    assert run.ends() == "success"
    assert run.states["run_final_glue_job"] == "success"
    mine = [run.returned("crawl")["details"]["crawl_id"], run.returned("run_final_glue_job")["job_id"]]
    assert started() == [*before, *mine]
    output = kit.aws.client("s3").list_objects_v2(Bucket="test-glue00", Prefix="se2/out0")["Contents"]
    assert any(each["Key"].endswith(".parquet") for each in output)


def test_what_must_not_be_is_noticed(kit: Kit) -> None:
    """Every other test of the stack is judged so: a job too many, one left running, and one that has failed."""
    run = kit.run("stack_batch_again", seconds=1, code=3)
    run.ends()
    kit.aws.client("batch").submit_job(
        jobName=f"{run.token}too-many",
        jobQueue="hello-world-queue",
        jobDefinition="hello-world",
        containerOverrides={"command": ["sleep", "60"]},
    )
    assert [each.kind for each in breaches(kit, run)] == [WRONG, DUPLICATE, ORPHAN]
