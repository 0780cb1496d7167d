"""What the error of an AWS call means: one table for all calls of this package.

``classify`` is pure: it reads an error's type, code, HTTP status and message, and imports neither boto3 nor Airflow.
The rows of ``RULES`` are tried in order; the first that matches decides. Messages count as much as codes, because ECS
wraps the throttling of other services in ``InvalidParameterException`` and ``ClientException``.

Invariants:

- An unknown error never counts as a fault of the job. Unknown 4xx responses are ``REJECTED``, which by itself fails no
  wait; all other unknown errors are ``TRANSIENT``.
- A fault says what happened to the request. The caller decides what follows for a job or a wait.
- In doubt, a request counts as sent: looking for a job that was never started is cheap, a second job is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final


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
class _Facts:
    """The properties of an error that the rules match."""

    types: frozenset[str] = frozenset()
    """Names of its class and all base classes; ``_RESPONSE`` for an error response of AWS, whose code says more."""
    codes: frozenset[str] = frozenset()
    """AWS's error code, and the code of another service if the message quotes one: ``… (ErrorCode: InternalError)``.
    Without namespace, and without a final ``Exception``."""
    status: int = 0
    operation: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Rule:
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

    def matches(self, facts: _Facts) -> bool:
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
)
_CREDENTIAL_ENDPOINT: Final = _any(
    r"//([\w-]+\.)*(sts|portal\.sso|oidc|signin)(-fips)?\.",
    r"//(169\.254\.169\.254|169\.254\.170\.\d+|\[fd00:ec2::)",
)

# Stand in for the types of errors that are responses of AWS.
_RESPONSE: Final = "Response"
_RUN_TASK_FAILURE: Final = "RunTaskFailure"

RULES: Final = (
    # --- exceptions without a response: the type decides -----------------------------------------------------------
    # The metadata service or STS did not answer, while another request was still being signed.
    _Rule(
        Fault.TRANSIENT,
        types=_names("ConnectionError HTTPClientError"),
        message=_CREDENTIAL_ENDPOINT,
        sent=False,
    ),
    # The proxy refuses CONNECT, before there is a connection to AWS.
    _Rule(
        Fault.DENIED,
        types=_names("ProxyConnectionError"),
        message=_any(r"Tunnel connection failed: (401|403|407)\b"),
    ),
    # The client, its configuration or its credentials are missing. Nothing was sent without them.
    _Rule(
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
    _Rule(
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
    _Rule(Fault.THROTTLED, types=_names("CapacityNotAvailableError")),
    # No connection: refused, no route, no such host, timed out, no proxy.
    _Rule(
        Fault.TRANSIENT,
        types=_names(
            """
            EndpointConnectionError ConnectTimeoutError ProxyConnectionError ConnectionRefusedError gaierror
            """
        ),
        sent=False,
    ),
    # The TLS handshake failed. Other TLS errors may come from a connection that was in use.
    _Rule(
        Fault.TRANSIENT,
        types=_names("SSLError"),
        message=_any(r"CERTIFICATE_VERIFY_FAILED", r"WRONG_VERSION_NUMBER", r"HANDSHAKE_FAILURE", r"doesn't match"),
        sent=False,
    ),
    # Any other failed connection, or one that was lost while in use.
    _Rule(Fault.TRANSIENT, types=_names("HTTPClientError ConnectionError OSError")),
    _Rule(Fault.CREDENTIALS, operations=frozenset({CLIENT_CREATION})),
    # botocore rejects the request before it sends it.
    _Rule(
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
    _Rule(
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
    _Rule(Fault.THROTTLED, types=_names(_RESPONSE), message=_THROTTLING_MESSAGE),
    _Rule(Fault.NO_CAPACITY, types=_names(_RESPONSE), message=_NO_CAPACITY_MESSAGE),
    _Rule(
        Fault.SCOPE_NOT_FOUND,
        types=_names(_RESPONSE),
        message=_any(r"\bjob ?queue \S+ (is |was )?(not found|does not exist)"),
    ),
    # ECS creates its service-linked role at an account's first call, and refuses calls until the role exists.
    _Rule(
        Fault.TRANSIENT,
        types=_names(_RESPONSE),
        message=_any(r"^unable to assume the service linked role"),
        sent=False,
    ),
    # --- responses: failures[] of RunTask --------------------------------------------------------------------------
    _Rule(
        Fault.NO_CAPACITY,
        types=_names(_RUN_TASK_FAILURE),
        message=_any(
            r"^(RESOURCE|AGENT|EMPTY CAPACITY PROVIDER|NO ACTIVE INSTANCES)\b",
            r"^distinctInstance (placement )?constraint unsatisfied",
        ),
    ),
    _Rule(
        Fault.REJECTED,
        types=_names(_RUN_TASK_FAILURE),
        message=_any(r"^(ATTRIBUTE|INACTIVE|LOCATION|MISSING)\b", r"^memberOf (placement )?constraint unsatisfied"),
    ),
    # --- responses: codes ------------------------------------------------------------------------------------------
    _Rule(
        Fault.TRANSIENT,
        codes=_names(
            """
            Server InternalFailure InternalError Internal InternalServer InternalServerError InternalService
            ServiceUnavailable Unavailable RequestTimeout OperationTimeout IDPCommunicationError
            """
        ),
    ),
    _Rule(Fault.THROTTLED, statuses=frozenset({429, 509}), sent=False),
    _Rule(Fault.TRANSIENT, statuses=frozenset({408, 425})),
    _Rule(
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
    _Rule(Fault.CREDENTIALS, operations=CREDENTIAL_OPERATIONS, statuses=CLIENT_ERRORS),
    _Rule(
        Fault.DENIED,
        codes=_names(
            """
            AccessDenied UnauthorizedOperation NotAuthorized OptInRequired SubscriptionRequired Blocked
            KmsAccessDenied KmsOptInRequired
            """
        ),
    ),
    _Rule(
        Fault.NO_CAPACITY,
        # CrawlerRunning: a crawler runs one crawl at a time.
        codes=_names("ConcurrentRunsExceeded ResourceNumberLimitExceeded CrawlerRunning"),
    ),
    _Rule(
        Fault.SCOPE_NOT_FOUND,
        codes=_names(
            """
            ClusterNotFound EntityNotFound ServiceNotFound ResourceNotFound QueueDoesNotExist NonExistentQueue
            """
        ),
    ),
    # --- responses: the HTTP status --------------------------------------------------------------------------------
    _Rule(Fault.CREDENTIALS, statuses=frozenset({401})),
    _Rule(Fault.DENIED, statuses=frozenset({403, 407, 451})),
    _Rule(Fault.REJECTED, statuses=CLIENT_ERRORS),
    # --- the rest: 5xx, a response that cannot be parsed or lacks a member (KeyError), … ---------------------------
    _Rule(Fault.TRANSIENT),
)


def classify(error: BaseException, operation: str = "") -> Fault:
    """Return the fault that an error of an AWS call means.

    :param error: what the call raised, of any type.
    :param operation: AWS's name of the operation, or ``CLIENT_CREATION``, if the error does not name it.
        Default none.
    """
    return error.fault if isinstance(error, CallError) else _rule(_facts(error, operation)).fault


def request_sent(error: BaseException, operation: str = "") -> bool:
    """Return whether the request may have been executed.

    False only if it certainly was not: there was no connection, the client could not be built, or AWS refused it.
    Assumes a client without retries of its own; with retries, an earlier attempt may have been executed.

    :param error, operation: as for ``classify``.
    """
    if isinstance(error, CallError):
        return error.sent
    facts = _facts(error, operation)
    if facts.operation in CREDENTIAL_OPERATIONS:
        return False
    if _member(error, "ResponseMetadata").get("RetryAttempts"):
        return True
    rule = _rule(facts)
    if rule.sent is not None:
        return rule.sent
    return rule.fault is Fault.TRANSIENT or facts.status in SERVER_ERRORS


def classify_failure(reason: str, detail: str = "") -> Fault:
    """Return the fault of an entry of ``failures`` in a RunTask response. Unknown reasons are ``TRANSIENT``.

    :param reason: the entry's reason, such as ``RESOURCE:CPU``.
    :param detail: the entry's detail. Default none.
    """
    message = f"{reason}: {detail}" if detail else reason
    return _rule(_Facts(frozenset({_RESPONSE, _RUN_TASK_FAILURE}), message=message)).fault


class CallError(Exception):
    """An AWS call failed.

    :param fault: what the error means.
    :param message: which operation failed and why, for logs and errors.
    :param code: AWS's error code. Default none.
    :param operation: AWS's name of the operation. Default none.
    :param sent: whether the request may have been executed. Default True.
    """

    def __init__(self, fault: Fault, message: str, code: str = "", operation: str = "", sent: bool = True) -> None:
        super().__init__(fault, message, code, operation, sent)
        self.fault = fault
        self.message = message
        self.code = code
        self.operation = operation
        self.sent = sent

    def __str__(self) -> str:
        return self.message

    @property
    def is_from_proxy(self) -> bool:
        """Whether a proxy, not AWS, has most likely refused the request: the response has no AWS error code.

        botocore sets the HTTP status as the code if there is none.
        """
        return self.code.isdigit()

    @classmethod
    def from_error(cls, error: BaseException, operation: str = "") -> CallError:
        """Convert an error to a ``CallError``. A ``CallError`` is returned as it is.

        :param error: what the call raised.
        :param operation: AWS's name of the operation, or ``CLIENT_CREATION``. Default: as the error says.
        """
        if isinstance(error, CallError):
            return error
        operation = operation or str(getattr(error, "operation_name", None) or "")
        return cls(
            classify(error, operation),
            _describe(error, operation),
            code=_text(_member(error, "Error").get("Code")),
            operation=operation,
            sent=request_sent(error, operation),
        )


MESSAGE_LENGTH: Final = 1_000
"""The most characters of a message. The response of a proxy can be a whole page."""

_SELF_EXPLANATORY: Final = frozenset({"BotoCoreError", "AirflowException", "AccessMisconfigured"})
"""Types whose messages are clear without the type's name. The message of a KeyError, "'jobs'", is not."""

_WITHOUT_CAUSE: Final = frozenset({"EndpointConnectionError", "ProxyConnectionError"})
"""Types whose messages omit why there is no connection, such as the response of a proxy."""

_CONNECTION: Final = re.compile(r"^(\S+\(host=.*?\)|<.*?>): (Failed to establish a new connection: )?")
_MAX_RETRIES: Final = re.compile(r" \(reached max retries: \d+\)")
_MARKUP: Final = re.compile(r"<(head|script|style)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_PAGE: Final = re.compile(r"<(!doctype|html|head|body)\b", re.IGNORECASE)


def _describe(error: BaseException, operation: str) -> str:
    """Return the message for an error: the operation and the cause."""
    text = _MAX_RETRIES.sub("", str(error)).strip().removesuffix(":")
    if _PAGE.search(text):
        text = " ".join(_MARKUP.sub(" ", text).split())
    if not _response(error) and not _SELF_EXPLANATORY & _type_names(error):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if _WITHOUT_CAUSE & _type_names(error) and (cause := _CONNECTION.sub("", str(_cause(error)))):
        text = f"{text} ({cause})"
    if operation not in text:
        text = f"{operation}: {text}"
    return text if len(text) <= MESSAGE_LENGTH else f"{text[: MESSAGE_LENGTH - 1]}…"


_NAMESPACE: Final = re.compile(r"^.*[#.]|:.*$")
"""Matches the namespace of a code, as in ``com.amazonaws.ecs#ServerException``, ``KMS.Disabled`` or ``ServerException:http://…``."""

_QUOTED_CODE: Final = re.compile(r"\bError ?Code: ([A-Za-z][\w.]*)")


def _rule(facts: _Facts) -> _Rule:
    return next(rule for rule in RULES if rule.matches(facts))


def _facts(error: BaseException, operation: str) -> _Facts:
    response = _response(error)
    operation = str(getattr(error, "operation_name", None) or operation)
    if not response:
        return _Facts(types=_type_names(error), operation=operation, message=f"{error} {_cause(error)}")
    member = _member(error, "Error")
    code = _text(member.get("Code"))
    status = _member(error, "ResponseMetadata").get("HTTPStatusCode") or 0
    message = _text(member.get("Message"))
    if code.isdigit():  # botocore sets the status as the code if the body has none
        status, code = status or int(code), ""
    return _Facts(
        types=frozenset({_RESPONSE}),
        codes=frozenset(_bare(each) for each in [code, *_QUOTED_CODE.findall(message)]),
        status=status or 400,
        operation=operation,
        message=message,
    )


def _cause(error: BaseException) -> Any:
    """Return the cause that an exception of botocore wraps, an exception or a text; empty for other errors."""
    kwargs = getattr(error, "kwargs", None)
    cause = kwargs.get("error", "") if isinstance(kwargs, Mapping) else ""
    return getattr(cause, "original_error", cause)


def _bare(code: str) -> str:
    return _NAMESPACE.sub("", code).removesuffix("Exception")


def _type_names(error: BaseException) -> frozenset[str]:
    return frozenset(cls.__name__ for cls in type(error).__mro__)


def _response(error: BaseException) -> Mapping[str, Any]:
    """Return the response that botocore's ``ClientError`` carries; empty for other errors."""
    response = getattr(error, "response", None)
    return response if isinstance(response, Mapping) else {}


def _member(error: BaseException, name: str) -> Mapping[str, Any]:
    member = _response(error).get(name)
    return member if isinstance(member, Mapping) else {}


def _text(value: Any) -> str:
    return "" if value is None else str(value)
