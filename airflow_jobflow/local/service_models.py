"""botocore's models of the AWS services, as moto loads them, and the form of responses according to them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from botocore.exceptions import UnknownServiceError
from moto.core.utils import get_service_model

MODELS: Final[Mapping[str, str]] = {
    "elasticmapreduce": "emr",
    "email": "ses",
    "monitoring": "cloudwatch",
    "states": "stepfunctions",
    "tagging": "resourcegroupstaggingapi",
}
"""The name of the model of each service whose requests are signed with a different name."""

XML_PROTOCOLS: Final = ("query", "ec2", "rest-xml")


@functools.cache
def model_of(service: str) -> Any:
    """Return botocore's model of a service, or None if there is none.

    :param service: the name with which its requests are signed, such as ``batch``.
    """
    try:
        return get_service_model(MODELS.get(service, service))
    except (UnknownServiceError, ValueError, OSError):
        return None


def protocols_of(model: Any) -> Sequence[str]:
    """Return the protocols that a service accepts, its preferred one first.

    :param model: botocore's model of the service.
    """
    accepted: Sequence[str] = model.metadata.get("protocols") or [model.protocol]
    return accepted


def answers_xml(service: str) -> bool:
    """Return whether a service responds with XML; all others respond with JSON.

    :param service: the name with which its requests are signed.
    """
    model = model_of(service)
    return model is not None and model.protocol in XML_PROTOCOLS


def content_type(service: str) -> str:
    """Return the content type of a service's responses.

    Services that prefer CBOR are called with JSON: boto3 does so wherever a service accepts both.

    :param service: the name with which its requests are signed.
    """
    if answers_xml(service):
        return "text/xml"
    model = model_of(service)
    if model is not None and "json" in protocols_of(model):
        return f"application/x-amz-json-{model.metadata.get('jsonVersion', '1.1')}"
    return "application/json"
