"""Batch's calls for jobs: responses and rejections."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_jobflow.local.samples import ON_FARGATE, register_definition


def listed(kit: Any, **request: Any) -> list[str]:
    """Return the ids of one ListJobs response."""
    return [job["jobId"] for job in kit.batch.list_jobs(**request)["jobSummaryList"]]


def client_exception(kit: Any) -> Any:
    """Return the exception with which Batch rejects requests."""
    return kit.batch.exceptions.ClientException


def test_describe_omits_unknown_ids(kit: Any) -> None:
    """This includes ids of children that do not exist."""
    job_id = kit.submit()
    asked = [str(uuid.uuid4()), job_id, f"{job_id}:3"]
    assert [job["jobId"] for job in kit.batch.describe_jobs(jobs=asked)["jobs"]] == [job_id]


def test_describe_rejects_more_than_a_hundred_ids(kit: Any) -> None:
    """A hundred ids are accepted."""
    ids = [str(uuid.uuid4()) for _ in range(101)]
    assert kit.batch.describe_jobs(jobs=ids[:100])["jobs"] == []
    with pytest.raises(client_exception(kit), match="Maximum number of jobs supported is  100"):
        kit.batch.describe_jobs(jobs=ids)


def test_describe_rejects_an_empty_list(kit: Any) -> None:
    """It does not mean all jobs."""
    with pytest.raises(client_exception(kit)):
        kit.batch.describe_jobs(jobs=[])


@pytest.mark.parametrize("malformed", ["", "one two", "arn:aws:batch:us-east-1:1:job/x", "x:y", "ä"])
def test_one_malformed_id_fails_the_whole_call(kit: Any, malformed: str) -> None:
    """Valid ids in the same call fail, too."""
    with pytest.raises(client_exception(kit), match="is not supported pattern"):
        kit.batch.describe_jobs(jobs=[kit.submit(), malformed])


def test_describe_shows_the_submitted_job(kit: Any) -> None:
    """Members of the request are returned, and arrays have counts."""
    first = kit.submit()
    job = kit.look(
        kit.submit(
            tags={"a": "b"},
            propagateTags=True,
            shareIdentifier="mine",
            schedulingPriorityOverride=3,
            dependsOn=[{"jobId": first}],
            retryStrategy={"attempts": 2, "evaluateOnExit": [{"onExitCode": "1", "action": "RETRY"}]},
            timeout={"attemptDurationSeconds": 99},
            arrayProperties={"size": 2},
        )
    )
    assert job["tags"] == {"a": "b"}
    assert job["propagateTags"] is True
    assert job["shareIdentifier"] == "mine"
    assert job["schedulingPriority"] == 3
    assert job["dependsOn"] == [{"jobId": first}]
    assert job["retryStrategy"]["evaluateOnExit"] == [{"onExitCode": "1", "action": "RETRY"}]
    assert job["timeout"] == {"attemptDurationSeconds": 99}
    assert job["arrayProperties"]["size"] == 2
    assert kit.batch.list_tags_for_resource(resourceArn=job["jobArn"])["tags"] == {"a": "b"}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"jobName": "-x"}, "Job name should match valid pattern"),
        ({"jobName": "x" * 129}, "Job name should match valid pattern"),
        ({"jobName": "a b"}, "Job name should match valid pattern"),
        ({"jobQueue": "nowhere"}, "JobQueue nowhere not found"),
        ({"jobDefinition": "none"}, "JobDefinition name none does not exist or is not in ACTIVE status"),
        ({"jobDefinition": "arn:aws:batch:us-east-1:1:job-definition/none:1"}, "none:1 not found"),
        ({"jobQueue": "arn:aws:batch:us-east-1:999999999999:job-queue/x"}, "job-queue/x not found"),
        ({"arrayProperties": {"size": 1}}, "Array size"),
        ({"arrayProperties": {"size": 10_001}}, "Array size"),
        ({"retryStrategy": {"attempts": 0}}, "between 1 and 10"),
        ({"retryStrategy": {"attempts": 11}}, "between 1 and 10"),
        ({"retryStrategy": {"evaluateOnExit": []}}, "RetryAttempts must be provided with retry strategy"),
        ({"retryStrategy": {"attempts": 1, "evaluateOnExit": [{"action": "EXIT"}] * 6}}, "more than 5"),
        ({"timeout": {"attemptDurationSeconds": 59}}, "at least 60 seconds"),
        ({"dependsOn": [{"jobId": "x"}] * 21}, "more than 20 dependencies"),
        ({"dependsOn": [{"jobId": "x"}]}, "x does not exist"),
        ({"dependsOn": [{"type": "SEQUENTIAL"}]}, "jobId is required"),
        ({"tags": {f"tag-{number}": "x" for number in range(51)}}, "less than or equal to 50"),
        ({"containerOverrides": {"environment": [{"value": "x"}]}}, "environment.1.member.name"),
        ({"dependsOn": [{"type": "N_TO_N"}], "arrayProperties": {"size": 2}}, "jobId is required"),
        ({"parameters": {"x": "y" * 31_000}}, "Job size must be less than 30 KiB, got 30 KiB"),
        ({"nodeOverrides": {"numNodes": 2}}, "does not run multi-node jobs"),
        ({"eksPropertiesOverride": {}}, "jobs on EKS"),
        ({"ecsPropertiesOverride": {"taskProperties": [{}]}}, "which has containerProperties"),
    ],
)
def test_submit_rejects(kit: Any, request_: dict[str, Any], said: str) -> None:
    """No job is created, and the messages are those of AWS if they are known."""
    with pytest.raises(client_exception(kit), match=said):
        kit.submit(**request_)
    assert (
        kit.batch.list_jobs(jobQueue=kit.queue, filters=[{"name": "JOB_NAME", "values": ["*"]}])["jobSummaryList"] == []
    )


@pytest.mark.parametrize("name", ["x", "7", "A_b-c", "x" * 128])
def test_submit_accepts_every_valid_name(kit: Any, name: str) -> None:
    """A name may have one character."""
    assert kit.look(kit.submit(jobName=name))["jobName"] == name


def test_submit_accepts_arns_revisions_and_names(kit: Any) -> None:
    """A name without a revision means the newest active one."""
    first = kit.define(["echo", "1"])
    name = first.rsplit("/", 1)[1].split(":")[0]
    second = register_definition(kit.batch, name, ["echo", "2"])
    assert kit.look(kit.submit(jobDefinition=name))["jobDefinition"] == second
    assert kit.look(kit.submit(jobDefinition=f"{name}:1"))["jobDefinition"] == first
    kit.batch.deregister_job_definition(jobDefinition=second)
    assert kit.look(kit.submit(jobDefinition=name))["jobDefinition"] == first
    with pytest.raises(client_exception(kit)):
        kit.submit(jobDefinition=second)


def test_disabled_queue_rejects_jobs(kit: Any) -> None:
    """A queue with a disabled compute environment accepts jobs."""
    kit.batch.update_job_queue(jobQueue=kit.queue, state="DISABLED")
    with pytest.raises(client_exception(kit), match="not in ENABLED state"):
        kit.submit()


def test_list_needs_exactly_one_scope(kit: Any) -> None:
    """The scope is a queue, an array or a multi-node job."""
    for scope in ({}, {"jobQueue": kit.queue, "arrayJobId": "x"}):
        with pytest.raises(client_exception(kit), match="Exactly one"):
            kit.batch.list_jobs(**scope)


def test_list_shows_running_jobs_by_default(kit: Any) -> None:
    """The parameter jobStatus selects another status."""
    ended, running = kit.submit(), kit.sh("sleep 60")
    kit.wait(ended)
    kit.wait(running, "RUNNING")
    assert listed(kit, jobQueue=kit.queue) == [running]
    assert listed(kit, jobQueue=kit.queue, jobStatus="SUCCEEDED") == [ended]
    kit.batch.terminate_job(jobId=running, reason="test")


def test_list_by_name_ignores_status_and_case_and_is_newest_first(kit: Any) -> None:
    """Jobs can be found by name whether or not they have succeeded."""
    ids = [kit.submit(jobName=name) for name in ("Find-1", "other", "find-2")]
    kit.wait(ids[0])
    assert listed(kit, jobQueue=kit.queue, filters=[{"name": "JOB_NAME", "values": ["FIND-*"]}]) == [
        ids[2],
        ids[0],
    ]
    assert listed(
        kit, jobQueue=kit.queue, jobStatus="PENDING", filters=[{"name": "JOB_NAME", "values": ["find-1"]}]
    ) == [ids[0]]
    assert listed(kit, jobQueue=kit.queue, filters=[{"name": "JOB_NAME", "values": ["find"]}]) == []


def test_list_of_a_queue_has_parents_and_that_of_an_array_children(kit: Any) -> None:
    """The filter does not apply to children, but their status does."""
    job_id = kit.sh("test $AWS_BATCH_JOB_ARRAY_INDEX != 1", arrayProperties={"size": 3})
    kit.wait(job_id)
    every = [{"name": "JOB_NAME", "values": ["*"]}]
    assert listed(kit, jobQueue=kit.queue, filters=every) == [job_id]
    assert listed(kit, arrayJobId=job_id, jobStatus="FAILED") == [f"{job_id}:1"]
    assert listed(kit, arrayJobId=job_id, jobStatus="SUCCEEDED", filters=every) == [
        f"{job_id}:0",
        f"{job_id}:2",
    ]
    (failed,) = kit.batch.list_jobs(arrayJobId=job_id, jobStatus="FAILED")["jobSummaryList"]
    assert failed["container"]["exitCode"] == 1
    assert failed["arrayProperties"] == {"index": 1}


def test_list_has_pages(kit: Any) -> None:
    """Pages contain every job once, even if new jobs are submitted in between."""
    job_id = kit.submit(arrayProperties={"size": 250})
    kit.wait(job_id)
    pages = kit.batch.get_paginator("list_jobs").paginate(arrayJobId=job_id, jobStatus="SUCCEEDED")
    sizes = [len(page["jobSummaryList"]) for page in pages]
    assert sizes == [100, 100, 50]
    request = {"jobQueue": kit.queue, "filters": [{"name": "JOB_NAME", "values": ["page"]}], "maxResults": 2}
    ids = [kit.submit(jobName="page") for _ in range(3)]
    first = kit.batch.list_jobs(**request)
    kit.submit(jobName="page")
    second = kit.batch.list_jobs(**request, nextToken=first["nextToken"])
    seen = [job["jobId"] for page in (first, second) for job in page["jobSummaryList"]]
    assert seen == ids[::-1]
    assert "nextToken" not in second


@pytest.mark.parametrize(
    "request_", [{"nextToken": "%"}, {"maxResults": 101}, {"filters": [{"name": "NONE", "values": ["x"]}]}]
)
def test_list_rejects(kit: Any, request_: dict[str, Any]) -> None:
    """Unknown tokens, pages over 100 and unknown filters are rejected."""
    with pytest.raises(client_exception(kit)):
        kit.batch.list_jobs(jobQueue=kit.queue, **request_)


def test_jobs_without_a_compute_environment_stay_runnable(kit: Any, disabled_queue: str) -> None:
    """After a while, the status reason begins with MISCONFIGURATION."""
    job_id = kit.submit(jobQueue=disabled_queue)
    kit.eventually(lambda: kit.look(job_id).get("statusReason", "").startswith("MISCONFIGURATION:"))
    assert kit.look(job_id)["status"] == "RUNNABLE"


def test_stuck_jobs_run_once_the_compute_environment_is_enabled(kit: Any, disabled_queue: str) -> None:
    """MISCONFIGURATION is not final."""
    job_id = kit.submit(jobQueue=disabled_queue)
    kit.eventually(lambda: "statusReason" in kit.look(job_id))
    kit.batch.update_compute_environment(computeEnvironment=disabled_queue, state="ENABLED")
    assert kit.wait(job_id)["status"] == "SUCCEEDED"


def test_snapshot_lists_the_first_hundred_runnable_jobs(kit: Any, disabled_queue: str) -> None:
    """They are in the order in which they became runnable."""
    first = kit.submit(jobQueue=disabled_queue)
    kit.submit(jobQueue=disabled_queue, arrayProperties={"size": 120})
    front = kit.batch.get_job_queue_snapshot(jobQueue=disabled_queue)["frontOfQueue"]
    assert len(front["jobs"]) == 100
    assert front["jobs"][0]["jobArn"].endswith(first)
    assert kit.batch.get_job_queue_snapshot(jobQueue=kit.queue)["frontOfQueue"]["jobs"] == []


def test_the_ledger_has_every_job_that_was_submitted(kit: Any) -> None:
    """Tests that count started jobs depend on it."""
    job_ids = [kit.submit(), kit.submit(arrayProperties={"size": 2})]
    noted = {each["jobId"]: each["jobName"] for each in kit.aws.started("batch")}
    assert [noted[job_id] for job_id in job_ids] == [kit.look(job_id)["jobName"] for job_id in job_ids]


def test_regions_do_not_see_each_others_jobs(kit: Any) -> None:
    """A job exists only in its region."""
    elsewhere = kit.aws.client("batch", region_name="eu-central-1")
    assert elsewhere.describe_jobs(jobs=[kit.submit()])["jobs"] == []


def test_a_managed_environment_needs_no_service_role(kit: Any) -> None:
    """Batch uses its service-linked role, and the environment is enabled by default."""
    name = f"managed-{uuid.uuid4().hex}"
    ec2 = kit.aws.client("ec2")
    network = {
        "subnets": [ec2.describe_subnets()["Subnets"][0]["SubnetId"]],
        "securityGroupIds": [ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]],
    }
    resources = {"type": "FARGATE", "maxvCpus": 4, **network}
    kit.batch.create_compute_environment(computeEnvironmentName=name, type="MANAGED", computeResources=resources)
    (shown,) = kit.batch.describe_compute_environments(computeEnvironments=[name])["computeEnvironments"]
    assert shown["serviceRole"].endswith(":role/aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch")
    assert (shown["state"], shown["status"]) == ("ENABLED", "VALID")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"type": "MANAGED"}, "InvalidParameterValue"),
        ({"type": "UNMANAGED", "serviceRole": "arn:aws:iam::123456789012:role/none"}, "InvalidParameterValue"),
        ({"type": "MANAGED", "computeResources": {"type": "EC2", "maxvCpus": 1, "subnets": []}}, "ClientException"),
    ],
)
def test_an_environment_that_batch_rejects_is_not_created(kit: Any, request_: dict[str, Any], code: str) -> None:
    """The caller gets the errors of moto's checks."""
    name = f"rejected-{uuid.uuid4().hex}"
    with pytest.raises(ClientError) as raised:
        kit.aws.client("batch").create_compute_environment(computeEnvironmentName=name, **request_)
    assert raised.value.response["Error"]["Code"] == code
    assert not kit.batch.describe_compute_environments(computeEnvironments=[name])["computeEnvironments"]


def test_a_job_on_fargate_leaves_a_task_definition(kit: Any) -> None:
    """Batch registers one with the name of the job definition, which a cleanup must deregister."""
    definition = kit.define(["true"], platformCapabilities=["FARGATE"], containerProperties=ON_FARGATE)
    for _ in range(2):
        kit.wait(kit.submit(jobDefinition=definition))
    name = definition.rsplit("/")[-1].partition(":")[0]
    ecs = kit.aws.client("ecs")
    (arn,) = ecs.list_task_definitions(familyPrefix=name)["taskDefinitionArns"]
    assert arn.endswith(f":task-definition/{name}:1")
    assert ecs.deregister_task_definition(taskDefinition=f"{name}:1")["taskDefinition"]["memory"] == "512"
