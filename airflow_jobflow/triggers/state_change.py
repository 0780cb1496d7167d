"""DAGs started by jobs: a trigger for an ``AssetWatcher`` that tells of state changes, as EventBridge does.

::

    ends = JobStateChangeTrigger(queue_url=URL, job_definition="print-color", array="parents", status="FAILED")
    asset = Asset("print_color_ends", watchers=[AssetWatcher(name="print_color_ends", trigger=ends)])

An EventBridge rule puts the state changes into an SQS queue; see ``infra/jobflow.yaml``. All watchers of a queue in a
triggerer share one stream of it (see ``asset_stream``), each with a filter of its own.

What always holds:

- A state change that is wanted comes in one asset event, whose payload is ``{"jobs": [job, ...]}``: those that come
  close together share it.
- A message is deleted only when Airflow has stored the asset event, or no watcher wants it. Whatever dies before, it is
  delivered again.
- What was told is remembered in the asset's state store, so that an end that is delivered twice is told once, also
  by another triggerer. Only if a triggerer dies in the second or two between Airflow's storing an asset event and its
  being noted here, it is told twice; ``key`` is then the same.
- The queue belongs to the watchers alone. With more than one triggerer, watchers of one queue may live in different
  ones, and each would see a part of the messages: give each asset a queue of its own then. A rule has room for five.

Importing this loads neither boto3 nor the Amazon provider, for every worker imports the DAG file.
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
from airflow_jobflow.exceptions import InvalidParameter
from airflow_jobflow.params import invalid_parameter, mapping, non_empty_string
from airflow_jobflow.triggers.stored import Stored

if TYPE_CHECKING:
    from airflow_jobflow.airflow_compat.shared_streams import SharedStreamProducer
    from airflow_jobflow.events.asset_stream import Batch

log = logging.getLogger(__name__)

TOLD = "airflow_jobflow_told"
"""Under which key of the asset's state store there is what was told."""

REMEMBERED = 3000
"""State changes that are remembered, the latest: with 20 bytes for each, all that the store takes by default."""

FILTERS = ("service", "job_queue", "job_definition", "job_name", "status")
"""Parameters that take one word or several."""


class InvalidTriggerParameter(InvalidParameter, TypeError):
    """A parameter of the trigger is wrong. Shown where the DAG file is read, as an import error.

    A TypeError too: it is the only error by which a triggerer that makes a trigger gives up that trigger, not itself.
    """


class JobStateChangeTrigger(Stored, BaseEventTrigger):
    """Tells an ``AssetWatcher`` of state changes of jobs, such as the end of every array of a job definition.

    Every filter takes one word or a list of them; a name that ends in ``*`` matches all that begin so. What is not
    given is not asked for. The payload of an asset event is ``{"jobs": [job, ...]}``, each job as
    :func:`airflow_jobflow.events.state_change.job_payload` gives it.

    :param queue_url: of the SQS queue that an EventBridge rule fills; for asset watchers only, and with more than one
        triggerer for those of one asset only.
    :param aws_conn_id, region_name, verify, botocore_config: see :class:`airflow_jobflow.aws.Access`.
    :param service: ``batch``, ``ecs``, ``glue_run``, ``glue_crawl``. Default: all that the other filters fit.
    :param job_queue: names or ARNs of Batch job queues, or of ECS clusters.
    :param job_definition: names or ARNs of Batch job definitions, or of ECS task definitions; one without a revision
        matches all of its revisions.
    :param job_name: of Batch jobs, Glue jobs or Glue crawlers. Our operators append a token to a Batch job's: ask for
        ``name-*``.
    :param status: the service's own words, such as ``RUNNING``; ``SUCCEEDED`` and ``FAILED`` mean any good and any bad
        end, for ECS by the exit codes of all containers.
    :param array: ``parents``: Batch arrays as a whole; ``children``: their children; ``all``: these, and all others.
    :raises InvalidTriggerParameter: a parameter is wrong, or no event would ever match.
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
            self._filter = self._checked()
        except (ValueError, InvalidParameter) as error:
            raise InvalidTriggerParameter(str(error)) from None
        self._told: dict[str, None] = {}
        """What this trigger has told; of what an earlier one had, what the store remembered."""
        self._noted: dict[str, None] = {}
        """What of it Airflow has stored."""

    def _checked(self) -> Filter:
        if not non_empty_string("queue_url", self.queue_url).startswith(("https://", "http://")):
            raise invalid_parameter("queue_url", self.queue_url, "must be the URL of an SQS queue")
        waits = conf.get("jobflow", "event_queue_url", fallback=None)
        if waits and waits.rstrip("/") == self.queue_url.rstrip("/"):
            rule = (
                "this is the queue of [jobflow] event_queue_url, whose messages waits take and delete. Asset watchers "
            )
            raise invalid_parameter(
                "queue_url", self.queue_url, rule + "need one of their own: give the rule a second target"
            )
        if self.botocore_config is not None:
            mapping("botocore_config", self.botocore_config)
        for name in FILTERS:
            setattr(self, name, _words(name, getattr(self, name)))
        return Filter(**{name: getattr(self, name) or () for name in FILTERS}, array=self.array)

    def shared_stream_key(self) -> Hashable:
        """Share one stream with all watchers of the queue."""
        return ("airflow_jobflow", self.queue_url, _access(self.serialize()[1]).key)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Make what reads the queue; its messages are deleted when Airflow has what it needs of them."""
        from airflow_jobflow.events.asset_stream import StateChangeStream

        return StateChangeStream(_access(kwargs), kwargs["queue_url"])

    def payload(self, events: Iterable[Any]) -> dict[str, Any]:
        """Give the payload of an asset event for EventBridge's events: of those that are wanted. For tests of a DAG.

        :param events: as EventBridge delivers them; what is no state change of a job is passed over.
        """
        return {"jobs": self._wanted(filter(None, map(job_payload, filter(None, map(parse_event, events)))))}

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Batch]) -> AsyncIterator[TriggerEvent]:
        """Fire an event for what is wanted of each batch of state changes, and has not been told."""
        await self._recall()
        async for batch in shared_stream:
            jobs = [job for job in self._wanted(batch.jobs) if _digest(job) not in self._told]
            if jobs:
                digests = [_digest(job) for job in jobs]
                _remember(self._told, digests)
                batch.when_stored.append(functools.partial(self.note, digests))
                yield TriggerEvent({"jobs": jobs})  # type: ignore[no-untyped-call]  # Airflow's is untyped

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Read the queue alone, where Airflow has no shared streams (3.2).

        :raises RuntimeError: it has. Alone, this would delete messages that others want, or before Airflow has stored
            what they say.
        """
        if shared_streams.AVAILABLE:
            raise RuntimeError("A JobStateChangeTrigger runs in a triggerer only, for the AssetWatcher of an asset")
        async for event in shared_streams.read_alone(self):
            yield event

    async def note(self, digests: Iterable[str]) -> None:
        """Note that Airflow has stored what was told, in the asset's state store."""
        _remember(self._noted, digests)
        store = self._store()
        if store is not None:
            try:
                # In a thread: with a backend of the user's own for state, even its async way may block.
                await asyncio.to_thread(store.set, TOLD, list(self._noted))
            except Exception:  # whatever a backend raises: the stream must not end with it, for all of its watchers
                log.exception("%s could not save its delivery history; duplicate asset events are possible", self)

    async def _recall(self) -> None:
        """Take from the asset's state store what was told before."""
        store = self._store()
        told: Any = None
        if store is not None:
            try:
                told = await asyncio.to_thread(store.get, TOLD)
            except Exception:
                log.exception("%s could not load its delivery history; duplicate asset events are possible", self)
        if isinstance(told, list):
            _remember(self._noted, told)
            _remember(self._told, told)

    def _store(self) -> Any:
        """Return the state store of the asset; of one, where several share the trigger, for each gets every event."""
        return asset_state_store(self)

    def _wanted(self, jobs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those that match the filters, each once."""
        return list({job["key"]: job for job in jobs if self._filter.matches(job)}.values())


def _access(kwargs: Mapping[str, Any]) -> Access:
    return Access(*(kwargs[name] for name in ("aws_conn_id", "region_name", "verify", "botocore_config")))


def _words(parameter: str, value: Any) -> list[str] | None:
    """Check one word or several; nothing is none. In order, for Airflow tells triggers apart by their arguments."""
    if value is None:
        return None
    several = [value] if isinstance(value, str) else value
    if isinstance(several, Mapping) or not isinstance(several, Collection) or not several:
        raise invalid_parameter(parameter, value, "must be a word, or a list of at least one")
    return sorted({non_empty_string(parameter, each) for each in several})


def _digest(job: Mapping[str, Any]) -> str:
    """Name a state change shortly, for the store."""
    return hashlib.blake2b(job["key"].encode(), digest_size=8).hexdigest()


def _remember(memory: dict[str, None], digests: Iterable[str]) -> None:
    memory.update(dict.fromkeys(digests))
    for oldest in list(memory)[: max(0, len(memory) - REMEMBERED)]:
        del memory[oldest]
