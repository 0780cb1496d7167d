"""A crawl from its start to its end, on a thread of its own, and how Glue's answers show it.

What always holds: a crawl ends once, in one of three states; the first to say that it ends early says how; its log
is complete, and its event under way, by the time it has `ended`.
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
"""What a crawl is charged for, for as long as it takes."""


@dataclass(slots=True, eq=False)
class Run:
    """One crawl. Changed under the lock of the crawlers only."""

    crawler: str
    number: int
    """Crawls of a crawler are numbered as they come."""
    crawl_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: float = field(default_factory=now)
    clock: float = field(default_factory=time.monotonic)
    state: str = model.RUNNING
    ended_at: float | None = None
    stopping: bool = False
    """Done or stopped, and on its way out."""
    ending: CrawlFailed | CrawlStopped | None = None
    """Why it is to end early."""
    error: str | None = None
    changes: Changes = field(default_factory=Changes)
    interrupted: threading.Event = field(default_factory=threading.Event)
    """Set when it is to end early."""
    aborted: threading.Event = field(default_factory=threading.Event)
    """Set when the server goes."""
    thread: threading.Thread = field(default_factory=threading.Thread)

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.ended_at is not None

    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.clock

    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (self.ended_at or now()) - self.started_at

    def stop(self) -> bool:
        """End it because someone wants so; False if it is ending already."""
        return self._end(CrawlStopped())

    def fail(self, why: str) -> bool:
        """End it with an error; False if it is ending already."""
        return self._end(CrawlFailed(why))

    def abort(self) -> None:
        """End it at once, for the server goes."""
        self.stop()
        self.aborted.set()

    def _end(self, ending: CrawlFailed | CrawlStopped) -> bool:
        if self.stopping or self.ended:
            return False
        self.ending, self.stopping = ending, True
        self.interrupted.set()
        return True

    def check(self) -> None:
        """Raise why it is to end, if it is."""
        if self.ending is not None:
            raise self.ending

    def progress(self) -> Json:
        """State and CrawlElapsedTime of its crawler while it runs."""
        return {
            "State": model.STOPPING if self.stopping else model.RUNNING,
            "CrawlElapsedTime": round(self.age() * 1000),
        }

    def last_crawl(self) -> Json:
        """It as LastCrawl of its crawler, once it has ended."""
        return {
            "Status": model.LAST_CRAWL[self.state],
            "StartTime": self.started_at,
            **self._logs(),
            **({"ErrorMessage": self.error} if self.error else {}),
        }

    def history(self) -> Json:
        """It as ListCrawls shows it."""
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
    """Makes one crawl happen."""

    def __init__(self, region: Region, lock: threading.RLock, crawler: Mapping[str, Any], number: int) -> None:
        self._resources = region.resources
        self._events = region.events
        self._settings = region.settings
        self._lock = lock
        self._run = Run(crawler["Name"], number)
        self._crawl = Crawl(region.store, crawler, self._run.crawl_id, self._run.check, self._say)
        self._run.changes = self._crawl.changes

    def start(self) -> Run:
        """Start the thread."""
        run = self._run
        run.thread = threading.Thread(target=self._work, name=f"crawl-{run.crawler}", daemon=True)
        run.thread.start()
        return run

    def _work(self) -> None:
        run, account = self._run, self._resources.account
        self._resources.open_log(events.CRAWLER_LOGS, run.crawler)
        self._say(f"BENCHMARK : Running Start Crawl for Crawler {run.crawler}")
        self._events.tell(events.CRAWLER, events.crawl_started(account, run.crawler, run.started_at))
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
            self._say(f"ERROR : {error}")
        run.aborted.wait(self._settings.crawl_stopping_seconds)
        self._say("BENCHMARK : Crawler has finished running and is in state READY")
        with self._lock:
            run.state, run.error, run.ended_at = state, error or None, now()
            self._tell_end()

    def _tell_end(self) -> None:
        run, account, region = self._run, self._resources.account, self._resources.region
        if run.state == model.COMPLETED and run.ended_at is not None:
            detail = events.crawl_succeeded(account, region, run.crawler, (run.started_at, run.ended_at), run.changes)
            self._events.tell(events.CRAWLER, detail)
        elif run.state == model.FAILED:
            detail = events.crawl_failed(account, region, run.crawler, run.error or "")
            self._events.tell(events.CRAWLER, detail)

    def _say(self, line: str) -> None:
        self._resources.write_log(events.CRAWLER_LOGS, self._run.crawler, [f"[{self._run.crawl_id}] {line}"])
