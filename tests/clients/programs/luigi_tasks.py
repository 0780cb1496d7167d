"""Three tasks of luigi: a Batch job, a Fargate task, and a Batch job that fails."""

import luigi
from luigi.contrib.batch import BatchTask
from luigi.contrib.ecs import ECSTask


class HelloWorld(BatchTask):
    """The job of the sample DAG, in the first queue that luigi finds."""

    job_definition = "hello-world"
    poll_time = 1


class NoInk(BatchTask):
    """A job whose command fails; parameters are sent in luigi's way."""

    job_definition = "no-ink"
    job_queue = "print-color-queue"
    poll_time = 1
    parameters = {"unused": "value"}  # noqa: RUF012 -- as in luigi's documentation


class ProcessItem(ECSTask):
    """A task definition of the sample DAG on Fargate, with its own command."""

    task_def_arn = "process-item"
    cluster = "jobflow"
    command = [{"name": "process-item", "command": ["-c", "print('processed')"]}]  # noqa: RUF012
    run_task_kwargs = {  # noqa: RUF012
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    }


def report(task: luigi.Task, error: object = "done") -> None:
    """Print the result of a task."""
    separator = " " if error == "done" else ": "
    print(f"{type(task).__name__}{separator}{str(error).rpartition('failed: ')[2]}")  # noqa: T201


for kind in (HelloWorld, ProcessItem, NoInk):
    kind.event_handler(luigi.Event.SUCCESS)(report)
    kind.event_handler(luigi.Event.FAILURE)(report)
    luigi.build([kind()], local_scheduler=True, log_level="WARNING")
