"""XComs of another process's task: of a trigger's task, and as the API server's database has them.

A task pushes and pulls its own XComs by ``context["ti"]``, which is public. A trigger has only ``BaseXCom`` of
``airflow.sdk``, which bypasses the XCom backend that the deployment has configured. The configured backend is
``airflow.sdk.execution_time.xcom.XCom``.

Each function blocks: in a trigger, call it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


def set_xcom(task_instance: Any, key: str, value: Any) -> None:
    """Push an XCom of a task instance through the configured backend. One request.

    Relies on ``airflow.sdk.execution_time.xcom.XCom`` (3.2.1, 3.3.2).

    :param task_instance: what has ``dag_id``, ``task_id``, ``run_id`` and ``map_index``.
    :param key: the key of the XCom.
    :param value: what the backend can serialize; by default, what JSON can hold.
    :raises Exception: what the backend raises, or ``AirflowRuntimeError`` if the API server does not accept the XCom.
    """
    _backend().set(key, value, **_instance(task_instance))


def get_xcom(task_instance: Any, key: str) -> Any:
    """Return an XCom of a task instance through the configured backend. One request.

    Relies on ``airflow.sdk.execution_time.xcom.XCom`` (3.2.1, 3.3.2).

    :param task_instance: see ``set_xcom``.
    :param key: the key of the XCom.
    :return: the value; None if there is no such XCom.
    :raises Exception: as ``set_xcom``.
    """
    return _backend().get_one(key=key, **_instance(task_instance))


def delete_xcom(task_instance: Any, key: str) -> None:
    """Delete an XCom of a task instance through the configured backend. Two requests.

    Relies on ``airflow.sdk.execution_time.xcom.XCom`` (3.2.1, 3.3.2).

    :param task_instance: see ``set_xcom``.
    :param key: the key of the XCom; it need not exist.
    :raises Exception: as ``set_xcom``.
    """
    _backend().delete(key=key, **_instance(task_instance))


def are_in_database() -> bool:
    """Return whether XComs are stored in Airflow's database, where ``read_from_database`` finds them.

    A configured XCom backend may store them elsewhere. Relies on ``airflow.sdk.execution_time.xcom.XCom`` being
    ``airflow.sdk.BaseXCom`` by default (3.2.1, 3.3.2).
    """
    from airflow.sdk import BaseXCom

    return _backend() is BaseXCom


def read_from_database(ti_key: TaskInstanceKey, keys: Iterable[str]) -> list[tuple[str, object]]:
    """Return XComs of a task instance as the database has them. Only in the API server, which may query it.

    Airflow's own links read their XComs in the same way. Relies on ``XComModel`` and ``create_session`` (3.2.1, 3.3.2).

    :param ti_key: the task instance.
    :param keys: the keys of the XComs.
    :return: key and serialized value of each that exists.
    """
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(XComModel.key, XComModel.value).filter_by(**_instance(ti_key)).where(XComModel.key.in_(tuple(keys)))
    with create_session() as session:
        return [(key, value) for key, value in session.execute(query)]


def _backend() -> Any:
    from airflow.sdk.execution_time.xcom import XCom

    return XCom


def _instance(task_instance: Any) -> dict[str, Any]:
    return {name: getattr(task_instance, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
