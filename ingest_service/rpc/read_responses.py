"""Rows as the responses of a Read call, serialized, none larger than it has to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import ptars
import pyarrow as pa

from ingest_service.contracts import Encoder
from ingest_service.log import PARTITION, Rows
from tidemill.v1 import read_pb2

RESPONSE_BYTES = 256 << 10
"""What a response holds, about: enough to be quick, and all that a reader that never reads keeps in memory."""
RESPONSE_BYTES_MAX = 4 << 20
"""No response is longer, but for a single row that is."""
_TAG_BYTES = 6
"""A message in ProtoRows has its tag and its length in front, at the most."""

_HANDLER = ptars.HandlerPool([read_pb2.DESCRIPTOR]).get_for_message(read_pb2.ReadResponse.DESCRIPTOR)
_SCHEMA: pa.Schema = pa.schema([field for field in _HANDLER.schema() if field.name != "arrow"])


@dataclass(frozen=True, slots=True)
class Packed:
    """A serialized ReadResponse, and one above the offset of its last row."""

    data: bytes
    next_offset: int


def position(offset: int, durable_offset: int) -> Packed:
    """A response without rows."""
    response = read_pb2.ReadResponse(
        partition=PARTITION, base_offset=offset, next_offset=offset, durable_offset=durable_offset
    )
    return Packed(response.SerializeToString(), offset)


def proto_responses(rows: Rows, encoder: Encoder, durable_offset: int) -> list[Packed]:
    """The rows as messages. Serialized here, as a whole and in Rust: on the event loop it would hold up appends."""
    messages = encoder.encode(rows.batch)
    cuts = _cuts(np.frombuffer(messages.buffers()[1], np.int32)[messages.offset :][: len(messages) + 1])
    count = len(cuts) - 1
    offsets = rows.base_offset + cuts.astype(np.uint64)
    within = _SCHEMA.field("proto").type
    lists = pa.ListArray.from_arrays(pa.array(cuts, pa.int32()), messages, type=within.field(0).type)
    columns = {
        "partition": pa.array(np.full(count, PARTITION, np.uint32)),
        "base_offset": pa.array(offsets[:-1]),
        "next_offset": pa.array(offsets[1:]),
        "durable_offset": pa.array(np.full(count, durable_offset, np.uint64)),
        "proto": pa.StructArray.from_arrays([lists], fields=[within.field(0)]),
    }
    batch = pa.RecordBatch.from_arrays([columns[name] for name in _SCHEMA.names], schema=_SCHEMA)
    packed = _HANDLER.record_batch_to_array(batch).to_pylist()
    return [Packed(data, int(end)) for data, end in zip(packed, offsets[1:], strict=True)]


def arrow_responses(rows: Rows, durable_offset: int) -> Iterator[Packed]:
    """The rows as Arrow IPC streams, uncompressed: every Arrow library reads that."""
    row_bytes = max(1, rows.batch.nbytes // max(1, rows.batch.num_rows))
    step = max(1, RESPONSE_BYTES // row_bytes)
    for start in range(0, rows.batch.num_rows, step):
        yield from _arrow(rows.batch.slice(start, step), rows.base_offset + start, durable_offset)


def _cuts(bounds: np.ndarray) -> np.ndarray:
    """Where responses begin and end among messages, given where each message begins and ends (bytes)."""
    sizes = bounds.astype(np.int64) + _TAG_BYTES * np.arange(len(bounds))
    cuts = [0]
    while cuts[-1] < len(bounds) - 1:
        fitting = int(np.searchsorted(sizes, sizes[cuts[-1]] + RESPONSE_BYTES, side="right")) - 1
        cuts.append(max(fitting, cuts[-1] + 1))
    return np.array(cuts)


def _arrow(batch: pa.RecordBatch, base_offset: int, durable_offset: int) -> Iterator[Packed]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = sink.getvalue()
    if data.size > RESPONSE_BYTES_MAX and batch.num_rows > 1:
        # Rows of very different sizes: the average says little.
        half = batch.num_rows // 2
        yield from _arrow(batch.slice(0, half), base_offset, durable_offset)
        yield from _arrow(batch.slice(half), base_offset + half, durable_offset)
        return
    next_offset = base_offset + batch.num_rows
    response = read_pb2.ReadResponse(
        partition=PARTITION, base_offset=base_offset, next_offset=next_offset, durable_offset=durable_offset,
        arrow=data.to_pybytes(),
    )  # fmt: skip
    yield Packed(response.SerializeToString(), next_offset)
