"""The decisions of Glue, without a server: types, tables, pages, arguments, errors."""

from __future__ import annotations

import gzip
import io
import json
import re
from typing import Any

import botocore.session
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.glue import data_types, model, tables
from airflow_jobflow.local.glue.classify import classify
from airflow_jobflow.local.glue.crawl import Changes

PRIMITIVES = st.sampled_from([None, "int", "bigint", "double", "boolean", "string"])
TYPES = st.recursive(
    PRIMITIVES,
    lambda inner: st.one_of(
        st.builds(data_types.Array, inner),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda it: data_types.Struct(tuple(sorted(it.items())))
        ),
    ),
    max_leaves=6,
)


def shape(kind: Any) -> Any:
    """Return a type regardless of the order of its fields."""
    if isinstance(kind, data_types.Struct):
        return frozenset((name, shape(each)) for name, each in kind.fields)
    return (data_types.Array, shape(kind.element)) if isinstance(kind, data_types.Array) else kind


@given(TYPES, TYPES, TYPES)
def test_merging_types_is_independent_of_the_order(one: Any, two: Any, three: Any) -> None:
    """Files are read in any order, and any number of times."""
    assert shape(data_types.merge(one, two)) == shape(data_types.merge(two, one))
    left, right = (
        data_types.merge(data_types.merge(one, two), three),
        data_types.merge(one, data_types.merge(two, three)),
    )
    assert shape(left) == shape(right)
    assert data_types.merge(one, one) == one
    assert data_types.merge(one, None) == one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        (" ", None),
        ("007", "bigint"),
        ("-1", "bigint"),
        ("+9223372036854775807", "bigint"),
        ("9223372036854775808", "double"),
        ("1" * 5000, "double"),
        ("1.5", "double"),
        (".5", "double"),
        ("1.", "double"),
        ("-2e10", "double"),
        ("TRUE", "boolean"),
        ("false", "boolean"),
        ("2020-01-15", "string"),
        ("2020-01-15 03:44:40", "string"),
        ("1,5", "string"),
        ("NaN", "string"),
        ("٣", "string"),
    ],
)
def test_types_of_csv_fields(text: str, expected: str | None) -> None:
    """Leading zeros are allowed in numbers; dates and times are strings."""
    assert data_types.of_text(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "int"),
        (2**31, "bigint"),
        (2**63, "double"),
        (True, "boolean"),
        (1.0, "double"),
        ("x", "string"),
        ([], "array<string>"),
        ([1, 2.5], "array<double>"),
        ([{"a": 1}, {"b": [None]}], "array<struct<a:int,b:array<string>>>"),
        ({"a": {"b": None}}, "struct<a:struct<b:string>>"),
        ([1, "x"], "array<string>"),
    ],
)
def test_types_of_json_values(value: Any, expected: str) -> None:
    """Small integers are int; unknown values are strings."""
    assert str(data_types.of_json(value)) == expected


def columns(content: bytes) -> dict[str, str]:
    """Return the columns and types of an object."""
    schema = classify(content)
    assert schema is not None
    return {name: str(kind or "string") for name, kind in schema.columns.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,Count\nx,1\ny,2\n", {"name": "string", "count": "bigint"}),
        ("a;b\n1;x\n2;y", {"a": "bigint", "b": "string"}),
        ("a|b\n1|\n2|0.5", {"a": "bigint", "b": "double"}),
        ("a\tb\n1\ttrue\n", {"a": "bigint", "b": "boolean"}),
        ("a\x01b\n1\x01x\n", {"a": "bigint", "b": "string"}),
        ('a,b\n1,"x,y"\n', {"a": "bigint", "b": "string"}),
        ("\ufeffa,b\r\n1,x\r\n", {"a": "bigint", "b": "string"}),
        ("a,\n1,\n2,\n", {"a": "bigint", "col1": "string"}),
        ("x,y\nz,w\n", {"col0": "string", "col1": "string"}),
        ("1,2\n3,4\n", {"col0": "bigint", "col1": "bigint"}),
        ("a,b\nx,\nx,1\n", {"a": "string", "b": "bigint"}),
        (f"{'a' * 150},b\n1,2\n", {"col0": "string", "col1": "string"}),
    ],
)
def test_columns_of_csv(text: str, expected: dict[str, str]) -> None:
    """A header consists of strings above other types; without one, columns are numbered."""
    assert columns(text.encode()) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"one line",
        b"a,b",
        b"one\ncolumn\n",
        b"a,b\n1\n",
        b"\xff\xfe\x00",
        b"PAR1 not really PAR1",
        b"\x1f\x8bno",
        b'{"a": ',
    ],
)
def test_content_that_is_not_a_table_has_no_schema(content: bytes) -> None:
    """A table has at least two columns and two rows; invalid content raises no error."""
    assert classify(content) is None


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\n1a\x01|', max_size=60).map(str.encode))
def test_no_content_breaks_a_crawl(content: bytes) -> None:
    """A bucket may contain anything."""
    schema = classify(content)
    assert schema is None or schema.columns is not None


def test_columns_of_json_lines() -> None:
    """The fields of all lines are columns with lower-case names; the SerDe has the original spelling."""
    schema = classify(b'{"userId": 1, "tags": ["a"]}\n{"userId": 5000000000, "at": {"x": 1.5}}\n')
    assert schema is not None
    assert {name: str(kind) for name, kind in schema.columns.items()} == {
        "userid": "bigint",
        "tags": "array<string>",
        "at": "struct<x:double>",
    }
    assert (schema.records, schema.format.classification) == (2, "json")
    assert schema.serde_parameters == {"paths": "at,tags,userId"}
    assert columns(json.dumps([{"a": 1}], indent=1).encode()) == {"array": "array<struct<a:int>>"}


def test_columns_of_parquet() -> None:
    """They come from the schema in the file."""
    kinds = {
        "Id": pa.int64(),
        "small": pa.int16(),
        "amount": pa.decimal128(10, 2),
        "at": pa.timestamp("us"),
        "day": pa.date32(),
        "tags": pa.list_(pa.string()),
        "place": pa.struct([("x", pa.float64())]),
        "more": pa.map_(pa.string(), pa.int32()),
        "kind": pa.dictionary(pa.int32(), pa.string()),
    }
    buffer = io.BytesIO()
    pq.write_table(pa.schema(kinds.items()).empty_table(), buffer)
    assert columns(buffer.getvalue()) == {
        "id": "bigint",
        "small": "smallint",
        "amount": "decimal(10,2)",
        "at": "timestamp",
        "day": "date",
        "tags": "array<string>",
        "place": "struct<x:double>",
        "more": "map<string,int>",
        "kind": "string",
    }


def test_compressed_objects_are_read() -> None:
    """The table's parameters have the compression."""
    schema = classify(gzip.compress(b"a,b\n1,x\n"))
    assert schema is not None
    assert schema.compression == "gzip"


ONE, OTHER, LINES = b"a,b\n1,x\n", b"a,c\n1,2\n", b'{"a": 1}\n'


def found(objects: dict[str, bytes], prefix: str = "in/") -> dict[str, tuple[tuple[str, ...], int]]:
    """Return the partition keys and number of objects of the tables that objects form, by their roots."""
    seen = []
    for key, content in objects.items():
        schema = classify(content)
        assert schema is not None
        seen.append(tables.Found(key, len(content), schema))
    made = tables.tables("bucket", prefix, seen)
    assert made == tables.tables("bucket", prefix, seen[::-1])
    return {table.root: (table.partition_keys, len(table.objects)) for table in made}


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ({"in/1": ONE, "in/2": ONE}, {"in/": ((), 2)}),
        ({"in/y=1/m=2/1": ONE, "in/y=2/m=1/1": ONE}, {"in/": (("y", "m"), 2)}),
        ({"in/t/y=1/1": ONE, "in/u/1": OTHER}, {"in/t/": (("y",), 1), "in/u/": ((), 1)}),
        ({"in/t/1": ONE, "in/u/1": ONE}, {"in/": (("partition_0",), 2)}),
        ({"in/t/v/1": ONE, "in/u/w/1": ONE}, {"in/": (("partition_0", "partition_1"), 2)}),
        ({"in/t/1": ONE, "in/u/v/1": ONE}, {"in/t/": ((), 1), "in/u/v/": ((), 1)}),
        ({"in/1": ONE, "in/u/1": ONE}, {"in/": ((), 1), "in/u/": ((), 1)}),
        ({"in/1": ONE, "in/2": LINES}, {"in/1": ((), 1), "in/2": ((), 1)}),
    ],
)
def test_folders_form_tables(objects: dict[str, bytes], expected: dict[str, Any]) -> None:
    """Folders named key=value, and folders with the same schema, are partitions; others are separate tables."""
    assert found(objects) == expected


def test_a_target_may_be_one_object_or_a_bucket() -> None:
    """The table is named after the object or the bucket."""
    assert found({"in/a.csv": ONE}, "in/a.csv") == {"in/a.csv": ((), 1)}
    assert found({"a.csv": ONE}, "") == {"": ((), 1)}
    (table,) = tables.named([tables.Table("My-Bucket", "")], "p_")
    assert table.name == "p_my_bucket"


def test_tables_with_the_same_name_get_a_suffix() -> None:
    """The later one's name has a hash of its location."""
    first, second = tables.named([tables.Table("b", "x/in/"), tables.Table("b", "y/in/")], "")
    assert first.name == "in"
    assert second.name.startswith("in_")
    assert len(second.name) == len("in_") + 32


@pytest.mark.parametrize(
    ("key", "exclusions", "expected"),
    [
        ("in/a.csv", [], True),
        ("in/", [], False),
        ("in/_SUCCESS", [], False),
        ("in/_temporary/a", [], False),
        ("in/a.csv", ["*.csv"], False),
        ("in/b/a.csv", ["*.csv"], True),
        ("in/b/a.csv", ["**.csv"], False),
        ("in/a1", ["a?"], False),
    ],
)
def test_which_objects_are_data(key: str, exclusions: list[str], expected: bool) -> None:
    """Folders, hidden objects and exclusions are not data; a single asterisk does not match a slash."""
    assert tables.is_data(key, "in/", exclusions) is expected


def test_state_tables_are_those_of_botocore() -> None:
    """No state is missing or misspelled."""
    glue: Any = botocore.session.get_session().get_service_model("glue")
    assert {*model.ENDED, *model.COUNTED, model.WAITING} == set(glue.shape_for("JobRunState").enum)
    assert {*model.LAST_CRAWL, model.RUNNING} == set(glue.shape_for("CrawlerHistoryState").enum)
    assert set(model.LAST_CRAWL.values()) == set(glue.shape_for("LastCrawlStatus").enum)
    assert {model.READY, model.RUNNING, model.STOPPING} == set(glue.shape_for("CrawlerState").enum)
    assert set(model.FIELDS) == set(glue.shape_for("FieldName").enum)
    assert set(model.OPERATORS) == set(glue.shape_for("FilterOperator").enum)


JOB = {"Name": "j", "Command": {"Name": "pythonshell", "ScriptLocation": "s3://b/s.py"}}


def test_arguments_override_only_the_defaults() -> None:
    """The job's name and script location are passed too; an argument without a value is only its name."""
    job = {
        **JOB,
        "DefaultArguments": {"--a": "default", "--b": "default", "--flag": ""},
        "NonOverridableArguments": {"--c": "fixed"},
    }
    assert model.arguments(job, {"--b": "given x", "--c": "given"}) == [
        *("--JOB_NAME", "j", "--scriptLocation", "s3://b/s.py"),
        *("--a", "default", "--b", "given x", "--flag", "--c", "fixed"),
    ]


@pytest.mark.parametrize(
    ("command", "request_", "script", "said"),
    [
        ("pythonshell", {}, b"import pyspark", None),
        ("pythonshell", {"WorkerType": "G.1X"}, b"", "Worker Type is not supported for Job Command pythonshell"),
        ("glueetl", {"WorkerType": "G.1X"}, b"import json", None),
        ("glueetl", {}, b"from awsglue.utils import getResolvedOptions", "no Spark.*needs awsglue"),
        ("glueetl", {}, b"def f():\n import pyspark.sql", "needs pyspark"),
        ("glueetl", {"Arguments": {"--job-language": "scala"}}, b"object X", "needs Scala"),
        ("glueetl", {}, b"this is no Python", None),
        ("glueetl", {}, None, None),
        ("cobol", {}, b"", "Could not find command cobol"),
    ],
)
def test_spark_jobs_are_rejected_with_an_explanation(
    command: str, request_: Any, script: bytes | None, said: str | None
) -> None:
    """Jobs whose script is plain Python are accepted."""
    job = {"Name": "j", "Command": {"Name": command, "ScriptLocation": "s3://b/s.py"}}
    why = model.cannot_run(job, request_, script)
    assert (why is None) == (said is None)
    assert re.search(said or "", why or "")


TRACEBACK = ["Traceback (most recent call last):", '  File "x.py", line 1, in <module>', "    f()"]


@pytest.mark.parametrize(
    ("code", "errors", "expected"),
    [
        (1, [*TRACEBACK, "ValueError: no such thing"], "ValueError: no such thing"),
        (1, [*TRACEBACK, "KeyError: 'a'", "", "warning: bye"], "KeyError: 'a'"),
        (1, [*TRACEBACK, "KeyError: 1", "", "During …:", "", *TRACEBACK, "my.Error: 2"], "my.Error: 2"),
        (1, ["  File x", "SyntaxError: invalid syntax"], "SyntaxError: invalid syntax"),
        (1, ["no ink left"], "Command failed with exit code 1"),
        (1, [], "Command failed with exit code 1"),
        (2, [*TRACEBACK, "ValueError: caught"], "Command failed with exit code 2"),
        (137, [], "Command failed with exit code 137"),
    ],
)
def test_error_is_the_exceptions_last_line(code: int, errors: list[str], expected: str) -> None:
    """Without an exception, it is the exit code."""
    assert model.failure(code, errors) == expected


def test_pages_contain_everything_once() -> None:
    """This holds even if items are added at the front in between."""
    items = list(range(10, 0, -1))
    first, token = model.page(items, lambda item: -item, {"MaxResults": 4}, 100, 20)
    second, token = model.page([11, *items], lambda item: -item, {"MaxResults": 6, "NextToken": token}, 100, 20)
    assert ([*first, *second], token) == (items, None)
    for refused in ({"MaxResults": 101}, {"NextToken": "%"}):
        with pytest.raises(AwsError):
            model.page(items, lambda item: item, refused, 100, 20)


@pytest.mark.parametrize(
    ("name", "operator", "value", "expected"),
    [
        ("STATE", "EQ", "FAILED", False),
        ("STATE", "NE", "FAILED", True),
        ("CRAWL_ID", "EQ", "x", True),
        ("START_TIME", "GE", "1000", True),
        ("START_TIME", "GT", "1970-01-01T00:16:40", False),
        ("START_TIME", "LT", "1700000000000", True),
        ("END_TIME", "LE", "1000", False),
    ],
)
def test_filters_of_list_crawls(name: str, operator: str, value: str, expected: bool) -> None:
    """Times may be seconds, milliseconds or ISO 8601; a running crawl has no end."""
    crawl = {"CrawlId": "x", "State": "RUNNING", "StartTime": 1000.0}
    assert model.matches(crawl, [{"FieldName": name, "FilterOperator": operator, "FieldValue": value}]) is expected


def test_summary_has_at_most_255_characters() -> None:
    """Names are omitted if there are too many."""
    changes = Changes()
    changes.record("TABLE", "ADD", "one")
    assert json.loads(changes.summary()) == {"TABLE": {"ADD": {"Details": {"names": ["one"]}, "Count": 1}}}
    for number in range(100):
        changes.record("PARTITION", "UPDATE", f"table{number}")
    assert len(changes.summary()) <= 255
    assert json.loads(changes.summary())["PARTITION"] == {"UPDATE": {"Count": 100}}
