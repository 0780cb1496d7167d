"""Outages of the local AWS, in boto3."""

from __future__ import annotations

import socket
import threading
import urllib.error
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, HTTPClientError

from airflow_jobflow.local import Faults, LocalAws, LocalAwsClient

UNKNOWN = "00000000-0000-0000-0000-000000000000"
ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=30)


def test_outage_rejects_connections_until_it_is_ended(own_aws: LocalAws) -> None:
    """This includes connections of existing clients; the process of the server may end it at any time."""
    used = own_aws.client("batch", config=ONCE)
    used.describe_jobs(jobs=[UNKNOWN])
    own_aws.set_faults(Faults(outage=True, lasts=600))
    with pytest.raises(EndpointConnectionError):
        own_aws.client("batch", config=ONCE).describe_jobs(jobs=[UNKNOWN])
    with pytest.raises(EndpointConnectionError):
        used.describe_jobs(jobs=[UNKNOWN])
    with pytest.raises(urllib.error.URLError, match="refused"):
        LocalAwsClient(own_aws.endpoint_url).health()
    own_aws.set_faults(Faults())
    assert used.describe_jobs(jobs=[UNKNOWN])["jobs"] == []
    assert LocalAwsClient(own_aws.endpoint_url).health()["status"] == "ok"


def test_outage_ends_by_itself(own_aws: LocalAws, eventually: Any) -> None:
    """This includes outages started over HTTP; the control API returns on the same port, and a second outage works."""
    remote = LocalAwsClient(own_aws.endpoint_url)
    for _ in range(2):
        remote.set_faults(Faults(outage=True, lasts=0.3))

        def is_back() -> bool:
            try:
                return bool(remote.health()["status"] == "ok")
            except OSError:
                return False

        eventually(is_back)
        own_aws.client("batch", config=ONCE).describe_jobs(jobs=[UNKNOWN])


def test_later_outage_replaces_an_earlier_one(own_aws: LocalAws) -> None:
    """The end of the earlier one does not end it, even if it already waits for the lock."""
    own_aws.set_faults(Faults(outage=True, lasts=600))
    listener: Any = own_aws._listener
    earlier = listener._timer
    own_aws.set_faults(Faults(outage=True, lasts=600))
    earlier.function()
    with pytest.raises(EndpointConnectionError):
        own_aws.client("batch", config=ONCE).describe_jobs(jobs=[UNKNOWN])
    own_aws.set_faults(Faults())


def test_call_in_progress_takes_effect_and_loses_its_response(own_kit: Any) -> None:
    """It had reached AWS before the network failed."""
    definition = own_kit.define()
    own_kit.aws.set_faults(Faults(actions=("SubmitJob",), hang=600))
    raised: list[Exception] = []

    def submit() -> None:
        try:
            own_kit.submit(jobDefinition=definition)
        except (ClientError, HTTPClientError) as error:
            raised.append(error)

    caller = threading.Thread(target=submit)
    caller.start()
    own_kit.eventually(lambda: own_kit.aws.calls["batch.SubmitJob"] == 1)
    own_kit.aws.set_faults(Faults(outage=True, lasts=600))
    caller.join(30)
    assert [type(error) for error in raised] == [ConnectionClosedError]
    own_kit.aws.set_faults(Faults())
    assert len(own_kit.aws.started("batch")) == 1


def test_port_stays_reserved_during_an_outage(own_aws: LocalAws) -> None:
    """No other process gets it."""
    own_aws.set_faults(Faults(outage=True, lasts=600))
    port = int(own_aws.endpoint_url.rsplit(":", 1)[1])
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))


def test_server_can_be_stopped_during_an_outage() -> None:
    """Its port is released."""
    with LocalAws() as aws:
        aws.set_faults(Faults(outage=True, lasts=600))
        port = int(aws.endpoint_url.rsplit(":", 1)[1])
    with LocalAws(port) as aws:
        assert aws.health()["status"] == "ok"


@pytest.mark.parametrize("kind", ["reset", "hang"])
def test_connections_may_be_dropped_or_hang(own_aws: LocalAws, kind: str) -> None:
    """They are accepted first; the control API is reachable."""
    faults = Faults(drop_every=1, lasts=600) if kind == "reset" else Faults(hang=600, lasts=600)
    own_aws.set_faults(faults)
    impatient = Config(retries={"total_max_attempts": 1}, read_timeout=0.2)
    with pytest.raises(HTTPClientError):
        own_aws.client("batch", config=impatient).describe_jobs(jobs=[UNKNOWN])
    LocalAwsClient(own_aws.endpoint_url).set_faults(Faults())
    own_aws.client("batch", config=ONCE).describe_jobs(jobs=[UNKNOWN])
