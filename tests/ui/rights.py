"""The auth manager of the Airflow that serves the tab: permissions by user."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

VIEWER, READER, GUEST = "viewer", "reader", "guest"
"""Who may look at everything; at everything but XComs; at nothing."""

USERS = f"{VIEWER}:viewer,{READER}:viewer,{GUEST}:"
"""With the roles that Airflow gives them."""


class Rights(SimpleAuthManager):
    """Airflow's own, in which a right can be held back."""

    def is_authorized_dag(self, **asked: Any) -> bool:
        """Say whether somebody may see something of a DAG."""
        held_back = asked["user"].username == READER and asked.get("access_entity") is DagAccessEntity.XCOM
        return not held_back and super().is_authorized_dag(**asked)
