"""The ends of arrays start a DAG, by way of EventBridge, SQS and a watcher in a triggerer: each is notified once."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

from airflow_jobflow.local.samples import ARRAY_EVENTS
from airflow_jobflow.triggers.state_queue import GAP, HIDDEN
from tests.stack.errors import eventually
from tests.stack.kit import ENDED, STATE_PATIENCE, Kit

DAG: Final = "batch_array_event"
NOTIFICATION: Final = re.compile(r"^Notification: .* \((\S+)\)$", re.MULTILINE)
PATIENCE: Final = 2 * (GAP + STATE_PATIENCE)
"""Seconds in which an end is notified: one that comes close after another waits, and so may the run."""
TRIGGERERS: Final = (1, 2)


class Arrays:
    """Arrays that a test starts past Airflow, and what has been notified of them."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._batch, self._sqs = kit.aws.client("batch"), kit.aws.client("sqs")

    def start(self, definition: str = "print-color", size: int = 2) -> str:
        """Start one; its id."""
        job = {"jobName": "array-event", "jobQueue": "print-color-queue", "jobDefinition": definition}
        return str(self._batch.submit_job(**job, arrayProperties={"size": size})["jobId"])

    def end(self, *job_ids: str) -> None:
        """Wait until they have."""

        def all_ended() -> bool:
            jobs = self._batch.describe_jobs(jobs=list(job_ids))["jobs"]
            return all(job["status"] in ("SUCCEEDED", "FAILED") for job in jobs)

        eventually(all_ended, f"the end of {job_ids}")

    @property
    def left(self) -> int:
        """Messages in the queue, hidden ones included."""
        url = self._sqs.get_queue_url(QueueName=ARRAY_EVENTS)["QueueUrl"]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def notified(self) -> Counter[str]:
        """How often each array was notified of, in all runs of the DAG."""
        return Counter(job_id for run in self._runs() for line in self._logs(run) for job_id in line)

    def settle(self, *job_ids: str) -> Counter[str]:
        """Wait until all were notified of, and nothing more can come; return how often each was."""
        what = f"a notification of each of {job_ids}"
        eventually(lambda: set(job_ids) <= set(self.notified()), what, PATIENCE + HIDDEN)
        eventually(lambda: not self.left, "an empty queue", 2 * HIDDEN)
        eventually(lambda: all(run["state"] in ENDED for run in self._runs()), "the end of all runs")
        return Counter({job_id: number for job_id, number in self.notified().items() if job_id in job_ids})

    def _runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._kit.airflow._ask("GET", f"dags/{DAG}/dagRuns?limit=100")["dag_runs"]
        return found

    def _logs(self, run: dict[str, Any]) -> list[list[str]]:
        run_id, airflow = run["dag_run_id"], self._kit.airflow
        mapped = [each for each in airflow.instances(DAG, run_id) if each["task_id"] == "notify_once"]
        return [
            NOTIFICATION.findall(airflow.log(DAG, run_id, "notify_once", each["try_number"], each["map_index"]))
            for each in mapped
            if each["map_index"] >= 0 and each["state"] == "success"
        ]


def test_every_array_is_notified_once(kit: Kit) -> None:
    """Good and bad, also those that end at the same time; of their children none is."""
    arrays = Arrays(kit)
    job_ids = [arrays.start(), arrays.start("print-color-failing", 7), arrays.start(size=3)]
    assert arrays.settle(*job_ids) == dict.fromkeys(job_ids, 1)


def test_what_ends_while_no_triggerer_lives_is_notified_once(kit: Kit) -> None:
    """Messages wait in the queue; what was told before the triggerers died is not told again."""
    arrays = Arrays(kit)
    before = arrays.start()
    assert arrays.settle(before) == {before: 1}
    for number in TRIGGERERS:
        kit.stack.kill("triggerer", number)
    meanwhile = [arrays.start() for _ in range(2)]
    arrays.end(*meanwhile)
    kit.stack.repair()
    job_ids = [before, *meanwhile]
    assert arrays.settle(*job_ids) == dict.fromkeys(job_ids, 1)


def test_a_delivery_that_is_doubled_is_notified_once(kit: Kit) -> None:
    """The asset's state store knows it, also in another triggerer."""
    arrays = Arrays(kit)
    sqs = kit.aws.client("sqs")
    copies = sqs.create_queue(QueueName="copies")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=copies, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    kit.aws.client("events").put_targets(Rule=ARRAY_EVENTS, Targets=[{"Id": "copies", "Arn": arn}])
    job_id = arrays.start()
    assert arrays.settle(job_id) == {job_id: 1}
    messages = sqs.receive_message(QueueUrl=copies, MaxNumberOfMessages=10)["Messages"]
    [body] = [each["Body"] for each in messages if job_id in each["Body"]]
    kit.aws.client("events").remove_targets(Rule=ARRAY_EVENTS, Ids=["copies"])
    queue = sqs.get_queue_url(QueueName=ARRAY_EVENTS)["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody=body)
    assert arrays.settle(job_id) == {job_id: 1}
    for number in TRIGGERERS:
        kit.stack.kill("triggerer", number)
    sqs.send_message(QueueUrl=queue, MessageBody=body)
    kit.stack.repair()
    assert arrays.settle(job_id) == {job_id: 1}
