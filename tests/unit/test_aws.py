"""What botocore's errors mean, and how clients are made."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore import exceptions
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from airflow_jobflow.aws import Access, AccessMisconfigured, Describer, fault_of
from airflow_jobflow.watch.errors import DescribeError, Fault


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
        ("InternalServiceException", 500, Fault.PASSING),
        ("OperationTimeoutException", 400, Fault.PASSING),
        ("EntityNotFoundException", 400, Fault.NOWHERE),
        ("ClusterNotFoundException", 400, Fault.NOWHERE),
        ("InvalidInputException", 400, Fault.REJECTED),
        ("ConcurrentRunsExceededException", 400, Fault.REJECTED),
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
    ResponseParserError("garbled"),
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
def test_what_the_lack_of_an_answer_means(error: Exception, fault: Fault) -> None:
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
    models = [Access(None, "eu-west-1").client("batch").meta.service_model for _ in range(2)]
    # The loader hands out one and the same definition; two loaders would each read and keep their own.
    assert models[0]._service_description["shapes"] is models[1]._service_description["shapes"]


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


def test_nothing_blocks_the_event_loop_while_a_client_is_built() -> None:
    """A connection may take seconds to read; renewing and closing must not wait for it."""
    building, go_on = threading.Event(), threading.Event()
    kept_waiting: list[bool] = []

    class SlowAccess(Access):
        def client(self, name: str, *, attempts: int = 1, timeout: float = 20.0) -> Any:
            building.set()
            kept_waiting.append(not go_on.wait(10))
            raise AccessMisconfigured(f"no client for {name} after {attempts} attempt in {timeout} s")

    async def scenario() -> None:
        describer = Describer(SlowAccess(), "batch", None, 1.0)
        call = asyncio.create_task(describer(["a"]))
        await asyncio.to_thread(building.wait, 10)
        describer.renew()
        describer.close()
        go_on.set()
        with pytest.raises(DescribeError, match="no client for batch"):
            await call

    asyncio.run(scenario())
    assert kept_waiting == [False]


def test_equal_access_has_an_equal_key() -> None:
    """Waits with one way to AWS share a watcher."""
    one = Access("a", "r", None, {"b": 1, "a": 2})
    assert one.key == Access("a", "r", None, {"a": 2, "b": 1}).key
    assert one.key != Access("a", "r", False, {"a": 2, "b": 1}).key


def test_what_must_be_asked_for_alone_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run beyond those that a look at many reaches; the scope names the job, and answers are read plainly."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")

    class Glue(Access):
        def client(self, name: str, *, attempts: int = 1, timeout: float = 20.0) -> Any:
            client: Any = super().client(name, attempts=attempts, timeout=timeout)
            for call, answer in (("GetJobRuns", {"JobRuns": []}), ("GetJobRun", {"JobRun": RUN})):
                sent = functools.partial(self.answer, json.dumps(answer).encode())
                client.meta.events.register(f"before-send.glue.{call}", sent)
            return client

        @staticmethod
        def answer(body: bytes, request: Any, **_: Any) -> Any:
            assert json.loads(request.body)["JobName"] == "etl"
            headers: Any = {"content-type": "application/x-amz-json-1.1"}
            return AWSResponse(request.url, 200, headers, Raw(body))

    async def scenario() -> None:
        describer = Describer(Glue(None, "eu-west-1"), "glue_run", "etl", 5.0)
        assert await describer(["jr_1", "jr_2"]) == {"jr_1": None, "jr_2": None}
        seen = (await describer(["jr_1"]))["jr_1"]
        assert seen
        assert (seen.status, seen.started_at, seen.region) == (
            "RUNNING",
            "1970-01-01T00:00:01.500000+00:00",
            "eu-west-1",
        )
        describer.close()

    asyncio.run(scenario())


RUN = {"Id": "jr_1", "JobName": "etl", "JobRunState": "RUNNING", "StartedOn": 1.5}


class Raw(io.BytesIO):
    """The body of an answer, as urllib3 has it."""

    def stream(self) -> Iterator[bytes]:
        """All of it."""
        yield self.read()
