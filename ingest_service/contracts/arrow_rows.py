"""Reads an Arrow IPC stream that a producer sent. Trusts nothing in it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from ingest_service.contracts.arrow_nested import (
    Fitted,
    Misfit,
    absent,
    check_type,
    decimal_text,
    fit,
    missing,
    with_nulls,
)
from ingest_service.contracts.contract import Column, Contract
from ingest_service.contracts.ipc_guard import check_sizes
from ingest_service.contracts.judge import Broken
from ingest_service.contracts.wire_rows import WireRows
from ingest_service.errors import BadRequest

# What reading foreign bytes may raise: Arrow's own errors, and Python's where Arrow uses them.
_UNREADABLE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, OverflowError)


class ArrowReader:
    """Reads batches for one contract; thread-safe (it keeps no state)."""

    def __init__(
        self, contract: Contract, wire: pa.Schema, text_columns: frozenset[str], max_rows: int, max_bytes: int
    ) -> None:
        self._contract = contract
        self._wire = {field.name: with_nulls(field.type) for field in wire}
        self._text_columns = text_columns
        self._max_rows = max_rows
        self._max_bytes = max_bytes

    def read(self, ipc_stream: bytes) -> tuple[WireRows, pa.RecordBatch]:
        """The rows as protobuf types them, and the batch as it was sent.

        Raises BadRequest when the bytes are no Arrow IPC stream of one batch that fits the contract and the limits.
        """
        batch = self._batch(ipc_stream)
        columns: dict[str, pa.Array] = {}
        finished: dict[str, pa.Array] = {}
        misfits: dict[int, list[Broken]] = {}
        for column in self._contract.columns:
            wire = self._wire[column.name]
            if column.name not in batch.schema.names:
                columns[column.name] = absent(wire, batch.num_rows)
                continue
            fitted = fit(column, wire, batch.column(column.name), self._max_bytes)
            if fitted.finished:
                finished[column.name] = fitted.values
            columns[column.name] = self._text(column, fitted.values) if fitted.finished else fitted.values
            # Rows that don't fit: a few, or the producer's mistake; either way bounded by the limit on rows.
            for each in (*fitted.misfits, *self._missing(column, fitted)):
                misfits.setdefault(each.row, []).append(Broken(each.rule, each.field, each.message))
        return WireRows(columns, batch.num_rows, finished, misfits), batch

    def _batch(self, ipc_stream: bytes) -> pa.RecordBatch:
        try:
            reader = pa.ipc.open_stream(pa.py_buffer(ipc_stream))
            self._check_schema(reader.schema)
            check_sizes(ipc_stream, self._max_rows, self._max_bytes)
            batches = [batch for batch, _ in zip(reader, range(2), strict=False)]
            if len(batches) > 1:
                raise BadRequest(
                    "expected one record batch in an Arrow IPC stream, came more; send each in its own request"
                )
            batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=reader.schema)
            # Arrow reads offsets and text as they come: nothing may touch them before they are checked.
            batch.validate(full=True)
        except _UNREADABLE as error:
            raise BadRequest(
                f"expected an Arrow IPC stream with a schema and one record batch; it cannot be read: {error}"
            ) from error
        return batch

    def _check_schema(self, schema: pa.Schema) -> None:
        names = self._contract.schema.names
        for name in schema.names:
            if name not in names:
                raise BadRequest(
                    f"column {name[:80]!r} is unknown: the columns of stream {self._contract.stream!r} are "
                    f"{', '.join(names)}; rename the column or leave it out"
                )
            if schema.names.count(name) > 1:
                raise BadRequest(f"column {name!r} came {schema.names.count(name)} times; expected it once")
        for column in self._contract.columns:
            if column.name in schema.names:
                check_type(column, self._wire[column.name], schema.field(column.name).type)
            elif not column.nullable:
                raise BadRequest(
                    f"column {column.name!r} is missing: expected {column.type}, and it has to have a value"
                )

    def _missing(self, column: Column, fitted: Fitted) -> Iterator[Misfit]:
        """Rows without a value in a column that has to have one. Event id and event time have rules of their own."""
        if column.nullable or column.name in (self._contract.event_id, self._contract.event_time):
            return iter(())
        return missing(column, fitted.values.is_null(), fitted.misfits, column.name)

    def _text(self, column: Column, values: pa.Array) -> pa.Array:
        """A decimal column as text, for its buf.validate rules; nulls where it has none."""
        return decimal_text(values) if column.name in self._text_columns else pa.nulls(len(values), pa.string())
