"""The sample crawler and job: nineteen rows of CSV become a table, and the table a Parquet file."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from airflow_jobflow.local import LocalAws, samples
from airflow_jobflow.local.glue import samples as glue_samples

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = {
    "deviceid": "string",
    "uuid": "bigint",
    "appid": "bigint",
    "country": "string",
    "year": "bigint",
    "month": "bigint",
    "day": "bigint",
    "hour": "bigint",
}


@pytest.fixture(scope="module")
def provisioned() -> Iterator[LocalAws]:
    """An AWS with the samples; provisioning twice changes nothing."""
    with LocalAws(slots=2) as aws:
        samples.provision(aws.endpoint_url)
        samples.provision(aws.endpoint_url)
        yield aws


def crawl(aws: LocalAws, eventually: Any) -> None:
    """Crawl the sample data."""
    glue = aws.client("glue")
    glue.start_crawler(Name=glue_samples.CRAWLER)

    def ready() -> bool:
        crawler = glue.get_crawler(Name=glue_samples.CRAWLER)["Crawler"]
        return bool(crawler["State"] == "READY" and crawler["LastCrawl"]["Status"] == "SUCCEEDED")

    eventually(ready)


def test_crawler_finds_two_strings_and_six_longs(provisioned: LocalAws, eventually: Any) -> None:
    """They are in table se2_in0 of database se2; ``007`` is a number."""
    crawl(provisioned, eventually)
    table = provisioned.client("glue").get_table(DatabaseName="se2", Name="se2_in0")["Table"]
    assert {column["Name"]: column["Type"] for column in table["StorageDescriptor"]["Columns"]} == COLUMNS
    assert table["StorageDescriptor"]["Location"] == "s3://test-glue00/se2/in0/"
    assert table["Parameters"]["recordCount"] == "19"


def test_job_writes_the_table_as_parquet_and_may_be_run_again(provisioned: LocalAws, eventually: Any) -> None:
    """The same rows and columns are written once."""
    crawl(provisioned, eventually)
    glue, s3 = provisioned.client("glue"), provisioned.client("s3")
    for _ in range(2):
        run_id = glue.start_job_run(JobName=glue_samples.JOB)["JobRunId"]

        def ended(run_id: str = run_id) -> dict[str, Any] | None:
            run = glue.get_job_run(JobName=glue_samples.JOB, RunId=run_id)["JobRun"]
            return dict(run) if "CompletedOn" in run else None

        run = eventually(ended)
        assert run["JobRunState"] == "SUCCEEDED", run.get("ErrorMessage")
        (written,) = s3.list_objects_v2(Bucket="test-glue00", Prefix=glue_samples.OUTPUT)["Contents"]
        content = s3.get_object(Bucket="test-glue00", Key=written["Key"])["Body"].read()
        table = pq.read_table(io.BytesIO(content))
        text = (glue_samples.FILES / "se2_in0.csv").read_text(encoding="utf-8")
        longs = [name for name, kind in COLUMNS.items() if kind == "bigint"]
        expected = [{**row, **{name: int(row[name]) for name in longs}} for row in csv.DictReader(io.StringIO(text))]
        assert table.to_pylist() == expected
        assert [str(kind) for kind in table.schema.types] == [
            {"bigint": "int64"}.get(kind, kind) for kind in COLUMNS.values()
        ]
