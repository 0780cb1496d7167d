"""Classify an object for a crawler: its format, columns and types. Pure: bytes in, a `Schema` out.

Invariants: formats are tried in the order of Glue's built-in classifiers. An object that none of them recognizes has no
schema. The content of an object never raises an exception.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.glue import data_types

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

GZIP: Final = b"\x1f\x8b"
PARQUET: Final = b"PAR1"
DELIMITERS: Final = (",", "|", "\t", ";", "\x01")
MIN_COLUMNS: Final = 2
MIN_ROWS: Final = 2
"""A text with fewer columns or rows is not CSV for Glue."""
LONGEST_HEADER: Final = 150
COLUMN_NAME: Final = re.compile(r"[\u0020-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF\t]{1,255}")
FIELD_LIMIT: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Format:
    """The format of a table's files: Glue's classification, and the classes of Hive."""

    classification: str
    serde: str
    input_format: str
    output_format: str


TEXT_INPUT: Final = "org.apache.hadoop.mapred.TextInputFormat"
TEXT_OUTPUT: Final = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"
CSV: Final = Format("csv", "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe", TEXT_INPUT, TEXT_OUTPUT)
JSON: Final = Format("json", "org.openx.data.jsonserde.JsonSerDe", TEXT_INPUT, TEXT_OUTPUT)
PARQUET_FILE: Final = Format(
    "parquet",
    "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
    "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
)


@dataclass(frozen=True, slots=True)
class Schema:
    """The result of a classifier for an object."""

    format: Format
    columns: Mapping[str, data_types.Type | None]
    """Types by name, in order."""
    records: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Additional parameters of a table of such objects."""
    serde_parameters: Mapping[str, str] = field(default_factory=dict)
    compression: str = "none"


def classify(content: bytes) -> Schema | None:
    """Return the schema of an object, or None if no classifier recognizes it.

    :param content: the object.
    """
    if content.startswith(GZIP):
        try:
            inner = _plain(gzip.decompress(content))
        except (OSError, EOFError, zlib.error):
            return None
        return inner and Schema(
            inner.format, inner.columns, inner.records, inner.parameters, inner.serde_parameters, "gzip"
        )
    return _plain(content)


def _plain(content: bytes) -> Schema | None:
    found = (classifier(content) for classifier in CLASSIFIERS)
    return next((schema for schema in found if schema is not None), None)


def _parquet(content: bytes) -> Schema | None:
    if not (content.startswith(PARQUET) and content.endswith(PARQUET)):
        return None
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
    except (pa.ArrowException, OSError):
        return None
    columns = {each.name.lower(): data_types.of_arrow(each.type) for each in file.schema_arrow}
    return Schema(PARQUET_FILE, columns, file.metadata.num_rows, serde_parameters={"serialization.format": "1"})


def _json(content: bytes) -> Schema | None:
    """Read a sequence of JSON documents on one or several lines; an array is one column."""
    text = _text(content)
    if text is None or not text.lstrip().startswith(("{", "[")):
        return None
    decoder, position, documents = json.JSONDecoder(), 0, []
    text = text.strip()
    try:
        while position < len(text):
            document, position = decoder.raw_decode(text, position)
            documents.append(document)
            while position < len(text) and text[position].isspace():
                position += 1
    except (ValueError, RecursionError):
        return None
    fields: dict[str, data_types.Type | None] = {}
    for document in documents:
        fields = data_types.merge_fields(fields, _fields(document))
    paths = {"paths": ",".join(sorted(fields))}
    columns: dict[str, data_types.Type | None] = {}
    for name, kind in fields.items():  # names that differ only in case are one column
        columns = data_types.merge_fields(columns, {name.lower(): kind})
    return Schema(JSON, columns, len(documents), serde_parameters=paths)


def _fields(document: Any) -> dict[str, data_types.Type | None]:
    if isinstance(document, dict):
        return {name: data_types.of_json(value) for name, value in document.items()}
    return {"array": data_types.of_json(document)}


def _csv(content: bytes) -> Schema | None:
    text = _text(content)
    if not text:
        return None
    for delimiter in DELIMITERS:
        rows = _rows(text, delimiter)
        if rows is not None:
            return _csv_schema(rows, delimiter, quoted='"' in text)
    return None


def _rows(text: str, delimiter: str) -> list[list[str]] | None:
    """Return the rows of a text, or None if it is not a table with this delimiter."""
    csv.field_size_limit(FIELD_LIMIT)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error:
        return None
    is_table = len(rows) >= MIN_ROWS and len(rows[0]) >= MIN_COLUMNS and len({len(row) for row in rows}) == 1
    return rows if is_table else None


def _csv_schema(rows: Sequence[Sequence[str]], delimiter: str, *, quoted: bool) -> Schema:
    kinds = column_types(rows[1:])
    header = is_header(rows[0], kinds)
    parameters = {
        "areColumnsQuoted": str(quoted).lower(),
        "columnsOrdered": "true",
        "delimiter": delimiter,
    }
    if header:
        names = [name.strip().lower() or f"col{number}" for number, name in enumerate(rows[0])]
        parameters["skip.header.line.count"] = "1"
    else:
        kinds = column_types(rows)
        names = [f"col{number}" for number in range(len(kinds))]
    columns = dict(zip(names, kinds, strict=True))
    return Schema(CSV, columns, len(rows) - header, parameters, {"field.delim": delimiter})


def column_types(rows: Sequence[Sequence[str]]) -> list[data_types.Type | None]:
    """Return the type of each column.

    :param rows: the rows of the table.
    """
    return [data_types.merge_all(map(data_types.of_text, column)) for column in zip(*rows, strict=True)]


def is_header(row: Sequence[str], kinds: Sequence[data_types.Type | None]) -> bool:
    """Return whether the first row contains the names of the columns: short texts, other than in the rows below.

    The last column may be empty and long, as lines may end with a delimiter.

    :param row: the first row.
    :param kinds: the types of the other rows.
    """
    if any(data_types.of_text(name) not in (data_types.STRING, None) for name in row):
        return False
    if any(not name.strip() or len(name) >= LONGEST_HEADER for name in row[:-1]):
        return False
    if any(name and not COLUMN_NAME.fullmatch(name) for name in row):
        return False
    return any(kind not in (data_types.STRING, None) for kind in kinds)


def _text(content: bytes) -> str | None:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


CLASSIFIERS: Final[Sequence[Callable[[bytes], Schema | None]]] = (_parquet, _json, _csv)
