"""What a job gets in addition to the user's parameters: a result address, and variables that name its task."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.airflow_compat.lineage import parent_variables
from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.jobs.owner import DIGITS
from airflow_jobflow.jobs.results import LOG

if TYPE_CHECKING:
    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.operators.spec import Spec

log = logging.getLogger(__name__)

NOT_IN_CONTAINER_OVERRIDES: Final = ("node_overrides", "ecs_properties_override", "eks_properties_override")
"""Parameters of Batch for jobs that have no container of their own to override."""


@dataclass(frozen=True, slots=True)
class JobInputs:
    """What the jobs of an operator get in addition to its parameters.

    :param pass_context: whether they get variables that name their task. Default False.
    :param result: ``s3://bucket/prefix``, ``log``, or None for no result. Default None.
    :param required: whether a job that succeeded without a usable result counts as failed. Default False.
    """

    pass_context: bool = False
    result: str | None = None
    required: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any], spec: Spec) -> JobInputs:
        """Return the inputs of an operator's jobs, from its parameters.

        :param given: the shared parameters that were given, converted to their types.
        :param spec: what the operator starts.
        :raises InvalidParameter: parameters of the API contradict them.
        """
        pass_context = given.get("pass_context", spec.passes_context)
        inputs = cls(pass_context, given.get("result"), given["result_required"])
        inputs.check(spec.values)
        return inputs

    @property
    def prefix(self) -> str | None:
        """The user's prefix in S3; None if results are not in S3."""
        return None if self.result in (None, LOG) else self.result

    def check(self, values: Mapping[str, Any], of: str = "") -> None:
        """Reject parameters that set the address for the result themselves, or that exclude setting it.

        :param values: validated parameters of the operator, or of an item.
        :param of: the item that has them, for the message. Default: the operator.
        :raises InvalidParameter: there is one.
        """
        from airflow_jobflow.jobs.environment import RESULT_ARGUMENT, RESULT_URI, variables

        if self.prefix is None:
            return
        containers = [values.get("container_overrides", {}), *values.get("overrides", {}).get("containerOverrides", [])]
        for name in NOT_IN_CONTAINER_OVERRIDES:
            if name in values:
                rule = "cannot be combined with result, whose address the job gets in container_overrides"
                raise invalid_parameter(name, values[name], rule)
        given = (values.get("environment", {}), *map(variables, containers), values.get("script_args", {}))
        if any(RESULT_URI in each or RESULT_ARGUMENT in each for each in given):
            rule = f"sets {RESULT_URI}, which the parameter result also sets; remove one of them"
            raise invalid_parameter(of or "environment", values, rule)

    def result_uri(self, record: AttemptRecord, part: int | None = None) -> str | None:
        """Return where the job of an attempt writes its result; None if not to S3.

        :param record: the attempt, which has its token.
        :param part: the number of the array's part, if it is redriven. Default None.
        """
        from airflow_jobflow.jobs.results import address

        return self.prefix and address(self.prefix, record.group, record.attempt.token, part)

    def longest_uri(self, record: AttemptRecord) -> str | None:
        """Return an address as long as that of any part, to keep room for it; None if the result is not in S3.

        :param record: the attempt.
        """
        from airflow_jobflow.jobs.results import address

        return self.prefix and address(self.prefix, record.owner.group, "0" * DIGITS, 9999)

    def context(self, record: AttemptRecord) -> dict[str, str]:
        """Return the variables that name a job's task, under Airflow's names, the most important first.

        :param record: the attempt.
        """
        return variables(record.context) if self.pass_context else {}

    def of_map(self, record: AttemptRecord) -> dict[str, Any]:
        """Return the members of a map's ``job_group`` from which its jobs get their inputs; see ``jobs.maps``.

        :param record: the attempt that starts the map.
        """
        members = {"context": self.context(record), "result": self.result_uri(record)}
        return {name: value for name, value in members.items() if value}


NO_INPUTS: Final = JobInputs()
"""A job gets only its parameters."""


def variables(context: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that Airflow sets for ``BashOperator``, and those for OpenLineage's parent run.

    :param context: Airflow's context.
    """
    ti, logical_date = context["ti"], context["dag_run"].logical_date
    return {
        "AIRFLOW_CTX_DAG_ID": ti.dag_id,
        "AIRFLOW_CTX_TASK_ID": ti.task_id,
        "AIRFLOW_CTX_DAG_RUN_ID": ti.run_id,
        "AIRFLOW_CTX_TRY_NUMBER": str(ti.try_number),
        **({"AIRFLOW_CTX_LOGICAL_DATE": logical_date.isoformat()} if logical_date else {}),
        **parent_variables(ti),
    }


def log_left_out(names: Sequence[str]) -> None:
    """Log which variables a job does not get.

    :param names: of the variables; none for nothing to log.
    """
    if names:
        log.info("The job does not get %s, because its overrides would be too long", ", ".join(names))
