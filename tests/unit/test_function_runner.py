"""What runs in the container: on a Python that has nothing else."""

from __future__ import annotations

import ast
import base64
import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_jobflow.function_runner import not_json
from airflow_jobflow.operators.functions import ITEM, FunctionCall, runner

if TYPE_CHECKING:
    from decimal import Decimal


FOUR: Any = 4


def in_container(
    call: FunctionCall, item: str | None = None, path: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Call a function as a container does, without any package of this environment."""
    made = call.in_job({}, None, 8192)
    environment = {**made["environment"], **call.variables, **variables, "PATH": path}
    if item is not None:
        environment[ITEM] = item
    command = [sys.executable, "-I", "-S", *made["command"][1:]]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def call_of(function: Any, *args: Any, result: str | None = "log", serializer: str = "json") -> FunctionCall:
    """Return a call with some arguments."""
    return FunctionCall(function, serializer, "python", result, args, {})


def test_the_runner_is_written_for_older_versions_of_python() -> None:
    """An image may have one."""
    ast.parse(zlib.decompress(base64.b64decode(runner())), feature_version=(3, 8))


def test_a_container_needs_only_python() -> None:
    """Neither Airflow, nor this package, nor any other."""

    def describe(word: str, *more: int, **named: str) -> dict[str, Any]:
        import sys

        return {"word": word, "more": more, "named": named, "packages": "airflow" in sys.modules}

    call = FunctionCall(describe, "json", "python", "log", ["ä", 1, 2], {"key": "value"})
    done = in_container(call)
    expected = {"word": "ä", "more": [1, 2], "named": {"key": "value"}, "packages": False}
    assert done.stderr == ""
    assert json.loads(done.stdout.removeprefix("\nJOBFLOW_RESULT ")) == expected
    assert done.returncode == 0


def test_a_function_may_call_itself_and_have_types() -> None:
    """Its annotations and defaults are not evaluated; those of inner classes are."""

    def fact(number: Decimal = FOUR) -> Decimal | int:
        from dataclasses import dataclass

        @dataclass
        class Number:
            value: int = 1

        return number * fact(number - 1) if number else Number().value

    assert in_container(call_of(fact)).stdout == "\nJOBFLOW_RESULT 24\n"


def test_a_result_for_s3_without_boto3_or_the_cli_says_what_is_missing() -> None:
    """The image of the user lacks it."""

    def one() -> int:
        return 1

    done = in_container(call_of(one, result="s3://bucket/prefix"), JOBFLOW_RESULT_URI="s3://bucket/key")
    assert done.returncode == 1
    assert done.stderr == "jobflow: result='s3://...' needs boto3 or the AWS CLI in the image\n"


def test_the_aws_cli_writes_and_reads_where_boto3_is_missing(tmp_path: Path) -> None:
    """Images with the CLI are common."""

    def length(text: str) -> int:
        return len(text)

    cli = tmp_path / "aws"
    files = (
        f'f="{tmp_path}/$(basename "$(echo "$3$4" | sed s/-//)")"; if [ "$3" = - ]; then cat > "$f"; else cat "$f"; fi'
    )
    cli.write_text(f"#!/bin/sh\n{files}\n")
    cli.chmod(0o755)
    call = call_of(length, "".join(map(str, range(9000))), result="s3://bucket/prefix")
    call.in_job({}, None, 8192)
    assert call.stored is not None
    (tmp_path / call.stored[0].rpartition("/")[2]).write_text(call.stored[1])
    done = in_container(call, path=f"{tmp_path}:{os.environ['PATH']}", JOBFLOW_RESULT_URI="s3://bucket/written")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "written").read_text() == str(len("".join(map(str, range(9000)))))


def test_cloudpickle_that_is_missing_in_the_image_is_named() -> None:
    """The worker has it, the image has not."""

    def one() -> int:
        return 1

    done = in_container(call_of(one, serializer="cloudpickle"))
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'cloudpickle'" in done.stderr


def test_a_traceback_that_is_too_long_for_a_line_is_shortened() -> None:
    """The end of it says most."""

    def fails() -> None:
        raise ValueError("ä" * 50_000)

    done = in_container(call_of(fails))
    line = done.stdout.removeprefix("\nJOBFLOW_RESULT ")
    raised = json.loads(line)["raised"]
    assert len(line) <= 15_001
    assert raised["type"] == "ValueError"
    assert raised["traceback"].endswith("ä\n")


def test_a_function_can_clean_up_when_its_job_is_stopped() -> None:
    """Process 1 of a container ignores SIGTERM by default, and would be killed."""

    def stops() -> None:
        import os
        import signal
        import sys

        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            sys.stdout.write("cleaned up\n")

    done = in_container(call_of(stops))
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "cleaned up\n")


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({"a": [1, "b", None, True, (1.5,)]}, ""),
        ({"a": {1: 2}}, "x['a'] has the key 1, which must be a str in JSON"),
        ([0, float("inf")], "x[1] is inf, which is not JSON"),
        ([b"bytes"], "x[0] is a bytes, which is not JSON"),
        ({"a": [object()]}, "x['a'][0] is a object, which is not JSON"),
    ],
)
def test_what_is_not_json_is_named_with_its_place(value: Any, wrong: str) -> None:
    """A message without it does not help with large data."""
    assert next(not_json(value, "x"), "") == wrong


def test_a_value_that_contains_itself_is_not_json() -> None:
    """And ends the search."""
    value: list[Any] = []
    value.append(value)
    assert next(not_json(value, "x"), "").endswith("... is nested too deeply")
