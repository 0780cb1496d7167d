"""The parameters of ``GlueJobRunOperator`` with which a run uses another script than its job."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow import params
from airflow_jobflow.exceptions import invalid_parameter

if TYPE_CHECKING:
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.waiting.remote import RemoteJobs

S3 = "s3://"

ARGUMENT: Final = "--scriptLocation"
"""The argument of a run that overrides the script of its job."""

OBJECT = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/\S*[^\s/]")

MAX_SIZE: Final = 16 * 2**20
"""The most bytes of a script. A larger file is most likely not one."""


def is_local(script: Any) -> bool:
    """Return whether a script is a file of the worker. A template that has not been rendered may be.

    :param script: the parameter ``script``.
    """
    return script is not None and not str(script).startswith(S3)


def prefix(parameter: str, value: Any) -> str:
    """Validate where scripts are uploaded: ``s3://bucket/prefix``.

    :param parameter: the name of the parameter, for messages.
    :param value: the value.
    :return: the value, without a slash at its end.
    :raises InvalidParameter: it is not such an address.
    """
    text = params.non_empty_string(parameter, value).rstrip("/")
    if not params.RESULT.fullmatch(text):
        raise invalid_parameter(parameter, value, "must be s3://bucket/prefix, without spaces")
    return text


@dataclass(frozen=True, slots=True)
class Script:
    """The script of a run.

    :param script: a path on the worker, or the script's address in S3.
    :param folder: what a relative path is relative to.
    :param upload_to: the address under which a local script is uploaded; None for one that is in S3.
    :param job: the job that is updated to use it; None to use it in this run only.
    """

    script: str
    folder: str
    upload_to: str | None
    job: str | None

    @classmethod
    def of(cls, values: Mapping[str, Any], folder: str) -> Script | None:
        """Return the script that the parameters name; None for the job's own.

        :param values: the validated parameters of the operator.
        :param folder: see the class.
        :raises InvalidParameter: it is not a script, or two parameters contradict each other.
        """
        script, upload_to = values.get("script"), values.get("script_prefix")
        if script is None:
            for name in ("script_prefix", "update_job"):
                if values.get(name):
                    raise invalid_parameter(name, values[name], "has no effect without script")
            return None
        if ARGUMENT in (values.get("script_args") or values.get("run_job_kwargs", {}).get("Arguments") or {}):
            raise invalid_parameter("script", script, f"{ARGUMENT} is an argument of the run, too; keep one of them")
        if "://" in script and not OBJECT.fullmatch(script):
            raise invalid_parameter("script", script, "must be a path, or an object in S3: s3://bucket/key")
        if is_local(script) and upload_to is None:
            rule = "is required for a local script, which is uploaded there, such as s3://bucket/prefix"
            raise invalid_parameter("script_prefix", None, rule)
        if upload_to and not is_local(script):
            rule = "has no effect, because the script is in S3 already; leave it out"
            raise invalid_parameter("script_prefix", upload_to, rule)
        return cls(script, folder, upload_to, values["job_name"] if values.get("update_job") else None)

    def resolve(self, jobs: RemoteJobs) -> str:
        """Upload the script and update the job, where necessary; return the script's address. Reads a local file.

        :param jobs: makes the API calls.
        :raises InvalidParameter: there is no such file, or it is not a script. Nothing was started.
        :raises SubmissionRejected: AWS rejects a call, for example for lack of such a bucket. Nothing was started.
        :raises SubmissionError: a call failed. Nothing was started.
        """
        from airflow_jobflow.jobs import glue_scripts

        uri = self.script
        if self.upload_to is not None:
            path = Path(self.folder, self.script)
            content = _read(self.script, path)
            uri = glue_scripts.address(self.upload_to, path.name, content)
            upload = partial(glue_scripts.upload, uri=uri, content=content)
            uploaded = _once(partial(jobs.call, client=glue_scripts.S3), upload, f"The script {uri}", jobs)
            jobs.log.info("The script %s %s %s", path, "was uploaded to" if uploaded else "is the same as", uri)
        if self.job is not None:
            update = partial(glue_scripts.update_job, job=self.job, uri=uri)
            if _once(jobs.call, update, f"The update of Glue job {self.job}", jobs):
                jobs.log.info("Glue job %s was updated: its script is now %s", self.job, uri)
        return uri


def _once(run: Callable[..., Any], function: Callable[[Call], bool], what: str, jobs: RemoteJobs) -> bool:
    """Call a function before the run is started, with the errors of a start; return what it returns."""
    from airflow_jobflow.faults import CallError
    from airflow_jobflow.operators import submission

    def call_function(call: Call) -> str:
        try:
            return str(function(call))
        except CallError as error:
            error.sent = False  # whatever happened to this request, no run was started
            raise

    done = submission.submit_once(run, call_function, None, what, repeatable=True, origin=lambda: jobs.origin)
    return done == str(True)


def _read(script: str, path: Path) -> bytes:
    """Return the content of a local script.

    :raises InvalidParameter: it cannot be read, or is not a script.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise invalid_parameter("script", script, f"{path} is not a file")
        if size > MAX_SIZE:
            raise invalid_parameter("script", script, f"{path} has {size:,} bytes; a script may have {MAX_SIZE:,}")
        content = path.read_bytes()
    except OSError as error:
        raise invalid_parameter("script", script, f"{path} cannot be read on this worker: {error.strerror}") from None
    if not content.strip():
        raise invalid_parameter("script", script, f"{path} is empty")
    return content
