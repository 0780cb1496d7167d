"""The run that ``seed`` writes; in a module of its own, for ``seed`` loads Airflow's models."""

RUN = "manual__2026-11-22T03:00:00+00:00"
"""Has characters that a careless page would not encode."""
