"""Faults of the local AWS: what AWS, the network and IAM do to callers now and then, switched on at will.

This module is the data, as Python and as JSON; `fault_box` applies it.

Invariants:

- ``Faults()`` is no fault, and every field's default is none.
- All faults of one ``Faults`` act together, and end together after `lasts`.
- What is set over HTTP is what was meant: ``from_json(to_json())`` is equal, and unknown names are rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeVar

from airflow_jobflow.local.ecs.model import CAPACITY_UNAVAILABLE
from airflow_jobflow.local.start_failures import start_reason

PROXY_PAGE: Final = "<html><head><title>Error</title></head><body><h1>Request blocked by proxy</h1></body></html>"
"""A page that a proxy answers in place of AWS, for `CannedResponse.body`."""
HTML: Final = "text/html"
CREDENTIALS_LIFETIME: Final = 6 * 3600.0
"""Seconds for which an instance role's keys are valid on EC2."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CannedResponse:
    """An answer that the local AWS gives in place of its own.

    Either `code` (an error in the service's own format) or `body` (any content, sent as it is) must be given.

    :param code: the error's code: ``InvalidParameterException``.
    :param message: the error's message.
    :param status: HTTP status.
    :param body: the content; ``""`` is an empty one.
    :param content_type: of `body`.
    :param actions: the calls that are answered, as `Faults.actions`; all if empty.
    :param resources: only calls that name one of these are answered, as `Faults.denied_resources`; all if empty.
    :param calls: only the next so many calls are answered; no limit if None.
    :param calls_per_second: only calls over this rate are answered; all if None.
    :param takes_effect: the call is served first, and this is answered in place of the result.
    :raises ValueError: neither or both of `code` and `body` are given.
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
            raise ValueError("A canned response has either a code (an AWS error) or a body (any content)")


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Attempts of Batch jobs and ECS tasks that fail to start, before any command runs.

    :param reason: why, by a name of `start_failures.KNOWN`, such as ``image_pull_rate_limit``, or in words of your own.
    :param starts: at most so many starts fail; no limit if None.
    :param rate: which share of starts fails, above 0 and up to 1, spread evenly: with 0.25 every fourth.
    :param jobs: only starts of these fail: names, ids or ARNs of jobs, tasks, queues, clusters and definitions, groups,
        ``startedBy``; ``*`` and ``?`` as in IAM policies. All if empty.
    :raises ValueError: there is no such reason, or no such share.
    """

    reason: str
    starts: int | None = None
    rate: float = 1.0
    jobs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        start_reason(self.reason)
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate is {self.rate}: a share is above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. ``Faults()`` is nothing; all that is given goes wrong together.

    Calls are named ``batch.DescribeJobs``, ``DescribeJobs`` or ``batch.*``. Requests for credentials
    (`LocalAws.environment`) are calls too: ``metadata.GetToken``, ``metadata.GetRoleName`` and
    ``metadata.GetCredentials``.

    :param actions: the calls that `calls_per_second`, `error_every`, `hang`, `drop_every` and `lose_answers`
        concern; all if empty.
    :param calls_per_second: calls over this rate are throttled.
    :param error_every: every n-th call is answered with a 500; 1 is every call.
    :param hang: seconds for which every call is held before it is served; released when the faults change or
        end, or the server stops.
    :param drop_every: the connection of every n-th call is closed without an answer.
    :param lose_answers: the next so many calls take effect, then their connections are closed without an
        answer.
    :param respond_with: answers given in place of AWS's; the first that applies to a call is used.
    :param visible_after: seconds for which a new Batch job, ECS task, Glue crawl or Glue job run cannot be found.
    :param missing: ids, names or ARNs of jobs, tasks and Glue job runs that cannot be found, and of crawlers whose
        crawls cannot; ``*`` and ``?`` as in IAM policies.
    :param expired_calls: the next so many calls are refused, whatever they are, because the credentials have
        expired.
    :param expired_access_key: access key id that has expired.
    :param credentials_lifetime: seconds after which keys expire that the metadata service issues from now on.
    :param denied: calls, written as for `actions`, that the caller is not allowed to make. ``batch.TagResource``,
        ``ecs.TagResource`` or ``glue.TagResource`` denies all calls that set tags.
    :param denied_resources: calls are denied only if their request names one of these: ids, names or ARNs of jobs,
        tasks, clusters, queues, …; ``*`` and ``?`` as in IAM policies. A call that names several is denied as a
        whole. All if empty.
    :param run_task_failures: the next so many RunTask calls start nothing and say so in ``failures``, with status 200.
    :param run_task_reason: what they say there.
    :param fail_starts: attempts of Batch jobs and ECS tasks that fail to start. The first that concerns a start and
        fails it gives the reason.
    :param interrupt_spot: the next so many tasks started on FARGATE_SPOT are interrupted as soon as they run.
    :param interrupt_spot_with: of them only those with this text in their family, group, ``startedBy`` or overrides.
    :param log_page: GetLogEvents returns at most so many events at once, however many are asked for, as CloudWatch does
        where it splits a stream by time.
    :param log_empty_pages: so many pages without events come before each with events. A reader must follow the token
        until it repeats.
    :param log_delay: seconds after which a line that was written can be read with GetLogEvents.
    :param outage: nothing can connect: the port is closed for `lasts` seconds, for the control API and the metadata
        service too. Calls in progress take effect and lose their answers.
    :param lasts: seconds after which all of these faults end; until others are set if None.
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
            raise ValueError(f"Faults that last {self.lasts} s are none: lasts must be above 0")
        if self.log_page is not None and self.log_page < 1:
            raise ValueError(f"log_page is {self.log_page}: a page of a log has at least one event")
        if self.outage and self.lasts is None:
            raise ValueError("An outage closes the control API too, so it must say how long it lasts")

    @property
    def concern_logs(self) -> bool:
        """Whether they change what GetLogEvents answers."""
        return self.log_page is not None or self.log_empty_pages > 0 or self.log_delay > 0

    def to_json(self) -> dict[str, Any]:
        """As ``POST /jobflow-local/faults`` takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Faults:
        """The faults of a JSON object.

        :raises ValueError: it names a fault that does not exist, or a value is invalid.
        """
        nested = {
            name: tuple(_from_json(kind, each) for each in values[name])
            for name, kind in (("respond_with", CannedResponse), ("fail_starts", StartFailure))
            if name in values
        }
        return _from_json(cls, {**values, **nested})


def _from_json(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """A dataclass from a JSON object, with its arrays as tuples."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ValueError(f"No such fault: {', '.join(unknown)}. There are: {', '.join(sorted(known))}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
