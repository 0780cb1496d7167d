"""What a test acts on: the running stack, its Airflow, its AWS, and the DAG runs that the test triggers."""

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
"""Seconds in which a DAG run must have ended, faults included."""
STATE_PATIENCE: Final = 60.0
STOPPED_WITHIN: Final = 10.0
"""Seconds in which the job of a killed deferred task must have been stopped."""
DESCRIBED: Final = 3
"""The describe calls after which each triggerer of the stack has made one."""
ENDED: Final = ("success", "failed")
CRAWLING: Final = ("stack_crawl", "stack_dying")
"""The DAGs whose runs want a crawler of their own."""


class Run:
    """A DAG run that a test has triggered."""

    def __init__(self, kit: Kit, dag_id: str, token: str) -> None:
        self._kit = kit
        self._airflow = kit.airflow
        self.dag_id = dag_id
        self.token = token
        """Its run id, and what all its jobs carry."""

    def __str__(self) -> str:
        return f"{self.dag_id} {self.token}"

    def trigger(self, **conf: Any) -> None:
        """Have it begin, with its token in its conf."""
        self._airflow.trigger(self.dag_id, self.token, {**conf, "token": self.token})

    @property
    def state(self) -> str:
        """Of the run."""
        return self._airflow.run_state(self.dag_id, self.token)

    @property
    def instances(self) -> list[dict[str, Any]]:
        """Its task instances, as the API shows them."""
        return self._airflow.instances(self.dag_id, self.token)

    @property
    def states(self) -> dict[str, str | None]:
        """Of its task instances; ``task[0]`` is one of a mapped task."""
        return {_name(each): each["state"] for each in self._airflow.instances(self.dag_id, self.token)}

    @property
    def tries(self) -> dict[str, int]:
        """How often each task instance was started."""
        return {_name(each): each["try_number"] for each in self._airflow.instances(self.dag_id, self.token)}

    @property
    def without_a_worker(self) -> set[str]:
        """Its task instances that succeeded without any worker."""
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
        """Wait until task instances, all if none are named, are in a state."""

        def there() -> bool:
            now = self.states
            return bool(now) and all(now.get(name) == state for name in names or now)

        try:
            eventually(there, f"{names or 'all'} {state}", patience)
        except StackError as error:
            raise StackError(f"{error}: {self.states}") from None

    def waits(self, *names: str) -> list[Started]:
        """Wait until task instances, ``job`` if none are named, wait in a triggerer, and a job of each runs.

        One that is deferred is not yet in a triggerer: that takes it up in its next round.
        """
        names = names or ("job",)
        self.reaches("deferred", *names)
        for name in names:
            task_id, _, index = name.rstrip("]").partition("[")
            self.logs(" starting", task_id, map_index=int(index or -1))

        def running() -> list[Started]:
            found = [each for each in self.started if each.status in ("RUNNING", "PENDING")]  # of an array, the parent
            return found if len(found) >= len(names) else []

        return eventually(running, f"{len(names)} jobs running", STATE_PATIENCE)

    def is_followed(self) -> None:
        """Wait until its job was described a few times: the triggerer is past its first question to Airflow then."""
        before = self._kit.described
        eventually(lambda: self._kit.described > before + DESCRIBED, f"describe calls for {self}", STATE_PATIENCE)

    def logs(self, words: str, task_id: str = "job", map_index: int = -1, try_number: int = 1) -> None:
        """Wait until the log of a try says some words."""
        what = f"{words!r} in the log of {task_id}"
        eventually(lambda: words in self.log(task_id, try_number, map_index), what, STATE_PATIENCE)

    def mark(self, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task instance, as a person does."""
        self._airflow.set_state(self.dag_id, self.token, task_id, state, map_index)

    def mark_run(self, state: str) -> None:
        """Mark the run, as a person does."""
        self._airflow.set_run_state(self.dag_id, self.token, state)

    def clear(self, *task_ids: str | tuple[str, int]) -> None:
        """Clear task instances, as a person does."""
        self._airflow.clear(self.dag_id, self.token, task_ids)

    def returned(self, task_id: str = "job", map_index: int = -1) -> Any:
        """What a task returned."""
        return self._airflow.xcom(self.dag_id, self.token, task_id, map_index=map_index)

    def noted(self, task_id: str = "job") -> Any:
        """What the Jobs tab shows of a task's jobs while it waits, or how they were left."""
        note = self._airflow.xcom(self.dag_id, self.token, task_id, "jobflow_jobs")
        return json.loads(note) if isinstance(note, str) else note

    def links(self, task_id: str = "job", map_index: int = -1) -> dict[str, str | None]:
        """The URLs of a task's buttons that lead to AWS."""
        found = self._airflow.links(self.dag_id, self.token, task_id, map_index)
        return {name: url for name, url in found.items() if name != "Jobs"}

    def log(self, task_id: str = "job", try_number: int = 1, map_index: int = -1) -> str:
        """What the log of a try says."""
        return self._airflow.log(self.dag_id, self.token, task_id, try_number, map_index)

    @property
    def started(self) -> list[Started]:
        """The jobs it has started, in all tries."""
        return self._kit.ledger.started(self.token)

    def is_settled(self, within: float = STOPPED_WITHIN) -> None:
        """Hold that nothing it started is left running, now that it has ended."""
        what = f"the end of all that {self.token} started"
        eventually(lambda: not self._kit.ledger.running(self.token), what, within)

    def outcome_is_its_own(self, outcome: dict[str, Any], token: str, *, succeeds: bool) -> None:
        """Hold that an outcome is that of a job which this run has started, and which wrote its token."""
        assert outcome["job_id"] in {each.job_id for each in self.started}
        assert outcome["state"] == ("SUCCEEDED" if succeeds else "FAILED"), outcome
        assert token in self._kit.ledger.log(outcome).splitlines(), outcome


class Kit:
    """The running stack, for tests to act on."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.airflow = Airflow(stack.url)
        self.aws = LocalAwsClient(stack.aws_url)
        self.ledger = Ledger(self.aws)
        self._numbers = itertools.count(1)

    def prepare(self, dag_ids: Sequence[str]) -> None:
        """Make ready what the tests use."""
        self.ledger.provision()
        self.airflow.prepare(dag_ids)

    def new_run(self, dag_id: str) -> Run:
        """Make ready a run that has not begun, with a token with which nothing else begins."""
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
        """How many describe calls for Batch jobs have arrived."""
        return self.aws.calls["batch.DescribeJobs"]

    def faults(self, **which: Any) -> None:
        """Have the local AWS fail from now on; none to have it work."""
        self.stack.unpause("aws")  # it could not be told
        self.aws.set_faults(Faults(**which))

    def mend(self) -> None:
        """Make everything work again, sooner or later."""
        self.stack.revive()
        self.faults()

    def restore(self) -> None:
        """Make everything work again, whatever a test did to it, and end what it has left running."""
        self.mend()
        self.stack.repair()
        self.ledger.stop_all()
        self.is_quiet()

    def is_quiet(self) -> None:
        """Hold that no job's process runs at all."""
        eventually(lambda: not self.stack.jobs_running(), "the end of every job's process", STOPPED_WITHIN)


def _name(instance: dict[str, Any]) -> str:
    index = instance["map_index"]
    return str(instance["task_id"]) + ("" if index < 0 else f"[{index}]")
