"""Crawlers: the tables that they create from objects in S3, their states, and their ends."""

from __future__ import annotations

import io
import json
import uuid
from typing import TYPE_CHECKING, Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from botocore.exceptions import ClientError
from moto.glue.models import FakeCrawler, FakeTable, GlueBackend
from moto.s3.models import FakeKey, S3Backend

from airflow_jobflow.local import Faults, LocalAws, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS = (
    *("StartCrawler", "StopCrawler", "UpdateCrawler", "DeleteCrawler", "GetCrawler", "GetCrawlers"),
    *("BatchGetCrawlers", "GetCrawlerMetrics", "ListCrawls"),
)
CSV = b"name,n\nx,1\ny,2\n"
HOUR = 3600.0


class Kit:
    """A bucket and a database, with short forms to crawl the bucket."""

    def __init__(self, aws: LocalAws, violations: Callable[..., list[str]], eventually: Callable[..., Any]) -> None:
        self.aws = aws
        self.eventually = eventually
        self.glue, self.s3, self.logs = (aws.client(name) for name in ("glue", "s3", "logs"))
        self.name = f"test-{uuid.uuid4().hex}"
        self.s3.create_bucket(Bucket=self.name)
        self.glue.create_database(DatabaseInput={"Name": self.name})

        def check(http_response: Any, model: Any, **_: Any) -> None:
            body = json.loads(http_response.content or b"{}")
            if http_response.status_code < 300:
                assert model.output_shape is None or violations(model.output_shape, body) == []
            else:
                assert body["__type"] in {shape.name for shape in model.error_shapes} | {"ValidationException"}

        for action in OURS:
            self.glue.meta.events.register(f"after-call.glue.{action}", check)

    def put(self, key: str, content: bytes = CSV) -> None:
        """Create an object."""
        self.s3.put_object(Bucket=self.name, Key=key, Body=content)

    def crawler(self, path: str = "in/", **request: Any) -> str:
        """Create a crawler of a folder of the bucket, and return its name."""
        name = f"crawler-{uuid.uuid4().hex}"
        targets = {"S3Targets": [{"Path": f"s3://{self.name}/{path}"}]}
        self.glue.create_crawler(
            **{"Name": name, "Role": "role", "DatabaseName": self.name, "Targets": targets, **request}
        )
        return name

    def look(self, name: str) -> dict[str, Any]:
        """Return a crawler as in GetCrawler."""
        return dict(self.glue.get_crawler(Name=name)["Crawler"])

    def ready(self, name: str) -> dict[str, Any]:
        """Wait until a crawler is READY, and return it."""
        self.eventually(lambda: self.look(name)["State"] == "READY", f"{name} is ready")
        return self.look(name)

    def crawl(self, name: str) -> dict[str, Any]:
        """Start a crawler, wait for its end, and return its LastCrawl."""
        self.glue.start_crawler(Name=name)
        return dict(self.ready(name)["LastCrawl"])

    def crawls(self, name: str, **request: Any) -> list[dict[str, Any]]:
        """Return the crawls as in ListCrawls."""
        return list(self.glue.list_crawls(CrawlerName=name, **request)["Crawls"])

    def summary(self, name: str) -> Any:
        """Return the counts of the newest crawl: ``{"TABLE": {"ADD": 1}}``."""
        told = json.loads(self.crawls(name)[0]["Summary"])
        return {kind: {change: each["Count"] for change, each in changes.items()} for kind, changes in told.items()}

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return the tables of the database by name."""
        return {table["Name"]: table for table in self.glue.get_tables(DatabaseName=self.name)["TableList"]}

    def columns(self, table: str) -> dict[str, str]:
        """Return the types of a table's columns."""
        storage = self.tables()[table]["StorageDescriptor"]
        return {column["Name"]: column["Type"] for column in storage["Columns"]}

    def lines(self, name: str) -> list[str]:
        """Return a crawler's log."""
        events = self.logs.get_log_events(logGroupName="/aws-glue/crawlers", logStreamName=name, startFromHead=True)[
            "events"
        ]
        return [event["message"] for event in events]


@pytest.fixture(scope="module")
def quick() -> Iterator[LocalAws]:
    """An AWS with fast crawls."""
    with LocalAws(slots=1) as server:
        yield server


@pytest.fixture(scope="module")
def slow() -> Iterator[LocalAws]:
    """An AWS whose crawls do not end by themselves."""
    with LocalAws(slots=1, settings=Settings(crawl_seconds=HOUR)) as server:
        yield server


@pytest.fixture
def kit(quick: LocalAws, violations: Any, eventually: Any) -> Kit:
    """Crawlers with fast crawls."""
    return Kit(quick, violations, eventually)


@pytest.fixture
def slow_kit(slow: LocalAws, violations: Any, eventually: Any) -> Kit:
    """Crawlers whose crawls run until they are stopped."""
    return Kit(slow, violations, eventually)


def test_csv_becomes_a_table(kit: Kit) -> None:
    """Its name consists of prefix and last folder, and it has all members that a reader needs."""
    kit.put("se2/in0/a.csv")
    kit.put("se2/in0/b.csv", b"name,n\nz,0.5\n")
    kit.put("se2/in0/_SUCCESS", b"")
    name = kit.crawler("se2/in0", TablePrefix="Se2_")
    assert kit.crawl(name)["Status"] == "SUCCEEDED"
    table = kit.tables()["se2_in0"]
    assert kit.columns("se2_in0") == {"name": "string", "n": "double"}
    storage, parameters = table["StorageDescriptor"], table["Parameters"]
    assert storage["Location"] == f"s3://{kit.name}/se2/in0/"
    assert storage["InputFormat"] == "org.apache.hadoop.mapred.TextInputFormat"
    assert storage["SerdeInfo"] == {
        "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
        "Parameters": {"field.delim": ","},
    }
    assert (table["TableType"], table["PartitionKeys"]) == ("EXTERNAL_TABLE", [])
    expected = {"classification": "csv", "skip.header.line.count": "1", "recordCount": "3", "UPDATED_BY_CRAWLER": name}
    assert {key: parameters[key] for key in expected} == expected
    assert kit.summary(name) == {"TABLE": {"ADD": 1}}


def test_folders_become_partitions(kit: Kit) -> None:
    """Folders named key=value are string keys, and each partition has its location."""
    for year in ("2017", "2018"):
        kit.put(f"in/year={year}/m=01/a.csv")
    name = kit.crawler()
    kit.crawl(name)
    keys = [{"Name": "year", "Type": "string"}, {"Name": "m", "Type": "string"}]
    assert kit.tables()["in"]["PartitionKeys"] == keys
    partitions = kit.glue.get_partitions(DatabaseName=kit.name, TableName="in")["Partitions"]
    assert [(each["Values"], each["StorageDescriptor"]["Location"]) for each in partitions] == [
        (["2017", "01"], f"s3://{kit.name}/in/year=2017/m=01/"),
        (["2018", "01"], f"s3://{kit.name}/in/year=2018/m=01/"),
    ]
    assert kit.summary(name) == {"TABLE": {"ADD": 1}, "PARTITION": {"ADD": 2}}
    kit.put("in/year=2019/m=01/a.csv")
    kit.crawl(name)
    assert kit.summary(name) == {"PARTITION": {"ADD": 1}}


def test_json_and_parquet_become_tables(kit: Kit) -> None:
    """Each folder has its own format, in one crawl."""
    kit.put("in/events/a.json", b'{"id": 1, "at": {"x": 1.5, "tags": ["a"]}}\n{"id": 5000000000}\n')
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array([1], pa.int64()), "day": pa.array([0], pa.date32())}), buffer)
    kit.put("in/facts/part.parquet", buffer.getvalue())
    kit.crawl(kit.crawler())
    assert kit.columns("events") == {"id": "bigint", "at": "struct<x:double,tags:array<string>>"}
    assert kit.columns("facts") == {"id": "bigint", "day": "date"}
    formats = {name: table["Parameters"]["classification"] for name, table in kit.tables().items()}
    assert formats == {"events": "json", "facts": "parquet"}


def test_second_crawl_updates_only_changes(kit: Kit) -> None:
    """Unchanged tables and partitions are not updated."""
    kit.put("in/a.csv")
    name = kit.crawler()
    kit.crawl(name)
    kit.crawl(name)
    assert kit.summary(name) == {}
    kit.put("in/a.csv", b"name,n,more\nx,1,true\n")
    kit.crawl(name)
    assert kit.summary(name) == {"TABLE": {"UPDATE": 1}}
    assert kit.columns("in")["more"] == "boolean"


def test_policy_may_forbid_updates(kit: Kit) -> None:
    """With LOG, changes are only logged."""
    kit.put("in/a.csv")
    name = kit.crawler(SchemaChangePolicy={"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"})
    kit.crawl(name)
    kit.put("in/a.csv", b"name,n,more\nx,1,true\n")
    kit.crawl(name)
    assert "more" not in kit.columns("in")
    assert any("not updating it" in line for line in kit.lines(name))


@pytest.mark.parametrize(
    ("behaviour", "left"), [("DELETE_FROM_DATABASE", []), ("DEPRECATE_IN_DATABASE", ["in"]), ("LOG", ["in"])]
)
def test_tables_without_objects_are_handled_by_the_policy(kit: Kit, behaviour: str, left: list[str]) -> None:
    """They are deleted, deprecated or kept, but only if this crawler created them."""
    kit.put("in/a.csv")
    kit.glue.create_table(DatabaseName=kit.name, TableInput={"Name": "mine"})
    name = kit.crawler(SchemaChangePolicy={"DeleteBehavior": behaviour})
    kit.crawl(name)
    kit.s3.delete_object(Bucket=kit.name, Key="in/a.csv")
    kit.crawl(name)
    assert list(kit.tables()) == ["mine", *left]
    deprecated = [table for table in kit.tables().values() if "DEPRECATED_BY_CRAWLER" in table.get("Parameters", {})]
    assert [table["Name"] for table in deprecated] == (left if behaviour.startswith("DEPRECATE") else [])


def test_updated_crawler_crawls_its_new_target(kit: Kit) -> None:
    """UpdateCrawler changes only the given members."""
    kit.put("other/a.csv")
    name = kit.crawler(TablePrefix="p_")
    kit.glue.update_crawler(Name=name, Targets={"S3Targets": [{"Path": f"s3://{kit.name}/other/"}]})
    kit.crawl(name)
    assert list(kit.tables()) == ["p_other"]
    assert kit.look(name)["Version"] == 2


def test_failed_crawl_leaves_a_ready_crawler(kit: Kit) -> None:
    """The state is never FAILED, so the state alone looks like a success."""
    targets = {"S3Targets": [{"Path": "s3://no-such-bucket-at-all/in/"}]}
    name = kit.crawler(Targets=targets)
    last = kit.crawl(name)
    assert kit.look(name)["State"] == "READY"
    assert last["Status"] == "FAILED"
    assert "The specified bucket does not exist" in last["ErrorMessage"]
    (crawl,) = kit.crawls(name)
    assert (crawl["State"], crawl["ErrorMessage"]) == ("FAILED", last["ErrorMessage"])


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"Targets": {"S3Targets": [{"Path": "ftp://a/b"}]}}, "ftp://a/b is not an S3 location"),
        ({"Targets": {"S3Targets": [{"Exclusions": ["*"]}]}}, "is not an S3 location"),
        ({"Targets": {"DynamoDBTargets": [{"Path": "t"}]}}, "crawls S3 targets only, not DynamoDBTargets"),
    ],
)
def test_crawl_of_an_invalid_target_fails(kit: Kit, request_: dict[str, Any], said: str) -> None:
    """StartCrawler succeeds before objects are read, so the error is in the crawl."""
    assert said in kit.crawl(kit.crawler(**request_))["ErrorMessage"]


def test_interrupted_crawl_fails_with_the_given_message(slow_kit: Kit) -> None:
    """Tests use it to simulate internal errors."""
    name = slow_kit.crawler()
    slow_kit.glue.start_crawler(Name=name)
    slow_kit.aws.interrupt_crawl(name)
    last = slow_kit.ready(name)["LastCrawl"]
    assert (last["Status"], last["ErrorMessage"]) == ("FAILED", "Internal Service Exception")
    with pytest.raises(ValueError, match="nothing to interrupt"):
        slow_kit.aws.interrupt_crawl(name)


def test_running_crawler_shows_the_previous_crawl(slow_kit: Kit) -> None:
    """LastCrawl is the last ended crawl, and missing during the first one."""
    name = slow_kit.crawler()
    slow_kit.glue.start_crawler(Name=name)
    first = slow_kit.look(name)
    assert (first["State"], "LastCrawl" in first) == ("RUNNING", False)
    slow_kit.glue.stop_crawler(Name=name)
    prefix = slow_kit.ready(name)["LastCrawl"]["MessagePrefix"]
    slow_kit.glue.start_crawler(Name=name)
    second = slow_kit.look(name)
    assert (second["State"], second["LastCrawl"]["MessagePrefix"]) == ("RUNNING", prefix)
    assert [crawl["State"] for crawl in slow_kit.crawls(name)] == ["RUNNING", "STOPPED"]
    slow_kit.glue.stop_crawler(Name=name)
    assert slow_kit.ready(name)["LastCrawl"]["MessagePrefix"] != prefix


def test_second_start_is_rejected_while_running(slow_kit: Kit) -> None:
    """A repeated start gets the same error."""
    name = slow_kit.crawler()
    slow_kit.glue.start_crawler(Name=name)
    with pytest.raises(slow_kit.glue.exceptions.CrawlerRunningException, match="has already started"):
        slow_kit.glue.start_crawler(Name=name)
    for call in (slow_kit.glue.delete_crawler, slow_kit.glue.update_crawler):
        with pytest.raises(slow_kit.glue.exceptions.CrawlerRunningException):
            call(Name=name)


def test_stopped_crawl_is_cancelled(slow_kit: Kit) -> None:
    """It is CANCELLED in LastCrawl and STOPPED in the list of crawls, and wrote nothing."""
    slow_kit.put("in/a.csv")
    name = slow_kit.crawler()
    with pytest.raises(slow_kit.glue.exceptions.CrawlerNotRunningException):
        slow_kit.glue.stop_crawler(Name=name)
    slow_kit.glue.start_crawler(Name=name)
    slow_kit.glue.stop_crawler(Name=name)
    assert slow_kit.ready(name)["LastCrawl"]["Status"] == "CANCELLED"
    assert [crawl["State"] for crawl in slow_kit.crawls(name)] == ["STOPPED"]
    assert slow_kit.tables() == {}
    with pytest.raises(slow_kit.glue.exceptions.CrawlerNotRunningException):
        slow_kit.glue.stop_crawler(Name=name)


def test_crawler_is_stopping_before_it_is_ready(eventually: Any, violations: Any) -> None:
    """This holds for every end of a crawl; it cannot be stopped twice."""
    settings = Settings(crawl_seconds=HOUR, crawl_stopping_seconds=HOUR)
    with LocalAws(slots=1, settings=settings) as aws:
        timed = Kit(aws, violations, eventually)
        name = timed.crawler()
        timed.glue.start_crawler(Name=name)
        timed.glue.stop_crawler(Name=name)
        assert timed.look(name)["State"] == "STOPPING"
        assert [crawl["State"] for crawl in timed.crawls(name)] == ["RUNNING"]
        with pytest.raises(timed.glue.exceptions.CrawlerStoppingException):
            timed.glue.stop_crawler(Name=name)


def test_start_takes_effect_after_a_delay(eventually: Any, violations: Any) -> None:
    """READY right after a start belongs to the previous crawl, whose result must not be used."""
    with LocalAws(slots=1, settings=Settings(start_takes_effect_after=1.5)) as aws:
        timed = Kit(aws, violations, eventually)
        timed.put("in/a.csv")
        name = timed.crawler()
        timed.glue.start_crawler(Name=name)
        seen = timed.look(name)
        assert (seen["State"], "LastCrawl" in seen, timed.crawls(name)) == ("READY", False, [])
        eventually(lambda: timed.crawls(name))
        assert timed.ready(name)["LastCrawl"]["Status"] == "SUCCEEDED"


def test_new_crawls_are_visible_after_a_delay_only(kit: Kit) -> None:
    """It is a fault that can be switched on and off."""
    kit.put("in/a.csv")
    name = kit.crawler()
    kit.aws.set_faults(Faults(visible_after=HOUR))
    kit.glue.start_crawler(Name=name)
    assert kit.crawls(name) == []
    kit.aws.set_faults(Faults())
    kit.eventually(lambda: kit.look(name).get("LastCrawl"))


def test_list_of_crawls_is_newest_first_in_pages_and_filtered(kit: Kit) -> None:
    """Each crawl is listed once."""
    kit.put("in/a.csv")
    name = kit.crawler()
    for _ in range(5):
        kit.crawl(name)
    every = kit.crawls(name)
    assert sorted(every, key=lambda crawl: crawl["StartTime"], reverse=True) == every
    assert every[0]["EndTime"] >= every[0]["StartTime"]
    pages: list[Any] = []
    token: dict[str, str] = {}
    while True:
        page = kit.glue.list_crawls(CrawlerName=name, MaxResults=2, **token)
        pages.append(page["Crawls"])
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [crawl for page in pages for crawl in page] == every
    wanted = {"FieldName": "CRAWL_ID", "FilterOperator": "EQ", "FieldValue": every[3]["CrawlId"]}
    assert kit.crawls(name, Filters=[wanted]) == [every[3]]
    late = {"FieldName": "START_TIME", "FilterOperator": "GE", "FieldValue": every[1]["StartTime"].isoformat()}
    assert kit.crawls(name, Filters=[late]) == every[:2]


def test_many_crawlers_are_described_in_one_call(kit: Kit) -> None:
    """A call accepts a hundred names; unknown ones are listed separately."""
    names = [kit.crawler() for _ in range(2)]
    answer = kit.glue.batch_get_crawlers(CrawlerNames=["unknown", *names])
    assert [crawler["Name"] for crawler in answer["Crawlers"]] == names
    assert answer["CrawlersNotFound"] == ["unknown"]
    with pytest.raises(ClientError, match="less than or equal to 100"):
        kit.glue.batch_get_crawlers(CrawlerNames=[f"x{number}" for number in range(101)])
    pages = list(kit.glue.get_paginator("get_crawlers").paginate(PaginationConfig={"PageSize": 1}))
    assert set(names) <= {crawler["Name"] for page in pages for crawler in page["Crawlers"]}


def test_metrics_have_the_changes_of_the_last_crawl(kit: Kit) -> None:
    """They also have the duration of crawls."""
    kit.put("in/a.csv")
    name = kit.crawler()
    kit.crawl(name)
    (metrics,) = kit.glue.get_crawler_metrics(CrawlerNameList=[name])["CrawlerMetricsList"]
    assert (metrics["CrawlerName"], metrics["TablesCreated"], metrics["TablesUpdated"]) == (name, 1, 0)
    assert 0 <= metrics["LastRuntimeSeconds"] == metrics["MedianRuntimeSeconds"]


def test_unknown_crawlers_are_not_found(kit: Kit) -> None:
    """All calls reject them."""
    missing = kit.glue.exceptions.EntityNotFoundException
    for call in (kit.glue.start_crawler, kit.glue.stop_crawler, kit.glue.get_crawler, kit.glue.delete_crawler):
        with pytest.raises(missing):
            call(Name="unknown")
    with pytest.raises(missing, match="Crawler entry with name unknown does not exist"):
        kit.glue.list_crawls(CrawlerName="unknown")


def test_deleted_crawlers_crawls_are_deleted(kit: Kit) -> None:
    """A new crawler with the same name has no crawls."""
    name = kit.crawler()
    kit.crawl(name)
    kit.glue.delete_crawler(Name=name)
    kit.glue.create_crawler(Name=name, Role="role", DatabaseName=kit.name, Targets={"S3Targets": []})
    assert ("LastCrawl" in kit.look(name), kit.crawls(name)) == (False, [])


def test_log_lines_name_the_crawl(kit: Kit) -> None:
    """Every line begins with the MessagePrefix of its crawl."""
    kit.put("in/a.csv")
    kit.put("unknown/a", b"no table")
    name = kit.crawler("")
    last = kit.crawl(name)
    lines = kit.lines(name)
    assert (last["LogGroup"], last["LogStream"]) == ("/aws-glue/crawlers", name)
    assert all(line.startswith(f"[{last['MessagePrefix']}] ") for line in lines)
    assert any(f"Created table in in database {kit.name}" in line for line in lines)
    assert any("classified as UNKNOWN" in line for line in lines)
    assert lines[-1].endswith("BENCHMARK : Crawler has finished running and is in state READY")


def test_every_crawl_is_recorded_in_the_ledger(kit: Kit) -> None:
    """Tests count started crawls."""
    name = kit.crawler()
    kit.crawl(name)
    noted = [each for each in kit.aws.started("glue") if each.get("crawler") == name]
    assert noted == [{"crawler": name, "crawl_id": kit.crawls(name)[0]["CrawlId"]}]


def test_events_report_start_and_end(kit: Kit) -> None:
    """A success has counts, which are strings, and a failure has the error."""
    sqs, events = kit.aws.client("sqs"), kit.aws.client("events")
    url = sqs.create_queue(QueueName=kit.name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["aws.glue"], "detail-type": ["Glue Crawler State Change"]}
    events.put_rule(Name=kit.name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=kit.name, Targets=[{"Id": "1", "Arn": arn}])
    kit.put("in/a.csv")
    good, bad = kit.crawler(), kit.crawler(Targets={"S3Targets": [{"Path": "ftp://a/b"}]})
    told: list[dict[str, Any]] = []

    def receive() -> list[dict[str, Any]]:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            told.append(json.loads(message["Body"])["detail"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return told

    kit.crawl(good)
    kit.crawl(bad)
    kit.eventually(lambda: len(receive()) == 4)
    events.disable_rule(Name=kit.name)
    assert [(each["crawlerName"], each["state"]) for each in told] == [
        (good, "Started"),
        (good, "Succeeded"),
        (bad, "Started"),
        (bad, "Failed"),
    ]
    assert {key: told[1][key] for key in ("tablesCreated", "partitionsDeleted", "message", "accountId")} == {
        "tablesCreated": "1",
        "partitionsDeleted": "0",
        "message": "Crawler Succeeded",
        "accountId": kit.aws.account_id,
    }
    assert told[3]["errorMessage"] == "ftp://a/b is not an S3 location"


def test_crawl_has_a_minimum_duration(eventually: Any, violations: Any) -> None:
    """Tests need it to see RUNNING, and to let waits time out."""
    with LocalAws(slots=1, settings=Settings(crawl_seconds=0.3)) as aws:
        timed = Kit(aws, violations, eventually)
        name = timed.crawler()
        timed.crawl(name)
        (crawl,) = timed.crawls(name)
        assert (crawl["EndTime"] - crawl["StartTime"]).total_seconds() >= 0.3


def test_crawls_end_with_the_server(eventually: Any, violations: Any) -> None:
    """A crawl that would take an hour ends too."""
    with LocalAws(slots=1, settings=Settings(crawl_seconds=HOUR)) as aws:
        timed = Kit(aws, violations, eventually)
        timed.glue.start_crawler(Name=timed.crawler())


def test_used_internals_of_moto_exist(kit: Kit) -> None:
    """This test fails first if moto changes what crawls use of it."""
    for owner, names in {
        GlueBackend: ["create_table", "update_table", "delete_table", "get_tables", "get_table", "delete_crawler"],
        FakeTable: ["delete_partition", "update_partition", "create_partition"],
        FakeCrawler: ["as_dict"],
        S3Backend: ["get_bucket", "list_objects", "get_object"],
    }.items():
        for name in names:
            assert callable(getattr(owner, name))
    assert isinstance(FakeKey.value, property)
    backend = GlueBackend("us-east-1", "1")
    assert (backend.crawlers, backend.jobs, backend.databases) == ({}, {}, {})
    kit.glue.update_crawler(Name=kit.crawler(), Description="d", RecrawlPolicy={"RecrawlBehavior": "CRAWL_EVERYTHING"})
