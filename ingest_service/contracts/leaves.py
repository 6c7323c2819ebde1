"""What is within a column, as columns of its own: every element of every list, each with the row that it is of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ingest_service.contracts.contract import Column

KEY, VALUE = "key", "value"


class Leaf(NamedTuple):
    """A place within a column: the names of the children on the way to it, () for the column itself."""

    path: tuple[str, ...]
    column: Column


def leaves(column: Column, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """The column and every place within it, the column first."""
    yield Leaf(path, column)
    for child in column.children:
        yield from leaves(child, (*path, child.name))


def shown_path(column: Column, path: Sequence[str]) -> str:
    """A place as people write it: "lines[].price"; "labels[]" are the values of a map, "labels{}" its keys."""
    text, within = column.name, column
    for name in path:
        if pt.is_struct(within.type):
            text += f".{name}"
        else:
            text += "{}" if pt.is_map(within.type) and name == KEY else "[]"
        within = next(child for child in within.children if child.name == name)
    return text


def at(values: pa.Array, path: Sequence[str]) -> tuple[pa.Array, pa.Array | None]:
    """The values at a place within a column, and for each the row (int64) that it is of; None: row by row.

    A null on the way has nothing within it, but a struct's fields, which are null.
    """
    rows = None
    for name in path:
        if pt.is_struct(values.type):
            values = pc.struct_field(values, name)
            continue
        is_map = pt.is_map(values.type)
        values, parents = entries(values)
        values = pc.struct_field(values, name) if is_map else values
        rows = parents if rows is None else rows.take(parents)
    return values, rows


def entries(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The elements of all lists (of a map: structs of `key` and `value`), and the row that each is of."""
    if pt.is_map(values.type):
        # Arrow flattens no maps.
        pair = pa.struct([pa.field(KEY, values.type.key_type), pa.field(VALUE, values.type.item_type)])
        values = values.cast(pa.list_(pair))
    return pc.list_flatten(values), pc.list_parent_indices(values)


def rows_where_all(holds: pa.Array, rows: pa.Array | None, row_count: int) -> pa.Array:
    """From what holds at a place to the rows where it holds for all that is there; null holds."""
    if rows is None:
        return holds
    mask = np.ones(row_count, dtype=bool)
    mask[rows.filter(pc.invert(pc.fill_null(holds, True))).to_numpy(zero_copy_only=False)] = False
    return pa.array(mask)
