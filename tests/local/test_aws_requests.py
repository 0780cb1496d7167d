"""Which requests AWS accepts and rejects, and the form of its responses, where a local AWS can easily differ."""

from __future__ import annotations

import json
import socket
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_jobflow.aws.shapes import input_shape
from airflow_jobflow.jobs.fargate_sizes import is_batch_size, is_size
from airflow_jobflow.local import LocalAws, listener, samples
from airflow_jobflow.local.samples import ON_FARGATE, create_environment
from airflow_jobflow.local.validation import Violations, WrongType, validated
from tests.local.conftest import EcsKit, Kit, eventually
from tests.local.glue_kit import GlueKit
from tests.local.malformed import Sent
from tests.local.test_aws_events import Inbox
from tests.local.test_malformed_requests import send

JSON = {"Content-Type": "application/x-amz-json-1.1"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BATCH = Sent("batch", "DescribeJobs", path="/v1/describejobs")
GLUE = Sent("glue", "GetCrawlers", headers={"X-Amz-Target": "AWSGlue.GetCrawlers", **JSON})
ECS = Sent(
    "ecs",
    "ListTasks",
    headers={"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListTasks", **JSON},
)
IAM = Sent("iam", "GetRole", headers=FORM)


def with_fields(sent: Sent, **changes: Any) -> Sent:
    """Return a request with other fields; headers are merged."""
    return Sent(**{**vars(sent), **changes, "headers": {**sent.headers, **changes.get("headers", {})}})


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (with_fields(BATCH, body=b"{"), 400, "SerializationException"),
        (with_fields(BATCH, body=b"[]"), 400, "SerializationException"),
        (with_fields(BATCH, body=b'{"jobs": "x"}'), 400, "SerializationException"),
        (with_fields(BATCH, body=b'{"jobs": [1]}'), 400, "SerializationException"),
        (with_fields(BATCH, body=b'{"jobs": ["\xff"]}'), 400, "SerializationException"),
        (with_fields(BATCH, body=b'{"jobs": ["\\ud800"]}'), 400, "SerializationException"),
        (with_fields(BATCH, body=b"[" * 100_000), 400, "SerializationException"),
        (with_fields(BATCH, body=b'{"jobs": null}'), 400, "ClientException"),
        (with_fields(BATCH, body=b'{"jobs": []}', length="-1"), 400, "SerializationException"),
        (with_fields(BATCH, body=b'{"jobs": []}', length="many"), 400, "SerializationException"),
        (with_fields(BATCH, body=b'{"jobs": []}', length="50"), 400, "SerializationException"),
        (with_fields(BATCH, body=b'{"jobs": []}', length="9" * 20), 413, "SerializationException"),
        (with_fields(BATCH, body=b"zz\r\n", headers={"Transfer-Encoding": "chunked"}), 400, "SerializationException"),
        (with_fields(BATCH, method="GET"), 404, "UnknownOperationException"),
        (with_fields(BATCH, path="/v1/nothing"), 404, "UnknownOperationException"),
        (with_fields(BATCH, body=b'{"jobs": ["x"]}', region="mars-1"), 403, "InvalidSignatureException"),
        (with_fields(GLUE, headers={"X-Amz-Target": "AWSGlue.Nothing"}), 404, "UnknownOperationException"),
        (with_fields(GLUE, headers={"X-Amz-Target": ""}), 404, "UnknownOperationException"),
        (with_fields(GLUE, headers={"Content-Type": "text/plain"}), 404, "UnknownOperationException"),
        (with_fields(GLUE, body=b'{"MaxResults": "3"}'), 400, "SerializationException"),
        (with_fields(GLUE, body=b'{"MaxResults": true}'), 400, "SerializationException"),
        (with_fields(GLUE, body=b'{"MaxResults": 0}'), 400, "ValidationException"),
        (with_fields(ECS, body=b'{"desiredStatus": "running"}'), 400, "InvalidParameterException"),
        (with_fields(IAM, body=b"Action=GetRole"), 400, "ValidationError"),
        (with_fields(IAM, body=b"Action=Nothing"), 400, "InvalidAction"),
        (with_fields(IAM, body=b""), 400, "MissingAction"),
        (with_fields(IAM, body=b"Action=ListRoles&MaxItems=many"), 400, "MalformedInput"),
    ],
)
def test_malformed_requests_get_the_error_of_their_service(aws: LocalAws, sent: Sent, status: int, code: str) -> None:
    """It has the service's request id and content type."""
    answer = send(aws, sent)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["x-amzn-RequestId"]
    kinds = {"batch": "application/json", "iam": "text/xml"}
    assert answer.headers["Content-Type"] == kinds.get(sent.service, "application/x-amz-json-1.1")


def test_requests_without_a_signature_are_rejected(aws: LocalAws) -> None:
    """Requests that could be for S3 are an exception."""
    answer = send(aws, with_fields(GLUE, body=b"{}", signed=False))
    assert (answer.status, answer.code) == (403, "MissingAuthenticationTokenException")
    answer = send(aws, with_fields(GLUE, body=b"{}", region=""))
    assert (answer.status, answer.code) == (400, "IncompleteSignatureException")


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_signed_urls_accept_any_content(aws: LocalAws, version: str) -> None:
    """An HTML page is not mistaken for an error of moto, and content with the type of a form is accepted, as sent by
    urllib.
    """
    s3 = aws.client("s3", config=Config(signature_version=version))
    bucket = f"bucket-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=bucket)
    for headers in ({"Content-Type": "text/html"}, FORM):
        request = {"Bucket": bucket, "Key": headers["Content-Type"][:4], "ContentType": headers["Content-Type"]}
        path = s3.generate_presigned_url("put_object", request).removeprefix(aws.endpoint_url)
        assert send(aws, Sent("s3", "", "PUT", path, headers, b"<html>", signed=False)).status == 200
    page = s3.get_object(Bucket=bucket, Key="text")
    assert (page["ContentType"], page["Body"].read()) == ("text/html", b"<html>")


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (with_fields(BATCH, body=b'{"jobs": ["x"], "unknown": 1, "other": null}'), "application/json"),
        (
            with_fields(BATCH, body=b'{"jobs": ["x"]}', headers=FORM),
            "application/json",
        ),
        (
            with_fields(BATCH, body=b'f\r\n{"jobs": ["x"]}\r\n0\r\n\r\n', headers={"Transfer-Encoding": "chunked"}),
            "application/json",
        ),
        (with_fields(BATCH, path="/v1/describejobqueues", body=b""), "application/json"),
        (GLUE, "application/x-amz-json-1.1"),
        (with_fields(GLUE, headers={"X-Amz-Target": "AWSGlue.ListJobs"}), "application/x-amz-json-1.1"),
        (with_fields(IAM, body=b"Action=ListRoles&Version=2010-05-08"), "text/xml"),
    ],
)
def test_responses_have_a_request_id_and_content_type(aws: LocalAws, sent: Sent, kind: str) -> None:
    """This holds for responses of this package and of moto, and for unusual requests that AWS accepts."""
    answer = send(aws, sent)
    assert answer.status == 200, answer.body
    assert answer.headers.get_content_type() == kind
    assert answer.headers["x-amzn-RequestId"]


@pytest.mark.parametrize(
    ("service", "operation", "member"),
    [
        ("resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList"),
        ("cloudwatch", "list_metrics", "Metrics"),
        ("codebuild", "list_projects", "projects"),
    ],
)
def test_services_that_prefer_cbor_respond_with_json(aws: LocalAws, service: str, operation: str, member: str) -> None:
    """boto3 calls them with JSON; moto responded that the operation does not exist."""
    answer = getattr(aws.client(service), operation)()
    assert isinstance(answer[member], list)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"].startswith("application/x-amz-json-1.")


def test_resources_are_found_by_their_tags(aws: LocalAws) -> None:
    """A Glue job is found with the resource groups tagging API."""
    kit = GlueKit(aws, eventually)
    job = kit.job(Tags={"found-by": kit.name})
    filters = [{"Key": "found-by", "Values": [kit.name]}]
    found = aws.client("resourcegroupstaggingapi").get_resources(TagFilters=filters)["ResourceTagMappingList"]
    assert [each["ResourceARN"].rsplit("/", 1)[1] for each in found] == [job]


def test_an_incomplete_request_gets_a_response(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends half of the announced length, and waits, would wait forever."""
    monkeypatch.setattr(listener._RequestHandler, "timeout", 0.2)
    address = urlsplit(aws.endpoint_url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(with_fields(BATCH, body=b'{"jobs"', length="50").raw())
        assert connection.makefile("rb").readline().split()[1] == b"408"


def test_an_unknown_member_is_ignored(aws: LocalAws) -> None:
    """``AsDict`` replaced a method of a moto object, so that GetCrawlers failed from then on."""
    glue = aws.client("glue")
    name = f"crawler-{uuid.uuid4().hex}"
    glue.create_crawler(Name=name, Role="r", DatabaseName="d", Targets={"S3Targets": [{"Path": "s3://b/"}]})
    body = json.dumps({"Name": name, "AsDict": 1, "TablePrefix": "x_"}).encode()
    assert send(aws, with_fields(GLUE, headers={"X-Amz-Target": "AWSGlue.UpdateCrawler"}, body=body)).status == 200
    assert glue.get_crawler(Name=name)["Crawler"]["TablePrefix"] == "x_"
    assert name in {each["Name"] for each in glue.get_crawlers()["Crawlers"]}


def test_requests_to_moto_are_validated(aws: LocalAws) -> None:
    """A wrong type would be a response 500 with a traceback."""
    headers = {"X-Amz-Target": "AWSEvents.PutTargets"}
    body = b'{"Rule": "x", "Targets": [{"Arn": "y"}]}'
    answer = send(aws, Sent("events", "PutTargets", headers={**GLUE.headers, **headers}, body=body))
    assert (answer.status, answer.code) == (400, "ValidationException")
    assert b"'targets.1.member.id' failed to satisfy constraint: Member must not be null" in answer.body


def test_the_reset_of_moto_is_rejected(aws: LocalAws) -> None:
    """It would delete half of the local AWS, and resources of other servers in the process."""
    queues = aws.client("batch").describe_job_queues()["jobQueues"]
    answer = send(aws, Sent("", "", path="/moto-api/reset", signed=False))
    assert answer.status == 404
    assert "Start another local AWS instead of a reset" in json.loads(answer.body)["error"]
    assert aws.client("batch").describe_job_queues()["jobQueues"] == queues


@pytest.mark.parametrize("body", [b"[]", b"{", b"1", b'{"unknown": 1}', b"\xff"])
def test_malformed_calls_to_the_control_api_are_rejected(aws: LocalAws, body: bytes) -> None:
    """The response explains the error."""
    answer = send(aws, Sent("", "", path="/jobflow-local/faults", body=body, signed=False))
    assert answer.status == 400
    assert json.loads(answer.body)["error"]


class InRegion:
    """A local AWS whose clients are in another region."""

    def __init__(self, aws: LocalAws, region: str) -> None:
        self._aws = aws
        self.region = region

    def client(self, service: str, **options: Any) -> Any:
        """Return a client in the region; for S3, one that can create buckets anywhere."""
        return self._aws.client(service, region_name="us-east-1" if service == "s3" else self.region, **options)


@pytest.fixture(params=["us-east-1", "eu-central-1"])
def place(request: pytest.FixtureRequest, aws: LocalAws) -> InRegion:
    """A local AWS in one of two regions, each with a compute environment."""
    place = InRegion(aws, request.param)
    batch = place.client("batch")
    if not batch.describe_compute_environments(computeEnvironments=["local"])["computeEnvironments"]:
        create_environment(place.client("iam"), batch, "local")
    return place


SHOW = "echo $AWS_REGION $AWS_DEFAULT_REGION $AWS_EXECUTION_ENV"


def test_batch_jobs_have_the_variables_of_aws(place: InRegion) -> None:
    """boto3 in a job calls the job's region, and Metaflow needs AWS_EXECUTION_ENV; a job's own variables take
    precedence.
    """
    kit: Any = Kit(place, place.client("batch"))  # type: ignore[arg-type]
    assert kit.output(kit.sh(SHOW)) == [f"{place.region} {place.region} AWS_ECS_EC2"]
    on_fargate = kit.define(["sh", "-c", SHOW], platformCapabilities=["FARGATE"], containerProperties=ON_FARGATE)
    assert kit.output(kit.submit(jobDefinition=on_fargate)) == [f"{place.region} {place.region} AWS_ECS_FARGATE"]
    own = {"environment": [{"name": "AWS_REGION", "value": "mine"}]}
    assert kit.output(kit.sh(SHOW, containerOverrides=own)) == [f"mine {place.region} AWS_ECS_EC2"]


def test_ecs_tasks_have_the_variables_of_aws(place: InRegion) -> None:
    """They are those of Batch jobs."""
    kit: Any = EcsKit(place)  # type: ignore[arg-type]
    assert kit.output(kit.sh(SHOW)) == [f"{place.region} {place.region} AWS_ECS_FARGATE"]


def test_glue_runs_have_the_variables_of_aws(place: InRegion) -> None:
    """They have the region."""
    kit = GlueKit(place, eventually)  # type: ignore[arg-type]
    job = kit.job("import os\nprint(os.environ['AWS_REGION'], os.environ['AWS_DEFAULT_REGION'])")
    run = kit.wait(job, kit.start(job))
    answer = place.client("logs").get_log_events(
        logGroupName=f"{run['LogGroupName']}/output", logStreamName=run["Id"], startFromHead=True
    )
    assert [event["message"] for event in answer["events"]] == [f"{place.region} {place.region}"]


@pytest.mark.parametrize("kind", ["SEQUENTIAL", "N_TO_N"])
def test_single_jobs_accept_dependencies_with_a_type(kit: Any, kind: str) -> None:
    """AWS ignores the type."""
    first = kit.sh("exit 1")
    kit.wait(first)
    second = kit.submit(dependsOn=[{"jobId": first, "type": kind}])
    assert kit.wait(second)["statusReason"] == "Dependent Job failed"
    assert kit.wait(kit.submit(dependsOn=[{"jobId": kit.submit(), "type": kind}]))["status"] == "SUCCEEDED"


@pytest.mark.parametrize("call", ["cancel_job", "terminate_job"])
def test_an_empty_reason_is_rejected_for_unknown_jobs_as_well(kit: Any, call: str) -> None:
    """AWS validates the request before it looks up the job."""
    with pytest.raises(ClientError, match="'reason' is a required field"):
        getattr(kit.batch, call)(jobId="unknown", reason="")
    getattr(kit.batch, call)(jobId="unknown", reason="x")


def test_batch_rejects_sizes_that_fargate_does_not_have(kit: Any) -> None:
    """This holds for a definition, and for overrides of a submit."""
    with pytest.raises(ClientError, match=r"Fargate resource requirements \(1 vCPU, 128 MiB\) not valid"):
        kit.define(platformCapabilities=["FARGATE"])
    definition = kit.define(platformCapabilities=["FARGATE"], containerProperties=ON_FARGATE)
    bigger = {"resourceRequirements": [{"type": "MEMORY", "value": "4096"}]}
    with pytest.raises(ClientError, match=r"\(0.25 vCPU, 4096 MiB\) not valid"):
        kit.submit(jobDefinition=definition, containerOverrides=bigger)
    with pytest.raises(ClientError, match="not found"):
        kit.submit(jobDefinition=definition.replace(kit.aws.account_id, "999999999999"))


def test_ecs_rejects_sizes_that_fargate_does_not_have(ecs_kit: Any) -> None:
    """The definition is rejected."""
    with pytest.raises(ClientError, match="No Fargate configuration exists for given values: 256 CPU, 4096 memory"):
        ecs_kit.define(cpu="256", memory="4096")
    ecs_kit.define(cpu=".25 vCPU", memory="0.5 GB")


@pytest.mark.parametrize(
    ("cpu", "memory", "exists"),
    [
        ("256", "512", True),
        ("1 vCPU", "2 GB", True),
        ("1024", "8192", True),
        ("4 vcpu", "30720", True),
        ("8192", "20480", True),
        ("8192", "17408", False),
        ("256", "4096", False),
        ("300", "512", False),
        ("1024", "2.5 GB", False),
        ("many", "512", False),
        ("1.1.1 vCPU", "512", False),
        ("", "", False),
    ],
)
def test_sizes_of_fargate(cpu: str, memory: str, *, exists: bool) -> None:
    """Sizes are in the format of ECS."""
    assert is_size(cpu, memory) is exists


def test_sizes_of_fargate_in_the_format_of_batch() -> None:
    """Sizes are in vCPUs and MiB."""
    assert is_batch_size("0.25", "2048")
    assert is_batch_size("16", "32768")
    assert not is_batch_size("0.3", "2048")


def test_started_by_may_have_blanks(ecs_kit: Any) -> None:
    """AWS accepts them, although its documentation says otherwise."""
    task = ecs_kit.run(startedBy="Airflow: my dag")
    assert ecs_kit.wait(task)["startedBy"] == "Airflow: my dag"


def test_events_call_network_interfaces_eni(ecs_kit: Any) -> None:
    """DescribeTasks calls them ElasticNetworkInterface."""
    clusters = ecs_kit.ecs.describe_clusters(clusters=[ecs_kit.cluster])["clusters"]
    pattern = {"source": ["aws.ecs"], "detail": {"clusterArn": [clusters[0]["clusterArn"]]}}
    inbox = Inbox(ecs_kit.aws, pattern)
    task = ecs_kit.wait(ecs_kit.run())
    assert [each["type"] for each in task["attachments"]] == ["ElasticNetworkInterface"]
    eventually(lambda: inbox.receive() and inbox.events[-1]["detail"]["lastStatus"] == "STOPPED")
    assert {each["type"] for event in inbox.events for each in event["detail"]["attachments"]} == {"eni"}


def test_a_crawl_creates_its_database(aws: LocalAws) -> None:
    """A target without ``s3://`` is accepted, as in the Amazon provider's system test."""
    kit = GlueKit(aws, eventually)
    crawler, database = kit.crawler(), f"{kit.name}-new"
    kit.glue.update_crawler(Name=crawler, DatabaseName=database, Targets={"S3Targets": [{"Path": f"{kit.name}/in"}]})
    assert kit.crawl(crawler)["State"] == "COMPLETED"
    assert [table["Name"] for table in kit.glue.get_tables(DatabaseName=database)["TableList"]] == ["in"]


@pytest.mark.parametrize(
    ("filter_", "said"),
    [
        ({"FieldName": "STATE", "FilterOperator": "EQ"}, "FilterOperator: EQ, FieldValue: null"),
        ({"FilterOperator": "EQ", "FieldValue": "x"}, "Invalid Filter Provided: FieldName: null"),
        ({"FieldName": "STATE", "FilterOperator": "GT", "FieldValue": "RUNNING"}, "Only EQ or NE operator is allowed"),
        ({"FieldName": "CRAWL_ID", "FilterOperator": "LE", "FieldValue": "x"}, "for field : CRAWL_ID"),
        ({"FieldName": "START_TIME", "FilterOperator": "GE", "FieldValue": "x"}, "neither a number nor a time"),
        ({"FieldName": "NAME", "FilterOperator": "EQ", "FieldValue": "x"}, "'filters.1.member.fieldName'"),
    ],
)
def test_unknown_filters_of_crawls_are_rejected(aws: LocalAws, filter_: dict[str, str], said: str) -> None:
    """This also holds if there are no crawls."""
    kit = GlueKit(aws, eventually)
    with pytest.raises(ClientError, match=said):
        kit.glue.list_crawls(CrawlerName=kit.crawler(), Filters=[filter_])


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ({"AllocatedCapacity": 2, "MaxCapacity": 2.0}, "Please set only Allocated Capacity or Max Capacity"),
        ({"MaxCapacity": 2.0, "WorkerType": "G.1X", "NumberOfWorkers": 2}, "Please do not set Max Capacity"),
    ],
)
def test_glue_jobs_have_one_size(aws: LocalAws, size: dict[str, Any], said: str) -> None:
    """The size is validated when a job is created, changed or run."""
    kit = GlueKit(aws, eventually)
    job = kit.job()
    with pytest.raises(kit.glue.exceptions.InvalidInputException, match=said):
        kit.start(job, **size)
    with pytest.raises(kit.glue.exceptions.InvalidInputException, match=said):
        kit.job(**size)
    with pytest.raises(kit.glue.exceptions.InvalidInputException, match=said):
        kit.glue.update_job(JobName=job, JobUpdate=size)
    assert kit.runs(job) == []


def test_the_samples_run_on_a_managed_fargate_environment() -> None:
    """Most users' queues have one."""
    with LocalAws() as aws:
        samples.provision(aws.endpoint_url)
        batch = aws.client("batch")
        (environment,) = batch.describe_compute_environments()["computeEnvironments"]
        assert (environment["type"], environment["computeResources"]["type"]) == ("MANAGED", "FARGATE")
        definitions = batch.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
        assert all(each["platformCapabilities"] == ["FARGATE"] for each in definitions)


OPERATIONS = {"batch": "SubmitJob", "glue": "StartJobRun", "logs": "CreateLogGroup"}


GOOD = {"jobName": "a", "jobQueue": "b", "jobDefinition": "c"}


def test_unknown_members_and_nulls_are_dropped() -> None:
    """This holds at any depth; other members do not change."""
    given = {**GOOD, "x": 1, "tags": None, "containerOverrides": {"y": 2, "command": ["a"], "vcpus": None}}
    before = json.dumps(given)
    assert validated("batch", input_shape("batch", "SubmitJob"), given) == {
        **GOOD,
        "containerOverrides": {"command": ["a"]},
    }
    assert json.dumps(given) == before


@pytest.mark.parametrize(
    ("service", "given", "said"),
    [
        ("batch", {**GOOD, "jobName": 1}, "NUMBER_VALUE can not be converted to a String"),
        ("batch", {**GOOD, "jobName": True}, "TRUE_VALUE can not be converted to a String"),
        ("batch", {**GOOD, "jobName": ["a"]}, "Start of list found where not expected"),
        ("batch", {**GOOD, "tags": "x"}, "a map was expected"),
        ("batch", {**GOOD, "arrayProperties": {"size": "2"}}, "STRING_VALUE can not be converted to an Integer"),
        ("batch", {**GOOD, "arrayProperties": {"size": 2.5}}, "DECIMAL_VALUE can not be converted to an Integer"),
        ("batch", {**GOOD, "arrayProperties": {"size": 2**31}}, "out of the range"),
        ("batch", {**GOOD, "propagateTags": "true"}, "STRING_VALUE can not be converted to a Boolean"),
        ("batch", [], "Start of list found where not expected"),
    ],
)
def test_values_of_another_type_are_rejected(service: str, given: Any, said: str) -> None:
    """AWS converts no types."""
    with pytest.raises(WrongType, match=said):
        validated(service, input_shape(service, OPERATIONS[service]), given)


@pytest.mark.parametrize(
    ("service", "given", "said"),
    [
        ("batch", {}, "3 validation errors detected: Value null at 'jobName' failed to satisfy constraint"),
        ("batch", {**GOOD, "dependsOn": [None]}, "'dependsOn.1.member' .*: Member must not be null"),
        ("batch", {**GOOD, "dependsOn": [{"type": "n_to_n"}]}, r"enum value set: \[N_TO_N, SEQUENTIAL\]"),
        ("glue", {"JobName": "x" * 256}, "Member must have length less than or equal to 255"),
        ("glue", {"JobName": "a", "Timeout": 0}, "Member must have value greater than or equal to 1"),
        ("logs", {"logGroupName": "a b"}, "Member must satisfy regular expression pattern"),
        ("logs", {"logGroupName": "a\nb"}, "Member must satisfy regular expression pattern"),
    ],
)
def test_constraints_of_the_model_are_checked(service: str, given: Any, said: str) -> None:
    """boto3 checks some of them before it sends a request, and leaves others to AWS."""
    with pytest.raises(Violations, match=said):
        validated(service, input_shape(service, OPERATIONS[service]), given)


def test_a_pattern_for_any_text_accepts_several_lines() -> None:
    """Descriptions in Glue match ``.*``, which means any character in the models."""
    given = {"RegistryName": "a", "Description": "one line\nand another"}
    assert validated("glue", input_shape("glue", "CreateRegistry"), given) == given


def test_the_action_of_evaluate_on_exit_ignores_case() -> None:
    """Batch accepts ``retry`` for ``RETRY``."""
    given = {**GOOD, "retryStrategy": {"attempts": 2, "evaluateOnExit": [{"action": "retry", "onExitCode": "1"}]}}
    assert validated("batch", input_shape("batch", "SubmitJob"), given) == given
