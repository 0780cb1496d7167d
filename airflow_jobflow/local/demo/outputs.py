"""What the sample flows leave in S3, read back and told in a sentence."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from airflow_jobflow.local import samples
from airflow_jobflow.local.glue import samples as glue_samples

if TYPE_CHECKING:
    from airflow_jobflow.local.server import LocalAwsClient

OUTPUTS: Final = samples.INPUTS.replace("input", "output")


def items(aws: LocalAwsClient) -> str:
    """Read what the map over Fargate tasks has made of its items."""
    s3 = aws.client("s3")
    found = s3.list_objects_v2(Bucket=samples.BUCKET, Prefix=OUTPUTS).get("Contents", [])
    right = 0
    for key in (each["Key"] for each in found):
        made = json.load(s3.get_object(Bucket=samples.BUCKET, Key=key)["Body"])
        right += made["input"] == samples.ITEMS[key.removeprefix(OUTPUTS).removesuffix(".json")]
    return f"{len(found)} outputs in s3://{samples.BUCKET}/{OUTPUTS}, {right} of them made from their own input"


def parquet(aws: LocalAwsClient) -> str:
    """Read the table that the Glue job has written."""
    from pyarrow import parquet as pq  # type: ignore[import-untyped]

    s3, bucket = aws.client("s3"), glue_samples.BUCKET
    told = []
    for each in s3.list_objects_v2(Bucket=bucket, Prefix=glue_samples.OUTPUT).get("Contents", []):
        table = pq.read_table(io.BytesIO(s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()))
        columns = ", ".join(f"{column.name} {column.type}" for column in table.schema)
        told.append(f"{table.num_rows} rows in s3://{bucket}/{each['Key']}: {columns}")
    return "; ".join(told) or f"nothing in s3://{bucket}/{glue_samples.OUTPUT}"


READERS: Final[Mapping[str, Callable[[LocalAwsClient], str]]] = {"items": items, "parquet": parquet}
"""By the name that a scenario has for it."""
