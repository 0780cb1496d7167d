"""The environment variables that AWS sets for every job, for all services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ON_FARGATE: Final = "AWS_ECS_FARGATE"
ON_EC2: Final = "AWS_ECS_EC2"


def job_environment(
    region: str, *, execution_env: str | None = None, own: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the variables of a job.

    :param region: the region of the job.
    :param execution_env: the value of ``AWS_EXECUTION_ENV``. Default: not set, as by Glue.
    :param own: the job's own variables, which override these. Default: none.
    """
    given = {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    if execution_env is not None:
        given["AWS_EXECUTION_ENV"] = execution_env
    return {**given, **(own or {})}
