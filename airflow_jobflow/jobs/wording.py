"""How messages name jobs, and why they are stopped. Pure."""

from __future__ import annotations

from collections.abc import Sequence

KILL_REASON = "The Airflow task was killed"
"""The reason that AWS and the log get when a kill stops a job."""

JOBS_SHOWN = 10
"""The most jobs that a message names."""

FAILURES_IN_FULL = 3
"""The most failed jobs that a message shows in full, with the last lines of their logs."""


def failures(texts: Sequence[str]) -> str:
    """Return the message of several failed jobs: some in full, some in one line each, then the number of the rest.

    :param texts: the message of each, the most significant first.
    """
    brief = [text.partition("\n")[0] for text in texts[FAILURES_IN_FULL:JOBS_SHOWN]]
    if len(texts) > JOBS_SHOWN:
        brief.append(f"And {len(texts) - JOBS_SHOWN} more failed.")
    return "\n\n".join([*texts[:FAILURES_IN_FULL], *filter(None, ["\n".join(brief)])])


def sentence(text: str) -> str:
    """Return a text with one full stop at its end; AWS's own messages may lack it.

    :param text: the text.
    """
    return f"{text.rstrip(' .')}."


def named(job_id: str, name: str = "") -> str:
    """Return what a message calls a job: its name and id, or only the id if it contains the name.

    :param job_id: the job's id.
    :param name: the job's name. Default empty: not known.
    """
    return f"{name} ({job_id})" if name and name not in job_id else job_id


def jobs_named(noun: str, jobs: Sequence[str], of: int = 1) -> str:
    """Return what a message calls one or several jobs: ``Batch job a``, ``2 of 3 Batch jobs: a; b``.

    :param noun: what such a job is called: ``Batch job``.
    :param jobs: as ``named`` returned them.
    :param of: the number of all jobs, mentioned if it is above 1. Default 1.
    """
    if len(jobs) == of == 1:
        return f"{noun} {jobs[0]}"
    more = f"; and {len(jobs) - JOBS_SHOWN} more" if len(jobs) > JOBS_SHOWN else ""
    count = f"{len(jobs)} of {of}" if of > 1 else f"{len(jobs)}"
    return f"{count} {noun}s: {'; '.join(jobs[:JOBS_SHOWN])}{more}"
