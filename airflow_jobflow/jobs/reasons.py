"""What AWS's words mean: a table of patterns, each with the cause that it stands for.

Plain data, and one function. Rules are tried in order, the first that matches decides; ``diagnosis`` says what each
cause is. The corpus in ``tests/unit/jobs/aws_reasons.yaml`` holds the table against real reasons.

Invariants:

- A pattern matches what AWS, Docker, containerd or Kubernetes write. What a command may print is matched only where a
  prefix shows that AWS wrote it, such as ``CannotPullContainerError``.
- A prefix alone is not a cause: ``CannotPullContainerError`` precedes throttling as well as a wrong tag. So a reason
  whose detail no rule knows gets a cause of which nobody is blamed (``FALLBACKS``), never "fix the configuration".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final


class Scope(Enum):
    """Which reasons a rule reads."""

    ANY = "any"
    START = "start"
    """Those that say that a container could not be started, or not be prepared: see ``START``."""
    SCRIPT = "script"
    """The error message of a Glue run in state FAILED, which is what the script raised."""


START: Final = re.compile(
    r"\b(Cannot(Pull|Create|Start)\w*|ResourceInitialization|Start)Error\b"
    r"|\b(ErrImagePull|ImagePullBackOff|Task failed to start|Failed to pull image)\b",
    re.IGNORECASE,
)
"""What a reason says if a container could not be started."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    :param cause: a cause of ``causes``.
    :param scope: which reasons it reads.
    :param pattern: what a reason with this cause has in it.
    """

    cause: str
    scope: Scope
    pattern: re.Pattern[str]


def _rule(cause: str, scope: Scope, *patterns: str) -> Rule:
    return Rule(cause, scope, re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL))


RULES: Final = (
    # --- the container ran, and ended for a reason that its exit code does not tell -------------------------------
    _rule(
        "out_of_memory",
        Scope.ANY,
        r"OutOfMemory|\bOOM ?Killed|\bout of memory\b|exceeding memory limits|low on resource: memory",
    ),
    _rule(
        "disk_full",
        Scope.ANY,
        r"no space left on device|thin pool has \d+ free|low on resource: ephemeral-storage",
        r"exceeds the (total )?limit of (ephemeral|containers)",
    ),
    # --- AWS took the job's place away, or has none -----------------------------------------------------------------
    _rule(
        "spot_reclaimed",
        Scope.ANY,
        r"^Host EC2|SpotInterruption|Spot Task was interrupted",
        r"Spot (instance|capacity|task).*(interrupt|reclaim|terminat)",
    ),
    _rule(
        "host_lost",
        Scope.ANY,
        r"performing maintenance|infrastructure hosting the task|imminent node shutdown",
        r"Agent could not progress task's state|No container matching saved ID",
    ),
    _rule(
        "no_capacity",
        Scope.ANY,
        r"\bCAPACITY:|Capacity is (currently )?unavailable|Insufficient\w*Capacity|^Resource unavailable\b",
        r"maximum concurrent (compute )?capacity|reached (the|your) limit on the number of (tasks|vCPUs)",
        r"^RESOURCE:|^AGENT\b",
    ),
    _rule("misconfigured", Scope.ANY, r"\bMISCONFIGURATION:|^ACTION_REQUIRED\b"),
    _rule("attempt_timed_out", Scope.ANY, r"attempt duration exceeded timeout"),
    _rule("dependency_failed", Scope.ANY, r"^Dependent Job failed"),
    # --- the network of the task; before throttling and permissions, which are among its details -------------------
    _rule(
        "subnet_full",
        Scope.ANY,
        r"InsufficientFreeAddressesInSubnet|(not|n't) (have )?(enough|sufficient) free addresses",
        r"Create Network Interface with public IP assignment enabled in subnet '[\w-]*'?\.?$",
    ),
    _rule(
        "network_misconfigured",
        Scope.ANY,
        r"find S3 endpoint or NAT gateway|S3 endpoint validation failed|security group must open all",
        r"(in|out)bound rule in security group required|find subnet for AZ|ensure that the VPC has an EFS mount target",
    ),
    # --- what keeps a container from being started ------------------------------------------------------------------
    _rule(
        "throttled",
        Scope.ANY,
        r"Throttl(ing|ed)(Exception)?\b|\bRate (limit )?exceeded|toomanyrequests|Too ?Many ?Requests",
        r"pull rate limit|RequestLimitExceeded|\bSlow ?Down\b",
    ),
    _rule(
        "command_not_found",
        Scope.ANY,
        r"executable file not found|exec format error",
        r"(exec|stat|container process|fork/exec)\b.*(no such file or directory|permission denied|is a directory)",
    ),
    _rule(
        "image_not_pulled",
        Scope.START,
        r"manifest (unknown|invalid)|manifest for .* not found|name unknown|repository .* does not exist",
        r"repository does not exist|pull access denied|:\s*not found\b|invalid reference format|x509:",
        r"descriptor matching platform|no matching manifest|no match for platform|no processor for media-type",
    ),
    _rule("image_not_pulled", Scope.ANY, r"\bInvalidImageName\b|\bErrImageNeverPull\b"),
    _rule(
        "permission_missing",
        Scope.ANY,
        r"Access ?Denied|Access is denied|access denied by server|not authorized|\bis unauthorized\b",
        r"unable to assume (the )?role|should be given assume role permissions|TagPolicyViolation",
        r"Insufficient .*permission",
    ),
    _rule(
        "permission_missing",
        Scope.START,
        r"\bForbidden\b|StatusCode: 403|unauthorized|no basic auth credentials|UnrecognizedClient",
    ),
    _rule(
        "not_there",
        Scope.ANY,
        r"log group does not exist|Entity ?Not ?Found|^Database \S+ not found|No ?Such ?(Bucket|Key)",
        r"bucket does not exist|(Subnet|Group|SecurityGroup|Id)\w*\.?NotFound|marked for deletion",
    ),
    _rule(
        "not_there",
        Scope.START,
        r"ResourceNotFound|ParameterNotFound|can't find the specified secret|invalid parameters: |StatusCode: 404",
        r"reason given by server: No such file",
    ),
    _rule(
        "definition_rejected",
        Scope.ANY,
        r"Overrides length must be|^(Client|InvalidParameter|Validation)Exception\b|No Fargate configuration exists",
        r"Invalid '(cpu|memory)' setting|not compatible with the selected compute|requires task definition to have",
        r"unused device index|^LAUNCH ERROR \| Invalid input",
    ),
    _rule(
        "runtime_timed_out",
        Scope.ANY,
        r"(Docker|ContainerRuntime)TimeoutError|Could not transition to \w+; timed out",
        r"Timeout waiting for [\w ]+ provisioning|Network interface provision complete error timeout",
        r"^InternalError\b|failed to configure ENI|^Unexpected EC2 error while attempting to",
    ),
    _rule(
        "connection_failed",
        Scope.START,
        r"i/o timeout|context (canceled|cancelled|deadline exceeded)|connection (reset|refused|timed out|issue)",
        r"TLS handshake|\bEOF\b|send request failed|request cancell?ed|RequestCancell?ed|no such host",
        r"name resolution|server misbehaving|network is unreachable|no route to host|broken pipe|Client\.Timeout",
        r"net/http: timeout|signal: killed|StatusCode: 5\d\d|Internal ?Server ?Error|Service ?Unavailable|Bad Gateway",
        r"Gateway Time-?out|InternalFailure|CredentialsEndpointError",
    ),
    # --- Glue ---------------------------------------------------------------------------------------------------------
    _rule("host_lost", Scope.ANY, r"^Internal Service (Exception|Error)"),
    _rule("command_failed", Scope.ANY, r"Command failed with exit code"),
    _rule("command_failed", Scope.SCRIPT, r"^[\w.]*(Error|Exception|SystemExit): "),
)
"""Tried in order; the first that matches decides."""

FALLBACKS: Final = (
    _rule("resources_not_ready", Scope.ANY, r"ResourceInitializationError"),
    _rule(
        "not_started",
        Scope.ANY,
        r"Task failed to start|^LAUNCH ERROR|\bCannot\w+Error\b|ErrImagePull|ImagePullBackOff",
        r"ContainerCannotRun|Container\w*Error\b",
        r"\b(Start|DockerClientConfig|DockerState|HostConfig|InvalidVolume|TaskDependency|TaskStoppedBeforePullBegin",
        r"ImpossibleStateTransition)Error\b",
    ),
)
"""What is left to be said of a container that has no exit code, if no rule knows the detail."""

_BY_AWS: Final = re.compile(
    r"^(Canceled|Cancelled|Terminated) by JobStateTimeLimit|performing maintenance", re.IGNORECASE
)
"""Reasons of jobs that AWS ended by itself, although it marks them as stopped on request."""


def by_aws(reason: str | None) -> bool:
    """Return whether a reason says that AWS ended the job by itself, and nobody asked for it.

    A queue's ``jobStateTimeLimitActions`` leave jobs that look like canceled ones.
    """
    return bool(reason and _BY_AWS.search(reason))


LONGEST: Final = 10_000
"""Characters of a reason that are read: AWS's are shorter, and a Glue script may raise anything."""


def scopes(words: Iterable[str], *, is_start: bool, is_script: bool) -> frozenset[Scope]:
    """Return which rules read the reasons of a job.

    :param words: the reasons.
    :param is_start: whether AWS's code says that the container was not started.
    :param is_script: whether the reason is what a Glue script raised.
    """
    found = {Scope.ANY: True, Scope.START: is_start or any(map(START.search, words)), Scope.SCRIPT: is_script}
    return frozenset(scope for scope, applies in found.items() if applies)


def known_cause(words: str, reading: frozenset[Scope]) -> str | None:
    """Return the cause that a rule knows for a reason; None if none does.

    :param words: the reason.
    :param reading: which rules apply, see ``scopes``.
    """
    return _first(RULES, words[:LONGEST], reading)


def fallback_cause(words: str) -> str | None:
    """Return the cause if all that is known is that a container was not started; None if not even that is.

    :param words: the reason.
    """
    return _first(FALLBACKS, words[:LONGEST], frozenset(Scope))


@lru_cache(maxsize=1024)  # the jobs of an array or a map give the same few reasons thousands of times
def _first(rules: tuple[Rule, ...], words: str, reading: frozenset[Scope]) -> str | None:
    return next((rule.cause for rule in rules if rule.scope in reading and rule.pattern.search(words)), None)
