"""The errors of ECS."""

from __future__ import annotations

import json
from collections.abc import Sequence

from airflow_jobflow.local.errors import AwsError


def invalid(why: str) -> AwsError:
    """Return the error for an invalid value in a request.

    :param why: the reason.
    """
    return AwsError("InvalidParameterException", why)


def client_error(why: str) -> AwsError:
    """Return the error for something that a request refers to.

    :param why: the reason.
    """
    return AwsError("ClientException", why)


def no_cluster() -> AwsError:
    """Return the error for a cluster that does not exist."""
    return AwsError("ClusterNotFoundException", "Cluster not found.")


class TokenConflict(AwsError):
    """The error for a clientToken that was used in a different request.

    :param task_arns: the tasks that the other request started.
    """

    def __init__(self, task_arns: Sequence[str]) -> None:
        super().__init__("ConflictException", "The clientToken is already in use with a different RunTask request.")
        self._task_arns = list(task_arns)

    def answer(self, service: str) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body of the response, which names the tasks.

        :param service: the service that responds.
        """
        headers, content = super().answer(service)
        return headers, json.dumps({**json.loads(content), "resourceIds": self._task_arns}).encode()
