"""Durations in which the local AWS differs from AWS, and the instances that it simulates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Durations in seconds, except the first one, and container instances.

    :param time_scale: a factor for timeouts of attempts and job runs, Glue's pause before a retry, `stuck_after` and
        `stopped_visible`: with 0.02, an attempt with a timeout of 60 s (the minimum of Batch) ends after 1.2 s. Default
        1.
    :param stuck_after: until a job without an enabled compute environment shows a ``MISCONFIGURATION:`` reason. Default
        180.
    :param stop_grace: between SIGTERM and SIGKILL for jobs that are stopped or time out. Default 30, as on AWS.
    :param stopped_visible: how long a stopped ECS task can be described. Default 3600.
    :param crawl_seconds: the minimum time for which a crawl is RUNNING. Default 0.
    :param crawl_stopping_seconds: how long a crawler is STOPPING after its crawl has ended. Default 0.
    :param start_takes_effect_after: how long the effect of StartCrawler is not visible. Default 0.
    :param instances: how many container instances an ECS cluster gets for each launch type and capacity provider that
        needs them, unless some were registered. Default 2.
    :param instance_cpu, instance_memory: CPU units and MiB of each of them. Default 4096 and 16384.
    """

    time_scale: float = 1.0
    stuck_after: float = 180.0
    stop_grace: float = 30.0
    stopped_visible: float = 3600.0
    crawl_seconds: float = 0.0
    crawl_stopping_seconds: float = 0.0
    start_takes_effect_after: float = 0.0
    instances: int = 2
    instance_cpu: int = 4096
    instance_memory: int = 16384
