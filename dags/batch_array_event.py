"""### Notify once when an AWS Batch array job ends, whoever started it

Flow 2, **Notify once when an array job ends**, as a separate DAG that is scheduled by the event.

- An EventBridge rule sends the state changes of Batch jobs to a queue. A watcher in the triggerer selects the ends of
  whole arrays, successful or failed, and ignores their children.
- Each end starts a run. Ends that arrive close together share a run, which still sends one notification for each.
- The queue is the one that `infra/jobflow.yaml` creates for asset watchers: set `JOBFLOW_ARRAY_EVENTS_QUEUE_URL` in
  Airflow's environment to its URL.
- Replace `notify` with what your team uses, such as a message to Slack, SNS or e-mail.
- To try it out, trigger a run with a recorded EventBridge event as `event`.
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
    """Send a notification. Replace this with your own implementation."""
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
            description="A recorded EventBridge event, to try this out; scheduled runs have their own events",
        ),
    },
)
def batch_array_event() -> None:
    """Send a notification for each array that has ended."""

    @task
    def arrays_ended(triggering_asset_events: Any = None, params: Any = None) -> list[dict[str, Any]]:
        payloads = [event.extra.get("payload") or {} for event in triggering_asset_events[ARRAY_ENDS]]
        if params["event"]:
            payloads.append(ENDS.payload([params["event"]]))
        # By key, so that an end that was delivered twice counts once.
        arrays = list({array["key"]: array for each in payloads for array in each.get("jobs", [])}.values())
        if not arrays:
            log.info("No array has ended: this run was triggered manually. Pass a recorded event to see a notification")
        return arrays

    @task(retries=2, retry_delay=timedelta(minutes=1))
    def notify_once(array: dict[str, Any]) -> None:
        counts = array["array"]  # AWS's counts may lag behind the state
        message = f"{array['name']} {array['state']}: {counts['succeeded']} of {counts['size']} succeeded"
        message += f", {counts['failed']} failed" if counts["failed"] else ""
        notify(f"{message} ({array['job_id']})")

    arrays = arrays_ended()
    arrays >> Label("for each end") >> notify_once.expand(array=arrays)


batch_array_event()
