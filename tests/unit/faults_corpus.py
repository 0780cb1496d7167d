"""Responses and exceptions as AWS, botocore, Airflow and proxies produce them, with what each means.

A line is what came, then the fault, then whether the request may have been executed. Messages are quoted from AWS's
documentation, from public reports (named where they surprise) and from experiments with botocore.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from airflow_jobflow.faults import CLIENT_CREATION, Fault

THROTTLED, TRANSIENT, CREDENTIALS = Fault.THROTTLED, Fault.TRANSIENT, Fault.CREDENTIALS
DENIED, REJECTED = Fault.DENIED, Fault.REJECTED
SCOPE_NOT_FOUND, NO_CAPACITY = Fault.SCOPE_NOT_FOUND, Fault.NO_CAPACITY

SENT, NOT_SENT = True, False

HTML_403 = "<html><head><title>403 Forbidden</title></head><body><h1>403 Forbidden</h1></body></html>"
HTML_404 = "<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>"
NOT_AUTHORIZED = "User: arn:aws:sts::123456789012:assumed-role/airflow/x is not authorized to perform: "


class Response(NamedTuple):
    """An error response. A code of digits is what botocore makes of a body without a code."""

    operation: str
    code: str
    status: int | None
    message: str
    fault: Fault
    sent: bool

    def error(self) -> ClientError:
        """Return it as botocore raises it."""
        metadata: dict[str, Any] = {} if self.status is None else {"HTTPStatusCode": self.status, "RetryAttempts": 0}
        response: Any = {"Error": {"Code": self.code, "Message": self.message}, "ResponseMetadata": metadata}
        return ClientError(response, self.operation)


class Failure(NamedTuple):
    """An entry of ``failures`` in a RunTask response."""

    reason: str
    detail: str
    fault: Fault


RESPONSES = [
    Response(*line)
    for line in [
        # --- throttling, by code ---
        ("DescribeJobs", "TooManyRequestsException", 429, "Too Many Requests", THROTTLED, NOT_SENT),
        ("SubmitJob", "TooManyRequestsException", 429, "", THROTTLED, NOT_SENT),
        ("TerminateJob", "TooManyRequestsException", 429, "Too Many Requests", THROTTLED, NOT_SENT),
        ("ListJobs", "429", 429, "", THROTTLED, NOT_SENT),
        ("ListJobs", "429", 429, "<html><h1>429 Too Many Requests</h1></html>", THROTTLED, NOT_SENT),
        ("RunTask", "ThrottlingException", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("RunTask", "ThrottlingException", 400, "Rate exceeded.", THROTTLED, NOT_SENT),
        ("DescribeTasks", "ThrottlingException", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("StopTask", "ThrottlingException", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("ListTasks", "ThrottlingException", None, "Rate exceeded", THROTTLED, NOT_SENT),
        ("StartJobRun", "ThrottlingException", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("StartCrawler", "ThrottlingException", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("ListCrawls", "ThrottlingException", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("BatchGetCrawlers", "Throttling", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("GetLogEvents", "ThrottlingException", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("GetLogEvents", "LimitExceededException", 400, "Rate of requests exceeded", THROTTLED, NOT_SENT),
        ("ReceiveMessage", "RequestThrottled", 403, "Request is throttled", THROTTLED, NOT_SENT),
        ("ReceiveMessage", "AWS.SimpleQueueService.OverLimit", 403, "Too many messages in flight", THROTTLED, NOT_SENT),
        ("ReceiveMessage", "OverLimit", 403, "The in-flight limit was reached", THROTTLED, NOT_SENT),
        ("ReceiveMessage", "KMS.ThrottlingException", 400, "You have exceeded the rate", THROTTLED, NOT_SENT),
        ("DescribeJobs", "RequestLimitExceeded", 503, "Request limit exceeded.", THROTTLED, NOT_SENT),
        ("DescribeJobs", "SlowDown", 503, "Please reduce your request rate.", THROTTLED, NOT_SENT),
        ("DescribeJobs", "BandwidthLimitExceeded", 509, "", THROTTLED, NOT_SENT),
        ("AssumeRole", "Throttling", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("GetRoleCredentials", "TooManyRequestsException", 429, "HTTP 429 Unknown Code", THROTTLED, NOT_SENT),
        ("CreateToken", "SlowDownException", 400, "", THROTTLED, NOT_SENT),
        # --- throttling, by message (CASES A6; dagster-io/dagster#33439, dask/dask-cloudprovider#56) ---
        (
            "RunTask",
            "InvalidParameterException",
            400,
            "Error retrieving subnet information for [subnet-1]: Rate exceeded (ErrorCode: Throttling)",
            THROTTLED,
            NOT_SENT,
        ),
        (
            "RunTask",
            "InvalidParameterException",
            400,
            "Error retrieving security group information for [sg-1]: Request limit exceeded. "
            "(ErrorCode: RequestLimitExceeded)",
            THROTTLED,
            NOT_SENT,
        ),
        (
            "RunTask",
            "InvalidParameterException",
            400,
            "Error retrieving subnet information for [subnet-1]: (ErrorCode: RequestLimitExceeded)",
            THROTTLED,
            NOT_SENT,
        ),
        (
            "RunTask",
            "InvalidParameterException",
            None,
            "com.amazonaws.services.ec2.model.AmazonEC2Exception: Request limit exceeded. (Service: AmazonEC2; "
            "Status Code: 503; Error Code: RequestLimitExceeded)",
            THROTTLED,
            NOT_SENT,
        ),
        ("RunTask", "ClientException", 400, "Tasks provisioning capacity limit exceeded.", THROTTLED, NOT_SENT),
        ("RunTask", "ClientException", 400, "The request could not be made: Rate exceeded", THROTTLED, NOT_SENT),
        ("StopTask", "ClientException", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("DescribeTasks", "InvalidParameterException", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        (
            "SubmitJob",
            "ClientException",
            400,
            "Error executing request, Exception : Too Many Requests, RequestId: 1",
            THROTTLED,
            NOT_SENT,
        ),
        ("DescribeJobs", "AccessDeniedException", 400, "Rate exceeded", THROTTLED, NOT_SENT),
        ("StartJobRun", "InvalidInputException", 400, "ThrottlingException: Rate exceeded", THROTTLED, NOT_SENT),
        ("ListCrawls", "InternalServiceException", 500, "Rate exceeded", THROTTLED, SENT),
        ("RunTask", "ServerException", 500, "Request limit exceeded.", THROTTLED, SENT),
        # Names that users chose are no phrases of AWS.
        ("SubmitJob", "ClientException", 400, "JobDefinition throttling does not exist", REJECTED, NOT_SENT),
        ("RunTask", "ClientException", 400, "TaskDefinition rate-exceeded not found", REJECTED, NOT_SENT),
        (
            "DescribeJobs",
            "AccessDeniedException",
            403,
            NOT_AUTHORIZED + "batch:DescribeJobs on resource: job-queue/capacity-throttled",
            DENIED,
            NOT_SENT,
        ),
        # --- no capacity ---
        (
            "RunTask",
            "ClientException",
            400,
            "Capacity is unavailable at this time. Please try again later or in a different availability zone",
            NO_CAPACITY,
            NOT_SENT,
        ),
        ("RunTask", "ServerException", 500, "Capacity is unavailable at this time", NO_CAPACITY, SENT),
        (
            "RunTask",
            "ClientException",
            400,
            "You've reached the limit on the number of tasks you can run concurrently",
            NO_CAPACITY,
            NOT_SENT,
        ),
        (
            "RunTask",
            "ClientException",
            400,
            "You’ve reached the limit on the number of vCPUs you can run concurrently",
            NO_CAPACITY,
            NOT_SENT,
        ),
        (
            "RunTask",
            "InvalidParameterException",
            400,
            "You have reached the limit on the number of tasks you can run concurrently.",
            NO_CAPACITY,
            NOT_SENT,
        ),
        (
            "StartJobRun",
            "ConcurrentRunsExceededException",
            400,
            "Concurrent runs exceeded for etl",
            NO_CAPACITY,
            NOT_SENT,
        ),
        (
            "StartJobRun",
            "ResourceNumberLimitExceededException",
            400,
            "Exceeded maximum concurrent capacity for your account",
            NO_CAPACITY,
            NOT_SENT,
        ),
        ("StartJobRun", "ResourceNumberLimitExceededException", 400, "Failed to start job run", NO_CAPACITY, NOT_SENT),
        (
            "StartCrawler",
            "CrawlerRunningException",
            400,
            "Crawler with name c has already started",
            NO_CAPACITY,
            NOT_SENT,
        ),
        # --- credentials ---
        (
            "DescribeJobs",
            "ExpiredTokenException",
            403,
            "The security token included in the request is expired",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "RunTask",
            "ExpiredTokenException",
            400,
            "The security token included in the request is expired",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "ReceiveMessage",
            "ExpiredToken",
            403,
            "The security token included in the request is expired",
            CREDENTIALS,
            NOT_SENT,
        ),
        ("DescribeJobs", "RequestExpired", 400, "Request has expired.", CREDENTIALS, NOT_SENT),
        ("DescribeJobs", "RequestTimeTooSkewed", 403, "The difference is too large.", CREDENTIALS, NOT_SENT),
        (
            "DescribeTasks",
            "UnrecognizedClientException",
            400,
            "The security token included in the request is invalid.",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "DescribeJobs",
            "UnrecognizedClientException",
            403,
            "The security token included in the request is invalid.",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "ReceiveMessage",
            "InvalidClientTokenId",
            403,
            "The security token included in the request is invalid.",
            CREDENTIALS,
            NOT_SENT,
        ),
        ("ReceiveMessage", "InvalidSecurity", 403, "", CREDENTIALS, NOT_SENT),
        (
            "DescribeTasks",
            "InvalidSignatureException",
            400,
            "Signature expired: 20261122T100000Z is now earlier than 20261122T100500Z",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "DescribeJobs",
            "SignatureDoesNotMatch",
            403,
            "The request signature we calculated does not match",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "ListJobs",
            "IncompleteSignature",
            400,
            "Authorization header requires 'Credential' parameter.",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "ListTasks",
            "IncompleteSignatureException",
            400,
            "Authorization header requires 'Signature' parameter.",
            CREDENTIALS,
            NOT_SENT,
        ),
        ("ListJobs", "MissingAuthenticationTokenException", 403, "Missing Authentication Token", CREDENTIALS, NOT_SENT),
        (
            "ListTasks",
            "MissingAuthenticationToken",
            403,
            "Request is missing Authentication Token",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "RunTask",
            "AuthFailure",
            401,
            "AWS was not able to validate the provided access credentials",
            CREDENTIALS,
            NOT_SENT,
        ),
        ("DescribeJobs", "401", 401, "", CREDENTIALS, NOT_SENT),
        (
            "AssumeRole",
            "AccessDenied",
            403,
            NOT_AUTHORIZED + "sts:AssumeRole on resource: arn:aws:iam::1:role/r",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "AssumeRole",
            "InvalidClientTokenId",
            403,
            "The security token included in the request is invalid.",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "AssumeRole",
            "ExpiredToken",
            403,
            "The security token included in the request is expired",
            CREDENTIALS,
            NOT_SENT,
        ),
        ("AssumeRole", "ValidationError", 400, "1 validation error detected", CREDENTIALS, NOT_SENT),
        ("AssumeRole", "MalformedPolicyDocument", 400, "", CREDENTIALS, NOT_SENT),
        ("AssumeRole", "PackedPolicyTooLarge", 400, "", CREDENTIALS, NOT_SENT),
        ("AssumeRole", "RegionDisabledException", 403, "STS is not activated in this region", CREDENTIALS, NOT_SENT),
        ("AssumeRole", "403", 403, HTML_403, CREDENTIALS, NOT_SENT),
        (
            "AssumeRoleWithWebIdentity",
            "AccessDenied",
            403,
            "Not authorized to perform sts:AssumeRoleWithWebIdentity",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "AssumeRoleWithWebIdentity",
            "InvalidIdentityToken",
            400,
            "No OpenIDConnect provider found",
            CREDENTIALS,
            NOT_SENT,
        ),
        (
            "AssumeRoleWithWebIdentity",
            "ExpiredTokenException",
            400,
            "Token expired: current date/time 1",
            CREDENTIALS,
            NOT_SENT,
        ),
        ("AssumeRoleWithWebIdentity", "IDPRejectedClaim", 403, "", CREDENTIALS, NOT_SENT),
        (
            "AssumeRoleWithSAML",
            "AccessDenied",
            403,
            "Not authorized to perform sts:AssumeRoleWithSAML",
            CREDENTIALS,
            NOT_SENT,
        ),
        ("GetCallerIdentity", "InvalidClientTokenId", 403, "", CREDENTIALS, NOT_SENT),
        ("GetSessionToken", "AccessDenied", 403, "MultiFactorAuthentication failed", CREDENTIALS, NOT_SENT),
        (
            "GetRoleCredentials",
            "UnauthorizedException",
            401,
            "Session token not found or invalid",
            CREDENTIALS,
            NOT_SENT,
        ),
        ("GetRoleCredentials", "ForbiddenException", 403, "No access", CREDENTIALS, NOT_SENT),
        ("GetRoleCredentials", "ResourceNotFoundException", 404, "", CREDENTIALS, NOT_SENT),
        ("CreateToken", "InvalidGrantException", 400, "", CREDENTIALS, NOT_SENT),
        ("CreateToken", "UnauthorizedClientException", 400, "", CREDENTIALS, NOT_SENT),
        # --- denied ---
        ("DescribeJobs", "AccessDeniedException", 403, NOT_AUTHORIZED + "batch:DescribeJobs", DENIED, NOT_SENT),
        ("DescribeTasks", "AccessDeniedException", 400, NOT_AUTHORIZED + "ecs:DescribeTasks", DENIED, NOT_SENT),
        ("RunTask", "AccessDeniedException", 400, NOT_AUTHORIZED + "iam:PassRole on resource: r", DENIED, NOT_SENT),
        ("RunTask", "AccessDeniedException", 400, NOT_AUTHORIZED + "ecs:TagResource", DENIED, NOT_SENT),
        ("SubmitJob", "AccessDeniedException", 403, NOT_AUTHORIZED + "batch:TagResource", DENIED, NOT_SENT),
        ("StartJobRun", "AccessDeniedException", 400, NOT_AUTHORIZED + "glue:StartJobRun", DENIED, NOT_SENT),
        ("ListCrawls", "AccessDeniedException", 400, NOT_AUTHORIZED + "glue:ListCrawls", DENIED, NOT_SENT),
        ("GetLogEvents", "AccessDeniedException", 400, NOT_AUTHORIZED + "logs:GetLogEvents", DENIED, NOT_SENT),
        ("ReceiveMessage", "AccessDenied", 403, "Access to the resource is denied.", DENIED, NOT_SENT),
        ("ReceiveMessage", "KMS.AccessDeniedException", 400, "", DENIED, NOT_SENT),
        ("ReceiveMessage", "KMS.OptInRequired", 403, "", DENIED, NOT_SENT),
        (
            "RunTask",
            "UnauthorizedOperation",
            403,
            "You are not authorized to perform this operation.",
            DENIED,
            NOT_SENT,
        ),
        ("DescribeJobs", "NotAuthorized", 400, "You do not have permission to perform this action.", DENIED, NOT_SENT),
        (
            "DescribeJobs",
            "OptInRequired",
            403,
            "The AWS Access Key Id needs a subscription for the service",
            DENIED,
            NOT_SENT,
        ),
        ("DescribeJobs", "SubscriptionRequiredException", 400, "", DENIED, NOT_SENT),
        ("RunTask", "BlockedException", 400, "Your AWS account was blocked. Contact AWS Support.", DENIED, NOT_SENT),
        ("DescribeJobs", "403", 403, HTML_403, DENIED, NOT_SENT),
        ("DescribeTasks", "403", 403, HTML_403, DENIED, NOT_SENT),
        ("SubmitJob", "403", 403, "", DENIED, NOT_SENT),
        ("SubmitJob", "ForbiddenException", 403, "Forbidden", DENIED, NOT_SENT),
        ("DescribeJobs", "407", 407, "Proxy Authentication Required", DENIED, NOT_SENT),
        ("DescribeJobs", "451", 451, "", DENIED, NOT_SENT),
        # --- scope ---
        ("RunTask", "ClusterNotFoundException", 400, "Cluster not found.", SCOPE_NOT_FOUND, NOT_SENT),
        ("DescribeTasks", "ClusterNotFoundException", 400, "Cluster not found.", SCOPE_NOT_FOUND, NOT_SENT),
        (
            "StartJobRun",
            "EntityNotFoundException",
            400,
            "Failed to start job run due to missing metadata",
            SCOPE_NOT_FOUND,
            NOT_SENT,
        ),
        ("GetJobRuns", "EntityNotFoundException", 400, "Entity Not Found", SCOPE_NOT_FOUND, NOT_SENT),
        (
            "StartCrawler",
            "EntityNotFoundException",
            400,
            "Crawler with name c does not exist",
            SCOPE_NOT_FOUND,
            NOT_SENT,
        ),
        (
            "GetLogEvents",
            "ResourceNotFoundException",
            400,
            "The specified log stream does not exist.",
            SCOPE_NOT_FOUND,
            NOT_SENT,
        ),
        (
            "ReceiveMessage",
            "AWS.SimpleQueueService.NonExistentQueue",
            400,
            "The specified queue does not exist.",
            SCOPE_NOT_FOUND,
            NOT_SENT,
        ),
        ("ReceiveMessage", "QueueDoesNotExist", 400, "The specified queue does not exist.", SCOPE_NOT_FOUND, NOT_SENT),
        ("SubmitJob", "ClientException", 404, "JobQueue x-job-queue not found.", SCOPE_NOT_FOUND, NOT_SENT),
        (
            "ListJobs",
            "ClientException",
            400,
            "Error executing request, Exception : Job queue q does not exist, RequestId: 1",
            SCOPE_NOT_FOUND,
            NOT_SENT,
        ),
        # --- transient ---
        ("DescribeJobs", "ServerException", 500, "", TRANSIENT, SENT),
        ("SubmitJob", "ServerException", 500, "There was an internal error", TRANSIENT, SENT),
        ("RunTask", "ServerException", 500, "Service Unavailable. Please try again later.", TRANSIENT, SENT),
        ("RunTask", "ServerException", 400, "Service Unavailable. Please try again later.", TRANSIENT, SENT),
        ("StartJobRun", "InternalServiceException", 400, "", TRANSIENT, SENT),
        ("StartCrawler", "OperationTimeoutException", 400, "The operation timed out.", TRANSIENT, SENT),
        ("GetLogEvents", "ServiceUnavailableException", 500, "", TRANSIENT, SENT),
        ("GetLogEvents", "InternalFailure", 500, "", TRANSIENT, SENT),
        ("ReceiveMessage", "InternalError", 500, "We encountered an internal error.", TRANSIENT, SENT),
        ("ReceiveMessage", "ServiceUnavailable", 503, "", TRANSIENT, SENT),
        ("DescribeJobs", "500", 500, "Internal Server Error", TRANSIENT, SENT),
        ("DescribeJobs", "502", 502, "Bad Gateway", TRANSIENT, SENT),
        ("DescribeJobs", "503", 503, "Service Unavailable", TRANSIENT, SENT),
        ("SubmitJob", "504", 504, "Gateway Timeout", TRANSIENT, SENT),
        ("SubmitJob", "SomethingNew", 500, "", TRANSIENT, SENT),
        ("SubmitJob", "ClientException", 503, "", TRANSIENT, SENT),
        ("DescribeJobs", "RequestTimeout", 400, "Your socket connection was not read from in time", TRANSIENT, SENT),
        ("DescribeJobs", "RequestTimeoutException", 408, "", TRANSIENT, SENT),
        ("DescribeJobs", "408", 408, "Request Timeout", TRANSIENT, SENT),
        ("DescribeJobs", "302", 302, "<html>Sign in to the network</html>", TRANSIENT, SENT),
        ("AssumeRole", "ServiceUnavailable", 503, "", TRANSIENT, NOT_SENT),
        ("AssumeRole", "500", 500, "Internal Server Error", TRANSIENT, NOT_SENT),
        ("AssumeRoleWithWebIdentity", "IDPCommunicationError", 400, "", TRANSIENT, NOT_SENT),
        ("CreateToken", "InternalServerException", 500, "", TRANSIENT, NOT_SENT),
        (
            "RunTask",
            "InvalidParameterException",
            400,
            "Unable to assume the service linked role. Please verify that the ECS service linked role exists.",
            TRANSIENT,
            NOT_SENT,
        ),
        # --- rejected ---
        ("DescribeJobs", "404", 404, HTML_404, REJECTED, NOT_SENT),
        ("DescribeTasks", "404", 404, "", REJECTED, NOT_SENT),
        ("DescribeJobs", "400", 400, "<html><h1>Bad Request</h1></html>", REJECTED, NOT_SENT),
        ("DescribeJobs", "SomethingNew", 400, "", REJECTED, NOT_SENT),
        ("DescribeJobs", "SomethingNew", None, "", REJECTED, NOT_SENT),
        ("DescribeJobs", "ClientException", 400, "Malformed job id", REJECTED, NOT_SENT),
        (
            "SubmitJob",
            "ClientException",
            400,
            "JobDefinition name d does not exist or is not in ACTIVE status",
            REJECTED,
            NOT_SENT,
        ),
        (
            "SubmitJob",
            "ClientException",
            400,
            "Error executing request, Exception : Job name should match valid pattern, RequestId: 1",
            REJECTED,
            NOT_SENT,
        ),
        ("SubmitJob", "413", 413, "Request Entity Too Large", REJECTED, NOT_SENT),
        (
            "RunTask",
            "InvalidParameterException",
            400,
            "Container Overrides length must be at most 8192",
            REJECTED,
            NOT_SENT,
        ),
        ("RunTask", "InvalidParameterException", 400, "TaskDefinition is inactive", REJECTED, NOT_SENT),
        (
            "RunTask",
            "InvalidParameterException",
            400,
            "No Container Instances were found in your cluster.",
            REJECTED,
            NOT_SENT,
        ),
        ("RunTask", "ClientException", 400, "TaskDefinition not found.", REJECTED, NOT_SENT),
        (
            "RunTask",
            "ClientException",
            400,
            "ECS was unable to assume the role 'arn:aws:iam::1:role/r' that was provided",
            REJECTED,
            NOT_SENT,
        ),
        ("RunTask", "ConflictException", 400, "The provided clientToken is already in use", REJECTED, NOT_SENT),
        ("RunTask", "PlatformUnknownException", 400, "", REJECTED, NOT_SENT),
        ("RunTask", "UnsupportedFeatureException", 400, "", REJECTED, NOT_SENT),
        ("StopTask", "InvalidParameterException", 400, "The referenced task was not found.", REJECTED, NOT_SENT),
        ("StartJobRun", "InvalidInputException", 400, "Worker type is not supported", REJECTED, NOT_SENT),
        ("StopCrawler", "CrawlerNotRunningException", 400, "", REJECTED, NOT_SENT),
        ("StopCrawler", "CrawlerStoppingException", 400, "", REJECTED, NOT_SENT),
        ("ListCrawls", "ValidationException", 400, "1 validation error detected", REJECTED, NOT_SENT),
        ("GetLogEvents", "InvalidParameterException", 400, "The specified nextToken is invalid.", REJECTED, NOT_SENT),
        (
            "ReceiveMessage",
            "InvalidAddress",
            404,
            "The address https://x/ is not valid for this endpoint.",
            REJECTED,
            NOT_SENT,
        ),
        ("DeleteMessage", "ReceiptHandleIsInvalid", 404, "The input receipt handle is invalid.", REJECTED, NOT_SENT),
        ("ReceiveMessage", "KMS.DisabledException", 400, "", REJECTED, NOT_SENT),
        ("RunTask", "UnknownOperationException", 400, "", REJECTED, NOT_SENT),
        # --- codes with a namespace ---
        ("RunTask", "com.amazonaws.ecs#ThrottlingException", 400, "", THROTTLED, NOT_SENT),
    ]
]

FAILURES = [
    Failure("RESOURCE:CPU", "", NO_CAPACITY),
    Failure("RESOURCE:MEMORY", "", NO_CAPACITY),
    Failure("RESOURCE:ENI", "", NO_CAPACITY),
    Failure("RESOURCE:PORTS", "", NO_CAPACITY),
    Failure("RESOURCE:GPU", "", NO_CAPACITY),
    Failure("AGENT", "", NO_CAPACITY),
    Failure("EMPTY CAPACITY PROVIDER", "", NO_CAPACITY),
    Failure("NO ACTIVE INSTANCES", "", NO_CAPACITY),
    Failure(
        "Capacity is unavailable at this time. Please try again later or in a different availability zone",
        "",
        NO_CAPACITY,
    ),
    Failure("You've reached the limit on the number of tasks you can run concurrently", "", NO_CAPACITY),
    Failure("You've reached the limit on the number of vCPUs you can run concurrently", "", NO_CAPACITY),
    Failure("distinctInstance placement constraint unsatisfied.", "", NO_CAPACITY),
    Failure("Rate exceeded", "", THROTTLED),
    Failure("ThrottlingException", "Rate exceeded", THROTTLED),
    Failure("Tasks provisioning capacity limit exceeded.", "", THROTTLED),
    Failure("ATTRIBUTE", "", REJECTED),
    Failure("LOCATION", "", REJECTED),
    Failure("INACTIVE", "", REJECTED),
    Failure("MISSING", "", REJECTED),
    Failure("memberOf placement constraint unsatisfied.", "", REJECTED),
    Failure("memberOf constraint unsatisfied.", "", REJECTED),
    Failure("SomethingNew", "", TRANSIENT),
    Failure("", "", TRANSIENT),
]

__all__ = ["CLIENT_CREATION", "FAILURES", "RESPONSES", "Failure", "Response"]
