"""Looks into Arrow IPC messages before they are decoded: how many rows and bytes they say they hold.

A few kilobytes of compressed buffers can ask for gigabytes, and Arrow allocates what a message says. So the sizes are
read from the message's FlatBuffer first. Tables, vtables and vectors as in the FlatBuffers internals document; fields
by their number in Arrow's `format/Message.fbs`.
"""

from __future__ import annotations

import struct

import pyarrow as pa

from ingest_service.errors import BadRequest

_MESSAGE_HEADER_TYPE, _MESSAGE_HEADER = 1, 2
_HEADER_DICTIONARY, _HEADER_BATCH = 2, 3
_DICTIONARY_DATA = 1
_BATCH_LENGTH, _BATCH_BUFFERS, _BATCH_COMPRESSION = 0, 2, 3
_BUFFER_BYTES = 16
_NOT_COMPRESSED = -1


def check_sizes(ipc_stream: bytes, max_rows: int, max_bytes: int) -> None:
    """Raises BadRequest when a batch or dictionary in the stream has more rows or bytes than allowed.

    Whatever else may be wrong with the stream is left to Arrow's reader to find; it raises Arrow's errors.
    """
    total_bytes = 0
    for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(ipc_stream)):
        try:
            rows, size_bytes = _sizes(bytes(message.metadata), message.body)
        except (struct.error, IndexError) as error:
            raise BadRequest(f"expected an Arrow IPC stream, but a message in it is damaged: {error}") from error
        total_bytes += size_bytes
        if rows > max_rows:
            raise BadRequest(f"expected at most {max_rows} rows in a batch, came {rows}; send several smaller batches")
        if total_bytes > max_bytes:
            raise BadRequest(
                f"expected at most {max_bytes} bytes in a batch once decompressed, came {total_bytes}; send several "
                "smaller batches"
            )


def _sizes(metadata: bytes, body: pa.Buffer | None) -> tuple[int, int]:
    """Rows and bytes (decompressed) of one message; a schema has none."""
    message = _Table(metadata, struct.unpack_from("<I", metadata, 0)[0])
    kind = message.scalar(_MESSAGE_HEADER_TYPE, "<B")
    if kind not in (_HEADER_DICTIONARY, _HEADER_BATCH):
        return 0, 0
    batch = message.table(_MESSAGE_HEADER)
    if kind == _HEADER_DICTIONARY:
        batch = batch.table(_DICTIONARY_DATA)
    rows = batch.scalar(_BATCH_LENGTH, "<q")
    body_bytes = 0 if body is None else body.size
    if not batch.has(_BATCH_COMPRESSION):
        return rows, body_bytes
    return rows, sum(_decompressed_bytes(body, offset, size) for offset, size in batch.structs(_BATCH_BUFFERS, "<qq"))


def _decompressed_bytes(body: pa.Buffer | None, offset: int, size: int) -> int:
    """A compressed buffer begins with its size when decompressed, or -1 where it is stored as it is."""
    if size < 8 or body is None or offset < 0 or offset + 8 > body.size:
        return 0
    declared: int = struct.unpack("<q", bytes(body.slice(offset, 8)))[0]
    return size if declared == _NOT_COMPRESSED else abs(declared)


class _Table:
    """A FlatBuffer table, at a position in a message; every access is checked by struct against the message's end."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._vtable = position - struct.unpack_from("<i", data, position)[0]
        if self._vtable < 0:
            raise struct.error("a table points before the message's start")
        self._slots = (struct.unpack_from("<H", data, self._vtable)[0] - 4) // 2

    def has(self, field: int) -> bool:
        return self._offset(field) != 0

    def scalar(self, field: int, form: str) -> int:
        offset = self._offset(field)
        value: int = struct.unpack_from(form, self._data, self._position + offset)[0] if offset else 0
        return value

    def table(self, field: int) -> _Table:
        return _Table(self._data, self._target(field))

    def structs(self, field: int, form: str) -> list[tuple[int, ...]]:
        if not self.has(field):
            return []
        start = self._target(field)
        count = struct.unpack_from("<I", self._data, start)[0]
        end = start + 4 + count * struct.calcsize(form)
        if end > len(self._data):
            raise struct.error("a vector reaches beyond the message's end")
        return list(struct.iter_unpack(form, self._data[start + 4 : end]))

    def _target(self, field: int) -> int:
        place = self._position + self._offset(field)
        target: int = place + struct.unpack_from("<I", self._data, place)[0]
        return target

    def _offset(self, field: int) -> int:
        if field >= self._slots:
            return 0
        offset: int = struct.unpack_from("<H", self._data, self._vtable + 4 + 2 * field)[0]
        return offset
