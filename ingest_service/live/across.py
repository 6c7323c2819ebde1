"""Reads a view across time: published batch and live rows as one answer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa

from ingest_service.live.boundary import Boundary, boundary_of
from ingest_service.live.column_types import quote
from ingest_service.live.description import ViewDescription
from ingest_service.live.duck import open_duck
from ingest_service.live.query import SOURCE, RowReader, ViewQuery, ViewResult
from ingest_service.live.store import ReadTransaction, StoredView
from ingest_service.warehouse import PublishedWarehouse

_THREADS = 2
# Conditions of one statement: SQLite takes an expression that is 1,000 deep.
_SPANS_MAX = 200
_DATES = "batch_dates"


def read_across(
    query: ViewQuery, stored: StoredView, transaction: ReadTransaction, warehouse: PublishedWarehouse | None
) -> ViewResult:
    """The answer, in the order that `boundary` tells; the transaction's snapshot is the one that gave `stored`.

    Raises BadRequest for a column or value that does not exist, BatchMissing, StorageError.
    """
    description, at = stored.description, stored.checkpoint
    with closing(open_duck(_THREADS)) as duck:
        duck.execute("SET SESSION arrow_lossless_conversion = false")
        reader = AcrossReader(query, description, duck)
        confirmed = transaction.reconciled(description.view)
        publication = warehouse.attach(duck) if warehouse and description.window_column else None
        boundary = boundary_of(description, confirmed, at.expired_before_us, publication)
        table = reader.across(boundary, transaction, at.watermark_us)
    return ViewResult(reader.columns, table, at.offset, at.watermark_us, boundary)


class AcrossReader(RowReader):
    """Answers one query across time; `duck` has the publication attached that the boundary is of."""

    def __init__(self, query: ViewQuery, description: ViewDescription, duck: Any) -> None:
        super().__init__(query, description, duck)
        self._boundary = Boundary()

    def across(self, boundary: Boundary, transaction: ReadTransaction, watermark_us: int | None) -> pa.Table:
        """Batch's rows of the boundary's dates, and live's of all others, as the transaction sees them."""
        self._boundary = boundary
        self._duck.register(_DATES, pa.table({"date": pa.array(boundary.dates, pa.date32())}))
        return self.read(transaction, watermark_us=watermark_us)

    def _left_out(self, table: sa.Table) -> tuple[list[sa.ColumnElement[bool]], bool]:
        """Batch's dates, as spans of time; the shortest of very many are left to DuckDB."""
        if not self._boundary.dates:
            return [], True
        window = table.c[self._description.window_column]
        spans = sorted(_spans(self._boundary.dates), key=lambda span: span[0] - span[1])
        # Times are ISO text here, so they stand between the dates' own texts as they do in time.
        outside = [
            sa.or_(window < first.isoformat(), window >= (last + dt.timedelta(1)).isoformat())
            for first, last in spans[:_SPANS_MAX]
        ]
        return [sa.or_(window.is_(None), sa.and_(*outside))], len(spans) <= _SPANS_MAX

    def _relation(self, watermark_us: int | None) -> str:
        live = f"SELECT *, 'live' AS {quote(SOURCE.name)} FROM ({super()._relation(watermark_us)})"  # noqa: S608 - quoted names
        if not self._boundary.dates:
            return live
        column = self._description.window_column
        date = f"CAST({quote(column)} AS DATE)"
        # A batch row was found equal to the window as it was when its date was sealed: it was not corrected since.
        state = self._window_state(watermark_us, corrected="false")
        return (
            f"{live} WHERE {quote(column)} IS NULL OR {date} NOT IN (SELECT date FROM {_DATES}) "  # noqa: S608 - quoted names
            f"UNION ALL SELECT {self._shown(state)}, 'batch' FROM {self._boundary.relation} "
            f"WHERE {date} IN (SELECT date FROM {_DATES})"
        )

    def _unreadable(self, error: duckdb.Error) -> str:
        if not self._boundary.dates:
            return super()._unreadable(error)
        return (
            f"{self._description.view} cannot be read across time: a value of its live table, or of its table in the "
            f"published warehouse, is not of its column's type, or the warehouse cannot be read "
            f"({str(error).splitlines()[0]})"
        )


def _spans(dates: Sequence[dt.date]) -> list[tuple[dt.date, dt.date]]:
    """Dates, in their order, as spans of days that follow one another: first and last."""
    spans: list[tuple[dt.date, dt.date]] = []
    for date in dates:
        if spans and date - spans[-1][1] == dt.timedelta(1):
            spans[-1] = spans[-1][0], date
        else:
            spans.append((date, date))
    return spans
