"""A file in the contract's columns."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.client.table import cast
from tidemill.errors import BadTable, InputError
from tidemill.input.columns import ColumnMap
from tidemill.input.formats import open_format
from tidemill.input.timezone import UTC_US, ZoneReport, check_zone, to_utc


@dataclass(slots=True)
class ReadReport:
    """What was read so far: rows, and the times that their zone did not make plain."""

    rows: int = 0
    zone: ZoneReport = field(default_factory=ZoneReport)

    def notes(self) -> list[str]:
        """What the reader should be told, one sentence each."""
        notes = []
        if self.zone.ambiguous:
            notes.append(
                f"{self.zone.ambiguous:,} times happened twice (clocks were put back): taken for the first of the two"
            )
        if self.zone.nonexistent:
            notes.append(
                f"{self.zone.nonexistent:,} times did not happen (clocks were put forward): taken for the moment of it"
            )
        return notes


class InputFile:
    """Reads a Parquet, CSV or JSON lines file as batches in the contract's columns and types.

    schema: the contract's columns (`Stream.schema`); required: fields that need a source (`Contract.required`);
    columns: what the user said about the mapping; timezone: the zone of times that have none.
    Raises InputError from the constructor on: no such file, unknown format or zone, missing columns.
    Memory is bounded by the size of a batch (and of a row group, in Parquet). Not thread-safe.
    """

    def __init__(
        self,
        path: Path | str,
        schema: pa.Schema,
        required: Collection[str],
        columns: ColumnMap | None = None,
        timezone: str | None = None,
    ) -> None:
        self.path = Path(path)
        if timezone is not None:
            check_zone(timezone)
        self._schema = schema
        self._timezone = timezone
        self._format = open_format(self.path)
        self._sources = (columns or ColumnMap({})).resolve(
            str(path), self._format.columns, schema.names, set(required) & set(schema.names)
        )
        self.report = ReadReport()

    @property
    def rows(self) -> int | None:
        """How many rows the file has, where that is known without reading it."""
        return self._format.rows

    @property
    def mapping(self) -> dict[str, str]:
        """Where each field comes from, as `--map` takes it: a column, a template or a constant in quotes."""
        return {name: source.shown for name, source in self._sources.items()}

    def batches(self, rows_max: int = 25_000, only: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The file's rows, `rows_max` at the most in a batch; `only` some of the fields. Raises InputError."""
        fields = [f for f in self._schema if f.name in self._sources and (only is None or f.name in only)]
        wanted = list(dict.fromkeys(column for f in fields for column in self._sources[f.name].columns))
        times = {self._sources[f.name].column for f in fields if pa.types.is_timestamp(f.type)}
        self.report = ReadReport()
        for batch in self._format.read(wanted, set(wanted) - times, rows_max):
            columns = [self._column(batch, f) for f in fields]
            self.report.rows += batch.num_rows
            yield pa.RecordBatch.from_arrays(columns, names=[f.name for f in fields])

    def dates(self, event_time: str) -> dict[dt.date, int]:
        """How many rows each UTC date has, by the contract's event time; rows without one are left out."""
        counted: Counter[dt.date] = Counter()
        for batch in self.batches(only={event_time}):
            for entry in pc.value_counts(batch.column(0).cast(pa.date32())).to_pylist():
                if entry["values"] is not None:
                    counted[entry["values"]] += entry["counts"]
        return dict(sorted(counted.items()))

    def _column(self, batch: pa.RecordBatch, wanted: pa.Field) -> pa.Array:
        source = self._sources[wanted.name]
        try:
            values = source.values(batch)
            if pa.types.is_timestamp(wanted.type):
                return self._times(values, wanted.name)
            return cast(values, wanted.type, wanted.name, self.report.rows)
        except BadTable as error:
            raise InputError(f"{self.path}: {error}", str(self.path)) from None

    def _times(self, values: pa.Array, name: str) -> pa.Array:
        kind = values.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            values = _parsed(values)
            kind = values.type
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            return cast(values, UTC_US, name, self.report.rows)
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            if self._timezone is None:
                such = next((value for value in values[:100].to_pylist() if value is not None), "none")
                raise InputError(
                    f"{self.path}: the times for {name} have no time zone (such as {such}); "
                    "say which one they are in: --timezone Europe/London",
                    str(self.path),
                )
            return to_utc(values, self._timezone, self.report.zone)
        return cast(values, UTC_US, name, self.report.rows)


def _parsed(values: pa.Array) -> pa.Array:
    """Text as times, with a zone if it has one; text that is no time stays text, for the cast to name it."""
    for kind in (UTC_US, pa.timestamp("us")):
        try:
            return values.cast(kind)
        except pa.ArrowInvalid:
            continue
    return values
