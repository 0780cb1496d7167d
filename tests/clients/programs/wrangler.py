"""Writes a partitioned table with awswrangler, lets a crawler find it too, and reads both catalog entries."""

import time

import awswrangler as wr
import boto3
import pandas as pd

glue = boto3.client("glue")
PATH = "s3://test-glue00/wrangler/people/"
people = pd.DataFrame({"id": [1, 2, 3], "name": ["a", "b", "c"], "year": ["2025", "2026", "2026"]})

wr.catalog.create_database("people", exist_ok=True)
wr.s3.to_parquet(people, path=PATH, dataset=True, partition_cols=["year"], database="people", table="written")
read = wr.s3.read_parquet_table(database="people", table="written")
print("read", len(read), read["year"].max())  # noqa: T201

glue.create_crawler(
    Name="people",
    Role="local-glue",
    DatabaseName="people",
    TablePrefix="crawled_",
    Targets={"S3Targets": [{"Path": PATH}]},
)
glue.start_crawler(Name="people")
while glue.get_crawler(Name="people")["Crawler"]["State"] != "READY":
    time.sleep(0.1)
types = wr.catalog.get_table_types(database="people", table="crawled_people")
assert len(wr.catalog.get_partitions(database="people", table="crawled_people")) == 2
print("crawled", *(f"{name}={kind}" for name, kind in types.items()))  # noqa: T201
