"""What an operator starts: a single job, an array, or a map. The services differ in nothing else.

A spec is made of the operator's validated parameters. It builds the requests, and makes the calls that start jobs and
find them again. It knows neither Airflow's context nor how the task waits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_jobflow import params_json
from airflow_jobflow.jobs.changes import Changes

if TYPE_CHECKING:
    from airflow_jobflow.exceptions import JobflowError
    from airflow_jobflow.jobs.array import Tolerance
    from airflow_jobflow.jobs.attempt import Attempt
    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.model import Outcome, Snapshot
    from airflow_jobflow.jobs.reattach import Found
    from airflow_jobflow.operators.attempts import AttemptRecord
    from airflow_jobflow.operators.functions import FunctionCall
    from airflow_jobflow.outcomes import OutcomeBuilder
    from airflow_jobflow.params import ParameterTable
    from airflow_jobflow.waiting.remote import RemoteJobs


class Spec(ABC):
    """What single jobs and maps have in common: where they are started, and how they are found again.

    Making one validates the parameters, and makes no call.

    :raises InvalidParameter: one of them is wrong, or two contradict each other.
    """

    name = ""
    """The user's name for it in messages; empty if there is none."""

    scope: str | None = None
    """The cluster or Glue job that calls are confined to; None where the service has none."""

    container: str | None = None
    """The name of the container that counts; None if AWS's rules decide."""

    values: Mapping[str, Any]
    """The validated parameters of the API."""

    function: FunctionCall | None = None
    """The function that the jobs call; None if they run a command."""

    passes_context = True
    """Whether jobs get variables that name their task, unless ``pass_context`` says otherwise."""

    carries_owner = True
    """Whether the jobs carry their owner, so that the orphan reaper can find them."""

    changes = Changes()
    """What the next attempt of a job changes, by the cause of the failure."""

    def prepare(self, jobs: RemoteJobs) -> None:
        """Write to S3 what the jobs read there, if anything.

        :param jobs: makes the API calls.
        :raises SubmissionError: it cannot be written, so nothing may be started.
        """
        if self.function:
            self.function.store(jobs.access)

    @abstractmethod
    def find_group(self, call: Call, group: str, recorded: Attempt) -> list[Found]:
        """Return all jobs of this task instance that AWS knows, of all tries.

        :param call: makes the API calls.
        :param group: the group of the task instance's jobs.
        :param recorded: the record of the last try, such as the queue and the name it used.
        :raises CallError: they cannot be listed.
        """


class JobSpec(Spec):
    """A single job, or an array."""

    when_stuck = "Check the queue's compute environments: are they enabled, large enough, and able to run the job?"
    """What to do about a job that never left the queue."""

    is_array = False
    """Whether it is an array, also one of a single child."""

    changes_children = False
    """Whether a retry runs only some children of an array, and changes each by its own failure."""

    is_one_job = True
    """Whether its outcome is that of one job, so that the task may end in the triggerer."""

    @abstractmethod
    def submit(self, record: AttemptRecord, jobs: RemoteJobs) -> list[str]:
        """Start the job once, and return its id; of an array that is redriven, the ids of its parts.

        :param record: the attempt; it must be recorded before anything is started.
        :param jobs: makes the API calls.
        :raises CapacityUnavailable: nothing was started, because AWS has no capacity now.
        :raises SubmissionRejected: AWS rejects the request; nothing was started.
        :raises SubmissionError: it is not known whether it was started; the message says what follows.
        """

    def find_started(self, call: Call, record: AttemptRecord) -> str | None:  # noqa: ARG002
        """Return the job that an attempt has started, although AWS reported no capacity or the response was lost.

        :param call: makes the API calls.
        :param record: the attempt.
        :raises CallError: it cannot be looked up.
        """
        return None

    @property
    def listing(self) -> tuple[str, ...] | None:
        """Identifies what ``list_attempts`` lists, for specs that share a listing. None if a submit carries a token."""
        return None

    def list_attempts(self, call: Call, since: float) -> Mapping[str, str]:
        """Return the ids of jobs that tasks have started, by group and token: ``<group>-<token>``.

        :param call: makes the API calls.
        :param since: older jobs are left out, in seconds since the epoch.
        :raises CallError: they cannot be listed.
        """
        raise NotImplementedError

    def runs_again(self, event: Mapping[str, Any], attempt: Attempt) -> bool:  # noqa: ARG002
        """Return whether a job that has ended is started once more within this try of the task.

        :param event: the event of the trigger.
        :param attempt: the attempt that ended; its count of interruptions is updated.
        """
        return False

    def queue_position(self, jobs: RemoteJobs, seen: Mapping[str, Snapshot]) -> str:  # noqa: ARG002
        """Return a sentence with the position of the jobs in their queue; empty if it is not known.

        :param jobs: makes the API calls.
        :param seen: the last snapshots of the jobs, by id.
        """
        return ""

    def outcomes(
        self,
        builder: OutcomeBuilder,
        ended: Sequence[Snapshot],
        attempt: Attempt,  # noqa: ARG002
        tolerance: Tolerance,
    ) -> Sequence[tuple[Outcome, JobflowError | None]]:
        """Return the outcome of what was started, and its exception if it failed.

        :param builder: builds outcomes.
        :param ended: the last snapshots of the jobs.
        :param attempt: the attempt that started them.
        :param tolerance: how many children of an array may fail.
        """
        return builder.job_outcomes(ended, tolerance)


class MapSpec(Spec):
    """One job for each item."""

    table: ParameterTable
    """The parameters of the API, of which an item may set some."""

    def items(self, items: Any) -> list[dict[str, Any]]:
        """Validate the items, and return them with their values converted to their types.

        :param items: the parameter ``items``.
        :raises InvalidParameter: one of them is wrong; it is named by its index.
        """
        if self.function:
            items = self.function.items
        each_of = list(items) if isinstance(items, Sequence) and not isinstance(items, str) else items
        return self.table.validated_items(params_json.mappings("items", each_of, "with the parameters of one job"))

    @abstractmethod
    def requests(self, items: Sequence[Mapping[str, Any]], jobs: RemoteJobs) -> list[dict[str, Any]]:
        """Return the request of each item.

        :param items: what ``items`` returned.
        :param jobs: makes the API calls.
        :raises InvalidParameter: an item contradicts itself or the operator's parameters.
        """

    @abstractmethod
    def job_group(self, record: AttemptRecord) -> dict[str, Any]:
        """Return what identifies the jobs of an attempt's map in AWS.

        :param record: the attempt.
        """
