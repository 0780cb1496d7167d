"""Glue's calls for crawlers and their crawls, in one account and region. moto creates crawlers.

Invariants: a crawler has at most one crawl at a time. All changes happen under the lock. The State of a crawler is
READY, RUNNING or STOPPING; LastCrawl has the result of its last crawl.
"""

from __future__ import annotations

import statistics
import threading
from typing import TYPE_CHECKING, Any

from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.glue import model
from airflow_jobflow.local.glue import store as glue_store
from airflow_jobflow.local.glue.crawl import ADD, DELETE, TABLE, UPDATE
from airflow_jobflow.local.glue.crawling import Crawling, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from moto.glue.models import FakeCrawler

    from airflow_jobflow.local.glue.region import Region

Json = dict[str, Any]

DEFAULT_PAGE = 100
CRAWLS_PAGE = 20


class Crawlers:
    """The API of Glue for the crawlers of one account and region.

    :param region: what the parts of Glue share.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._store = region.store
        self._lock = threading.RLock()
        self._crawls: dict[str, list[Run]] = {}
        """The crawls by crawler, oldest first."""
        self.actions: dict[str, Callable[[Json, int], Json]] = {
            "StartCrawler": self._start_crawler,
            "StopCrawler": self._stop_crawler,
            "UpdateCrawler": self._update_crawler,
            "DeleteCrawler": self._delete_crawler,
            "GetCrawler": self._get_crawler,
            "GetCrawlers": self._get_crawlers,
            "BatchGetCrawlers": self._batch_get_crawlers,
            "GetCrawlerMetrics": self._get_crawler_metrics,
            "ListCrawls": self._list_crawls,
        }
        """Handlers by action."""

    def close(self) -> None:
        """Stop all crawls and wait for their end."""
        with self._lock:
            crawls = [crawl for crawls in self._crawls.values() for crawl in crawls]
        for crawl in crawls:
            crawl.abort()
        for crawl in crawls:
            crawl.thread.join()

    def interrupt(self, name: str, message: str = "Internal Service Exception") -> bool:
        """Make the crawl of a crawler fail with an internal error; return whether it was running.

        :param name: the name of the crawler.
        :param message: the error message. Default: ``Internal Service Exception``.
        """
        with self._lock:
            crawl = self._current(name)
            return crawl is not None and crawl.fail(message)

    def _start_crawler(self, request: Json, _length: int) -> Json:
        """StartCrawler: the response does not name the crawl."""
        name = model.required(request, "Name")
        with self._lock:
            described = glue_store.describe(self._crawler(name))
            if self._current(name) is not None:
                raise AwsError("CrawlerRunningException", f"Crawler with name {name} has already started")
            crawls = self._crawls.setdefault(name, [])
            crawl = Crawling(self._region, self._lock, described, len(crawls)).start()
            crawls.append(crawl)
            self._region.ledger.record("glue", {"crawler": name, "crawl_id": crawl.crawl_id})
        return {}

    def _stop_crawler(self, request: Json, _length: int) -> Json:
        """StopCrawler: the crawler is STOPPING until its crawl has ended."""
        name = model.required(request, "Name")
        with self._lock:
            self._crawler(name)
            crawl = self._current(name)
            if crawl is None:
                raise AwsError("CrawlerNotRunningException", f"Crawler with name {name} isn't running")
            if not crawl.stop():
                raise AwsError("CrawlerStoppingException", f"Crawler with name {name} is stopping")
        return {}

    def _update_crawler(self, request: Json, _length: int) -> Json:
        """UpdateCrawler, which moto does not have."""
        name = model.required(request, "Name")
        with self._lock:
            crawler = self._idle(name)
            self._store.update_crawler(crawler, {member: request[member] for member in request if member != "Name"})
        return {}

    def _delete_crawler(self, request: Json, _length: int) -> Json:
        """DeleteCrawler: deletes its crawls, too."""
        name = model.required(request, "Name")
        with self._lock:
            self._idle(name)
            self._store.delete_crawler(name)
            self._crawls.pop(name, None)
        return {}

    def _get_crawler(self, request: Json, _length: int) -> Json:
        """GetCrawler."""
        with self._lock:
            return {"Crawler": self._described(self._crawler(model.required(request, "Name")))}

    def _get_crawlers(self, request: Json, _length: int) -> Json:
        """GetCrawlers."""
        with self._lock:
            numbered = list(enumerate(self._store.crawlers()))
            crawlers, token = model.page(numbered, lambda item: item[0], request, model.MAX_PAGE, DEFAULT_PAGE)
            answer: Json = {"Crawlers": [self._described(crawler) for _, crawler in crawlers]}
        return answer if token is None else {**answer, "NextToken": token}

    def _batch_get_crawlers(self, request: Json, _length: int) -> Json:
        """BatchGetCrawlers."""
        names = request.get("CrawlerNames") or []
        if len(names) > model.MAX_CRAWLERS:
            raise model.rejected(
                f"1 validation error detected: Value at 'crawlerNames' failed to satisfy constraint: Member must have "
                f"length less than or equal to {model.MAX_CRAWLERS}"
            )
        with self._lock:
            found = {name: self._store.crawler(name) for name in names}
            return {
                "Crawlers": [self._described(crawler) for crawler in found.values() if crawler],
                "CrawlersNotFound": [name for name, crawler in found.items() if not crawler],
            }

    def _get_crawler_metrics(self, request: Json, _length: int) -> Json:
        """GetCrawlerMetrics."""
        names = request.get("CrawlerNameList")
        with self._lock:
            numbered = [
                (number, crawler.name)
                for number, crawler in enumerate(self._store.crawlers())
                if not names or crawler.name in names
            ]
            wanted, token = model.page(numbered, lambda item: item[0], request, model.MAX_PAGE, DEFAULT_PAGE)
            answer: Json = {"CrawlerMetricsList": [self._metrics(name) for _, name in wanted]}
        return answer if token is None else {**answer, "NextToken": token}

    def _list_crawls(self, request: Json, _length: int) -> Json:
        """ListCrawls: newest first."""
        name = model.required(request, "CrawlerName")
        if why := model.filters_error(request.get("Filters") or ()):
            raise model.rejected(why)
        with self._lock:
            if self._store.crawler(name) is None:
                raise glue_store.not_found(f"Crawler entry with name {name} does not exist")
            crawls = [
                crawl
                for crawl in reversed(self._visible(name))
                if model.matches(crawl.history(), request.get("Filters") or ())
            ]
            shown, token = model.page(crawls, lambda crawl: -crawl.number, request, model.MAX_PAGE, CRAWLS_PAGE)
            answer: Json = {"Crawls": [crawl.history() for crawl in shown]}
        return answer if token is None else {**answer, "NextToken": token}

    def _crawler(self, name: str) -> FakeCrawler:
        crawler = self._store.crawler(name)
        if crawler is None:
            raise glue_store.not_found(f"Crawler with name {name} does not exist")
        return crawler

    def _idle(self, name: str) -> FakeCrawler:
        """Return a crawler that is not running.

        :raises AwsError: it is running, or does not exist.
        """
        crawler = self._crawler(name)
        if self._current(name) is not None:
            raise AwsError("CrawlerRunningException", f"Crawler with name {name} is running")
        return crawler

    def _current(self, name: str) -> Run | None:
        crawls = self._crawls.get(name)
        return crawls[-1] if crawls and not crawls[-1].ended else None

    def _visible(self, name: str) -> list[Run]:
        faults, not_yet = self._region.faults, self._region.settings.start_takes_effect_after
        crawls = self._crawls.get(name, ())
        return [crawl for crawl in crawls if crawl.age() >= not_yet and not faults.hides(crawl.age(), name)]

    def _described(self, crawler: FakeCrawler) -> Json:
        """Return a crawler as in GetCrawler."""
        shown: Json = {**glue_store.describe(crawler), "State": model.READY, "CrawlElapsedTime": 0}
        crawls = self._visible(crawler.name)
        if crawls and not crawls[-1].ended:
            shown |= crawls[-1].progress()
        ended = [crawl for crawl in crawls if crawl.ended]
        if ended:
            shown["LastCrawl"] = ended[-1].last_crawl()
        return shown

    def _metrics(self, name: str) -> Mapping[str, Any]:
        crawls = [crawl for crawl in self._visible(name) if crawl.ended]
        seconds = [crawl.seconds() for crawl in crawls] or [0.0]
        running = self._current(name) is not None
        left = max(0.0, statistics.median(seconds) - self._crawls[name][-1].seconds()) if running else 0.0
        last = crawls[-1].changes if crawls else None
        return {
            "CrawlerName": name,
            "TimeLeftSeconds": left,
            "StillEstimating": running and not crawls,
            "LastRuntimeSeconds": seconds[-1],
            "MedianRuntimeSeconds": statistics.median(seconds),
            "TablesCreated": last.count(TABLE, ADD) if last else 0,
            "TablesUpdated": last.count(TABLE, UPDATE) if last else 0,
            "TablesDeleted": last.count(TABLE, DELETE) if last else 0,
        }
