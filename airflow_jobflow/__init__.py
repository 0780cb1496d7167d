"""Runs AWS Batch jobs, ECS tasks, Glue crawls and Glue jobs from Airflow, and waits for them at almost no cost."""

from __future__ import annotations

from airflow_jobflow.airflow_version import require_supported_airflow

__version__ = "0.1.0"

require_supported_airflow()
