"""What is in a landed file: whether it is whole, and whether all of it can be sent."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.input import InputFile

PARQUET_ENDINGS = (".parquet", ".pq")
PARQUET_MAGIC = b"PAR1"
"""What a Parquet file ends with, behind its footer."""


class BadFile(Exception):
    """The file itself is wrong; the text says what was expected and what came. rows_sent: by an earlier start."""

    def __init__(self, reason: str, rows_sent: int = 0) -> None:
        super().__init__(reason)
        self.rows_sent = rows_sent


def cut_short(path: Path) -> str:
    """What is missing at a file's end; empty when it is whole, or nothing in it would tell. Raises BadFile, OSError."""
    name = path.name.lower()
    if name.endswith(PARQUET_ENDINGS):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - len(PARQUET_MAGIC)))
            whole = file.read() == PARQUET_MAGIC
        return "" if whole else "expected a Parquet file with its footer, came one that ends before"
    if name.endswith(".gz"):
        try:
            with gzip.open(path) as unpacked:
                while unpacked.read(1 << 20):
                    pass
        except EOFError:
            return "expected a whole gzip file, came one that ends before"
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BadFile(f"expected a gzip file: {error}") from None
    return ""


def read_through(source: InputFile, event_time: str) -> tuple[int, dict[str, int]]:
    """Read all of a file as it would be sent; how many rows it has, and how many each UTC date has.

    Raises InputError or BadTable for what can't be sent.
    """
    from tidemill.input import parts

    dates: Counter[str] = Counter()
    rows = 0
    for part in parts(source.batches(), 0, source.path):
        rows += part.num_rows
        if event_time in part.schema.names:
            dates.update(rows_by_date(part.column(event_time)))
    return rows, dict(sorted(dates.items()))


def rows_by_date(times: Any) -> dict[str, int]:
    """How many of the times (an Arrow array) each UTC date has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = pc.value_counts(pc.drop_null(times).cast(pa.date32())).to_pylist()
    return {entry["values"].isoformat(): entry["counts"] for entry in counted}
