"""The result that a job returns: JSON in an object in S3, or in a line of its log.

Each attempt of ours has its own address, which the job finds in ``JOBFLOW_RESULT_URI``. Where AWS makes several
attempts of one job, they share it: an object that was written before the previous attempt ended counts as missing.

Invariants:

- A result is returned only if Airflow can store it: JSON of at most ``MAX_INLINE`` bytes, without values that Airflow
  or its database reject.
- What a job writes is data. It never raises anything but a ``ResultError``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from airflow_jobflow.faults import CallError
from airflow_jobflow.jobs import logs
from airflow_jobflow.jobs.array import index_ranges
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.model import LogStream

CLIENT = "s3"

LOG = "log"
"""The value of ``result`` for results in the log."""

MAX_INLINE = 48 * 1024
"""The most bytes of a result that is returned, and of all results of an array or a map together."""

MAX_LISTED = 1000
"""The most children or items whose results are returned; for more, there is a manifest."""

MAX_CALLS = 10_000
"""The same for the calls of a function, whose values are small, and are what its task returns."""

MAX_DEPTH = 50
"""How deep a result may be nested; Airflow's own limit is a few hundred."""

LOG_MARK = "JOBFLOW_RESULT "
"""The beginning of the log line that has the result."""

NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")
"""Matches the number that a child or an item appends to the address."""

MANIFEST = "manifest.json"

RESERVED_KEYS = ("__classname__", "__id__", "__type", "__var")
"""Keys by which Airflow recognizes objects in XComs: it would reject them, or make an object of a class they name."""

NO_OBJECT = ("NoSuchKey", "404")
EMPTY_OBJECT = "InvalidRange"


class ResultError(Exception):
    """There is no result. The message says why.

    :param message: why, for people.
    :param is_missing: whether the job wrote nothing; otherwise it wrote something that cannot be used. Default False.
    """

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in S3 with a result.

    :param uri: its address.
    :param size: in bytes.
    :param modified: when it was written, in whole seconds since the epoch.
    """

    uri: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Part:
    """Where the children of an array, or the items of a map, wrote their results.

    :param uri: the address that they share; each appends its number.
    :param indexes: the index of the child or item in the whole, by number.
    """

    uri: str
    indexes: Mapping[int, int]


def address(prefix: str, group: str, token: str, part: int | None = None) -> str:
    """Return the address of the result of an attempt, which no other attempt has.

    :param prefix: the user's ``s3://bucket/prefix``.
    :param group: of the task instance.
    :param token: of the attempt.
    :param part: the number of the array's part, if it was redriven. Default None.
    """
    return f"{prefix.rstrip('/')}/{group}/{token}{'' if part is None else f'-{part}'}"


def split(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an address.

    :param uri: ``s3://bucket/key``.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def read(call: Call, uri: str, after: str | None = None) -> Any:
    """Return the result in an object; None if it is larger than ``MAX_INLINE``. One GetObject call, of this many bytes.

    :param call: makes the API calls of S3.
    :param uri: of the object.
    :param after: when AWS's previous attempt ended, in ISO 8601: an older object is of an earlier attempt. Default
        None.
    :raises ResultError: there is no result.
    :raises CallError: the object could not be read.
    """
    bucket, key = split(uri)
    if not uri.startswith("s3://") or not key:
        raise ResultError(f"the job's JOBFLOW_RESULT_URI is {uri!r}, which is not an address in S3")
    try:
        response = call("get_object", Bucket=bucket, Key=key, Range=f"bytes=0-{MAX_INLINE}")
    except CallError as error:
        if error.code in NO_OBJECT:
            raise _missing(uri) from error
        if error.code == EMPTY_OBJECT:
            raise ResultError(f"{uri} is empty") from error
        raise
    if not _is_new(response["LastModified"].timestamp(), after):
        raise ResultError(
            f"{uri} was written by an earlier attempt of the job; the last attempt wrote no result", is_missing=True
        )
    body: bytes = response["Body"]
    return None if len(body) > MAX_INLINE else parsed(body, uri)


def _missing(uri: str) -> ResultError:
    return ResultError(f"the job wrote nothing to {uri}", is_missing=True)


def _is_new(modified: float, after: str | None) -> bool:
    """Return whether an object was written after a time. S3's times are in whole seconds."""
    return after is None or int(modified) > int(datetime.fromisoformat(after).timestamp())


def read_log(call: Call, log: LogStream) -> Any:
    """Return the result in the last line of a log that begins with ``JOBFLOW_RESULT``.

    :param call: makes the API calls of CloudWatch Logs, in the log's region.
    :param log: the log stream.
    :raises ResultError: there is no result.
    :raises CallError: the log could not be read.
    """
    where = f"stream {log.stream} of log group {log.group}"
    line = logs.last_line_with(call, log, LOG_MARK)
    if line is None:
        raise ResultError(f"no line of {where} begins with {LOG_MARK.strip()}", is_missing=True)
    data = line.removeprefix(LOG_MARK).encode(errors="replace")
    if len(data) > MAX_INLINE:
        raise ResultError(f"the line in {where} is longer than {MAX_INLINE // 1024} KB: write the result to S3")
    return parsed(data, f"the line in {where}")


def parsed(data: bytes, where: str) -> Any:
    """Return the value of JSON that a job wrote.

    :param data: the text.
    :param where: where it is, for messages.
    :raises ResultError: it is not JSON, or Airflow could not store it.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=_reject)
        _check(value)
    except RecursionError:
        raise ResultError(f"{where} is nested too deeply") from None
    except ValueError as error:  # also of the decoding
        shown = data[:80].decode(errors="replace")
        raise ResultError(f"{where} is not JSON that Airflow can store ({error}); it begins with {shown!r}") from None
    return value


def _reject(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _check(value: Any, depth: int = 0) -> None:
    """Raise a ValueError for what Airflow's XComs, or Postgres, cannot store."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= each <= "\udfff" for each in value)):
        raise ValueError("a string has a NUL character or an unpaired surrogate")
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    if isinstance(value, dict):
        for key in value:
            _check(key, depth)
            if key in RESERVED_KEYS:
                raise ValueError(f"Airflow reserves the key {key!r}")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check(each, depth + 1)


def stored(call: Call, parts: Sequence[Part], after: Mapping[int, str | None]) -> dict[int, Stored]:
    """Return the objects that children or items have written, by index. One ListObjectsV2 call for each 1,000.

    :param call: makes the API calls of S3.
    :param parts: where they wrote; of two parts with the same index, the later one counts.
    :param after: for some indexes, when AWS's previous attempt ended: an older object is of an earlier attempt.
    :raises CallError: the objects could not be listed.
    """
    found: dict[int, Stored] = {}
    for part in parts:
        for index in part.indexes.values():
            found.pop(index, None)
        bucket, key = split(part.uri)
        more: dict[str, Any] = {}
        while True:
            page = call("list_objects_v2", Bucket=bucket, Prefix=f"{key}/", **more)
            for each in page.get("Contents", ()):
                name, modified = each["Key"].removeprefix(f"{key}/"), each["LastModified"].timestamp()
                number = int(name) if NUMBER.fullmatch(name) else -1
                if number in part.indexes and _is_new(modified, after.get(part.indexes[number])):
                    found[part.indexes[number]] = Stored(f"{part.uri}/{name}", each["Size"], modified)
            if not page.get("IsTruncated"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
    return found


def write_manifest(call: Call, uri: str, found: Mapping[int, Stored], size: int, missing: Sequence[int]) -> str:
    """Write the list of the results of an array or a map to S3, and return its address. One PutObject call.

    :param call: makes the API calls of S3.
    :param uri: the address that the results share.
    :param found: the objects, by index.
    :param size: how many children or items there are.
    :param missing: the indexes of those that should have written a result, and did not.
    :raises CallError: it could not be written.
    """
    results = [{"index": index, "uri": each.uri, "bytes": each.size} for index, each in sorted(found.items())]
    body = json.dumps({"size": size, "missing": index_ranges(missing), "results": results})
    write(call, f"{uri}/{MANIFEST}", body)
    return f"{uri}/{MANIFEST}"


def write(call: Call, uri: str, text: str) -> None:
    """Write an object. One PutObject call.

    :param call: makes the API calls of S3.
    :param uri: its address.
    :param text: its content.
    :raises CallError: it could not be written.
    """
    bucket, key = split(uri)
    call("put_object", Bucket=bucket, Key=key, Body=text.encode(), ContentType="application/json")


def is_inline(found: Mapping[int, Stored], size: int, most: int = MAX_LISTED) -> bool:
    """Return whether the results of an array or a map are returned; if not, there is a manifest.

    :param found: the objects, by index.
    :param size: how many children or items there are.
    :param most: the most of them whose results are returned. Default ``MAX_LISTED``.
    """
    return size <= most and sum(each.size for each in found.values()) <= MAX_INLINE


def result_error(missing: Sequence[int], malformed: Mapping[int, str]) -> str | None:
    """Return the ``result_error`` for missing or malformed results; None if there are none.

    :param missing: the indexes of those that are missing.
    :param malformed: why others cannot be used, by index.
    """
    problems = [f"missing results ({len(missing)}): {index_ranges(missing)[:200]}"] if missing else []
    if malformed:
        index, why = min(malformed.items())
        problems.append(f"unusable results ({len(malformed)}): {index_ranges(malformed)[:200]} ({index}: {why})")
    return "; ".join(problems) or None
