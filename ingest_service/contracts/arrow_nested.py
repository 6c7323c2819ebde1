"""Arrow columns to a contract's columns, with what is within them: lists, structs and maps, down to single values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ingest_service.contracts import arrow_fit
from ingest_service.contracts.contract import Column
from ingest_service.contracts.leaves import KEY, VALUE, entries
from ingest_service.contracts.own_rules import NULL, TYPE
from ingest_service.contracts.shown import shown_scalar
from ingest_service.errors import BadRequest


class Misfit(NamedTuple):
    """A value that its column cannot hold; `field` says where in the column it is, "lines[].price"."""

    row: int
    rule: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """A column that fits: as protobuf types it, or finished (a decimal of the contract's type). Misfits are null."""

    values: pa.Array
    misfits: tuple[Misfit, ...] = ()
    finished: bool = False


def check_type(column: Column, wire: pa.DataType, sent: pa.DataType, name: str = "") -> None:
    """Raises BadRequest when no value of the type sent can be the column's, or only by losing something.

    name: where in its column it is, for messages; the column's own name if empty.
    """
    name = name or column.name
    if not column.children:
        arrow_fit.check_type(column, wire, sent, name)
    elif pt.is_null(sent):
        return
    elif pt.is_struct(wire):
        if not pt.is_struct(sent):
            raise _wrong(column, sent, name, "a struct with the message's fields")
        _check_fields(column, wire, sent, name)
    elif pt.is_map(wire):
        pair = pa.struct([(KEY, sent.key_type), (VALUE, sent.item_type)]) if pt.is_map(sent) else _element(sent)
        if pair is None or not pt.is_struct(pair) or sorted(each.name for each in pair) != [KEY, VALUE]:
            raise _wrong(column, sent, name, "a map, or a list of structs of `key` and `value`")
        for child, kind in zip(column.children, (wire.key_type, wire.item_type), strict=True):
            check_type(child, kind, pair.field(child.name).type, f"{name}[].{child.name}")
    else:
        element = _element(sent)
        if element is None:
            raise _wrong(column, sent, name, "a list")
        check_type(column.children[0], wire.value_type, element, f"{name}[]")


def fit(column: Column, wire: pa.DataType, values: pa.Array, max_bytes: int, name: str = "") -> Fitted:
    """Casts a column whose type `check_type` let pass; values that don't fit become misfits.

    wire: protobuf's type, `with_nulls`. A list or map that is missing is an empty one: protobuf does not tell them
    apart. Raises BadRequest when a dictionary's values, written out, exceed `max_bytes`.
    """
    name = name or column.name
    if pt.is_null(values.type):
        return Fitted(absent(wire, len(values)))
    if column.children and name == column.name:
        values = relaxed(values)
    if pt.is_struct(wire):
        return _fit_struct(column, wire, values, max_bytes, name)
    if pt.is_map(wire):
        return _fit_map(column, wire, values, max_bytes, name)
    if pt.is_list(wire):
        return _fit_list(column, wire, values, max_bytes, name)
    fitted = arrow_fit.fit(column, wire, values, max_bytes, name)
    misfits = (
        Misfit(row, TYPE, name, f"expected {column.type}, came {shown_scalar(values[row])}") for row in fitted.misfits
    )
    return Fitted(fitted.values, tuple(misfits), fitted.finished)


def with_nulls(wire: pa.DataType) -> pa.DataType:
    """protobuf's type with nulls allowed everywhere within: where a value did not fit, there is one."""
    if pt.is_struct(wire):
        return pa.struct([pa.field(each.name, with_nulls(each.type)) for each in wire])
    if pt.is_map(wire):
        return pa.map_(wire.key_type, with_nulls(wire.item_type))
    if pt.is_list(wire):
        return pa.list_(with_nulls(wire.value_type))
    return wire


def relaxed(values: pa.Array) -> pa.Array:
    """The same values in types that allow nulls everywhere within; maps are lists of structs of `key` and `value`.

    Arrow's own validation lets nulls pass in fields that are declared without, and its functions fail on them.
    """
    kind = values.type
    if pt.is_struct(kind):
        return _relaxed_struct(values, [field.name for field in kind])
    if not (pt.is_map(kind) or _element(kind)):
        return values
    inner = _relaxed_struct(values.values, [KEY, VALUE]) if pt.is_map(kind) else relaxed(values.values)
    if pt.is_fixed_size_list(kind):
        list_type, buffer_count = pa.list_(inner.type, kind.list_size), 1
    else:
        list_type, buffer_count = pa.large_list(inner.type) if pt.is_large_list(kind) else pa.list_(inner.type), 2
    buffers = values.buffers()[:buffer_count]
    return pa.Array.from_buffers(list_type, len(values), buffers, offset=values.offset, children=[inner])


def _relaxed_struct(values: pa.StructArray, names: list[str]) -> pa.StructArray:
    parts = [relaxed(values.field(index)) for index in range(len(names))]
    fields = [pa.field(name, part.type) for name, part in zip(names, parts, strict=True)]
    return pa.StructArray.from_arrays(parts, fields=fields, mask=values.is_null() if values.null_count else None)


def absent(wire: pa.DataType, row_count: int) -> pa.Array:
    """A column that did not come: nulls, or empty lists and maps."""
    if pt.is_list(wire) or pt.is_map(wire):
        return pa.repeat(pa.scalar([], wire), row_count)
    return pa.nulls(row_count, wire)


def missing(column: Column, lacks: pa.Array, misfits: Iterable[Misfit], name: str) -> Iterator[Misfit]:
    """The rows (`lacks` is true) without a value where one has to be, but those that have a misfit there already."""
    if lacks.true_count:
        known = {each.row for each in misfits}
        for row in pc.indices_nonzero(lacks).to_pylist():
            if row not in known:
                yield Misfit(row, NULL, name, f"expected {column.type}, came nothing")


def _fit_struct(column: Column, wire: pa.DataType, values: pa.Array, max_bytes: int, name: str) -> Fitted:
    arrays, misfits = [], []
    for field in wire:
        child = next(each for each in column.children if each.name == field.name)
        if values.type.get_field_index(field.name) < 0:
            arrays.append(absent(field.type, len(values)))
            continue
        inner = f"{name}.{field.name}"
        fitted, found = _fit_within(child, field.type, pc.struct_field(values, field.name), max_bytes, inner)
        arrays.append(fitted)
        misfits += found
        if not child.nullable and fitted.null_count:
            misfits += missing(child, pc.and_(values.is_valid(), fitted.is_null()), found, inner)
    mask = values.is_null() if values.null_count else None
    return Fitted(pa.StructArray.from_arrays(arrays, fields=list(wire), mask=mask), tuple(misfits))


def _fit_list(column: Column, wire: pa.DataType, values: pa.Array, max_bytes: int, name: str) -> Fitted:
    elements, rows = entries(values)
    fitted, misfits = _fit_elements(column.children[0], wire.value_type, elements, max_bytes, f"{name}[]")
    array = pa.ListArray.from_arrays(_offsets(values), fitted, type=wire)
    return Fitted(array, _in_rows(misfits, rows))


def _fit_map(column: Column, wire: pa.DataType, values: pa.Array, max_bytes: int, name: str) -> Fitted:
    pairs, rows = entries(values)
    arrays, misfits = [], []
    for child, kind in zip(column.children, (wire.key_type, wire.item_type), strict=True):
        part = pc.struct_field(pairs, child.name)
        fitted, found = _fit_elements(child, kind, part, max_bytes, f"{name}[].{child.name}")
        arrays.append(fitted)
        misfits += found
    if arrays[0].null_count:
        # A misfit already; Arrow has no map with such a key.
        arrays[0] = pc.fill_null(arrays[0], pa.scalar("" if pt.is_string(wire.key_type) else 0).cast(wire.key_type))
    array = pa.MapArray.from_arrays(_offsets(values), *arrays, type=wire)
    return Fitted(array, _in_rows(misfits, rows))


def _fit_elements(
    child: Column, wire: pa.DataType, sent: pa.Array, max_bytes: int, name: str
) -> tuple[pa.Array, list[Misfit]]:
    """Elements of lists, keys and values of maps: protobuf has none without a value."""
    fitted, misfits = _fit_within(child, wire, sent, max_bytes, name)
    return fitted, misfits + list(missing(child, fitted.is_null(), misfits, name))


def _fit_within(
    child: Column, wire: pa.DataType, sent: pa.Array, max_bytes: int, name: str
) -> tuple[pa.Array, list[Misfit]]:
    """A part of a column; inside of one a decimal is text again, so that the whole is of one making."""
    fitted = fit(child, wire, sent, max_bytes, name)
    values = decimal_text(fitted.values) if fitted.finished else fitted.values
    return values, list(fitted.misfits)


def decimal_text(values: pa.Array) -> pa.Array:
    """Decimals as text, without an exponent: Arrow writes very small ones as "1E-7", which no pattern expects."""
    text = values.cast(pa.string())
    exponents = pc.fill_null(pc.match_substring(text, "E"), False)
    if not exponents.true_count:
        return text
    few = [format(value, "f") for value in values.filter(exponents).to_pylist()]
    return pc.replace_with_mask(text, exponents, pa.array(few, pa.string()))


def _in_rows(misfits: list[Misfit], rows: pa.Array) -> tuple[Misfit, ...]:
    return tuple(each._replace(row=rows[each.row].as_py()) for each in misfits)


def _offsets(values: pa.Array) -> pa.Array:
    """Where each row's elements begin and end among those of `entries`; a null row has none."""
    lengths = pc.fill_null(pc.list_value_length(values), 0).cast(pa.int32())
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])


def _element(sent: pa.DataType) -> pa.DataType | None:
    is_list = pt.is_list(sent) or pt.is_large_list(sent) or pt.is_fixed_size_list(sent)
    return sent.value_type if is_list else None


def _check_fields(column: Column, wire: pa.DataType, sent: pa.DataType, name: str) -> None:
    known = [child.name for child in column.children]
    names = [field.name for field in sent]
    for each in names:
        if each not in known:
            raise BadRequest(
                f"column {name!r} came with a field {each[:80]!r}, which is unknown: its fields are {', '.join(known)}"
            )
        if names.count(each) > 1:
            raise BadRequest(f"column {name!r} came with the field {each!r} {names.count(each)} times; expected once")
    for child in column.children:
        inner = f"{name}.{child.name}"
        if child.name in names:
            check_type(child, wire.field(child.name).type, sent.field(child.name).type, inner)
        elif not child.nullable:
            raise BadRequest(f"column {inner!r} is missing: expected {child.type}, and it has to have a value")


def _wrong(column: Column, sent: pa.DataType, name: str, hint: str) -> BadRequest:
    return BadRequest(f"column {name!r}: expected {column.type}, came {sent}; send {hint}")
