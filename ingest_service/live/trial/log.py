"""A stream's log as the live side of a trial sees it: the sample's rows with system columns, in batches of any size."""

from __future__ import annotations

import random
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from ingest_service.live.feed import ReaderLike
from ingest_service.log.records import PARTITION, Entry, LogSpec, Rows, Seal, with_system_columns

_SIZES = (1, 3, 20, 150, 700)
"""Micro-batches have up to one of these many rows: most are small, as under light load, and few are large."""
_SMALL_SAMPLE = 5_000
"""The large ones grow with a sample above this, so that there are not more of them."""
_US = pa.timestamp("us", tz="UTC")


class TrialLog:
    """A log in memory that is all there from the beginning. `rows`: with system columns, offsets from 0 on."""

    def __init__(self, spec: LogSpec, sample: pa.Table) -> None:
        """`sample`: rows in the order of arrival, with the contract's schema."""
        self.spec = spec
        self.schema = with_system_columns(spec.schema)
        self.rows = _with_system_columns(sample.combine_chunks(), spec.event_time, self.schema)

    @property
    def durable_offset(self) -> int:
        """Everything strictly below it is there: all rows."""
        return int(self.rows.num_rows)

    @property
    def watermark_us(self) -> int | None:
        """No watermark but the one that follows from the rows."""
        return None

    def reader(self, from_offset: int, columns: object = None) -> ReaderLike:
        """None: a trial hands the entries over itself."""
        raise NotImplementedError

    def entries(self, rng: random.Random) -> list[Entry]:
        """All rows in random batches, with one date sealed behind some of them."""
        rows = self.durable_offset
        seal = self._seal(rng)
        larger = max(1, rows // _SMALL_SAMPLE)
        sizes = [size if size < 100 else size * larger for size in _SIZES]
        entries: list[Entry] = []
        at = 0
        while at < rows:
            size = rng.randint(1, min(rng.choice(sizes), rows - at))
            if at < seal.seal_offset < at + size:
                size = seal.seal_offset - at
            (batch,) = self.rows.slice(at, size).combine_chunks().to_batches()
            entries.append(Rows(batch, at, at + size))
            at += size
            if at == seal.seal_offset:
                entries.append(seal)
        return entries

    def _seal(self, rng: random.Random) -> Seal:
        """A seal between half of the rows and all of them, of the date that has the most rows before it."""
        rows = self.durable_offset
        offset = rng.randint((rows + 1) // 2, rows)
        dates = Counter(self.rows.column("event_date").slice(0, offset).to_pylist())
        (date, _), *_ = dates.most_common(1)
        return Seal(date, date, offset, 0)


def _with_system_columns(sample: pa.Table, event_time: str, schema: pa.Schema) -> pa.Table:
    """The rows as a log gives them: taken when they happened, or right after the one before."""
    rows = sample.num_rows
    times = sample.column(event_time).combine_chunks()
    taken = pc.cumulative_max(times.cast(pa.int64())).cast(_US)
    system = (
        pa.repeat(pa.scalar(PARTITION, pa.int32()), rows),
        pa.array(range(rows), pa.int64()),
        taken,
        times.cast(pa.date32()),
    )
    return pa.Table.from_arrays([*sample.columns, *system], schema=schema)
