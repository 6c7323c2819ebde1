"""Arrow kernels for the rules of one field: each takes a column, and says of each row whether the rule is proven."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import FieldDescriptor

from ingest_service.contracts.formats import FORMATS
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
_A_MOMENT_US = 1_000_000
"""What is so near to now may look otherwise by the time that protovalidate would be asked."""


def kernels_of(kind: str, given: Given, field: FieldDescriptor, column: pa.DataType) -> tuple[Kernel, ...] | None:
    """The kernels that together prove the rules `given` (of the kind "int64", "string", …); None where one has none.

    column: the Arrow type of the values that the kernels will see.
    """
    if kind in _INTEGERS or kind in _FLOATS:
        kernels = {name: _number_kernel(name, value, column) for name, value in given.items()}
    elif kind == "string":
        kernels = {name: _string_kernel(name, value, column) for name, value in given.items()}
    elif kind == "bytes":
        kernels = {name: _bytes_kernel(name, value, column) for name, value in given.items()}
    elif kind == "bool":
        kernels = {name: _bool_kernel(name, value, column) for name, value in given.items()}
    elif kind == "enum":
        kernels = {name: _enum_kernel(name, value, field, column) for name, value in given.items()}
    elif kind in ("timestamp", "duration"):
        kernels = {name: _time_kernel(name, value, column) for name, value in given.items()}
    else:
        return None
    known = {name: kernel for name, kernel in kernels.items() if kernel is not None}
    return tuple(_with_range_excluded(given, known)) if len(known) == len(kernels) else None


def _with_range_excluded(given: Given, kernels: dict[str, Kernel]) -> Iterable[Kernel]:
    """Lower and upper bound enclose a range; where the lower one is above the upper one, they exclude it."""
    lower = next((name for name in ("gt", "gte") if name in given), None)
    upper = next((name for name in ("lt", "lte") if name in given), None)
    if lower is None or upper is None or _number(given[lower]) <= _number(given[upper]):
        return kernels.values()
    above, below = kernels.pop(lower), kernels.pop(upper)
    return [*kernels.values(), lambda values: pc.or_(above(values), below(values))]


def _number(bound: Any) -> Any:
    return bound.ToNanoseconds() if hasattr(bound, "ToNanoseconds") else bound


def _number_kernel(name: str, value: Any, column: pa.DataType) -> Kernel | None:
    if name in _COMPARE:
        return _comparison(_COMPARE[name], pa.scalar(value, column))
    if name == "const":
        return _comparison("equal", pa.scalar(value, column))
    if pa.types.is_floating(column):
        if name == "finite":
            return pc.is_finite if value else None
        return _float_membership(name, list(value), column)
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
        return _pattern_kernel(value) if is_portable(value) else None
    if name in FORMATS:
        return _pattern_kernel(FORMATS[name]) if value else None
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
    try:
        pc.match_substring_regex(pa.array([""]), pattern=pattern)
    except pa.ArrowInvalid:
        return None
    return lambda values: pc.match_substring_regex(values, pattern=pattern)


def _time_kernel(name: str, value: Any, column: pa.DataType) -> Kernel | None:
    """Rows hold whole microseconds, the rule may hold nanoseconds: what is within one of the bound is not proven."""
    if name in ("lt_now", "gt_now"):
        return _now_kernel(name, column) if value else None
    if name == "within":
        return _within_kernel(value.ToNanoseconds() // 1000, column) if value.seconds <= _LATEST_S else None
    if name not in _COMPARE or abs(value.seconds) > _LATEST_S:
        return None
    bound_us = value.ToNanoseconds() // 1000
    if name in ("gt", "gte"):
        return _comparison("greater", pa.scalar(bound_us + 1, column))
    return _comparison("less", pa.scalar(bound_us - 1, column))


def _now_kernel(name: str, column: pa.DataType) -> Kernel:
    """protovalidate takes its own clock, the system's: so does this, a moment earlier."""
    if name == "lt_now":
        return lambda values: pc.less(values, pa.scalar(_now_us() - 1, column))
    return lambda values: pc.greater(values, pa.scalar(_now_us() + _A_MOMENT_US, column))


def _within_kernel(span_us: int, column: pa.DataType) -> Kernel:
    def kernel(values: pa.Array) -> pa.Array:
        now_us = _now_us()
        earliest = pa.scalar(now_us - span_us + _A_MOMENT_US, column)
        return pc.and_(pc.greater(values, earliest), pc.less(values, pa.scalar(now_us + span_us - 1, column)))

    return kernel


def _now_us() -> int:
    return time.time_ns() // 1000


def _membership(name: str, members: list[Any], column: pa.DataType) -> Kernel | None:
    if name not in ("in", "not_in"):
        return None
    if len(members) == 1:
        return _comparison("equal" if name == "in" else "not_equal", pa.scalar(members[0], column))
    value_set = pa.array(members, column)
    if name == "in":
        return lambda values: pc.is_in(values, value_set=value_set)
    return lambda values: pc.invert(pc.is_in(values, value_set=value_set))


def _float_membership(name: str, members: list[float], column: pa.DataType) -> Kernel | None:
    """To Arrow a list may hold NaN, and -0.0 and 0.0 are two values; to the rule NaN is nothing's equal."""
    numbers = [member for member in members if member == member]  # noqa: PLR0124 - NaN alone is not itself
    if 0.0 in numbers:
        numbers += [0.0, -0.0]
    return _membership(name, numbers, column)


def _comparison(compare: str, bound: pa.Scalar) -> Kernel:
    function = pc.get_function(compare)
    return lambda values: function.call([values, bound])
