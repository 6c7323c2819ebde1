"""Reads an Arrow IPC stream that a producer sent. Trusts nothing in it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from ingest_service.contracts.arrow_fit import check_type, fit
from ingest_service.contracts.contract import Column, Contract
from ingest_service.contracts.ipc_guard import check_sizes
from ingest_service.contracts.judge import Broken
from ingest_service.contracts.own_rules import NULL, TYPE
from ingest_service.contracts.shown import shown_scalar
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
        self._wire = wire
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
            wire = self._wire.field(column.name).type
            if column.name not in batch.schema.names:
                columns[column.name] = pa.nulls(batch.num_rows, wire)
                continue
            sent = batch.column(column.name)
            fitted = fit(column, wire, sent, self._max_bytes)
            if fitted.finished:
                finished[column.name] = fitted.values
            columns[column.name] = self._text(column, fitted.values) if fitted.finished else fitted.values
            # Rows that don't fit: a few, or the producer's mistake; either way bounded by the limit on rows.
            for row in fitted.misfits:
                text = f"expected {column.type}, came {shown_scalar(sent[row])}"
                misfits.setdefault(row, []).append(Broken(TYPE, column.name, text))
            for row in self._missing(column, fitted.values, set(fitted.misfits)):
                misfits.setdefault(row, []).append(Broken(NULL, column.name, f"expected {column.type}, came nothing"))
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
                check_type(column, self._wire.field(column.name).type, schema.field(column.name).type)
            elif not column.nullable:
                raise BadRequest(
                    f"column {column.name!r} is missing: expected {column.type}, and it has to have a value"
                )

    def _missing(self, column: Column, values: pa.Array, misfits: set[int]) -> list[int]:
        """Rows without a value in a column that has to have one. Event id and event time have rules of their own."""
        if (
            column.nullable
            or not values.null_count
            or column.name in (self._contract.event_id, self._contract.event_time)
        ):
            return []
        return [row for row in _true_rows(values.is_null()) if row not in misfits]

    def _text(self, column: Column, values: pa.Array) -> pa.Array:
        """A decimal column as text, for its buf.validate rules; nulls where it has none.

        Row by row: Arrow would write small numbers with an exponent ("1E-7"), which no pattern expects. Rules about the
        text of a decimal are rare.
        """
        if column.name not in self._text_columns:
            return pa.nulls(len(values), pa.string())
        return pa.array([None if value is None else format(value, "f") for value in values.to_pylist()], pa.string())


def _true_rows(mask: pa.Array) -> list[int]:
    rows: list[int] = pc.indices_nonzero(mask).to_pylist()
    return rows
