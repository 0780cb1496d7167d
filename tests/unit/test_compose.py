"""docker-compose.yaml, checked without a Docker engine."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_jobflow.local import compose_env
from airflow_jobflow.local.console.html import console_url
from tests.stack import compose

DOCUMENT = compose.read(compose.FILE)
SECRETS = dict.fromkeys(compose_env.SECRETS, "secret")


def test_the_file_matches_the_schema() -> None:
    """The schema is that of Compose, as included in check-jsonschema."""
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(compose.FILE)]
    answer = subprocess.run(check, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_all_references_exist() -> None:
    """The schema does not check references."""
    assert compose.problems(DOCUMENT) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: d["services"].pop("redis"), "service scheduler depends on undefined service redis"),
        (lambda d: d["volumes"].pop("logs"), "service init refers to undefined volume logs"),
        (lambda d: d["volumes"].update(more={}), "volume more is used by no service"),
        (lambda d: d["networks"].pop("aws"), "service aws refers to undefined network aws"),
        (lambda d: d["services"]["aws"].update(secrets=["key"]), "service aws refers to undefined secret key"),
        (
            lambda d: d["services"]["redis"].pop("healthcheck"),
            "service worker waits for redis to be healthy, which has no healthcheck",
        ),
        (
            lambda d: d["services"]["worker"].update(depends_on={"redis": {"condition": "service_health"}}),
            "service worker waits for redis to be service_health, which is no condition",
        ),
        (
            lambda d: d["services"]["postgres"].update(depends_on=["worker"]),
            "services wait for each other: api-server, dag-processor, init, postgres, scheduler, triggerer, worker",
        ),
        (lambda d: d["services"]["redis"].pop("image"), "service redis has neither an image nor a build"),
    ],
)
def test_the_checks_find_invalid_files(damage: Callable[[dict[str, Any]], object], said: str) -> None:
    """Without it, checks that never fail would go unnoticed."""
    document = copy.deepcopy(DOCUMENT)
    damage(document)
    assert said in compose.problems(document)


def test_every_secret_must_be_set() -> None:
    """The secrets are those that `make compose-env` writes; if one is missing, the error says what to do."""
    assert compose.required(DOCUMENT) == set(compose_env.SECRETS)
    nothing: dict[str, Any] = {"services": {}}
    for name in SECRETS:
        with pytest.raises(compose.InvalidFileError, match=f"{name} is not set. Run make compose-env"):
            compose.services(DOCUMENT, nothing, {**SECRETS, name: ""})
    assert compose.services(DOCUMENT, nothing, SECRETS)


def test_ports_are_published_on_loopback_only() -> None:
    """Anyone who can reach Airflow is an administrator."""
    ports = [port for entry in DOCUMENT["services"].values() for port in entry.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_workers_and_triggerers_can_be_scaled() -> None:
    """Containers of one service share neither a name nor a published port."""
    for name in ("worker", "triggerer"):
        assert not {"container_name", "ports", "hostname"} & set(DOCUMENT["services"][name])


def test_the_local_aws_has_no_secrets_and_no_network_access() -> None:
    """It runs all commands that it receives."""
    aws = DOCUMENT["services"]["aws"]
    assert compose.required(aws) == set()
    assert aws["networks"] == ["aws"]
    assert DOCUMENT["networks"]["aws"]["internal"] is True
    beside = {name for name, entry in DOCUMENT["services"].items() if "aws" in entry["networks"]}
    assert beside == {"aws", "aws-console", "triggerer", "worker"}


def test_console_links_are_reachable_from_a_browser() -> None:
    """Only the pages of the local AWS are published, not the local AWS itself."""
    console = DOCUMENT["services"]["aws-console"]
    assert "airflow_jobflow.local.console.proxy" in console["command"]
    assert compose.required(console) == set()
    (port,) = compose.interpolate(console["ports"], {})
    published, inner = port.removeprefix("127.0.0.1:").split(":")
    assert inner == console["expose"][0] == console["command"][-1]
    url = compose.interpolate(DOCUMENT["x-airflow"]["environment"]["AIRFLOW__JOBFLOW__CONSOLE_URL"], {})
    assert url == console_url(f"http://localhost:{published}")


def test_the_overlay_only_shortens_durations() -> None:
    """Any other change would be tested but not shipped."""
    shorter = re.compile(r"HEARTBEAT|THRESHOLD|TIMEOUT|INTERVAL")
    for entry in compose.read(compose.OVERLAY)["services"].values():
        assert set(entry) == {"environment"}
        assert [name for name in entry["environment"] if not shorter.search(name)] == []


def test_the_secrets_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are readable by their owner only, long and random; existing values are kept."""
    file, other = tmp_path / ".env", tmp_path / "other"
    assert compose_env.main([str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    written = file.read_text()
    values = dict(line.split("=", 1) for line in written.splitlines())
    assert set(values) == set(compose_env.SECRETS)
    assert len(values["AIRFLOW_JWT_SECRET"]) >= 64
    assert compose_env.main([str(file)]) == 0
    assert file.read_text() == written
    assert compose_env.main([str(other)]) == 0
    assert not set(values.values()) & {line.split("=", 1)[1] for line in other.read_text().splitlines()}


def test_the_error_names_a_missing_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is not changed, because a user wrote it."""
    file = tmp_path / ".env"
    file.write_text("POSTGRES_PASSWORD=mine\nAIRFLOW_JWT_SECRET=\n")
    assert compose_env.main([str(file)]) == 1
    assert file.read_text() == "POSTGRES_PASSWORD=mine\nAIRFLOW_JWT_SECRET=\n"
    said = capsys.readouterr().err
    assert "does not set AIRFLOW_JWT_SECRET" in said
    assert "POSTGRES_PASSWORD" not in said


def test_the_fernet_key_is_valid() -> None:
    """Airflow would reject an invalid key only at its first use."""
    from cryptography.fernet import Fernet

    Fernet(compose_env.SECRETS["AIRFLOW_FERNET_KEY"]())
