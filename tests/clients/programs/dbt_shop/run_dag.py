"""Runs the DAG in a directory: ``run_dag.py <directory>``. Prints the state of each task."""

import sys

from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import initdb

sys.path.append(sys.argv[1])  # as Airflow does with a DAG bundle
initdb()
bag = DagBag(sys.argv[1])
if bag.import_errors:
    raise SystemExit(f"{bag.import_errors}")
run = bag.dags["dbt_shop"].test()
for each in sorted(run.get_task_instances(), key=lambda each: each.task_id):
    print(f"state of {each.task_id}: {each.state}")  # noqa: T201
