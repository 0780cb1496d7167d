"""How messages name jobs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

JOBS_SHOWN = 10
"""How many of several jobs a message names."""


FAILURES_IN_FULL = 3
"""How many failed jobs of several a message shows in full, with the last lines of their logs."""


def failures(texts: Sequence[str]) -> str:
    """Return the message of several jobs that failed: the first ones in full, the next in a line each, then how many.

    :param texts: the message of each, the most telling first.
    """
    brief = [text.partition("\n")[0] for text in texts[FAILURES_IN_FULL:JOBS_SHOWN]]
    if len(texts) > JOBS_SHOWN:
        brief.append(f"And {len(texts) - JOBS_SHOWN} more failed.")
    return "\n\n".join([*texts[:FAILURES_IN_FULL], *filter(None, ["\n".join(brief)])])


def sentence(text: str) -> str:
    """Return a text that ends with one full stop: AWS's own words have one, or none."""
    return f"{text.rstrip(' .')}."


def named(job_id: str, name: str = "") -> str:
    """Return what a message calls a job: its name and id, or the id alone if it has the name in it.

    :param name: empty if it is not known.
    """
    return f"{name} ({job_id})" if name and name not in job_id else job_id


def jobs_named(noun: str, jobs: Sequence[str], of: int = 1) -> str:
    """Return what a message calls one job or several: ``Batch job a``, ``2 of 3 Batch jobs: a; b``.

    :param noun: what such a job is called: ``Batch job``.
    :param jobs: as ``named`` returned them.
    :param of: how many there are in all. Default: these.
    """
    if len(jobs) == of == 1:
        return f"{noun} {jobs[0]}"
    more = f"; and {len(jobs) - JOBS_SHOWN} more" if len(jobs) > JOBS_SHOWN else ""
    count = f"{len(jobs)} of {of}" if of > 1 else f"{len(jobs)}"
    return f"{count} {noun}s: {'; '.join(jobs[:JOBS_SHOWN])}{more}"


KILL_REASON = "The Airflow task was killed"
"""The reason that AWS and the log get when a kill stops a job."""
