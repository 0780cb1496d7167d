"""Operators for Glue: crawls, and runs of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_jobflow import params
from airflow_jobflow.airflow_compat.features import dag_in
from airflow_jobflow.links import GlueCrawlerLink, GlueJobRunLink, JobLogLink
from airflow_jobflow.operators import exit_codes
from airflow_jobflow.operators.base import AwsJobOperator
from airflow_jobflow.operators.glue_spec import CRAWL_PARAMETERS, RUN_PARAMETERS, CrawlSpec, GlueRunSpec
from airflow_jobflow.operators.trigger_start import CRAWL_RULES, GLUE_RUN_RULES

if TYPE_CHECKING:
    from airflow_jobflow.waiting.trigger_start import StartRules


class GlueCrawlOperator(AwsJobOperator):
    """Run a Glue crawler once, and wait for that crawl's own result.

    :param crawler_name: name of the crawler; templated.
    :param if_running: what to do when the crawler is already running, because it makes one crawl at a time: ``attach``,
        wait for the crawl that runs, which is then never stopped by this task (a crawl that is stopping is not joined:
        the task waits until it has ended); ``wait_then_start``, wait until the crawler is free, and start a crawl then;
        ``fail``. Templated. Default ``attach``.

    The other parameters are those of :class:`airflow_jobflow.operators.base.AwsJobOperator`.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`, with the ``details`` that Glue reports:
    ``crawl_id, tables_created, tables_updated, tables_deleted, dpu_hours``. Glue's ``StartCrawler`` returns no crawl
    id, so ``job_id`` identifies the crawl as *the first one after the previous one*; a sensor accepts the whole
    outcome.
    """

    start_rules: ClassVar[StartRules] = CRAWL_RULES
    service: ClassVar[str] = "glue_crawl"
    template_fields: Sequence[str] = (*AwsJobOperator.template_fields, *CRAWL_PARAMETERS)
    operator_extra_links = (GlueCrawlerLink(), JobLogLink())
    ui_color = "#f7d5b5"

    def __init__(self, *, crawler_name: str, if_running: str = "attach", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.crawler_name = crawler_name
        self.if_running = if_running

    def check(self) -> None:
        """Validate the parameters; see the base."""
        reason = "is for jobs that run a command, and a crawl runs none; leave it out"
        of_commands = dict.fromkeys(("pass_context", "result", "result_required"), reason)
        params.reject(self, of_commands | exit_codes.NOT_FOR_GLUE)
        super().check()

    def _job_spec(self) -> CrawlSpec:
        return CrawlSpec(CRAWL_PARAMETERS.of(self))


class GlueJobRunOperator(AwsJobOperator):
    """Run a Glue job.

    Parameters mean what they mean in `StartJobRun <https://docs.aws.amazon.com/glue/latest/dg/
    aws-glue-api-jobs-runs.html>`_; all are templated; what the user did not set is not sent, so that the job decides.
    Where the job, or the account, has as many runs as it may have, the task waits for capacity until its deadline
    (``job_timeout``, or ``queued_timeout``).

    If the job has ``MaxRetries``, Glue itself retries a run that fails. The task waits for the last retry, under the id
    of the first run.

    :param job_name: name of the job.
    :param script_args: arguments of the script, for example ``{"--day": "2026-11-22"}``.
    :param worker_type, number_of_workers: what it runs on, for example ``G.1X`` and 10.
    :param max_capacity: the same in DPUs, for Python shell jobs.
    :param attempt_timeout: seconds, or a timedelta, in whole minutes, after which Glue ends the run.
    :param execution_class: ``STANDARD`` or ``FLEX``.
    :param security_configuration: name of the security configuration.
    :param script: the script of this run, instead of the job's: its address in S3, or a path on the worker, relative to
        the folder of the DAG file. A local script is uploaded under a hash of its content. Default None.
    :param script_prefix: where local scripts are uploaded: ``s3://bucket/prefix``. Default None.
    :param update_job: let the job itself use the script, too. Default False: the job does not change.
    :param run_job_kwargs: further members of StartJobRun, as AWS names them.
    :param on_out_of_memory: what a retry changes if the run ran out of memory, such as ``{"worker_type": "G.2X"}``. The
        value of any of these may be set: ``worker_type``, ``number_of_workers``, ``max_capacity``, ``attempt_timeout``,
        ``execution_class``. Default None: a retry changes nothing.
    :param on_timeout: the same if Glue ended the run after its attempt time-out, such as ``{"attempt_timeout": "x2",
        "max": 7200}``: twice of what the run had, 7,200 seconds at most, rounded up to whole minutes.

    The other parameters are those of :class:`airflow_jobflow.operators.base.AwsJobOperator`;
    ``durable`` gives the run an argument ``--jobflow_owner``, which the script need not know.

    Returns the outcome, see :class:`airflow_jobflow.jobs.model.Outcome`, with the ``details`` that Glue reports:
    ``execution_seconds, dpu_seconds``; after a retry by Glue also ``run_id``, the id of the last one.
    """

    start_rules: ClassVar[StartRules] = GLUE_RUN_RULES
    service: ClassVar[str] = "glue_run"
    template_fields: Sequence[str] = (*AwsJobOperator.template_fields, *RUN_PARAMETERS)
    template_fields_renderers: ClassVar[dict[str, str]] = RUN_PARAMETERS.renderers
    operator_extra_links = (GlueJobRunLink(), JobLogLink())
    ui_color = "#f7d5b5"

    def __init__(
        self,
        *,
        job_name: str,
        script_args: dict[str, Any] | str | None = None,
        run_job_kwargs: dict[str, Any] | str | None = None,
        worker_type: str | None = None,
        number_of_workers: int | str | None = None,
        max_capacity: float | str | None = None,
        attempt_timeout: float | str | timedelta | None = None,
        execution_class: str | None = None,
        security_configuration: str | None = None,
        script: str | None = None,
        script_prefix: str | None = None,
        update_job: bool | str = False,
        on_out_of_memory: dict[str, Any] | str | None = None,
        on_timeout: dict[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.script_args = script_args
        self.run_job_kwargs = run_job_kwargs
        self.worker_type = worker_type
        self.number_of_workers = number_of_workers
        self.max_capacity = max_capacity
        self.attempt_timeout = attempt_timeout
        self.execution_class = execution_class
        self.security_configuration = security_configuration
        self.script = script
        self.script_prefix = script_prefix
        self.update_job = update_job
        self.on_out_of_memory = on_out_of_memory
        self.on_timeout = on_timeout

    def check(self) -> None:
        """Validate the parameters; see the base."""
        params.reject(self, exit_codes.NOT_FOR_GLUE)
        super().check()

    def _job_spec(self) -> GlueRunSpec:
        dag = dag_in(vars(self))
        return GlueRunSpec(RUN_PARAMETERS.of(self), dag.folder if dag else "")
