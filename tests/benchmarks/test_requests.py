"""Counting the requests of a task: what is recorded, and which process made it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.requests import sequence
from benchmarks.requests.sequence import phases, read, table

RECORDER = Path(sequence.__file__).parent / "recorder"
OWN, OTHER = "01a21edd-179f-7684-bc1e-e55a37d90155", "01a21edd-16b1-747d-8bc1-d0ef17e64419"


def line(at: float, instance: str, request: str, pid: int = 1, status: int = 200) -> str:
    """Return a request as it is recorded."""
    method, url = request.split()
    return json.dumps({"at": at, "pid": pid, "instance": instance, "method": method, "url": url, "status": status})


API = "http://127.0.0.1:8080/execution"
TRIGGERER = "http://in-process.invalid."
LINES = [
    line(1, "worker-1", f"PATCH {API}/task-instances/{OWN}/run"),
    line(2, "worker-1", f"PUT {API}/task-instances/{OWN}/heartbeat"),
    line(3, "worker-1", f"POST {API}/xcoms/d/r/job/_link_BatchJobLink", status=201),
    line(4, "triggerer-1", f"GET {TRIGGERER}/connections/aws_default", pid=9),
    line(5, "triggerer-1", f"POST {TRIGGERER}/xcoms/another/r/job/return_value", pid=9),
    line(6, "triggerer-1", f"GET {TRIGGERER}/task-instances/states?dag_id=d&run_ids=r", pid=9),
    line(7, "scheduler-1", f"GET {API}/health", pid=5),
    line(8, "worker-1", f"PATCH {API}/task-instances/{OWN}/run"),
    line(9, "worker-1", f"PATCH {API}/task-instances/{OWN}/state", status=204),
]


def test_requests_of_the_task_are_grouped_by_phase() -> None:
    """Requests of other services, and of a triggerer for other tasks, are omitted; heartbeats are not counted."""
    first, triggerer, second = phases(read(LINES, "d", "r"))
    assert [stay.where for stay in (first, triggerer, second)] == ["worker", "triggerer", "worker"]
    assert [each.name for each in first.counted] == [
        "PATCH task-instances/{ti}/run",
        "POST xcoms/{dag}/{run}/job/_link_BatchJobLink",
    ]
    assert len(first.requests) == 3
    assert [each.name for each in triggerer.requests] == [
        "GET connections/aws_default",
        "GET task-instances/states",
    ]
    assert [each.status for each in second.requests] == [200, 204]


def test_phases_do_not_depend_on_the_order_of_the_lines() -> None:
    """Several processes append to one file."""
    assert phases(read(reversed(LINES), "d", "r")) == phases(read(LINES, "d", "r"))


def test_a_table_has_each_request_with_its_origin() -> None:
    """It is compared before and after a change."""
    text = table("One task", phases(read(LINES, "d", "r")))
    assert text.startswith("## One task: 6 requests, without heartbeats")
    assert "| 2 | worker | `POST xcoms/{dag}/{run}/job/_link_BatchJobLink` | 201 | finalize: an extra link |" in text
    assert text.endswith("Heartbeats: 1.")


@pytest.mark.parametrize(
    ("request_name", "who"),
    [
        (f"PUT task-instances/{OWN}/rtif", "Airflow: rendered fields"),
        (f"GET store/ti/{OTHER}/jobflow", "ours: task state store"),
        ("POST xcoms/d/r/job/jobflow_jobs", "ours: progress or failure for the Jobs tab"),
        ("POST xcoms/d/r/job/return_value", "the returned value"),
        ("GET variables/x", "other"),
    ],
)
def test_each_request_has_an_origin(request_name: str, who: str) -> None:
    """An unknown one is ``other``, and not omitted."""
    method, path = request_name.split()
    [request] = read([line(1, "worker-1", f"{method} {API}/{path}")], "d", "r")
    assert request.asked_by == who


def recorded(directory: Path, code: str, **environment: str) -> list[dict[str, Any]]:
    """Run code as a process of Airflow, and return the recorded requests."""
    file = directory / "requests.jsonl"
    environment = {"JOBFLOW_REQUESTS": str(file), "JOBFLOW_STACK": "/stack/worker-1", **environment}
    command = [sys.executable, "-c", code]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(RECORDER), **environment}, check=True)
    return [json.loads(each) for each in file.read_text().splitlines()] if file.exists() else []


ASK = """
import logging.config, httpx
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "loggers": {"httpx": {"level": "WARN"}}})
answer = httpx.MockTransport(lambda request: httpx.Response(404))
httpx.Client(transport=answer).get("http://api/store?x=1")
"""


def test_requests_are_recorded_although_airflow_silences_their_log(tmp_path: Path) -> None:
    """Airflow's logging configuration sets the level of httpx's logger."""
    [request] = recorded(tmp_path, ASK)
    assert request["pid"] > 0
    asked = {name: request[name] for name in ("instance", "method", "url", "status")}
    assert asked == {"instance": "worker-1", "method": "GET", "url": "http://api/store?x=1", "status": 404}


def test_nothing_is_recorded_by_default(tmp_path: Path) -> None:
    """Any Python may find the module."""
    assert recorded(tmp_path, ASK, JOBFLOW_REQUESTS="") == []
