"""The AWS actions that the package calls, by purpose, as faults of the local AWS name them."""

from __future__ import annotations

from typing import Final

from airflow_jobflow.local.faults import CannedResponse

STARTS: Final = ("batch.SubmitJob", "ecs.RunTask", "glue.StartJobRun", "glue.StartCrawler")
DESCRIBES: Final = ("batch.DescribeJobs", "ecs.DescribeTasks", "glue.GetJobRun", "glue.GetJobRuns", "glue.ListCrawls")
LISTS: Final = ("batch.ListJobs", "ecs.ListTasks")
STOPS: Final = ("batch.TerminateJob", "ecs.StopTask", "glue.BatchStopJobRun", "glue.StopCrawler")
TAGGING: Final = ("batch.TagResource", "ecs.TagResource", "glue.TagResource")


def wrapped_throttling(*actions: str, calls_per_second: float) -> tuple[CannedResponse, ...]:
    """Return faults that throttle like some of AWS's services: with another error code.

    :param actions: the actions to throttle because of a capacity limit. RunTask also fails because of its network.
    :param calls_per_second: how many of these actions succeed per second.
    """
    return (
        CannedResponse(
            "InvalidParameterException",
            "Error retrieving subnet information for [subnet-1]: Rate exceeded (ErrorCode: Throttling)",
            actions=("ecs.RunTask",),
        ),
        CannedResponse(
            "ClientException",
            "Tasks provisioning capacity limit exceeded.",
            actions=actions,
            calls_per_second=calls_per_second,
        ),
    )
