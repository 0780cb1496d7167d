"""The name of the run that ``seed`` writes. A separate module, because ``seed`` imports Airflow's models."""

RUN = "manual__2026-11-22T03:00:00+00:00"
"""It contains characters that must be encoded in URLs."""
