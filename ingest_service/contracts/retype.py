"""A column between its two types: the wire's, as the decoder gives it, and the contract's, as the log keeps it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ingest_service.contracts.contract import Column
from ingest_service.contracts.leaves import KEY, VALUE, entries

_PLAIN_SCALE_MAX = 6
"""Up to this scale Arrow writes decimals without an exponent."""

_Single = Callable[[Column, pa.Array, pa.DataType], pa.Array]


def to_contract(column: Column, values: pa.Array) -> pa.Array:
    """Values that the contract's rules allow, in the contract's type; the wire has text for decimals, for example."""
    return _retyped(column, values, column.type, _cast)


def to_wire(column: Column, values: pa.Array, wire: pa.DataType) -> pa.Array:
    """The other way round: decimals are written with all digits of their scale, a list that is null has no elements."""
    return _retyped(column, values, wire, _on_the_wire)


def _retyped(column: Column, values: pa.Array, wanted: pa.DataType, single: _Single) -> pa.Array:
    if values.type == wanted:
        return values
    if pt.is_struct(wanted):
        children = {child.name: child for child in column.children}
        fields = [wanted.field(i) for i in range(wanted.num_fields)]
        # What a null has within it may be anything: so it is made null too.
        within = [pc.struct_field(values, field.name) for field in fields]
        arrays = [
            _retyped(children[field.name], each, field.type, single) for field, each in zip(fields, within, strict=True)
        ]
        return pa.StructArray.from_arrays(arrays, fields=fields, mask=values.is_null())
    if pt.is_map(values.type):
        return _retyped_map(column, values, wanted, single)
    if pt.is_list(wanted):
        elements = _retyped(column.children[0], pc.list_flatten(values), wanted.value_type, single)
        return pa.ListArray.from_arrays(_bounds(values), elements, type=wanted)
    return single(column, values, wanted)


def _retyped_map(column: Column, values: pa.Array, wanted: pa.DataType, single: _Single) -> pa.Array:
    """`wanted`: a map, or a list of structs of a key and a value, which is the same to protobuf."""
    fields = [wanted.key_field, wanted.item_field] if pt.is_map(wanted) else list(wanted.value_type)
    pairs, _ = entries(values)
    keys, items = (
        _retyped(child, pc.struct_field(pairs, name), field.type, single)
        for child, name, field in zip(column.children, (KEY, VALUE), fields, strict=True)
    )
    if pt.is_map(wanted):
        return pa.MapArray.from_arrays(_bounds(values), keys, items, type=wanted)
    return pa.ListArray.from_arrays(
        _bounds(values), pa.StructArray.from_arrays([keys, items], fields=fields), type=wanted
    )


def _cast(column: Column, values: pa.Array, wanted: pa.DataType) -> pa.Array:
    del column
    return values.cast(wanted)


def _on_the_wire(column: Column, values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if column.is_decimal:
        assert column.scale is not None
        return _plain_text(values, column.scale)
    return values.cast(wanted)


def _bounds(values: pa.Array) -> pa.Array:
    """Where each list begins among all elements, and where the last ends; null is a list without elements."""
    lists = values.cast(pa.list_(values.type.field(0))) if pt.is_map(values.type) else values
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])


def _plain_text(values: pa.Array, scale: int) -> pa.Array:
    """Decimals as text with all digits of their scale, and never an exponent."""
    if scale <= _PLAIN_SCALE_MAX:
        return values.cast(pa.string())
    # Arrow writes small numbers as "1E-7", whole ones never: so the point is set by hand.
    negative = pc.less(values, pa.scalar(Decimal(0), values.type))
    buffers = pc.abs(values).buffers()
    whole = pa.Array.from_buffers(pa.decimal128(values.type.precision, 0), len(values), buffers)
    digits = pc.utf8_lpad(whole.cast(pa.string()), width=scale + 1, padding="0")
    text = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(digits, 0, -scale), pc.utf8_slice_codeunits(digits, -scale), "."
    )
    return pc.binary_join_element_wise(pc.if_else(negative, "-", ""), text, "")
