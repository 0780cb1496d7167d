"""The table of faults on what botocore makes of real bytes: response bodies, and connections that fail."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.session import Session

from airflow_jobflow.faults import CLIENT_CREATION, CallError, Fault

SENT, NOT_SENT = True, False

CALLS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    # The call itself reads the response: a response without these members cannot be read.
    "DescribeJobs": ("batch", lambda client: client.describe_jobs(jobs=["1"])["jobs"]),
    "SubmitJob": ("batch", lambda client: client.submit_job(jobName="n", jobQueue="q", jobDefinition="d")["jobId"]),
    "RunTask": ("ecs", lambda client: client.run_task(taskDefinition="t")["tasks"]),
    "DescribeTasks": ("ecs", lambda client: client.describe_tasks(tasks=["1"])["tasks"]),
    "StartJobRun": ("glue", lambda client: client.start_job_run(JobName="j")["JobRunId"]),
    "GetLogEvents": ("logs", lambda client: client.get_log_events(logGroupName="g", logStreamName="s")["events"]),
    "ReceiveMessage": ("sqs", lambda client: client.receive_message(QueueUrl="https://sqs/1/q")),
    "AssumeRole": ("sts", lambda client: client.assume_role(RoleArn="r" * 20, RoleSessionName="session")),
}

HTML = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"
XML_ERROR = "<ErrorResponse><Error><Type>Sender</Type><Code>{}</Code><Message>{}</Message></Error></ErrorResponse>"
WRAPPED = (
    '{"__type": "InvalidParameterException", "message": '
    '"Error retrieving subnet information for [subnet-1]: Rate exceeded (ErrorCode: Throttling)"}'
)
BATCH_TYPE = {"x-amzn-errortype": "ClientException:http://internal.amazon.com/coral/com.amazonaws.batch/"}
NO_QUEUE = {"x-amzn-query-error": "AWS.SimpleQueueService.NonExistentQueue;Sender"}

BODIES: list[tuple[str, int, dict[str, str], bytes | str, Fault, bool]] = [
    # A proxy, a firewall or a load balancer responds.
    ("DescribeJobs", 403, {}, HTML.format("403 Forbidden"), Fault.DENIED, NOT_SENT),
    ("DescribeTasks", 403, {}, HTML.format("403 Forbidden"), Fault.DENIED, NOT_SENT),
    ("SubmitJob", 403, {}, "", Fault.DENIED, NOT_SENT),
    ("DescribeJobs", 407, {}, HTML.format("Proxy Authentication Required"), Fault.DENIED, NOT_SENT),
    ("DescribeJobs", 404, {}, HTML.format("404 Not Found"), Fault.REJECTED, NOT_SENT),
    ("RunTask", 404, {}, "", Fault.REJECTED, NOT_SENT),
    ("RunTask", 429, {}, HTML.format("429 Too Many Requests"), Fault.THROTTLED, NOT_SENT),
    ("RunTask", 302, {"location": "https://login"}, HTML.format("Sign in"), Fault.TRANSIENT, SENT),
    ("RunTask", 502, {}, HTML.format("502 Bad Gateway"), Fault.TRANSIENT, SENT),
    ("SubmitJob", 503, {}, "", Fault.TRANSIENT, SENT),
    ("StartJobRun", 504, {}, HTML.format("504 Gateway Timeout"), Fault.TRANSIENT, SENT),
    ("ReceiveMessage", 403, {}, HTML.format("403 Forbidden"), Fault.DENIED, NOT_SENT),
    ("AssumeRole", 403, {}, HTML.format("403 Forbidden"), Fault.CREDENTIALS, NOT_SENT),
    ("AssumeRole", 503, {}, HTML.format("503 Service Unavailable"), Fault.TRANSIENT, NOT_SENT),
    # The status is a success, but the body cannot be read.
    ("DescribeJobs", 200, {}, "", Fault.TRANSIENT, SENT),
    ("DescribeJobs", 200, {}, HTML.format("Please log in"), Fault.TRANSIENT, SENT),
    ("SubmitJob", 200, {}, "{}", Fault.TRANSIENT, SENT),
    ("SubmitJob", 200, {}, '{"jobId": "1', Fault.TRANSIENT, SENT),
    ("RunTask", 200, {}, "[]", Fault.TRANSIENT, SENT),
    ("RunTask", 200, {}, "null", Fault.TRANSIENT, SENT),
    ("RunTask", 200, {}, b"\xff\xfe", Fault.TRANSIENT, SENT),
    ("RunTask", 200, {}, '{"tasks": {"a": 1}}', Fault.TRANSIENT, SENT),
    ("StartJobRun", 200, {}, HTML.format("Please log in"), Fault.TRANSIENT, SENT),
    # AWS responds, in the format of each protocol.
    ("RunTask", 400, {}, WRAPPED, Fault.THROTTLED, NOT_SENT),
    (
        "DescribeTasks",
        400,
        {},
        '{"__type": "ThrottlingException", "message": "Rate exceeded"}',
        Fault.THROTTLED,
        NOT_SENT,
    ),
    ("DescribeTasks", 400, {}, '{"__type": "com.amazon.coral#AccessDeniedException"}', Fault.DENIED, NOT_SENT),
    ("DescribeTasks", 500, {}, '{"__type": "ServerException"}', Fault.TRANSIENT, SENT),
    ("DescribeJobs", 400, BATCH_TYPE, '{"message": "Malformed id"}', Fault.REJECTED, NOT_SENT),
    ("DescribeJobs", 429, {"x-amzn-errortype": "TooManyRequestsException"}, "{}", Fault.THROTTLED, NOT_SENT),
    ("DescribeJobs", 403, {"x-amzn-errortype": "ExpiredTokenException"}, "{}", Fault.CREDENTIALS, NOT_SENT),
    ("GetLogEvents", 400, {}, '{"__type": "ResourceNotFoundException"}', Fault.SCOPE_NOT_FOUND, NOT_SENT),
    (
        "ReceiveMessage",
        400,
        NO_QUEUE,
        '{"__type": "com.amazonaws.sqs#QueueDoesNotExist"}',
        Fault.SCOPE_NOT_FOUND,
        NOT_SENT,
    ),
    ("AssumeRole", 403, {}, XML_ERROR.format("AccessDenied", "no"), Fault.CREDENTIALS, NOT_SENT),
    ("AssumeRole", 400, {}, XML_ERROR.format("Throttling", "Rate exceeded"), Fault.THROTTLED, NOT_SENT),
]


class Raw:
    """A response of urllib3 with a body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        """Yield the body."""
        yield self._body


SESSION = Session()
"""Shared, because botocore loads a service's model once per session."""


def client(service: str, endpoint_url: str | None = None, **config: Any) -> Any:
    """Return a client that makes one attempt, with its own credentials."""
    return SESSION.create_client(
        service,
        region_name="us-east-1",
        endpoint_url=endpoint_url,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}, **config),
    )


def failed(operation: str, built: Any) -> CallError:
    """Make a call that fails, and return the classified error."""
    try:
        CALLS[operation][1](built)
    except Exception as error:  # noqa: BLE001 -- any error
        return CallError.from_error(error, operation)
    pytest.fail("the call succeeded")


@pytest.mark.parametrize(("case"), BODIES, ids=lambda case: f"{case[0]}-{case[1]}-{case[3][:40]!r}")
def test_a_body_is_classified(case: tuple[str, int, dict[str, str], bytes | str, Fault, bool]) -> None:
    """Botocore's parser of the service's protocol has parsed it."""
    operation, status, headers, body, fault, sent = case
    built = client(CALLS[operation][0])
    raw: Any = Raw(body if isinstance(body, bytes) else body.encode())
    fields: Any = headers
    built.meta.events.register("before-send", lambda request, **_: AWSResponse(request.url, status, fields, raw))
    error = failed(operation, built)
    assert (error.fault, error.sent) == (fault, sent), str(error)
    assert operation in str(error)


@contextlib.contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """Accept one connection, read a request, send a response and close; with None, never respond. Yields the URL."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as connection:
                connection.recv(65536)
                if answer is None:
                    done.wait(30)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        done.set()
        server.close()
        thread.join(10)


@pytest.fixture
def closed() -> str:
    """Return a URL where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_refused_connection_sent_nothing(closed: str) -> None:
    """No job was started, so the submit may be repeated (F2)."""
    error = failed("SubmitJob", client("batch", closed))
    assert (error.fault, error.sent) == (Fault.TRANSIENT, NOT_SENT)
    assert str(error) == (
        f'SubmitJob: Could not connect to the endpoint URL: "{closed}/v1/submitjob" ([Errno 111] Connection refused)'
    )


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
def test_a_request_on_a_lost_connection_may_have_been_executed(answer: bytes) -> None:
    """The connection is lost before the response, in its headers or in its body."""
    with listening(answer) as url:
        error = failed("SubmitJob", client("batch", url))
    assert (error.fault, error.sent) == (Fault.TRANSIENT, SENT)


def test_a_request_without_a_response_may_have_been_executed() -> None:
    """The server has read it, and is slow."""
    with listening(None) as url:
        error = failed("RunTask", client("ecs", url, read_timeout=0.2))
    assert (error.fault, error.sent) == (Fault.TRANSIENT, SENT)


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        ("407 Proxy Authentication Required", Fault.DENIED),
        ("403 Forbidden", Fault.DENIED),
        ("503 Service Unavailable", Fault.TRANSIENT),
    ],
)
def test_a_request_was_not_sent_if_the_proxy_refuses_the_tunnel(status: str, fault: Fault) -> None:
    """AWS is called by HTTPS, so a proxy responds 407 to CONNECT, which botocore's message does not contain."""
    with listening(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as proxy:
        error = failed("SubmitJob", client("batch", "https://batch.example", proxies={"https": proxy}))
    assert (error.fault, error.sent) == (fault, NOT_SENT)
    assert status in str(error)


def test_a_request_was_not_sent_if_the_proxy_is_down(closed: str) -> None:
    """It is classified like a refused connection."""
    error = failed("SubmitJob", client("batch", "https://batch.example", proxies={"https": closed}))
    assert (error.fault, error.sent) == (Fault.TRANSIENT, NOT_SENT)


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> pytest.MonkeyPatch:
    """Remove all credentials of this machine from the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def error_without_credentials(closed: str) -> CallError:
    """Make a call with a client without static credentials, and return the classified error."""
    try:
        built = Session().create_client("batch", region_name="us-east-1", endpoint_url=closed)
    except Exception as error:  # noqa: BLE001 -- any error
        return CallError.from_error(error, CLIENT_CREATION)
    return failed("SubmitJob", built)


def test_a_metadata_service_that_is_down_leaves_no_credentials(no_credentials: pytest.MonkeyPatch, closed: str) -> None:
    """Botocore tries it once, and keeps a client without credentials (A2)."""
    no_credentials.setenv("AWS_EC2_METADATA_DISABLED", "false")
    no_credentials.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", closed)
    error = error_without_credentials(closed)
    assert (error.fault, error.sent) == (Fault.CREDENTIALS, NOT_SENT)
    assert str(error) == "SubmitJob: Unable to locate credentials"


def test_a_container_without_credentials_sent_nothing(no_credentials: pytest.MonkeyPatch, closed: str) -> None:
    """The agent of ECS or EKS is queried while the client is built."""
    no_credentials.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", closed)
    no_credentials.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    error = error_without_credentials(closed)
    assert (error.fault, error.sent) == (Fault.CREDENTIALS, NOT_SENT)


@pytest.mark.parametrize("command", ["/no/such/program", "false", "echo {}", "echo text"])
def test_a_credential_process_that_fails_sent_nothing(
    no_credentials: pytest.MonkeyPatch, closed: str, tmp_path: Any, command: str
) -> None:
    """The program does not exist, fails, or prints no credentials."""
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {command}\n")
    error = error_without_credentials(closed)
    assert (error.fault, error.sent) == (Fault.CREDENTIALS, NOT_SENT), repr(error)


def test_a_missing_token_of_a_web_identity_sent_nothing(no_credentials: pytest.MonkeyPatch, closed: str) -> None:
    """With IRSA, the volume of the token may not be mounted yet."""
    no_credentials.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/airflow")
    no_credentials.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/token")
    error = error_without_credentials(closed)
    assert (error.fault, error.sent) == (Fault.CREDENTIALS, NOT_SENT)


def test_a_missing_profile_sent_nothing(no_credentials: pytest.MonkeyPatch, closed: str) -> None:
    """The session is created lazily, so the client raises the error."""
    no_credentials.setenv("AWS_PROFILE", "production")
    error = error_without_credentials(closed)
    assert (error.fault, error.sent) == (Fault.CREDENTIALS, NOT_SENT)
