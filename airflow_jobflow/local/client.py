"""The client of a local AWS, which runs in this or another process.

Invariants: it uses boto3 for calls to AWS, and plain HTTP without a proxy for the control API of the server.
"""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal

import boto3

from airflow_jobflow.local.console.html import console_url
from airflow_jobflow.local.metadata import CONTAINER, PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_jobflow.local.faults import Faults

REGION: Final = "us-east-1"
ACCESS_KEY: Final = "jobflowlocal"
SECRET_KEY: Final = "jobflowlocal"
Credentials = Literal["static", "container", "instance"]
"""Where boto3 gets its keys."""


class LocalAwsClient:
    """A client of a local AWS in this or another process.

    :param endpoint_url: ``http://127.0.0.1:<port>``, as printed by the server.
    """

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        self._session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
        self._session_lock = threading.Lock()

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client for this AWS.

        :param service: the service.
        :param options: options of ``boto3.Session.client``.
        """
        make: Any = self._session.client  # typed by service, which is not known here
        with self._session_lock:
            return make(service, **{"endpoint_url": self.endpoint_url, **options})

    @property
    def console_url(self) -> str:
        """The address of its console pages, for ``[jobflow] console_url``."""
        return console_url(self.endpoint_url)

    def environment(self, credentials: Credentials = "static") -> dict[str, str]:
        """Return environment variables with which boto3 uses only this AWS.

        :param credentials: where boto3 gets its keys: ``static`` ones from the environment (the default), or from this
            AWS's metadata service like a ``container`` on ECS or an ``instance`` on EC2.
        """
        return environment(self.endpoint_url, credentials)

    @property
    def calls(self) -> Counter[str]:
        """The number of received calls by name (``batch.DescribeJobs``), including rejected ones."""
        return Counter(self._ask("calls"))

    def set_faults(self, faults: Faults) -> None:
        """Replace the active faults.

        :param faults: the new faults; ``Faults()`` switches all off.
        """
        self._ask("faults", faults.to_json())

    def interrupt(
        self,
        job_id: str,
        *,
        status_reason: str,
        container_reason: str | None = None,
        exit_code: int | None = None,
    ) -> None:
        """End the attempt of a Batch job as AWS would, for example for a Spot interruption.

        :param job_id: the job.
        :param status_reason: such as ``Host EC2 (instance i-0abc) terminated.`` for a Spot interruption.
        :param container_reason: such as ``OutOfMemoryError: Container killed due to memory usage``. Default: none.
        :param exit_code: such as 137. Default: none.
        :raises ValueError: the job has no attempt that is starting or running.
        """
        self._ask(
            "interrupt",
            {
                "service": "batch",
                "job_id": job_id,
                "status_reason": status_reason,
                "container_reason": container_reason,
                "exit_code": exit_code,
            },
        )

    def interrupt_task(
        self,
        task_arn: str,
        *,
        stop_code: str | None = None,
        stopped_reason: str | None = None,
        container_reason: str | None = None,
        exit_code: int | None = None,
    ) -> None:
        """End an ECS task as AWS would.

        :param task_arn: the task.
        :param stop_code: one of ECS's stop codes. Default: that of a Spot interruption; for a task on an instance, that
            of the instance's end.
        :param stopped_reason: the reason. Default: the usual one of AWS for the stop code.
        :param container_reason: such as ``OutOfMemoryError: Container killed due to memory usage``. Default: none.
        :param exit_code: of its containers. Default: the one with which they end; none for TaskFailedToStart and
            InfrastructureHealth.
        :raises ValueError: the stop code is unknown, or the task is not running.
        """
        self._ask(
            "interrupt",
            {
                "service": "ecs",
                "job_id": task_arn,
                "stop_code": stop_code,
                "stopped_reason": stopped_reason,
                "container_reason": container_reason,
                "exit_code": exit_code,
            },
        )

    def interrupt_crawl(self, crawler_name: str, *, message: str = "Internal Service Exception") -> None:
        """Make the crawl of a crawler fail with an internal error of AWS.

        :param crawler_name: the crawler.
        :param message: the error message. Default: ``Internal Service Exception``.
        :raises ValueError: the crawler is not running.
        """
        self._ask("interrupt", {"service": "glue", "job_id": crawler_name, "message": message})

    def interrupt_run(self, run_id: str, *, message: str = "Internal service error") -> None:
        """Make a Glue job run end in ERROR with an internal error of AWS.

        :param run_id: the job run.
        :param message: the error message. Default: ``Internal service error``.
        :raises ValueError: the job run is not running.
        """
        self._ask("interrupt", {"service": "glue", "job_id": run_id, "message": message})

    def started(self, service: str) -> list[dict[str, Any]]:
        """Return everything that a service has started, oldest first, including what can no longer be described.

        Array jobs are listed without their children.

        :param service: ``batch``, ``ecs`` or ``glue``.
        """
        answer: list[dict[str, Any]] = self._ask("started", {"service": service})
        return answer

    def health(self) -> dict[str, Any]:
        """Return the server's status, process id and account."""
        answer: dict[str, Any] = self._ask("health")
        return answer

    def _ask(self, name: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.endpoint_url}/jobflow-local/{name}", data)  # noqa: S310 -- http only
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None


def environment(endpoint_url: str, credentials: Credentials = "static") -> dict[str, str]:
    """Return environment variables with which boto3 uses only one local AWS.

    :param endpoint_url: the address of the local AWS.
    :param credentials: where boto3 gets its keys, see `LocalAwsClient.environment`.
    """
    keys: Mapping[Credentials, Mapping[str, str]] = {
        "static": {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
        "container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{endpoint_url}{PREFIX}{CONTAINER}"},
        "instance": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{endpoint_url}{PREFIX}"},
    }
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY", os.environ.get("no_proxy")), "127.0.0.1,localhost"]))
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        **keys[credentials],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "false" if credentials == "instance" else "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": direct,
        "no_proxy": direct,
    }
