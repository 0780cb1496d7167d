"""From an Airflow connection to a boto3 client.

The Amazon provider's hook reads credentials, regions and endpoints. This module adds two things: clients make each call
once, because our retry loop decides whether a call is repeated, and all clients share one data loader, which needs more
memory than they do.

boto3 and the hook are imported where they are used, because importing them takes half a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_jobflow.airflow_compat.connections import connection_exists
from airflow_jobflow.aws.shapes import loader
from airflow_jobflow.faults import CLIENT_CREATION, CallError

DEFAULT_CONN_ID = "aws_default"
"""The connection that need not exist: without it, boto3's own credential chain is used."""

MAX_CONNECTIONS = 32
"""HTTP connections that a client keeps open."""


class AccessMisconfigured(Exception):
    """The AWS connection cannot be used: Airflow does not know it, or botocore rejects an argument."""


@dataclass(frozen=True)
class Access:
    """The AWS connection to use: which account and region, and how to call it. Plain data, carried by triggers.

    :param aws_conn_id: Airflow connection; None for boto3's own credential chain. Default ``aws_default``, the only
        connection that need not exist.
    :param region_name: overrides the connection's region. Default None.
    :param verify: whether, or against which CA bundle, to verify certificates. Default None: as the connection says.
    :param botocore_config: arguments for ``botocore.config.Config``. Retries, timeouts and the size of the connection
        pool are set by this package. Default None.
    """

    aws_conn_id: str | None = DEFAULT_CONN_ID
    region_name: str | None = None
    verify: bool | str | None = None
    botocore_config: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """A string that is equal for equal connections."""
        return json.dumps([self.aws_conn_id, self.region_name, self.verify, self.botocore_config], sort_keys=True)

    def __str__(self) -> str:
        return self.named(self.region_name)

    def named(self, region: str | None) -> str:
        """Return the connection and a region, for messages: ``aws_default in eu-west-1``.

        :param region: the region that is called; None if it is not known.
        """
        name = self.aws_conn_id or "boto3's default credentials"
        return f"{name} in {region}" if region else name

    def client(self, name: str, *, timeout: float = 20.0) -> Any:
        """Build a boto3 client. Blocks: the connection is read, credentials may be fetched.

        :param name: boto3's name of the service, such as ``batch``.
        :param timeout: seconds to wait for a connection, and for a response. Default 20.
        :raises AccessMisconfigured: Airflow does not know the connection, or botocore rejects an argument.
        :raises botocore.exceptions.BotoCoreError: region, profile or configuration are missing or wrong.
        """
        from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
        from botocore.config import Config

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
        self._require_connection(found=bool(hook.conn_config))
        _extras[self.aws_conn_id] = hook.conn_config.extra_config
        session: Any = hook.get_session(region_name=hook.region_name)
        # boto3 has no public way to share a loader; botocore, whose session this is, has.
        session._session.register_component("data_loader", loader())  # noqa: SLF001
        ours = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=timeout,
            read_timeout=timeout,
            max_pool_connections=MAX_CONNECTIONS,
        )
        return session.client(
            name,
            endpoint_url=hook.conn_config.get_service_endpoint_url(name),
            verify=hook.verify,
            config=hook.config.merge(ours),
        )

    def extra(self, *, fresh: bool = False) -> Mapping[str, Any]:
        """Return the extra of the connection, as its last client has read it. Blocks if it has to be read.

        :param fresh: whether to read it again. Default False.
        :raises CallError: it could not be read.
        """
        if fresh or self.aws_conn_id not in _extras:
            from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

            try:
                hook: AwsGenericHook[Any] = AwsGenericHook(aws_conn_id=self.aws_conn_id, client_type="sts")
                self._require_connection(found=bool(hook.conn_config))
                _extras[self.aws_conn_id] = hook.conn_config.extra_config
            except Exception as error:  # whatever a secrets backend raises
                raise CallError.from_error(error, CLIENT_CREATION) from error
        return _extras[self.aws_conn_id]

    def _require_connection(self, *, found: bool) -> None:
        """Raise an error if the connection must exist and was not found.

        Airflow reports "not found" also when it could not read the connection. ``aws_default`` need not exist; but if
        it does, falling back to boto3's own credentials would call another account. So a second request checks that it
        does not exist.
        """
        if found:
            _found.add(str(self.aws_conn_id))
        elif self.aws_conn_id in (None, ""):
            return
        elif self.aws_conn_id in _found or self.aws_conn_id != DEFAULT_CONN_ID:
            raise AccessMisconfigured(
                f"Airflow has no connection {self.aws_conn_id!r} (aws_conn_id), or it could not be read"
            )
        elif connection_exists(DEFAULT_CONN_ID):  # raises an error if Airflow cannot tell
            raise AccessMisconfigured(f"The Airflow connection {DEFAULT_CONN_ID!r} could not be read")


_found: set[str] = set()
"""Connections that Airflow has returned to this process."""

_extras: dict[str | None, Mapping[str, Any]] = {}
"""The extras of the connections that this process has read, by connection id."""


def forget_connections() -> None:
    """Forget which connections Airflow has returned, and their extras."""
    _found.clear()
    _extras.clear()
