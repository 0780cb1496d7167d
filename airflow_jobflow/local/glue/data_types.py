"""The types of Glue's Data Catalog, and how a crawler infers them. Pure functions.

Invariants: `merge` is a join: its result does not depend on the order or the number of merges. Two unrelated types
become ``string``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa  # type: ignore[import-untyped]

STRING: Final = "string"
BIGINT: Final = "bigint"
INT: Final = "int"
DOUBLE: Final = "double"
BOOLEAN: Final = "boolean"

WIDENING: Final = (INT, BIGINT, DOUBLE)
"""Types of numbers: each includes all values of the previous ones."""

INTEGER: Final = re.compile(r"[+-]?\d{1,20}", re.ASCII)
DECIMAL: Final = re.compile(r"[+-]?(\d+\.\d*|\.?\d+)([eE][+-]?\d+)?", re.ASCII)
TRUTH: Final = frozenset({"true", "false"})
INT_RANGE: Final = range(-(2**31), 2**31)
BIGINT_RANGE: Final = range(-(2**63), 2**63)

SCALARS: Final[Mapping[type, str | None]] = {type(None): None, bool: BOOLEAN, float: DOUBLE, str: STRING}
"""The types of other JSON values."""

ARROW: Final[Mapping[str, str]] = {
    "bool": BOOLEAN,
    "int8": "tinyint",
    "int16": "smallint",
    "int32": INT,
    "int64": BIGINT,
    "uint8": "smallint",
    "uint16": INT,
    "uint32": BIGINT,
    "uint64": "decimal(20,0)",
    "halffloat": "float",
    "float": "float",
    "double": DOUBLE,
    "string": STRING,
    "large_string": STRING,
    "binary": "binary",
    "large_binary": "binary",
    "date32[day]": "date",
    "date64[ms]": "date",
}
"""The catalog types of simple Arrow types."""


@dataclass(frozen=True, slots=True)
class Array:
    """A list. The type of its elements is None if all lists were empty."""

    element: Type | None

    def __str__(self) -> str:
        return f"array<{self.element or STRING}>"


@dataclass(frozen=True, slots=True)
class Struct:
    """An object."""

    fields: tuple[tuple[str, Type | None], ...]

    def __str__(self) -> str:
        return f"struct<{','.join(f'{name}:{kind or STRING}' for name, kind in self.fields)}>"


Type = str | Array | Struct
"""A type; None means unknown, because there were only nulls or no values."""


def of_text(value: str) -> str | None:
    """Return the type of a CSV field. Dates and times are strings, as in Glue's classifier.

    :param value: the field.
    """
    value = value.strip()
    if not value:
        return None
    if INTEGER.fullmatch(value) and int(value) in BIGINT_RANGE:
        return BIGINT
    if DECIMAL.fullmatch(value):
        return DOUBLE
    return BOOLEAN if value.lower() in TRUTH else STRING


def of_json(value: Any) -> Type | None:
    """Return the type of a JSON value.

    :param value: the value.
    """
    if isinstance(value, list):
        return Array(merge_all(map(of_json, value)))
    if isinstance(value, dict):
        return Struct(tuple((name, of_json(each)) for name, each in value.items()))
    if isinstance(value, int) and not isinstance(value, bool):
        return INT if value in INT_RANGE else BIGINT if value in BIGINT_RANGE else DOUBLE
    return SCALARS[type(value)]


def of_arrow(kind: pa.DataType) -> str:  # noqa: PLR0911 -- one for each kind of type
    """Return the type of a Parquet column.

    :param kind: its Arrow type.
    """
    import pyarrow.types as is_a  # type: ignore[import-untyped]

    if is_a.is_timestamp(kind):
        return "timestamp"
    if is_a.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind):
        return f"array<{of_arrow(kind.value_type)}>"
    if is_a.is_struct(kind):
        return f"struct<{','.join(f'{field.name}:{of_arrow(field.type)}' for field in kind.fields)}>"
    if is_a.is_map(kind):
        return f"map<{of_arrow(kind.key_type)},{of_arrow(kind.item_type)}>"
    if is_a.is_dictionary(kind):
        return of_arrow(kind.value_type)
    return ARROW.get(str(kind), STRING)


def merge(one: Type | None, other: Type | None) -> Type | None:
    """Return the type that includes the values of two types.

    :param one: a type.
    :param other: another one.
    """
    if one is None or other is None or one == other:
        return one if other is None else other
    if isinstance(one, Array) and isinstance(other, Array):
        return Array(merge(one.element, other.element))
    if isinstance(one, Struct) and isinstance(other, Struct):
        return Struct(tuple(merge_fields(dict(one.fields), dict(other.fields)).items()))
    if one in WIDENING and other in WIDENING:
        return max(str(one), str(other), key=WIDENING.index)
    return STRING


def merge_all(types: Iterable[Type | None]) -> Type | None:
    """Return the type that includes the values of several types.

    :param types: the types.
    """
    return reduce(merge, types, None)


def merge_fields(one: Mapping[str, Type | None], other: Mapping[str, Type | None]) -> dict[str, Type | None]:
    """Return the fields of two structures, in the order of their first occurrence.

    :param one: fields.
    :param other: other fields.
    """
    return {name: merge(one.get(name), other.get(name)) for name in {**one, **other}}
