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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_jobflow.exceptions import InvalidParameter
from airflow_jobflow.function_runner import not_json
from airflow_jobflow.jobs.results import parsed
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


def unreadable() -> None:
    """Raise an exception without a message."""

    class Unreadable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    raise Unreadable


def cancelled() -> None:
    """Raise what is no Exception."""
    import asyncio

    raise asyncio.CancelledError("by someone")


def unstorable() -> None:
    """Raise an exception whose message no XCom can have."""
    raise ValueError("a\0b\udcff")


@pytest.mark.parametrize(
    ("function", "type_name", "message"),
    [
        (unreadable, "Unreadable", "(its message cannot be shown)"),
        (cancelled, "CancelledError", "by someone"),
        (unstorable, "ValueError", "a\\0b\\udcff"),
    ],
)
def test_any_exception_is_returned_with_its_traceback(function: Any, type_name: str, message: str) -> None:
    """Otherwise the task would only say that the exit code is 1."""
    done = in_container(call_of(function))
    raised = parsed(done.stdout.partition("JOBFLOW_RESULT ")[2].encode(), "the log")["raised"]
    assert done.returncode == 1
    assert (raised["type"], raised["message"]) == (type_name, message)
    assert f"in {function.__name__}" in raised["traceback"]


def test_a_result_is_in_the_log_even_if_the_function_replaced_stdout() -> None:
    """And what it has written before is in front of it."""

    def captures() -> int:
        import io
        import sys

        sys.stdout = io.StringIO()
        return 1

    assert in_container(call_of(captures)).stdout == "\nJOBFLOW_RESULT 1\n"


def test_a_traceback_has_the_right_lines_after_a_form_feed() -> None:
    """Which is no end of a line in Python."""

    def fails() -> None:
        # here:
        raise ValueError

    assert "    raise ValueError\n" in in_container(call_of(fails)).stderr


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
        ([10**5000], "x[0] is too large a number"),
        ([b"bytes"], "x[0] is a bytes, which is not JSON"),
        ({"a": [object()]}, "x['a'][0] is a object, which is not JSON"),
    ],
)
def test_what_is_not_json_is_named_with_its_place(value: Any, wrong: str) -> None:
    """A message without it does not help with large data."""
    assert next(not_json(value, "x"), "") == wrong


class Lazy(Sequence[int]):
    """What Airflow passes for the values of a mapped task."""

    __module__ = "airflow.sdk.execution_time.lazy_sequence"

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: Any) -> Any:
        return (1, 2)[index]


@pytest.mark.parametrize("is_map", [False, True])
def test_outputs_of_mapped_tasks_are_lists_wherever_they_are(is_map: bool) -> None:
    """Airflow reads them when they are used, which no container could."""

    def first_of(first: Any, *args: Any, **kwargs: Any) -> Any:
        return [first, args, kwargs]

    call = FunctionCall(
        first_of,
        "json",
        "python",
        None if is_map else "log",
        [[Lazy()], Lazy()],
        {"key": {"in": Lazy()}},
        is_map=is_map,
    )
    if is_map:
        assert call.items == [{"environment": {ITEM: "[1, 2]"}}]
        assert in_container(call, item="[1, 2]").returncode == 0
    else:
        assert in_container(call).stdout == '\nJOBFLOW_RESULT [[[1, 2]], [[1, 2]], {"key": {"in": [1, 2]}}]\n'


def test_an_argument_that_contains_itself_can_be_pickled() -> None:
    """And is no JSON."""

    def takes(value: Any) -> bool:
        return value[0] is value

    value: list[Any] = []
    value += [value, value]
    assert call_of(takes, value, serializer="cloudpickle").items == []
    with pytest.raises(InvalidParameter, match="is nested too deeply"):
        call_of(takes, value)


def test_a_value_that_contains_itself_is_not_json() -> None:
    """And ends the search."""
    value: list[Any] = []
    value.append(value)
    assert next(not_json(value, "x"), "").endswith("... is nested too deeply")
