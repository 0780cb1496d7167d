"""What a task notes of the jobs it starts, and what it does with what an earlier try has noted.

What always holds: an attempt is noted before anything of it is started, and what was started before it is waited for;
what a later try does with it, ``jobs.reattach`` decides.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_jobflow.exceptions import SubmissionError
from airflow_jobflow.jobs.starting import LOOKUPS
from airflow_jobflow.waiting import JobWaiter

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_jobflow.jobs.calls import Call
    from airflow_jobflow.jobs.model import Snapshot
    from airflow_jobflow.jobs.reattach import Notes

RECORD = "jobflow"
"""Key in the task state store under which a task notes what it has started."""

STORE_NEEDED = "Without Airflow's task state store a job could be started twice, so nothing more is started"

YOUNG = 60.0
"""Seconds for which what an earlier try may have started is looked for more than once."""

ABANDONING = 5.0
"""Seconds in which a task that is killed notes that."""


class JobStarter(JobWaiter):
    """Base of everything that starts jobs: it knows what it has started, in this try of the task and in earlier ones.

    :param durable: see :class:`airflow_jobflow.operators.base.JobOperator`.
    """

    def __init__(self, *, durable: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.durable = durable
        self.begins = False
        """Whether this try has not yet begun an attempt."""
        self.repeats = False
        """Whether the attempt that was noted is to be made once more, for it has left no trace."""
        self._noted: dict[str, Any] | None = None
        """What is in the task state store, once it has been read."""
        self._context: Context | None = None

    def begin(self, context: Context) -> None:
        """Begin a try of the task."""
        self.begins, self._noted, self._context = True, None, context

    # Noting.

    def record(self, context: Context, **what: Any) -> None:
        """Note in the task state store what this try of the task has started, beside what it has noted before.

        :raises SubmissionError: the store cannot be reached.
        """
        noted = {**self.recorded(context), **what}
        try:
            context["task_state_store"].set(RECORD, noted)
        except AirflowRuntimeError as error:
            if self.durable:
                raise SubmissionError(f"{STORE_NEEDED}: it could not be written ({error})") from error
            self.log.warning("The task state store could not be written: %s", error)
        self._noted = noted

    def record_if_possible(self, context: Context, **what: Any) -> None:
        """Note something that a later try can do without: what was started, it finds by its nonce as well."""
        try:
            self.record(context, **what)
        except SubmissionError as error:
            self.log.warning("%s could not be noted: %s", what, error)
            self._noted = {**(self._noted or {}), **what}

    def recorded(self, context: Context) -> dict[str, Any]:
        """Return what has been noted by this task instance, in this try or an earlier one.

        :raises SubmissionError: the store cannot be reached.
        """
        if self._noted is None:
            try:
                noted = context["task_state_store"].get(RECORD)
            except AirflowRuntimeError as error:
                if self.durable:
                    raise SubmissionError(f"{STORE_NEEDED}: it could not be read ({error})") from error
                self.log.warning("The task state store could not be read: %s", error)
                noted = {}
            self._noted = dict(noted) if isinstance(noted, Mapping) else {}
        return self._noted

    def new_attempt(self, context: Context, **more: Any) -> tuple[str, int]:
        """Note, before anything is submitted, that a new attempt begins; return its nonce and its number, from 1.

        A start that waited its turn, or that has left no trace, is still the same attempt. The deadline is that of the
        first attempt of a try.

        :param more: what else is noted, in the same moment; ``find`` is handed it.
        :raises SubmissionError: it cannot be noted, so nothing may be started.
        """
        noted = self.recorded(context)
        if noted.get("waits_since") and not self.begins:
            return noted["nonce"], noted["attempt"]
        nonce = noted["nonce"] if self.repeats else secrets.token_hex(4)
        begins = {"deadline": self.deadline_from_now(), "turns": 0, "waits_since": None} if self.begins else {}
        before = noted.get("attempt", 0)
        attempt = max(before, 1) if self.repeats else 1 if self.begins else before + 1
        self.begins = self.repeats = False
        self.record(
            context,
            nonce=nonce,
            attempt=attempt,
            max_tries=context["ti"].max_tries,
            place=self._place(),
            at=time.time(),
            job_ids=[],
            queued_at=None,
            joined=False,
            abandoned=False,
            **more,
            **begins,
        )
        return nonce, attempt

    def is_own(self, context: Context) -> bool:
        """Say whether the job was started by this task, which may then stop it, and not merely joined."""
        return not self.recorded(context).get("joined")

    # What an earlier try has left.

    def earlier_try(self, context: Context) -> dict[str, Any]:
        """Return what an earlier try of this task has noted; nothing in a first try, or after a person's clear.

        A clear grants as many tries as the task began with, counted from the try that is cleared: it shows in
        ``max_tries``.
        """
        noted = self.recorded(context)
        return noted if noted.get("max_tries") == context["ti"].max_tries and noted.get("nonce") else {}

    def left_by_an_earlier_try(self, context: Context) -> dict[str, Snapshot | None]:
        """Return the jobs that an earlier try has started and this one waits for, as seen now; see jobs.reattach.

        :raises SubmissionError: it cannot be found out.
        """
        from airflow_jobflow.faults import CallError
        from airflow_jobflow.jobs.reattach import Action, Notes, decide

        noted = self.recorded(context)
        notes = Notes.read(noted)
        if not self.durable or not notes.nonce:
            return {}
        place, now = self._place(), time.time()
        try:
            seen = self._look_for(noted, notes, now) if notes.place == place else {}
            decision = decide(
                notes,
                list(seen.values()),
                max_tries=context["ti"].max_tries,
                place=place,
                now=now,
                grace=conf.getfloat("jobflow", "missing_grace"),
            )
            self.log.info("Of an earlier try: %s (%s)", decision.why, decision.action.value)
            self.stop(decision.stop, f"Airflow: {decision.why}")
        except CallError as error:
            raise SubmissionError(
                f"What an earlier try has left could not be found, or stopped, so nothing was started: {error}"
            ) from error
        self.repeats = decision.action is Action.REPEAT
        if decision.action is not Action.KEEP:
            if decision.action is Action.START and len(seen) == 1 and not notes.job_ids:
                # It has failed: what of it is to run again, if only a part, is asked by its id.
                self.record(context, job_ids=list(seen))
            return {}
        self.begins = False
        queued_at = noted.get("queued_at") or notes.at
        self.record(context, job_ids=list(decision.keep), turns=0, waits_since=None, queued_at=queued_at)
        return {job_id: seen.get(job_id) for job_id in decision.keep}

    def _look_for(self, noted: Mapping[str, Any], notes: Notes, now: float) -> dict[str, Snapshot]:
        """Look at what an earlier try has started, by the ids it has noted, or by what its nonce makes."""
        from airflow_jobflow.jobs.model import JobState, Snapshot

        if notes.job_ids:
            return self.call(self.described, notes.job_ids)
        # What was just started may not show up yet.
        for pause in (0.0, *(LOOKUPS if now - notes.at < YOUNG else ())):
            time.sleep(pause)
            if job_ids := self.call(self.find, noted):
                # One that is listed was started, also if it cannot be described yet.
                unseen = {job_id: Snapshot(job_id, JobState.SUBMITTED, JobState.SUBMITTED) for job_id in job_ids}
                return unseen | self.call(self.described, job_ids)
        return {}

    def find(self, call: Call, noted: Mapping[str, Any]) -> Sequence[str]:
        """Return the ids of what an attempt has started, from what was noted before it was submitted.

        :param call: makes the API calls.
        :param noted: what ``record`` has noted.
        """
        raise NotImplementedError

    def found(self, call: Call, context: Context) -> str | None:
        """Return the id of what the attempt that is being made has started, if there is a trace of it."""
        return next(iter(self.find(call, self.recorded(context))), None)

    def _place(self) -> str:
        """Say where this task starts jobs: what is known elsewhere cannot be asked for here.

        How it is asked, such as with which time-outs, may change from try to try.
        """
        return " ".join(filter(None, (self.service, self.scope(), self.aws_conn_id, self.region_name)))

    def stop(self, job_ids: Sequence[str], reason: str) -> None:
        """Stop jobs; one that has ended already stays as it is.

        :raises CallError: some could not be stopped; the first error, after all were tried.
        """
        from airflow_jobflow.faults import CallError

        errors: list[Exception] = []
        for job_id in job_ids:
            self.log.info("Stopping %s %s: %s", self.service_module.NOUN, job_id, reason)
            try:
                self.call(self.service_module.stop, job_id, self.scope(), reason)
            except CallError as error:
                self.log.warning("%s %s could not be stopped: %s", self.service_module.NOUN, job_id, error)
                errors.append(error)
        if errors:
            raise errors[0]

    def abandon(self) -> None:
        """Mark what was started as wanted no more.

        In a thread, and not for long: this is a signal's handler, and what it has interrupted may hold the way to
        Airflow.
        """
        if self._context is not None:
            thread = threading.Thread(
                target=self.record, args=(self._context,), kwargs={"abandoned": True}, daemon=True
            )
            thread.start()
            thread.join(ABANDONING)
