"""A file's rows in parts of one size, so that the n-th part is the same rows whoever reads it, and whenever.

A part's number then says all: it is the sequence under which the part is sent, and a file that was interrupted goes on
at the first part that the service does not have. Two programs that send the same file at once do each other no harm.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from tidemill.client.options import ProducerOptions
from tidemill.errors import InputError

PART_ROWS = 5_000
"""Rows in a part: small enough for one message, whatever the rows are, large enough to be quick."""
PART_BYTES_MAX = 24 << 20
"""The largest part, in bytes of its columns: it has to be one message."""
PART_OPTIONS = ProducerOptions(table_rows=PART_ROWS, table_bytes=32 << 20)
"""A part of the file is one batch, never two: its number is its sequence."""

_NAMESPACE = uuid.UUID("5bd1e5c4-6a3f-4f0e-9a0f-4d6c1f6a3a57")


def file_identity(path: Path, stream: str, mapping: Mapping[str, str], timezone: str | None) -> str:
    """The producer id under which this file is sent to this stream: the same for the same content read the same way.

    mapping: where each field comes from (`InputFile.mapping`). Raises InputError for a file that can't be read.
    """
    try:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", str(path)) from None
    read = [f"{field}={source}" for field, source in sorted(mapping.items())]
    parts = ["file", stream, content, timezone or "", str(PART_ROWS), *read]
    return str(uuid.uuid5(_NAMESPACE, "\n".join(parts)))


def parts(batches: Iterable[pa.RecordBatch], first: int, path: Path) -> Iterator[pa.Table]:
    """The file's rows from part `first` on; each has PART_ROWS rows, only the last one may have fewer.

    Raises InputError for a part that does not fit into one message.
    """
    skip = first * PART_ROWS
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        left = batch.slice(min(skip, batch.num_rows))
        skip -= batch.num_rows - left.num_rows
        while left.num_rows:
            taken = left.slice(0, PART_ROWS - rows)
            left = left.slice(taken.num_rows)
            waiting.append(taken)
            rows += taken.num_rows
            if rows == PART_ROWS:
                yield _part(waiting, path)
                waiting, rows = [], 0
    if waiting:
        yield _part(waiting, path)


def _part(batches: list[pa.RecordBatch], path: Path) -> pa.Table:
    table = pa.Table.from_batches(batches).combine_chunks()
    if table.nbytes > PART_BYTES_MAX:
        raise InputError(
            f"{path}: {table.num_rows:,} rows of it are {table.nbytes:,} bytes, more than the {PART_BYTES_MAX:,} of a "
            "numbered part; send it with --again, which cuts smaller pieces but can't go on where it stopped",
            str(path),
        )
    return table
