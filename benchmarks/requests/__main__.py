"""How many requests one task makes to Airflow's execution API: ``python -m benchmarks.requests``, from the root.

It runs the tasks of ``dags`` one after the other in the stack of the tests, and prints each request.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from airflow_jobflow.local.demo.home import interrupt_on_signals
from benchmarks.requests.sequence import phases, read, table
from tests.stack.airflow_api import Airflow
from tests.stack.errors import eventually
from tests.stack.stack import Stack

HERE: Final = Path(__file__).parent
DAGS: Final = {
    "requests_of_airflow": "An operator that only defers and returns",
    "requests_ends_in_triggerer": "BatchJobOperator that ends in the triggerer",
    "requests_ends_on_worker": "BatchJobOperator that ends on a worker",
    "requests_without_xcom": "BatchJobOperator with do_xcom_push=False",
}
PATIENCE: Final = 180.0
"""Maximum seconds of a run."""


def ended(airflow: Airflow, dag_id: str, run_id: str) -> str | None:
    """Return the state of a run if it has ended."""
    state = airflow.run_state(dag_id, run_id)
    return state if state in ("success", "failed") else None


def measure(directory: Path) -> str:
    """Run each task once, after a first one that is not counted, and return the tables."""
    recorded = directory / "requests.jsonl"
    stack = Stack(directory, scale={"worker": 1, "triggerer": 1}, dags=[HERE / "dags"])
    for instance in stack.instances.values():
        environment = dict(instance.environment)
        environment["PYTHONPATH"] += f":{HERE / 'recorder'}"
        instance.environment = {**environment, "JOBFLOW_REQUESTS": str(recorded)}
    tables = []
    with stack:
        airflow = Airflow(stack.url)
        aws = stack.instance("api-server").environment["AWS_ENDPOINT_URL"]
        extra = {"endpoint_url": aws, "region_name": "us-east-1"}
        airflow.add_connection(
            "requests_aws", "aws", login="jobflowlocal", password="jobflowlocal", extra=json.dumps(extra)
        )
        airflow.prepare(sorted(DAGS), "requests_")
        for number, dag_id in enumerate(["requests_ends_on_worker", *DAGS]):
            before = recorded.stat().st_size if recorded.exists() else 0
            run_id = f"run{number}"
            airflow.trigger(dag_id, run_id, {})
            state = eventually(functools.partial(ended, airflow, dag_id, run_id), f"the end of {dag_id}", PATIENCE)
            with recorded.open(encoding="utf-8") as lines:
                lines.seek(before)
                found = phases(read(lines, dag_id, run_id))
            if number:
                tables.append(table(f"{DAGS[dag_id]} ({state})", found))
        airflow.close()
    return "\n\n".join(tables)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print or write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.requests", description=__doc__)
    parser.add_argument("--out", type=Path, help="a file for the tables (default: print them)")
    chosen = parser.parse_args(arguments)
    interrupt_on_signals()
    with tempfile.TemporaryDirectory(prefix="jobflow-requests-") as folder:
        found = measure(Path(folder))
    if chosen.out:
        chosen.out.write_text(found + "\n", encoding="utf-8")
    else:
        print(found)


if __name__ == "__main__":
    main()
