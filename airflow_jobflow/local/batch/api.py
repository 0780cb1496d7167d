"""Batch's calls for jobs, in one account and region. They replace those of moto; queues, compute environments and job
definitions remain moto's. Errors of moto's in creating compute environments and definitions are corrected.

Invariants: a handler receives the validated request and its length. It returns the response or raises the error of AWS.
Jobs are accessed under the lock of `jobs.Jobs`.
"""

from __future__ import annotations

import base64
import uuid
from typing import TYPE_CHECKING

from airflow_jobflow.local.batch import model, validation
from airflow_jobflow.local.batch.attempts import Attempts
from airflow_jobflow.local.batch.job import Ending, Job, Submission
from airflow_jobflow.local.batch.jobs import now
from airflow_jobflow.local.errors import ClientException, rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_jobflow.local.batch.model import Json
    from airflow_jobflow.local.service import Shared


class Batch:
    """The API of Batch for the jobs of one account and region.

    :param shared: what the services share.
    """

    def __init__(self, shared: Shared) -> None:
        self._resources = shared.resources
        self._ledger = shared.ledger
        self._attempts = Attempts(shared.resources, shared.processes, shared.settings, shared.faults)
        self._jobs = self._attempts.jobs
        self._faults = shared.faults
        self.actions: dict[str, Callable[[Json, int], Json | None]] = {
            "CreateComputeEnvironment": self._create_compute_environment,
            "SubmitJob": self._submit_job,
            "DescribeJobs": self._describe_jobs,
            "ListJobs": self._list_jobs,
            "CancelJob": self._cancel_job,
            "TerminateJob": self._terminate_job,
            "GetJobQueueSnapshot": self._get_job_queue_snapshot,
            "RegisterJobDefinition": self._register_job_definition,
        }
        """Handlers by action."""
        self.checks: dict[str, Callable[[Json], None]] = {}
        """Checks by action, for calls that moto handles."""

    def close(self) -> None:
        """Deliver the last events. Call it when the processes have ended."""
        self._jobs.close()

    def reconsider(self) -> None:
        """Run jobs that waited for a compute environment, after a queue or compute environment has changed."""
        self._attempts.reconsider()

    def interrupt(
        self,
        job_id: str,
        status_reason: str,
        container_reason: str | None = None,
        exit_code: int | None = None,
    ) -> bool:
        """End the attempt of a job as AWS would, and return whether it has one.

        :param job_id: the job.
        :param status_reason: the status reason of the attempt.
        :param container_reason: the reason of the container. Default: none.
        :param exit_code: the exit code. Default: none.
        """
        job = self._jobs.by_id.get(job_id)
        ending = Ending(status_reason, container_reason, exit_code, retried=True)
        return job is not None and self._attempts.end(job, ending)

    def _create_compute_environment(self, request: Json, _length: int) -> Json:
        """CreateComputeEnvironment."""
        created = self._resources.create_environment(request)
        return {"computeEnvironmentName": created.name, "computeEnvironmentArn": created.arn}

    def _submit_job(self, request: Json, length: int) -> Json:
        """SubmitJob."""
        if why := validation.submission_error(request, length):
            raise rejected(why)
        queue = self._resources.queue(request["jobQueue"])
        if queue is None:
            raise ClientException(f"JobQueue {request['jobQueue']} not found.")
        if queue.state == "DISABLED":
            raise ClientException(f"JobQueue {request['jobQueue']} is not in ENABLED state.")
        definition = self._resources.definition(request["jobDefinition"])
        if definition is None:
            raise ClientException(_no_definition(request["jobDefinition"]))
        if why := validation.cannot_run(definition, request):
            raise ClientException(why)
        containers = model.containers_of(definition, request)
        if len(containers) == 1 and (why := validation.size_error(definition, containers[0])):
            raise rejected(why)
        submission = Submission(
            job_id=str(uuid.uuid4()),
            request=request,
            definition=definition,
            queue_arn=queue.arn,
            containers=containers,
            account=self._resources.account,
            region=self._resources.region,
        )
        with self._jobs.changing():
            job = self._jobs.create(submission)
        self._ledger.record("batch", {"jobId": job.job_id, "jobName": request["jobName"], "jobQueue": queue.arn})
        if tags := request.get("tags"):
            self._resources.tag(job.arn, tags)
        return {"jobArn": job.arn, "jobName": request["jobName"], "jobId": job.job_id}

    def _register_job_definition(self, request: Json, _length: int) -> Json:
        """RegisterJobDefinition."""
        if why := validation.definition_error(request):
            raise rejected(why)
        return self._resources.register_definition(request)

    def _describe_jobs(self, request: Json, _length: int) -> Json:
        """DescribeJobs."""
        job_ids = request.get("jobs") or []
        if not job_ids:
            raise rejected("jobs cannot be empty")
        if len(job_ids) > model.MAX_DESCRIBED:
            raise rejected(f"Maximum number of jobs supported is  {model.MAX_DESCRIBED} .")
        for job_id in job_ids:
            if not model.JOB_ID.fullmatch(job_id):
                raise ClientException(f"Provided name {job_id} is not supported pattern[a-zA-Z_0-9-]{{1,128}}")
        with self._jobs.lock:
            found = [self._visible(job_id) for job_id in dict.fromkeys(job_ids)]
            return {"jobs": [self._detail(job) for job in found if job]}

    def _list_jobs(self, request: Json, _length: int) -> Json:
        """ListJobs."""
        scopes = [name for name in ("jobQueue", "arrayJobId", "multiNodeJobId") if request.get(name)]
        if len(scopes) != 1:
            raise rejected("Exactly one of jobQueue, arrayJobId, multiNodeJobId must be specified")
        filters = request.get("filters", [])
        if len(filters) > 1:
            raise rejected("Only one filter can be used at a time")
        for each in filters:
            if each.get("name") not in model.FILTERS or not each.get("values"):
                raise rejected(f"Filter {each.get('name')} is not supported or has no values")
            if each["name"].endswith("_CREATED_AT") and not each["values"][0].isdecimal():
                raise rejected(f"Filter {each['name']} takes milliseconds since the epoch, not {each['values'][0]}")
        with self._jobs.lock:
            jobs = self._listed(request, scopes[0], filters)
            start = _position(request.get("nextToken"))
            rest = [job for job in jobs if job.number < start]
            page = rest[: _page_size(request.get("maxResults"))]
            answer: Json = {"jobSummaryList": [job.summary() for job in page]}
        if len(page) < len(rest):
            answer["nextToken"] = base64.urlsafe_b64encode(str(page[-1].number).encode()).decode()
        return answer

    def _cancel_job(self, request: Json, _length: int) -> Json:
        """CancelJob: ends a job that has not started; succeeds for all others."""
        job_id, reason = _required(request, "jobId"), _required(request, "reason")
        with self._jobs.changing():
            job = self._jobs.by_id.get(job_id)
            if job is not None:
                self._jobs.cancel(job, reason)
        return {}

    def _terminate_job(self, request: Json, _length: int) -> Json:
        """TerminateJob: ends a job in any status; an ended one is not changed."""
        job_id, reason = _required(request, "jobId"), _required(request, "reason")
        with self._jobs.changing():
            job = self._jobs.by_id.get(job_id)
            if job is not None:
                self._jobs.terminate(job, reason)
        return {}

    def _get_job_queue_snapshot(self, request: Json, _length: int) -> Json:
        """GetJobQueueSnapshot: the first hundred runnable jobs of a queue."""
        queue = self._resources.queue(_required(request, "jobQueue"))
        if queue is None:
            raise ClientException(f"JobQueue {request['jobQueue']} not found.")
        with self._jobs.lock:
            waiting = [
                job
                for job in self._jobs.by_id.values()
                if job.status == model.RUNNABLE and job.submission.queue_arn == queue.arn
            ]
            waiting.sort(key=lambda job: (job.runnable_at or 0, -job.number))
            front = [{"jobArn": job.arn, "earliestTimeAtPosition": job.runnable_at} for job in waiting[:100]]
        return {"frontOfQueue": {"jobs": front, "lastUpdatedAt": now()}}

    def _detail(self, job: Job) -> Json:
        return job.detail(model.MISCONFIGURED if self._attempts.is_stuck(job) else None)

    def _visible(self, job_id: str) -> Job | None:
        job = self._jobs.by_id.get(job_id)
        hidden = job is not None and self._faults.hides((now() - job.created_at) / 1000, job.arn)
        return None if hidden else job

    def _listed(self, request: Json, scope: str, filters: Sequence[Json]) -> list[Job]:
        """Return the jobs that ListJobs returns, in their order."""
        if scope == "multiNodeJobId":
            return []
        if scope == "arrayJobId":
            parent = self._visible(request["arrayJobId"])
            jobs, filters = (parent.children if parent else []), []
        else:
            queue = self._resources.queue(request["jobQueue"])
            if queue is None:
                raise ClientException(f"JobQueue {request['jobQueue']} not found.")
            mine = (job for job in reversed(self._jobs.by_id.values()) if job.submission.queue_arn == queue.arn)
            jobs = [job for job in mine if job.parent is None and self._visible(job.job_id)]
        for each in filters:
            jobs = [job for job in jobs if model.matches_filter(job.summary(), each["name"], each["values"])]
        status = request.get("jobStatus")
        if not filters or (filters[0]["name"] == "SHARE_IDENTIFIER" and status):
            jobs = [job for job in jobs if job.status == (status or model.RUNNING)]
        return jobs


def _required(request: Json, name: str) -> str:
    value: str = request.get(name) or ""
    if not value:
        raise ClientException(f"'{name}' is a required field (cannot be an empty string)")
    return value


def _no_definition(identifier: str) -> str:
    if identifier.startswith("arn:"):
        return f"JobDefinition {identifier} not found."
    return f"JobDefinition name {identifier} does not exist or is not in ACTIVE status"


def _position(token: str | None) -> float:
    if token is None:
        return float("inf")
    try:
        return int(base64.urlsafe_b64decode(token.encode()))
    except ValueError:
        raise rejected("Invalid nextToken") from None


def _page_size(asked: int | None) -> int:
    if asked is None:
        return model.MAX_LISTED
    if not 1 <= asked <= model.MAX_LISTED:
        raise rejected(f"maxResults must be between 1 and {model.MAX_LISTED}")
    return asked
