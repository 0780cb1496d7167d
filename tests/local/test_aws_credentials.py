"""The metadata service of the local AWS, for boto3's credential providers."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, CredentialRetrievalError, NoCredentialsError
from botocore.utils import ContainerMetadataFetcher

from airflow_jobflow.local import CannedResponse, Faults, LocalAws

UNKNOWN = "00000000-0000-0000-0000-000000000000"
ONCE = Config(retries={"total_max_attempts": 1})
METADATA = ("metadata.*",)


class Host:
    """A machine whose boto3 gets its credentials from the metadata service."""

    def __init__(self, aws: LocalAws, monkeypatch: pytest.MonkeyPatch, credentials: Any) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in aws.environment(credentials).items():
            monkeypatch.setenv(name, value)
        self.aws = aws

    def describe(self, batch: Any = None) -> list[Any]:
        """Describe a job, by default with a new client."""
        batch = batch or self.batch()
        return list(batch.describe_jobs(jobs=[UNKNOWN])["jobs"])

    def batch(self) -> Any:
        """Return a client of a new session."""
        return boto3.Session().client("batch", config=ONCE)


@pytest.fixture
def container(own_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A container on ECS, whose boto3 makes short pauses between attempts."""
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0.02)
    return Host(own_aws, monkeypatch, "container")


@pytest.fixture
def instance(own_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Host:
    """An instance on EC2."""
    return Host(own_aws, monkeypatch, "instance")


def metadata_calls(aws: LocalAws) -> dict[str, int]:
    """Return the number of requests to the metadata service by name."""
    return {name: count for name, count in aws.calls.items() if name.startswith("metadata.")}


def test_container_gets_keys(container: Host) -> None:
    """It makes one request."""
    assert container.describe() == []
    assert metadata_calls(container.aws) == {"metadata.GetCredentials": 1}


def test_instance_gets_keys(instance: Host) -> None:
    """It requests a token, the name of the role, and its keys."""
    assert instance.describe() == []
    assert metadata_calls(instance.aws) == {
        "metadata.GetToken": 1,
        "metadata.GetRoleName": 1,
        "metadata.GetCredentials": 1,
    }


def test_slow_metadata_service_leaves_an_instance_without_keys(instance: Host) -> None:
    """boto3 waits one second, tries once, and the client never tries again."""
    instance.aws.set_faults(Faults(actions=METADATA, hang=600))
    batch = instance.batch()
    instance.aws.set_faults(Faults())
    with pytest.raises(NoCredentialsError):
        instance.describe(batch)
    assert instance.describe() == []


NOT_CREDENTIALS = [
    CannedResponse(status=500, body="", actions=METADATA),
    CannedResponse(status=404, body="<html></html>", actions=METADATA),
    CannedResponse(status=200, body="", actions=METADATA),
    CannedResponse(status=200, body="<html></html>", actions=("metadata.GetCredentials",)),
    CannedResponse(
        status=200,
        body='{"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role"}',
        content_type="application/json",
        actions=("metadata.GetCredentials",),
    ),
]


@pytest.mark.parametrize("response", NOT_CREDENTIALS, ids=lambda each: f"{each.status}:{each.body[:12]}")
def test_instance_may_get_an_invalid_response(instance: Host, response: CannedResponse) -> None:
    """For 5xx, 404, an empty response, an HTML page or an error with status 200, boto3 finds no credentials."""
    instance.aws.set_faults(Faults(respond_with=(response,)))
    with pytest.raises(NoCredentialsError):
        instance.describe()
    instance.aws.set_faults(Faults())
    assert instance.describe() == []


@pytest.mark.parametrize("kind", ["slow", "down", "broken", "page"])
def test_container_without_keys_is_an_error(container: Host, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 tries three times for two seconds each, which are shorter here, and raises while it creates the client."""
    monkeypatch.setattr(ContainerMetadataFetcher, "TIMEOUT_SECONDS", 0.3)
    page = CannedResponse(status=200, body="<html></html>", actions=METADATA)
    faults = {
        "slow": Faults(actions=METADATA, hang=600),
        "down": Faults(actions=METADATA, drop_every=1),
        "broken": Faults(actions=METADATA, error_every=1),
        "page": Faults(respond_with=(page,)),
    }
    container.aws.set_faults(faults[kind])
    with pytest.raises(CredentialRetrievalError):
        container.batch()
    assert metadata_calls(container.aws) == {"metadata.GetCredentials": 3}


def test_metadata_service_may_be_down_for_a_while(container: Host) -> None:
    """A client that is created meanwhile gets its keys later, because boto3 tries again."""
    down = CannedResponse(status=503, body="", actions=METADATA, calls=2)
    container.aws.set_faults(Faults(respond_with=(down,)))
    assert container.describe() == []
    assert metadata_calls(container.aws) == {"metadata.GetCredentials": 3}


def test_keys_that_expire_are_replaced_by_new_ones(container: Host) -> None:
    """boto3 requests new ones before each call, because they expire within ten minutes."""
    container.aws.set_faults(Faults(credentials_lifetime=300))
    batch = container.batch()
    keys = set()
    for _ in range(2):
        container.describe(batch)
        keys.add(batch._request_signer._credentials.access_key)
    assert len(keys) == 2


def test_expired_keys_are_rejected(container: Host) -> None:
    """All services reject them; keys that were not issued here are accepted."""
    container.aws.set_faults(Faults(credentials_lifetime=0))
    uri = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    with urllib.request.urlopen(uri, timeout=30) as answer:
        keys = json.load(answer)
    session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["Token"])
    for call in (
        lambda: session.client("batch", config=ONCE).describe_jobs(jobs=[UNKNOWN]),
        lambda: session.client("sts", config=ONCE).get_caller_identity(),
    ):
        with pytest.raises(ClientError, match="ExpiredToken"):
            call()
    assert container.aws.client("batch", config=ONCE).describe_jobs(jobs=[UNKNOWN])["jobs"] == []


def test_key_may_be_revoked_before_it_expires(container: Host) -> None:
    """A new client gets a new key."""
    batch = container.batch()
    container.describe(batch)
    revoked = batch._request_signer._credentials.access_key
    container.aws.set_faults(Faults(expired_access_key=revoked))
    with pytest.raises(ClientError, match="ExpiredTokenException"):
        container.describe(batch)
    assert container.describe() == []


def test_faults_of_credentials_do_not_affect_the_metadata_service(container: Host) -> None:
    """Requests to it contain no key that could have expired."""
    container.aws.set_faults(Faults(expired_calls=1))
    with pytest.raises(ClientError, match="ExpiredTokenException"):
        container.describe()
    assert metadata_calls(container.aws) == {"metadata.GetCredentials": 1}
    assert container.describe() == []


def test_assumed_role_may_be_slow(own_aws: LocalAws) -> None:
    """AssumeRole is a normal call: it hangs until the faults change."""
    own_aws.set_faults(Faults(actions=("sts.AssumeRole",), hang=600, lasts=0.1))
    role = {"RoleArn": f"arn:aws:iam::{own_aws.account_id}:role/any", "RoleSessionName": "test"}
    keys = own_aws.client("sts", config=ONCE).assume_role(**role)["Credentials"]
    session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region_name="us-east-1")
    batch = session.client("batch", endpoint_url=own_aws.endpoint_url, config=ONCE)
    assert batch.describe_jobs(jobs=[UNKNOWN])["jobs"] == []


def test_unknown_metadata_is_not_found(own_aws: LocalAws) -> None:
    """It is the same on EC2."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{own_aws.endpoint_url}/jobflow-metadata/latest/user-data", timeout=30)
