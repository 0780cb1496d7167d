"""How an Airflow connection becomes a boto3 client."""

from __future__ import annotations

import pytest

from airflow_jobflow.aws import Access, AccessMisconfigured
from airflow_jobflow.faults import CallError


def test_calls_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK makes no retries: a repeated submit starts a second job, and repeated describe calls exceed the rate
    limit.
    """
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    access = Access(None, "eu-west-1", botocore_config={"retries": {"total_max_attempts": 9}, "user_agent_extra": "x"})
    config = access.client("batch", timeout=3).meta.config
    assert config.retries["total_max_attempts"] == 1
    assert (config.read_timeout, config.user_agent_extra) == (3, "x")


def test_clients_share_a_loader() -> None:
    """Clients share botocore's loader, which uses more memory than a client."""
    models = [Access(None, "eu-west-1").client("batch").meta.service_model for _ in range(2)]
    # The loader returns the same definition object; two loaders would each read and keep their own.
    assert models[0]._service_description["shapes"] is models[1]._service_description["shapes"]


def test_the_error_for_a_missing_connection_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Falling back to other credentials would submit to the wrong account."""
    with pytest.raises(AccessMisconfigured, match="no connection 'nowhere' \\(aws_conn_id\\)"):
        Access("nowhere", "eu-west-1").client("batch")


def test_the_error_for_an_unknown_botocore_argument_names_it() -> None:
    """``botocore_config`` is a template field, so it is not validated when the DAG is parsed."""
    with pytest.raises(AccessMisconfigured, match=r"botocore_config=.*nonsense"):
        Access(None, "eu-west-1", botocore_config={"nonsense": 1}).client("batch")


def test_the_default_connection_need_not_exist() -> None:
    """A missing ``aws_default`` falls back to boto3's credentials, as in the Amazon provider."""
    assert Access(region_name="eu-west-1").client("batch").meta.region_name == "eu-west-1"


def test_a_connection_gives_region_and_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Region and endpoint come from the connection's extra, as in the Amazon provider."""
    extra = "region_name=ap-south-1&endpoint_url=http%3A%2F%2F127.0.0.1%3A9"
    monkeypatch.setenv("AIRFLOW_CONN_MINE", f"aws://key:secret@/?{extra}")
    meta = Access("mine").client("batch").meta
    assert (meta.region_name, meta.endpoint_url) == ("ap-south-1", "http://127.0.0.1:9")
    assert Access("mine", "eu-west-1").client("batch").meta.region_name == "eu-west-1"


def test_equal_access_has_an_equal_key() -> None:
    """Equal accesses have equal keys, so that their waits share a watcher."""
    one = Access("a", "r", None, {"b": 1, "a": 2})
    assert one.key == Access("a", "r", None, {"a": 2, "b": 1}).key
    assert one.key != Access("a", "r", False, {"a": 2, "b": 1}).key


class Backend:
    """A secrets backend that cannot be reached."""

    def get_connection(self, conn_id: str, team_name: str | None = None) -> None:  # noqa: ARG002 -- as Airflow calls it
        """Raise an error."""
        raise ConnectionError(f"the vault does not answer for {conn_id}")


def test_a_failed_lookup_of_the_default_connection_does_not_mean_that_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a triggerer starts while the API server restarts, boto3's own credentials would belong to another account."""
    monkeypatch.setattr("airflow.sdk.execution_time.supervisor.ensure_secrets_backend_loaded", lambda: [Backend()])
    with pytest.raises(ConnectionError, match="the vault does not answer for aws_default"):
        Access(region_name="eu-west-1").client("batch")


def test_a_default_connection_that_was_found_must_be_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow reports "not found" also while its API server restarts; other credentials would call another account."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://key:secret@/?region_name=ap-south-1")
    assert Access().client("batch").meta.region_name == "ap-south-1"
    monkeypatch.delenv("AIRFLOW_CONN_AWS_DEFAULT")
    with pytest.raises(AccessMisconfigured, match="or it could not be read"):
        Access().client("batch")


def test_a_failed_lookup_of_a_connection_does_not_mean_that_its_extra_is_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise no event listener would run until the triggerer is restarted (A3)."""
    with monkeypatch.context() as patch:
        patch.setattr("airflow.sdk.execution_time.supervisor.ensure_secrets_backend_loaded", lambda: [Backend()])
        with pytest.raises(CallError, match="the vault does not answer"):
            Access().extra()
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://?jobflow_event_queue_url=queue")
    assert Access().extra()["jobflow_event_queue_url"] == "queue"
