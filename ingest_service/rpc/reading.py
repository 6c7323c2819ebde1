"""What one Read call reads, and how far it is."""

from __future__ import annotations

import threading
from collections import deque

import pyarrow as pa

from ingest_service.contracts import Contract, Encoder
from ingest_service.errors import BadRequest
from ingest_service.lake import WholeLog, WholeLogReader
from ingest_service.log import SYSTEM_COLUMNS, Rows
from ingest_service.rpc.read_responses import RESPONSE_BYTES, Packed, arrow_responses, proto_responses
from tidemill.v1 import read_pb2

FETCH_BYTES = 4 << 20
"""What is read and serialized at once, about."""
_FETCH_ROWS = 16_384
_WAIT_S = 1.0
_OURS = frozenset(field.name for field in SYSTEM_COLUMNS)


class Encoders:
    """One encoder a stream, made anew when its contract has changed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, tuple[Contract, Encoder]] = {}

    def of(self, contract: Contract) -> Encoder:
        """The contract's encoder."""
        with self._lock:
            made_of, encoder = self._made.get(contract.stream, (None, None))
            if encoder is None or made_of is not contract:
                encoder = Encoder(contract)
                self._made[contract.stream] = contract, encoder
            return encoder


class Reading:
    """Responses on their way to one reader. `fetch` runs in a thread, one at a time; the rest belongs to the call.

    Invariant: `responses` begin at `offset`, and rows read ahead begin behind them; `rest` forgets both, and the next
    `fetch` reads them again.
    """

    def __init__(self, whole: WholeLog, request: read_pb2.ReadRequest) -> None:
        """Raises BadRequest when the request asks for what cannot be."""
        self._whole = whole
        self._columns = list(dict.fromkeys(request.columns))
        self._check_columns()
        self._arrow = request.format == read_pb2.READ_FORMAT_ARROW
        durable = whole.durable_offset
        self.offset = _start(whole, request, durable)
        """The next row to send."""
        self.responses: deque[Packed] = deque()
        """Those that wait to be sent, in order."""
        self._end = None if request.follow else durable
        if request.limit:
            end = self.offset + request.limit
            self._end = end if self._end is None else min(self._end, end)
        self._lock = threading.Lock()
        self._ahead: deque[Rows] = deque()
        self._reader: WholeLogReader | None = None
        self._schema: pa.Schema | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing more to send."""
        return self._end is not None and self.offset >= self._end

    @property
    def held_bytes(self) -> int:
        """What waits in memory for this reader, about."""
        ahead = sum(int(rows.batch.nbytes) for rows in self._ahead)
        return ahead + sum(len(each.data) for each in self.responses)

    def fetch(self, contract: Contract, encoders: Encoders, *, thrifty: bool) -> None:
        """Make the next responses; none when only seals came. `thrifty`: one at a time, and keep no row behind it."""
        with self._lock:
            reader = self._opened()
            if not self._ahead:
                wanted = _FETCH_ROWS if self._end is None else min(_FETCH_ROWS, self._end - self.offset)
                entries = reader.read(wanted, _WAIT_S, FETCH_BYTES)
                self._ahead.extend(self._below_end(entry) for entry in entries if isinstance(entry, Rows))
            if self._ahead:
                rows = self._take_ahead(RESPONSE_BYTES if thrifty else FETCH_BYTES)
                durable = self._whole.durable_offset
                if self._arrow:
                    self.responses.extend(arrow_responses(rows, durable))
                else:
                    self.responses.extend(proto_responses(rows, encoders.of(contract), durable))
            if thrifty:
                self._forget_ahead()

    def rest(self) -> None:
        """Let go of everything but the place."""
        with self._lock:
            self.responses.clear()
            self._forget_ahead()

    def _forget_ahead(self) -> None:
        self._ahead.clear()
        if self._reader is not None:
            self._reader.close()

    def _opened(self) -> WholeLogReader:
        """The reader, behind the rows at hand: it is elsewhere after a rest, and has old columns after a change."""
        whole = self._whole
        at = self._ahead[0].base_offset if self._ahead else None if self._reader is None else self._reader.offset
        if self._reader is None or at != self.offset or self._schema is not whole.schema:
            self._forget_ahead()
            self._schema = whole.schema
            self._reader = whole.reader(self.offset, self._wanted(self._schema))
        return self._reader

    def _take_ahead(self, size_bytes: int) -> Rows:
        """Of the next rows about so many bytes, one row at the least."""
        rows = self._ahead.popleft()
        count = rows.batch.num_rows
        step = max(1, size_bytes * count // max(1, rows.batch.nbytes))
        if step >= count:
            return rows
        middle = rows.base_offset + step
        self._ahead.appendleft(Rows(rows.batch.slice(step), middle, rows.next_offset))
        return Rows(rows.batch.slice(0, step), rows.base_offset, middle)

    def _wanted(self, schema: pa.Schema) -> list[str]:
        names = self._columns or schema.names
        return names if self._arrow else [name for name in names if name not in _OURS]

    def _below_end(self, rows: Rows) -> Rows:
        if self._end is None or rows.next_offset <= self._end:
            return rows
        return Rows(rows.batch.slice(0, self._end - rows.base_offset), rows.base_offset, self._end)

    def _check_columns(self) -> None:
        known = self._whole.schema.names
        for name in self._columns:
            if name not in known:
                raise BadRequest(f"columns: {name[:80]!r} is unknown; the columns are: {', '.join(known)}")


def _start(whole: WholeLog, request: read_pb2.ReadRequest, durable: int) -> int:
    match request.WhichOneof("from"):
        case "from_offset" if request.from_offset > durable:
            raise BadRequest(
                f"from_offset: expected at most {durable}, the durable offset; came {request.from_offset}. Rows that "
                "are still to come are read with `follow`, from the durable offset on"
            )
        case "from_offset":
            return request.from_offset
        case "from_time":
            return min(durable, whole.offset_at(request.from_time.ToMicroseconds()))
        case "from_end":
            return durable
        case _:
            return 0
