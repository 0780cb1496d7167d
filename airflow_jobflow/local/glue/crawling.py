"""Run a crawl in its own thread, and represent it in Glue's responses.

Invariants: a crawl ends once, in one of three states. The first reason to end it early counts. When it has `ended`, its
log is complete and its event is queued.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.glue import events, model
from airflow_jobflow.local.glue.crawl import Changes, Crawl, CrawlFailed, CrawlStopped
from airflow_jobflow.local.glue.region import Region, now

if TYPE_CHECKING:
    from collections.abc import Mapping


Json = dict[str, Any]

DPUS: Final = 2
"""The DPUs that a crawl is charged for."""


@dataclass(slots=True, eq=False)
class Run:
    """One crawl. It is changed only under the lock of the crawlers."""

    crawler: str
    number: int
    """The crawls of a crawler are numbered from 0."""
    crawl_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: float = field(default_factory=now)
    clock: float = field(default_factory=time.monotonic)
    state: str = model.RUNNING
    ended_at: float | None = None
    stopping: bool = False
    """Whether its crawler is STOPPING."""
    ending: CrawlFailed | CrawlStopped | None = None
    """Why it must end early."""
    error: str | None = None
    changes: Changes = field(default_factory=Changes)
    interrupted: threading.Event = field(default_factory=threading.Event)
    """Set when it must end early."""
    aborted: threading.Event = field(default_factory=threading.Event)
    """Set when the server stops."""
    thread: threading.Thread = field(default_factory=threading.Thread)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.ended_at is not None

    def age(self) -> float:
        """Return the seconds since its start."""
        return time.monotonic() - self.clock

    def seconds(self) -> float:
        """Return its duration so far in seconds."""
        return (self.ended_at or now()) - self.started_at

    def stop(self) -> bool:
        """Stop it; return False if it is already ending."""
        return self._end(CrawlStopped())

    def fail(self, why: str) -> bool:
        """End it with an error; return False if it is already ending.

        :param why: the error message.
        """
        return self._end(CrawlFailed(why))

    def abort(self) -> None:
        """End it immediately, because the server stops."""
        self.stop()
        self.aborted.set()

    def _end(self, ending: CrawlFailed | CrawlStopped) -> bool:
        if self.stopping or self.ended:
            return False
        self.ending, self.stopping = ending, True
        self.interrupted.set()
        return True

    def check(self) -> None:
        """Raise the reason to end it, if there is one."""
        if self.ending is not None:
            raise self.ending

    def progress(self) -> Json:
        """Return ``State`` and ``CrawlElapsedTime`` of its crawler while it runs."""
        return {
            "State": model.STOPPING if self.stopping else model.RUNNING,
            "CrawlElapsedTime": round(self.age() * 1000),
        }

    def last_crawl(self) -> Json:
        """Return it as ``LastCrawl`` of its crawler, once it has ended."""
        return {
            "Status": model.LAST_CRAWL[self.state],
            "StartTime": self.started_at,
            **self._logs(),
            **({"ErrorMessage": self.error} if self.error else {}),
        }

    def history(self) -> Json:
        """Return it as in ListCrawls."""
        shown: Json = {
            "CrawlId": self.crawl_id,
            "State": self.state,
            "StartTime": self.started_at,
            "EndTime": self.ended_at,
            "Summary": self.changes.summary() if self.ended else None,
            "ErrorMessage": self.error,
            "DPUHour": round(DPUS * self.seconds() / 3600, 6) if self.ended else None,
            **self._logs(),
        }
        return {name: value for name, value in shown.items() if value is not None}

    def _logs(self) -> Mapping[str, str]:
        return {"LogGroup": events.CRAWLER_LOGS, "LogStream": self.crawler, "MessagePrefix": self.crawl_id}


class Crawling:
    """Runs one crawl.

    :param region: what the parts of Glue share.
    :param lock: the lock of the crawlers.
    :param crawler: the crawler as in GetCrawler.
    :param number: the number of the crawl.
    """

    def __init__(self, region: Region, lock: threading.RLock, crawler: Mapping[str, Any], number: int) -> None:
        self._resources = region.resources
        self._events = region.events
        self._settings = region.settings
        self._lock = lock
        self._run = Run(crawler["Name"], number)
        self._crawl = Crawl(region.store, crawler, self._run.crawl_id, self._run.check, self._log)
        self._run.changes = self._crawl.changes

    def start(self) -> Run:
        """Start the thread, and return the crawl."""
        run = self._run
        run.thread = threading.Thread(target=self._work, name=f"crawl-{run.crawler}", daemon=True)
        run.thread.start()
        return run

    def _work(self) -> None:
        run, account = self._run, self._resources.account
        self._resources.open_log(events.CRAWLER_LOGS, run.crawler)
        self._log(f"BENCHMARK : Running Start Crawl for Crawler {run.crawler}")
        self._events.publish(events.CRAWLER, events.crawl_started(account, run.crawler, run.started_at))
        state, error = model.FAILED, "Internal Service Exception"  # in case of a bug here
        try:
            run.interrupted.wait(self._settings.crawl_seconds)
            run.check()
            self._crawl.run()
            with self._lock:
                run.check()
                run.stopping = True
            state, error = model.COMPLETED, ""
        except CrawlStopped:
            state, error = model.STOPPED, ""
        except CrawlFailed as failed:
            error = str(failed)
        finally:
            self._end(state, error)

    def _end(self, state: str, error: str) -> None:
        run = self._run
        with self._lock:
            run.stopping = True
        if error:
            self._log(f"ERROR : {error}")
        run.aborted.wait(self._settings.crawl_stopping_seconds)
        self._log("BENCHMARK : Crawler has finished running and is in state READY")
        with self._lock:
            run.state, run.error, run.ended_at = state, error or None, now()
            self._publish_end()

    def _publish_end(self) -> None:
        run, account, region = self._run, self._resources.account, self._resources.region
        if run.state == model.COMPLETED and run.ended_at is not None:
            detail = events.crawl_succeeded(account, region, run.crawler, (run.started_at, run.ended_at), run.changes)
            self._events.publish(events.CRAWLER, detail)
        elif run.state == model.FAILED:
            detail = events.crawl_failed(account, region, run.crawler, run.error or "")
            self._events.publish(events.CRAWLER, detail)

    def _log(self, line: str) -> None:
        self._resources.write_log(events.CRAWLER_LOGS, self._run.crawler, [f"[{self._run.crawl_id}] {line}"])
