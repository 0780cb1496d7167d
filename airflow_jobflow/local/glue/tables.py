"""Derive tables and partitions from the objects under a crawler's target. Pure functions.

Invariants: every object with a schema belongs to one table. The tables do not depend on the order of the objects. The
tables of a crawl have different names.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.glue.data_types import STRING, merge_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_jobflow.local.glue.classify import Schema

Json = dict[str, Any]

URL: Final = re.compile(r"s3[an]?://([^/]+)/?(.*)")
UNNAMEABLE: Final = re.compile(r"[^a-z0-9_]")
WILDCARD: Final = re.compile(r"\*\*|\*|\?")
WILDCARDS: Final = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
UPDATED_BY: Final = "UPDATED_BY_CRAWLER"
DEPRECATED_BY: Final = "DEPRECATED_BY_CRAWLER"


@dataclass(frozen=True, slots=True)
class Found:
    """An object and its schema."""

    key: str
    size: int
    schema: Schema


@dataclass(slots=True)
class Table:
    """A table that a crawl has found."""

    bucket: str
    root: str
    """The folder of its objects, or the key of its only object."""
    partition_keys: tuple[str, ...] = ()
    objects: list[Found] = field(default_factory=list)
    name: str = ""

    @property
    def location(self) -> str:
        """Its S3 URL."""
        return f"s3://{self.bucket}/{self.root}"

    def partitions(self) -> dict[tuple[str, ...], str]:
        """Return the locations of the partitions by their values."""
        found = {}
        for each in self.objects:
            folder = each.key.rpartition("/")[0]
            values = [part.rpartition("=")[2] for part in folder[len(self.root) :].split("/") if part]
            found[tuple(values)] = f"s3://{self.bucket}/{folder}/"
        return found if self.partition_keys else {}


def split_url(url: str) -> tuple[str, str]:
    """Return the bucket and the key (or prefix) of an S3 URL.

    :param url: the URL.
    :raises ValueError: it is not an S3 URL.
    """
    found = URL.fullmatch(url)
    if found is None:
        raise ValueError(f"{url} is not an S3 location")
    return found[1], found[2]


def split_path(path: str) -> tuple[str, str]:
    """Return the bucket and the prefix of a crawler's target.

    :param path: the path of the target, with or without ``s3://``.
    :raises ValueError: it is not an S3 URL.
    """
    return split_url(path if "://" in path else f"s3://{path}")


def is_data(key: str, prefix: str, exclusions: Iterable[str] = ()) -> bool:
    """Return whether an object is data: not a folder, not hidden like ``_SUCCESS``, not excluded.

    :param key: the key of the object.
    :param prefix: the prefix of the target.
    :param exclusions: the exclude patterns of the target. Default: none.
    """
    below = key.removeprefix(prefix).lstrip("/")
    if key.endswith("/") or any(part.startswith(("_", ".")) for part in below.split("/")):
        return False
    return not any(_glob(pattern).fullmatch(below) for pattern in exclusions)


def _glob(pattern: str) -> re.Pattern[str]:
    parts, end = [], 0
    for found in WILDCARD.finditer(pattern):
        parts += [re.escape(pattern[end : found.start()]), WILDCARDS[found[0]]]
        end = found.end()
    return re.compile("".join([*parts, re.escape(pattern[end:])]), re.DOTALL)


def tables(bucket: str, prefix: str, objects: Sequence[Found]) -> list[Table]:
    """Return the tables of the objects under a target.

    Folders named ``key=value`` are partitions of their parent folder. Each other folder is a table. But if all folders
    have the same columns and there are no objects beside them, they are partitions of the target.

    :param bucket: the bucket.
    :param prefix: the prefix of the target.
    :param objects: the objects with their schemas.
    """
    roots: defaultdict[tuple[str, tuple[str, ...], str], list[Found]] = defaultdict(list)
    for each in sorted(objects, key=lambda found: found.key):
        root, keys = _root(each.key, prefix)
        roots[root, keys, each.schema.format.classification].append(each)
    top = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
    depths = {root[len(top) :].count("/") for root, _, _ in roots}
    shapes = {tuple(each.schema.columns) for each in objects}
    if len(roots) > 1 and len(shapes) == 1 and depths == {min(depths)} and min(depths) > 0:
        levels = {keys for _, keys, _ in roots}
        if len(levels) == 1:
            unnamed = tuple(f"partition_{level}" for level in range(min(depths)))
            return [Table(bucket, top, (*unnamed, *levels.pop()), [each for found in roots.values() for each in found])]
    found_tables = []
    folders = [(root, keys) for root, keys, _ in roots]
    for (root, keys, _), members in roots.items():
        if folders.count((root, keys)) > 1:  # different formats: each object is a table
            found_tables += [Table(bucket, each.key, (), [each]) for each in members]
        else:
            found_tables.append(Table(bucket, root, keys, members))
    return found_tables


def _root(key: str, prefix: str) -> tuple[str, tuple[str, ...]]:
    """Return the folder of an object's table, and its partition keys."""
    if key == prefix:
        return key, ()
    folders = key.split("/")[:-1]
    inside = prefix.rstrip("/").count("/") + 1 if prefix.rstrip("/") else 0
    first = next((n for n, part in enumerate(folders) if n >= inside and "=" in part), len(folders))
    partitions = folders[first:]
    if not all("=" in part for part in partitions):
        first, partitions = len(folders), []
    root = "".join(f"{part}/" for part in folders[:first])
    return root, tuple(part.partition("=")[0].lower() for part in partitions)


def named(found: Iterable[Table], table_prefix: str) -> list[Table]:
    """Set the names of tables, and return the tables. A name is the crawler's prefix and the last folder.

    If a name is used already, a hash of the location is appended.

    :param found: the tables, which are changed.
    :param table_prefix: the prefix of the crawler.
    """
    taken: set[str] = set()
    with_names = []
    for table in found:
        last = table.root.rstrip("/").rpartition("/")[2] or table.bucket
        table.name = UNNAMEABLE.sub("_", f"{table_prefix}{last}".lower())
        if table.name in taken:
            digest = hashlib.md5(table.location.encode(), usedforsecurity=False).hexdigest()
            table.name = f"{table.name}_{digest}"
        taken.add(table.name)
        with_names.append(table)
    return with_names


def table_input(table: Table, crawler: str, crawl_id: str) -> Json:
    """Return a table as in CreateTable and UpdateTable.

    :param table: the table.
    :param crawler: the name of the crawler.
    :param crawl_id: the id of the crawl.
    """
    schemas = [each.schema for each in table.objects]
    columns = dict(schemas[0].columns)
    for schema in schemas[1:]:
        columns = merge_fields(columns, schema.columns)
    for key in table.partition_keys:
        columns.pop(key, None)
    first, records, size = schemas[0], sum(each.records for each in schemas), sum(each.size for each in table.objects)
    parameters = {
        "classification": first.format.classification,
        "compressionType": first.compression,
        "typeOfData": "file",
        "objectCount": str(len(table.objects)),
        "recordCount": str(records),
        "sizeKey": str(size),
        "averageRecordSize": str(size // max(records, 1)),
        "CrawlerSchemaSerializerVersion": "1.0",
        "CrawlerSchemaDeserializerVersion": "1.0",
        "CRAWL_RUN_ID": crawl_id,
        UPDATED_BY: crawler,
        **first.parameters,
    }
    return {
        "Name": table.name,
        "Owner": "owner",
        "Retention": 0,
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": [{"Name": key, "Type": STRING} for key in table.partition_keys],
        "Parameters": parameters,
        "StorageDescriptor": {
            "Columns": [{"Name": name, "Type": str(kind or STRING)} for name, kind in columns.items()],
            "Location": table.location,
            "InputFormat": first.format.input_format,
            "OutputFormat": first.format.output_format,
            "Compressed": first.compression != "none",
            "NumberOfBuckets": -1,
            "SerdeInfo": {
                "SerializationLibrary": first.format.serde,
                "Parameters": dict(first.serde_parameters),
            },
            "BucketColumns": [],
            "SortColumns": [],
            "Parameters": dict(parameters),
            "StoredAsSubDirectories": False,
        },
    }


def partition_input(table: Json, values: Sequence[str], location: str) -> Json:
    """Return a partition as in CreatePartition.

    :param table: the table, see `table_input`.
    :param values: the values of the partition.
    :param location: its S3 URL.
    """
    return {"Values": list(values), "StorageDescriptor": {**table["StorageDescriptor"], "Location": location}}


def same_schema(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two descriptions of a table are equal except for counts.

    :param one: a description.
    :param other: another one.
    """
    return _schema_of(one) == _schema_of(other)


def _schema_of(table: Mapping[str, Any]) -> list[Any]:
    storage = table.get("StorageDescriptor", {})
    parameters = table.get("Parameters", {})
    return [
        table.get("PartitionKeys", []),
        *(storage.get(name) for name in ("Columns", "Location", "InputFormat", "SerdeInfo")),
        *(parameters.get(name) for name in ("classification", "compressionType", DEPRECATED_BY)),
    ]
