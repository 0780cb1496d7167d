"""The reasons of AWS for jobs and tasks that fail to start, under names of this package. Pure data.

Batch shows a container's error as the reason of the container, with the status reason "Task failed to start". Other
errors are the status reason itself. ECS shows both as ``stoppedReason``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from airflow_jobflow.local.ecs import model as ecs_model

_CONTAINER: Final = re.compile(r"(?!ResourceInitialization)\w+Error\b")
"""The start of reasons that are about a container, not about its task."""


@dataclass(frozen=True, slots=True)
class StartReason:
    """Why something failed to start.

    :param reason: the text of AWS.
    :param stop_code: the stop code of ECS. Default: TaskFailedToStart.
    """

    reason: str
    stop_code: str = ecs_model.FAILED_TO_START

    @property
    def concerns_container(self) -> bool:
        """Whether it is about a container, not about the task."""
        return _CONTAINER.match(self.reason) is not None


TRANSIENT: Final[Mapping[str, StartReason]] = {
    "image_pull_canceled": StartReason(
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref "
        "docker.io/library/busybox:stable: failed to do request: context canceled"
    ),
    "image_pull_rate_limit": StartReason(
        "CannotPullContainerError: toomanyrequests: You have reached your pull rate limit. You may increase the limit "
        "by authenticating and upgrading: https://www.docker.com/increase-rate-limit"
    ),
    "image_pull_timeout": StartReason(
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to do request: "
        'Head "https://registry-1.docker.io/v2/library/busybox/manifests/stable": dial tcp 1.2.3.4:443: i/o timeout'
    ),
    "image_pull_throttled": StartReason(
        "CannotPullECRContainerError: ThrottlingException: Rate exceeded status code: 400"
    ),
    "log_stream_throttled": StartReason(
        "CannotStartContainerError: Error response from daemon: failed to initialize logging driver: failed to create "
        "Cloudwatch log stream: ThrottlingException: Rate exceeded status code: 400"
    ),
    "secrets_unreachable": StartReason(
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: "
        "unable to retrieve ecr registry auth: service call has been retried 3 time(s): RequestError: send request "
        'failed caused by: Post "https://api.ecr.us-east-1.amazonaws.com/": dial tcp 1.2.3.4:443: i/o timeout'
    ),
    "network_interface_timeout": StartReason("Timeout waiting for network interface provisioning to complete."),
    "docker_timeout": StartReason("DockerTimeoutError: Could not transition to created; timed out after waiting 4m0s"),
}
"""Failures that another try may solve."""

CAPACITY: Final[Mapping[str, StartReason]] = {
    "spot_interruption": StartReason(ecs_model.REASONS[ecs_model.SPOT], ecs_model.SPOT),
    "host_terminated": StartReason("Host EC2 (instance i-0abc) terminated.", "InfrastructureHealth"),
    "maintenance": StartReason(
        "Amazon ECS is performing maintenance on the underlying infrastructure hosting the task.",
        "ServiceSchedulerInitiated",
    ),
}
"""AWS reclaims the capacity. Another try may solve these, too."""

CONFIGURATION: Final[Mapping[str, StartReason]] = {
    "image_not_found": StartReason(
        "CannotPullContainerError: Error response from daemon: manifest for busybox:v9 not found: manifest unknown: "
        "Requested image not found"
    ),
    "image_access_denied": StartReason(
        "CannotPullContainerError: Error response from daemon: pull access denied for mycorp/etl, repository does not "
        "exist or may require 'docker login': denied: requested access to the resource is denied"
    ),
    "command_not_found": StartReason(
        "CannotStartContainerError: Error response from daemon: failed to create task for container: OCI runtime "
        'create failed: unable to start container process: exec: "foo": executable file not found in $PATH: unknown'
    ),
    "log_group_missing": StartReason(
        "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed "
        "to create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist. : exit "
        "status 1"
    ),
    "subnet_full": StartReason(
        "Unexpected EC2 error while attempting to Create Network Interface with public IP assignment disabled in "
        "subnet 'subnet-1': InsufficientFreeAddressesInSubnet"
    ),
    "role_not_assumed": StartReason(
        "ECS was unable to assume the role 'arn:aws:iam::123456789012:role/etl' that was provided for this task. "
        "Please verify that the role being passed has the proper trust relationship and permissions and that your IAM "
        "user has permissions to pass this role."
    ),
    "disk_full": StartReason(
        "CannotPullContainerError: failed to register layer: write /usr/local/bin/tool: no space left on device"
    ),
}
"""Failures whose cause must be fixed first."""

KNOWN: Final[Mapping[str, StartReason]] = {**TRANSIENT, **CAPACITY, **CONFIGURATION}

_NAME: Final = re.compile(r"[a-z_]+")


def start_reason(reason: str) -> StartReason:
    """Return the reason with a name, or one with any other text.

    :param reason: a name in `KNOWN`, or a text.
    :raises ValueError: it looks like a name, but is not known.
    """
    if reason in KNOWN:
        return KNOWN[reason]
    if _NAME.fullmatch(reason) or not reason:
        raise ValueError(f"Unknown reason: {reason!r}. Use a text with blanks, or one of {', '.join(KNOWN)}")
    return next((each for each in KNOWN.values() if each.reason == reason), StartReason(reason))
