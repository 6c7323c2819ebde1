"""A log's bounds."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ingest_service.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Bounds of a log; a wrong one is refused by `check`.

    segment_bytes: a segment is closed once it is longer. frame_rows_max: no further append joins a frame that has
    more rows. queue_bytes_max, queue_appends_max: appends that wait to be committed; beyond them `append` raises
    Overloaded. producers_max, producer_expiry_s: producers remembered. dedup_ids_max, dedup_age_s: the dedup window.
    idle_after_s: without events for so long, the watermark follows the wall clock. tail_bytes: newest rows kept in
    memory for readers.
    retain_age_s: segments whose rows are all older, by append time, may be dropped; 0: none for its age.
    retain_bytes: the oldest may be dropped while the segments are larger in all; 0: none for the log's size. A segment
    that is not wholly in the lake, or holds event ids of the dedup window, stays whatever these say.
    quarantine_age_s, quarantine_rows_max: quarantined rows kept, also of dropped segments; the oldest go first.
    """

    segment_bytes: int = 256 << 20
    frame_rows_max: int = 65_536
    queue_bytes_max: int = 128 << 20
    queue_appends_max: int = 20_000
    producers_max: int = 100_000
    producer_expiry_s: int = 7 * 86_400
    dedup_ids_max: int = 5_000_000
    dedup_age_s: int = 86_400
    idle_after_s: int = 60
    tail_bytes: int = 64 << 20
    retain_age_s: int = 7 * 86_400
    retain_bytes: int = 0
    quarantine_age_s: int = 90 * 86_400
    quarantine_rows_max: int = 1_000_000

    def check(self) -> None:
        """See that every bound is one.

        Raises:
            ConfigError: a number is negative, or zero where something has to be kept.
        """
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in _MAY_BE_ZERO else 1
            if value < least:
                raise ConfigError(f"the log's {field.name}: expected {least} or more, came {value}")


_MAY_BE_ZERO = {"retain_age_s", "retain_bytes", "tail_bytes", "idle_after_s"}
