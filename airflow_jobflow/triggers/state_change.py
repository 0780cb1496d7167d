"""Starts DAGs when jobs change state: a trigger for an ``AssetWatcher``, fed by EventBridge.

::

    ends = JobStateChangeTrigger(queue_url=URL, job_definition="print-color", array="parents", status="FAILED")
    asset = Asset("print_color_ends", watchers=[AssetWatcher(name="print_color_ends", trigger=ends)])

An EventBridge rule sends the state changes to an SQS queue; see ``infra/jobflow.yaml``. All watchers of a queue in a
triggerer share one stream of it (see ``events.asset_stream``), each with its own filter.

Invariants:

- A wanted state change is in one asset event, whose payload is ``{"jobs": [job, ...]}``. State changes that arrive
  close together share an asset event.
- A message is deleted only when Airflow has stored the asset event, or when no watcher wants it. If anything crashes
  before that, the message is redelivered.
- Reported state changes are remembered in the asset's state store, so that a redelivered one is not reported again,
  even by another triggerer. The exception: if a triggerer dies in the second or two after Airflow has stored an asset
  event and before that is remembered, it is reported twice, with the same ``key``.
- The queue is used by watchers only. With more than one triggerer, watchers of one queue may run in different ones, and
  each would get only some of the messages: then give each asset its own queue. A rule can have five targets.

Importing this module loads neither boto3 nor the Amazon provider, because every worker imports the DAG file.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
from collections.abc import AsyncIterator, Collection, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_jobflow.airflow_compat import shared_streams
from airflow_jobflow.airflow_compat.task_context import asset_state_store
from airflow_jobflow.aws import DEFAULT_CONN_ID, Access
from airflow_jobflow.events.eventbridge import parse_event
from airflow_jobflow.events.filters import Filter
from airflow_jobflow.events.state_change import job_payload
from airflow_jobflow.exceptions import InvalidParameter, invalid_parameter
from airflow_jobflow.params import non_empty_string
from airflow_jobflow.params_json import mapping
from airflow_jobflow.triggers.stored import Stored

if TYPE_CHECKING:
    from airflow_jobflow.airflow_compat.shared_streams import SharedStreamProducer
    from airflow_jobflow.events.asset_stream import Batch

log = logging.getLogger(__name__)

HISTORY_KEY = "airflow_jobflow_reported"
"""Key of the delivery history in the asset's state store."""

MAX_HISTORY = 3000
"""How many state changes are remembered, the latest ones. At 20 bytes each, they fill what the store takes by
default."""

FILTERS = ("service", "job_queue", "job_definition", "job_name", "status")
"""Parameters that take one string or several."""


class InvalidTriggerParameter(InvalidParameter, TypeError):
    """A parameter of the trigger is wrong. Raised when the DAG file is parsed, so it is shown as an import error.

    Also a TypeError: for any other error, a triggerer that creates the trigger would fail as a whole.
    """


class JobStateChangeTrigger(Stored, BaseEventTrigger):
    """Reports state changes of jobs to an ``AssetWatcher``, such as the end of every array of a job definition.

    Every filter takes a string or a list of strings; a name that ends in ``*`` matches all names with that prefix. A
    filter that is not given matches everything. The payload of an asset event is ``{"jobs": [job, ...]}``; for the
    shape of a job see :func:`airflow_jobflow.events.state_change.job_payload`.

    :param queue_url: URL of the SQS queue that an EventBridge rule fills. Only asset watchers may use it; with more
        than one triggerer, only those of one asset.
    :param aws_conn_id, region_name, verify, botocore_config: see :class:`airflow_jobflow.aws.Access`.
    :param service: ``batch``, ``ecs``, ``glue_run``, ``glue_crawl``. Default: all services that the other filters fit.
    :param job_queue: names or ARNs of Batch job queues, or of ECS clusters. Default: all.
    :param job_definition: names or ARNs of Batch job definitions, or of ECS task definitions; one without a revision
        matches all of its revisions. Default: all.
    :param job_name: names of Batch jobs, Glue jobs or Glue crawlers. Our operators append a token to the name of a
        Batch job, so use ``name-*``. Default: all.
    :param status: the service's own statuses, such as ``RUNNING``. ``SUCCEEDED`` and ``FAILED`` match every successful
        and every failed end; for ECS this depends on the exit codes of all containers. Default: all.
    :param array: ``parents``: Batch arrays as a whole; ``children``: their children; ``all``: these, and all other
        jobs. Default ``all``.
    :raises InvalidTriggerParameter: a parameter is wrong, or no event could ever match.
    """

    def __init__(
        self,
        *,
        queue_url: str,
        aws_conn_id: str | None = DEFAULT_CONN_ID,
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        service: str | Collection[str] | None = None,
        job_queue: str | Collection[str] | None = None,
        job_definition: str | Collection[str] | None = None,
        job_name: str | Collection[str] | None = None,
        status: str | Collection[str] | None = None,
        array: str = "all",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.queue_url = queue_url
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self.service = service
        self.job_queue = job_queue
        self.job_definition = job_definition
        self.job_name = job_name
        self.status = status
        self.array = array
        try:
            self._filter = self._validated_filter()
        except (ValueError, InvalidParameter) as error:
            raise InvalidTriggerParameter(str(error)) from None
        self._reported: dict[str, None] = {}
        """Digests of the state changes that this trigger has reported, and of those in the saved history."""
        self._stored: dict[str, None] = {}
        """The digests among them whose asset event Airflow has stored."""

    def _validated_filter(self) -> Filter:
        if not non_empty_string("queue_url", self.queue_url).startswith(("https://", "http://")):
            raise invalid_parameter("queue_url", self.queue_url, "must be the URL of an SQS queue")
        waits_queue = conf.get("jobflow", "event_queue_url", fallback=None)
        if waits_queue and waits_queue.rstrip("/") == self.queue_url.rstrip("/"):
            problem = (
                "this is the queue of [jobflow] event_queue_url, whose messages waits receive and delete. Asset "
                "watchers need their own queue: give the rule a second target"
            )
            raise invalid_parameter("queue_url", self.queue_url, problem)
        if self.botocore_config is not None:
            mapping("botocore_config", self.botocore_config)
        for name in FILTERS:
            setattr(self, name, _string_list(name, getattr(self, name)))
        return Filter(**{name: getattr(self, name) or () for name in FILTERS}, array=self.array)

    def shared_stream_key(self) -> Hashable:
        """Share one stream with all watchers of the queue."""
        return ("airflow_jobflow", self.queue_url, _access(self.serialize()[1]).key)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the reader of the queue. It deletes a message when Airflow has stored what watchers want of it.

        :param kwargs: the serialized arguments of one of the triggers that share the stream.
        """
        from airflow_jobflow.events.asset_stream import StateChangeStream

        return StateChangeStream(_access(kwargs), kwargs["queue_url"])

    def payload(self, events: Iterable[Any]) -> dict[str, Any]:
        """Return the payload of an asset event for the given events. Use it to test a DAG.

        :param events: events as EventBridge delivers them. Those that are not state changes of jobs, or do not match
            the filters, are skipped.
        """
        return {"jobs": self._wanted(filter(None, map(job_payload, filter(None, map(parse_event, events)))))}

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Batch]) -> AsyncIterator[TriggerEvent]:
        """Fire one event per batch, with the state changes that match the filters and were not reported before.

        :param shared_stream: the batches of state changes of the queue.
        """
        await self._load_history()
        async for batch in shared_stream:
            jobs = [job for job in self._wanted(batch.jobs) if _digest(job) not in self._reported]
            if jobs:
                digests = [_digest(job) for job in jobs]
                _remember(self._reported, digests)
                batch.when_stored.append(functools.partial(self.save_history, digests))
                yield TriggerEvent({"jobs": jobs})  # type: ignore[no-untyped-call]  # Airflow's is untyped

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Read the queue without a shared stream, on Airflow 3.2, which has none.

        :raises RuntimeError: Airflow has shared streams. Without one, this trigger would delete messages that other
            watchers want, or before Airflow has stored the asset event.
        """
        if shared_streams.AVAILABLE:
            raise RuntimeError("A JobStateChangeTrigger runs in a triggerer only, for the AssetWatcher of an asset")
        async for event in shared_streams.read_alone(self):
            yield event

    async def save_history(self, digests: Iterable[str]) -> None:
        """Remember, in the asset's state store, state changes whose asset event Airflow has stored.

        :param digests: digests of the state changes.
        """
        _remember(self._stored, digests)
        store = self._store()
        if store is not None:
            try:
                # In a thread: a custom state backend may block even in its async methods.
                await asyncio.to_thread(store.set, HISTORY_KEY, list(self._stored))
            except Exception:  # whatever a backend raises, it must not end the stream for all watchers
                log.exception("%s could not save its delivery history; duplicate asset events are possible", self)

    async def _load_history(self) -> None:
        """Load the delivery history from the asset's state store."""
        store = self._store()
        history: Any = None
        if store is not None:
            try:
                history = await asyncio.to_thread(store.get, HISTORY_KEY)
            except Exception:
                log.exception("%s could not load its delivery history; duplicate asset events are possible", self)
        if isinstance(history, list):
            _remember(self._stored, history)
            _remember(self._reported, history)

    def _store(self) -> Any:
        """Return the asset's state store. If several assets share the trigger, one is enough: all get every event."""
        return asset_state_store(self)

    def _wanted(self, jobs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the jobs that match the filters, without duplicates."""
        return list({job["key"]: job for job in jobs if self._filter.matches(job)}.values())


def _access(kwargs: Mapping[str, Any]) -> Access:
    return Access(*(kwargs[name] for name in ("aws_conn_id", "region_name", "verify", "botocore_config")))


def _string_list(parameter: str, value: Any) -> list[str] | None:
    """Validate a string or a list of strings. Sorted, because Airflow distinguishes triggers by their arguments."""
    if value is None:
        return None
    strings = [value] if isinstance(value, str) else value
    if isinstance(strings, Mapping) or not isinstance(strings, Collection) or not strings:
        raise invalid_parameter(parameter, value, "must be a string, or a list of at least one")
    return sorted({non_empty_string(parameter, each) for each in strings})


def _digest(job: Mapping[str, Any]) -> str:
    """Return a short digest of a state change, for the store."""
    return hashlib.blake2b(job["key"].encode(), digest_size=8).hexdigest()


def _remember(history: dict[str, None], digests: Iterable[str]) -> None:
    """Add digests to a history, and drop the oldest ones beyond ``MAX_HISTORY``."""
    history.update(dict.fromkeys(digests))
    for oldest in list(history)[: max(0, len(history) - MAX_HISTORY)]:
        del history[oldest]
