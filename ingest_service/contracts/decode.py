"""Serialized protobuf messages to Arrow, and the search for the rows that spoil a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import ptars
import pyarrow as pa
from google.protobuf.descriptor import Descriptor

Part = TypeVar("Part")


class Decoder:
    """Decodes messages of one type; thread-safe.

    Columns are what protobuf has: decimals are still strings, unsigned integers unsigned, times in UTC microseconds
    (floored; a time beyond them saturates, and is found by the rule `tidemill.timestamp`), durations in microseconds
    (the rest cut off; saturating, found by `tidemill.duration`).
    """

    def __init__(self, descriptor: Descriptor) -> None:
        # A map's entry may lack its value on the wire; found by the rule `tidemill.null`.
        config = ptars.PtarsConfig(timestamp_unit="us", duration_unit="us", map_value_nullable=True)
        self._handler = ptars.HandlerPool([descriptor.file], config=config).get_for_message(descriptor)
        self.schema: pa.Schema = self._handler.schema()

    def decode(self, messages: list[bytes]) -> tuple[pa.RecordBatch, dict[int, str]]:
        """The rows that can be decoded, in order, and why the others (by index) cannot."""
        try:
            return self._decode(messages), {}
        except ValueError:
            # One malformed message fails the whole batch, without saying which it is.
            pass
        parts, malformed = search(len(messages), lambda start, end: self._decode(messages[start:end]), ValueError)
        if not parts:
            return self._decode([]), malformed
        return pa.Table.from_batches(parts).combine_chunks().to_batches()[0], malformed

    def _decode(self, messages: list[bytes]) -> pa.RecordBatch:
        try:
            return self._handler.list_to_record_batch(messages)
        except BaseException as error:
            # What ptars did not foresee ends in a Rust panic, which is no Exception: to the caller, bytes like others.
            if type(error).__name__ != "PanicException":
                raise
            raise ValueError(str(error)) from error


def search(
    count: int, attempt: Callable[[int, int], Part], failure: type[Exception]
) -> tuple[list[Part], dict[int, str]]:
    """Halves 0 … count until each span either succeeds or is one row that fails.

    Gives what `attempt(start, end)` gave for the spans that succeed, in order, and the failing rows with their reasons.
    Costs one attempt for a good batch, about 2·log2(count) for one bad row, and 2·count if all are bad.
    """
    parts: list[Part] = []
    failed: dict[int, str] = {}
    spans = [(0, count)] if count else []
    while spans:
        start, end = spans.pop()
        try:
            parts.append(attempt(start, end))
        except failure as error:
            if end - start == 1:
                failed[start] = str(error)
            else:
                middle = (start + end) // 2
                spans += [(middle, end), (start, middle)]
    return parts, failed
