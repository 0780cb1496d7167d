"""The table of faults against botocore: its exceptions, its models, and its own retry rules."""

from __future__ import annotations

import functools
import inspect
import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.retries import standard

from airflow_jobflow.faults import Fault, classify, request_sent

RETRIES: Any = standard  # botocore's own lists are not public
THROTTLING_CODES = RETRIES.ThrottledRetryableChecker._THROTTLED_ERROR_CODES
TRANSIENT = RETRIES.TransientRetryableChecker

LISTS = tomllib.loads(Path(__file__).with_name("faults_corpus.toml").read_text())
EXPECTED = {
    name: (Fault(part["fault"]), part["sent"]) for part in LISTS["botocore_exceptions"] for name in part["names"]
}
EXCEPTIONS = {
    name: cls
    for name, cls in inspect.getmembers(exceptions, inspect.isclass)
    if cls.__module__ == exceptions.__name__
    and issubclass(cls, Exception)
    and not issubclass(cls, (exceptions.ClientError, Warning))
}
ERRORS = [
    (model["service"], code, Fault(fault))
    for model in LISTS["models"]
    for fault, codes in model["errors"].items()
    for code in codes
]
CALLED = {"sts": "AssumeRole", "sso": "GetRoleCredentials", "sso-oidc": "CreateToken"}
"""The operations whose errors are tested for services that provide credentials; for other services the operation does
not matter.
"""


@functools.cache
def model(service: str) -> ServiceModel:
    """Return botocore's model of a service."""
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def error(code: str, status: int = 400, operation: str = "DescribeJobs") -> exceptions.ClientError:
    """Return a response as botocore raises it."""
    response: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return exceptions.ClientError(response, operation)


def raised(cls: type[Exception]) -> Exception:
    """Return an exception of botocore, created like botocore creates it."""
    fields = {name for _, name, _, _ in string.Formatter().parse(getattr(cls, "fmt", "")) if name}
    more: dict[str, Any] = {"last_response": {}} if cls is exceptions.WaiterError else {}
    return cls(**{name: name for name in fields}, **more)


def test_every_exception_of_botocore_is_classified() -> None:
    """A new exception of botocore must be added to the file."""
    assert set(EXCEPTIONS) - set(EXPECTED) == set()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_exception_of_botocore_is_classified_as_expected(name: str) -> None:
    """Its class and base classes decide."""
    if name in EXCEPTIONS:  # older versions do not have all of them
        example = raised(EXCEPTIONS[name])
        assert (classify(example), request_sent(example)) == EXPECTED[name]


@pytest.mark.parametrize("lists", LISTS["models"], ids=lambda each: each["service"])
def test_every_error_in_the_models_is_classified(lists: dict[str, Any]) -> None:
    """The file contains the errors of the operations that we call; a newer botocore may add some."""
    service = model(lists["service"])
    modelled = {shape.name for name in lists["operations"] for shape in service.operation_model(name).error_shapes}
    assert modelled - {code for codes in lists["errors"].values() for code in codes} == set()


@pytest.mark.parametrize(("service", "name", "fault"), ERRORS)
def test_an_error_in_the_models_is_classified_as_expected(service: str, name: str, fault: Fault) -> None:
    """Its code decides, and the HTTP status of the model, 400 if it has none."""
    metadata = model(service).shape_for(name).metadata.get("error", {})
    status = metadata.get("httpStatusCode", 500 if name == "ServerException" else 400)
    operation = CALLED.get(service, "DescribeJobs")
    for code in {name, metadata.get("code", name)}:
        assert classify(error(code, status, operation)) is fault


@pytest.mark.parametrize("code", THROTTLING_CODES)
@pytest.mark.parametrize("status", [400, 403, 429, 503])
def test_a_code_that_botocore_treats_as_throttling_is_throttled(code: str, status: int) -> None:
    """Botocore's standard mode decides by the code."""
    assert classify(error(code, status)) is Fault.THROTTLED


@pytest.mark.parametrize("code", ["", "429", "SomethingNew", "ClientException"])
def test_a_status_that_botocore_treats_as_throttling_is_throttled(code: str) -> None:
    """This holds with a code that says no more than the status, and without one."""
    assert classify(error(code, 429)) is Fault.THROTTLED


@pytest.mark.parametrize("code", sorted({*TRANSIENT._TRANSIENT_ERROR_CODES} - {*THROTTLING_CODES}))
def test_a_code_that_botocore_treats_as_transient_is_transient(code: str) -> None:
    """PriorRequestNotComplete is in both of botocore's lists; botocore treats it as throttling, and so do we."""
    assert classify(error(code)) is Fault.TRANSIENT


@pytest.mark.parametrize("status", TRANSIENT._TRANSIENT_STATUS_CODES)
@pytest.mark.parametrize("code", ["", "ClientException", "InvalidParameterException", "SomethingNew"])
def test_a_status_that_botocore_treats_as_transient_is_transient(status: int, code: str) -> None:
    """This holds for all codes, unless a code says more than the status."""
    assert classify(error(code or str(status), status)) is Fault.TRANSIENT
    assert request_sent(error(code or str(status), status))


@pytest.mark.parametrize("cls", TRANSIENT._TRANSIENT_EXCEPTION_CLS)
def test_an_exception_that_botocore_treats_as_transient_is_transient(cls: type[Exception]) -> None:
    """This includes derived classes."""
    for name, each in EXCEPTIONS.items():
        if issubclass(each, cls):
            assert EXPECTED[name][0] is Fault.TRANSIENT


def _legacy() -> list[tuple[str, str, int]]:
    """Return service, code and status of what botocore's legacy mode retries, for the services that we use."""
    data = Loader().load_data("_retry")
    policies = [("", data["retry"]["__default__"]["policies"])]
    policies += [(name, data["retry"][name]["__default__"]["policies"]) for name in ("ec2", "sqs", "sts")]
    rows = []
    for service, named in policies:
        for key, policy in named.items():
            when = (data["definitions"][key] if "$ref" in policy else policy)["applies_when"]
            response = when.get("response", {})
            if response:
                rows.append((service, response.get("service_error_code", ""), response["http_status_code"]))
    return rows


@pytest.mark.parametrize(("service", "code", "status"), _legacy())
def test_what_botocores_legacy_mode_retries_is_throttled_or_transient(service: str, code: str, status: int) -> None:
    """Its table distinguishes the two by name only."""
    operation = CALLED.get(service, "DescribeJobs")
    assert classify(error(code or str(status), status, operation)) in {Fault.THROTTLED, Fault.TRANSIENT}
