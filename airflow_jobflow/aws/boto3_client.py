"""The boto3 client of a service: built by its first call, and rebuilt when it is too old or its credentials fail.

Invariants:

- A client whose credentials fail is discarded and rebuilt; one rebuild serves all callers that wait for it.
- While an old client is being rebuilt, or cannot be rebuilt, other calls still use it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_jobflow.airflow_compat.metrics import stats
from airflow_jobflow.aws import raw_json
from airflow_jobflow.aws.rate_limit import backoff
from airflow_jobflow.faults import CLIENT_CREATION, CallError, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_jobflow.aws.connection import Access

LIFETIME = 900.0
"""Seconds after which a client is rebuilt, so that a changed Airflow connection takes effect without a restart."""

REBUILD_DELAY = 30.0
"""Seconds for which a client is kept although its calls are denied: new credentials rarely change that."""

MAX_BUILD_DELAY = 5.0
"""The longest time in seconds between two attempts to build a client."""

READS = ("describe_", "list_", "get_", "batch_get_")
"""Prefixes of operations whose responses are never empty."""


class _Sending(threading.local):
    """The request that a thread prepares."""

    valid_until = float("inf")


_sending = _Sending()


def _refuse_if_late(**_: object) -> None:
    """Raise if the request must not be sent any more. Called last, because what is done before may take time."""
    if time.time() > _sending.valid_until:
        message = "not sent, because the check before it is too old; the process was probably suspended"
        raise CallError(Fault.TRANSIENT, message, sent=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Built:
    """A boto3 client.

    :param client: the client.
    :param at: when it was built, in seconds by the client's clock.
    """

    client: Any
    at: float


class Boto3Client:
    """Makes single calls with a boto3 client that it builds itself.

    :param access: the AWS connection to use.
    :param name: boto3's name of the service, such as ``batch``.
    :param timeout: seconds after which a request without a response has failed.
    :param clock: returns the time in seconds.
    :param on_built: called with the region of each client that was built.
    """

    def __init__(
        self,
        access: Access,
        name: str,
        *,
        timeout: float,
        clock: Callable[[], float],
        on_built: Callable[[str], None],
    ) -> None:
        self._access = access
        self._name = name
        self._timeout = timeout
        self._clock = clock
        self._on_built = on_built
        self._build_lock = threading.RLock()  # a signal handler may interrupt its own thread while it builds
        self._state_lock = threading.RLock()  # never held while waiting
        self._built: _Built | None = None
        self._build_after = float("-inf")
        self._build_error: CallError | None = None
        self._failed_builds = 0
        """How often in a row the client could not be built."""
        self._failed_credentials = 0
        """How many clients in a row had credentials that failed."""

    @property
    def is_built(self) -> bool:
        """Whether there is a client, so that a call need not build one first."""
        return self._built is not None

    def meta(self) -> Any:
        """Return what boto3 says about the client: region, partition and methods. Blocks if it has to be built.

        :raises CallError: it cannot be built now.
        """
        return self._get().client.meta

    def invoke(self, operation: str, parameters: dict[str, Any], valid_until: float = float("inf")) -> Any:
        """Make one call, once, and return the response. Blocks.

        :param operation: boto3's name of the operation, such as ``describe_jobs``.
        :param parameters: those of the boto3 method.
        :param valid_until: when the request must not be sent any more, in seconds since the epoch. Default: never.
        :raises CallError: there was no response, AWS refused the call, or it was not sent in time.
        """
        built = self._get()
        _sending.valid_until = valid_until
        try:
            response = getattr(built.client, operation)(**parameters)
            if hasattr(response.get("Body"), "read"):  # a stream: the connection may be lost while it is read
                response["Body"] = response["Body"].read()
        except Exception as error:  # fetching credentials may raise anything
            failed = CallError.from_error(error, built.client.meta.method_to_api_mapping[operation])
            self._note_failure(failed, built)
            raise failed from error
        if operation.startswith(READS) and response.keys() <= {"ResponseMetadata"}:
            # botocore parses a body that is empty, or not a JSON object, as a response without members.
            name = built.client.meta.method_to_api_mapping[operation]
            raise CallError(Fault.TRANSIENT, f"{name}: the response is empty", operation=name)
        if self._failed_credentials and built is self._built:
            self._failed_credentials = 0
        return response

    def _note_failure(self, error: CallError, built: _Built) -> None:
        """Discard the client if a new one may have better credentials."""
        with self._state_lock:
            now = self._clock()
            if built is not self._built:
                return  # another call has discarded it
            if error.fault is Fault.CREDENTIALS:
                # The first one is rebuilt at once: most often the new client works.
                delay = backoff(self._failed_credentials, MAX_BUILD_DELAY) if self._failed_credentials else 0.0
                self._build_after = now + delay
                self._failed_credentials += 1
            elif error.fault is not Fault.DENIED or now - built.at <= REBUILD_DELAY:
                return
            self._build_error = error
            self._built = None

    def _get(self) -> _Built:
        """Return the boto3 client, built if necessary.

        :raises CallError: it cannot be built now.
        """
        built = self._built
        if built is not None and self._clock() - built.at < LIFETIME:
            return built
        # While one caller rebuilds a client that is only too old, the others still use it.
        if not self._build_lock.acquire(blocking=built is None) and built is not None:
            return built
        try:
            now, built = self._clock(), self._built
            if built is not None and (now - built.at < LIFETIME or now < self._build_after):
                return built
            if now < self._build_after and self._build_error is not None:
                raise CallError(*self._build_error.args)  # a copy for each caller, because callers change it
            return self._build(built)
        finally:
            self._build_lock.release()

    def _build(self, old: _Built | None) -> _Built:
        # Before any other metric: for the first one of a process, Airflow reads a file for a tenth of a second, which
        # must not happen on an event loop.
        stats.incr(f"jobflow.aws.{self._name}.client_builds")
        try:
            client = self._access.client(self._name, timeout=self._timeout)
            raw_json.register(client)
            client.meta.events.register("before-send", _refuse_if_late)
        except Exception as error:
            failed = CallError.from_error(error, CLIENT_CREATION)
            with self._state_lock:
                self._failed_builds += 1
                self._build_after = self._clock() + backoff(self._failed_builds, MAX_BUILD_DELAY)
                self._build_error = CallError(*failed.args)
            if old is not None:  # only too old, still usable
                return old
            raise failed from error
        built = _Built(client, self._clock())
        self._on_built(client.meta.region_name)
        self._built, self._failed_builds = built, 0
        return built
