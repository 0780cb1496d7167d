"""Scripts of Glue jobs: uploaded under a hash of their content, and used by single runs or by the job itself.

This module relies on the following behaviour of AWS: the argument ``--scriptLocation`` of a run overrides the script of
its job. UpdateJob replaces the whole job, so it gets all that GetJob returns. A PutObject with ``If-None-Match: *``
writes nothing if the object exists.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import Any

from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs.calls import Call
from airflow_jobflow.jobs.results import split

S3 = "s3"
"""Name of the boto3 client that uploads."""

NOT_UPDATED = ("Name", "CreatedOn", "LastModifiedOn", "ProfileName", "AutoUpgradeMetadata", "AllocatedCapacity")
"""What GetJob returns and UpdateJob does not take. A member that AWS adds is sent, so that no part of a job is lost."""

EXISTS = "PreconditionFailed"
BEING_WRITTEN = "ConditionalRequestConflict"
BEING_UPDATED = "ConcurrentModificationException"


def address(prefix: str, name: str, content: bytes) -> str:
    """Return where a script is uploaded: identical content of one name has one address.

    :param prefix: ``s3://bucket/prefix``.
    :param name: the name of the file.
    :param content: the script.
    """
    path, digest = PurePath(name), hashlib.sha256(content).hexdigest()[:16]
    return f"{prefix}/{path.stem}-{digest}{path.suffix}"


def upload(call: Call, uri: str, content: bytes) -> bool:
    """Upload a script, unless it is there; return whether it was uploaded. One PutObject call.

    :param call: makes the API calls of S3.
    :param uri: its address.
    :param content: the script.
    :raises CallError: it was not uploaded.
    """
    bucket, key = split(uri)
    try:
        call("put_object", Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
    except CallError as error:
        if error.code == EXISTS:
            return False
        if error.code == BEING_WRITTEN:  # by another task
            error.fault = Fault.TRANSIENT
        raise
    return True


def update_job(call: Call, job: str, uri: str) -> bool:
    """Let a job use a script, unless it does; return whether it was updated. One GetJob call, and one UpdateJob.

    :param call: makes the API calls of Glue.
    :param job: name of the job.
    :param uri: the address of the script.
    :raises CallError: it was not updated.
    """
    described = call("get_job", JobName=job)["Job"]
    if described["Command"].get("ScriptLocation") == uri:
        return False
    update: dict[str, Any] = {name: value for name, value in described.items() if name not in NOT_UPDATED}
    if "WorkerType" in update:
        update.pop("MaxCapacity", None)  # GetJob computes it; UpdateJob takes only one of the two
    update["Command"] = {**described["Command"], "ScriptLocation": uri}
    try:
        call("update_job", JobName=job, JobUpdate=update)
    except CallError as error:
        if error.code == BEING_UPDATED:  # by another task; the repetition reads what that one has changed
            error.fault = Fault.TRANSIENT
        raise
    return True
