"""Create the resources of the sample DAG with a crawler and a Glue job: data, crawler, job. Uses only boto3."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_jobflow.local.client import LocalAwsClient

FILES: Final = Path(__file__).with_name("sample_data")
BUCKET: Final = "test-glue00"
DATABASE: Final = "se2"
CRAWLER: Final = "se2_in0"
JOB: Final = "se2_job0"
INPUT: Final = "se2/in0/"
OUTPUT: Final = "se2/out0/"
SCRIPT: Final = f"se2/scripts/{JOB}.py"
ROLE: Final = "local-glue"


def provision(aws: LocalAwsClient, role: str) -> None:
    """Create all resources that do not exist yet.

    :param aws: the local AWS.
    :param role: the ARN of a role for Glue.
    """
    glue, s3 = aws.client("glue"), aws.client("s3")
    s3.create_bucket(Bucket=BUCKET)  # succeeds if it exists
    for key, name in ((f"{INPUT}{CRAWLER}.csv", f"{CRAWLER}.csv"), (SCRIPT, f"{JOB}.py")):
        s3.put_object(Bucket=BUCKET, Key=key, Body=(FILES / name).read_bytes())
    if not any(database["Name"] == DATABASE for database in glue.get_databases()["DatabaseList"]):
        glue.create_database(DatabaseInput={"Name": DATABASE})
    if CRAWLER not in glue.list_crawlers()["CrawlerNames"]:
        _create_crawler(glue, role)
    if JOB not in glue.list_jobs()["JobNames"]:
        _create_job(glue, role)


def _create_crawler(glue: Any, role: str) -> None:
    """Create the crawler. Its table is named after the prefix and the folder: ``se2_`` and ``in0``."""
    glue.create_crawler(
        Name=CRAWLER,
        Role=role,
        DatabaseName=DATABASE,
        TablePrefix="se2_",
        Targets={"S3Targets": [{"Path": f"s3://{BUCKET}/{INPUT}"}]},
    )


def _create_job(glue: Any, role: str) -> None:
    """Create the Python shell job that reads the table."""
    glue.create_job(
        Name=JOB,
        Role=role,
        Command={"Name": "pythonshell", "ScriptLocation": f"s3://{BUCKET}/{SCRIPT}", "PythonVersion": "3.9"},
        DefaultArguments={"--additional-python-modules": "pyarrow"},
        MaxCapacity=0.0625,
    )
