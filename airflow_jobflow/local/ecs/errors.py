"""Errors as ECS answers them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from airflow_jobflow.local.errors import AwsError


def invalid(why: str) -> AwsError:
    """A refusal of what a request says."""
    return AwsError("InvalidParameterException", why)


def refused(why: str) -> AwsError:
    """A refusal of what a request refers to."""
    return AwsError("ClientException", why)


def no_cluster() -> AwsError:
    """A refusal of a cluster that is not there."""
    return AwsError("ClusterNotFoundException", "Cluster not found.")


class TokenConflict(AwsError):
    """A clientToken that has been used for another request, which started these tasks."""

    def __init__(self, task_arns: Sequence[str]) -> None:
        super().__init__("ConflictException", "The clientToken is already in use with a different RunTask request.")
        self._task_arns = list(task_arns)

    def answer(self, service: str) -> tuple[dict[str, str], bytes]:
        """Headers and body of the answer, which names the tasks."""
        headers, content = super().answer(service)
        return headers, json.dumps({**json.loads(content), "resourceIds": self._task_arns}).encode()
