"""A frame: the log's unit of commit, checksummed.

    magic "TMF1" | length u32 | CRC32C u32 | header | table | body

`length` counts header, table and body; the CRC covers the length and them. All numbers are little-endian. The table
is MessagePack (a list whose meaning depends on the kind), the body an Arrow IPC message: the schema in a HEAD frame,
an LZ4 record batch in a ROWS frame that appended any row; the other kinds have none. Formats: https://msgpack.org,
https://arrow.apache.org/docs/format/Columnar.html, RFC 3720 appendix B.4 (CRC32C).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import google_crc32c
import msgpack
import pyarrow as pa

MAGIC = b"TMF1"
PREFIX = struct.Struct("<4sII")
_HEADER = struct.Struct("<B3xIQQq")
_LENGTH = struct.Struct("<I")
FRAME_BYTES_MAX = 1 << 30
"""A length above this is damage: no commit is that large."""

_IPC_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class Kind(IntEnum):
    """What a frame holds."""

    HEAD = 0
    ROWS = 1
    SEAL = 2
    SNAPSHOT = 3  # not in segments, see `snapshot`
    QUARANTINE = 4  # not in segments, see `quarantine`


class FrameDamaged(Exception):
    """The bytes at a position are no whole, unaltered frame."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame. base_offset: of its first row; rows: how many it appended; append_time_us: wall clock, UTC."""

    kind: Kind
    base_offset: int
    rows: int
    append_time_us: int
    table: list[Any]
    body: pa.Buffer

    @property
    def next_offset(self) -> int:
        """The offset after the frame's last row."""
        return self.base_offset + self.rows


def encode(kind: Kind, base_offset: int, rows: int, append_time_us: int, table: list[Any], body: bytes) -> bytes:
    """The frame's bytes, ready to be written."""
    packed = msgpack.packb(table)
    payload = b"".join((_HEADER.pack(kind, len(packed), base_offset, rows, append_time_us), packed, body))
    crc = google_crc32c.extend(google_crc32c.value(_LENGTH.pack(len(payload))), payload)
    return PREFIX.pack(MAGIC, len(payload), crc) + payload


def payload_length(prefix: bytes) -> int:
    """How many bytes follow the prefix.

    Raises:
        FrameDamaged: the prefix is cut short, has another magic, or names an impossible length.
    """
    if len(prefix) < PREFIX.size:
        raise FrameDamaged(f"expected {PREFIX.size} bytes of prefix, found {len(prefix)}")
    magic, length, _ = PREFIX.unpack_from(prefix)
    if magic != MAGIC:
        raise FrameDamaged(f"expected a frame to begin with {MAGIC!r}, found {magic!r}")
    if not _HEADER.size <= length <= FRAME_BYTES_MAX:
        raise FrameDamaged(f"expected a length of {_HEADER.size} to {FRAME_BYTES_MAX} bytes, found {length}")
    return int(length)


def decode(prefix: bytes, payload: bytes) -> Frame:
    """The frame in `prefix` and `payload`; its table is decoded, its body is not.

    Raises:
        FrameDamaged: length or checksum do not fit; nothing is decoded then.
    """
    length = payload_length(prefix)
    if len(payload) != length:
        raise FrameDamaged(f"expected {length} bytes, found {len(payload)}")
    crc = PREFIX.unpack_from(prefix)[2]
    found = google_crc32c.extend(google_crc32c.value(_LENGTH.pack(length)), payload)
    if found != crc:
        raise FrameDamaged(f"expected checksum {crc:08x}, found {found:08x}")
    kind, table_length, base_offset, rows, append_time_us = _HEADER.unpack_from(payload)
    body_at = _HEADER.size + table_length
    table = msgpack.unpackb(memoryview(payload)[_HEADER.size : body_at], strict_map_key=False)
    return Frame(Kind(kind), base_offset, rows, append_time_us, table, pa.py_buffer(payload).slice(body_at))


class BatchCodec:
    """Record batches of one schema to and from Arrow IPC messages, LZ4-compressed. Thread-safe."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._schema_bytes = schema.serialize().size

    def encode(self, batch: pa.RecordBatch) -> bytes:
        """The batch as one IPC message."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema, options=_IPC_OPTIONS) as writer:
            writer.write_batch(batch)
            # The stream begins with the schema, which the segment's head has; the end marker follows on close.
            end = sink.tell()
        return bytes(sink.getvalue().slice(self._schema_bytes, end - self._schema_bytes).to_pybytes())

    def decode(self, body: pa.Buffer) -> pa.RecordBatch:
        """The batch in one IPC message."""
        return pa.ipc.read_record_batch(body, self.schema)

    def decode_all(self, bodies: Sequence[pa.Buffer], columns: Collection[str]) -> pa.RecordBatch:
        """The batches in several IPC messages as one, with those of the columns that the schema has, in its order."""
        included = [i for i, name in enumerate(self.schema.names) if name in columns]
        if len(bodies) == 1 and len(included) == len(self.schema):
            return self.decode(bodies[0])
        if not included:
            return self.decode_all(bodies, self.schema.names[:1]).select([])
        # Behind a schema they are a stream, which can be read without touching the other columns.
        stream = pa.py_buffer(b"".join((self.schema.serialize(), *bodies)))
        options = pa.ipc.IpcReadOptions(included_fields=included, use_threads=False)
        with pa.ipc.open_stream(stream, options=options) as reader:
            return pa.concat_batches(list(reader))
