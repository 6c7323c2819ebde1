"""Makes events of a contract up: rows that keep its rules, out of order, with NULLs, in groups that come again."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ingest_service.contracts import Contract, Intake
from ingest_service.contracts.contract import extension, message_class
from ingest_service.contracts.judge import Judge
from ingest_service.errors import IngestError
from ingest_service.live.trial.hints import Hints
from ingest_service.live.trial.values import ANCHOR, SPAN, FieldValues, to_us

_CANDIDATES = 120
"""How many values of a field are made, before those that break its rules are left out."""
_ABSENT = 0.12
_NAMED_AGAIN = 0.6
_FAVOURITES = 20
_BUSY_MOMENTS = 15
_BUSY = 0.85


class NoEvents(IngestError):
    """No events could be made up: the text says of which field, and what to do."""


@dataclass(slots=True)
class _Choice:
    """The pools of a field, or of the members of a oneof; each value is a serialized message of that one field."""

    is_name: bool
    may_be_absent: bool
    pools: list[list[bytes]] = dataclasses.field(default_factory=list)


class EventMaker:
    """Makes events of one contract up; the same seed and hints make the same events.

    Each field has a pool of values that keep its rules, so that groups come again; a row takes one value of each. What
    breaks a rule about several fields is left out. Values are kept as serialized messages of that one field: a row is
    their concatenation.
    """

    def __init__(self, contract: Contract, hints: Hints, rng: random.Random) -> None:
        self._contract = contract
        self._rng = rng
        self._descriptor = contract.descriptor()
        self._message = message_class(self._descriptor)
        self._judge = Judge(contract)
        self._values = FieldValues(hints, rng)
        self._asked = {broken.field for broken in self._judge.broken(self._message())}
        made_apart = {contract.event_time, contract.event_id}
        self._pools = {
            field.name: self._pool(field) for field in self._descriptor.fields if field.name not in made_apart
        }
        choices = self._choices().values()
        self._named = [choice for choice in choices if choice.is_name]
        self._numbers = [choice for choice in choices if not choice.is_name]
        self._favourites: list[bytes] = []

    def table(self, rows: int) -> pa.Table:
        """Events in the order of arrival, at most `rows`, with the contract's schema.

        Raises NoEvents when hardly any keeps the contract.
        """
        times = self._times(rows)
        ids = self._ids(rows)
        parts = [self._row(*each) for each in zip(times, ids, strict=True)]
        intake = Intake(self._contract)
        step = intake.limits.max_rows
        now_us = to_us(max(dt.datetime.now(dt.UTC), ANCHOR + 2 * SPAN))
        checked = [intake.from_proto(parts[start : start + step], now_us) for start in range(0, rows, step)]
        kept = pa.Table.from_batches([each.rows for each in checked], self._contract.schema)
        if kept.num_rows * 2 < rows:
            broken = Counter(f"{row.field}: {row.message}" for each in checked for row in each.quarantined)
            raise NoEvents(
                f"of {rows:,} events that were made up for the stream {self._contract.stream}, only "
                f"{kept.num_rows:,} keep its contract ({broken.most_common(1)[0][0]}); give real ones with --input"
            )
        return kept

    def _row(self, time_us: int, event_id: bytes) -> bytes:
        at = self._message()
        getattr(at, self._contract.event_time).FromMicroseconds(time_us)
        return b"".join((at.SerializeToString(), event_id, self._names(), *self._chosen(self._numbers)))

    def _names(self) -> bytes:
        """A row's text and flags: those by which one groups, so that more often than not all of them come again."""
        rng = self._rng
        if self._favourites and rng.random() < _NAMED_AGAIN:
            return self._favourites[int(len(self._favourites) * rng.random() ** 2)]
        names = b"".join(self._chosen(self._named))
        if len(self._favourites) < _FAVOURITES:
            self._favourites.append(names)
        return names

    def _chosen(self, choices: Sequence[_Choice]) -> Iterator[bytes]:
        rng = self._rng
        for choice in choices:
            if choice.may_be_absent and rng.random() < _ABSENT:
                continue
            pool = choice.pools[0] if len(choice.pools) == 1 else rng.choice(choice.pools)
            # The first of a pool are frequent, the last are rare.
            yield pool[int(len(pool) * rng.random() ** 3)]

    def _pool(self, field: FieldDescriptor) -> list[bytes]:
        """Serialized messages that have this field alone, each with a value that keeps the field's rules."""
        found: dict[bytes, None] = {}
        for _ in range(_CANDIDATES):
            made = self._message()
            try:
                self._values.put(made, field)
            except (ValueError, TypeError):
                continue  # a rule that nothing is made up for; the field may do without
            if self._keeps(made, field.name):
                found.setdefault(made.SerializeToString())
        if not found and not self._may_be_absent(field):
            raise NoEvents(
                f"no value could be made up that keeps the rules of {self._descriptor.full_name}.{field.name} "
                f"({self._contract.file}); give real events with --input"
            )
        return list(found)

    def _keeps(self, made: Message, field: str) -> bool:
        """Whether a message keeps the rules of one of its fields."""
        roots = (re.split(r"[.\[]", broken.field, maxsplit=1)[0] for broken in self._judge.broken(made))
        return field not in roots

    def _may_be_absent(self, field: FieldDescriptor) -> bool:
        # What does not track presence is never absent: its zero value has to keep the rules as any other has.
        return field.name not in self._asked

    def _choices(self) -> dict[str, _Choice]:
        """What a row chooses from, by field; the members of a oneof are one choice."""
        choices: dict[str, _Choice] = {}
        for field in self._descriptor.fields:
            pool = self._pools.get(field.name)
            if not pool:
                continue
            oneof = field.containing_oneof
            if oneof is not None and len(oneof.fields) > 1:
                choice = choices.setdefault(
                    oneof.name, _Choice(is_name=False, may_be_absent=oneof.name not in self._asked)
                )
                choice.pools.append(pool)
            else:
                absent = field.has_presence and self._may_be_absent(field)
                choices[field.name] = _Choice(is_name=_is_name(field), may_be_absent=absent, pools=[pool])
        return choices

    def _ids(self, rows: int) -> list[bytes]:
        """An id for each event where the contract has one, each another as far as its rules allow."""
        name = self._contract.event_id
        if name is None:
            return [b""] * rows
        field = self._descriptor.fields_by_name[name]
        numbered: Callable[[int], str]
        for numbered in (lambda n: f"e{n}", lambda n: str(n).zfill(12), lambda n: f"{n:032x}"):
            made = [self._message(**{name: numbered(number)}) for number in (0, rows)]
            if all(self._keeps(each, name) for each in made):
                return [self._message(**{name: numbered(number)}).SerializeToString() for number in range(rows)]
        pool = self._pool(field)
        return [self._rng.choice(pool) for _ in range(rows)]

    def _times(self, rows: int) -> list[int]:
        """Event times (µs) in the order of arrival: most in busy minutes, some late, a few on a window's border."""
        rng = self._rng
        busy = [ANCHOR + SPAN * rng.random() for _ in range(_BUSY_MOMENTS)]
        arrivals = []
        for _ in range(rows):
            is_busy = rng.random() < _BUSY
            at = rng.choice(busy) + dt.timedelta(minutes=rng.random()) if is_busy else ANCHOR + SPAN * rng.random()
            if rng.random() < 0.02:
                at = at.replace(second=0, microsecond=0, minute=rng.choice([0, 30, at.minute]))
            late = rng.random() < 0.05
            delay = dt.timedelta(hours=30 * rng.random()) if late else dt.timedelta(seconds=rng.expovariate(1 / 60))
            arrivals.append((at + delay, at))
        return [to_us(at) for _, at in sorted(arrivals)]


def _is_name(field: FieldDescriptor) -> bool:
    """Whether values of a field name things, rather than measure them."""
    texts = (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_ENUM)
    return field.cpp_type in texts and not field.is_repeated and extension(field, "tidemill.v1.field") is None


def as_sample(contract: Contract, given: Sequence[pa.RecordBatch]) -> tuple[pa.Table, int]:
    """Given rows that keep the contract, with exactly its schema, and how many others there were.

    given: in columns of the contract's names. Raises BadRequest when they are not.
    """
    intake = Intake(contract)
    now_us = to_us(dt.datetime.now(dt.UTC))
    kept, refused = [], 0
    for batch in given:
        for start in range(0, batch.num_rows, intake.limits.max_rows):
            part = batch.slice(start, intake.limits.max_rows)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, part.schema) as writer:
                writer.write_batch(part)
            checked = intake.from_arrow(sink.getvalue().to_pybytes(), now_us)
            kept.append(checked.rows)
            refused += len(checked.quarantined)
    return pa.Table.from_batches(kept, contract.schema), refused
