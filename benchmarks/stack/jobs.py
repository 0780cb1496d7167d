"""What the DAGs, the stand-in and the benchmark share. Standard library only: workers import it with every DAG."""

from __future__ import annotations

INTERVAL = 10
"""Poll interval of both sides in seconds."""


def job_id(index: int) -> str:
    """Return the id of the job that the sensor of this index waits for."""
    return f"00000000-0000-4000-8000-{index:012x}"


def index_of(id_of_job: str) -> int:
    """Return the index in the id of such a job."""
    return int(id_of_job.rpartition("-")[2], 16)
