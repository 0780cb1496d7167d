"""Reads the results of jobs that have ended, once, from S3 or from their logs.

Invariants:

- A result never changes how its job ended. What is wrong with it becomes ``result_error``.
- A failed call is no failure of the job: ``is_unread`` distinguishes the two.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_jobflow.aws import Access, Retry, run_blocking, service_client
from airflow_jobflow.faults import CallError, Fault
from airflow_jobflow.jobs import glue_run, logs, results
from airflow_jobflow.jobs.results import Part, ResultError

if TYPE_CHECKING:
    from airflow_jobflow.jobs.model import Snapshot

log = logging.getLogger(__name__)

ARRIVAL = 3.0
"""Seconds after which a missing result is looked for once more: the last lines of a log arrive after the job's end."""

READ = Retry()
"""How long the calls of a worker are repeated: for a minute, or ten seconds without permission."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a job, or of the jobs of an array or a map.

    :param value: what the job returned; of an array or a map, the list by index, with None for what is missing. Default
        None.
    :param uri: where it is in S3; for many, or large ones, the manifest. Default None: not in S3.
    :param error: what is wrong; None if nothing is.
    :param is_unread: whether that is the fault of a call, and not of the job. Default False.
    """

    value: Any = None
    uri: str | None = None
    error: str | None = None
    is_unread: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the members that it adds to an outcome."""
        return {"result": self.value, "result_uri": self.uri, "result_error": self.error}


def of_job(
    access: Access,
    service: str,
    kind: str,
    snapshot: Snapshot,
    *,
    retry: Retry | None = None,
    arrival: float | None = None,
) -> Result:
    """Return the result of a job. Blocks.

    :param access: the AWS connection to use.
    :param service: our name of the service, such as ``batch``.
    :param kind: the parameter ``result``.
    :param snapshot: the last one of the job.
    :param retry: when failed calls are repeated. Default ``READ``.
    :param arrival: seconds after which a missing result is looked for again. Default ``ARRIVAL``.
    """
    retry, arrival = retry or READ, ARRIVAL if arrival is None else arrival
    if kind == results.LOG:
        if snapshot.log is None:
            return Result(error="it is not known where the job logs")
        # The snapshot of a Glue run names the log of its standard error.
        stream = glue_run.log_streams(snapshot)["output"] if service == "glue_run" else snapshot.log
        access = replace(access, region_name=stream.region or access.region_name)
        return _read(access, logs.CLIENT, partial(results.read_log, log=stream), retry=retry, arrival=arrival)
    if not snapshot.result_uri:
        return Result(error="the job was started without an address for its result")
    read = partial(results.read, uri=snapshot.result_uri, after=snapshot.previous_attempt_ended_at)
    return _read(access, results.CLIENT, read, retry=retry, arrival=arrival, uri=snapshot.result_uri)


def _read(
    access: Access, client: str, read: Callable[..., Any], *, retry: Retry, arrival: float, uri: str | None = None
) -> Result:
    try:
        return Result(run_blocking(service_client(access, client), read, retry=retry), uri)
    except ResultError as error:
        if error.is_missing and arrival:
            time.sleep(arrival)
            return _read(access, client, read, retry=retry, arrival=0, uri=uri)
        return Result(None, uri, str(error))
    except CallError as error:
        return _unread(error, uri)


def _unread(error: CallError, uri: str | None) -> Result:
    hint = ""
    if error.fault is Fault.DENIED and uri:
        hint = ". S3 also denies the read of an object that does not exist, unless s3:ListBucket is allowed"
    where = f"the result in {uri}" if uri else "the result"
    return Result(None, uri, f"{where} could not be read: {error}{hint}", is_unread=True)


def of_many(
    access: Access,
    parts: Sequence[Part],
    size: int,
    succeeded: Sequence[int],
    after: Mapping[int, str | None],
    *,
    most: int = results.MAX_LISTED,
    retry: Retry | None = None,
) -> Result:
    """Return the results of the children of an array, or of the items of a map. Blocks.

    :param access: the AWS connection to use.
    :param parts: where they wrote; of two with the same index, the later one counts.
    :param size: how many there are.
    :param succeeded: the indexes of those that should have written one.
    :param after: for some indexes, when AWS's previous attempt ended, in ISO 8601.
    :param most: for how many of them the results are returned; for more, there is a manifest.
    :param retry: when failed calls are repeated. Default ``READ``.
    """
    retry = retry or READ
    client, uri = service_client(access, results.CLIENT), parts[-1].uri
    try:
        found = run_blocking(client, results.stored, parts, after, retry=retry)
        if not found.keys() >= set(succeeded):
            time.sleep(ARRIVAL)
            found = run_blocking(client, results.stored, parts, after, retry=retry)
        # A failed child may have written something before it failed.
        found = {index: found[index] for index in succeeded if index in found}
        missing = [index for index in succeeded if index not in found]
        if not results.is_inline(found, size, most):
            manifest = run_blocking(client, results.write_manifest, uri, found, size, missing, retry=retry)
            return Result(None, manifest, results.result_error(missing, {}))
        reads = {index: client.start(_value, access, each.uri, retry) for index, each in found.items()}
        values: list[Any] = [None] * size
        malformed: dict[int, str] = {}
        for index, read in reads.items():
            try:
                values[index] = read.result()
            except ResultError as error:
                malformed[index] = str(error)
        return Result(values, uri, results.result_error(missing, malformed))
    except CallError as error:
        return _unread(error, uri)


def write(access: Access, uri: str, text: str) -> None:
    """Write an object that jobs read. Blocks. One PutObject call.

    :param access: the AWS connection to use.
    :param uri: its address.
    :param text: its content.
    :raises CallError: it could not be written.
    """
    run_blocking(service_client(access, results.CLIENT), results.write, uri, text, retry=READ)


def _value(access: Access, uri: str, retry: Retry) -> Any:
    return run_blocking(service_client(access, results.CLIENT), results.read, uri, retry=retry)
