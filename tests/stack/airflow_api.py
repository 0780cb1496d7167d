"""Airflow's REST API, with the actions of a user in the UI."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx

from tests.stack.errors import StackError, eventually

AGAIN: Final = 60.0
"""Seconds for which a call without a response is repeated: a test may be restarting the database."""


class Airflow:
    """The API of one Airflow.

    :param url: the URL without a path.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self._token = ""

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> None:
        """Start a DAG run."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        self._ask(
            "POST", f"dags/{dag_id}/dagRuns", body, known=(httpx.codes.CONFLICT,)
        )  # after a repeated call, the run exists

    def dag_ids(self) -> set[str]:
        """Return the ids of all DAGs."""
        return {each["dag_id"] for each in self._ask("GET", "dags?limit=100")["dags"]}

    def prepare(self, dag_ids: Sequence[str], pattern: str = "~") -> None:
        """Wait until DAGs exist, and unpause them.

        :param pattern: a part of the ids of the DAGs to unpause; ``~`` for all.
        :raises StackError: a DAG cannot be imported, or does not appear.
        """

        def there() -> bool:
            if errors := self.import_errors():
                raise StackError("\n".join(errors))
            return set(dag_ids) <= self.dag_ids()

        eventually(there, f"DAGs {sorted(dag_ids)}")
        self.unpause(pattern)

    def unpause(self, pattern: str = "~") -> None:
        """Unpause every DAG whose id contains a pattern; ``~`` for all."""
        self._ask("PATCH", f"dags?dag_id_pattern={pattern}&update_mask=is_paused&limit=100", {"is_paused": False})

    def add_connection(self, conn_id: str, conn_type: str, **fields: str) -> None:
        """Store a connection in Airflow's database."""
        self._ask("POST", "connections", {"connection_id": conn_id, "conn_type": conn_type, **fields})

    def runs(self, dag_id: str) -> dict[str, str]:
        """Return the states of all runs of a DAG by their ids, including scheduled ones."""
        found = self._ask("GET", f"dags/{dag_id}/dagRuns?limit=100")["dag_runs"]
        return {str(each["dag_run_id"]): str(each["state"]) for each in found}

    def import_errors(self) -> list[str]:
        """Return why some DAG files cannot be imported."""
        return [
            f"{each['filename']}: {each['stack_trace']}" for each in self._ask("GET", "importErrors")["import_errors"]
        ]

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a DAG run."""
        return str(self._ask("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a DAG run ``success`` or ``failed``."""
        self._ask("PATCH", f"dags/{dag_id}/dagRuns/{run_id}", {"state": state})

    def instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a DAG run."""
        answer = self._ask("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100")
        found: list[dict[str, Any]] = answer["task_instances"]
        return found

    def set_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task instance ``success``, ``failed`` or ``skipped``."""
        self._ask("PATCH", _instance(dag_id, run_id, task_id, map_index), {"new_state": state})

    def clear(self, dag_id: str, run_id: str, task_ids: Sequence[str | tuple[str, int]]) -> None:
        """Clear task instances of a DAG run in any state."""
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run_id, "task_ids": list(task_ids)}
        self._ask("POST", f"dags/{dag_id}/clearTaskInstances", body)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return an XCom as a task gets it; None if there is none. The UI also shows values that are not JSON."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        query = f"?map_index={map_index}&deserialize=false"
        answer = self._ask("GET", path + query, known=(httpx.codes.NOT_FOUND,))
        return answer.get("value")

    def links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """Return the URLs of a task instance's buttons by their names."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links?map_index={map_index}"
        return dict(self._ask("GET", path)["extra_links"])

    def asset_events(self, dag_id: str, run_id: str) -> list[str]:
        """Return the tasks of a run that have updated an asset."""
        answer = self._ask("GET", f"assets/events?source_dag_id={dag_id}&source_run_id={run_id}")
        return [str(each["source_task_id"]) for each in answer["asset_events"]]

    def watcher_events(self, asset: str) -> list[Any]:
        """Return the payloads of all events of an asset's watcher."""
        answer = self._ask("GET", "assets/events?limit=100")
        assert answer["total_entries"] <= len(answer["asset_events"])
        return [each["extra"].get("payload") for each in answer["asset_events"] if each["name"] == asset]

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> str:
        """Return the lines of a try's log."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        answer = self._ask("GET", f"{path}?full_content=true&map_index={map_index}", known=(httpx.codes.NOT_FOUND,))
        lines = answer.get("content") or []
        return "\n".join(each.get("event", "") if isinstance(each, dict) else str(each) for each in lines)

    def alive(self, kind: str) -> int:
        """Return how many jobs of a kind (``TriggererJob``) have a recent heartbeat."""
        # Its total also counts jobs that were killed.
        return len(self._ask("GET", f"jobs?job_type={kind}&job_state=running&is_alive=true&limit=100")["jobs"])

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, known: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Make a call, and repeat it if there is no response or a 5xx.

        :param known: statuses that are not errors.
        """
        deadline = time.monotonic() + AGAIN
        while True:
            try:
                if not self._token:
                    self._token = self._http.get("/auth/token").raise_for_status().json()["access_token"]
                bearer = {"Authorization": f"Bearer {self._token}"}
                answer = self._http.request(method, f"/api/v2/{path}", json=body, headers=bearer)
                if answer.status_code not in known:
                    answer.raise_for_status()
                parsed: dict[str, Any] = answer.json()
                return parsed
            except httpx.HTTPStatusError as error:
                if not error.response.is_server_error or time.monotonic() > deadline:
                    error.add_note(error.response.text[:2000])
                    raise
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)


def _instance(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
    return path if map_index < 0 else f"{path}/{map_index}"
