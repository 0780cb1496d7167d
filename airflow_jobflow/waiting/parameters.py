"""The parameters that all operators and sensors share: validated, and as the types that are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import conf

from airflow_jobflow import params, params_json
from airflow_jobflow.exceptions import InvalidParameter, invalid_parameter
from airflow_jobflow.jobs.maps import MAX_ATTEMPTS
from airflow_jobflow.params import Check, Parameter, ParameterTable
from airflow_jobflow.trigger_eligibility import START_SETTINGS
from airflow_jobflow.waiting.deadlines import Deadlines

if TYPE_CHECKING:
    from airflow_jobflow.aws import Access


def _verify(name: str, value: Any) -> bool | str:
    is_path = isinstance(value, str) and value.lower() not in ("true", "false")
    return value if is_path else params.boolean(name, value)


FAILED: Final = "failed"
"""The ``stream_logs`` that copies the last lines of failed jobs."""


def _stream_logs(name: str, value: Any) -> bool | str:
    if str(value).strip().lower() == FAILED:
        return FAILED
    try:
        return params.boolean(name, value)
    except InvalidParameter:
        raise invalid_parameter(name, value, f"must be true, false or {FAILED!r}") from None


NOT_STREAMED: Final = {"glue_crawl": "all crawls of a crawler write to one log stream; use 'failed', or leave it out"}
"""Services whose jobs' logs cannot be copied while the jobs run, and why."""

_COUNT: Final = partial(params.integer, least=0)
_NOT_NEGATIVE: Final = partial(params.number, least=0)

WAIT_PARAMETERS: Final = ParameterTable(
    {
        "aws_conn_id": Parameter("", params.unchecked),
        "region_name": Parameter("", params.unchecked),
        "verify": Parameter("", _verify),
        "botocore_config": Parameter("", params_json.mapping),
        "poll_interval": Parameter("", params.seconds),
        "job_timeout": Parameter("", params.seconds),
        "execution_timeout": Parameter("", params.seconds, templated=False),
        "deferrable": Parameter("", params.unchecked, templated=False),
        "raise_on_failure": Parameter("", params.unchecked, templated=False),
        "number_logs_exception": Parameter("", _COUNT, required=True, templated=False),
        "stream_logs": Parameter("", _stream_logs),
        "max_log_lines": Parameter("", partial(params.integer, least=1), required=True),
        "number_logs_success": Parameter("", _COUNT, required=True),
    }
)
"""The parameters of all operators and sensors, see :class:`airflow_jobflow.operators.base.AwsJobOperator`."""

OPERATOR_PARAMETERS: Final = ParameterTable(
    {
        **WAIT_PARAMETERS,
        "queued_timeout": Parameter("", params.seconds),
        "skip_on_exit_code": Parameter("", params.exit_codes),
        "fail_on_exit_code": Parameter("", params.exit_codes),
        "pass_context": Parameter("", params.boolean, templated=False),
        "result": Parameter("", params.result),
        "result_required": Parameter("", params.boolean, required=True, templated=False),
        "tolerated_failure_count": Parameter("", _COUNT, required=True),
        "tolerated_failure_percentage": Parameter("", partial(params.number, least=0, most=100), required=True),
        **dict.fromkeys(
            ("wait_for_completion", "cancel_on_kill", "cancel_on_timeout", "durable", "redrive"),
            Parameter("", params.unchecked, templated=False),
        ),
    }
)
"""The parameters of all operators."""

MAP_PARAMETERS: Final = ParameterTable(
    {
        **OPERATOR_PARAMETERS,
        "items": Parameter("", params.unchecked),  # validated when the map starts: there may be ten thousand
        "max_concurrency": Parameter("", partial(params.integer, least=1), required=True),
        "on_item_failure": Parameter("", partial(params.one_of, allowed=("continue", "stop"))),
        "item_attempts": Parameter("", partial(params.integer, least=1, most=MAX_ATTEMPTS)),
    }
)
"""The parameters of all maps."""

_OF_SETTINGS: Final[Mapping[str, Check]] = {
    "poll_interval": params.seconds,
    "describe_calls_per_second": params.seconds,
    "request_timeout": params.seconds,
    "event_poll_interval": params.seconds,
    "missing_grace": _NOT_NEGATIVE,
    "denied_grace": _NOT_NEGATIVE,
    "log_calls_per_second": params.seconds,
    "stream_logs": _stream_logs,
    "end_in_trigger": partial(params.one_of, allowed=("auto", "never")),
    "start_from_trigger": partial(params.one_of, allowed=START_SETTINGS),
}

SETTINGS: Final = ParameterTable({f"[jobflow] {name}": Parameter("", check) for name, check in _OF_SETTINGS.items()})
"""The settings of ``[jobflow]`` that a task validates before it starts."""


@dataclass(frozen=True, slots=True)
class WaitParameters:
    """The shared parameters of one task, validated.

    :param given: those that were given, converted to their types, see the tables.
    :param access: the AWS connection to use.
    :param poll_interval: seconds between two describe calls for one job.
    :param log_lines: how many of the last lines of a log an error quotes.
    :param deadlines: the time limits of the task.
    :param defers: whether the task waits in the triggerer, and not in the worker.
    :param logs: what is copied of the jobs' logs, as arguments of the trigger.
    """

    given: Mapping[str, Any]
    access: Access
    poll_interval: float
    log_lines: int
    deadlines: Deadlines
    defers: bool
    logs: Mapping[str, Any]

    @property
    def copies_logs(self) -> bool:
        """Whether any log is copied."""
        return bool(self.logs["stream_logs"] or self.logs["number_logs_success"])


def wait_parameters(task: Any, table: ParameterTable, **limits: float) -> WaitParameters:
    """Validate the shared parameters of an operator or a sensor, and the settings of ``[jobflow]``.

    :param task: the operator or sensor, after rendering.
    :param table: its shared parameters.
    :param limits: further time limits, in seconds, by the parameter that sets them.
    :raises InvalidParameter: one of them is wrong.
    """
    from airflow_jobflow.aws import Access

    settings = SETTINGS.validated({f"[jobflow] {name}": conf.get("jobflow", name) for name in _OF_SETTINGS})
    given = table.of(task)
    defers = conf.getboolean("jobflow", "deferrable") if task.deferrable is None else task.deferrable
    stream_logs = given.get("stream_logs", settings["[jobflow] stream_logs"])
    if stream_logs is True and task.service in NOT_STREAMED:
        if "stream_logs" in given:
            raise invalid_parameter("stream_logs", task.stream_logs, NOT_STREAMED[task.service])
        stream_logs = False
    of_task: dict[str, float] = {name: given[name] for name in ("job_timeout", "execution_timeout") if name in given}
    return WaitParameters(
        given=given,
        access=Access(task.aws_conn_id, task.region_name, given.get("verify"), given.get("botocore_config")),
        poll_interval=given.get("poll_interval", settings["[jobflow] poll_interval"]),
        log_lines=given["number_logs_exception"],
        deadlines=Deadlines({**of_task, **limits}, in_worker=not defers),
        defers=defers,
        logs={
            "stream_logs": stream_logs,
            "max_log_lines": given["max_log_lines"],
            "number_logs_success": given["number_logs_success"],
        },
    )
