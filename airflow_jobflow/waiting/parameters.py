"""The parameters that all operators and sensors share: validated, and as the types that are used."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow.sdk import conf

from airflow_jobflow import params, trigger_eligibility
from airflow_jobflow.waiting.deadlines import Deadlines

if TYPE_CHECKING:
    from airflow_jobflow.aws import Access

TEMPLATE_FIELDS: Final = (
    "aws_conn_id",
    "region_name",
    "verify",
    "botocore_config",
    "poll_interval",
    "job_timeout",
)
"""The shared parameters that are templated."""


class WaitingTask(Protocol):
    """An operator or a sensor; :class:`airflow_jobflow.operators.base.AwsJobOperator` documents the parameters."""

    aws_conn_id: str | None
    region_name: str | None
    verify: bool | str | None
    botocore_config: dict[str, Any] | None
    deferrable: bool | None
    poll_interval: float | str | timedelta | None
    job_timeout: float | str | timedelta | None
    number_logs_exception: int

    @property
    def execution_timeout(self) -> timedelta | None:
        """Airflow's own limit for the task."""


def check(task: WaitingTask) -> None:
    """Validate the shared parameters and the settings of ``[jobflow]``.

    :param task: the operator or sensor, after rendering.
    :raises InvalidParameter: one of them is wrong.
    """
    poll_interval(task)
    deadlines(task)
    if task.botocore_config is not None:
        params.mapping("botocore_config", task.botocore_config)
    for setting in ("describe_calls_per_second", "request_timeout", "event_poll_interval"):
        params.seconds(f"[jobflow] {setting}", conf.get("jobflow", setting))
    for setting in ("missing_grace", "denied_grace"):
        params.number(f"[jobflow] {setting}", conf.get("jobflow", setting), least=0)
    log_lines(task)
    params.one_of("[jobflow] end_in_trigger", trigger_eligibility.end_setting(), ("auto", "never"))
    setting = trigger_eligibility.start_setting()
    params.one_of("[jobflow] start_from_trigger", setting, trigger_eligibility.START_SETTINGS)


def poll_interval(task: WaitingTask) -> float:
    """Return the seconds between two describe calls for one job.

    :param task: the operator or sensor.
    :raises InvalidParameter: it is wrong.
    """
    if task.poll_interval is None:
        return params.seconds("[jobflow] poll_interval", conf.get("jobflow", "poll_interval"))
    return params.seconds("poll_interval", task.poll_interval)


def log_lines(task: WaitingTask) -> int:
    """Return how many of the last lines of a log an error quotes.

    :param task: the operator or sensor.
    :raises InvalidParameter: it is wrong.
    """
    return params.integer("number_logs_exception", task.number_logs_exception, least=0)


def deadlines(task: WaitingTask, **more: float) -> Deadlines:
    """Return the time limits of the task.

    :param task: the operator or sensor.
    :param more: further limits, in seconds, by the parameter that sets them.
    :raises InvalidParameter: one of them is wrong.
    """
    given = {"job_timeout": task.job_timeout, "execution_timeout": task.execution_timeout}
    seconds = {name: params.seconds(name, limit) for name, limit in given.items() if limit is not None}
    return Deadlines({**seconds, **more}, in_worker=not defers(task))


def defers(task: WaitingTask) -> bool:
    """Return whether the task waits in the triggerer, and not in the worker.

    :param task: the operator or sensor.
    """
    return conf.getboolean("jobflow", "deferrable") if task.deferrable is None else task.deferrable


def access(task: WaitingTask) -> Access:
    """Return the AWS connection to use.

    :param task: the operator or sensor.
    :raises InvalidParameter: a parameter of the connection is wrong.
    """
    from airflow_jobflow.aws import Access

    config = None if task.botocore_config is None else params.mapping("botocore_config", task.botocore_config)
    verify = params.boolean("verify", task.verify) if str(task.verify).lower() in ("true", "false") else task.verify
    return Access(task.aws_conn_id, task.region_name, verify, config)
