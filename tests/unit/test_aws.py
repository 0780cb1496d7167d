"""What botocore's errors mean, and how clients are made."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError

from airflow_jobflow.aws import Access, AccessMisconfigured, fault_of
from airflow_jobflow.watch.errors import Fault


def client_error(code: str, status: int) -> ClientError:
    """An error as AWS answers it."""
    response: Any = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "DescribeJobs")


@pytest.mark.parametrize(
    ("code", "status", "fault"),
    [
        ("TooManyRequestsException", 429, Fault.THROTTLED),
        ("ThrottlingException", 400, Fault.THROTTLED),
        ("Throttling", 400, Fault.THROTTLED),
        ("RequestLimitExceeded", 503, Fault.THROTTLED),
        ("RequestThrottled", 400, Fault.THROTTLED),
        ("Unheard", 429, Fault.THROTTLED),
        ("Unheard", 500, Fault.PASSING),
        ("ServerException", 500, Fault.PASSING),
        ("503", 503, Fault.PASSING),
        ("ExpiredTokenException", 403, Fault.EXPIRED),
        ("AccessDeniedException", 403, Fault.DENIED),
        ("UnrecognizedClientException", 403, Fault.DENIED),
        ("ClientException", 400, Fault.REJECTED),
        ("Unheard", 404, Fault.REJECTED),
    ],
)
def test_what_an_answer_means(code: str, status: int, fault: Fault) -> None:
    """Throttling taken for a refusal would fail a wait."""
    assert fault_of(client_error(code, status)) is fault


PASSING = [
    exceptions.ConnectTimeoutError(endpoint_url="u"),
    exceptions.ReadTimeoutError(endpoint_url="u"),
    exceptions.EndpointConnectionError(endpoint_url="u"),
    exceptions.ConnectionClosedError(endpoint_url="u"),
    exceptions.SSLError(endpoint_url="u", error=OSError()),
    exceptions.CredentialRetrievalError(provider="p", error_msg="e"),
    exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
]
DENIED = [
    exceptions.NoCredentialsError(),
    exceptions.PartialCredentialsError(provider="p", cred_var="v"),
    exceptions.NoRegionError(),
    exceptions.ProfileNotFound(profile="p"),
]


@pytest.mark.parametrize(
    ("error", "fault"), [*((error, Fault.PASSING) for error in PASSING), *((error, Fault.DENIED) for error in DENIED)]
)
def test_what_the_lack_of_an_answer_means(error: BotoCoreError, fault: Fault) -> None:
    """A lost connection passes; a missing region does not."""
    assert fault_of(error) is fault


def test_a_malformed_id_is_the_callers_fault() -> None:
    """The call is split until the bad id is found."""
    assert fault_of(exceptions.ParamValidationError(report="r")) is Fault.REJECTED


def test_calls_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SDK that repeats a submit starts a second job; one that repeats looks overruns the budget."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    access = Access(None, "eu-west-1", botocore_config={"retries": {"total_max_attempts": 9}, "user_agent_extra": "x"})
    config = access.client("batch", timeout=3).meta.config
    assert config.retries["total_max_attempts"] == 1
    assert (config.read_timeout, config.user_agent_extra) == (3, "x")


def test_clients_share_a_loader() -> None:
    """A loader for each client costs more memory than the client."""
    first, second = (Access(None, "eu-west-1").client("batch") for _ in range(2))
    assert first._loader is second._loader if hasattr(first, "_loader") else True


def test_a_connection_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Falling back to whatever credentials lie about would submit to the wrong account."""
    with pytest.raises(AccessMisconfigured, match="aws_conn_id='nowhere'"):
        Access("nowhere", "eu-west-1").client("batch")


def test_an_argument_that_botocore_has_not_is_named() -> None:
    """It is a template field, and so not checked when the DAG is read."""
    with pytest.raises(AccessMisconfigured, match=r"botocore_config=.*nonsense"):
        Access(None, "eu-west-1", botocore_config={"nonsense": 1}).client("batch")


def test_the_default_connection_need_not_exist() -> None:
    """As with the Amazon provider."""
    assert Access(region_name="eu-west-1").client("batch").meta.region_name == "eu-west-1"


def test_a_connection_gives_region_and_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user has set up for the Amazon provider holds here too."""
    extra = "region_name=ap-south-1&endpoint_url=http%3A%2F%2F127.0.0.1%3A9"
    monkeypatch.setenv("AIRFLOW_CONN_MINE", f"aws://key:secret@/?{extra}")
    meta = Access("mine").client("batch").meta
    assert (meta.region_name, meta.endpoint_url) == ("ap-south-1", "http://127.0.0.1:9")
    assert Access("mine", "eu-west-1").client("batch").meta.region_name == "eu-west-1"


def test_equal_access_has_an_equal_key() -> None:
    """Waits with one way to AWS share a watcher."""
    one = Access("a", "r", None, {"b": 1, "a": 2})
    assert one.key == Access("a", "r", None, {"a": 2, "b": 1}).key
    assert one.key != Access("a", "r", False, {"a": 2, "b": 1}).key
