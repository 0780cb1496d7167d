"""The causes of failures: what each is called, who has to act, and what to do.

Plain data. ``reasons`` maps AWS's messages to causes, and ``diagnosis`` determines the cause of a job's failure. The
documentation is generated from this table, in its order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Blame(StrEnum):
    """Who or what caused a failure."""

    COMMAND = "the command"
    CONFIGURATION = "the configuration"
    CAPACITY = "AWS capacity"
    TRANSIENT = "a transient fault"
    PERSON = "a person or program that stopped it"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a job failed.

    :param cause: its name; stable, for programs.
    :param blame: who or what caused it.
    :param summary: what happened, as the start of a sentence.
    :param advice: what to do about it.
    :param advice_for: additional advice by service: ``batch``, ``ecs``, ``glue_crawl`` or ``glue_run``. Default none.
    """

    cause: str
    blame: Blame
    summary: str
    advice: str
    advice_for: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.summary}. {self.advice}"

    def on(self, service: str) -> Diagnosis:
        """Return the diagnosis with the advice for a service.

        :param service: our name of the service; empty for none.
        """
        if service not in self.advice_for:
            return self
        return dataclasses.replace(self, advice=f"{self.advice} {self.advice_for[service]}", advice_for={})


OUT_OF_MEMORY = Diagnosis(
    "out_of_memory",
    Blame.CONFIGURATION,
    "The container ran out of memory and was killed",
    "Give the job more memory, or let the command use less.",
    {
        "batch": "The parameter memory or the job definition sets it; on_out_of_memory gives a retry more.",
        "ecs": "The parameter memory or the task definition sets it; on_out_of_memory gives a retry more.",
        "glue_run": "A larger worker_type has more; on_out_of_memory gives a retry a larger one.",
    },
)
DISK_FULL = Diagnosis(
    "disk_full",
    Blame.CONFIGURATION,
    "The disk is full",
    "Give the job more storage, use a smaller image, or let the command write less.",
    {
        "batch": "On Fargate ephemeralStorage sets it, on EC2 the volume in the compute environment's launch template.",
        "ecs": "On Fargate ephemeral_storage or the task definition sets it, on EC2 the volume of the instance.",
        "glue_run": "A larger worker_type has more.",
    },
)
IMAGE_NOT_PULLED = Diagnosis(
    "image_not_pulled",
    Blame.CONFIGURATION,
    "The image could not be pulled",
    "Check the image's name, its tag and the platform that it was built for.",
)
COMMAND_NOT_FOUND = Diagnosis(
    "command_not_found",
    Blame.CONFIGURATION,
    "The image has no such command, or may not run it",
    "Check the first word of the command against the image's content. 'exec format error' means an image for another "
    "kind of CPU, or a script without its #! line.",
)
NETWORK_MISCONFIGURED = Diagnosis(
    "network_misconfigured",
    Blame.CONFIGURATION,
    "The network does not let the job reach what it needs",
    "AWS's reason names the subnet, security group, endpoint or mount target that is wrong or missing.",
)
SUBNET_FULL = Diagnosis(
    "subnet_full",
    Blame.CONFIGURATION,
    "The subnet has no free IP address",
    "Use larger or more subnets, or run fewer jobs at the same time.",
)
DEFINITION_REJECTED = Diagnosis(
    "definition_rejected",
    Blame.CONFIGURATION,
    "AWS rejected what the job or its definition asks for",
    "AWS's reason names the value. Overrides may have 8,192 characters: pass large inputs through S3.",
)
PERMISSION_MISSING = Diagnosis(
    "permission_missing",
    Blame.CONFIGURATION,
    "A role lacks a permission, or cannot be assumed",
    "AWS's reason names what was refused. It is a role of the job, not Airflow's.",
    {
        "batch": "Images, secrets and logs need the execution role, the command the job role.",
        "ecs": "Images, secrets and logs need the execution role, the command the task role.",
        "glue_crawl": "It is the crawler's role; Lake Formation has permissions of its own.",
        "glue_run": "It is the Glue job's role; Lake Formation has permissions of its own.",
    },
)
NOT_THERE = Diagnosis(
    "not_there",
    Blame.CONFIGURATION,
    "Something that it needs does not exist",
    "AWS's reason names what is missing, such as a log group, a secret, a table or a bucket: create it, or correct the "
    "name.",
)
MISCONFIGURED = Diagnosis(
    "misconfigured",
    Blame.CONFIGURATION,
    "The queue's compute environments cannot run it",
    "AWS's reason names what is wrong: vCPUs or memory that no instance has, the service role, or the environment.",
)
COMMAND_NOT_RUN = Diagnosis(
    "command_not_run",
    Blame.CONFIGURATION,
    "The shell found the command missing (127) or not executable (126)",
    "Check the command's path and mode, and that the image has it.",
)
THROTTLED = Diagnosis(
    "throttled",
    Blame.TRANSIENT,
    "AWS or the image's registry throttled it",
    "Run it again later. If that happens often, start fewer jobs at once, raise the quota, or pull the image from ECR.",
)
CONNECTION_FAILED = Diagnosis(
    "connection_failed",
    Blame.TRANSIENT,
    "A connection failed while the container was being prepared",
    "Run it again. If that happens every time, the subnets have no route to what AWS's reason names: a private subnet "
    "needs a NAT gateway or VPC endpoints, a public one a public IP address.",
    {"ecs": "On Fargate, the latter is assign_public_ip=True."},
)
RUNTIME_TIMED_OUT = Diagnosis(
    "runtime_timed_out",
    Blame.TRANSIENT,
    "AWS timed out while it prepared or inspected the container",
    "Run it again. The command itself may never have run.",
    {"batch": "On EC2, hosts whose disks are too slow for their containers cause it too."},
)
SPOT_RECLAIMED = Diagnosis(
    "spot_reclaimed",
    Blame.CAPACITY,
    "The host under the job was taken away, as happens with Spot capacity",
    "Run it again, or use On-Demand capacity.",
    {
        "batch": "Batch retries by itself with a retry_strategy whose evaluateOnExit matches 'Host EC2*' and "
        "'Your Spot Task was interrupted*'.",
        "ecs": "on_spot_interruption starts it again within the same try, three times at most.",
    },
)
HOST_LOST = Diagnosis(
    "host_lost",
    Blame.CAPACITY,
    "AWS's own infrastructure failed or was under maintenance",
    "The job is not the cause: run it again.",
)
NO_CAPACITY = Diagnosis(
    "no_capacity",
    Blame.CAPACITY,
    "AWS had no capacity for it, or a quota was reached",
    "Run it again later, allow more instance types or subnets, or raise the quota.",
    {
        "batch": "on_capacity gives a retry another queue.",
        "ecs": "on_capacity gives a retry other capacity providers or subnets.",
    },
)
QUEUE_EXPIRED = Diagnosis(
    "queue_expired",
    Blame.CAPACITY,
    "It stayed in AWS's own queue longer than its limit",
    "Run it again when less is running, or raise the limit it waited for.",
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
CHILDREN_FAILED = Diagnosis(
    "children_failed",
    Blame.COMMAND,
    "Children of the array failed, more than are tolerated",
    "Their reasons could not be read: the array's page in the console lists the children. "
    "tolerated_failure_count and tolerated_failure_percentage set how many may fail.",
)
CRASHED = Diagnosis(
    "crashed",
    Blame.COMMAND,
    "The command crashed (it was ended by a signal)",
    "Check the last log lines first. The exit code is 128 and the signal's number: 139 is a segmentation fault.",
)
COMMAND_FAILED = Diagnosis(
    "command_failed",
    Blame.COMMAND,
    "The command itself ended with an error",
    "Check the last log lines first.",
)
NO_RESULT = Diagnosis(
    "no_result",
    Blame.COMMAND,
    "It succeeded, but returned no usable result, and result_required is set",
    "Check what the job writes to JOBFLOW_RESULT_URI or to its log. A retry starts a new job.",
)
RESULT_NOT_READ = Diagnosis(
    "result_not_read",
    Blame.TRANSIENT,
    "It succeeded, but its result could not be read",
    "Check that the bucket or the log exists, and that Airflow's role may read it. A retry reads the result again, and "
    "starts no new job.",
)
STOPPED = Diagnosis(
    "stopped",
    Blame.PERSON,
    "It was stopped on request",
    "The job is not the cause; AWS's reason is the text of whoever stopped it.",
)
KILLED = Diagnosis(
    "killed",
    Blame.UNKNOWN,
    "The command was killed (SIGKILL), most often because it used too much memory",
    "Compare the memory it used with its limit. If there was enough, find out who else stops it.",
)
RESOURCES_NOT_READY = Diagnosis(
    "resources_not_ready",
    Blame.UNKNOWN,
    "What the container needs could not be set up",
    "Check the subnets' route out, and the execution role's permissions for the secrets, logs and volumes in use.",
)
NOT_STARTED = Diagnosis(
    "not_started",
    Blame.UNKNOWN,
    "The container could not be started",
    "AWS's reason says what prevented it.",
    {
        "batch": "The job definition is where to look next.",
        "ecs": "The task definition is where to look next.",
    },
)
UNKNOWN = Diagnosis(
    "unknown",
    Blame.UNKNOWN,
    "The cause is not known",
    "Read AWS's reason, the last log lines and the job's page in the console.",
)

BY_CAUSE: dict[str, Diagnosis] = {each.cause: each for each in list(vars().values()) if isinstance(each, Diagnosis)}
"""Every diagnosis by its cause, in the order of the documentation."""
