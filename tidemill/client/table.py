"""Tables (Arrow, pandas, polars) as slices in the contract's columns. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from tidemill.client.encode import unknown_name
from tidemill.errors import BadTable, MissingExtra

if TYPE_CHECKING:
    import pyarrow as pa


def import_pyarrow(what: str) -> Any:
    """The pyarrow module; raises MissingExtra, which names `what` needs it."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise MissingExtra(what, "arrow") from error
    return pyarrow


def contract_columns(schema: bytes) -> pa.Schema:
    """The contract's own columns of a service's schema message; its names never begin with an underscore."""
    pa = import_pyarrow("a table")
    columns = pa.ipc.read_schema(pa.py_buffer(schema))
    system = {"_partition", "_offset", "_append_time", "event_date"}
    return pa.schema([field for field in columns if field.name not in system])


def batches_of(table: object) -> Iterator[pa.RecordBatch]:
    """The record batches of an Arrow table, batch or reader, a pandas or polars frame, or an iterator of batches."""
    pa = import_pyarrow("send_table")
    if isinstance(table, pa.RecordBatch):
        yield table
    elif isinstance(table, pa.Table):
        yield from table.to_batches()
    elif type(table).__module__.partition(".")[0] == "pandas":
        yield from pa.Table.from_pandas(table, preserve_index=False).to_batches()
    elif hasattr(table, "__arrow_c_stream__"):
        yield from pa.RecordBatchReader.from_stream(table)
    elif isinstance(table, Iterator):
        for batch in table:
            yield from batches_of(batch)
    else:
        raise BadTable(
            f"expected an Arrow table, batch or reader, a pandas or polars frame, or an iterator of them, "
            f"came {type(table).__name__}"
        )


def slices(
    table: object, schema: pa.Schema, required: Collection[str], rows_max: int, bytes_max: int
) -> Iterator[pa.RecordBatch]:
    """The table's rows in the contract's columns and types, in slices that keep both bounds (one row at the least)."""
    rows = 0
    for batch in batches_of(table):
        fitted = fit(batch, schema, required, rows)
        rows += batch.num_rows
        row_bytes = max(1, fitted.nbytes // max(1, fitted.num_rows))
        step = max(1, min(rows_max, bytes_max // row_bytes))
        for start in range(0, fitted.num_rows, step):
            yield fitted.slice(start, step)


def fit(batch: pa.RecordBatch, schema: pa.Schema, required: Collection[str], first_row: int = 0) -> pa.RecordBatch:
    """The batch with the contract's columns, in its order and types; optional ones that are missing stay out.

    first_row: where the batch begins in its table, for messages. Raises BadTable.
    """
    pa = import_pyarrow("a table")
    for name in batch.schema.names:
        if name not in schema.names:
            raise BadTable(unknown_name("column", name, schema.names), name)
    missing = [name for name in schema.names if name in required and name not in batch.schema.names]
    if missing:
        raise BadTable(
            f"the contract needs the columns {', '.join(missing)}; the table has {', '.join(batch.schema.names)}",
            missing[0],
        )
    fields = [field for field in schema if field.name in batch.schema.names]
    columns = [cast(batch.column(field.name), field.type, field.name, first_row) for field in fields]
    # Whether a column may hold NULL is the contract's to check, row by row: here it would refuse the whole batch.
    names = [field.name for field in fields]
    return pa.RecordBatch.from_arrays(columns, names=names)


def cast(column: pa.Array, wanted: pa.DataType, name: str, first_row: int = 0) -> pa.Array:
    """The column in the type wanted, without losing anything; raises BadTable with the first value that would."""
    pa = import_pyarrow("a table")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type == wanted:
        return column
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(column.type) and column.type.tz is None:
        raise BadTable(
            f"column {name!r}: expected times with a time zone, came {column.type}; say which zone they are in: "
            "column.dt.tz_localize(...) in pandas, pyarrow.compute.assume_timezone, or --timezone for a file",
            name,
        )
    if pa.types.is_decimal(wanted) and pa.types.is_floating(column.type):
        return _decimal_from_float(column, wanted, name, first_row)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if pa.types.is_map(wanted) and not pa.types.is_map(column.type):
        # Frames have no maps, and Arrow makes none of a list; the service does.
        wanted = pa.list_(pa.struct([("key", wanted.key_type), ("value", wanted.item_type)]))
    try:
        return _cast(column, wanted)
    except pa.ArrowInvalid:
        # The service takes decimals as text too: it keeps the good rows, and says of each bad one why.
        if text and pa.types.is_decimal(wanted):
            return column
        raise _bad_value(column, wanted, name, first_row) from None
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
        raise _bad_value(column, wanted, name, first_row) from None


def _cast(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    import pyarrow as pa

    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    try:
        # A contract's durations are microseconds; Arrow would give the number in whatever unit it came.
        return column.cast(_in_microseconds(column.type)).cast(wanted)
    except pa.ArrowInvalid:
        if not (text and pa.types.is_integer(wanted)):
            raise
        # Tools that know no missing integers write 17850 as "17850.0".
        return column.cast(pa.decimal128(38, 6)).cast(wanted)


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """The type with its durations, also those within it, in microseconds."""
    import pyarrow as pa

    if pa.types.is_duration(kind):
        return pa.duration("us")
    if pa.types.is_list(kind):
        return pa.list_(_in_microseconds(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_in_microseconds(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in kind])
    return kind


def _decimal_from_float(column: pa.Array, wanted: pa.DataType, name: str, first_row: int) -> pa.Array:
    """2.55 as a float is not 2.55; it is taken for it when rounding to the contract's scale and back is the same."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        rounded = column.cast(wanted, safe=False)
        # By way of text: Arrow's own cast from decimal to double is off by a bit at times.
        again = rounded.cast(pa.string()).cast(column.type)
        same = pc.fill_null(pc.equal(again, column), True)
    except pa.ArrowInvalid:
        raise _bad_value(column, wanted, name, first_row) from None
    if not pc.all(same, min_count=0).as_py():
        row = pc.index(same, False).as_py()
        raise BadTable(
            f"column {name!r}, row {first_row + row} (from 0): {column[row].as_py()!r} cannot become {wanted} "
            "without rounding; round it before, or give decimals or text",
            name,
        )
    return rounded


def _bad_value(column: pa.Array, wanted: pa.DataType, name: str, first_row: int) -> BadTable:
    """The first row that cannot be cast: halved until it is found."""
    import pyarrow as pa

    start, stop = 0, len(column)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            _cast(column.slice(start, middle - start), wanted)
            start = middle
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            stop = middle
    came = f"{column[start].as_py()!r} ({column.type})" if len(column) else str(column.type)
    return BadTable(f"column {name!r}, row {first_row + start} (from 0): expected {wanted}, came {came[:120]}", name)


def ipc_bytes(batch: pa.RecordBatch) -> bytes:
    """The batch as one Arrow IPC stream: its schema, then itself."""
    pa = import_pyarrow("a table")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data
