"""Faults of the local AWS: errors of AWS, of the network and of IAM that can be switched on.

This module defines the data, in Python and JSON; `fault_box` applies it.

Invariants:

- ``Faults()`` has no effect, and no field has an effect by default.
- All faults of a ``Faults`` are active together, and end together after `lasts`.
- ``from_json(to_json())`` returns an equal value, and unknown names are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeVar

from airflow_jobflow.local.ecs.model import CAPACITY_UNAVAILABLE
from airflow_jobflow.local.start_failures import start_reason

PROXY_PAGE: Final = "<html><head><title>Error</title></head><body><h1>Request blocked by proxy</h1></body></html>"
"""The response of a proxy instead of AWS, for `CannedResponse.body`."""
HTML: Final = "text/html"
CREDENTIALS_LIFETIME: Final = 6 * 3600.0
"""Seconds for which the keys of an instance role are valid on EC2."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CannedResponse:
    """A response that the local AWS sends instead of its own.

    Exactly one of `code` (an error in the format of the service) and `body` (any content) must be set.

    :param code: the error code, such as ``InvalidParameterException``.
    :param message: the error message. Default: empty.
    :param status: the HTTP status. Default 400.
    :param body: the content, which is sent unchanged; it may be empty.
    :param content_type: the content type of `body`. Default ``text/html``.
    :param actions: which calls get this response, like `Faults.actions`. Default: all.
    :param resources: only calls that name one of these, like `Faults.denied_resources`. Default: all.
    :param calls: only this number of calls. Default None: no limit.
    :param calls_per_second: only calls over this rate. Default None: all.
    :param takes_effect: whether the call is served first, and this replaces its result. Default False.
    :raises ValueError: neither or both of `code` and `body` are set.
    """

    code: str | None = None
    message: str = ""
    status: int = 400
    body: str | None = None
    content_type: str = HTML
    actions: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    calls: int | None = None
    calls_per_second: float | None = None
    takes_effect: bool = False

    def __post_init__(self) -> None:
        if (self.code is None) == (self.body is None):
            raise ValueError("Set either code (an AWS error) or body (any content) of a canned response")


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Attempts of Batch jobs and ECS tasks that fail to start, before any command runs.

    :param reason: a name in `start_failures.KNOWN`, such as ``image_pull_rate_limit``, or any other text.
    :param starts: the maximum number of starts that fail. Default None: no limit.
    :param rate: the share of starts that fail, above 0 and up to 1, evenly spread: 0.25 is every fourth. Default 1.
    :param jobs: only starts of these fail: names, ids or ARNs of jobs, tasks, queues, clusters and definitions, groups,
        ``startedBy``; ``*`` and ``?`` as in IAM policies. Default: all.
    :raises ValueError: the reason is unknown, or the rate is out of range.
    """

    reason: str
    starts: int | None = None
    rate: float = 1.0
    jobs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        start_reason(self.reason)
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate is {self.rate}, but must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of a local AWS. ``Faults()`` has none; all that are set are active together.

    Calls are named ``batch.DescribeJobs``, ``DescribeJobs`` or ``batch.*``. Requests for credentials
    (`LocalAws.environment`) are calls too: ``metadata.GetToken``, ``metadata.GetRoleName`` and
    ``metadata.GetCredentials``.

    :param actions: the calls that `calls_per_second`, `error_every`, `hang`, `drop_every` and `lose_answers` apply to.
        Default: all.
    :param calls_per_second: calls over this rate are throttled. Default: no limit.
    :param error_every: every n-th call gets an HTTP status 500; 1 is every call. Default: none.
    :param hang: seconds for which every call is delayed before it is served, at most until the faults change or end, or
        the server stops. Default: none.
    :param drop_every: the connection of every n-th call is closed without a response. Default: none.
    :param lose_answers: this number of calls take effect, but their connections are closed without a response.
        Default 0.
    :param respond_with: responses that replace those of AWS; the first that applies to a call is used. Default: none.
    :param visible_after: seconds for which a new Batch job, ECS task, Glue crawl or Glue job run cannot be found.
        Default 0.
    :param missing: ids, names or ARNs of jobs, tasks and Glue job runs that cannot be found, and of crawlers whose
        crawls cannot; ``*`` and ``?`` as in IAM policies. Default: none.
    :param expired_calls: this number of calls are rejected because the credentials have expired. Default 0.
    :param expired_access_key: id of an access key that has expired. Default: none.
    :param credentials_lifetime: seconds after which keys expire that the metadata service issues from now on. Default
        6 hours.
    :param denied: calls, in the notation of `actions`, that the caller is not allowed to make. ``batch.TagResource``,
        ``ecs.TagResource`` or ``glue.TagResource`` denies all calls that set tags. Default: none.
    :param denied_resources: calls are denied only if their request names one of these: ids, names or ARNs of jobs,
        tasks, clusters, queues, …; ``*`` and ``?`` as in IAM policies. A call that names several is denied as a
        whole. Default: all.
    :param run_task_failures: this number of RunTask calls start nothing and report it in ``failures``, with status 200.
        Default 0.
    :param run_task_reason: the reason in ``failures``. Default: that capacity is unavailable.
    :param fail_starts: attempts of Batch jobs and ECS tasks that fail to start. The first entry that applies determines
        the reason. Default: none.
    :param interrupt_spot: this number of tasks on Spot capacity are interrupted as soon as they run: on FARGATE_SPOT,
        and on capacity providers whose names contain ``spot``. Default 0.
    :param interrupt_spot_with: only tasks with this text in their family, group, ``startedBy`` or overrides. Default:
        all.
    :param log_page: maximum number of events that GetLogEvents returns, even if more are requested, as on CloudWatch
        where it splits a stream by time. Default: no limit.
    :param log_empty_pages: number of pages without events before each page with events. A reader must follow the token
        until it repeats. Default 0.
    :param log_delay: seconds until a written line can be read with GetLogEvents. Default 0.
    :param outage: close the port for `lasts` seconds, also for the control API and the metadata service. Calls in
        progress take effect and lose their responses. Default False.
    :param lasts: seconds after which all of these faults end. Default None: they last until others are set.
    :raises ValueError: `lasts` is not positive, or missing with `outage`; `log_page` is not positive.
    """

    actions: tuple[str, ...] = ()
    calls_per_second: float | None = None
    error_every: int | None = None
    hang: float | None = None
    drop_every: int | None = None
    lose_answers: int = 0
    respond_with: tuple[CannedResponse, ...] = ()
    visible_after: float = 0.0
    missing: tuple[str, ...] = ()
    expired_calls: int = 0
    expired_access_key: str | None = None
    credentials_lifetime: float = CREDENTIALS_LIFETIME
    denied: tuple[str, ...] = ()
    denied_resources: tuple[str, ...] = ()
    run_task_failures: int = 0
    run_task_reason: str = CAPACITY_UNAVAILABLE
    fail_starts: tuple[StartFailure, ...] = ()
    interrupt_spot: int = 0
    interrupt_spot_with: str = ""
    log_page: int | None = None
    log_empty_pages: int = 0
    log_delay: float = 0.0
    outage: bool = False
    lasts: float | None = None

    def __post_init__(self) -> None:
        if self.lasts is not None and not self.lasts > 0:
            raise ValueError(f"lasts is {self.lasts}, but must be above 0")
        if self.log_page is not None and self.log_page < 1:
            raise ValueError(f"log_page is {self.log_page}, but must be at least 1")
        if self.outage and self.lasts is None:
            raise ValueError("An outage closes the control API too, so it needs lasts, its duration in seconds")

    @property
    def concern_logs(self) -> bool:
        """Whether these faults change the responses of GetLogEvents."""
        return self.log_page is not None or self.log_empty_pages > 0 or self.log_delay > 0

    def to_json(self) -> dict[str, Any]:
        """Return the faults as JSON for ``POST /jobflow-local/faults``."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Faults:
        """Return the faults of a JSON object.

        :param values: fields by name.
        :raises ValueError: a fault does not exist, or a value is invalid.
        """
        nested = {
            name: tuple(_from_json(kind, each) for each in values[name])
            for name, kind in (("respond_with", CannedResponse), ("fail_starts", StartFailure))
            if name in values
        }
        return _from_json(cls, {**values, **nested})


def _from_json(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Return a dataclass from a JSON object, with its arrays as tuples."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ValueError(f"Unknown fault: {', '.join(unknown)}. Known faults: {', '.join(sorted(known))}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
