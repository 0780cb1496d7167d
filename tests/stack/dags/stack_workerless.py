"""The same waits twice: once started and ended in the triggerer where possible, and once by workers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from airflow.sdk import DAG, Asset, Param, task

from airflow_jobflow.operators.batch import BatchJobOperator
from airflow_jobflow.sensors.batch import BatchJobSensor

OUTLET: Final = Asset("stack-trigger_eligibility")


def mark(what: str) -> Any:
    """Return a callback that creates a file."""

    def leave(context: dict[str, Any]) -> None:
        ti = context["ti"]
        (Path(context["params"]["directory"]) / f"{ti.task_id}.{what}").touch()

    return leave


PARAMS: Final = {
    "token": Param("x"),
    "directory": Param("/tmp"),
    "job_ids": Param([], type="array"),
    "endless": Param(""),
}

OPTIONS: dict[str, dict[str, Any]] = {"stack_workerless": {}, "stack_by_workers": {"deferrable": False}}

for dag_id, options in OPTIONS.items():
    with DAG(dag_id, schedule=None, params=PARAMS, default_args={"retries": 0}):

        @task
        def ids(**context: Any) -> list[str]:
            """Return the jobs to wait for, which the test has started."""
            return list(context["params"]["job_ids"])

        @task
        def first_id(**context: Any) -> str:
            """Return the first job."""
            return str(context["params"]["job_ids"][0])

        @task
        def each_id(job_id: str) -> str:
            """Return one of the jobs."""
            return job_id

        wanted: Any = ids()
        of_one: Any = first_id()
        first = "{{ ti.xcom_pull('ids', map_indexes=-1)[0] }}"

        plain = BatchJobSensor(task_id="plain", job_id="{{ params.job_ids[0] }}", **options)
        BatchJobSensor(task_id="pulled", job_id=first, **options) << wanted
        BatchJobSensor(task_id="plainly_pulled", job_id="{{ ti.xcom_pull('ids')[0] }}", **options) << wanted
        BatchJobSensor(task_id="from_arg", job_id=of_one, **options)
        BatchJobSensor(task_id="all_of_a_list", job_id=wanted, **options)
        BatchJobSensor.partial(task_id="mapped", **options).expand(job_id=wanted)
        BatchJobSensor.partial(task_id="mapped_here", **options).expand(job_id=["{{ params.job_ids[0] }}"])
        BatchJobSensor.partial(task_id="mapped_over_mapped", **options).expand(job_id=each_id.expand(job_id=wanted))
        BatchJobSensor(task_id="outlets", job_id=first, outlets=[OUTLET], **options) << wanted
        BatchJobSensor(task_id="on_success", job_id=first, on_success_callback=mark("success"), **options) << wanted
        BatchJobSensor(task_id="on_execute", job_id=first, on_execute_callback=mark("execute"), **options) << wanted
        BatchJobSensor(task_id="hooked", job_id=first, post_execute=lambda c, _: mark("hook")(c), **options) << wanted
        BatchJobSensor(task_id="no_xcom", job_id=first, do_xcom_push=False, **options) << wanted
        (
            BatchJobSensor(
                task_id="fails",
                job_id="{{ ti.xcom_pull('ids', map_indexes=-1)[-1] }}",
                retries=1,
                retry_delay=timedelta(seconds=1),
                on_retry_callback=mark("retry"),
                on_failure_callback=mark("failure"),
                **options,
            )
            << wanted
        )
        endless = "{{ params.endless }}"
        BatchJobSensor(task_id="times_out", job_id=endless, job_timeout="{{ 2 + 3 }}", **options)
        BatchJobSensor(task_id="is_timed_out", job_id=endless, execution_timeout=timedelta(seconds=6), **options)
        BatchJobSensor(task_id="skips", job_id=endless, job_timeout=3, soft_fail=True, **options)
        BatchJobSensor(task_id="wrong", job_id=endless, poll_interval="{{ params.token }}", **options)
        BatchJobOperator(
            task_id="operator",
            job_name="{{ params.token }}",
            job_queue="hello-world-queue",
            job_definition="hello-world",
            command=["sh", "-c", "sleep 3; echo {{ params.token }}"],
            **options,
        )
