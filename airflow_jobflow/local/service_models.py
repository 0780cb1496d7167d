"""botocore's models of AWS's services, as moto loads them, and what they say of a service's answers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
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
"""botocore's names of services that sign with another one."""

XML_PROTOCOLS: Final = ("query", "ec2", "rest-xml")


@functools.cache
def model_of(service: str) -> Any:
    """Return botocore's model of a service, or None if it is not found.

    :param service: the name with which its requests are signed, such as ``batch``.
    """
    try:
        return get_service_model(MODELS.get(service, service))
    except (UnknownServiceError, ValueError, OSError):
        return None


def answers_xml(service: str) -> bool:
    """Return whether a service answers XML; all others answer JSON."""
    model = model_of(service)
    return model is not None and model.protocol in XML_PROTOCOLS


def content_type(service: str) -> str:
    """Return the content type of a service's answers."""
    if answers_xml(service):
        return "text/xml"
    model = model_of(service)
    if model is not None and model.protocol == "json":
        return f"application/x-amz-json-{model.metadata.get('jsonVersion', '1.1')}"
    return "application/json"
