"""Calls to AWS: their place in the rate limit, their retries, and a blocking and an awaitable way to make them.

The functions in ``jobs/`` receive a ``Call`` and make their API calls with it, so that none bypasses the rate limit.
``run_blocking`` makes them in a worker, ``run`` in a trigger, where they run in the client's threads. In both, the
``Retry`` decides whether a function that failed is run again.

Invariants:

- Every API call waits for its turn in the rate limit, also the second and third that a function makes.
- A call that may have been executed is repeated only where that is harmless, see ``Retry.repeatable``.
- While a trigger waits for a turn or before a retry, it holds no thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from airflow_jobflow.airflow_compat.metrics import stats
from airflow_jobflow.aws.boto3_client import READS
from airflow_jobflow.aws.clients import Rate, ServiceClient
from airflow_jobflow.aws.rate_limit import backoff, full_jitter
from airflow_jobflow.faults import CallError, Fault

log = logging.getLogger(__name__)

Result = TypeVar("Result")

NEVER_EXECUTED = (Fault.THROTTLED, Fault.CREDENTIALS, Fault.DENIED)
"""Faults of requests that AWS did not execute, so that repeating them is harmless."""


TURN_LIFETIME = 1.0
"""Seconds after which a call that has not been sent must wait for another turn."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Which calls are repeated, and for how long.

    :param patience: seconds from the first failure for which a call is repeated. Default 60.
    :param denied_patience: the same for missing permissions, which rarely appear by themselves. Default 10, but no
        longer than ``patience``.
    :param credentials_patience: the same for missing or expired credentials. Default: ``patience``.
    :param repeatable: whether a call that AWS may have executed is repeated. Default True.
    :param longest_delay: the longest pause in seconds. Default 10.
    """

    patience: float = 60.0
    denied_patience: float = 10.0
    credentials_patience: float = float("inf")
    repeatable: bool = True
    longest_delay: float = 10.0

    def until(self, deadline: float | None) -> Retry:
        """Return a copy whose retries end at a deadline.

        :param deadline: in seconds since the epoch; None for none.
        """
        remaining = float("inf") if deadline is None else max(0.0, deadline - time.time())
        return replace(self, patience=min(self.patience, remaining))

    def delay(self, error: CallError, failures: int, elapsed: float) -> float | None:
        """Return the seconds to wait before a failed call is repeated; None if it is not.

        :param error: the failure.
        :param failures: how often the call has failed, at least once.
        :param elapsed: seconds since its first failure.
        """
        may_pass = error.fault is Fault.TRANSIENT or (error.fault is Fault.REJECTED and error.is_from_proxy)
        if error.fault not in NEVER_EXECUTED and not (may_pass and self._harmless(error)):
            return None
        limits = {Fault.DENIED: self.denied_patience, Fault.CREDENTIALS: self.credentials_patience}
        remaining = min(self.patience, limits.get(error.fault, self.patience)) - elapsed
        if remaining <= 0:
            return None
        # After throttling, the rate limiter already holds back the next call.
        pause = 0.0 if error.fault is Fault.THROTTLED else full_jitter(backoff(failures, self.longest_delay))
        return min(pause, remaining)

    def _harmless(self, error: CallError) -> bool:
        return self.repeatable or not error.sent


ONCE = Retry(patience=0.0, denied_patience=0.0)
"""No retries: the caller handles failures itself."""


class Call:
    """Makes the API calls of one function in ``jobs/``, each in its turn.

    :param client: the client of the service.
    :param rate: which rate limit counts the calls.
    :param turn_at: when the turn of the first call came, by the monotonic clock. Default None: it has not come yet.
    """

    def __init__(self, client: ServiceClient, rate: Rate, *, turn_at: float | None = None) -> None:
        self._client = client
        self._rate = rate
        self._turn_at = turn_at
        self._has_begun = turn_at is not None
        self.valid_until = float("inf")
        self.in_flight_since: float | None = None
        """When the current request was sent, by the monotonic clock; None between two requests."""

    @property
    def may_tag(self) -> bool:
        """Whether jobs are started with tags; a denial counts for all calls of the client, for a quarter of an hour."""
        return self._client.may_tag

    @may_tag.setter
    def may_tag(self, may: bool) -> None:
        self._client.may_tag = may

    @property
    def memory(self) -> dict[Hashable, tuple[float, Any]]:
        """What was read with this client, see ``jobs.calls``."""
        return self._client.memory

    @property
    def region(self) -> str:
        """The region that is called."""
        return self._client.region

    @property
    def partition(self) -> str:
        """The AWS partition of the region."""
        return self._client.partition

    def wait_for_turn(self) -> None:
        """Wait for the turn of the next call now, so that the call is sent without delay."""
        self._client.acquire_blocking(self._rate, goes_on=self._has_begun)
        self._turn_at, self._has_begun = time.monotonic(), True

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Make one call and return its response.

        :param operation: boto3's name of the operation, such as ``describe_jobs``.
        :param parameters: those of the boto3 method.
        :raises CallError: there was no response, or AWS refused the call.
        """
        turn_at = self._turn_at
        # Calls whose threads became free long after their turns, because others hung, would be a burst.
        if turn_at is None or time.monotonic() - turn_at > TURN_LIFETIME:
            self.wait_for_turn()
        self._turn_at = None
        limiter = self._client.limiter(self._rate)
        sent_at = self.in_flight_since = time.monotonic()
        stats.incr(f"jobflow.aws.{self._client.name}.calls")
        try:
            response = self._client.invoke(operation, parameters, self.valid_until)
        except CallError as error:
            stats.incr(f"jobflow.aws.{self._client.name}.{error.fault.value}")
            if error.fault is Fault.THROTTLED:
                limiter.throttled(sent_at)
            raise
        finally:
            self.in_flight_since = None
        limiter.succeeded()
        return response


def run_blocking(
    client: ServiceClient,
    function: Callable[..., Result],
    *arguments: object,
    rate: Rate = Rate.ACTION,
    retry: Retry = Retry(),
) -> Result:
    """Run a function that makes API calls, and run it again after failures that may pass. Blocks.

    :param client: the client of the service.
    :param function: called with a ``Call`` and the arguments.
    :param arguments: for the function.
    :param rate: which rate limit counts its calls. Default ``Rate.ACTION``.
    :param retry: when it is run again. Default: for a minute, even if AWS may have executed a call.
    :return: what the function returns.
    :raises CallError: it failed, and is not run again.
    """
    attempts = _Attempts(client, retry)
    while True:
        try:
            return function(Call(client, rate), *arguments)
        except CallError as error:
            pause = attempts.pause_after(error)
        time.sleep(pause)


class RetriedCall(Call):
    """Makes calls, and repeats each that fails, for functions that make many calls. Blocks.

    :param client: the client of the service.
    :param retry: when a call is repeated. Default: for a minute.
    """

    def __init__(self, client: ServiceClient, retry: Retry = Retry()) -> None:
        super().__init__(client, Rate.POLL)
        self._retry = retry

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """Make one call, repeat it if it fails, and return its response.

        :param operation, parameters: see ``Call``.
        :raises CallError: it failed, and is not repeated.
        """
        rate = Rate.POLL if operation.startswith(READS) else Rate.ACTION
        return run_blocking(self._client, lambda call: call(operation, **parameters), rate=rate, retry=self._retry)


async def run(
    client: ServiceClient,
    function: Callable[..., Result],
    *arguments: object,
    rate: Rate = Rate.ACTION,
    retry: Retry = Retry(),
) -> Result:
    """Run a function that makes API calls in a thread of the client, and run it again after failures that may pass.

    If this is cancelled, a call that is under way runs to its end in its thread, and one that waits for its turn or for
    a thread is not made.

    :param client, function, arguments, rate, retry: as for ``run_blocking``.
    :return: what the function returns.
    :raises CallError: it failed, and is not run again.
    """
    attempts = _Attempts(client, retry)
    while True:
        await client.acquire(rate)
        try:
            return await run_paid(client, function, *arguments, rate=rate)
        except CallError as error:
            pause = attempts.pause_after(error)
        await asyncio.sleep(pause)


async def run_paid(
    client: ServiceClient, function: Callable[..., Result], *arguments: object, rate: Rate = Rate.POLL
) -> Result:
    """Run a function once in a thread of the client, after the caller has waited for the turn of its first call.

    :param client: the client of the service.
    :param function: called with a ``Call`` and the arguments.
    :param arguments: for the function.
    :param rate: which rate limit counts its calls. Default ``Rate.POLL``.
    :return: what the function returns.
    :raises CallError: it failed, or a request of it got no response for twice the client's timeout.
    """
    call = Call(client, rate, turn_at=time.monotonic())
    future = asyncio.wrap_future(client.start(function, call, *arguments))
    future.add_done_callback(_retrieve)
    try:
        while not (await asyncio.wait({future}, timeout=client.timeout))[0]:
            # botocore limits the time to connect, and for each part of a response, but not to resolve a host name.
            if call.in_flight_since is not None and time.monotonic() - call.in_flight_since > 2 * client.timeout:
                raise CallError(Fault.TRANSIENT, f"no response within {2 * client.timeout:g} s")
    except asyncio.CancelledError:
        future.cancel()  # has an effect only if no thread has started it
        raise
    return future.result()


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a call that nobody awaits any more; asyncio would log it otherwise."""
    if not future.cancelled():
        future.exception()


class _Attempts:
    """The failures of one function so far."""

    def __init__(self, client: ServiceClient, retry: Retry) -> None:
        self._client = client
        self._retry = retry
        self._failures = 0
        self._first_at = 0.0
        self._may_be_executed = False

    def pause_after(self, error: CallError) -> float:
        """Return the seconds to wait before the function is run again.

        :raises CallError: it is not run again. ``sent`` then says whether any of its requests may have been executed.
        """
        now = time.monotonic()
        self._first_at = self._first_at or now
        self._failures += 1
        self._may_be_executed |= error.fault is Fault.TRANSIENT and error.sent
        error.sent = error.sent or self._may_be_executed
        pause = self._retry.delay(error, self._failures, now - self._first_at)
        if pause is None:
            raise error
        if self._failures == 1:
            log.warning("A call to %s failed and is repeated: %s", self._client.name, error)
        return pause
