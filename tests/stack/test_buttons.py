"""The buttons of a task that lead to AWS's console, from the API that Airflow's UI uses."""

from __future__ import annotations

import urllib.request

from tests.stack.kit import Kit

NAMES = {"Batch job", "Job log", "Batch job queue", "Batch job definition"}


def test_buttons_lead_to_the_job_while_the_task_is_deferred(kit: Kit) -> None:
    """They also do so after the job has failed on a worker."""
    run = kit.run("stack_batch", seconds=15, code=3)
    [job] = run.waits()
    links = run.links()
    assert links.keys() == NAMES
    assert str(links["Batch job"]).endswith(job.job_id)
    assert str(links["Batch job queue"]).endswith("hello-world-queue")
    assert run.ends() == "failed"
    assert all(run.links().values())
    assert run.links().items() >= {name: url for name, url in links.items() if url}.items()
    with urllib.request.urlopen(str(links["Batch job"]), timeout=30) as page:  # a page of the local AWS
        assert job.job_id in page.read().decode()


def test_buttons_of_mapped_tasks_lead_to_their_own_jobs(kit: Kit) -> None:
    """Each instance has its own buttons."""
    run = kit.run("stack_batch_many")
    run.ends()
    for index in (0, 1):
        outcome = run.returned("each", index)
        links = run.links("each", index)
        assert str(links["Batch job"]).endswith(outcome["job_id"])
        assert all(links.values())
