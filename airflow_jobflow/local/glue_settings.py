"""How the local Glue differs from AWS where waiting is concerned."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_jobflow.local.batch_attempts import Settings


@dataclass(frozen=True)
class GlueSettings(Settings):
    """`Settings`, with what a crawl takes.

    :param crawl_seconds: the least time for which a crawl is RUNNING.
    :param crawl_stopping_seconds: how long a crawler is STOPPING after its crawl was done or stopped.
    :param start_takes_effect_after: seconds after StartCrawler for which everything still looks as before it.
    """

    crawl_seconds: float = 0.0
    crawl_stopping_seconds: float = 0.0
    start_takes_effect_after: float = 0.0
