"""### Notify once when an AWS Batch array job ends, whoever started it

Flow 2, **Notify once when an array job ends**, as a DAG of its own that the event schedules.

- An EventBridge rule puts the state changes of Batch jobs into a queue; a watcher in the triggerer lets the ends of
  whole arrays through, success and failure alike, and none of their children.
- Each end starts a run; ends that come close together share one, with one notification for each of them all the same.
- The queue is the one that `infra/jobflow.yaml` makes for asset watchers: set `JOBFLOW_ARRAY_EVENTS_QUEUE_URL` in the
  environment of Airflow to its URL.
- Replace `notify` by what your team reads: a message to Slack, SNS or e-mail.
- To try it out, trigger a run with a recorded event of EventBridge as `event`.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetWatcher, Label, Param, dag, task

from airflow_jobflow.triggers.state_change import JobStateChangeTrigger

log = logging.getLogger(__name__)

QUEUE_URL = os.environ.get(
    "JOBFLOW_ARRAY_EVENTS_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/123456789012/jobflow-array-events"
)

ENDS = JobStateChangeTrigger(
    queue_url=QUEUE_URL,
    job_definition="print-color*",
    status=["SUCCEEDED", "FAILED"],
    array="parents",
)
ARRAY_ENDS = Asset("print_color_ends", watchers=[AssetWatcher(name="print_color_ends", trigger=ENDS)])


def notify(message: str) -> None:
    """Tell somebody; put your own way of doing so here."""
    log.info("Notification: %s", message)


@dag(
    schedule=ARRAY_ENDS,
    catchup=False,
    tags=["jobflow", "batch"],
    doc_md=__doc__,
    params={
        "event": Param(
            None,
            type=["null", "object"],
            description="A recorded event of EventBridge, to try this out with; runs of the schedule have their own",
        ),
    },
)
def batch_array_event() -> None:
    """Notify of each array that has ended."""

    @task
    def arrays_ended(triggering_asset_events: Any = None, params: Any = None) -> list[dict[str, Any]]:
        told = [event.extra.get("payload") or {} for event in triggering_asset_events[ARRAY_ENDS]]
        if params["event"]:
            told.append(ENDS.payload([params["event"]]))
        # By what an end is known: one that was delivered twice is in here once.
        arrays = list({array["key"]: array for each in told for array in each.get("jobs", [])}.values())
        if not arrays:
            log.info("No array has ended: this run was triggered by hand. Give it a recorded event to see it notify")
        return arrays

    @task(retries=2, retry_delay=timedelta(minutes=1))
    def notify_once(array: dict[str, Any]) -> None:
        counts = array["array"]  # AWS's, which may lag behind; the state does not
        message = f"{array['name']} {array['state']}: {counts['succeeded']} of {counts['size']} succeeded"
        message += f", {counts['failed']} failed" if counts["failed"] else ""
        notify(f"{message} ({array['job_id']})")

    arrays = arrays_ended()
    arrays >> Label("for each end") >> notify_once.expand(array=arrays)


batch_array_event()
