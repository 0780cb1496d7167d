"""Read what the sample flows write to S3, and describe it in a sentence."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from airflow_jobflow.local import samples
from airflow_jobflow.local.glue import samples as glue_samples

if TYPE_CHECKING:
    from airflow_jobflow.local.client import LocalAwsClient

OUTPUTS: Final = samples.INPUTS.replace("input", "output")


def items(aws: LocalAwsClient) -> str:
    """Describe the outputs of the map over Fargate tasks.

    :param aws: the local AWS.
    """
    s3 = aws.client("s3")
    objects = s3.list_objects_v2(Bucket=samples.BUCKET, Prefix=OUTPUTS).get("Contents", [])
    matching = 0
    for key in (each["Key"] for each in objects):
        output = json.load(s3.get_object(Bucket=samples.BUCKET, Key=key)["Body"])
        matching += output["input"] == samples.ITEMS[key.removeprefix(OUTPUTS).removesuffix(".json")]
    return f"{len(objects)} outputs in s3://{samples.BUCKET}/{OUTPUTS}, {matching} of them match their input"


def parquet(aws: LocalAwsClient) -> str:
    """Describe the table that the Glue job has written.

    :param aws: the local AWS.
    """
    from pyarrow import parquet as pq  # type: ignore[import-untyped]

    s3, bucket = aws.client("s3"), glue_samples.BUCKET
    tables = []
    for each in s3.list_objects_v2(Bucket=bucket, Prefix=glue_samples.OUTPUT).get("Contents", []):
        table = pq.read_table(io.BytesIO(s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()))
        columns = ", ".join(f"{column.name} {column.type}" for column in table.schema)
        tables.append(f"{table.num_rows} rows in s3://{bucket}/{each['Key']}: {columns}")
    return "; ".join(tables) or f"nothing in s3://{bucket}/{glue_samples.OUTPUT}"


READERS: Final[Mapping[str, Callable[[LocalAwsClient], str]]] = {"items": items, "parquet": parquet}
"""By the name that scenarios use."""
