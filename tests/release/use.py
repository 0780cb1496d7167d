"""Uses the installed package, and nothing else of this checkout: `python use.py <directory of DAGs>`.

`environments.py` runs it in a separate environment. It ends with an error at the first failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

DAG = "batch_job_status_poller"


def main(dags: str) -> None:
    """Use everything once."""
    with tempfile.TemporaryDirectory(prefix="jobflow-use-") as home:
        # Before Airflow is imported, because it then creates its home.
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__DAGS_FOLDER": dags,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        imports()
        airflow_knows_the_provider()
        command_lines_work()
        a_dag_runs()


def imports() -> None:
    """Import every module, and check that it is the installed one."""
    import airflow_jobflow

    where = Path(airflow_jobflow.__file__ or "")
    assert where.is_relative_to(sys.prefix), f"{where} is not what was installed"
    names = [each.name for each in walk_packages(airflow_jobflow.__path__, "airflow_jobflow.")]
    for name in names:
        if not name.endswith(("__main__", "sample_data.se2_job0")):  # these are run, not imported
            import_module(name)
    say(f"{len(names)} modules with Airflow {version('apache-airflow')}, Amazon provider {amazon()}")


def amazon() -> str:
    """Return the version of the Amazon provider."""
    return version("apache-airflow-providers-amazon")


def airflow_knows_the_provider() -> None:
    """Check that Airflow's commands list the provider."""
    assert "airflow-jobflow" in run("airflow", "providers", "list", "--output", "plain")
    assert run("airflow", "config", "get-value", "jobflow", "poll_interval").split()[-1] == "10.0"
    assert "jobflow" in run("airflow", "plugins", "--output", "plain")
    say("Airflow lists the provider, its settings and its plugin")


def command_lines_work() -> None:
    """Check that the help of each command works."""
    for module in ("airflow_jobflow.local", "airflow_jobflow.local.demo.ui", "airflow_jobflow.local.demo.__main__"):
        assert "--help" in run(module, "--help")
    say("The command lines answer")


def a_dag_runs() -> None:
    """Parse and serialize all DAGs, and run one against the local AWS."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.db import initdb

    from airflow_jobflow.local import LocalAws
    from airflow_jobflow.local.samples import provision

    initdb()
    bag: Any = DagBag()
    assert bag.import_errors == {}, bag.import_errors
    for dag in bag.dags.values():
        again = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
        assert set(again.task_ids) == set(dag.task_ids)
    with LocalAws() as aws:
        os.environ |= aws.environment()
        provision(aws.endpoint_url)
        state = str(bag.dags[DAG].test(run_conf={"wait_time": 0.2}).state)
    assert state == "success", f"{DAG} ended as {state}"
    say(f"{len(bag.dags)} DAGs serialize, and {DAG} runs")


def run(module: str, *arguments: str) -> str:
    """Run a module as a command, and return its output."""
    command = [sys.executable, "-m", module, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert answer.returncode == 0, f"{' '.join(command)}: {answer.stdout[-2000:]}{answer.stderr[-2000:]}"
    return answer.stdout


def say(line: str) -> None:
    """Print the progress."""
    sys.stderr.write(f"  {line}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
