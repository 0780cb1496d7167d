"""The local AWS responds to malformed requests like AWS, and works afterwards."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import pytest

from airflow_jobflow.local import LocalAws, Settings, application, samples
from airflow_jobflow.local.processes import log as processes_log
from tests.local.conftest import eventually
from tests.local.malformed import Generator, Sent

SEED: Final = 20261128
COUNT: Final = 5_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 2_200
"""Half of them are for all of the 1,089 operations; the other half for the 24 that moto does not handle."""
XML: Final = ("iam", "sts", "sns", "cloudformation", "s3")
BATCH: Final = Sent("batch", "DescribeJobs", path="/v1/describejobs")
GLUE: Final = {"X-Amz-Target": "AWSGlue.GetCrawlers", "Content-Type": "application/x-amz-json-1.1"}


@dataclass(frozen=True)
class Response:
    """A response to a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str | None:
        """The code of the error."""
        if self.headers.get_content_type() == "text/xml" or self.body.startswith(b"<"):
            return next((each.text for each in ET.fromstring(self.body).iter() if each.tag.endswith("Code")), None)
        told = json.loads(self.body or b"{}").get("__type")
        return self.headers.get("x-amzn-errortype") or (told.rpartition("#")[2] if told else None)


def send(aws: LocalAws, sent: Sent) -> Response:
    """Send a request, and return the response."""
    address = urlsplit(aws.endpoint_url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(sent.raw())
        connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection, method=sent.method)
        response.begin()
        return Response(response.status, response.headers, response.read())


def deviation(sent: Sent, answer: Response) -> str | None:
    """Return how a response differs from one of AWS, or None."""
    if answer.status >= 500:
        return f"HTTP {answer.status}"
    if "x-amzn-RequestId" not in answer.headers and "x-amz-request-id" not in answer.headers:
        return "no request id"
    if sent.service == "s3" or not sent.signed or not sent.region:
        return None if answer.status < 400 or sent.method == "HEAD" or answer.code else "no code"
    kind = answer.headers.get_content_type()
    if kind == "application/vnd.amazon.eventstream":
        return None
    if kind != "text/xml" if sent.service in XML else not kind.startswith("application/"):
        return f"content type {kind}"
    if sent.service not in XML:
        json.loads(answer.body or b"{}")
    elif answer.body:
        ET.fromstring(answer.body)
    return None if answer.status < 400 or answer.code else "no code"


@pytest.fixture
def own_aws() -> Iterator[LocalAws]:
    """A local AWS of the test's own, with the samples and some resources that requests can name."""
    with LocalAws(slots=2, settings=Settings(time_scale=0.01)) as aws:
        samples.provision(aws.endpoint_url)
        batch, ecs, glue = (aws.client(name) for name in ("batch", "ecs", "glue"))
        samples.create_queue(batch, "victim")
        samples.register_definition(batch, "victim", ["true"])
        samples.create_cluster(ecs, "victim")
        samples.register_task(ecs, "victim", {"name": "victim", "command": ["true"]})
        glue.create_database(DatabaseInput={"Name": "victim"})
        targets = {"S3Targets": [{"Path": "s3://victim/"}]}
        glue.create_crawler(Name="victim", Role="victim", DatabaseName="victim", Targets=targets)
        glue.create_job(Name="victim", Role="victim", Command={"Name": "pythonshell", "ScriptLocation": "s3://a/b"})
        aws.client("logs").create_log_group(logGroupName="victim")
        yield aws


def check_it_works(aws: LocalAws) -> None:
    """Check that existing resources are described, and that jobs, tasks and crawls run."""
    batch, ecs, glue = (aws.client(name) for name in ("batch", "ecs", "glue"))
    assert "se2_in0" in {each["Name"] for each in glue.get_crawlers()["Crawlers"]}
    assert glue.get_crawler_metrics()["CrawlerMetricsList"]
    assert "se2_job0" in glue.list_jobs()["JobNames"]
    assert glue.get_jobs()["Jobs"]
    assert batch.describe_job_queues()["jobQueues"]
    assert batch.describe_job_definitions()["jobDefinitions"]
    assert batch.list_jobs(jobQueue="hello-world-queue", filters=[{"name": "JOB_NAME", "values": ["*"]}])
    assert ecs.describe_clusters(clusters=["jobflow"])["clusters"]
    assert "taskArns" in ecs.list_tasks(cluster="jobflow")
    job = batch.submit_job(jobName="x", jobQueue="hello-world-queue", jobDefinition="hello-world")["jobId"]
    eventually(lambda: batch.describe_jobs(jobs=[job])["jobs"][0]["status"] == "SUCCEEDED", "a job")
    glue.start_crawler(Name="se2_in0")
    eventually(lambda: glue.get_crawler(Name="se2_in0")["Crawler"].get("LastCrawl", {}).get("Status"), "a crawl")
    assert glue.get_crawler(Name="se2_in0")["Crawler"]["LastCrawl"]["Status"] == "SUCCEEDED"


def test_no_request_breaks_the_server(own_aws: LocalAws, caplog: pytest.LogCaptureFixture) -> None:
    """Malformed requests to all operations get responses below 500 in AWS's form, and the server still works."""
    caplog.set_level(logging.ERROR)
    requests = Generator(SEED).requests(COUNT)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda sent: send(own_aws, sent), requests))
    wrong = [
        f"{what}: {sent} -> {answer.body[:300]!r}"
        for sent, answer in zip(requests, answers, strict=True)
        if (what := deviation(sent, answer))
    ]
    assert wrong == []
    ours = [each.getMessage() for each in caplog.records if each.name in (application.log.name, processes_log.name)]
    assert [each for each in ours if not each.startswith("moto could not handle")] == []
    assert {answer.status // 100 for answer in answers} == {2, 4}
    check_it_works(own_aws)
