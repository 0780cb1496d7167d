"""Lookup of Airflow connections that distinguishes a missing connection from a missing answer."""

from __future__ import annotations

from typing import Any


def connection_exists(conn_id: str) -> bool:
    """Return whether an Airflow connection exists. Blocks; one request.

    Airflow's own lookup answers "not found" also if a secrets backend or the API server cannot be reached. Relies on
    ``supervisor.ensure_secrets_backend_loaded`` and on the answers to ``GetConnection`` (3.2.1, 3.3.2).

    :param conn_id: the connection's id.
    :raises Exception: Airflow could not answer: what a secrets backend raises, or ``AirflowRuntimeError``.
    """
    from airflow.sdk.execution_time.secrets import ExecutionAPISecretsBackend
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    for backend in ensure_secrets_backend_loaded():
        if isinstance(backend, ExecutionAPISecretsBackend):
            exists = _exists_for_api_server(conn_id)  # the backend itself hides errors
        else:
            exists = backend.get_connection(conn_id=conn_id) is not None
        if exists:
            return True
    return False


def _exists_for_api_server(conn_id: str) -> bool:
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    try:
        answer: Any = SUPERVISOR_COMMS.send(GetConnection(conn_id=conn_id))
    except AirflowRuntimeError as error:
        answer = error.error
    if not isinstance(answer, ErrorResponse):
        return True
    if answer.error is ErrorType.CONNECTION_NOT_FOUND:
        return False
    raise AirflowRuntimeError(answer)
