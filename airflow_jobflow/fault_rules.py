"""The table of the errors of AWS calls: which fault an error means, and whether the request may have been executed.

The rows of ``RULES`` are tried in order; the first that matches decides. Messages count as much as codes, because ECS
wraps the throttling of other services in ``InvalidParameterException`` and ``ClientException``. ``faults`` applies it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Fault(Enum):
    """What the error of a call means."""

    THROTTLED = "throttled"
    """Too many calls: slow down and repeat."""
    TRANSIENT = "transient"
    """5xx, timeout, lost connection, unreadable response: repeat after a pause."""
    CREDENTIALS = "credentials"
    """Credentials are missing or have expired, or the Airflow connection could not be read: rebuild the client and
    repeat."""
    DENIED = "denied"
    """The credentials do not permit the call. Policies change, so this may pass."""
    REJECTED = "rejected"
    """AWS does not accept the request as it is."""
    SCOPE_NOT_FOUND = "scope_not_found"
    """The ECS cluster, the Glue job or crawler, the queue or the log stream that the request names does not exist."""
    NO_CAPACITY = "no_capacity"
    """AWS has no capacity for another job at the moment, or a quota is reached. Nothing was started."""


CLIENT_CREATION: Final = "client creation"
"""The operation of an error while a client was built. Such errors concern the connection, not a request."""

CREDENTIAL_OPERATIONS: Final = frozenset(
    {
        CLIENT_CREATION,
        "AssumeRole",
        "AssumeRoleWithSAML",
        "AssumeRoleWithWebIdentity",
        "AssumeRoleForPodIdentity",
        "AssumeRoot",
        "CreateOAuth2Token",
        "CreateToken",
        "GetCallerIdentity",
        "GetFederationToken",
        "GetRoleCredentials",
        "GetSessionToken",
    }
)
"""Operations that botocore calls to get credentials while it prepares another request."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The properties of an error that the rules match."""

    types: frozenset[str] = frozenset()
    """Names of its class and all base classes; ``RESPONSE`` for an error response of AWS."""
    codes: frozenset[str] = frozenset()
    """AWS's error code, and the code of another service if the message quotes one: ``… (ErrorCode: InternalError)``.
    Without namespace, and without a final ``Exception``."""
    status: int = 0
    operation: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. It matches an error if all of its conditions do; empty ones match any error.

    ``sent`` says whether the request may have been executed. If it is None, the fault and the HTTP status decide: after
    a transient fault or a status of 500 and above it may have been, after a refusal not.
    """

    fault: Fault
    types: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    statuses: range | frozenset[int] | None = None
    operations: frozenset[str] = frozenset()
    message: re.Pattern[str] | None = None
    sent: bool | None = None

    def matches(self, facts: Facts) -> bool:
        """Return whether the rule matches an error.

        :param facts: the properties of the error.
        """
        return (
            (not self.types or not self.types.isdisjoint(facts.types))
            and (not self.codes or not self.codes.isdisjoint(facts.codes))
            and (self.statuses is None or facts.status in self.statuses)
            and (not self.operations or facts.operation in self.operations)
            and (self.message is None or self.message.search(facts.message) is not None)
        )


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


CLIENT_ERRORS: Final = range(400, 500)
SERVER_ERRORS: Final = range(500, 600)

# Whole phrases, because messages also contain resource names, which users choose ("JobQueue throttle-test …").
_THROTTLING_MESSAGE: Final = _any(
    r"\brate (limit )?exceeded\b",
    r"\brequest (rate )?limit exceeded\b",
    r"\btoo many requests\b",
    r"\breduce your request rate\b",
    r"\b(Throttl(ing|ed)|TooManyRequests)Exception\b",
    r"\brequest was (denied due to request throttling|throttled)\b",
    # Several registrations of one task definition at the same time: all but one are refused.
    r"\btoo many concurrent attempts to create a new revision\b",
    # The account has too many tasks in PROVISIONING. That passes if fewer are started.
    r"\btasks provisioning capacity limit exceeded\b",
)
_NO_CAPACITY_MESSAGE: Final = _any(
    r"\bcapacity is (currently )?(unavailable|not available)\b",
    r"\breached (the|your|its) (\w+ )?limit\b",
    r"\bmax(imum)? concurrent (runs|capacity)\b",
    r"\bconcurrent runs exceeded\b",
    r"\bInsufficient\w*Capacity\b",
    # A cluster, or a capacity provider, whose instances have not been started yet.
    r"\bno container instances were found\b",
)
_CREDENTIAL_ENDPOINT: Final = _any(
    r"//([\w-]+\.)*(sts|portal\.sso|oidc|signin)(-fips)?\.",
    r"//(169\.254\.169\.254|169\.254\.170\.\d+|\[fd00:ec2::)",
)

RESPONSE: Final = "Response"
"""Stands for the type of an error that is a response of AWS, whose code says more."""
RUN_TASK_FAILURE: Final = "RunTaskFailure"
"""The same for an entry of ``failures`` in a RunTask response."""

RULES: Final = (
    # --- exceptions without a response: the type decides -----------------------------------------------------------
    # The metadata service or STS did not answer, while another request was still being signed.
    Rule(
        Fault.TRANSIENT,
        types=_names("ConnectionError HTTPClientError"),
        message=_CREDENTIAL_ENDPOINT,
        sent=False,
    ),
    # The proxy refuses CONNECT, before there is a connection to AWS.
    Rule(
        Fault.DENIED,
        types=_names("ProxyConnectionError"),
        message=_any(r"Tunnel connection failed: (401|403|407)\b"),
    ),
    # The client, its configuration or its credentials are missing. Nothing was sent without them.
    Rule(
        Fault.CREDENTIALS,
        types=_names(
            """
            NoCredentialsError PartialCredentialsError CredentialRetrievalError UnknownCredentialError
            RefreshWithMFAUnsupportedError NoAuthTokenError TokenRetrievalError UnknownTokenProviderError
            SSOError LoginError MetadataRetrievalError InvalidIMDSEndpointError InvalidIMDSEndpointModeError
            ProfileNotFound ConfigParseError ConfigNotFound InvalidConfigError BaseEndpointResolverError
            InvalidRegionError UnknownRegionError ServiceNotInRegionError EndpointProviderError
            InvalidEndpointConfigurationError InvalidEndpointDiscoveryConfigurationError
            InvalidRetryConfigurationError InvalidProxiesConfigError InvalidDefaultsMode
            InvalidChecksumConfigError InvalidS3UsEast1RegionalEndpointConfigError
            InvalidSTSRegionalEndpointsConfigError UnknownSignatureVersionError UnsupportedSignatureVersionError
            UnsupportedServiceProtocolsError DataNotFoundError ApiVersionNotFoundError
            UndefinedModelAttributeError MissingDependencyException MD5UnavailableError AccessMisconfigured
            AirflowException AirflowRuntimeError TransportError HTTPStatusError DBAPIError FileNotFoundError
            PermissionError
            """
        ),
    ),
    Rule(
        Fault.CREDENTIALS,
        types=_names("RuntimeError ValueError"),  # NotImplementedError is a RuntimeError
        message=_any(
            r"^Invalid endpoint: ",
            r"refreshed credentials are still expired",
            # The Amazon provider's hook, which assumes roles when the first request is signed:
            r"^assume_role_method=\S+ not expected",
            r"^Invalid SAML Assertion",
            r"^sts_response_http_status=",
        ),
    ),
    # botocore's own budget for retries is used up.
    Rule(Fault.THROTTLED, types=_names("CapacityNotAvailableError")),
    # No connection: refused, no route, no such host, timed out, no proxy.
    Rule(
        Fault.TRANSIENT,
        types=_names(
            """
            EndpointConnectionError ConnectTimeoutError ProxyConnectionError ConnectionRefusedError gaierror
            """
        ),
        sent=False,
    ),
    # The TLS handshake failed. Other TLS errors may come from a connection that was in use.
    Rule(
        Fault.TRANSIENT,
        types=_names("SSLError"),
        message=_any(r"CERTIFICATE_VERIFY_FAILED", r"WRONG_VERSION_NUMBER", r"HANDSHAKE_FAILURE", r"doesn't match"),
        sent=False,
    ),
    # Any other failed connection, or one that was lost while in use.
    Rule(Fault.TRANSIENT, types=_names("HTTPClientError ConnectionError OSError")),
    Rule(Fault.CREDENTIALS, operations=frozenset({CLIENT_CREATION})),
    # botocore rejects the request before it sends it.
    Rule(
        Fault.REJECTED,
        types=_names(
            """
            ParamValidationError ValidationError MissingParametersError UnknownClientMethodError
            UnknownServiceStyle OperationNotPageableError InvalidExpressionError WaiterConfigError
            InvalidHostLabelError InvalidDNSNameError InvalidS3AddressingStyleError UnsupportedS3ArnError
            UnsupportedS3ControlArnError UnsupportedOutpostResourceError UnsupportedS3ConfigurationError
            UnsupportedS3AccesspointConfigurationError UnsupportedS3ControlConfigurationError
            UnseekableStreamError StubResponseError
            """
        ),
    ),
    # --- responses: throttling by code, then by message, whatever the code ----------------------------------------
    Rule(
        Fault.THROTTLED,
        codes=_names(
            """
            Throttling Throttled RequestThrottled TooManyRequests RequestLimitExceeded SlowDown LimitExceeded
            ProvisionedThroughputExceeded BandwidthLimitExceeded EC2Throttled PriorRequestNotComplete
            TransactionInProgress KmsThrottled OverLimit
            """
        ),
        sent=False,
    ),
    Rule(Fault.THROTTLED, types=_names(RESPONSE), message=_THROTTLING_MESSAGE),
    Rule(Fault.NO_CAPACITY, types=_names(RESPONSE), message=_NO_CAPACITY_MESSAGE),
    Rule(
        Fault.SCOPE_NOT_FOUND,
        types=_names(RESPONSE),
        message=_any(r"\bjob ?queue \S+ (is |was )?(not found|does not exist)"),
    ),
    # ECS creates its service-linked role at an account's first call, and refuses calls until the role exists.
    Rule(
        Fault.TRANSIENT,
        types=_names(RESPONSE),
        message=_any(r"^unable to assume the service linked role"),
        sent=False,
    ),
    # --- responses: failures[] of RunTask --------------------------------------------------------------------------
    Rule(
        Fault.NO_CAPACITY,
        types=_names(RUN_TASK_FAILURE),
        message=_any(
            r"^(RESOURCE|AGENT|EMPTY CAPACITY PROVIDER|NO ACTIVE INSTANCES)\b",
            r"^distinctInstance (placement )?constraint unsatisfied",
        ),
    ),
    # No instance has what the task requires, and ECS starts none for a rejected request. So waiting does not help.
    Rule(
        Fault.REJECTED,
        types=_names(RUN_TASK_FAILURE),
        message=_any(r"^(ATTRIBUTE|INACTIVE|LOCATION|MISSING)\b", r"^memberOf (placement )?constraint unsatisfied"),
    ),
    # --- responses: codes ------------------------------------------------------------------------------------------
    Rule(
        Fault.TRANSIENT,
        codes=_names(
            """
            Server InternalFailure InternalError Internal InternalServer InternalServerError InternalService
            ServiceUnavailable Unavailable RequestTimeout OperationTimeout IDPCommunicationError
            """
        ),
    ),
    Rule(Fault.THROTTLED, statuses=frozenset({429, 509}), sent=False),
    Rule(Fault.TRANSIENT, statuses=frozenset({408, 425})),
    Rule(
        Fault.CREDENTIALS,
        codes=_names(
            """
            ExpiredToken RequestExpired RequestTimeTooSkewed UnrecognizedClient InvalidClientTokenId
            InvalidAccessKeyId InvalidToken InvalidSignature SignatureDoesNotMatch IncompleteSignature
            MissingAuthenticationToken AuthFailure Unauthorized InvalidSecurity
            """
        ),
    ),
    # Any other refusal of a call that gets credentials. The policies of a role may change, so the next client tries
    # again.
    Rule(Fault.CREDENTIALS, operations=CREDENTIAL_OPERATIONS, statuses=CLIENT_ERRORS),
    Rule(
        Fault.DENIED,
        codes=_names(
            """
            AccessDenied UnauthorizedOperation NotAuthorized OptInRequired SubscriptionRequired Blocked
            KmsAccessDenied KmsOptInRequired
            """
        ),
    ),
    Rule(
        Fault.NO_CAPACITY,
        # CrawlerRunning: a crawler runs one crawl at a time.
        codes=_names("ConcurrentRunsExceeded ResourceNumberLimitExceeded CrawlerRunning"),
    ),
    Rule(
        Fault.SCOPE_NOT_FOUND,
        codes=_names(
            """
            ClusterNotFound EntityNotFound ServiceNotFound ResourceNotFound QueueDoesNotExist NonExistentQueue
            """
        ),
    ),
    # --- responses: the HTTP status --------------------------------------------------------------------------------
    Rule(Fault.CREDENTIALS, statuses=frozenset({401})),
    Rule(Fault.DENIED, statuses=frozenset({403, 407, 451})),
    Rule(Fault.REJECTED, statuses=CLIENT_ERRORS),
    # --- the rest: 5xx, a response that cannot be parsed or lacks a member (KeyError), … ---------------------------
    Rule(Fault.TRANSIENT),
)
