"""Opening a log: what its files hold is checked, what was never durable is cut, and its state is made again.

Damage in the last segment, with no whole frame behind it and beyond the durable mark, is a write that was never
acknowledged: it is cut. Any other damage stops the start-up. The durable mark is a small file, written when a log is
closed and when a segment begins: everything before it was durable then.

What a snapshot covers is not read: there, only the segments' heads and lengths are looked at. `tidemill data verify`
reads everything.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from ingest_service.errors import ContractError, LogDamaged
from ingest_service.log.files import Files
from ingest_service.log.frame import BatchCodec, Frame, FrameDamaged, Kind
from ingest_service.log.records import LogSpec
from ingest_service.log.segment import Head, SegmentFile, SegmentName, check_head, damaged
from ingest_service.log.segments import Index, SegmentInfo, Segments
from ingest_service.log.snapshot import LOG_BEGIN, Place, read_snapshots
from ingest_service.log.start import Start, read_start
from ingest_service.log.state import FrameRef, LogState
from ingest_service.log.table import RowsTable, unpack_seal

MARK_NAME = "durable.json"
_RESTORED_ROWS = 1 << 13
"""So many event ids are put into the dedup window at once: one by one they would take ten times as long."""


@dataclass(slots=True)
class Recovered:
    """A log's segments, oldest first, its index, and the place up to which a snapshot stood for its frames."""

    segments: Segments = field(default_factory=Segments)
    index: Index = field(default_factory=Index)
    place: Place = LOG_BEGIN


def recover(files: Files, folder: Path, spec: LogSpec, state: LogState) -> Recovered:
    """Read the log in `folder` into `state`.

    Raises:
        LogDamaged: rows below the durable offset can't be read.
        ContractError: the log's rows don't fit the contract any more.
        OSError: the folder can't be read.
    """
    return _Recovery(files, folder, spec, state).run()


@dataclass(frozen=True, slots=True)
class _Link:
    """A segment of the log, and what its head says."""

    name: SegmentName
    head: Head
    schema: pa.Schema
    begun_us: int


class _Recovery:
    """1 find the segments that make up the log; 2 take the newest snapshot of it; 3 read what comes after; 4 read the
    event ids of the dedup window again."""

    def __init__(self, files: Files, folder: Path, spec: LogSpec, state: LogState) -> None:
        self._files, self._folder, self._spec, self._state = files, folder, spec, state
        self._out = Recovered()
        self._newest_frame = 0

    def run(self) -> Recovered:
        start = read_start(self._files, self._folder)
        mark = read_mark(self._files, self._folder)
        names = self._names(start)
        chain, leftovers = self._chain(names, start)  # 1
        self._check_mark(mark, chain, leftovers)
        for name in leftovers:
            self._files.remove(self._folder / str(name))
        place = self._out.place = self._restore(chain, start)  # 2
        for i, link in enumerate(chain):  # 3
            info = SegmentInfo(link.name, link.schema, begun_us=link.begun_us)
            self._out.segments.append(info)
            successor = chain[i + 1].head if i + 1 < len(chain) else None
            with self._opened(link.name) as file:
                if successor and link.name.number < place.segment:
                    self._check_length(file, info, successor)
                else:
                    begin = place.position if link.name.number == place.segment else 0
                    self._scan(file, info, successor, mark, begin)
        if chain:
            self._make_durable(self._out.segments[-1], mark)
        self._restore_dedup()  # 4
        return self._out

    def _opened(self, name: SegmentName) -> contextlib.closing[SegmentFile]:
        return contextlib.closing(SegmentFile(self._files, self._folder, name))

    def _names(self, start: Start) -> list[SegmentName]:
        """The segments in the folder, oldest first, without those that were dropped."""
        parsed = (SegmentName.parse(name) for name in self._files.list_folder(self._folder))
        names = sorted((name for name in parsed if name), key=lambda name: (name.number, name.base_offset))
        for name in names:
            if name.number < start.segment:
                self._files.remove(self._folder / str(name))
        return [name for name in names if name.number >= start.segment]

    def _chain(self, names: list[SegmentName], start: Start) -> tuple[list[_Link], list[SegmentName]]:
        """The segments that make up the log, oldest first, and what is left of segments that failed to begin.

        The newest segment with a readable head is the last one; each head names its predecessor. A segment that no
        head names never got a first frame: another one was begun in its place.
        """
        chain: list[_Link] = []
        leftovers: list[SegmentName] = []
        for name in reversed(names):
            with self._opened(name) as file:
                if chain and name.number != (wanted := chain[-1].head.previous_number):
                    if name.number < wanted:
                        raise damaged(self._path(chain[-1].name), 0, f"its predecessor, number {wanted}, is missing")
                    if file.whole_frame_after(0, self._size(file)) is not None:
                        why = f"its predecessor is number {wanted}, found {file.path.name}"
                        raise damaged(self._path(chain[-1].name), 0, why)
                    leftovers.append(name)
                elif (head := self._head(file, last=not chain)) is None:
                    leftovers.append(name)
                else:
                    chain.append(_Link(name, *head))
        if start.segment and (not chain or chain[-1].name.number != start.segment):
            raise _segment_missing(self._folder / f"{start.offset:020d}-{start.segment:06d}.seg")
        if chain and not start.segment and (wanted := chain[-1].head.previous_number):
            raise damaged(self._path(chain[-1].name), 0, f"its predecessor, number {wanted}, is missing")
        return chain[::-1], leftovers

    def _check_mark(self, mark: tuple[int, int] | None, chain: list[_Link], leftovers: list[SegmentName]) -> None:
        if mark and (not chain or chain[-1].name.number < mark[0]):
            for name in leftovers:
                if name.number == mark[0]:
                    raise damaged(self._path(name), 0, "it was durable before, and its head can't be read now")
            raise _segment_missing(self._folder / f"…-{mark[0]:06d}.seg")

    def _restore(self, chain: list[_Link], start: Start) -> Place:
        """Take the newest snapshot, if there is one; the place from which on the frames are to be read."""
        numbers = {link.name.number: link.name for link in chain}
        for snapshot in read_snapshots(self._files, self._folder, self._spec.stream):
            place = snapshot.place
            if not chain or place.segment > chain[-1].name.number:
                raise _segment_missing(self._folder / f"…-{place.segment:06d}.seg")
            if (name := numbers.get(place.segment)) is None:
                continue
            if (size := self._files.size(self._path(name))) < place.position:
                why = f"the file ends here; {place.position} bytes of it were durable when {place} was written"
                raise damaged(self._path(name), size, why)
            self._state.restore(snapshot.state)
            self._out.index.restore(snapshot.index)
            self._out.index.drop_before(chain[0].name.number)
            self._newest_frame = place.position
            return place
        if start.segment:
            path = self._folder / "*.snapshot"
            raise LogDamaged(
                f"{path}: no snapshot can be read, and the segments before number {start.segment}, which it stands "
                "for, were dropped by retention. Restore the snapshots from a backup",
                str(path),
                0,
            )
        return LOG_BEGIN

    def _check_length(self, file: SegmentFile, info: SegmentInfo, successor: Head) -> None:
        """A segment that the snapshot covers is not read, but what was durable of it must be there."""
        info.valid_end = successor.previous_valid_bytes
        if (size := self._size(file)) < info.valid_end:
            raise file.damaged(size, f"the file ends here; {info.valid_end} bytes of it were durable")

    def _make_durable(self, info: SegmentInfo, mark: tuple[int, int] | None) -> None:
        """See that what was read can be read after a power loss too, before anybody is told of it.

        A service that was killed may have left its newest frame, or its newest segment's entry in the folder, in
        memory alone. Every frame before the newest was synced before that one was written, and so was everything that
        a snapshot covers.
        """
        if mark == (info.name.number, info.valid_end):
            return
        self._files.rewrite(self._path(info.name), self._newest_frame)
        self._files.sync_folder(self._folder)

    def _size(self, file: SegmentFile) -> int:
        return self._files.size(file.path)

    def _path(self, name: SegmentName) -> Path:
        return self._folder / str(name)

    def _head(self, file: SegmentFile, *, last: bool) -> tuple[Head, pa.Schema, int] | None:
        try:
            frame, _ = file.frame_at(0)
        except FrameDamaged as error:
            if last and file.whole_frame_after(0, self._size(file)) is None:
                return None
            raise file.damaged(0, error) from error
        schema = pa.ipc.read_schema(frame.body)
        check_fits(file.path.name, schema, self._spec)
        return check_head(file, frame, self._spec.stream), schema, frame.append_time_us

    def _scan(
        self, file: SegmentFile, info: SegmentInfo, successor: Head | None, mark: tuple[int, int] | None, begin: int
    ) -> None:
        end = successor.previous_valid_bytes if successor else self._size(file)
        durable = mark[1] if mark and mark[0] == file.name.number else 0
        info.valid_end = begin
        try:
            for position, frame, after in file.scan(begin, end):
                self._apply(file, position, frame)
                info.valid_end = after
                self._newest_frame = position
        except FrameDamaged as error:
            position = info.valid_end
            if successor or position < durable or file.whole_frame_after(position, end) is not None:
                raise file.damaged(position, error) from error
            self._files.truncate(file.path, position)
        if info.valid_end < durable:
            raise file.damaged(info.valid_end, f"the file ends here; {durable} bytes of it were durable")

    def _apply(self, file: SegmentFile, position: int, frame: Frame) -> None:
        expected = self._state.next_offset
        if frame.base_offset != expected:
            raise file.damaged(position, f"expected offset {expected}, found {frame.base_offset}: a frame is missing")
        self._state.next_offset = frame.next_offset
        if frame.kind is not Kind.HEAD:
            self._out.index.add(frame.base_offset, file.name.number, position, frame.append_time_us)
        if frame.kind is Kind.ROWS:
            ref = FrameRef(file.name.number, position, frame.base_offset, frame.rows, frame.append_time_us)
            table = RowsTable.unpack(frame.table)
            self._state.apply_rows(ref, table)
            self._state.restore_producers(frame, table)
        elif frame.kind is Kind.SEAL:
            self._state.apply_seal(unpack_seal(frame.table, frame.base_offset))

    def _restore_dedup(self) -> None:
        dedup, event_id = self._state.dedup, self._spec.event_id
        if dedup is None or event_id is None:
            return
        place = dedup_place(self._state, self._out.index)
        columns: list[pa.Array] = []
        times_us: list[np.ndarray] = []
        rows = 0
        for frame, codec in self._frames_from(place):
            if frame.kind is Kind.ROWS and frame.rows and event_id in codec.schema.names:
                columns.append(codec.decode(frame.body).column(event_id))
                times_us.append(np.full(frame.rows, frame.append_time_us))
                rows += frame.rows
                if rows >= _RESTORED_ROWS:
                    dedup.restore(pa.concat_arrays(columns), np.concatenate(times_us))
                    columns, times_us, rows = [], [], 0
        if columns:
            dedup.restore(pa.concat_arrays(columns), np.concatenate(times_us))

    def _frames_from(self, place: Place) -> Iterator[tuple[Frame, BatchCodec]]:
        for info in self._out.segments:
            if info.name.number >= place.segment:
                codec = BatchCodec(info.schema)
                with self._opened(info.name) as file:
                    begin = place.position if info.name.number == place.segment else 0
                    for frame in _frames(file, begin, info.valid_end):
                        yield frame, codec


def _frames(file: SegmentFile, begin: int, end: int) -> Iterator[Frame]:
    position = begin
    try:
        for _, frame, position in file.scan(begin, end):  # noqa: B007 - where the next one begins, for the error
            yield frame
    except FrameDamaged as error:
        raise file.damaged(position, error) from error


def dedup_place(state: LogState, index: Index) -> Place:
    """A place before which no row is in the dedup window any more; LOG_BEGIN where none is known.

    The window is made again from the frames, so those from here on must be kept.
    """
    if state.dedup is None:
        return Place(1 << 62, 0)
    offset, time_us = state.dedup.begins_at(state.next_offset, state.last_append_us)
    places = (index.before(offset), index.before_time(time_us))
    return max(Place(*place) if place else LOG_BEGIN for place in places)


def _segment_missing(path: Path) -> LogDamaged:
    return LogDamaged(
        f"{path} is missing: rows that were acknowledged are gone. Restore it from a backup, or move the stream's "
        "folder away to begin anew.",
        str(path),
        0,
    )


def check_fits(where: str, schema: pa.Schema, spec: LogSpec) -> None:
    """See that rows of this schema, which stand in `where`, can be read as the spec wants them.

    Raises:
        ContractError: a column is gone or of another type, or a new one would have to have a value.
    """
    for field_ in schema:
        at = spec.schema.get_field_index(field_.name)
        if at < 0 or spec.schema.field(at).type != field_.type:
            now = "is gone" if at < 0 else f"is {spec.schema.field(at).type} now"
            raise ContractError(
                f"stream {spec.stream!r}: column {field_.name!r} was {field_.type} in {where} and {now}. "
                "A contract may only gain optional fields; declare another stream for a different shape"
            )
    missing = [field_.name for field_ in spec.schema if field_.name not in schema.names and not field_.nullable]
    if missing:
        raise ContractError(
            f"stream {spec.stream!r}: column {missing[0]!r} is new and not optional, but {where} holds rows "
            "without it. Declare the field `optional`, or another stream"
        )


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch written under another version of the contract, with this schema's columns: null where it lacks one."""
    if batch.schema.names == schema.names:
        return batch
    columns = [
        batch.column(field_.name) if field_.name in batch.schema.names else pa.nulls(batch.num_rows, field_.type)
        for field_ in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def read_mark(files: Files, folder: Path) -> tuple[int, int] | None:
    """Segment number and position up to which the log was known to be durable, or None."""
    if MARK_NAME not in files.list_folder(folder):
        return None
    handle = files.open_read(folder / MARK_NAME)
    try:
        mark = json.loads(handle.read_at(0, 1 << 12))
        return int(mark["segment"]), int(mark["position"])
    except (ValueError, KeyError, TypeError):
        # The mark only makes recovery stricter; without it the frames' own checks stand.
        return None
    finally:
        handle.close()


def write_mark(files: Files, folder: Path, segment: int, position: int) -> None:
    """Record that everything before `position` of that segment is durable."""
    files.replace(folder / MARK_NAME, json.dumps({"segment": segment, "position": position}).encode())
