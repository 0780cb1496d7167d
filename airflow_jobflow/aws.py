"""From an Airflow connection to boto3 clients, and from botocore's errors to what they mean.

Credentials, regions and endpoints are read by the Amazon provider's own hook. What is added: clients whose calls are
made once (who watches or submits decides on another try, not the SDK, which would overrun the budget or start a
second job), one data loader for all of them (it costs more memory than the clients), and calls in threads, so that
nothing blocks an event loop.

boto3 and the hook are imported where they are used: importing this module must not cost a worker half a second.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_jobflow.jobs import service as job_service
from airflow_jobflow.watch.errors import DescribeError, Fault

if TYPE_CHECKING:
    from airflow_jobflow.jobs.model import Snapshot

Answer = TypeVar("Answer")

DEFAULT_CONN_ID = "aws_default"
"""The connection that need not exist: without it, boto3's own way of finding credentials is used."""

ATTEMPTS = 6
"""How often a call that may safely be repeated is made before it counts as failed."""

THREADS = 32
"""The most describe calls of one watcher under way at once; reached only when many hang."""

FAULTS = {
    **dict.fromkeys(
        [
            "TooManyRequestsException",
            "ThrottlingException",
            "Throttling",
            "ThrottledException",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
        ],
        Fault.THROTTLED,
    ),
    **dict.fromkeys(["ExpiredToken", "ExpiredTokenException", "RequestExpired"], Fault.EXPIRED),
    **dict.fromkeys(
        [
            "AccessDenied",
            "AccessDeniedException",
            "UnauthorizedOperation",
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "MissingAuthenticationToken",
            "OptInRequired",
        ],
        Fault.DENIED,
    ),
    **dict.fromkeys(["ClusterNotFoundException", "EntityNotFoundException"], Fault.NOWHERE),
    **dict.fromkeys(
        [
            "ServerException",
            "InternalFailure",
            "InternalServerError",
            "ServiceUnavailable",
            "RequestTimeout",
            "OperationTimeoutException",
        ],
        Fault.PASSING,
    ),
}
"""What AWS's error codes mean. Others go by the HTTP status: 429 and 5xx pass, the rest is a refusal."""


def fault_of(error: Exception) -> Fault:
    """Say what one of the errors of ``no_answer`` means for the call that raised it."""
    from botocore import exceptions

    if isinstance(error, AccessMisconfigured):
        return Fault.DENIED
    if isinstance(error, exceptions.ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        by_status = Fault.PASSING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Fault.REJECTED
        return FAULTS.get(code, Fault.THROTTLED if status == HTTPStatus.TOO_MANY_REQUESTS else by_status)
    if isinstance(error, exceptions.ParamValidationError):
        return Fault.REJECTED
    nobody_to_ask = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.NoRegionError,
        exceptions.InvalidRegionError,
        exceptions.ProfileNotFound,
        exceptions.UnauthorizedSSOTokenError,
        exceptions.InvalidConfigError,
    )
    return Fault.DENIED if isinstance(error, nobody_to_ask) else Fault.PASSING


class AccessMisconfigured(Exception):
    """What says how AWS is to be asked is wrong: a connection that is not there, an argument botocore has not."""


def no_answer() -> tuple[type[Exception], ...]:
    """Return what a call raises that got no answer, or none that can be read."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return BotoCoreError, ClientError, ResponseParserError, AccessMisconfigured


@dataclass(frozen=True)
class Access:
    """Which account and region to talk to, and how. Plain, so that a trigger can carry it.

    :param aws_conn_id: Airflow connection; None for boto3's own way of finding credentials. Default ``aws_default``,
        the only one that need not exist.
    :param region_name: overrides the connection's region.
    :param verify: whether, or against which CA bundle, to verify certificates; None leaves it to the connection.
    :param botocore_config: arguments for ``botocore.config.Config``; retries, time-outs and the size of the pool of
        connections are set here.
    """

    aws_conn_id: str | None = DEFAULT_CONN_ID
    region_name: str | None = None
    verify: bool | str | None = None
    botocore_config: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """Equal for equal access; serves as a key."""
        return json.dumps([self.aws_conn_id, self.region_name, self.verify, self.botocore_config], sort_keys=True)

    def client(self, name: str, *, attempts: int = 1, timeout: float = 20.0) -> Any:
        """Build a boto3 client. Blocks: connections are read, credentials may be fetched.

        :param name: boto3's name of the service, such as ``batch``.
        :param attempts: how often the SDK makes a call that fails in passing, 1 for no second time.
        :param timeout: seconds to wait for a connection, and for an answer.
        :raises AccessMisconfigured: there is no such Airflow connection, or botocore has no such configuration.
        :raises botocore.exceptions.BotoCoreError: region, profile or configuration are missing or wrong.
        """
        from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
        from botocore.config import Config

        _spare_the_collector("before the first client")
        try:
            config = None if self.botocore_config is None else Config(**self.botocore_config)
        except TypeError as error:
            raise AccessMisconfigured(f"botocore_config={self.botocore_config!r}: {error}") from error
        hook: AwsGenericHook[Any] = AwsGenericHook(
            aws_conn_id=self.aws_conn_id,
            region_name=self.region_name,
            verify=self.verify,
            config=config,
            client_type=name,
        )
        if self.aws_conn_id not in (None, "", DEFAULT_CONN_ID) and not hook.conn_config:
            raise AccessMisconfigured(f"aws_conn_id={self.aws_conn_id!r}: Airflow has no connection of this name")
        session: Any = hook.get_session(region_name=hook.region_name)
        # boto3 has no public way to share a loader; botocore, whose session this is, has.
        session._session.register_component("data_loader", _loader())  # noqa: SLF001
        ours = Config(
            retries={"total_max_attempts": attempts, "mode": "standard"},
            connect_timeout=timeout,
            read_timeout=timeout,
            max_pool_connections=THREADS,
        )
        return session.client(
            name,
            endpoint_url=hook.conn_config.get_service_endpoint_url(name),
            verify=hook.verify,
            config=hook.config.merge(ours),
        )


@functools.cache
def _loader() -> Any:
    from botocore.loaders import Loader

    return Loader()


@functools.cache
def _spare_the_collector(when: str) -> None:  # noqa: ARG001 -- the key of the cache
    """Take what this process has loaded by now out of the garbage collector's rounds, once for each ``when``.

    A full collection walks every object there is: for Airflow and boto3 alone, which never become garbage, a tenth of a
    second, in which a triggerer's event loop stands still; and reading botocore's models makes several, so that two
    thirds of what a client costs a worker would be these. Objects are freed as before; only cycles that are garbage
    already at this moment stay.
    """
    gc.freeze()


_building = threading.Lock()
"""Held by threads only, for a client may take seconds to build; never on the event loop. One at a time for all: the
models that botocore reads for the first client of a service, the others find read."""


class SharedClient:
    """A boto3 client for all callers of this process that ask the same service in the same way; clients are heavy.

    :param access: whom to ask.
    :param name: boto3's name of the service.
    :param timeout: seconds after which a call is given up.
    """

    _all: ClassVar[dict[tuple[str, str, float], SharedClient]] = {}

    def __init__(self, access: Access, name: str, timeout: float) -> None:
        self._access, self._name, self._timeout = access, name, timeout
        self._client: Any = None
        self.users = 0
        self.generation = 0
        """How often credentials were fetched anew."""

    @classmethod
    def join(cls, access: Access, name: str, timeout: float) -> SharedClient:
        """Return the client for these, of which the caller is a user until it leaves."""
        shared = cls._all.setdefault((access.key, name, timeout), cls(access, name, timeout))
        shared.users += 1
        return shared

    def get(self) -> Any:
        """Return the boto3 client. Blocks while it is built."""
        with _building:
            if self._client is None:
                self._client = self._access.client(self._name, timeout=self._timeout)
                _spare_the_collector("after the first client")
            return self._client

    def renew(self, generation: int) -> None:
        """Let the next call read the connection and fetch credentials anew, unless one has done so since."""
        if generation == self.generation:
            self.generation += 1
            self._client = None

    def leave(self) -> Callable[[], None]:
        """Be no user any more; return what is to be called in a thread, to close the client if this was the last."""
        self.users -= 1
        if self.users:
            return lambda: None
        self._all.pop((self._access.key, self._name, self._timeout), None)
        return self._close

    def _close(self) -> None:
        with _building:
            if self._client is not None:
                self._client.close()


class Caller:
    """Makes calls with a shared boto3 client, in threads of its own.

    :param access: whom to ask.
    :param client: boto3's name of the service.
    :param timeout: seconds after which a call is given up.
    :param threads: the most calls under way at once.
    """

    def __init__(self, access: Access, client: str, timeout: float, threads: int = THREADS) -> None:
        self._client = SharedClient.join(access, client, timeout)
        self._generation = self._client.generation
        """Of the client that the last call was made with."""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"jobflow-{client}")

    def begin(self, call: Callable[..., Answer], *arguments: Any) -> Future[Answer]:
        """Make a call with the client and the given arguments, which goes on whatever becomes of who waits for it.

        The future raises DescribeError where AWS gave no answer.
        """
        return self._threads.submit(self._make, call, arguments)

    async def call(self, call: Callable[..., Answer], *arguments: Any) -> Answer:
        """Make a call with the client and the given arguments.

        :raises DescribeError: AWS gave no answer.
        """
        return await asyncio.wrap_future(self.begin(call, *arguments))

    def _make(self, call: Callable[..., Answer], arguments: Sequence[Any]) -> Answer:
        try:
            client, self._generation = self._client.get(), self._client.generation
            return call(client, *arguments)
        except no_answer() as error:
            raise DescribeError(fault_of(error), str(error)) from error

    def renew(self) -> None:
        """Let the next call read the connection and fetch credentials anew."""
        self._client.renew(self._generation)

    def close(self) -> None:
        """Give up the client and the threads, without waiting for calls under way."""
        self._threads.submit(self._client.leave())
        self._threads.shutdown(wait=False)


class Describer(Caller):
    """Makes a watcher's describe calls.

    :param service: our name of the service, such as ``batch``.
    :param scope: what a call is confined to, where the service has such a thing.
    :param access, request_timeout: as the base's.
    """

    def __init__(self, access: Access, service: str, scope: str | None, request_timeout: float) -> None:
        self._service = job_service(service)
        self._scope = scope
        super().__init__(access, self._service.CLIENT, request_timeout)

    async def __call__(self, job_ids: Sequence[str]) -> Mapping[str, Snapshot | None]:
        """Look at jobs by id, as the service does.

        :raises DescribeError: AWS gave no answer.
        """
        return await self.call(self._service.describe, job_ids, self._scope)
