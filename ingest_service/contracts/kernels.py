"""Arrow kernels for the rules of one field: each takes a column, and says of each row whether the rule is proven."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import FieldDescriptor

from ingest_service.contracts.portable_pattern import is_portable

Kernel = Callable[[pa.Array], pa.Array]
"""Takes a column, gives whether the rule is proven for each row; null where the value is null."""

Given = Mapping[str, Any]
"""A field's rules by name, those that are set."""

_INTEGERS = frozenset(f"{sign}{bits}" for sign in ("int", "uint", "sint", "fixed", "sfixed") for bits in (32, 64))
_FLOATS = frozenset({"float", "double"})
_COMPARE = {"gt": "greater", "gte": "greater_equal", "lt": "less", "lte": "less_equal"}
_LENGTHS = {
    **dict.fromkeys(("min_len", "min_bytes"), "greater_equal"),
    **dict.fromkeys(("max_len", "max_bytes"), "less_equal"),
    **dict.fromkeys(("len", "len_bytes"), "equal"),
}
_MATCHES: dict[str, Callable[[pa.Array, str], pa.Array]] = {
    "prefix": lambda values, text: pc.starts_with(values, pattern=text),
    "suffix": lambda values, text: pc.ends_with(values, pattern=text),
    "contains": lambda values, text: pc.match_substring(values, pattern=text),
    "not_contains": lambda values, text: pc.invert(pc.match_substring(values, pattern=text)),
}
_LONGEST = 2**31 - 1
"""Arrow measures strings in int32, rules in uint64."""
_LATEST_S = 253_402_300_800
"""Year 10000."""


def kernels_of(kind: str, given: Given, field: FieldDescriptor, column: pa.DataType) -> tuple[Kernel, ...] | None:
    """The kernels that together prove the rules `given` (of the kind "int64", "string", …); None where one has none.

    column: the Arrow type of the values that the kernels will see.
    """
    if kind in _INTEGERS or kind in _FLOATS:
        kernels = [_number_kernel(name, value, column) for name, value in given.items()]
    elif kind == "string":
        kernels = [_string_kernel(name, value, column) for name, value in given.items()]
    elif kind == "bytes":
        kernels = [_bytes_kernel(name, value, column) for name, value in given.items()]
    elif kind == "bool":
        kernels = [_bool_kernel(name, value, column) for name, value in given.items()]
    elif kind == "enum":
        kernels = [_enum_kernel(name, value, field, column) for name, value in given.items()]
    elif kind == "timestamp":
        kernels = [_timestamp_kernel(name, value, column) for name, value in given.items()]
    else:
        return None
    known = tuple(kernel for kernel in kernels if kernel is not None)
    return known if len(known) == len(kernels) and _encloses(given) else None


def _encloses(given: Given) -> bool:
    """Whether lower and upper bound, where both are set, enclose a range; the other way round they exclude one."""
    lower = given.get("gt", given.get("gte"))
    upper = given.get("lt", given.get("lte"))
    if lower is None or upper is None:
        return True
    if hasattr(lower, "ToNanoseconds"):
        return bool(lower.ToNanoseconds() < upper.ToNanoseconds())
    return bool(lower < upper)


def _number_kernel(name: str, value: Any, column: pa.DataType) -> Kernel | None:
    if name in _COMPARE:
        return _comparison(_COMPARE[name], pa.scalar(value, column))
    if name == "const":
        return _comparison("equal", pa.scalar(value, column))
    if pa.types.is_floating(column):
        # Lists are left to protovalidate: Arrow finds NaN in a list, and takes -0.0 and 0.0 for two values.
        return pc.is_finite if name == "finite" and value else None
    return _membership(name, list(value), column)


def _bool_kernel(name: str, value: Any, column: pa.DataType) -> Kernel | None:
    return _comparison("equal", pa.scalar(value, column)) if name == "const" else None


def _enum_kernel(name: str, value: Any, field: FieldDescriptor, column: pa.DataType) -> Kernel | None:
    if name == "defined_only" and field.enum_type is not None:
        return _membership("in", list(field.enum_type.values_by_number), column) if value else None
    return _number_kernel(name, value, column) if name in ("const", "in", "not_in") else None


def _string_kernel(name: str, value: Any, column: pa.DataType) -> Kernel | None:
    if name in _LENGTHS:
        return _length_kernel(name, value, "binary_length" if name.endswith("bytes") else "utf8_length")
    if name == "pattern":
        return _pattern_kernel(value)
    if name in _MATCHES:
        return lambda values: _MATCHES[name](values, value)
    if name == "const":
        return _comparison("equal", pa.scalar(value, column))
    return _membership(name, list(value), column) if name in ("in", "not_in") else None


def _bytes_kernel(name: str, value: Any, column: pa.DataType) -> Kernel | None:
    if name in _LENGTHS:
        return _length_kernel(name, value, "binary_length")
    if name == "const":
        return _comparison("equal", pa.scalar(value, column))
    return _membership(name, list(value), column) if name in ("in", "not_in") else None


def _length_kernel(name: str, value: int, measure: str) -> Kernel:
    length = pc.get_function(measure)
    compare = _comparison(_LENGTHS[name], pa.scalar(min(value, _LONGEST), pa.int32()))
    return lambda values: compare(length.call([values]))


def _pattern_kernel(pattern: str) -> Kernel | None:
    if not is_portable(pattern):
        return None
    try:
        pc.match_substring_regex(pa.array([""]), pattern=pattern)
    except pa.ArrowInvalid:
        return None
    return lambda values: pc.match_substring_regex(values, pattern=pattern)


def _timestamp_kernel(name: str, value: Any, column: pa.DataType) -> Kernel | None:
    """Rows hold whole microseconds, the rule may hold nanoseconds: what is within one of the bound is not proven."""
    if name not in _COMPARE or abs(value.seconds) > _LATEST_S:
        return None
    bound_us = value.ToNanoseconds() // 1000
    if name in ("gt", "gte"):
        return _comparison("greater", pa.scalar(bound_us + 1, column))
    return _comparison("less", pa.scalar(bound_us - 1, column))


def _membership(name: str, members: list[Any], column: pa.DataType) -> Kernel | None:
    if name not in ("in", "not_in"):
        return None
    if len(members) == 1:
        return _comparison("equal" if name == "in" else "not_equal", pa.scalar(members[0], column))
    value_set = pa.array(members, column)
    if name == "in":
        return lambda values: pc.is_in(values, value_set=value_set)
    return lambda values: pc.invert(pc.is_in(values, value_set=value_set))


def _comparison(compare: str, bound: pa.Scalar) -> Kernel:
    function = pc.get_function(compare)
    return lambda values: function.call([values, bound])
