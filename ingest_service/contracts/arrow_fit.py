"""Single Arrow values to those of a contract's columns: which types fit, and which of their values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ingest_service.contracts.contract import Column
from ingest_service.contracts.decode import search
from ingest_service.contracts.field_column import TIMESTAMP_TYPE
from ingest_service.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Fitted:
    """A column that fits: as protobuf types it, or finished (of the contract's type), and the rows that don't fit.

    A row that does not fit is null here.
    """

    values: pa.Array
    finished: bool
    misfits: tuple[int, ...]


def check_type(column: Column, wire: pa.DataType, sent: pa.DataType, name: str) -> None:
    """Raises BadRequest when no value of the type sent can be the column's, or only by losing something.

    name: what messages call the column.
    """
    kind = sent.value_type if pt.is_dictionary(sent) else sent
    if pt.is_null(kind):
        return
    wanted = f"column {name!r}: expected {column.type}, came {sent}"
    _check_scale(kind, wanted)
    if column.is_decimal:
        if pt.is_floating(kind):
            raise BadRequest(f'{wanted}; a float is not exact: send {column.type}, or text such as "-1.5"')
        fits = _is_text(kind) or pt.is_integer(kind) or pt.is_decimal(kind)
    elif wire == TIMESTAMP_TYPE:
        if pt.is_timestamp(kind) and kind.tz is None:
            raise BadRequest(
                f"{wanted}; a time without a zone may be any of 38 hours: declare its zone, for example with "
                'pyarrow.compute.assume_timezone(column, "Europe/London")'
            )
        fits = pt.is_timestamp(kind)
    elif pt.is_duration(wire):
        # Integers are microseconds, as the column has them from the log on.
        fits = pt.is_duration(kind) or pt.is_integer(kind)
    elif pt.is_integer(wire):
        fits = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)
    elif pt.is_floating(wire):
        fits = pt.is_integer(kind) or pt.is_floating(kind)
    elif pt.is_boolean(wire):
        fits = pt.is_boolean(kind)
    elif pt.is_string(wire):
        fits = _is_text(kind)
    else:
        fits = pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind)
    if not fits:
        raise BadRequest(f"{wanted}; cast the column before sending it")


def fit(column: Column, wire: pa.DataType, values: pa.Array, max_bytes: int, name: str) -> Fitted:
    """Casts a column whose type `check_type` let pass; values that don't fit become misfits.

    Raises BadRequest when a dictionary's values, written out, exceed `max_bytes`.
    """
    if pt.is_dictionary(values.type):
        _check_dictionary(name, values, max_bytes)
        values = values.dictionary_decode()
    if pt.is_null(values.type):
        return Fitted(pa.nulls(len(values), wire), finished=False, misfits=())
    if column.is_decimal and not _is_text(values.type):
        return _cast(_exact_integers(values), column.type, finished=True)
    if wire == TIMESTAMP_TYPE:
        return _cast(_whole_microseconds(values), wire, finished=False)
    if pt.is_duration(wire):
        whole = _cast(_whole_durations(values), pa.int64(), finished=False)
        return replace(whole, values=whole.values.cast(wire))
    fitted = _cast(values, wire, finished=False)
    if pt.is_float32(wire):
        # Arrow makes a double that float32 cannot hold infinite.
        lost = pc.and_(pc.is_inf(fitted.values), pc.is_finite(values))
        return _without(fitted.values, pc.indices_nonzero(pc.fill_null(lost, False)).to_pylist(), wire, finished=False)
    return fitted


def _check_scale(kind: pa.DataType, wanted: str) -> None:
    """Arrow takes any scale from a stream, and its casts crash the process where it is beyond all measure."""
    if pt.is_decimal(kind) and not 0 <= kind.scale <= kind.precision:
        raise BadRequest(f"{wanted}; expected a scale of 0 to the precision: cast the column before sending it")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind))


def _cast(values: pa.Array, target: pa.DataType, *, finished: bool) -> Fitted:
    """Arrow's safe cast; where it fails, the rows at fault are found and made null."""
    try:
        return Fitted(values.cast(target), finished=finished, misfits=())
    except pa.ArrowInvalid:
        _, failed = search(len(values), lambda start, end: values[start:end].cast(target), pa.ArrowInvalid)
        return _without(values, sorted(failed), target, finished=finished)


def _without(values: pa.Array, misfits: list[int], target: pa.DataType, *, finished: bool) -> Fitted:
    if not misfits:
        return Fitted(values.cast(target), finished=finished, misfits=())
    positions = pa.array(range(len(values)), pa.int64())
    keep = pc.invert(pc.is_in(positions, value_set=pa.array(misfits, pa.int64())))
    kept = pc.if_else(keep, values, pa.scalar(None, values.type))
    return Fitted(kept.cast(target), finished=finished, misfits=tuple(misfits))


def _exact_integers(values: pa.Array) -> pa.Array:
    """Arrow casts an integer only to a decimal that could hold every integer: go by way of one that does."""
    return values.cast(pa.decimal128(20, 0)) if pt.is_integer(values.type) else values


def _whole_microseconds(values: pa.Array) -> pa.Array:
    """Nanoseconds floored to microseconds, as they are when they come as protobuf; other units as they are, in UTC."""
    # The zone only says how a time is shown; replacing it keeps Arrow from looking a made-up zone up.
    utc = values.cast(pa.timestamp(values.type.unit, "UTC"))
    if values.type.unit != "ns":
        return utc
    ns = utc.cast(pa.int64())
    us = pc.divide(ns, 1000)
    return pc.subtract(us, pc.greater(pc.multiply(us, 1000), ns).cast(pa.int64())).cast(TIMESTAMP_TYPE)


def _whole_durations(values: pa.Array) -> pa.Array:
    """Microseconds as integers; nanoseconds are cut off, as they are when they come as protobuf."""
    if not pt.is_duration(values.type):
        return values
    if values.type.unit == "ns":
        return pc.divide(values.cast(pa.int64()), 1000)
    # To microseconds as decimals: seconds may be more than 64 bits of them hold, which is for the cast to find.
    per_unit = pa.scalar(Decimal({"s": 10**6, "ms": 10**3, "us": 1}[values.type.unit]), pa.decimal128(7, 0))
    return pc.multiply(values.cast(pa.int64()).cast(pa.decimal128(20, 0)), per_unit)


def _check_dictionary(name: str, values: pa.DictionaryArray, max_bytes: int) -> None:
    """One long value may stand in every row: refuse before it is written out for each."""
    kind = values.type.value_type
    if not (_is_text(kind) or pt.is_binary(kind) or pt.is_large_binary(kind)):
        return
    size_bytes = pc.sum(pc.take(pc.binary_length(values.dictionary).cast(pa.int64()), values.indices)).as_py() or 0
    if size_bytes > max_bytes:
        raise BadRequest(
            f"column {name!r}: expected at most {max_bytes} bytes, came {size_bytes} once its dictionary is "
            "written out; send several smaller batches"
        )
