"""The running stack for tests: its Airflow, its AWS, and the DAG runs of a test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, Final

from airflow_jobflow.local import Faults, LocalAwsClient
from tests.stack.airflow_api import Airflow
from tests.stack.errors import StackError, eventually
from tests.stack.ledger import Ledger, Started
from tests.stack.stack import Stack

RUN_PATIENCE: Final = 180.0
"""Maximum seconds of a DAG run, including faults."""
STATE_PATIENCE: Final = 60.0
STOPPED_WITHIN: Final = 10.0
"""Maximum seconds until the job of a killed deferred task is stopped."""
DESCRIBED: Final = 3
"""The number of describe calls after which each triggerer of the stack has made one."""
ENDED: Final = ("success", "failed")
CRAWLING: Final = ("stack_crawl", "stack_dying")
"""The DAGs whose runs need their own crawler."""


class Run:
    """A DAG run of a test."""

    def __init__(self, kit: Kit, dag_id: str, token: str) -> None:
        self._kit = kit
        self._airflow = kit.airflow
        self.dag_id = dag_id
        self.token = token
        """Its run id, which is also the token of all of its jobs."""

    def __str__(self) -> str:
        return f"{self.dag_id} {self.token}"

    def trigger(self, **conf: Any) -> None:
        """Trigger the run with its token in the conf."""
        self._airflow.trigger(self.dag_id, self.token, {**conf, "token": self.token})

    @property
    def state(self) -> str:
        """Return the state of the run."""
        return self._airflow.run_state(self.dag_id, self.token)

    @property
    def instances(self) -> list[dict[str, Any]]:
        """Return its task instances, as in the API."""
        return self._airflow.instances(self.dag_id, self.token)

    @property
    def states(self) -> dict[str, str | None]:
        """Return the states of its task instances; ``task[0]`` is one of a mapped task."""
        return {_name(each): each["state"] for each in self._airflow.instances(self.dag_id, self.token)}

    @property
    def tries(self) -> dict[str, int]:
        """Return how often each task instance was started."""
        return {_name(each): each["try_number"] for each in self._airflow.instances(self.dag_id, self.token)}

    @property
    def without_a_worker(self) -> set[str]:
        """Return its task instances that succeeded without a worker."""
        instances = self._airflow.instances(self.dag_id, self.token)
        return {_name(each) for each in instances if each["state"] == "success" and not each["hostname"]}

    def ends(self, patience: float = RUN_PATIENCE) -> str:
        """Wait until the run has ended, and return its state."""

        def ended() -> str | None:
            return state if (state := self.state) in ENDED else None

        try:
            return str(eventually(ended, f"the end of {self.dag_id} {self.token}", patience))
        except StackError as error:
            raise StackError(f"{error}: {self.states}, {self.tries} tries") from None

    def reaches(self, state: str, *names: str, patience: float = STATE_PATIENCE) -> None:
        """Wait until task instances, by default all, are in a state."""

        def there() -> bool:
            now = self.states
            return bool(now) and all(now.get(name) == state for name in names or now)

        try:
            eventually(there, f"{names or 'all'} {state}", patience)
        except StackError as error:
            raise StackError(f"{error}: {self.states}") from None

    def waits(self, *names: str) -> list[Started]:
        """Wait until task instances, by default ``job``, wait in a triggerer, and a job of each runs.

        A deferred task is not yet in a triggerer, which starts its trigger in its next iteration.
        """
        names = names or ("job",)
        self.reaches("deferred", *names)
        for name in names:
            task_id, _, index = name.rstrip("]").partition("[")
            self.logs(" starting", task_id, map_index=int(index or -1))

        def running() -> list[Started]:
            found = [each for each in self.started if each.status in ("RUNNING", "PENDING")]  # for an array, the parent
            return found if len(found) >= len(names) else []

        return eventually(running, f"{len(names)} jobs running", STATE_PATIENCE)

    def is_polled(self) -> None:
        """Wait until its job was described several times: the triggerer has then made its first request to Airflow."""
        before = self._kit.described
        eventually(lambda: self._kit.described > before + DESCRIBED, f"describe calls for {self}", STATE_PATIENCE)

    def logs(self, words: str, task_id: str = "job", map_index: int = -1, try_number: int = 1) -> None:
        """Wait until the log of a try contains a text."""
        what = f"{words!r} in the log of {task_id}"
        eventually(lambda: words in self.log(task_id, try_number, map_index), what, STATE_PATIENCE)

    def mark(self, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task instance, like a user."""
        self._airflow.set_state(self.dag_id, self.token, task_id, state, map_index)

    def mark_run(self, state: str) -> None:
        """Mark the run, like a user."""
        self._airflow.set_run_state(self.dag_id, self.token, state)

    def clear(self, *task_ids: str | tuple[str, int]) -> None:
        """Clear task instances, like a user."""
        self._airflow.clear(self.dag_id, self.token, task_ids)

    def returned(self, task_id: str = "job", map_index: int = -1) -> Any:
        """Return the result of a task."""
        return self._airflow.xcom(self.dag_id, self.token, task_id, map_index=map_index)

    def noted(self, task_id: str = "job") -> Any:
        """Return the note for the Jobs tab about a task's jobs, or about their end."""
        note = self._airflow.xcom(self.dag_id, self.token, task_id, "jobflow_jobs")
        return json.loads(note) if isinstance(note, str) else note

    def links(self, task_id: str = "job", map_index: int = -1) -> dict[str, str | None]:
        """Return the URLs of a task's buttons that lead to AWS."""
        found = self._airflow.links(self.dag_id, self.token, task_id, map_index)
        return {name: url for name, url in found.items() if name != "Jobs"}

    def log(self, task_id: str = "job", try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of a try."""
        return self._airflow.log(self.dag_id, self.token, task_id, try_number, map_index)

    @property
    def started(self) -> list[Started]:
        """Return the jobs that it has started in all tries."""
        return self._kit.ledger.started(self.token)

    def leaves_no_job_running(self, within: float = STOPPED_WITHIN) -> None:
        """Check that none of its jobs keeps running after its end."""
        what = f"the end of all that {self.token} started"
        eventually(lambda: not self._kit.ledger.running(self.token), what, within)

    def outcome_is_its_own(self, outcome: dict[str, Any], token: str, *, succeeds: bool) -> None:
        """Check that an outcome belongs to a job of this run that wrote its token."""
        assert outcome["job_id"] in {each.job_id for each in self.started}
        assert outcome["state"] == ("SUCCEEDED" if succeeds else "FAILED"), outcome
        assert token in self._kit.ledger.log(outcome).splitlines(), outcome


class Kit:
    """The running stack for a test."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.airflow = Airflow(stack.url)
        self.aws = LocalAwsClient(stack.aws_url)
        self.ledger = Ledger(self.aws)
        self._numbers = itertools.count(1)

    def prepare(self, dag_ids: Sequence[str]) -> None:
        """Prepare what the tests use."""
        self.ledger.provision()
        self.airflow.prepare(dag_ids)

    def new_run(self, dag_id: str) -> Run:
        """Prepare a run with a unique token that is not a prefix of another."""
        run = Run(self, dag_id, f"t{next(self._numbers):04}-")
        if dag_id in CRAWLING:
            self.ledger.provision_crawler(run.token)
        return run

    def run(self, dag_id: str, **conf: Any) -> Run:
        """Trigger a DAG run."""
        run = self.new_run(dag_id)
        run.trigger(**conf)
        return run

    @property
    def described(self) -> int:
        """Return the number of describe calls for Batch jobs."""
        return self.aws.calls["batch.DescribeJobs"]

    def faults(self, **which: Any) -> None:
        """Set the faults of the local AWS; by default none."""
        self.stack.unpause("aws")  # it was not reachable
        self.aws.set_faults(Faults(**which))

    def end_faults(self) -> None:
        """End all faults; services may recover later."""
        self.stack.revive()
        self.faults()

    def restore(self) -> None:
        """End all faults, repair the stack, and stop the jobs of the test."""
        self.end_faults()
        self.stack.repair()
        self.ledger.stop_all()
        self.no_job_runs()

    def no_job_runs(self) -> None:
        """Check that no process of a job runs."""
        eventually(lambda: not self.stack.jobs_running(), "the end of every job's process", STOPPED_WITHIN)


def _name(instance: dict[str, Any]) -> str:
    index = instance["map_index"]
    return str(instance["task_id"]) + ("" if index < 0 else f"[{index}]")
