"""The clients of this process: one for each connection, region and service, with what their calls share.

A ``ServiceClient`` owns the boto3 client (``boto3_client``), a bounded pool of threads and the rate limiters. Describe,
submit, stop, log and queue calls go through it. They differ only in their rate, and in what is repeated.

Invariants:

- Calls of one connection never wait for another connection: each client has its own lock and threads.
- Clients of one Airflow connection, region and service share their rate limits, whatever else differs.
- Nothing here blocks an event loop, and nothing belongs to one: a client serves any loop and any thread.
- A forked process starts without clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import conf

from airflow_jobflow.aws import connection
from airflow_jobflow.aws.boto3_client import LIFETIME, Boto3Client
from airflow_jobflow.aws.rate_limit import RateLimiter
from airflow_jobflow.faults import CallError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from airflow_jobflow.aws.connection import Access

Result = TypeVar("Result")

MAX_THREADS = 16
"""Calls of one client under way at once. With a third of a second each, that is fifty a second."""

LONG_POLL = {"sqs": 20.0}
"""Seconds for which a service may hold a request until it has something to return."""


class Rate(Enum):
    """The two kinds of calls that have a rate limit of their own."""

    POLL = "poll"
    """Describe calls for waits: ``[jobflow] describe_calls_per_second``."""
    ACTION = "action"
    """Calls that start, find or stop jobs, and reads of logs and queues."""


ACTIONS_PER_SECOND = {"batch": 50.0, "ecs": 20.0, "glue": 10.0, "sqs": 100.0, "s3": 200.0}
"""AWS's default quotas per account; for ECS that of RunTask on Fargate. That of logs is ``[jobflow]
log_calls_per_second``. S3 takes more for each prefix."""


class ServiceClient:
    """Calls one AWS service through one connection. Get it from ``service_client``.

    :param access: the AWS connection to use.
    :param name: boto3's name of the service, such as ``batch``.
    :param clock: returns the time in seconds.
    """

    def __init__(self, access: Access, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.access = access
        self.name = name
        self.timeout = conf.getfloat("jobflow", "request_timeout") + LONG_POLL.get(name, 0.0)
        """Seconds after which a request without a response has failed."""
        self.memory: dict[Hashable, tuple[float, Any]] = {}
        """What functions in ``jobs/`` have read, see ``jobs.calls``."""
        self._clock = clock
        self._tags_after = float("-inf")
        """When jobs are started with tags again, after AWS has denied that."""
        self._limiters = _limiters_for(access.key, name)
        self._boto3 = Boto3Client(access, name, timeout=self.timeout, clock=clock, on_built=self._share_limiters)
        self._building: Future[None] | None = None
        """The latest attempt to build the boto3 client, on which callers wait before their turn."""
        self._building_lock = threading.RLock()  # never held while waiting
        self._pools: dict[bool, ThreadPoolExecutor] = {}
        """The thread pools, by whether their functions may wait for minutes."""

    @property
    def may_tag(self) -> bool:
        """Whether jobs are started with tags. After AWS has denied it, not for ``LIFETIME``.

        Not for longer, because a policy may change, and the orphan reaper does not find jobs without tags.
        """
        return self._clock() >= self._tags_after

    @may_tag.setter
    def may_tag(self, may: bool) -> None:
        self._tags_after = float("-inf") if may else self._clock() + LIFETIME

    def limiter(self, rate: Rate) -> RateLimiter:
        """Return the rate limiter of a kind of calls. Clients of the same connection and region share it.

        :param rate: the kind of calls.
        """
        return self._limiters[rate]

    async def acquire(self, rate: Rate) -> float:
        """Wait for a turn without blocking the event loop.

        :param rate: the kind of calls.
        :return: when the turn came, in seconds by the limiter's clock.
        """
        while True:
            await self._wait_for_build()
            limiter = self.limiter(rate)
            turn_at = await limiter.acquire()
            if limiter is self.limiter(rate):  # otherwise the region has become known meanwhile
                return turn_at

    def acquire_blocking(self, rate: Rate, *, goes_on: bool = False) -> float:
        """Wait for a turn, blocking this thread.

        :param rate: the kind of calls.
        :param goes_on: whether this is a further call of a function that has started. Default False.
        :return: when the turn came, in seconds by the limiter's clock.
        """
        while True:
            self._try_to_build()
            limiter = self.limiter(rate)
            turn_at = limiter.acquire_blocking(goes_on=goes_on)
            if limiter is self.limiter(rate):
                return turn_at

    async def _wait_for_build(self) -> None:
        """Wait until the client is built, or building it failed: calls whose turns come meanwhile would be a burst."""
        if self._boto3.is_built:
            return
        with self._building_lock:
            if self._building is None or self._building.done():
                self._building = self.start(self._try_to_build)  # one for all callers
            building = self._building
        await asyncio.wait({asyncio.wrap_future(building)}, timeout=2 * self.timeout)

    def _try_to_build(self) -> None:
        with contextlib.suppress(CallError):  # the call raises it
            self._boto3.meta()

    def _share_limiters(self, region: str) -> None:
        """Use the rate limiters of the connection and region: those of its first client, on which others may wait."""
        with _registry_lock:
            key = f"{self.access.aws_conn_id} {region}", self.name
            self._limiters = _limiters.setdefault(key, self._limiters)

    def turns(self, rate: Rate) -> Turns:
        """Return the rate limit in the form that a ``Watcher`` takes.

        :param rate: the kind of calls.
        """
        return Turns(self, rate)

    def start(self, function: Callable[..., Result], *arguments: object, patiently: bool = False) -> Future[Result]:
        """Run a function in a thread of this client. It runs to its end, even if nobody waits for its result.

        :param function: what to run.
        :param arguments: for the function.
        :param patiently: whether it may wait for minutes, so that it must not use a thread that describe calls need.
            Default False.
        :return: its future result.
        """
        with _registry_lock:
            if patiently not in self._pools:
                prefix = f"jobflow-{self.name}-start" if patiently else f"jobflow-{self.name}"
                self._pools[patiently] = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix=prefix)
            return self._pools[patiently].submit(function, *arguments)

    @property
    def region(self) -> str:
        """The region that is called. Blocks if the client has to be built."""
        return str(self._boto3.meta().region_name)

    @property
    def origin(self) -> str:
        """The connection and the region, for messages: ``aws_default in eu-west-1``.

        Blocks if the client has to be built. Without the region if that fails and the task does not name one.
        """
        try:
            return self.access.named(self.region)
        except CallError:
            return str(self.access)

    @property
    def partition(self) -> str:
        """The AWS partition of the region. Blocks if the client has to be built."""
        return str(self._boto3.meta().partition)

    def invoke(self, operation: str, parameters: dict[str, Any], valid_until: float = float("inf")) -> Any:
        """Make one call, once, and return the response. Blocks.

        :param operation: boto3's name of the operation, such as ``describe_jobs``.
        :param parameters: those of the boto3 method.
        :param valid_until: when the request must not be sent any more, in seconds since the epoch. Default: never.
        :raises CallError: there was no response, AWS refused the call, or it was not sent in time.
        """
        return self._boto3.invoke(operation, parameters, valid_until)


class Turns:
    """The rate limit of a client, which changes when its region becomes known.

    :param client: the client.
    :param rate: the kind of calls.
    """

    def __init__(self, client: ServiceClient, rate: Rate) -> None:
        self._client = client
        self._rate = rate

    @property
    def budget(self) -> float:
        """Calls a second that are allowed at most."""
        return self._client.limiter(self._rate).budget

    @property
    def rate(self) -> float:
        """Calls a second that are allowed now."""
        return self._client.limiter(self._rate).rate

    async def acquire(self) -> float:
        """Wait for the next turn; return when it came, in seconds by the limiter's clock."""
        return await self._client.acquire(self._rate)


_registry_lock = threading.RLock()
_clients: dict[tuple[str, str], ServiceClient] = {}
_limiters: dict[tuple[str, str], dict[Rate, RateLimiter]] = {}


def service_client(access: Access, name: str) -> ServiceClient:
    """Return this process's client of a service. Does not block: the boto3 client is built by its first call.

    :param access: the AWS connection to use.
    :param name: boto3's name of the service, such as ``batch``.
    """
    with _registry_lock:
        key = access.key, name
        if key not in _clients:
            _clients[key] = ServiceClient(access, name)
        return _clients[key]


def _limiters_for(key: str, name: str) -> dict[Rate, RateLimiter]:
    """Return the rate limiters for the parameters of a connection, to use until its region is known."""
    with _registry_lock:
        if (key, name) not in _limiters:
            budgets = {
                Rate.POLL: conf.getfloat("jobflow", "describe_calls_per_second"),
                Rate.ACTION: ACTIONS_PER_SECOND.get(name) or conf.getfloat("jobflow", "log_calls_per_second"),
            }
            _limiters[key, name] = {rate: RateLimiter(budget) for rate, budget in budgets.items()}
        return _limiters[key, name]


def forget_clients() -> None:
    """Forget all clients, as a forked process does. Calls under way end normally."""
    global _registry_lock  # noqa: PLW0603 -- a thread of the parent process may have held it
    _registry_lock = threading.RLock()
    _clients.clear()
    _limiters.clear()
    connection.forget_connections()


os.register_at_fork(after_in_child=forget_clients)
