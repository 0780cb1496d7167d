"""Results of jobs: what is taken of an object in S3 or a line of a log, and what is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk.serde import deserialize, serialize

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import results
from airflow_jobflow.jobs.model import LogStream
from airflow_jobflow.jobs.results import MAX_INLINE, Part, ResultError, Stored
from tests.unit.jobs.scripted_calls import ScriptedClient, refused

URI = "s3://bucket/etl/group/token"
AT = 1_700_000_000


def moment(seconds: float) -> datetime:
    """A time some seconds after ``AT``."""
    return datetime.fromtimestamp(AT + seconds, tz=UTC)


class S3(ScriptedClient):
    """A bucket.

    :param objects: the bodies, by key.
    :param modified: when each was written, in seconds after ``AT``; 0 for others.
    """

    def __init__(self, objects: dict[str, bytes], modified: dict[str, float] | None = None) -> None:
        self.objects = objects
        self.modified = modified or {}
        self.calls: list[str] = []

    def get_object(self, Bucket: str, Key: str, Range: str) -> dict[str, Any]:  # noqa: N803
        """A part of an object."""
        self.calls.append(f"get {Key}")
        assert Bucket == "bucket"
        if Key not in self.objects:
            raise refused("NoSuchKey", "GetObject", status=404)
        first, last = Range.removeprefix("bytes=").split("-")
        if not self.objects[Key]:
            raise refused("InvalidRange", "GetObject", status=416)
        part = self.objects[Key][int(first) : int(last) + 1]
        return {"Body": part, "LastModified": moment(int(self.modified.get(Key, 0)))}

    def list_objects_v2(self, Bucket: str, Prefix: str, ContinuationToken: str = "") -> dict[str, Any]:  # noqa: N803
        """A page of two keys."""
        self.calls.append(f"list {Prefix}")
        assert Bucket == "bucket"
        keys = sorted(key for key in self.objects if key.startswith(Prefix) and key > ContinuationToken)
        found = [
            {"Key": key, "Size": len(self.objects[key]), "LastModified": moment(int(self.modified.get(key, 0)))}
            for key in keys[:2]
        ]
        more = {"NextContinuationToken": keys[1]} if len(keys) > 2 else {}
        return {"IsTruncated": len(keys) > 2, **({"Contents": found} if found else {}), **more}

    def put_object(self, Bucket: str, Key: str, Body: bytes, ContentType: str) -> dict[str, Any]:  # noqa: N803
        """Write an object."""
        assert (Bucket, ContentType) == ("bucket", "application/json")
        self.objects[Key] = Body
        return {}


def reading(body: bytes) -> Any:
    """Read a result."""
    return results.read(S3({"etl/group/token": body}), URI)


@pytest.mark.parametrize(
    "value", [{"rows": 8123, "next": ["b", None]}, [], "text", 1.5, None, True, {"ü": "🎉"}, 2**70, {"a": {"b": [{}]}}]
)
def test_any_json_is_a_result(value: Any) -> None:
    """The job may write whatever JSON has, with any tool."""
    assert reading(json.dumps(value).encode()) == value
    assert reading(b"\xef\xbb\xbf" + json.dumps(value, ensure_ascii=False).encode() + b"\n") == value
    assert deserialize(serialize(value)) == value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"rows=1", "it begins with 'rows=1'"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (b"{} {}", "Extra data"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[1e400]", "too large"),
        (b"1" * 5000, "not JSON"),
        (rb'{"a": "\u0000"}', "NUL"),
        (rb'["\ud800"]', "surrogate"),
        (rb'{"\u0000": 1}', "NUL"),
        (b"[" * 100 + b"]" * 100, "nested deeper than 50"),
        (b"[" * 40_000, "nested too deeply"),
        (b'{"__classname__": "airflow.models.Variable", "__version__": 1, "__data__": {}}', "reserves"),
        (b'[{"__type": "dict", "__var": 1}]', "reserves"),
    ],
)
def test_what_airflow_could_not_store_is_no_result(body: bytes, why: str) -> None:
    """It would fail the task when the outcome is pushed, or make an object of a class that the job names."""
    with pytest.raises(ResultError, match=why.replace("(", r"\(")) as raised:
        reading(body)
    assert not raised.value.is_missing
    assert URI in str(raised.value)
    assert len(str(raised.value)) < 500


def test_every_key_that_airflow_reserves_is_rejected() -> None:
    """A key that a newer Airflow adds must be added here."""
    from airflow.sdk import serde as module

    serde: Any = module
    assert {serde.CLASSNAME, serde.SCHEMA_ID, serde.OLD_TYPE, serde.OLD_DATA} == set(results.RESERVED_KEYS)


def test_only_48_kb_are_read_of_a_large_object() -> None:
    """Ten megabytes do not pass through the worker, and are no error: the address is returned."""
    at_most = b"1" + b" " * (MAX_INLINE - 1)
    assert reading(at_most) == 1
    assert reading(at_most + b" ") is None
    assert reading(b"x" * 10_000_000) is None


def test_an_object_that_is_missing_or_empty_is_no_result() -> None:
    """The job ended with 0, and wrote nothing, or to another place."""
    with pytest.raises(ResultError, match=f"wrote nothing to {URI}") as missing:
        results.read(S3({}), URI)
    assert missing.value.is_missing
    with pytest.raises(ResultError, match="is empty"):
        reading(b"")


def test_the_result_of_an_earlier_attempt_of_aws_is_not_taken() -> None:
    """All attempts that Batch makes of a job have the same address."""
    ended = moment(10.9).isoformat()
    with pytest.raises(ResultError, match="earlier attempt") as raised:
        results.read(S3({"etl/group/token": b"1"}, {"etl/group/token": 10.8}), URI, ended)
    assert raised.value.is_missing
    assert results.read(S3({"etl/group/token": b"1"}, {"etl/group/token": 11.1}), URI, ended) == 1


def test_a_bucket_that_cannot_be_read_is_no_fault_of_the_job() -> None:
    """The caller decides whether the call is repeated."""

    class Denied(ScriptedClient):
        def get_object(self, **_: Any) -> dict[str, Any]:
            raise refused("AccessDenied", "GetObject", status=403)

    with pytest.raises(CallError) as raised:
        results.read(Denied(), URI)
    assert raised.value.fault is Fault.DENIED


def test_each_attempt_has_an_address_of_its_own() -> None:
    """A prefix may end with a slash."""
    assert results.address("s3://bucket/etl/", "group", "token") == URI
    assert results.address("s3://bucket", "group", "token", 2) == "s3://bucket/group/token-2"
    assert results.split(URI) == ("bucket", "etl/group/token")


def test_results_of_children_are_listed_by_index() -> None:
    """Of a redriven array, a child counts where it ran last, and other objects are ignored."""
    first, second = "etl/g/one", "etl/g/two"
    bucket = S3(
        {f"{first}/{number}": b"1" for number in range(4)}
        | {f"{first}/4": b"4", f"{first}/04x": b"", f"{first}/": b"", f"{first}/manifest.json": b"", f"{first}/²": b""}
        | {f"{second}/0": b"12345"}
    )
    parts = [Part(f"s3://bucket/{first}", dict(enumerate(range(4)))), Part(f"s3://bucket/{second}", {0: 1, 1: 3})]
    found = results.stored(bucket, parts, {})
    assert {index: (each.uri, each.size) for index, each in found.items()} == {
        0: (f"s3://bucket/{first}/0", 1),
        1: (f"s3://bucket/{second}/0", 5),
        2: (f"s3://bucket/{first}/2", 1),
    }
    assert results.stored(bucket, parts[:1], {0: moment(0.5).isoformat()}).keys() == {1, 2, 3}


def test_results_of_many_or_large_ones_are_a_manifest() -> None:
    """An XCom with ten thousand results would slow down Airflow's database."""
    assert results.is_inline({0: Stored(URI, MAX_INLINE, AT)}, 1000)
    assert not results.is_inline({0: Stored(URI, MAX_INLINE, AT), 1: Stored(URI, 1, AT)}, 2)
    assert not results.is_inline({}, 1001)
    bucket = S3({})
    address = results.write_manifest(bucket, URI, {1: Stored(f"{URI}/1", 7, AT)}, 4, [0, 2, 3])
    assert address == f"{URI}/manifest.json"
    assert json.loads(bucket.objects["etl/group/token/manifest.json"]) == {
        "size": 4,
        "missing": "0,2-3",
        "results": [{"index": 1, "uri": f"{URI}/1", "bytes": 7}],
    }


def test_missing_and_malformed_results_are_named() -> None:
    """A person reads which children to look at."""
    assert results.result_error([], {}) is None
    assert results.result_error([1, 2, 5], {7: "x is empty"}) == (
        "missing results (3): 1-2,5; unusable results (1): 7 (7: x is empty)"
    )


class Log(ScriptedClient):
    """A log stream.

    :param pages: the messages, newest page first.
    """

    def __init__(self, *pages: list[str]) -> None:
        self.pages = pages

    def get_log_events(self, nextToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803
        """A page; the last one repeats its token."""
        number = int(nextToken)
        page = self.pages[number] if number < len(self.pages) else []
        return {
            "events": [{"message": each} for each in page],
            "nextBackwardToken": str(min(number + 1, len(self.pages))),
        }


STREAM = LogStream("group", "stream")


def test_the_last_line_with_the_mark_is_the_result() -> None:
    """Earlier ones are those of a loop; colours, other lines and empty pages do not matter."""
    log = Log(
        [],
        ["bye"],
        ['JOBFLOW_RESULT {"rows": 1}', '\x1b[32mJOBFLOW_RESULT {"rows": 2}\x1b[0m\nend\r\n'],
        ["JOBFLOW_RESULT 0"],
    )
    assert results.read_log(log, STREAM) == {"rows": 2}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("the JOBFLOW_RESULT 1", "no line of stream stream of log group group"),
        ("JOBFLOW_RESULT", "no line of"),
        ("JOBFLOW_RESULT {", "not JSON"),
        ("JOBFLOW_RESULT " + "1" * 60_000, "longer than 48 KB"),
    ],
)
def test_a_log_without_a_usable_line_is_no_result(line: str, why: str) -> None:
    """The message says where it was looked for."""
    with pytest.raises(ResultError, match=why):
        results.read_log(Log([line]), STREAM)


def test_a_stream_that_does_not_exist_has_no_result() -> None:
    """A job that never wrote a line has no stream."""

    class Missing(ScriptedClient):
        def get_log_events(self, **_: Any) -> dict[str, Any]:
            raise refused("ResourceNotFoundException", "GetLogEvents")

    with pytest.raises(ResultError, match="no line"):
        results.read_log(Missing(), STREAM)
