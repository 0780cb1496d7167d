"""Writes the results of tasks into the database of an Airflow that runs none.

Run it with the settings of that Airflow, before its api-server starts.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.dagbag import DBDagBag
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from uuid6 import uuid7

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.ui.seed_run import RUN


def main(dags: Path, cases: dict[str, dict[str, Any]]) -> None:
    """Write a run of each DAG, with the results of its tasks.

    :param cases: by DAG, ``{task: [[state, xcoms, …], …]}``, one for each instance. Further members are the log lines
        of earlier tries, all of which failed.
    """
    with create_session() as session:
        manager: Any = DagBundlesManager
        manager().sync_bundles_to_db(session=session)
        session.flush()
        bag = BundleDagBag(dags, bundle_path=dags, bundle_name="dags-folder")
        sync_bag_to_db(bag, "dags-folder", None, session=session)
        session.commit()
        for dag_id, of_dag in cases.items():
            dag = DBDagBag().get_latest_version_of_dag(dag_id, session=session)
            assert dag is not None, bag.import_errors
            write(dag, of_dag, session)


def write(dag: Any, cases: dict[str, Any], session: Any) -> None:
    """Write a run of one DAG."""
    now = datetime.now(UTC)
    run = dag.create_dagrun(
        run_id=RUN,
        logical_date=now,
        data_interval=(now, now),
        run_after=now,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.RUNNING,
        start_date=now,
        session=session,
    )
    session.flush()
    instances = run.get_task_instances(session=session)
    assert set(cases) <= {each.task_id for each in instances}, f"{dag.dag_id} lacks a task for one of {sorted(cases)}"
    for instance in instances:
        state, xcoms, *tries = cases.get(instance.task_id, [[None, {}]] * 2)[max(instance.map_index, 0)]
        instance.try_number = 1
        for earlier in tries:
            instance.state, instance.start_date, instance.end_date = "failed", now - timedelta(minutes=3), now
            session.flush()
            session.add(TaskInstanceHistory(instance, state="failed"))
            log = Path(conf.get("logging", "base_log_folder"), f"dag_id={dag.dag_id}", f"run_id={RUN}")
            log = log / f"task_id={instance.task_id}" / f"attempt={instance.try_number}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("".join(f"{json.dumps(line)}\n" for line in earlier))
            session.flush()
            instance.id, instance.try_number = uuid7(), instance.try_number + 1
        instance.state, instance.start_date = state, now
        instance.end_date = now if state in ("success", "failed") else None
        for key, value in xcoms.items():
            XComModel.set(
                key,
                value,
                dag_id=dag.dag_id,
                task_id=instance.task_id,
                run_id=RUN,
                map_index=instance.map_index,
                session=session,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
