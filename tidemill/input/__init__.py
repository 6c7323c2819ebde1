"""Files as events: reads Parquet, CSV and JSON lines in the contract's columns.

Owns which column becomes which field (`columns`), what a time without a zone means (`timezone`), reading in bounded
memory (`formats`, `reader`), and in which numbered parts a file is sent (`grid`). Knows no service: what it yields goes
into `Stream.send_table`. Needs the extra `cli`. Main types: `ColumnMap`, `InputFile`.
"""

from __future__ import annotations

from tidemill.input.columns import ColumnMap
from tidemill.input.grid import PART_BYTES_MAX, PART_OPTIONS, PART_ROWS, file_identity, parts
from tidemill.input.reader import InputFile, ReadReport

__all__ = [
    "PART_BYTES_MAX",
    "PART_OPTIONS",
    "PART_ROWS",
    "ColumnMap",
    "InputFile",
    "ReadReport",
    "file_identity",
    "parts",
]
