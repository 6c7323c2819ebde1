"""Opening a log: what its files hold is checked, what was never durable is cut, and its state is made again.

Damage in the last segment, with no whole frame behind it and beyond the durable mark, is a write that was never
acknowledged: it is cut. Any other damage stops the start-up. The durable mark is a small file, written when a log is
closed and when a segment begins: everything before it was durable then.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ingest_service.errors import ContractError, LogDamaged
from ingest_service.log.files import Files
from ingest_service.log.frame import BatchCodec, Frame, FrameDamaged, Kind
from ingest_service.log.records import LogSpec
from ingest_service.log.segment import Head, SegmentFile, SegmentName, check_head
from ingest_service.log.segments import Index, SegmentInfo, Segments
from ingest_service.log.state import FrameRef, LogState
from ingest_service.log.table import RowsTable, unpack_seal

MARK_NAME = "durable.json"


@dataclass(slots=True)
class Recovered:
    """A log's segments, oldest first, and its index."""

    segments: Segments = field(default_factory=Segments)
    index: Index = field(default_factory=Index)


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

    file: SegmentFile
    head: Head
    schema: pa.Schema
    begun_us: int


class _Recovery:
    def __init__(self, files: Files, folder: Path, spec: LogSpec, state: LogState) -> None:
        self._files, self._folder, self._spec, self._state = files, folder, spec, state
        self._out = Recovered()
        self._window: deque[FrameRef] = deque()
        self._window_rows = 0
        self._newest_frame = 0

    def run(self) -> Recovered:
        names = self._names()
        mark = read_mark(self._files, self._folder)
        opened = [SegmentFile(self._files, self._folder, name) for name in names]
        try:
            self._scan_all(opened, mark)
            self._restore_dedup({file.name.number: file for file in opened})
        finally:
            for file in opened:
                file.close()
        return self._out

    def _names(self) -> list[SegmentName]:
        parsed = (SegmentName.parse(name) for name in self._files.list_folder(self._folder))
        return sorted((name for name in parsed if name), key=lambda name: (name.number, name.base_offset))

    def _scan_all(self, opened: list[SegmentFile], mark: tuple[int, int] | None) -> None:
        chain, leftovers = self._chain(opened)
        if mark and (not chain or chain[-1].file.name.number < mark[0]):
            for file in leftovers:
                if file.name.number == mark[0]:
                    raise file.damaged(0, "it was durable before, and its head can't be read now")
            raise _segment_missing(self._folder / f"…-{mark[0]:06d}.seg")
        for file in leftovers:
            self._files.remove(file.path)
        for i, link in enumerate(chain):
            info = SegmentInfo(link.file.name, link.schema, begun_us=link.begun_us)
            self._out.segments.append(info)
            self._scan(link.file, info, chain[i + 1].head if i + 1 < len(chain) else None, mark)
        if chain:
            self._make_durable(chain[-1].file, self._out.segments[-1], mark)

    def _chain(self, opened: list[SegmentFile]) -> tuple[list[_Link], list[SegmentFile]]:
        """The segments that make up the log, oldest first, and what is left of segments that failed to begin.

        The newest segment with a readable head is the last one; each head names its predecessor. A segment that no
        head names never got a first frame: another one was begun in its place.
        """
        chain: list[_Link] = []
        leftovers: list[SegmentFile] = []
        for file in reversed(opened):
            if chain and file.name.number != (wanted := chain[-1].head.previous_number):
                if file.whole_frame_after(0, self._size(file)) is not None:
                    raise chain[-1].file.damaged(0, f"its predecessor is number {wanted}, found {file.path.name}")
                leftovers.append(file)
            elif (head := self._head(file, last=not chain)) is None:
                leftovers.append(file)
            else:
                chain.append(_Link(file, *head))
        if chain and (wanted := chain[-1].head.previous_number):
            raise chain[-1].file.damaged(0, f"its predecessor, number {wanted}, is missing")
        return chain[::-1], leftovers

    def _make_durable(self, file: SegmentFile, info: SegmentInfo, mark: tuple[int, int] | None) -> None:
        """See that what was read can be read after a power loss too, before anybody is told of it.

        A service that was killed may have left its newest frame, or its newest segment's entry in the folder, in
        memory alone. Every frame before the newest was synced before that one was written.
        """
        if mark == (file.name.number, info.valid_end):
            return
        self._files.rewrite(file.path, self._newest_frame)
        self._files.sync_folder(self._folder)

    def _size(self, file: SegmentFile) -> int:
        return self._files.size(file.path)

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

    def _scan(self, file: SegmentFile, info: SegmentInfo, successor: Head | None, mark: tuple[int, int] | None) -> None:
        end = successor.previous_valid_bytes if successor else self._size(file)
        durable = mark[1] if mark and mark[0] == file.name.number else 0
        try:
            for position, frame, after in file.scan(0, end):
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
            self._remember(ref)
        elif frame.kind is Kind.SEAL:
            self._state.apply_seal(unpack_seal(frame.table, frame.base_offset))

    def _remember(self, ref: FrameRef) -> None:
        """Keep the frames that the dedup window may still hold."""
        dedup = self._state.dedup
        if dedup is None or not ref.rows:
            return
        self._window.append(ref)
        self._window_rows += ref.rows
        while not dedup.reaches(
            self._window_rows - self._window[0].rows, ref.append_time_us - self._window[0].append_time_us
        ):
            self._window_rows -= self._window.popleft().rows

    def _restore_dedup(self, opened: dict[int, SegmentFile]) -> None:
        if self._state.dedup is None or self._spec.event_id is None:
            return
        codecs = {info.name.number: BatchCodec(info.schema) for info in self._out.segments}
        for ref in self._window:
            frame, _ = opened[ref.segment].frame_at(ref.position)
            batch = codecs[ref.segment].decode(frame.body)
            if self._spec.event_id in batch.schema.names:
                self._state.dedup.restore(batch.column(self._spec.event_id), ref.append_time_us)


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
