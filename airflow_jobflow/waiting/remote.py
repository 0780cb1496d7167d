"""The jobs of one task in AWS: describes them, stops them, and runs other calls of their service. Blocks.

Invariants:

- A call that fails is repeated for a minute at most, and not beyond the deadline of the task.
- A job that cannot be described now is no error here: the watcher of the trigger deals with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.jobs.wording import sentence

if TYPE_CHECKING:
    from airflow_jobflow.aws import Access, Retry, ServiceClient
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.ui.task_report import TaskReport

Result = TypeVar("Result")

PATIENCE = 60.0
"""Seconds for which a call that fails is repeated before the try fails, so that an outage does not use up retries."""

STOP_PATIENCE = 300.0
"""Seconds for which stopping a job is repeated. A killed worker has less: Airflow ends its process before."""


class RemoteJobs:
    """The jobs of one task in AWS.

    :param service: our name of the service, such as ``batch``.
    :param access: the AWS connection to use.
    :param report: receives what is found of failed children, and which jobs were stopped.
    :param log: the task's log.
    :param log_lines: how many of the last lines of a log an error quotes.
    :param scope: the cluster or Glue job that calls are confined to. Default None: the service has none.
    :param container: the name of the container that counts. Default None: AWS's rules decide.
    :param name: the user's name of the job, for messages on a job that was never described. Default: not known.
    """

    def __init__(
        self,
        service: str,
        access: Access,
        report: TaskReport,
        log: Any,
        *,
        log_lines: int,
        scope: str | None = None,
        container: str | None = None,
        name: str = "",
    ) -> None:
        from airflow_jobflow.jobs import service as service_module
        from airflow_jobflow.outcomes import OutcomeBuilder

        self.service = service
        self.access = access
        self.scope = scope
        self.container = container
        self.module = service_module(service)
        self.display_name = self.module.DISPLAY_NAME
        """What messages call such a job: ``Batch job``."""
        self.call_deadline: float | None = None
        """When failed calls are no longer repeated, in seconds since the epoch; None for no such limit."""
        self.outcome_builder = OutcomeBuilder(
            service=service,
            module=self.module,
            access=access,
            log_lines=log_lines,
            container=container,
            name=name,
            children=report.failed_children,
        )
        """Builds outcomes and errors."""
        self._report = report
        self.log = log

    @property
    def origin(self) -> str:
        """The connection and the region that are used, for messages: ``aws_default in eu-west-1``."""
        return self.client.origin

    @property
    def client(self) -> ServiceClient:
        """The client that makes the calls."""
        from airflow_jobflow.aws import service_client

        return service_client(self.access, self.module.CLIENT)

    @property
    def region(self) -> str:
        """The region that is used.

        :raises CallError: it cannot be resolved.
        """
        return self.call(lambda call: str(call.region))

    def call(
        self,
        function: Callable[..., Result],
        *arguments: object,
        retry: Retry | None = None,
        past_deadline: bool = False,
        client: str | None = None,
    ) -> Result:
        """Run a function of ``jobs/`` that makes API calls, and repeat it if it fails.

        :param function: receives the object that makes calls, then the arguments.
        :param arguments: further arguments of the function.
        :param retry: when it is repeated. Default: for a minute.
        :param past_deadline: whether it is also repeated after the task's deadline. Default False.
        :param client: the boto3 client of another service that makes the calls, such as ``s3``. Default None.
        :return: what the function returns.
        :raises CallError: it failed, and is not repeated.
        """
        from airflow_jobflow.aws import Retry, run_blocking, service_client

        retry = retry or Retry(PATIENCE)
        if self.call_deadline is not None and not past_deadline:
            retry = retry.until(self.call_deadline)
        made_by = service_client(self.access, client) if client else self.client
        return run_blocking(made_by, function, *arguments, retry=retry)

    def describe(self, call: Call, job_ids: Sequence[str]) -> dict[str, Snapshot]:
        """Describe jobs; unknown ones are left out.

        :param call: makes the calls.
        :param job_ids: the ids of the jobs.
        :raises CallError: they cannot be described.
        """
        seen: dict[str, Snapshot] = {}
        size = self.module.BATCH_SIZE
        for start in range(0, len(job_ids), size):
            answers = self.module.describe(call, job_ids[start : start + size], self.scope)
            seen |= {job_id: each.counting(self.container) for job_id, each in answers.items() if each}
        return seen

    def describe_now(self, job_ids: Sequence[str], *, retry: Retry | None = None) -> dict[str, Snapshot]:
        """Describe jobs; those that are unknown, or cannot be described now, are left out.

        :param job_ids: the ids of the jobs.
        :param retry: when a failed call is repeated. Default: for a minute.
        """
        from airflow_jobflow.faults import CallError

        try:
            return self.call(self.describe, job_ids, retry=retry)
        except CallError as error:
            self.log.warning("Could not describe %s now (connection: %s): %s", self.called(job_ids), self.origin, error)
            return {}

    def called(self, job_ids: Sequence[str]) -> str:
        """Return how messages name jobs of which only the ids are known.

        :param job_ids: the ids of the jobs.
        """
        return self.outcome_builder.called(job_ids, {})

    def stop(self, job_ids: Sequence[str], reason: str) -> None:
        """Stop jobs; one that has ended already stays as it is.

        :param job_ids: the ids of the jobs.
        :param reason: for AWS and for the log.
        :raises CallError: some could not be stopped; the first error, after all were tried.
        """
        from airflow_jobflow.aws import Retry
        from airflow_jobflow.faults import CallError

        retry = Retry(STOP_PATIENCE, denied_patience=STOP_PATIENCE)
        errors: list[Exception] = []
        for job_id in job_ids:
            self.log.info("Stopping %s %s: %s", self.display_name, job_id, reason)
            try:
                self.call(self.module.stop, job_id, self.scope, reason, retry=retry, past_deadline=True)
            except CallError as error:
                self.log.error(  # noqa: TRY400
                    "Could not stop %s %s, and it may still run: %s", self.display_name, job_id, error
                )
                errors.append(error)
            else:
                self.log.info("Stopped %s %s", self.display_name, job_id)
                self._report.stops[job_id] = datetime.now(UTC).isoformat(timespec="milliseconds")
        if errors:
            raise errors[0]

    def try_to_stop(self, job_ids: Sequence[str], reason: str) -> str:
        """Stop jobs, and return a sentence that says whether they were stopped.

        :param job_ids: the ids of the jobs.
        :param reason: for AWS and for the log.
        """
        from airflow_jobflow.faults import CallError

        try:
            self.stop(job_ids, reason)
        except CallError as error:
            return f"It could not be stopped, so stop it in the console: {sentence(str(error))}"
        return "It was stopped."

    def check_containers(self, function: Callable[..., Sequence[str] | None], definition: str, *names: str) -> None:
        """Check that the containers exist that the parameters name. Makes a call if there is a name.

        :param function: returns the names of a definition's containers; None if there is no such definition.
        :param definition: the argument of ``function``.
        :param names: names to check besides ``container``.
        :raises InvalidParameter: the definition has no such container.
        """
        from airflow_jobflow.aws import ONCE
        from airflow_jobflow.faults import CallError

        given = [each for each in (self.container, *names) if each is not None]
        if not given:
            return
        try:
            known = self.call(function, definition, retry=ONCE)
        except CallError as error:  # a missing permission, or an error that the submit meets as well
            self.log.warning("Could not check whether %s has a container %s: %s", definition, ", ".join(given), error)
            return
        for name in given:
            if known is not None and name not in known:
                rule = f"must be one of the named containers of {definition}, which has {', '.join(known) or 'none'}"
                raise invalid_parameter("container_name", name, rule)
