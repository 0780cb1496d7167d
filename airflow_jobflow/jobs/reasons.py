"""The causes of AWS's failure reasons: a table of patterns, each with its cause.

Rules are tried in order; the first that matches decides. ``causes`` describes the causes. The corpus in
``tests/unit/jobs/aws_reasons.yaml`` tests the table with real reasons.

Invariants:

- A pattern matches messages of AWS, Docker, containerd or Kubernetes. A message that a command may also print is
  matched only after a prefix of AWS's, such as ``CannotPullContainerError``.
- A prefix alone is not a cause: ``CannotPullContainerError`` precedes throttling as well as a wrong tag. So a reason
  whose detail matches no rule gets a cause without blame (``FALLBACKS``), never "fix the configuration".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final


class Scope(Enum):
    """To which reasons a rule applies."""

    ANY = "any"
    START = "start"
    """Reasons of containers that could not be started or prepared: see ``START``."""
    SCRIPT = "script"
    """The error message of a Glue run in state FAILED, which the script raised."""


START: Final = re.compile(
    r"\b(Cannot(Pull|Create|Start)\w*|ResourceInitialization|Start)Error\b"
    r"|\b(ErrImagePull|ImagePullBackOff|Task failed to start|Failed to pull image)\b",
    re.IGNORECASE,
)
"""Matches the reason of a container that could not be started."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    :param cause: one of the causes in ``causes``.
    :param scope: to which reasons the rule applies.
    :param pattern: matches a part of the reasons with this cause.
    """

    cause: str
    scope: Scope
    pattern: re.Pattern[str]


def _rule(cause: str, scope: Scope, *patterns: str) -> Rule:
    return Rule(cause, scope, re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL))


RULES: Final = (
    # --- the container ran, and ended for a reason that its exit code does not show -------------------------------
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
    # --- AWS reclaimed the job's capacity, or has none --------------------------------------------------------------
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
"""In order; the first rule that matches decides."""

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
"""The causes of a container without an exit code, if the detail of its reason matches no rule."""

_BY_AWS: Final = re.compile(
    r"^(Canceled|Cancelled|Terminated) by JobStateTimeLimit|performing maintenance", re.IGNORECASE
)
"""Matches the reasons of jobs that AWS ended by itself, although it marks them as stopped on request."""


def by_aws(reason: str | None) -> bool:
    """Return whether a reason says that AWS ended the job by itself, without a request.

    A queue's ``jobStateTimeLimitActions`` make jobs look like canceled ones.

    :param reason: of the job; None if it has none.
    """
    return bool(reason and _BY_AWS.search(reason))


MAX_REASON_LENGTH: Final = 10_000
"""Characters of a reason that are matched. AWS's reasons are shorter, but a Glue script may raise anything."""


def scopes(texts: Iterable[str], *, is_start: bool, is_script: bool) -> frozenset[Scope]:
    """Return the scopes of the rules that apply to the reasons of a job.

    :param texts: the reasons.
    :param is_start: whether AWS's code says that the container was not started.
    :param is_script: whether a Glue script raised the reason.
    """
    found = {Scope.ANY: True, Scope.START: is_start or any(map(START.search, texts)), Scope.SCRIPT: is_script}
    return frozenset(scope for scope, applies in found.items() if applies)


def known_cause(text: str, reading: frozenset[Scope]) -> str | None:
    """Return the cause of a reason; None if no rule matches.

    :param text: the reason.
    :param reading: the scopes of the rules that apply, see ``scopes``.
    """
    return _first(RULES, text[:MAX_REASON_LENGTH], reading)


def fallback_cause(text: str) -> str | None:
    """Return the cause of a reason that says only that a container was not started; None if it does not say that.

    :param text: the reason.
    """
    return _first(FALLBACKS, text[:MAX_REASON_LENGTH], frozenset(Scope))


@lru_cache(maxsize=1024)  # the jobs of an array or a map have the same few reasons thousands of times
def _first(rules: tuple[Rule, ...], text: str, reading: frozenset[Scope]) -> str | None:
    return next((rule.cause for rule in rules if rule.scope in reading and rule.pattern.search(text)), None)
