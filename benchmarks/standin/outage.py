"""Failures of the stand-in: it rejects describe calls, or issues no credentials.

It is also the metadata service of an instance, the credentials endpoint of a container, and STS.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

from benchmarks.figures import Scenario
from benchmarks.standin.script import ACCOUNT, REGION, Answer

CONNECTION_KEY = "connection"
"""The access key in the Airflow connection; any other belongs to another account, which has no jobs."""

CREDENTIALS_PATH = "/credentials"
METADATA_PATH = "/latest/"
ROLE_PATH = f"{METADATA_PATH}meta-data/iam/security-credentials/"

VALID_FOR = timedelta(minutes=5)
"""So short that botocore requests new credentials before every call."""

ACCESS_KEY = re.compile(rb"(?i)\r\nauthorization:[^\r]*credential=([^/]+)/")

STOPS = ("TerminateJob", "CancelJob", "StopTask", "BatchStopJobRun", "StopCrawler")

ASSUME_ROLE = b"Action=AssumeRole"

SLOW_STS = 12.0
"""Seconds that STS takes for a role with a slow name."""

HTML = b"<html><head><title>403 Forbidden</title></head><body><h1>Forbidden</h1>Blocked by the proxy.</body></html>"


def refusal(scenario: Scenario, operation: str, seconds: float) -> Answer | None:
    """Return the error for a call at a time in seconds after the start of the clock; None if there is none."""
    if not scenario.fails_at(seconds):
        return None
    if scenario.outage == "denied":
        user = f"arn:aws:sts::{ACCOUNT}:assumed-role/airflow/triggerer"
        action = f"{'glue' if scenario.service.startswith('glue') else scenario.service}:{operation}"
        message = f"User: {user} is not authorized to perform: {action} on resource: *"
        return Answer.refusal("AccessDeniedException", message, "403 Forbidden")
    if scenario.outage == "html":
        return Answer(HTML, status="403 Forbidden", content_type="text/html")
    return None


def is_foreign(scenario: Scenario, head: bytes) -> bool:
    """Return whether a request has credentials of another account than that of the Airflow connection."""
    key = ACCESS_KEY.search(head)
    return scenario.outage.startswith("connection") and (key is None or key[1].decode() != CONNECTION_KEY)


def for_credentials(path: str, body: bytes) -> bool:
    """Return whether a request is for credentials: to a metadata service, a container's endpoint, or STS."""
    return path.startswith((METADATA_PATH, CREDENTIALS_PATH)) or (path == "/" and ASSUME_ROLE in body)


def credentials(scenario: Scenario, path: str, now: float, seconds: float) -> Answer | None:
    """Return the response to a request for credentials; None for no response.

    :param now: in seconds since the epoch.
    :param seconds: the same since the start of the clock.
    """
    fails = scenario.fails_at(seconds)
    if fails and scenario.outage == "metadata":
        return None
    if fails and scenario.outage == "container":
        return Answer(b'{"code": "InternalServerError"}', status="500 Internal Server Error")
    texts = {ROLE_PATH: b"airflow", f"{METADATA_PATH}api/token": b"token"}
    if path in texts:
        return Answer(texts[path], content_type="text/plain")
    return assumed_role(now) if path == "/" else role_credentials(now)


def role_credentials(now: float) -> Answer:
    """Return the credentials of an instance's or a container's role."""
    expires = datetime.fromtimestamp(now, UTC) + VALID_FOR
    given = {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": "metadata",
        "SecretAccessKey": "secret",
        "Token": "token",
        "Expiration": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        "LastUpdated": f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    return Answer(json.dumps(given).encode())


def assumed_role(now: float) -> Answer:
    """Respond to AssumeRole."""
    expires = datetime.fromtimestamp(now, UTC) + timedelta(hours=1)
    return Answer(
        f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><AssumedRoleId>AROAEXAMPLE:airflow</AssumedRoleId><Arn>arn:aws:sts::{ACCOUNT}:assumed-role/a/b</Arn>
</AssumedRoleUser><Credentials><AccessKeyId>assumed</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>token-{REGION}</SessionToken><Expiration>{expires:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>
</AssumeRoleResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleResponse>""".encode(),
        content_type="text/xml",
    )


def latency(scenario: Scenario, body: bytes) -> float:
    """Return the seconds after which a response is sent."""
    return SLOW_STS if ASSUME_ROLE in body and b"slow" in body else scenario.latency
