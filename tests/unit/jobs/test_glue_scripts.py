"""Scripts of Glue jobs: where they are uploaded, once, and what of a job is sent to update it."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import glue_scripts
from tests.unit.jobs.scripted_calls import ScriptedClient, refused

URI = "s3://bucket/prefix/load-0123456789abcdef.py"


class Aws(ScriptedClient):
    """S3, and Glue with one job."""

    def __init__(self, **job: Any) -> None:
        self.job = {"Name": "j", "Command": {"Name": "glueetl", "ScriptLocation": "s3://bucket/old.py"}, **job}
        self.objects: dict[str, bytes] = {}
        self.updates: list[dict[str, Any]] = []
        self.refusal = ""

    def put_object(self, Bucket: str, Key: str, Body: bytes, IfNoneMatch: str) -> Any:  # noqa: N803 -- AWS's names
        """Write an object, unless it exists."""
        assert IfNoneMatch == "*"
        if self.refusal or Key in self.objects:
            raise refused(self.refusal or "PreconditionFailed", "PutObject", status=409 if self.refusal else 412)
        self.objects[f"{Bucket}/{Key}"] = Body
        self.refusal = ""
        return {}

    def get_job(self, JobName: str) -> Any:  # noqa: N803
        """Return the job."""
        assert JobName == "j"
        return {"Job": self.job}

    def update_job(self, **request: Any) -> Any:
        """Update the job."""
        if self.refusal:
            raise refused(self.refusal, "UpdateJob")
        self.updates.append(request)
        return {"JobName": "j"}


def test_identical_content_has_one_address() -> None:
    """Another content has another one, so that runs which still use the old script are not affected."""
    address = glue_scripts.address("s3://bucket/prefix", "load.py", b"print(1)")
    assert address == glue_scripts.address("s3://bucket/prefix", "load.py", b"print(1)")
    assert address != glue_scripts.address("s3://bucket/prefix", "load.py", b"print(2)")
    assert address.startswith("s3://bucket/prefix/load-")
    assert address.endswith(".py")


def test_a_script_is_uploaded_once() -> None:
    """The second upload writes nothing, and is no error."""
    aws = Aws()
    assert glue_scripts.upload(aws, URI, b"x")
    aws.objects = {URI.removeprefix("s3://bucket/"): b"x"}
    assert not glue_scripts.upload(aws, URI, b"x")


def test_an_upload_beside_another_one_is_repeated() -> None:
    """It is not known whether the other one succeeds."""
    aws = Aws()
    aws.refusal = "ConditionalRequestConflict"
    with pytest.raises(CallError) as error:
        glue_scripts.upload(aws, URI, b"x")
    assert error.value.fault is Fault.TRANSIENT


def test_an_update_keeps_the_rest_of_the_job() -> None:
    """UpdateJob resets what its request leaves out."""
    aws = Aws(
        Role="role",
        CreatedOn=1.7e9,
        LastModifiedOn=1.7e9,
        MaxRetries=2,
        DefaultArguments={"--TempDir": "s3://bucket/tmp"},
        ExecutionProperty={"MaxConcurrentRuns": 3},
        AllocatedCapacity=10,
        MaxCapacity=10.0,
        WorkerType="G.1X",
        NumberOfWorkers=10,
        Connections={"Connections": ["c"]},
    )
    assert glue_scripts.update_job(aws, "j", URI)
    [request] = aws.updates
    kept = (
        "Role",
        "MaxRetries",
        "DefaultArguments",
        "ExecutionProperty",
        "WorkerType",
        "NumberOfWorkers",
        "Connections",
    )
    assert request == {
        "JobName": "j",
        "JobUpdate": {
            **{name: aws.job[name] for name in kept},
            "Command": {"Name": "glueetl", "ScriptLocation": URI},
        },
    }
    shape: Any = botocore.session.get_session().get_service_model("glue").operation_model("UpdateJob").input_shape
    assert not ParamValidator().validate(request, shape).has_errors()


def test_an_update_beside_another_one_is_repeated() -> None:
    """Instances of a mapped task may update the job at the same time; that is no reason to fail for good."""
    aws = Aws()
    aws.refusal = "ConcurrentModificationException"
    with pytest.raises(CallError) as error:
        glue_scripts.update_job(aws, "j", URI)
    assert error.value.fault is Fault.TRANSIENT


def test_a_job_that_uses_the_script_is_not_updated() -> None:
    """Every run would create a new version of the job."""
    aws = Aws(Command={"Name": "glueetl", "ScriptLocation": URI})
    assert not glue_scripts.update_job(aws, "j", URI)
    assert aws.updates == []


def test_every_member_of_a_job_is_sent_to_update_it_or_left_out_on_purpose() -> None:
    """A new member that UpdateJob does not take would break updates."""
    model: Any = botocore.session.get_session().get_service_model("glue")
    job, update = model.shape_for("Job").members, model.shape_for("JobUpdate").members
    assert set(job) - set(update) <= set(glue_scripts.NOT_UPDATED) <= set(job)
