"""What producers send, checked: valid rows as Arrow, and the others with the rule that each breaks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError, Message

from ingest_service.contracts.arrow_message import MessageBuilder
from ingest_service.contracts.arrow_rows import ArrowReader
from ingest_service.contracts.contract import Contract, message_class
from ingest_service.contracts.decode import Decoder
from ingest_service.contracts.judge import Broken, Judge
from ingest_service.contracts.own_rules import MALFORMED, OwnRule, own_rules
from ingest_service.contracts.retype import to_contract
from ingest_service.contracts.rules import proofs_of
from ingest_service.contracts.shown import row_as_json, shown_scalar
from ingest_service.contracts.wire_rows import WireRows
from ingest_service.errors import BadRequest
from ingest_service.log.records import QuarantinedRow


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """Bounds of one batch.

    max_rows: rows (default 50,000); a batch with more is refused.
    max_bytes: of an Arrow batch once it is decompressed (default 256 MiB); a batch with more is refused.
    future_us: how long after the time of arrival an event may have happened, µs (default 5 minutes): clocks differ.
    """

    max_rows: int = 50_000
    max_bytes: int = 256 * 1024 * 1024
    future_us: int = 5 * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Validated:
    """A checked batch, as `Append` wants it.

    rows: the rows that keep the contract, in the order sent, with exactly the contract's schema.
    row_count: rows that were sent; rows.num_rows + len(quarantined).
    quarantined: the others, by rising index in the batch as sent.
    """

    rows: pa.RecordBatch
    row_count: int
    quarantined: tuple[QuarantinedRow, ...] = ()

    def split(self, counts: Sequence[int]) -> list[Validated]:
        """The batches that this one was put together from; `counts` says how many rows were sent in each."""
        parts = []
        begin = valid_begin = taken = 0
        for count in counts:
            first = taken
            while taken < len(self.quarantined) and self.quarantined[taken].index < begin + count:
                taken += 1
            quarantined = tuple(replace(row, index=row.index - begin) for row in self.quarantined[first:taken])
            valid = count - len(quarantined)
            parts.append(Validated(self.rows.slice(valid_begin, valid), count, quarantined))
            begin, valid_begin = begin + count, valid_begin + valid
        return parts


class Intake:
    """Checks the batches of one stream against its contract; thread-safe.

    Invariant: a row is in `rows` exactly if protovalidate and Tidemill's own rules find nothing wrong with it. Arrow
    kernels prove whole batches; only the rows that they cannot prove are asked about one by one.
    """

    def __init__(self, contract: Contract, limits: IntakeLimits = IntakeLimits()) -> None:
        self.contract = contract
        self.limits = limits
        descriptor = contract.descriptor()
        self._message = message_class(descriptor)
        self._decoder = Decoder(descriptor)
        self._proofs = proofs_of(descriptor, self._decoder.schema)
        self._own_rules = own_rules(contract, limits.future_us)
        self._judge = Judge(contract)
        self._messages = MessageBuilder(contract, self._message)
        self._arrow = ArrowReader(
            contract, self._decoder.schema, self._proofs.columns, limits.max_rows, limits.max_bytes
        )

    def from_proto(self, messages: list[bytes], now_us: int) -> Validated:
        """Checks serialized messages; `now_us` is the time of arrival (µs since 1970, UTC).

        Raises BadRequest when there are more rows than the limit.
        """
        if len(messages) > self.limits.max_rows:
            raise BadRequest(
                f"expected at most {self.limits.max_rows} rows in a batch, came {len(messages)}; "
                "send several smaller batches"
            )
        batch, malformed = self._decoder.decode(messages)
        sent = (
            [index for index in range(len(messages)) if index not in malformed] if malformed else range(len(messages))
        )
        rows = WireRows(dict(zip(batch.schema.names, batch.columns, strict=True)), batch.num_rows)
        rejected = self._rejected(rows, now_us, lambda row: self._parsed(messages[sent[row]]))
        verdicts = {index: self._malformed(reason) for index, reason in malformed.items()}
        verdicts |= {sent[row]: broken for row, broken in rejected.items()}
        return Validated(self._finish(rows, rejected), len(messages), _quarantined(verdicts, messages.__getitem__))

    def from_arrow(self, ipc_stream: bytes, now_us: int) -> Validated:
        """Checks an Arrow IPC stream of one record batch; columns are matched by name, in any order.

        Raises BadRequest when it is no such stream, when a column is unknown, missing or of a type that cannot be the
        contract's, or when it is larger than the limits. A single value that does not fit quarantines its row.
        """
        rows, batch = self._arrow.read(ipc_stream)
        rejected = self._rejected(rows, now_us, lambda row: self._messages.build(rows, row))
        return Validated(
            self._finish(rows, rejected), rows.row_count, _quarantined(rejected, lambda row: row_as_json(batch, row))
        )

    def _rejected(self, rows: WireRows, now_us: int, message_of: Callable[[int], Message]) -> dict[int, Broken]:
        """The verdict over each row that breaks a rule. Only rows that no kernel can prove are looked at one by one."""
        proven = self._proofs.prove(rows.columns, rows.row_count)
        own = self._own_masks(rows, now_us + self.limits.future_us)
        suspects = _suspects([proven, *(mask for _, mask in own)], rows)
        rejected: dict[int, Broken] = {}
        for row in suspects:
            broken = list(rows.misfits.get(row, ()))
            try:
                broken += self._judge.broken(message_of(row))
            except DecodeError as error:
                broken.append(self._malformed(str(error)))
            broken += [_own_broken(rule, rows, row) for rule, mask in own if not mask[row].as_py()]
            verdict = self._judge.first(broken)
            if verdict is not None:
                rejected[row] = verdict
        return rejected

    def _own_masks(self, rows: WireRows, latest_us: int) -> list[tuple[OwnRule, pa.Array]]:
        """Tidemill's rules that some row breaks, each with the rows where it holds."""
        masks = []
        columns = {**rows.columns, **rows.finished}
        for rule in self._own_rules:
            mask = rule.holds(columns, latest_us)
            if mask.null_count:
                mask = pc.fill_null(mask, True)
            if mask.false_count:
                masks.append((rule, mask))
        return masks

    def _parsed(self, message: bytes) -> Message:
        return self._message.FromString(message)

    def _malformed(self, reason: str) -> Broken:
        return Broken(
            MALFORMED, "", f"expected a serialized {self.contract.message_type}, but it cannot be decoded: {reason}"
        )

    def _finish(self, rows: WireRows, rejected: Collection[int]) -> pa.RecordBatch:
        """The rows that were not rejected, with the contract's schema."""
        keep = None
        if rejected:
            positions = pa.array(range(rows.row_count), pa.int32())
            keep = pc.invert(pc.is_in(positions, value_set=pa.array(sorted(rejected), pa.int32())))
        arrays = []
        for column in self.contract.columns:
            values = rows.finished.get(column.name, rows.columns[column.name])
            if keep is not None:
                values = values.filter(keep)
            arrays.append(to_contract(column, values))
        return pa.RecordBatch.from_arrays(arrays, schema=self.contract.schema)


def _suspects(masks: Sequence[pa.Array | None], rows: WireRows) -> list[int]:
    """The rows, rising, that some mask does not hold for, and those with a value that does not fit."""
    found = set(rows.misfits)
    for mask in masks:
        if mask is not None:
            found.update(pc.indices_nonzero(pc.invert(mask)).to_pylist())
    return sorted(found)


def _own_broken(rule: OwnRule, rows: WireRows, row: int) -> Broken:
    came = shown_scalar(rows.columns[rule.column][row])
    return Broken(rule.rule, rule.column, f"expected {rule.expected}, came {came}")


def _quarantined(verdicts: Mapping[int, Broken], payload_of: Callable[[int], bytes]) -> tuple[QuarantinedRow, ...]:
    return tuple(
        QuarantinedRow(index, broken.rule, broken.field, broken.message, payload_of(index))
        for index, broken in sorted(verdicts.items())
    )
