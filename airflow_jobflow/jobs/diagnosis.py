"""Why a job failed, whose fault that is, and what to do: worked out from what AWS said of it.

Pure: rules in a table, the first that fits decides. A rule looks at one field of a snapshot; the container's own
reason is looked at before the job's, for it says more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from airflow_jobflow.jobs.model import JobState, Snapshot


class Blame(StrEnum):
    """Whose fault a failure is."""

    COMMAND = "the command"
    CONFIGURATION = "the configuration"
    CAPACITY = "AWS capacity"
    PERSON = "a person or program that stopped it"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a job failed.

    :param cause: one of the names in the table below; stable, for programs.
    :param blame: whose fault it is.
    :param summary: what happened, as the start of a sentence.
    :param advice: what to do about it.
    """

    cause: str
    blame: Blame
    summary: str
    advice: str

    def __str__(self) -> str:
        return f"{self.summary}. {self.advice}"


OUT_OF_MEMORY = Diagnosis(
    "out_of_memory",
    Blame.CONFIGURATION,
    "The container ran out of memory and was killed",
    "Give the job more memory (MEMORY in resourceRequirements), or let the command use less.",
)
IMAGE_NOT_PULLED = Diagnosis(
    "image_not_pulled",
    Blame.CONFIGURATION,
    "The image could not be pulled",
    "Check the image's name and tag, the execution role's right to pull it, and the way to the registry.",
)
COMMAND_NOT_FOUND = Diagnosis(
    "command_not_found",
    Blame.CONFIGURATION,
    "The image has no such command, or may not run it",
    "Check the first word of the command against what the image holds.",
)
RESOURCES_NOT_READY = Diagnosis(
    "resources_not_ready",
    Blame.CONFIGURATION,
    "What the container needs could not be set up",
    "Check the subnets' way out, and the execution role's right to the secrets, logs and volumes named in the reason.",
)
NOT_STARTED = Diagnosis(
    "not_started",
    Blame.CONFIGURATION,
    "The container could not be started",
    "AWS's reason says what was in the way; the job definition is the place to mend it.",
)
SPOT_RECLAIMED = Diagnosis(
    "spot_reclaimed",
    Blame.CAPACITY,
    "The host under the job was taken away, as happens with Spot capacity",
    "Run it again: let Batch do so with a retry_strategy whose evaluateOnExit matches 'Host EC2*', or use On-Demand.",
)
ATTEMPT_TIMED_OUT = Diagnosis(
    "attempt_timed_out",
    Blame.COMMAND,
    "It ran longer than its attempt time-out and was ended",
    "Raise attempt_timeout (or the definition's own), or make the command faster; AWS does not retry this.",
)
DEPENDENCY_FAILED = Diagnosis(
    "dependency_failed",
    Blame.COMMAND,
    "A job it depends on failed, so it was never run",
    "Look at the jobs in depends_on.",
)
MISCONFIGURED = Diagnosis(
    "misconfigured",
    Blame.CONFIGURATION,
    "The queue's compute environments cannot run it",
    "AWS's reason names what is wrong: most often vCPUs or memory that no instance has, a role, or a subnet.",
)
STOPPED = Diagnosis(
    "stopped",
    Blame.PERSON,
    "It was stopped on request",
    "Nothing is wrong with the job itself; AWS's reason is what the one who stopped it wrote.",
)
CHILDREN_FAILED = Diagnosis(
    "children_failed",
    Blame.COMMAND,
    "Children of the array failed, more than are tolerated",
    "Their own reasons follow; tolerated_failure_count and tolerated_failure_percentage say how many may fail.",
)
COMMAND_NOT_RUN = Diagnosis(
    "command_not_run",
    Blame.CONFIGURATION,
    "The shell found the command missing (127) or not executable (126)",
    "Check the command's path, its mode, and that the image holds it.",
)
KILLED = Diagnosis(
    "killed",
    Blame.UNKNOWN,
    "The command was killed (SIGKILL), most often for want of memory",
    "Compare the memory it used with what it was given; with enough, ask who else stops it.",
)
CRASHED = Diagnosis(
    "crashed",
    Blame.COMMAND,
    "The command crashed (it was ended by a signal)",
    "The last log lines are where to look first.",
)
COMMAND_FAILED = Diagnosis(
    "command_failed",
    Blame.COMMAND,
    "The command itself ended with an error",
    "The last log lines are where to look first.",
)
UNKNOWN = Diagnosis(
    "unknown",
    Blame.UNKNOWN,
    "AWS gives no cause that is known here",
    "AWS's reason and the job's page in the console are all there is.",
)

PERMISSION_MISSING = Diagnosis(
    "permission_missing",
    Blame.CONFIGURATION,
    "Its role may not do what it has to do",
    "AWS's reason names what was refused: give the job's, task's or crawler's role that permission.",
)
NOT_THERE = Diagnosis(
    "not_there",
    Blame.CONFIGURATION,
    "What it works on is not there",
    "AWS's reason names what is missing, such as a database, a table or a bucket: create it, or mend the name.",
)
QUEUE_EXPIRED = Diagnosis(
    "queue_expired",
    Blame.CAPACITY,
    "It waited in AWS's own queue until its time there was up",
    "Run it again when less is running, or raise the limit it waited for.",
)
HOST_LOST = Diagnosis(
    "host_lost",
    Blame.CAPACITY,
    "AWS's own infrastructure failed under it",
    "Nothing is wrong with the job itself: run it again.",
)
REASONS = [
    (re.compile(pattern, re.IGNORECASE), diagnosis)
    for pattern, diagnosis in [
        (r"OutOfMemory", OUT_OF_MEMORY),
        (r"CannotPull", IMAGE_NOT_PULLED),
        (r"executable file not found|no such file or directory.*unknown$|exec format error", COMMAND_NOT_FOUND),
        (r"ResourceInitializationError", RESOURCES_NOT_READY),
        (r"CannotStartContainer|CannotCreateContainer|Task failed to start", NOT_STARTED),
        (r"^Host EC2|SpotInterruption|Spot (instance|capacity).*(interrupt|reclaim|terminat)", SPOT_RECLAIMED),
        (r"attempt duration exceeded timeout", ATTEMPT_TIMED_OUT),
        (r"^Dependent Job failed", DEPENDENCY_FAILED),
        (r"^MISCONFIGURATION:", MISCONFIGURED),
        (r"Access ?Denied|not authorized|Insufficient .*permission", PERMISSION_MISSING),
        (r"Entity ?Not ?Found|^Database \S+ not found|No ?Such ?(Bucket|Key)|bucket does not exist", NOT_THERE),
        (r"^Internal Service (Exception|Error)|^LAUNCH ERROR", HOST_LOST),
        (r"Command failed with exit code|^\w*(Error|Exception|SystemExit): ", COMMAND_FAILED),
    ]
]
"""What AWS's words mean: the first pattern found in the container's reason, else in the job's."""

EXIT_CODES = {126: COMMAND_NOT_RUN, 127: COMMAND_NOT_RUN, 137: KILLED}
"""Exit codes that say more than that the command failed."""


SIGNALS = 128
"""Exit codes above it are those of commands that a signal ended."""


CODES = {
    "SpotInterruption": SPOT_RECLAIMED,
    "TerminationNotice": SPOT_RECLAIMED,
    "InfrastructureHealth": HOST_LOST,
    "TIMEOUT": ATTEMPT_TIMED_OUT,
    "EXPIRED": QUEUE_EXPIRED,
}
"""What a service's codes mean, where they say more than its words."""


def diagnose(snapshot: Snapshot) -> Diagnosis | None:
    """Say why a job failed.

    :param snapshot: what was last seen of the job.
    :return: the diagnosis; None if it has not failed.
    """
    if snapshot.state is not JobState.FAILED:
        return None
    if snapshot.stopped_by_request:
        return STOPPED
    if snapshot.code in CODES:
        return CODES[snapshot.code]
    reasons = filter(None, (snapshot.container_reason, snapshot.reason))
    known = (diagnosis for reason in reasons for pattern, diagnosis in REASONS if pattern.search(reason))
    if snapshot.code == "TaskFailedToStart":
        return next(known, NOT_STARTED)
    return next(known, CHILDREN_FAILED if snapshot.array else _by_exit_code(snapshot.exit_code))


def _by_exit_code(exit_code: int | None) -> Diagnosis:
    if not exit_code:
        return UNKNOWN
    return EXIT_CODES.get(exit_code, CRASHED if exit_code > SIGNALS else COMMAND_FAILED)
