"""Converts rendered values to the types of AWS's requests, as botocore describes them.

A template renders text, or with native rendering a value of whatever type the text looks like. So a value may have
another type than its member: ``20260101`` where AWS takes a string, ``"3"`` where it takes a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_jobflow import params, params_json
from airflow_jobflow.exceptions import invalid_parameter

if TYPE_CHECKING:
    from botocore.model import Shape

LABELS = ("name", "Name", "key", "Key", "type", "capacityProvider")
"""Members that name an element of a list in errors, instead of its index."""


@cache
def input_shape(service: str, operation: str, member: str = "") -> Shape:
    """Return the shape of a request, or of one of its members. The first call reads botocore's model, about 20 ms.

    :param service: AWS's name of the service, such as ``batch``.
    :param operation: such as ``SubmitJob``.
    :param member: such as ``containerOverrides``. Default: the whole request.
    """
    request: Any = _model(service).operation_model(operation).input_shape
    shape: Shape = request.members[member] if member else request
    return shape


@cache
def _model(service: str) -> Any:
    from botocore.model import ServiceModel

    return ServiceModel(loader().load_service_model(service, "service-2"), service)


@cache
def loader() -> Any:
    """Return the loader of botocore's models: one for the process, so that each model is read once."""
    from botocore.loaders import Loader

    return Loader()


def fit(parameter: str, value: Any, shape: Any) -> Any:
    """Convert a value to the type that AWS takes: numbers to text where it takes a string, and the other way round.

    :param parameter: names the value in errors; a member is added with a dot, an element in brackets.
    :param value: the rendered value.
    :param shape: botocore's description of what AWS takes.
    :return: the converted value.
    :raises InvalidParameter: it cannot be converted: a None, an unknown member, text where there must be a number.
    """
    kind = str(shape.type_name)
    if kind in CONTAINERS:
        return CONTAINERS[kind](parameter, value, shape)
    return SCALARS[kind](parameter, value) if kind in SCALARS else value


def _structure(parameter: str, value: Any, shape: Any) -> dict[str, Any]:
    members = params_json.mapping(parameter, value)
    if unknown := [name for name in members if name not in shape.members]:
        rule = f"AWS has no member {unknown[0]!r} here; there are {', '.join(shape.members)}"
        raise invalid_parameter(parameter, value, rule)
    return {name: fit(f"{parameter}.{name}", each, shape.members[name]) for name, each in members.items()}


def _list(parameter: str, value: Any, shape: Any) -> list[Any]:
    elements = params_json.elements(parameter, value)
    return [fit(f"{parameter}[{_label(place, each)}]", each, shape.member) for place, each in enumerate(elements)]


def _label(place: int, element: Any) -> str:
    """Return what names an element of a list in errors: its own name, or its index."""
    members = element if isinstance(element, Mapping) else {}
    return next((repr(members[label]) for label in LABELS if isinstance(members.get(label), str)), str(place))


def _map(parameter: str, value: Any, shape: Any) -> dict[str, Any]:
    members = params_json.mapping(parameter, value)
    return {
        params_json.map_key(parameter, name): fit(f"{parameter}[{name!r}]", each, shape.value)
        for name, each in members.items()
    }


SCALARS: Mapping[str, Callable[[str, Any], Any]] = {
    "string": params_json.as_text,
    "integer": params.integer,
    "long": params.integer,
    "float": params.number,
    "double": params.number,
    "boolean": params.boolean,
}
"""The conversion for each type of botocore's that has no members. Blobs, timestamps and documents stay as they are."""

CONTAINERS: Mapping[str, Callable[[str, Any, Any], Any]] = {"structure": _structure, "list": _list, "map": _map}
"""The conversion for each type that has members or elements."""
