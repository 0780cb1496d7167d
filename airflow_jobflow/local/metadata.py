"""A metadata service that issues credentials, as EC2's and that of ECS containers do.

Invariants: each request for credentials issues a new key; a key is refused once it has expired; keys that were
not issued here never expire here.
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

    :param lifetime: returns the seconds after which a key issued now expires.
    :param clock: seconds since the epoch.
    """

    def __init__(self, lifetime: Callable[[], float], clock: Callable[[], float] = time.time) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._expires: dict[str, float] = {}
        """When each key expires, by its id."""

    def call(self, method: str, path: str) -> Call:
        """The call that a request is.

        :param path: below `PREFIX`; an unknown one is the action's name.
        """
        return Call(METADATA, ACTIONS.get((method, path), path))

    def answer(self, call: Call) -> Response:
        """Answer a call in the way of EC2's service; a container's has the same format."""
        answers: Mapping[str, Callable[[], str]] = {
            "GetToken": lambda: "local-metadata-token",
            "GetRoleName": lambda: ROLE,
            "GetCredentials": self._issue,
        }
        make = answers.get(call.action)
        return Response(make(), 200) if make else Response("Not Found", 404)

    def has_expired(self, access_key: str) -> bool:
        """Return whether a key was issued here and has expired."""
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
