"""The table of faults on a corpus of real responses, and on exceptions as botocore, Airflow and Python raise them."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import botocore.exceptions as botocore
import httpx
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException, AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from botocore.parsers import ResponseParserError
from sqlalchemy.exc import OperationalError

from airflow_jobflow.aws import AccessMisconfigured
from airflow_jobflow.faults import CLIENT_CREATION, CallError, Fault, classify, classify_failure, request_sent

CORPUS = tomllib.loads(Path(__file__).with_name("faults_corpus.toml").read_text())["corpus"]
RESPONSES = [(line, Fault(part["fault"]), part["sent"]) for part in CORPUS for line in part["responses"]]
FAILURES = [(*line, Fault(part["fault"])) for part in CORPUS for line in part.get("failures", [])]

SENT, NOT_SENT = True, False
BATCH = "https://batch.us-east-1.amazonaws.com/v1/describejobs"
STS = "https://sts.us-east-1.amazonaws.com/"

ANSWERED_407 = OSError("Tunnel connection failed: 407 Proxy Authentication Required")
ANSWERED_403 = OSError("Tunnel connection failed: 403 Forbidden")
ANSWERED_503 = OSError("Tunnel connection failed: 503 Service Unavailable")
CERTIFICATE = (
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in chain (_ssl.c:1006)"
)
CONNECTION_NOT_FOUND = ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": "aws"})
UNREACHABLE = ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"message": "503 Service Unavailable"})

RAISED: list[tuple[BaseException, Fault, bool]] = [
    # Credentials.
    (botocore.NoCredentialsError(), Fault.CREDENTIALS, NOT_SENT),
    (botocore.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), Fault.CREDENTIALS, NOT_SENT),
    (
        botocore.CredentialRetrievalError(provider="custom-process", error_msg="exit code 1: Rate exceeded"),
        Fault.CREDENTIALS,
        NOT_SENT,
    ),
    (
        botocore.CredentialRetrievalError(
            provider="container-role", error_msg="Received non 200 response 429 from container metadata"
        ),
        Fault.CREDENTIALS,
        NOT_SENT,
    ),
    (botocore.MetadataRetrievalError(error_msg="Received non 200 response 503"), Fault.CREDENTIALS, NOT_SENT),
    (botocore.TokenRetrievalError(provider="sso", error_msg="Token has expired"), Fault.CREDENTIALS, NOT_SENT),
    (botocore.UnauthorizedSSOTokenError(), Fault.CREDENTIALS, NOT_SENT),
    (botocore.ProfileNotFound(profile="production"), Fault.CREDENTIALS, NOT_SENT),
    (botocore.NoRegionError(), Fault.CREDENTIALS, NOT_SENT),
    (
        RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."),
        Fault.CREDENTIALS,
        NOT_SENT,
    ),
    (ValueError("Invalid endpoint: htp:/aws"), Fault.CREDENTIALS, NOT_SENT),
    (NotImplementedError("assume_role_method=assume_role_x not expected"), Fault.CREDENTIALS, NOT_SENT),
    (RuntimeError("sts_response_http_status=500"), Fault.CREDENTIALS, NOT_SENT),
    (ValueError("Invalid SAML Assertion"), Fault.CREDENTIALS, NOT_SENT),
    # The program for credential_process, or the token file for AssumeRoleWithWebIdentity, does not exist yet.
    (FileNotFoundError(2, "No such file or directory", "/usr/local/bin/credentials"), Fault.CREDENTIALS, NOT_SENT),
    (PermissionError(13, "Permission denied", "/var/run/secrets/token"), Fault.CREDENTIALS, NOT_SENT),
    # The Airflow connection.
    (AirflowNotFoundException("The conn_id `aws` isn't defined"), Fault.CREDENTIALS, NOT_SENT),
    (AirflowRuntimeError(CONNECTION_NOT_FOUND), Fault.CREDENTIALS, NOT_SENT),
    (AirflowRuntimeError(UNREACHABLE), Fault.CREDENTIALS, NOT_SENT),
    (AirflowException("Unsupported federation: x."), Fault.CREDENTIALS, NOT_SENT),
    (AccessMisconfigured("aws_conn_id='aws': Airflow has no connection of this name"), Fault.CREDENTIALS, NOT_SENT),
    (httpx.ConnectError("[Errno 111] Connection refused"), Fault.CREDENTIALS, NOT_SENT),
    (httpx.ReadTimeout("timed out"), Fault.CREDENTIALS, NOT_SENT),
    (
        httpx.HTTPStatusError("503", request=httpx.Request("GET", "http://api"), response=httpx.Response(503)),
        Fault.CREDENTIALS,
        NOT_SENT,
    ),
    (OperationalError("SELECT 1", {}, ConnectionError("server closed")), Fault.CREDENTIALS, NOT_SENT),
    # No connection.
    (
        botocore.EndpointConnectionError(endpoint_url=BATCH, error=ConnectionRefusedError(111, "Connection refused")),
        Fault.TRANSIENT,
        NOT_SENT,
    ),
    (
        botocore.EndpointConnectionError(endpoint_url=BATCH, error=socket.gaierror(-2, "Name or service not known")),
        Fault.TRANSIENT,
        NOT_SENT,
    ),
    (botocore.ConnectTimeoutError(endpoint_url=BATCH, error="timed out"), Fault.TRANSIENT, NOT_SENT),
    (botocore.ProxyConnectionError(proxy_url="http://proxy:3128", error=ANSWERED_503), Fault.TRANSIENT, NOT_SENT),
    (botocore.SSLError(endpoint_url=BATCH, error=OSError(CERTIFICATE)), Fault.TRANSIENT, NOT_SENT),
    (
        botocore.SSLError(endpoint_url=BATCH, error=OSError("[SSL: WRONG_VERSION_NUMBER] wrong version")),
        Fault.TRANSIENT,
        NOT_SENT,
    ),
    (ConnectionRefusedError(111, "Connection refused"), Fault.TRANSIENT, NOT_SENT),
    (socket.gaierror(-3, "Temporary failure in name resolution"), Fault.TRANSIENT, NOT_SENT),
    # The proxy denies the connection.
    (botocore.ProxyConnectionError(proxy_url="http://proxy:3128", error=ANSWERED_407), Fault.DENIED, NOT_SENT),
    (botocore.ProxyConnectionError(proxy_url="http://proxy:3128", error=ANSWERED_403), Fault.DENIED, NOT_SENT),
    # The connection existed.
    (botocore.ReadTimeoutError(endpoint_url=BATCH, error="timed out"), Fault.TRANSIENT, SENT),
    (botocore.ConnectionClosedError(endpoint_url=BATCH, error="reset by peer"), Fault.TRANSIENT, SENT),
    (
        botocore.SSLError(endpoint_url=BATCH, error=OSError("EOF occurred in violation of protocol (_ssl.c:2396)")),
        Fault.TRANSIENT,
        SENT,
    ),
    (botocore.IncompleteReadError(actual_bytes=10, expected_bytes=100), Fault.TRANSIENT, SENT),
    (botocore.ResponseStreamingError(error="reset"), Fault.TRANSIENT, SENT),
    (botocore.HTTPClientError(error="Pool is closed."), Fault.TRANSIENT, SENT),
    (ConnectionResetError(104, "Connection reset by peer"), Fault.TRANSIENT, SENT),
    (BrokenPipeError(32, "Broken pipe"), Fault.TRANSIENT, SENT),
    (TimeoutError(), Fault.TRANSIENT, SENT),
    (OSError(24, "Too many open files"), Fault.TRANSIENT, SENT),
    # Connections for credentials, while another request was prepared.
    (botocore.ReadTimeoutError(endpoint_url=STS, error="timed out"), Fault.TRANSIENT, NOT_SENT),
    (botocore.ConnectionClosedError(endpoint_url=STS, error="reset by peer"), Fault.TRANSIENT, NOT_SENT),
    (botocore.SSLError(endpoint_url=STS, error=OSError("EOF occurred")), Fault.TRANSIENT, NOT_SENT),
    (
        botocore.ReadTimeoutError(endpoint_url="https://vpce-1.sts.us-east-1.vpce.amazonaws.com", error=""),
        Fault.TRANSIENT,
        NOT_SENT,
    ),
    (
        botocore.ReadTimeoutError(endpoint_url="https://portal.sso.eu-west-1.amazonaws.com/federation", error=""),
        Fault.TRANSIENT,
        NOT_SENT,
    ),
    (
        botocore.ReadTimeoutError(endpoint_url="http://169.254.169.254/latest/meta-data/", error=""),
        Fault.TRANSIENT,
        NOT_SENT,
    ),
    # Unreadable responses.
    (
        ResponseParserError("Unable to parse response (syntax error: line 1), invalid XML received"),
        Fault.TRANSIENT,
        SENT,
    ),
    (json.JSONDecodeError("Expecting value", "<html>", 0), Fault.TRANSIENT, SENT),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), Fault.TRANSIENT, SENT),
    (KeyError("jobs"), Fault.TRANSIENT, SENT),
    (AttributeError("'list' object has no attribute 'get'"), Fault.TRANSIENT, SENT),
    (botocore.PaginationError(message="The same next token was received twice"), Fault.TRANSIENT, SENT),
    (RuntimeError("can't start new thread"), Fault.TRANSIENT, SENT),
    # Requests that botocore rejects.
    (botocore.ParamValidationError(report="Missing required parameter in input: jobs"), Fault.REJECTED, NOT_SENT),
    (botocore.OperationNotPageableError(operation_name="describe_jobs"), Fault.REJECTED, NOT_SENT),
    # Botocore's own retry quota.
    (botocore.CapacityNotAvailableError(), Fault.THROTTLED, NOT_SENT),
]


def client_error(operation: str, code: str, status: int, message: str, **metadata: Any) -> botocore.ClientError:
    """Return a response as botocore raises it; with status 0 for no status."""
    metadata = {"HTTPStatusCode": status, "RetryAttempts": 0, **metadata} if status else {}
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}
    return botocore.ClientError(response, operation)


def test_the_corpus_is_large_and_contains_every_fault() -> None:
    """A corpus that is not read proves nothing."""
    assert len(RESPONSES) + len(RAISED) > 200
    assert {fault for _, fault, _ in RESPONSES} == set(Fault)


@pytest.mark.parametrize(("response", "fault", "sent"), RESPONSES, ids=str)
def test_a_response_is_classified_as_in_the_corpus(
    response: tuple[str, str, int, str], fault: Fault, sent: bool
) -> None:
    """Both the fault and whether the request may have been executed must match."""
    error = client_error(*response)
    assert (classify(error), request_sent(error)) == (fault, sent)


@pytest.mark.parametrize(("reason", "detail", "fault"), FAILURES)
def test_a_failure_of_run_task_is_classified_as_in_the_corpus(reason: str, detail: str, fault: Fault) -> None:
    """Such a failure comes with status 200 and without a code."""
    assert classify_failure(reason, detail) is fault


@pytest.mark.parametrize(("error", "fault", "sent"), RAISED, ids=lambda each: repr(each)[:60])
def test_an_exception_is_classified_as_in_the_corpus(error: BaseException, fault: Fault, sent: bool) -> None:
    """Without a response, the type decides, and sometimes the message."""
    assert (classify(error), request_sent(error)) == (fault, sent)


@pytest.mark.parametrize(
    "error",
    [
        *(error for error, _, sent in RAISED if not sent),
        ValueError("role_arn is malformed"),
        TypeError("Expected JSON-Object or dict, got list."),
        ImportError("No module named 'requests_gssapi'"),
        KeyError("AccessKeyId"),
        botocore.ParamValidationError(report="Invalid length for parameter RoleArn, value: 3, valid min length: 20"),
        json.JSONDecodeError("Expecting value", "text", 0),
    ],
    ids=lambda each: repr(each)[:60],
)
def test_nothing_was_sent_if_the_client_could_not_be_built(error: BaseException) -> None:
    """Hooks and federations raise errors of any type then, which never come from the request."""
    assert not request_sent(error, CLIENT_CREATION)
    assert classify(error, CLIENT_CREATION) in {Fault.CREDENTIALS, classify(error)}


def test_an_unknown_error_of_building_a_client_concerns_the_access() -> None:
    """The same error of a call would be an unreadable response."""
    assert classify(KeyError("AccessKeyId"), CLIENT_CREATION) is Fault.CREDENTIALS
    assert classify(KeyError("jobs"), "DescribeJobs") is Fault.TRANSIENT
    role = botocore.ParamValidationError(report="Invalid length for parameter RoleArn, value: 3, valid min length: 20")
    assert classify(role, CLIENT_CREATION) is Fault.CREDENTIALS
    assert classify(botocore.SSLError(endpoint_url=BATCH, error=OSError()), CLIENT_CREATION) is Fault.TRANSIENT


def test_a_denied_role_does_not_count_as_a_denied_request() -> None:
    """Botocore assumes the role while it signs RunTask; the error names the operation that failed."""
    error = CallError.from_error(client_error("AssumeRole", "AccessDenied", 403, "no"), "RunTask")
    assert (error.fault, error.operation, error.sent) == (Fault.CREDENTIALS, "RunTask", False)
    assert str(error).startswith("RunTask: An error occurred (AccessDenied) when calling the AssumeRole operation")


def test_a_request_that_botocore_repeated_may_have_been_executed() -> None:
    """The last attempt was rejected; the result of the first is unknown."""
    assert request_sent(client_error("SubmitJob", "ClientException", 400, "no", RetryAttempts=1))
    assert not request_sent(client_error("SubmitJob", "ClientException", 400, "no"))


@pytest.mark.parametrize(
    "response",
    [{}, {"Error": None}, {"Error": "text"}, {"Error": {}, "ResponseMetadata": None}, {"Error": {"Code": None}}],
)
def test_a_malformed_response_is_classified_too(response: Any) -> None:
    """A proxy may return anything, and the table must not raise."""
    error = botocore.NoCredentialsError()
    error.response = response  # type: ignore[attr-defined]
    assert isinstance(classify(error), Fault)
    assert isinstance(request_sent(error), bool)


def test_a_call_error_keeps_its_classification() -> None:
    """It does not change when it is classified again or pickled."""
    error = CallError(Fault.DENIED, "no", code="AccessDenied", operation="RunTask", sent=False)
    assert (classify(error), request_sent(error)) == (Fault.DENIED, False)
    assert CallError.from_error(error, "StopTask") is error
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again), str(again)) == (CallError, vars(error), "no")


def test_a_call_error_has_the_response_of_aws() -> None:
    """It has AWS's code, the operation, and botocore's message."""
    original = client_error("RunTask", "ClientException", 400, "Tasks provisioning capacity limit exceeded.")
    error = CallError.from_error(original)
    assert (error.fault, error.code, error.operation, error.sent) == (
        Fault.THROTTLED,
        "ClientException",
        "RunTask",
        False,
    )
    assert str(error) == str(original)


PAGE = "<!DOCTYPE html><html><head><style>h1 {color: red}</style></head><body><h1>Blocked</h1>\n <p>x</p></body></html>"


@pytest.mark.parametrize(
    ("error", "operation", "message"),
    [
        (
            client_error("SubmitJob", "X", 400, "why", MaxAttemptsReached=True),
            "SubmitJob",
            "An error occurred (X) when calling the SubmitJob operation: why",
        ),
        (
            client_error("DescribeJobs", "503", 503, ""),
            "DescribeJobs",
            "An error occurred (503) when calling the DescribeJobs operation",
        ),
        (
            client_error("DescribeJobs", "403", 403, PAGE),
            "DescribeJobs",
            "An error occurred (403) when calling the DescribeJobs operation: Blocked x",
        ),
        (botocore.NoCredentialsError(), "RunTask", "RunTask: Unable to locate credentials"),
        (botocore.NoCredentialsError(), "", "Unable to locate credentials"),
        (botocore.NoRegionError(), CLIENT_CREATION, "client creation: You must specify a region."),
        (AccessMisconfigured("no such connection"), CLIENT_CREATION, "client creation: no such connection"),
        (KeyError("jobs"), "DescribeJobs", "DescribeJobs: KeyError: 'jobs'"),
        (TimeoutError(), "StopTask", "StopTask: TimeoutError"),
    ],
)
def test_a_message_names_the_operation_once_and_has_no_noise(
    error: BaseException, operation: str, message: str
) -> None:
    """Users read it in the task log."""
    assert str(CallError.from_error(error, operation)) == message


def test_a_message_is_bounded() -> None:
    """A proxy's page may have any length."""
    message = str(CallError.from_error(client_error("ListJobs", "403", 403, "word " * 10_000)))
    assert len(message) == 1000
    assert message.endswith("…")


def test_the_module_imports_nothing_heavy() -> None:
    """Workers and the scheduler import it."""
    code = "import sys, airflow_jobflow.faults; print({name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"boto3", "botocore", "airflow", "asyncio"} & set(eval(loaded))
