"""Rows of a live view as they come from the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tidemill.client.models import ViewColumn, to_view_column
from tidemill.client.table import import_pyarrow
from tidemill.client.values import Value, read_rows
from tidemill.v1 import views_pb2

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Rows:
    """Rows of a view at one offset: iterate over them, or take them as dicts, Arrow or pandas."""

    def __init__(self, response: views_pb2.QueryViewResponse | views_pb2.WatchViewResponse) -> None:
        self._columns, self._arrow, self._values = response.columns, response.arrow, response.values
        self._offset = response.offset
        self._table: pa.Table | None = None
        self._rows: list[dict[str, Value]] | None = None

    @property
    def offset(self) -> int:
        """The rows are those of the log strictly below this offset."""
        return self._offset

    @property
    def columns(self) -> tuple[ViewColumn, ...]:
        """The columns with their types."""
        return tuple(to_view_column(column) for column in self._columns)

    def rows(self) -> list[dict[str, Value]]:
        """The rows as dicts; decimals are Decimal, times are datetime in UTC, dates are date."""
        if self._rows is None:
            if self._arrow:
                self._rows = self.to_arrow().to_pylist()
            else:
                self._rows = read_rows(self._columns, self._values)
        return self._rows

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table. Needs pyarrow, at the time of the question too."""
        pa = import_pyarrow("to_arrow")
        if self._table is None:
            if self._arrow:
                with pa.ipc.open_stream(self._arrow) as reader:
                    self._table = reader.read_all()
            else:
                self._table = pa.Table.from_pylist(self.rows())
        return self._table

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas frame. Needs pyarrow and pandas."""
        return self.to_arrow().to_pandas()

    def __len__(self) -> int:
        if self._arrow:
            return int(self.to_arrow().num_rows)
        return len(self._values)

    def __iter__(self) -> Iterator[dict[str, Value]]:
        return iter(self.rows())
