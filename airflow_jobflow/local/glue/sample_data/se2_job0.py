# ruff: noqa: INP001 -- a script for Glue, not a module
"""Glue job se2_job0: write the table se2_in0 of the Data Catalog to a Parquet file under se2/out0/.

A Python shell job (Python 3.9 with ``--additional-python-modules pyarrow``). It needs only boto3 and pyarrow, so it
runs unchanged on a local AWS. It ignores unknown arguments, which Glue adds. Another run replaces the file.
"""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import urlparse

import boto3
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.csv as pa_csv  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

COLUMNS = ("deviceid", "uuid", "appid", "country", "year", "month", "day", "hour")
ARROW_TYPES = {"bigint": pa.int64(), "int": pa.int64(), "string": pa.string()}


def main() -> None:
    """Read the table, select the columns, and write the file."""
    given = arguments()
    table = boto3.client("glue").get_table(DatabaseName=given.database, Name=given.table)["Table"]
    storage = table["StorageDescriptor"]
    location = urlparse(storage["Location"])
    bucket, prefix = location.netloc, location.path.lstrip("/")
    types = {column["Name"]: ARROW_TYPES[column["Type"]] for column in storage["Columns"]}
    s3 = boto3.client("s3")
    parts = [read(s3, bucket, key, types) for key in keys(s3, bucket, prefix)]
    mapped = pa.concat_tables(parts).select(list(COLUMNS))
    target = f"{given.output.strip('/')}/{given.table}.parquet"
    buffer = pa.BufferOutputStream()
    pq.write_table(mapped, buffer)
    s3.put_object(Bucket=bucket, Key=target, Body=buffer.getvalue().to_pybytes())
    print(f"Wrote {mapped.num_rows} rows to s3://{bucket}/{target}")  # noqa: T201 -- its log


def arguments() -> argparse.Namespace:
    """Return the arguments of the job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", default="se2")
    parser.add_argument("--table", default="se2_in0")
    parser.add_argument("--output", default="se2/out0", help="prefix in the bucket of the table")
    return parser.parse_known_args()[0]


def keys(s3: Any, bucket: str, prefix: str) -> list[str]:
    """Return the keys of the objects under a prefix.

    :param s3: a boto3 client.
    :param bucket: the bucket.
    :param prefix: the prefix.
    """
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [each["Key"] for page in pages for each in page.get("Contents", []) if each["Size"]]


def read(s3: Any, bucket: str, key: str, types: dict[str, Any]) -> pa.Table:
    """Read a CSV file without its header, with the columns and types of the table.

    :param s3: a boto3 client.
    :param bucket: the bucket.
    :param key: the key of the file.
    :param types: Arrow types by column.
    """
    content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    names = list(types)
    text = pa_csv.read_csv(
        pa.BufferReader(content),
        read_options=pa_csv.ReadOptions(column_names=names, skip_rows=1),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    return pa.table({name: pc.cast(text[name], kind) for name, kind in types.items()})


if __name__ == "__main__":
    main()
