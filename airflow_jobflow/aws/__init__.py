"""The single path to AWS: connections, clients, rate limits and retries.

Every call that this package makes goes through a ``ServiceClient``. ``faults`` says what an error means.
"""

from __future__ import annotations

from airflow_jobflow.aws.calls import ONCE, Call, RetriedCall, Retry, run, run_blocking, run_paid
from airflow_jobflow.aws.clients import Rate, ServiceClient, forget_clients, service_client
from airflow_jobflow.aws.connection import DEFAULT_CONN_ID, Access, AccessMisconfigured
from airflow_jobflow.aws.rate_limit import backoff, full_jitter

__all__ = [
    "DEFAULT_CONN_ID",
    "ONCE",
    "Access",
    "AccessMisconfigured",
    "Call",
    "Rate",
    "RetriedCall",
    "Retry",
    "ServiceClient",
    "backoff",
    "forget_clients",
    "full_jitter",
    "run",
    "run_blocking",
    "run_paid",
    "service_client",
]
