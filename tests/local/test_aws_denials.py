"""Denials by the local AWS in boto3: for a resource, for tags, for some time."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_jobflow.local import Faults
from airflow_jobflow.local.call import means

ONCE = Config(retries={"total_max_attempts": 1})
JOB, OTHER = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"


def denied(call: Any, **parameters: Any) -> str:
    """Return the message with which a call is denied; empty if it is allowed."""
    try:
        call(**parameters)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDeniedException":
            raise
        return str(error.response["Error"]["Message"])
    return ""


def test_one_job_may_be_denied(own_kit: Any) -> None:
    """A call that names it among others is denied as a whole; other calls are handled."""
    own_kit.aws.set_faults(Faults(denied=("batch.*",), denied_resources=(JOB,)))
    message = denied(own_kit.batch.describe_jobs, jobs=[OTHER, JOB])
    assert f"is not authorized to perform: batch:DescribeJobs on resource: {JOB} because no identity-based" in message
    assert denied(own_kit.batch.describe_jobs, jobs=[OTHER]) == ""
    assert "batch:TerminateJob" in denied(own_kit.batch.terminate_job, jobId=JOB, reason="test")
    assert denied(own_kit.batch.terminate_job, jobId=OTHER, reason="test") == ""


def test_one_cluster_may_be_denied(own_ecs_kit: Any) -> None:
    """It is matched by its ARN, even if the request has the name; ECS responds with status 400."""
    aws, ecs = own_ecs_kit.aws, own_ecs_kit.ecs
    (cluster,) = ecs.describe_clusters(clusters=[own_ecs_kit.cluster])["clusters"]
    ecs.create_cluster(clusterName="other")
    aws.set_faults(Faults(denied=("DescribeTasks",), denied_resources=(cluster["clusterArn"],)))
    for name in (own_ecs_kit.cluster, cluster["clusterArn"]):
        with pytest.raises(ClientError, match=r"perform: ecs:DescribeTasks") as caught:
            ecs.describe_tasks(cluster=name, tasks=["0" * 32])
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert denied(ecs.describe_tasks, cluster="other", tasks=["0" * 32]) == ""


def test_one_glue_job_may_be_denied(own_aws: Any) -> None:
    """A job that is not denied is looked up, and does not exist."""
    own_aws.set_faults(Faults(denied=("glue.*",), denied_resources=("secret",)))
    glue = own_aws.client("glue", config=ONCE)
    assert "perform: glue:GetJobRuns on resource: secret" in denied(glue.get_job_runs, JobName="secret")
    with pytest.raises(ClientError, match="EntityNotFound"):
        glue.get_job_runs(JobName="open")


def test_one_log_stream_may_be_denied(own_aws: Any) -> None:
    """Calls that moto handles are denied in the same way."""
    logs = own_aws.client("logs", config=ONCE)
    for group in ("/aws/batch/job", "/open"):
        logs.create_log_group(logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName="a/b/c")
    own_aws.set_faults(Faults(denied=("logs.GetLogEvents",), denied_resources=("/aws/*",)))
    assert denied(logs.get_log_events, logGroupName="/aws/batch/job", logStreamName="a/b/c")
    assert denied(logs.get_log_events, logGroupName="/open", logStreamName="a/b/c") == ""


@pytest.mark.parametrize(
    ("resource", "name", "is_meant"),
    [
        ("job-1", "job-1", True),
        ("job-1", "job-11", False),
        ("job-1", "job-1:3", False),
        ("job-1*", "job-1:3", True),
        ("job-?", "job-1", True),
        ("arn:aws:batch:r:1:job/job-1", "job-1", True),
        ("job-1", "arn:aws:batch:r:1:job/job-1", True),
        ("arn:aws:ecs:r:1:cluster/a", "arn:aws:ecs:r:1:task/a/0", False),
        ("arn:aws:ecs:r:1:cluster/a", "arn:aws:ecs:r:1:service/a", False),
        ("arn:aws:ecs:r:1:task/a/*", "arn:aws:ecs:r:1:task/a/0", True),
        ("a.b", "axb", False),
    ],
)
def test_resource_matches_by_name_or_arn(resource: str, name: str, is_meant: bool) -> None:
    """The comparison is that of IAM, except that an id matches its ARN."""
    assert means(resource, name) is is_meant


def test_submits_with_tags_may_be_denied(own_kit: Any) -> None:
    """The error names the job definition; without tags, the same job is accepted."""
    own_kit.aws.set_faults(Faults(denied=("batch.TagResource",)))
    definition = own_kit.aws.client("batch").register_job_definition(
        jobDefinitionName="d",
        type="container",
        containerProperties={"image": "i", "command": ["true"], "resourceRequirements": REQUIREMENTS},
    )["jobDefinitionArn"]
    request = {"jobName": "job", "jobQueue": own_kit.queue, "jobDefinition": definition}
    message = denied(own_kit.batch.submit_job, **request, tags={"team": "a"})
    assert f"is not authorized to perform: batch:TagResource on resource: {definition} because" in message
    by_name = {**request, "jobDefinition": "d:1"}
    assert f"on resource: {definition} because" in denied(own_kit.batch.submit_job, **by_name, tags={"team": "a"})
    assert own_kit.aws.started("batch") == []
    assert denied(own_kit.batch.submit_job, **request) == ""
    assert denied(own_kit.batch.submit_job, **request, tags={}) == ""
    assert "batch:TagResource" in denied(own_kit.batch.tag_resource, resourceArn=definition, tags={"team": "a"})
    own_kit.aws.set_faults(Faults())
    assert denied(own_kit.batch.submit_job, **request, tags={"team": "a"}) == ""


REQUIREMENTS = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]


def test_tasks_with_tags_may_be_denied(own_ecs_kit: Any) -> None:
    """The error names any task of the cluster; without tags, the same task is accepted."""
    own_ecs_kit.aws.set_faults(Faults(denied=("ecs.TagResource",)))
    request = own_ecs_kit.request()
    message = denied(own_ecs_kit.ecs.run_task, **request, tags=[{"key": "team", "value": "a"}])
    resource = f"arn:aws:ecs:us-east-1:{own_ecs_kit.aws.account_id}:task/{own_ecs_kit.cluster}/*"
    assert f"is not authorized to perform: ecs:TagResource on resource: {resource} because" in message
    assert own_ecs_kit.aws.started("ecs") == []
    assert denied(own_ecs_kit.ecs.run_task, **request) == ""
    assert len(own_ecs_kit.aws.started("ecs")) == 1


def test_denial_may_last_for_a_time(own_kit: Any) -> None:
    """For example, a policy is being replaced. The denial ends by itself, and calls are counted meanwhile."""
    own_kit.aws.set_faults(Faults(denied=("batch.DescribeJobs",), lasts=600))
    assert denied(own_kit.batch.describe_jobs, jobs=[JOB])
    own_kit.aws.set_faults(Faults(denied=("batch.DescribeJobs",), lasts=0.2))
    own_kit.eventually(lambda: denied(own_kit.batch.describe_jobs, jobs=[JOB]) == "")
    assert own_kit.aws.calls["batch.DescribeJobs"] >= 2
