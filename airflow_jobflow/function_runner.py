"""Calls a function in a container. Its text is sent with the job, and runs there as ``python -c``.

It needs Python 3.8 or newer, and nothing else; for a result in S3, boto3 or the AWS CLI too. ``operators.functions``
says what the variables have.

Invariants:

- What the function raises is printed with its traceback, is the result, and ends the job with exit code 1. Only the
  exit code of SystemExit is the function's own.
- A result that cannot be returned does the same.
"""

from __future__ import annotations
import __future__

import ast
import base64
import json
import linecache
import os
import pickle
import signal
import subprocess
import sys
import traceback
import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_LINE = 15000
"""The most characters of a line of a log, which Docker splits at 16 KB."""

DEEPEST = 50
"""How deep JSON may be nested."""

LARGEST = 14_000
"""The most bits of an integer. Python reads no more than 4,300 digits."""


def main() -> None:
    """Call the function, and write its result."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # process 1 would ignore it
    text = os.environ["JOBFLOW_FUNCTION"]
    if text.startswith("s3://"):
        text = in_s3(text)
    call = json.loads(zlib.decompress(base64.b64decode(text)))
    try:
        args, kwargs = decoded(call["arguments"], call["serializer"])
        if "JOBFLOW_ITEM" in os.environ:
            args[0] = decoded(json.loads(os.environ["JOBFLOW_ITEM"]), call["serializer"])
        result = encoded(function(call)(*args, **kwargs), call)
    except SystemExit:
        raise
    except BaseException as error:  # such as asyncio's CancelledError
        result, code = raised(error), 1
    else:
        code = 0
    if call["most"]:
        write(result)
    sys.exit(code)


def function(call: dict[str, Any]) -> Any:
    """Return the function. Its defaults and annotations are left out, because they may refer to the DAG's file.

    :param call: what ``JOBFLOW_FUNCTION`` has.
    """
    file, line, source = call["file"], call["line"], call["source"]
    is_indented = source[:1] in " \t"
    text = "\n" * (line - 2) + "if 1:\n" + source if is_indented else "\n" * (line - 1) + source
    lines = [each + "\n" for each in text.split("\n")]  # splitlines would split at form feeds too
    linecache.cache[file] = (len(text), None, lines, file)  # for tracebacks
    flags = __future__.annotations.compiler_flag if call["postpones_annotations"] else 0
    tree = compile(text, file, "exec", flags | ast.PyCF_ONLY_AST, True)
    found = tree.body[0].body[0] if is_indented else tree.body[0]
    of = found.args
    for each in of.posonlyargs + of.args + of.kwonlyargs + [of.vararg, of.kwarg]:
        if each:
            each.annotation = None
    of.defaults, of.kw_defaults, found.returns, tree.body = [], [None] * len(of.kwonlyargs), None, [found]
    namespace = {"__name__": "__main__"}
    exec(compile(tree, file, "exec", flags, True), namespace)
    return namespace[found.name]


def decoded(value: Any, serializer: str) -> Any:
    """Return a value that was serialized.

    :param value: as JSON has it.
    :param serializer: ``json`` or ``cloudpickle``.
    """
    return value if serializer == "json" else pickle.loads(base64.b64decode(value))


def encoded(value: Any, call: dict[str, Any]) -> str:
    """Return what the function returned as JSON.

    :param value: what it returned.
    :param call: what ``JOBFLOW_FUNCTION`` has.
    :raises TypeError: it is not JSON, and should be.
    :raises ValueError: it is too long.
    """
    if not call["most"]:
        return ""
    if call["serializer"] == "json":
        wrong = next(not_json(value, "the return value"), "")
        if wrong:
            raise TypeError(wrong + ". Return something else, or use serializer='cloudpickle'")
    else:
        value = base64.b64encode(import_module("cloudpickle").dumps(value)).decode()
    text = json.dumps(value)
    if len(text) > call["most"]:
        raise ValueError(
            "The return value has {:,} characters as JSON, and result={!r} takes at most {:,}. {}".format(
                len(text), call["result"], call["most"], call["advice"]
            )
        )
    return text


def not_json(value: Any, what: str, depth: int = 0) -> Iterator[str]:
    """Yield what in a value is not JSON, one sentence for each.

    :param value: the value.
    :param what: its name.
    :param depth: how deep it is nested. Default 0.
    """
    if depth > DEEPEST:
        yield f"{what[:100]}... is nested too deeply"
    elif isinstance(value, (dict, list, tuple)):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict) and not isinstance(key, str):
                yield f"{what} has the key {key!r}, which must be a str in JSON"
            yield from not_json(each, f"{what}[{key!r}]", depth + 1)
    elif isinstance(value, float) and value - value != 0:
        yield f"{what} is {value}, which is not JSON"
    elif isinstance(value, int) and value.bit_length() > LARGEST:
        yield f"{what} is too large a number"
    elif not (value is None or isinstance(value, (str, int, float))):
        yield f"{what} is a {type(value).__name__}, which is not JSON"


def raised(error: BaseException) -> str:
    """Print the traceback of an exception without the frames of this module, and return it as JSON.

    :param error: the exception.
    """
    report = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in report.stack if frame.filename != "<string>"]
    report.stack = traceback.StackSummary.from_list(frames)
    shown = "".join(report.format() if frames else report.format_exception_only())
    print(shown, file=sys.stderr, flush=True)
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    message, shown = storable(message), storable(shown)
    room = LONGEST_LINE
    while True:
        members = {"type": type(error).__name__, "message": message[:room], "traceback": shown[-room:]}
        text = json.dumps({"raised": members})
        if len(text) <= LONGEST_LINE:
            return text
        room //= 2


def storable(text: str) -> str:
    """Return text as Airflow can store it: with escapes for NUL characters, and for what is not Unicode.

    :param text: the text.
    """
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def write(text: str) -> None:
    """Write a result to S3, or to the log: in a line of its own, whatever the function has printed.

    :param text: the result.
    """
    uri = os.environ.get("JOBFLOW_RESULT_URI")
    if uri:
        in_s3(uri, text)
    else:
        sys.stdout.flush()
        print("\nJOBFLOW_RESULT " + text, file=sys.__stdout__, flush=True)  # the function may have replaced sys.stdout


def in_s3(uri: str, text: str | None = None) -> str:
    """Read an object, or write it.

    :param uri: its address.
    :param text: its content. Default None, to read it.
    """
    bucket, _, key = uri[5:].partition("/")
    try:
        import boto3
    except ImportError:
        copy = [uri, "-"] if text is None else ["-", uri]
        try:
            done = subprocess.run(["aws", "s3", "cp", *copy], input=(text or "").encode(), stdout=-1, check=True)
        except OSError:
            sys.exit("jobflow: result='s3://...' needs boto3 or the AWS CLI in the image")
        return done.stdout.decode()
    s3 = boto3.client("s3")
    if text is None:
        text = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    else:
        s3.put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType="application/json")
    return str(text)


if __name__ == "__main__":
    main()
