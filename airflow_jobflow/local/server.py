"""The server of the local AWS, on its own thread.

Invariants:

- It listens on a loopback address unless remote code execution is explicitly allowed.
- All processes that it started end with it, and moto drops its account.
- Each server has its own account, so that several servers in a process share nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Self

from airflow_jobflow.local.application import Application, forget_buckets
from airflow_jobflow.local.batch.api import Batch
from airflow_jobflow.local.client import LocalAwsClient
from airflow_jobflow.local.console.app import Console
from airflow_jobflow.local.ecs.api import Ecs
from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.fault_box import FaultBox
from airflow_jobflow.local.faults import Faults
from airflow_jobflow.local.glue.api import Glue
from airflow_jobflow.local.listener import Listener
from airflow_jobflow.local.logs import Logs
from airflow_jobflow.local.moto_backends import Resources, forget_account, region_exists
from airflow_jobflow.local.processes import Processes
from airflow_jobflow.local.service import Ledger, Service, Shared
from airflow_jobflow.local.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

FIRST_ACCOUNT: Final = 123456789012
LOOPBACK: Final = "127.0.0.1"

SERVICES: Final[Mapping[str, Callable[[Shared], Service]]] = {
    "batch": Batch,
    "ecs": Ecs,
    "glue": Glue,
    "logs": Logs,
}
"""The services that are not completely moto's; called for each region."""

_accounts: set[int] = set()
_accounts_lock = threading.Lock()


class LocalAws(LocalAwsClient):
    """A local AWS in this process, on its own thread. A context manager.

    :param port: the port. Default 0: a free one.
    :param slots: the maximum number of jobs at a time. Default 4.
    :param settings: durations that differ from AWS. Default: see `Settings`.
    :param host: the address to listen on. Default: loopback; others need `allow_remote_code_execution`.
    :param allow_remote_code_execution: allow other hosts: everybody who can reach the port can run commands as this
        user. Default False.
    """

    def __init__(
        self,
        port: int = 0,
        slots: int = 4,
        *,
        settings: Settings | None = None,
        host: str = LOOPBACK,
        allow_remote_code_execution: bool = False,
    ) -> None:
        if not allow_remote_code_execution and not _is_loopback(host):
            raise ValueError(
                f"The local AWS runs any command that it receives, so by default it does not listen on {host}, where "
                f"others could send commands. Use {LOOPBACK}, or set allow_remote_code_execution"
            )
        super().__init__("")
        self._host = host
        self._port = port
        self._slots = slots
        self._settings = settings or Settings()
        self._faults = FaultBox()
        self._ledger = Ledger()
        self._services: dict[tuple[str, str], Service] = {}
        """By name and region."""
        self._services_lock = threading.Lock()
        self._listener: Listener | None = None
        self._outage_lock = threading.Lock()
        """Held while the faults and the listener change together."""
        self._stopped = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start listening, and set `endpoint_url`."""
        _forget_clients()
        self.account_id = _take_account()
        application = Application(
            self.account_id,
            self._faults,
            lambda call: self._service(call.service, call.region) if call.service in SERVICES else None,
            {
                "faults": self._control_faults,
                "calls": lambda _: dict(self.calls),
                "interrupt": self._control_interrupt,
                "started": lambda body: self._ledger.started(**body),
                "health": lambda _: {"status": "ok", "pid": os.getpid(), "account_id": self.account_id},
            },
            console=Console(self.account_id, self._asked_by_console, self._regions, self._ledger),
        )
        try:
            self._listener = Listener(self._host, self._port, application)
        except (OSError, SystemExit):
            _return_account(self.account_id)
            raise
        reachable = LOOPBACK if self._host in ("0.0.0.0", "::") else self._host  # noqa: S104 -- not bound here
        self.endpoint_url = f"http://{reachable}:{self._listener.port}"
        self._processes = Processes(self._slots, self.environment)
        self._listener.start()

    def stop(self) -> None:
        """Stop listening, kill all jobs, and drop all data."""
        _forget_clients()
        if self._stopped:
            return
        self._stopped = True
        self._faults.set(Faults())
        if self._listener is not None:
            self._listener.stop()
        self._processes.close()
        for service in self._services.values():
            service.close()
        forget_buckets(self.account_id)
        forget_account(self.account_id)
        _return_account(self.account_id)

    @property
    def calls(self) -> Counter[str]:
        """The number of received calls by name (``batch.DescribeJobs``), including rejected ones."""
        return self._faults.count()

    def set_faults(self, faults: Faults) -> None:
        """Replace the active faults.

        :param faults: the new faults; ``Faults()`` switches all off, and ends an outage.
        """
        with self._outage_lock:
            self._faults.set(faults)
            if faults.outage:
                assert faults.lasts is not None
                assert self._listener is not None, "not started"
                self._listener.close_for(faults.lasts)
            elif self._listener is not None:
                self._listener.open()

    def _service(self, name: str, region: str) -> Service:
        with self._services_lock:
            service = self._services.get((name, region))
            if service is None:
                if not region_exists(self.account_id, region):
                    raise AwsError("InvalidSignatureException", "Credential should be scoped to a valid region.", 403)
                resources = Resources(self.account_id, region)
                service = SERVICES[name](Shared(resources, self._processes, self._settings, self._faults, self._ledger))
                self._services[name, region] = service
            return service

    def _asked_by_console(self, service: str, region: str, action: str, request: dict[str, Any]) -> Mapping[str, Any]:
        return self._service(service, region).actions[action](request, 0) or {}

    def _regions(self, name: str) -> list[str]:
        """Return the regions in which a service was used; for an empty name, those of all services."""
        with self._services_lock:
            return sorted({region for service, region in self._services if name in (service, "")})

    def _control_faults(self, body: dict[str, Any]) -> dict[str, Any]:
        self.set_faults(Faults.from_json(body))
        return self._faults.faults.to_json()

    def _control_interrupt(self, body: dict[str, Any]) -> dict[str, Any]:
        name, job_id = body.pop("service", "batch"), body.pop("job_id")
        for member, value in body.items():
            if value is not None and not isinstance(value, int if member == "exit_code" else str):
                raise ValueError(f"{member} cannot be {value!r}")
        with self._services_lock:
            services = [service for (of, _), service in self._services.items() if of == name]
        if not any(service.interrupt(job_id, **body) for service in services):
            raise ValueError(f"{job_id} is neither starting nor running: nothing to interrupt")
        return {}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _take_account() -> str:
    with _accounts_lock:
        number = FIRST_ACCOUNT
        while number in _accounts:
            number += 1
        _accounts.add(number)
        return str(number)


def _return_account(account: str) -> None:
    with _accounts_lock:
        _accounts.discard(int(account))


def _forget_clients() -> None:
    """Drop the cached clients of this package's operators in this process, because the environment changes.

    The module is not imported for this, because a server alone does not need Airflow.
    """
    if clients := sys.modules.get("airflow_jobflow.aws.clients"):
        clients.forget_clients()
