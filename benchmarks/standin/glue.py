"""AWS Glue: crawlers that all crawl from the start of the clock, and runs of jobs with many earlier runs."""

from __future__ import annotations

import json
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import Any, ClassVar

from benchmarks.figures import Scenario
from benchmarks.standin.script import ACCOUNT, REGION, Answer, Script, Service, parts

MOST = 100
"""Maximum number of crawlers in a BatchGetCrawlers call."""

PAGE = 200
"""Maximum number of runs in a response of GetJobRuns, and the number of earlier runs of each job, which fill pages."""

DAY = 86_400.0


class GlueCrawls(Service):
    """One crawl of each of many crawlers; the awaited crawl is the first after that of the day before."""

    PHASES: ClassVar = ((0.0, "RUNNING"), (0.9, "STOPPING"))
    ENDS: ClassVar = ("READY", "READY")

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.calls = {"BatchGetCrawlers": self._describe, "GetCrawler": self._get}
        for number in range(scenario.waits):
            name = f"nightly-{number:05}"
            self.add(name, name, str(uuid.UUID(int=self.rng.getrandbits(128), version=4)))

    def start(self, now: float) -> dict[str, tuple[float, bool]]:
        """Start all crawls; a key also contains the time since which a crawl counts."""
        for job in self.jobs.values():
            before = datetime.fromtimestamp(now - DAY, tz=UTC)
            job.key = f"{job.name}@{before.isoformat()}#{_before(job)}"
        return super().start(now)

    def _describe(self, request: dict[str, Any], now: float) -> Answer:
        names = request["CrawlerNames"]
        if len(names) > MOST:
            return Answer.refusal("InvalidInputException", f"{len(names)} crawlers exceed the limit of {MOST}")
        known, unknown = parts(self.jobs, names)
        missing = json.dumps(unknown).encode()
        return Answer(
            b'{"Crawlers": ' + self.listed(known, now) + b', "CrawlersNotFound": ' + missing + b"}", len(names)
        )

    def _get(self, request: dict[str, Any], now: float) -> Answer:
        if request["Name"] not in self.jobs:
            return Answer.refusal(
                "EntityNotFoundException", f"Crawler entry with name {request['Name']} does not exist"
            )
        return Answer(b'{"Crawler": ' + self.rendered(self.jobs[request["Name"]], now) + b"}", 1)

    def detail(self, job: Script, status: str) -> dict[str, Any]:
        """Return a crawler as in GetCrawler, in about 1.2 KB."""
        last: dict[str, Any] = {
            "Status": "SUCCEEDED",
            "LogGroup": "/aws-glue/crawlers",
            "LogStream": job.name,
            "MessagePrefix": _before(job),
            "StartTime": round(job.began - DAY, 3),
        }
        if status == "READY":
            last |= {"MessagePrefix": job.scope, "StartTime": round(job.began, 3)}
            if job.fails:
                last |= {"Status": "FAILED", "ErrorMessage": "Insufficient Lake Formation permission(s) on nightly"}
        detail: dict[str, Any] = {
            "Name": job.name,
            "Role": "service-role/AWSGlueServiceRole-nightly",
            "Targets": {
                "S3Targets": [{"Path": f"s3://a-bucket/nightly/{job.name}/", "Exclusions": ["**/_temporary/**"]}],
                "JdbcTargets": [],
                "MongoDBTargets": [],
                "DynamoDBTargets": [],
                "CatalogTargets": [],
                "DeltaTargets": [],
                "IcebergTargets": [],
                "HudiTargets": [],
            },
            "DatabaseName": "nightly",
            "Description": "What the nightly model has written, one table a part",
            "Classifiers": [],
            "RecrawlPolicy": {"RecrawlBehavior": "CRAWL_EVERYTHING"},
            "SchemaChangePolicy": {"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": "DEPRECATE_IN_DATABASE"},
            "LineageConfiguration": {"CrawlerLineageSettings": "DISABLE"},
            "State": status,
            "TablePrefix": "nightly_",
            "CrawlElapsedTime": 0 if status == "READY" else int(0.9 * job.seconds * 1000),
            "CreationTime": round(job.began - 90 * DAY, 3),
            "LastUpdated": round(job.began - 30 * DAY, 3),
            "LastCrawl": last,
            "Version": 3,
            "Configuration": '{"Version":1.0,"Grouping":{"TableGroupingPolicy":"CombineCompatibleSchemas"}}',
            "LakeFormationConfiguration": {"UseLakeFormationCredentials": False, "AccountId": ""},
        }
        return detail


def _before(job: Script) -> str:
    """Return the message prefix of the crawl of the day before."""
    return f"{job.scope[:-4]}0000"


class GlueRuns(Service):
    """Runs of a few jobs, evenly distributed, which all start with the clock."""

    PHASES: ClassVar = ((0.0, "STARTING"), (0.1, "RUNNING"))
    ENDS: ClassVar = ("SUCCEEDED", "FAILED")

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.calls = {"GetJobRuns": self._list, "GetJobRun": self._get}
        names = [f"nightly-load-{number:02}" for number in range(scenario.scopes)]
        self._runs: dict[str, deque[Script]] = {name: deque() for name in names}
        for name in names:
            for _ in range(PAGE):
                run_id = self._new_id()
                self._runs[name].appendleft(Script("", run_id, name, 60.0, fails=False))
        for number in range(scenario.waits):
            name, run_id = names[number % len(names)], self._new_id()
            self._runs[name].appendleft(self.add(f"{name}/{run_id}", run_id, name))

    def _new_id(self) -> str:
        return f"jr_{self.rng.getrandbits(256):064x}"

    def start(self, now: float) -> dict[str, tuple[float, bool]]:
        """Start all awaited runs; the others started a day earlier."""
        for run in (run for runs in self._runs.values() for run in runs if not run.key):
            run.began, run.status = now - DAY, ""
            self.rendered(run, now)
        return super().start(now)

    def _list(self, request: dict[str, Any], now: float) -> Answer:
        if request["JobName"] not in self._runs:
            return _no_job(request["JobName"])
        runs = self._runs[request["JobName"]]
        start = int(request.get("NextToken", 0))
        end = min(start + min(request.get("MaxResults", PAGE), PAGE), len(runs))
        more = f', "NextToken": "{end}"'.encode() if end < len(runs) else b""
        body = self.listed((runs[at] for at in range(start, end)), now)
        return Answer(b'{"JobRuns": ' + body + more + b"}", end - start)

    def _get(self, request: dict[str, Any], now: float) -> Answer:
        if request["JobName"] not in self._runs:
            return _no_job(request["JobName"])
        if request["RunId"] not in self.jobs:
            return Answer.refusal("EntityNotFoundException", f"Job Run {request['RunId']} not found")
        return Answer(b'{"JobRun": ' + self.rendered(self.jobs[request["RunId"]], now) + b"}", 1)

    def detail(self, job: Script, status: str) -> dict[str, Any]:
        """Return a run as in GetJobRun, in about 1.2 KB."""
        detail: dict[str, Any] = {
            "Id": job.name,
            "Attempt": 0,
            "JobName": job.scope,
            "JobMode": "SCRIPT",
            "JobRunQueuingEnabled": False,
            "StartedOn": round(job.began, 3),
            "LastModifiedOn": round(job.began + 0.1 * job.seconds, 3),
            "JobRunState": status,
            "Arguments": {
                "--part": job.name[3:11],
                "--input": "s3://a-bucket/input/",
                "--output": f"s3://a-bucket/output/{job.name}/",
                "--enable-metrics": "true",
                "--enable-continuous-cloudwatch-log": "true",
                "--TempDir": f"s3://aws-glue-assets-{ACCOUNT}-{REGION}/temporary/",
                "--jobflow-token": job.name[-8:],
            },
            "PredecessorRuns": [],
            "AllocatedCapacity": 10,
            "ExecutionTime": 0,
            "Timeout": 2880,
            "MaxCapacity": 10.0,
            "WorkerType": "G.1X",
            "NumberOfWorkers": 10,
            "LogGroupName": "/aws-glue/jobs",
            "GlueVersion": "5.0",
            "ExecutionClass": "STANDARD",
        }
        if status in self.ENDS:
            ended = {"CompletedOn": round(job.ends, 3), "LastModifiedOn": round(job.ends, 3)}
            detail |= {**ended, "ExecutionTime": int(0.9 * job.seconds), "DPUSeconds": round(9 * job.seconds, 1)}
        if status == "FAILED":
            detail["ErrorMessage"] = "KeyError: 'part-7'; failed to execute with exception"
        return detail


def _no_job(name: str) -> Answer:
    return Answer.refusal("EntityNotFoundException", f"Job {name} not found.")
