"""Which shared parameters contradict what an operator starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_jobflow import params
from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.jobs.results import LOG
from airflow_jobflow.operators import change_rules, exit_codes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_jobflow.operators.execution import Execution
    from airflow_jobflow.operators.spec import JobSpec, MapSpec

OF_ARRAYS = dict.fromkeys(
    ("redrive", "tolerated_failure_count", "tolerated_failure_percentage"),
    "applies only to arrays and maps, and this operator runs a single job; remove it",
)
"""Parameters that a single job rejects, each with the reason."""


def check_job(task: Any, execution: Execution[JobSpec]) -> None:
    """Reject what does not apply to a job or an array.

    :param task: the operator, after rendering.
    :param execution: its execution.
    :raises InvalidParameter: there is such a parameter.
    """
    change_rules.check(task, execution.spec.changes)
    exit_codes.check(task, execution.given)
    if execution.spec.is_array:
        params.reject(task, exit_codes.NOT_FOR_ARRAYS)
        reject_log_result(task, execution, whole="an array", part="child")
    else:
        params.reject(task, OF_ARRAYS)
    if task.result is not None and not task.wait_for_completion:
        raise invalid_parameter(
            "result", task.result, "needs wait_for_completion=True, because the result is read when the job has ended"
        )


def reject_for_map(task: Any, not_honoured: Mapping[str, str]) -> None:
    """Reject what has no meaning for a map.

    :param task: the operator, after rendering.
    :param not_honoured: further parameters that have no effect, each with the reason.
    :raises InvalidParameter: there is such a parameter.
    """
    if not task.wait_for_completion:
        rule = "a map starts jobs as others end, so it has to wait"
        raise invalid_parameter("wait_for_completion", False, rule)
    if task.queued_timeout is not None:
        rule = "a map has no queue timeout; use job_timeout"
        raise invalid_parameter("queued_timeout", task.queued_timeout, rule)
    if not task.durable:
        rule = "a map finds its jobs by their tokens, so it is always durable"
        raise invalid_parameter("durable", False, rule)
    no_logs = {"number_logs_success": "a map copies no logs of successful items"}
    params.reject(task, {**not_honoured, **exit_codes.NOT_FOR_MAPS, **no_logs})


def check_map(task: Any, execution: Execution[MapSpec]) -> None:
    """Reject what does not apply to a map.

    :param task: the operator, after rendering.
    :param execution: its execution.
    :raises InvalidParameter: there is such a parameter.
    """
    if execution.given.get("item_attempts", 1) > 1 and not execution.spec.changes:
        rule = "has no effect, because no parameter such as on_out_of_memory says when an item is started again"
        raise invalid_parameter("item_attempts", task.item_attempts, rule)
    reject_log_result(task, execution, whole="a map", part="item")


def reject_log_result(task: Any, execution: Execution[Any], *, whole: str, part: str) -> None:
    """Reject ``result="log"`` for several jobs, because each of them has a log of its own.

    :param task: the operator, after rendering.
    :param execution: its execution.
    :param whole, part: what messages call the jobs together, and one of them.
    :raises InvalidParameter: it is set.
    """
    if execution.record.inputs.result == LOG:
        rule = f"must be an address in S3 for {whole}, because each {part} has a log of its own"
        raise invalid_parameter("result", task.result, rule)
