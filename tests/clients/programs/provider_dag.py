"""Runs one system test of the Amazon provider: ``provider_dag.py <its tests> <name>``. Prints the state of each task.

The tests of a provider import helpers that are never released; the three that are needed are here. The script of the
Glue job, which needs Spark, is replaced by an equivalent one without it.
"""

import re
import sys
from pathlib import Path
from types import ModuleType

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import TriggerRule, task
from airflow.utils.db import initdb

GLUE_SCRIPT = """
import boto3
table = boto3.client("glue").get_table(DatabaseName="{db_name}", Name="input")["Table"]
columns = [column["Name"] for column in table["StorageDescriptor"]["Columns"]]
boto3.client("s3").put_object(Bucket="{bucket_name}", Key="output/columns", Body=",".join(columns).encode())
"""


@task(trigger_rule=TriggerRule.ONE_FAILED, retries=0)
def watcher() -> None:
    """Fail if another task has failed: the last tasks of these tests always run and succeed."""
    raise RuntimeError("A task has failed")


def provide(name: str, **content: object) -> None:
    """Create a module that can be imported."""
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module


tests, name = sys.argv[1:]
sys.path.insert(0, tests)
provide("tests_common")
provide("tests_common.test_utils")
provide("tests_common.test_utils.version_compat", AIRFLOW_V_3_0_PLUS=True)
provide("tests_common.test_utils.watcher", watcher=watcher)
provide("tests_common.test_utils.system_tests", get_test_run=lambda dag: dag)

source = (Path(tests) / "system" / "amazon" / "aws" / f"{name}.py").read_text()
file = Path(f"dags/{name}.py")
file.parent.mkdir()
file.write_text(re.sub(r'(?<=EXAMPLE_SCRIPT = """).*?(?=""")', lambda _: GLUE_SCRIPT, source, flags=re.DOTALL))

initdb()
bag = DagBag(file.parent)
if bag.import_errors:
    raise SystemExit(f"{bag.import_errors}")
run = bag.dags[name].test()
for each in sorted(run.get_task_instances(), key=lambda each: each.start_date):
    print(f"{each.task_id}: {each.state}")  # noqa: T201
print(f"run: {run.state}")  # noqa: T201
