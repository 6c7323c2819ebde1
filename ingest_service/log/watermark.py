"""The watermark: the event time below which a stream is believed complete."""

from __future__ import annotations

from dataclasses import dataclass

from ingest_service.log.records import LogSpec


@dataclass(slots=True)
class Watermark:
    """Follows the greatest event time less the contract's out-of-orderness, and never passes append time.

    A stream that got nothing for `idle_after_us` follows the wall clock instead, at the same distance. Microseconds
    since 1970 UTC throughout. Not thread-safe.
    """

    out_of_orderness_us: int
    idle_after_us: int
    max_event_us: int | None = None
    last_append_us: int | None = None

    @classmethod
    def of(cls, spec: LogSpec, idle_after_us: int) -> Watermark:
        """The watermark of a stream without events."""
        return cls(spec.out_of_orderness_s * 1_000_000, idle_after_us)

    def advance(self, max_event_us: int, append_time_us: int) -> None:
        """Take in a batch's greatest event time."""
        if self.max_event_us is None or max_event_us > self.max_event_us:
            self.max_event_us = max_event_us
        self.last_append_us = append_time_us

    def pack(self) -> list[int | None]:
        """What was taken in, as MessagePack takes it."""
        return [self.max_event_us, self.last_append_us]

    def restore(self, packed: list[int | None]) -> None:
        """Take what `pack` gave."""
        self.max_event_us, self.last_append_us = packed

    def at(self, now_us: int) -> int | None:
        """The watermark now; None before the first event."""
        if self.max_event_us is None or self.last_append_us is None:
            return None
        by_events = min(self.max_event_us, self.last_append_us) - self.out_of_orderness_us
        if now_us - self.last_append_us <= self.idle_after_us:
            return by_events
        return max(by_events, now_us - max(self.out_of_orderness_us, self.idle_after_us))
