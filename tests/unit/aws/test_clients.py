"""The clients of a process: built when needed, discarded when credentials fail, and independent of each other."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from airflow_jobflow.aws import Access, AccessMisconfigured, Rate, ServiceClient, forget_clients, service_client
from airflow_jobflow.aws.boto3_client import LIFETIME, REBUILD_DELAY
from airflow_jobflow.aws.clients import MAX_THREADS
from airflow_jobflow.faults import CallError, Fault
from tests.unit.aws.scripted_aws import Script, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOBS = [{"jobId": "a"}]
DESCRIBED = {"jobs": JOBS}


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def describe(client: ServiceClient) -> Any:
    """Make a describe call."""
    return client.invoke("describe_jobs", {"jobs": ["a"]})["jobs"]


def faults(client: ServiceClient, clock: Clock, seconds: float, every: float = 0.5) -> list[tuple[float, Fault | None]]:
    """Call for some time; return the time and the result of each call: a fault, or None for a response."""
    began = clock.now
    seen: list[tuple[float, Fault | None]] = []
    while clock.now <= began + seconds:
        try:
            describe(client)
            seen.append((clock.now - began, None))
        except CallError as error:
            seen.append((clock.now - began, error.fault))
        clock.now += every
    return seen


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("operation", "parameters"), [("list_jobs", {"jobQueue": "q"}), ("describe_jobs", {"jobs": []})]
)
@pytest.mark.parametrize("body", ["", "<html>Login</html>", "[]"])
def test_a_response_without_members_is_an_error(operation: str, parameters: dict[str, Any], body: str) -> None:
    """Botocore accepts an empty response; the job would count as unknown, or a KeyError would end the wait."""
    client = ServiceClient(Script(lambda *_: (200, "text/html", body)).access(), "batch")
    with pytest.raises(CallError) as raised:
        client.invoke(operation, {"jobQueue": "q"} if operation == "list_jobs" else {"jobs": ["a"]})
    assert (raised.value.fault, raised.value.sent) == (Fault.TRANSIENT, True)


# Credentials that are missing for a while.


def test_a_client_that_was_built_without_credentials_is_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without credentials is rebuilt, because botocore never looks for them again."""
    script, clock = Script(lambda *_: DESCRIBED), Clock()
    client = ServiceClient(script.access(), "batch", clock=clock)
    with pytest.raises(CallError, match="Unable to locate credentials") as raised:
        describe(client)
    assert (raised.value.fault, raised.value.sent) == (Fault.CREDENTIALS, False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    assert describe(client) == JOBS
    assert script.builds == 2


def test_a_metadata_service_that_is_slow_once_costs_one_call(metadata: Metadata) -> None:
    """Botocore gives the metadata service one second and one attempt, and then keeps a client without credentials."""
    script = Script(lambda *_: DESCRIBED)
    client = ServiceClient(script.access(), "batch")
    with pytest.raises(CallError) as raised:
        describe(client)
    assert raised.value.fault is Fault.CREDENTIALS
    metadata.answers.set()
    assert describe(client) == JOBS
    assert script.builds == 2


@pytest.mark.usefixtures("credentials")
def test_calls_acquire_turns_only_after_the_client_is_built() -> None:
    """Turns acquired during the build would be used all at once afterwards, far above the rate limit."""
    begun, go_on = threading.Event(), threading.Event()

    def building() -> None:
        begun.set()
        go_on.wait(30)

    script = Script(lambda *_: DESCRIBED, building=building)
    client = ServiceClient(script.access(), "batch")

    async def scenario() -> list[float]:
        turns = [asyncio.create_task(client.acquire(Rate.POLL)) for _ in range(3)]
        turns.append(asyncio.create_task(asyncio.to_thread(client.acquire_blocking, Rate.POLL)))
        assert await asyncio.to_thread(begun.wait, 10)
        built_at = time.monotonic()
        go_on.set()
        return [turn - built_at for turn in await asyncio.gather(*turns)]

    assert min(asyncio.run(scenario())) >= 0
    assert script.builds == 1


def test_a_call_gets_its_turn_even_if_the_client_cannot_be_built() -> None:
    """The call then raises the error of the build."""
    script = Script(building=lambda: 1 / 0)
    client = ServiceClient(script.access(), "batch")
    asyncio.run(client.acquire(Rate.POLL))
    client.acquire_blocking(Rate.POLL)
    with pytest.raises(CallError, match="division by zero"):
        describe(client)
    assert script.builds == 1


class Metadata(HTTPServer):
    """A metadata service of EC2 that does not respond until a test allows it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MetadataRequest)
        self.answers = threading.Event()


class MetadataRequest(BaseHTTPRequestHandler):
    """Responds with the credentials of a role."""

    server: Metadata

    def do_PUT(self) -> None:
        """Respond with a token."""
        self._answer("token", waits=True)

    def do_GET(self) -> None:
        """Respond with the role, or its credentials."""
        credentials = (
            '{"Code": "Success", "AccessKeyId": "a", "SecretAccessKey": "b", "Token": "c", "Type": "AWS-HMAC", '
            '"LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z"}'
        )
        self._answer(credentials if self.path.endswith("/role") else "role", waits=False)

    def _answer(self, text: str, *, waits: bool) -> None:
        if waits and not self.server.answers.is_set():
            self.server.answers.wait(30)
            return  # the client has closed the connection
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    """Run a metadata service on this machine."""
    server = Metadata()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    yield server
    server.answers.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_credential_process_that_fails_once_costs_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed ``credential_process``, for example one that queries a password store, fails one call only."""
    ready = tmp_path / "ready"
    process = tmp_path / "process"
    answer = '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b"}'
    process.write_text(f"#!/bin/sh\n[ -e {ready} ] || exit 1\necho '{answer}'\n")
    process.chmod(process.stat().st_mode | stat.S_IXUSR)
    config = tmp_path / "config"
    config.write_text(f"[profile mine]\nregion = eu-west-1\ncredential_process = {process}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    script = Script(lambda *_: DESCRIBED)
    client = ServiceClient(script.access(), "batch")
    with pytest.raises(CallError, match="custom-process") as raised:
        describe(client)
    assert raised.value.fault is Fault.CREDENTIALS
    ready.touch()
    client._boto3._build_after = 0.0  # the pause after a failed build is over
    assert describe(client) == JOBS


HICCUPS: list[Callable[[], Exception]] = [
    exceptions.NoCredentialsError,
    lambda: exceptions.CredentialRetrievalError(provider="assume-role", error_msg="e"),
    lambda: exceptions.MetadataRetrievalError(error_msg="timed out"),
    lambda: exceptions.SSOTokenLoadError(error_msg="expired"),
    exceptions.UnauthorizedSSOTokenError,
    lambda: exceptions.TokenRetrievalError(provider="sso", error_msg="e"),
    lambda: exceptions.ProfileNotFound(profile="p"),
    exceptions.NoRegionError,
    lambda: AccessMisconfigured("no connection"),
    lambda: ClientError(
        {"Error": {"Code": "AccessDenied", "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": 403}},  # type: ignore[typeddict-item]
        "AssumeRole",
    ),
    lambda: RuntimeError("the API server restarts"),
]


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("hiccup", HICCUPS, ids=lambda each: type(each()).__name__)
def test_a_client_that_cannot_be_built_for_ten_seconds_is_built_again(hiccup: Callable[[], Exception]) -> None:
    """A failing role, profile or connection is tried again with growing pauses until it works."""
    script, clock = Script(lambda *_: DESCRIBED), Clock()
    client = ServiceClient(script.access(), "batch", clock=clock)

    def building() -> None:
        if clock.now < 1010:
            raise hiccup()

    script.building = building
    seen = faults(client, clock, 20)
    assert {fault for at, fault in seen if at < 10} <= {Fault.CREDENTIALS, Fault.TRANSIENT}
    assert all(fault is None for at, fault in seen if at >= 15)
    assert [fault for _, fault in seen].count(None) >= 10
    assert script.builds <= 6
    assert len(script.requests) == [fault for _, fault in seen].count(None)


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("code", ["UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException"])
def test_credentials_that_aws_does_not_accept_are_fetched_anew(code: str) -> None:
    """A key was rotated, so the next client reads the new one; if that does not help, rebuilds are rare."""
    clock = Clock()
    script = Script(lambda *_: DESCRIBED if clock.now >= 1060 else refusal(code, 403))
    client = ServiceClient(script.access(), "batch", clock=clock)
    seen = faults(client, clock, 80)
    assert {fault for at, fault in seen if at < 60} == {Fault.CREDENTIALS}
    assert {fault for at, fault in seen if at >= 66} == {None}
    refused = [at for at, fault in seen if fault]
    assert script.builds <= 18
    assert len(script.requests) - [fault for _, fault in seen].count(None) <= 18 < len(refused)


@pytest.mark.usefixtures("credentials")
def test_a_denied_call_rebuilds_the_client_from_time_to_time() -> None:
    """New credentials rarely help against a denied call, but the connection may have got another role."""
    clock = Clock()
    script = Script(lambda *_: refusal("AccessDeniedException", 403))
    client = ServiceClient(script.access(), "batch", clock=clock)
    seen = faults(client, clock, 100)
    assert {fault for _, fault in seen} == {Fault.DENIED}
    assert len(script.requests) == len(seen)
    assert 100 / REBUILD_DELAY <= script.builds <= 1 + 100 / REBUILD_DELAY + 1


@pytest.mark.usefixtures("credentials")
def test_one_rebuild_serves_all_who_wait_for_it() -> None:
    """Concurrent callers share one rebuild: it takes a tenth of a second and reads the connection."""
    script = Script(lambda *_: DESCRIBED)
    arrived = threading.Barrier(MAX_THREADS + 1)
    client = ServiceClient(script.access(), "batch")
    go_on = threading.Event()
    script.building = lambda: go_on.wait(30)

    def work() -> Any:
        arrived.wait(30)
        return describe(client)

    with ThreadPoolExecutor(MAX_THREADS) as pool:
        calls = [pool.submit(work) for _ in range(MAX_THREADS)]
        arrived.wait(30)
        go_on.set()
        assert [call.result(30) for call in calls] == [JOBS] * MAX_THREADS
    assert script.builds == 1


@pytest.mark.usefixtures("credentials")
def test_calls_that_fail_together_discard_one_client() -> None:
    """Late failures were made with the old credentials, and must not discard the new client."""
    both = threading.Barrier(2)
    answers = iter(["old", "old"])

    def answer(*_: object) -> Any:
        if next(answers, None):
            both.wait(30)
            return refusal("ExpiredTokenException", 403)
        return DESCRIBED

    script, clock = Script(answer), Clock()
    client = ServiceClient(script.access(), "batch", clock=clock)

    def failing() -> None:
        with pytest.raises(CallError):
            describe(client)

    threads = [threading.Thread(target=failing) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert describe(client) == JOBS  # at once: both are the same failure
    assert script.builds == 2


@pytest.mark.usefixtures("credentials")
def test_an_error_belongs_to_its_caller() -> None:
    """Callers of the same failed build get separate error objects, because each adds its own details."""
    script, clock = Script(), Clock()

    def building() -> None:
        raise exceptions.NoRegionError

    script.building = building
    client = ServiceClient(script.access(), "batch", clock=clock)
    errors = []
    for _ in range(3):
        with pytest.raises(CallError) as raised:
            describe(client)
        errors.append(raised.value)
    assert script.builds == 1
    assert len({id(error) for error in errors}) == 3
    assert len({str(error) for error in errors}) == 1


@pytest.mark.usefixtures("credentials")
def test_an_old_client_is_used_while_it_is_rebuilt() -> None:
    """A changed connection takes effect without a restart, and no call waits for the rebuild."""
    script, clock = Script(lambda *_: DESCRIBED), Clock()
    client = ServiceClient(script.access(), "batch", clock=clock)
    describe(client)
    clock.now += LIFETIME + 1
    building, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        building.set()
        go_on.wait(30)

    script.building = slow
    with ThreadPoolExecutor(1) as pool:
        rebuilding = pool.submit(describe, client)
        assert building.wait(30)
        assert describe(client) == JOBS
        go_on.set()
        assert rebuilding.result(30) == JOBS
    assert script.builds == 2


@pytest.mark.usefixtures("credentials")
def test_an_old_client_is_kept_if_no_new_one_can_be_built() -> None:
    """A failing lookup of the connection does not break a client that works."""
    script, clock = Script(lambda *_: DESCRIBED), Clock()
    client = ServiceClient(script.access(), "batch", clock=clock)
    describe(client)
    clock.now += LIFETIME + 1

    def building() -> None:
        raise AccessMisconfigured("the API server restarts")

    script.building = building
    assert {fault for _, fault in faults(client, clock, 60)} == {None}
    assert script.builds < 20


def test_a_connection_that_cannot_be_looked_up_for_ten_seconds_is_looked_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lookup is retried: Airflow's API server may be restarting."""
    clock = Clock()
    client = ServiceClient(Access("mine"), "batch", clock=clock)
    for _ in range(3):
        with pytest.raises(CallError, match="no connection 'mine'") as raised:
            client.region  # noqa: B018 -- builds the client
        assert raised.value.fault is Fault.CREDENTIALS
        clock.now += 3
    monkeypatch.setenv("AIRFLOW_CONN_MINE", "aws://key:secret@/?region_name=ap-south-1")
    clock.now += 1
    assert client.region == "ap-south-1"


# Many clients


@pytest.mark.usefixtures("credentials")
def test_a_connection_that_takes_long_to_build_delays_no_other() -> None:
    """A slow STS delays only the clients that use it."""
    slow, fast = Script(lambda *_: DESCRIBED), Script(lambda *_: DESCRIBED)
    building, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        building.set()
        go_on.wait(30)

    slow.building = wait
    hanging = service_client(slow.access("slow"), "batch")
    other = service_client(fast.access("fast"), "batch")
    waiting = [hanging.start(describe, hanging) for _ in range(2 * MAX_THREADS)]
    assert building.wait(30)
    assert other.start(describe, other).result(30) == JOBS
    assert service_client(fast.access("third"), "batch").start(describe, other).result(30) == JOBS
    assert not any(call.done() for call in waiting)
    go_on.set()
    assert all(call.result(30) == JOBS for call in waiting)


@pytest.mark.usefixtures("credentials")
def test_the_threads_of_a_client_are_few_however_many_scopes_call() -> None:
    """The number of threads does not grow with the number of ECS clusters or Glue jobs."""
    client = service_client(Script(lambda *_: DESCRIBED).access(), "ecs")
    go_on = threading.Event()
    calls = [client.start(go_on.wait, 30) for _ in range(300)]
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("jobflow-ecs")]
    assert len(mine) <= MAX_THREADS < 20
    go_on.set()
    assert all(call.result(30) for call in calls)


@pytest.mark.usefixtures("credentials")
def test_clients_of_a_connection_and_region_share_one_limiter() -> None:
    """All scopes of a connection and region share one budget."""
    script = Script(lambda *_: DESCRIBED)
    one = service_client(script.access("mine"), "batch")
    other = service_client(script.access("mine", botocore_config={"user_agent_extra": "x"}), "batch")
    elsewhere = service_client(script.access("mine", region_name="us-east-1"), "batch")
    before = one.limiter(Rate.POLL)
    for client in (one, other, elsewhere):
        describe(client)
    assert one.limiter(Rate.POLL) is other.limiter(Rate.POLL) is before, "who waits already keeps the place"
    assert one.limiter(Rate.POLL) is not one.limiter(Rate.ACTION)
    assert one.limiter(Rate.POLL) is not elsewhere.limiter(Rate.POLL)
    assert service_client(script.access("mine"), "batch") is one
    assert service_client(script.access("mine"), "ecs") is not one


def test_the_limit_of_log_calls_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's own by default; less where others read logs, too."""
    assert service_client(Access("one"), "logs").limiter(Rate.ACTION).budget == 25
    monkeypatch.setenv("AIRFLOW__JOBFLOW__LOG_CALLS_PER_SECOND", "3")
    assert service_client(Access("two"), "logs").limiter(Rate.ACTION).budget == 3


@pytest.mark.usefixtures("credentials")
def test_callers_that_wait_while_the_region_becomes_known_move_to_its_limiter() -> None:
    """Otherwise two limiters would allow twice the budget until the first one's queue is empty."""
    script = Script(lambda *_: DESCRIBED)
    one = service_client(script.access("mine"), "batch")
    other = service_client(script.access("mine", botocore_config={"user_agent_extra": "x"}), "batch")
    describe(one)
    limiter = other.limiter(Rate.POLL)
    acquire = limiter.acquire_blocking

    def while_it_waits(*, goes_on: bool = False) -> float:
        describe(other)
        return acquire(goes_on=goes_on)

    limiter.acquire_blocking = while_it_waits  # type: ignore[method-assign]
    before = one.limiter(Rate.POLL)._next_call
    other.acquire_blocking(Rate.POLL)
    assert one.limiter(Rate.POLL)._next_call > before


@pytest.mark.usefixtures("credentials")
def test_a_forked_process_starts_without_clients() -> None:
    """After a fork, the threads of the parent do not exist, and its locks may be held forever."""
    script = Script(lambda *_: DESCRIBED)
    client = service_client(script.access(), "batch")
    client.start(describe, client).result(30)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        from airflow_jobflow.aws import clients

        with clients._registry_lock, client._boto3._build_lock, client.limiter(Rate.POLL)._lock:
            held.set()
            go_on.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            mine = service_client(script.access(), "batch")
            mine.acquire_blocking(Rate.POLL)
            code = 0 if mine is not client and mine.start(describe, mine).result(30) == JOBS else 2
        finally:
            sys.stdout.flush()
            os._exit(code)
    go_on.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_forgotten_clients_are_built_anew() -> None:
    """``forget_clients`` drops all clients, as after a fork."""
    access = Access(None, "eu-west-1")
    before = service_client(access, "batch")
    assert service_client(access, "batch") is before
    forget_clients()
    assert service_client(access, "batch") is not before


def test_tags_that_are_denied_are_tried_again_with_the_next_client() -> None:
    """A policy that is being replaced must not hide all later jobs of a triggerer from the orphan reaper."""
    clock = Clock()
    client = ServiceClient(Access(None), "batch", clock=clock)
    assert client.may_tag
    client.may_tag = False
    clock.now += LIFETIME - 1
    assert not client.may_tag
    clock.now += 1
    assert client.may_tag
