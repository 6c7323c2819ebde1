"""The frame codec: what goes in comes out, and nothing that was altered is taken for a frame."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.logs import SCHEMA, batch

from ingest_service.log import frame as frames
from ingest_service.log.frame import BatchCodec, FrameDamaged, Kind

NUMBERS = st.integers(0, (1 << 63) - 1)
SCALARS = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary()
TABLES = st.lists(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.integers(0, 99), inner)))
WHOLE = st.builds(frames.encode, st.sampled_from(Kind), NUMBERS, NUMBERS, NUMBERS, TABLES, st.binary(max_size=2000))
SIZE = frames.PREFIX.size


def decode(data: bytes) -> frames.Frame:
    """As readers of files do: the length comes from the prefix."""
    length = frames.payload_length(data[:SIZE])
    return frames.decode(data[:SIZE], data[SIZE : SIZE + length])


@settings(deadline=None)
@given(st.sampled_from(Kind), NUMBERS, NUMBERS, NUMBERS, TABLES, st.binary(max_size=2000))
def test_what_goes_in_comes_out(kind, base_offset, rows, time_us, table, body):
    frame = decode(frames.encode(kind, base_offset, rows, time_us, table, body))
    assert (frame.kind, frame.base_offset, frame.rows, frame.append_time_us) == (kind, base_offset, rows, time_us)
    assert frame.table == table
    assert frame.body.to_pybytes() == body


@settings(deadline=None)
@given(WHOLE)
def test_a_frame_cut_at_any_byte_is_none(data):
    for cut in range(len(data)):
        with pytest.raises(FrameDamaged):
            decode(data[:cut])


@settings(deadline=None)
@given(WHOLE, st.data())
def test_a_few_bits_that_flipped_are_always_seen(data, draw):
    # CRC32C sees any three flipped bits in a frame of this size, those of the checksum itself included.
    places = st.lists(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=3, unique=True)
    damaged = bytearray(data)
    for place in draw.draw(places):
        damaged[place // 8] ^= 1 << place % 8
    with pytest.raises(FrameDamaged):
        decode(bytes(damaged))


@settings(deadline=None)
@given(WHOLE, st.data())
def test_zeros_in_place_of_a_part_are_seen(data, draw):
    begin = draw.draw(st.integers(0, len(data) - 1))
    end = draw.draw(st.integers(begin + 1, len(data)))
    damaged = data[:begin] + bytes(end - begin) + data[end:]
    if damaged != data:
        with pytest.raises(FrameDamaged):
            decode(damaged)


@pytest.mark.parametrize("length", [0, 1, 27, frames.FRAME_BYTES_MAX + 1, (1 << 32) - 1])
def test_a_length_that_no_frame_has_is_seen_before_anything_is_read(length):
    with pytest.raises(FrameDamaged, match=f"found {length}$"):
        frames.payload_length(frames.PREFIX.pack(frames.MAGIC, length, 0))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_no_frame(data):
    with pytest.raises(FrameDamaged):
        decode(data)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=50))
def test_batches_come_back_from_their_messages(ids):
    codec = BatchCodec(SCHEMA)
    rows = batch(ids)
    assert codec.decode(pa.py_buffer(codec.encode(rows))).equals(rows)
