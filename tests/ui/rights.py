"""The auth manager of the Airflow that serves the tab: permissions by user."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

VIEWER, READER, GUEST = "viewer", "reader", "guest"
"""A user with all permissions; one with all but XComs; one with none."""

USERS = f"{VIEWER}:viewer,{READER}:viewer,{GUEST}:"
"""The users with their roles in Airflow."""


class Rights(SimpleAuthManager):
    """Airflow's own auth manager, in which a permission can be withheld."""

    def is_authorized_dag(self, **asked: Any) -> bool:
        """Return whether a user may see a part of a DAG."""
        held_back = asked["user"].username == READER and asked.get("access_entity") is DagAccessEntity.XCOM
        return not held_back and super().is_authorized_dag(**asked)
