"""A metadata service that issues credentials, like those of EC2 instances and ECS containers.

Invariants: each request for credentials issues a new key. A key is rejected once it has expired. Other keys never
expire.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from werkzeug.wrappers import Response

from airflow_jobflow.local.call import Call
from airflow_jobflow.local.fault_box import METADATA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX: Final = "/jobflow-metadata/"
CONTAINER: Final = "credentials"
"""Path of a container's credentials, for ``AWS_CONTAINER_CREDENTIALS_FULL_URI``."""
ROLE: Final = "local"
ROLE_PATH: Final = "latest/meta-data/iam/security-credentials/"
ACTIONS: Final[Mapping[tuple[str, str], str]] = {
    ("GET", CONTAINER): "GetCredentials",
    ("PUT", "latest/api/token"): "GetToken",
    ("GET", ROLE_PATH): "GetRoleName",
    ("GET", f"{ROLE_PATH}{ROLE}"): "GetCredentials",
}


class Metadata:
    """The metadata service of one local AWS. Thread-safe.

    :param lifetime: returns how long a new key is valid, in seconds.
    :param clock: returns seconds since the epoch. Default: the system clock.
    """

    def __init__(self, lifetime: Callable[[], float], clock: Callable[[], float] = time.time) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._expires: dict[str, float] = {}
        """The expiry of each key by its id, in seconds since the epoch."""

    def call(self, method: str, path: str) -> Call:
        """Return the call for a request.

        :param method: the HTTP method.
        :param path: the path below `PREFIX`; an unknown one becomes the name of the action.
        """
        return Call(METADATA, ACTIONS.get((method, path), path))

    def answer(self, call: Call) -> Response:
        """Respond to a call in the format of EC2, which is also that of containers.

        :param call: the call.
        """
        answers: Mapping[str, Callable[[], str]] = {
            "GetToken": lambda: "local-metadata-token",
            "GetRoleName": lambda: ROLE,
            "GetCredentials": self._issue,
        }
        make = answers.get(call.action)
        return Response(make(), 200) if make else Response("Not Found", 404)

    def has_expired(self, access_key: str) -> bool:
        """Return whether a key was issued here and has expired.

        :param access_key: the id of the key.
        """
        with self._lock:
            expires = self._expires.get(access_key)
        return expires is not None and self._clock() >= expires

    def _issue(self) -> str:
        now = self._clock()
        expires = now + self._lifetime()
        with self._lock:
            access_key = f"ASIALOCAL{next(self._numbers):011d}"
            self._expires[access_key] = expires
        return json.dumps(
            {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "LastUpdated": _utc(now),
                "AccessKeyId": access_key,
                "SecretAccessKey": "jobflowlocal",
                "Token": f"token-of-{access_key}",
                "Expiration": _utc(expires),
            }
        )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
