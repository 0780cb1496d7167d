"""How the local AWS differs from AWS where waiting is concerned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What takes how long; all are seconds, but for the first.

    :param time_scale: time-outs of attempts and job runs, `stuck_after` and `stopped_visible` take this many times as
        long as they say: with 0.02 an attempt of 60 s (the least Batch accepts) is ended after 1.2 s.
    :param stuck_after: after which a job that no compute environment takes shows a ``MISCONFIGURATION:`` reason.
    :param stop_grace: between SIGTERM and SIGKILL for what is stopped or timed out (AWS: 30).
    :param stopped_visible: for which a stopped ECS task can still be described.
    :param crawl_seconds: the least time for which a crawl is RUNNING.
    :param crawl_stopping_seconds: for which a crawler is STOPPING after its crawl was done or stopped.
    :param start_takes_effect_after: for which, after StartCrawler, everything still looks as before it.
    """

    time_scale: float = 1.0
    stuck_after: float = 180.0
    stop_grace: float = 30.0
    stopped_visible: float = 3600.0
    crawl_seconds: float = 0.0
    crawl_stopping_seconds: float = 0.0
    start_takes_effect_after: float = 0.0
