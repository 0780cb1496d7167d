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


def test_it_fits_the_schema() -> None:
    """Compose's own, as check-jsonschema carries it."""
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(compose.FILE)]
    answer = subprocess.run(check, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_all_that_it_names_is_there() -> None:
    """The schema does not look at references."""
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
def test_what_compose_would_refuse_is_noticed(damage: Callable[[dict[str, Any]], object], said: str) -> None:
    """The checks see what they are for."""
    document = copy.deepcopy(DOCUMENT)
    damage(document)
    assert said in compose.problems(document)


def test_every_secret_must_be_set() -> None:
    """Those that `make compose-env` writes, and no other; without one, the message says what to do."""
    assert compose.required(DOCUMENT) == set(compose_env.SECRETS)
    nothing: dict[str, Any] = {"services": {}}
    for name in SECRETS:
        with pytest.raises(compose.InvalidFileError, match=f"{name} is not set. Run make compose-env"):
            compose.services(DOCUMENT, nothing, {**SECRETS, name: ""})
    assert compose.services(DOCUMENT, nothing, SECRETS)


def test_ports_are_published_on_loopback_only() -> None:
    """Whoever reaches Airflow is an administrator."""
    ports = [port for entry in DOCUMENT["services"].values() for port in entry.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_workers_and_triggerers_can_be_scaled() -> None:
    """Two containers share neither a name nor a published port."""
    for name in ("worker", "triggerer"):
        assert not {"container_name", "ports", "hostname"} & set(DOCUMENT["services"][name])


def test_the_local_aws_knows_no_secret_and_reaches_nobody() -> None:
    """It runs whatever commands it is sent."""
    aws = DOCUMENT["services"]["aws"]
    assert compose.required(aws) == set()
    assert aws["networks"] == ["aws"]
    assert DOCUMENT["networks"]["aws"]["internal"] is True
    beside = {name for name, entry in DOCUMENT["services"].items() if "aws" in entry["networks"]}
    assert beside == {"aws", "aws-console", "triggerer", "worker"}


def test_links_to_the_console_lead_to_pages_that_a_browser_reaches() -> None:
    """The local AWS itself is not published: its pages are, and nothing but pages."""
    console = DOCUMENT["services"]["aws-console"]
    assert "airflow_jobflow.local.console.proxy" in console["command"]
    assert compose.required(console) == set()
    (port,) = compose.interpolate(console["ports"], {})
    published, inner = port.removeprefix("127.0.0.1:").split(":")
    assert inner == console["expose"][0] == console["command"][-1]
    url = compose.interpolate(DOCUMENT["x-airflow"]["environment"]["AIRFLOW__JOBFLOW__CONSOLE_URL"], {})
    assert url == console_url(f"http://localhost:{published}")


def test_the_overlay_only_shortens() -> None:
    """What else it changed would be tested and not shipped."""
    shorter = re.compile(r"HEARTBEAT|THRESHOLD|TIMEOUT|INTERVAL")
    for entry in compose.read(compose.OVERLAY)["services"].values():
        assert set(entry) == {"environment"}
        assert [name for name in entry["environment"] if not shorter.search(name)] == []


def test_the_secrets_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For their owner alone, long enough, each time others; what is there is never touched."""
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


def test_a_secret_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file stays as it is even then, for somebody wrote it."""
    file = tmp_path / ".env"
    file.write_text("POSTGRES_PASSWORD=mine\nAIRFLOW_JWT_SECRET=\n")
    assert compose_env.main([str(file)]) == 1
    assert file.read_text() == "POSTGRES_PASSWORD=mine\nAIRFLOW_JWT_SECRET=\n"
    said = capsys.readouterr().err
    assert "does not set AIRFLOW_JWT_SECRET" in said
    assert "POSTGRES_PASSWORD" not in said


def test_the_fernet_key_is_one() -> None:
    """Airflow would refuse another only when it first encrypts."""
    from cryptography.fernet import Fernet

    Fernet(compose_env.SECRETS["AIRFLOW_FERNET_KEY"]())
