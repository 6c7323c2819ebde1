"""How a producer batches, waits and retries."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

MESSAGE_BYTES_MAX = 64 << 20
"""The largest message that client and service exchange, in bytes."""


@dataclass(frozen=True, slots=True)
class ProducerOptions:
    """What a producer goes by; a value that is wrong raises ValueError when the options are made.

    batch_rows: rows in a batch at the most. Default 10,000.
    batch_bytes: bytes of events in a batch at the most (a larger event is a batch of its own). Default 2 MiB.
    linger_ms: how long rows wait for others while batches are on their way; with none on its way they leave at once.
        Default 2 ms.
    table_rows, table_bytes: rows and bytes in a slice of a table at the most. Default 25,000 and 4 MiB.
    in_flight_rows, in_flight_bytes: what may be unacknowledged before `send` blocks. Default 200,000 and 32 MiB.
    when_full: what `send` does then: "block" (default), or "raise" SendBufferFull.
    retry_for_s: how long batches are sent again without progress before their acks fail. Default 60 s. With an outbox
        they never fail for this; it bounds how long `close` waits.
    compression: "none" (default), or "gzip": less on the network for more work at both ends.
    """

    batch_rows: int = 10_000
    batch_bytes: int = 2 << 20
    linger_ms: float = 2.0
    table_rows: int = 25_000
    table_bytes: int = 4 << 20
    in_flight_rows: int = 200_000
    in_flight_bytes: int = 32 << 20
    when_full: Literal["block", "raise"] = "block"
    retry_for_s: float = 60.0
    compression: Literal["none", "gzip"] = "none"

    def __post_init__(self) -> None:
        for name, known in (("when_full", ("block", "raise")), ("compression", ("none", "gzip"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                continue
            least = 0 if field.name in {"linger_ms", "retry_for_s"} else 1
            if not value >= least:
                raise ValueError(f"{field.name} must be at least {least}, not {value!r}")
        for name in ("batch_bytes", "table_bytes"):
            if getattr(self, name) > MESSAGE_BYTES_MAX // 2:
                raise ValueError(f"{name} must be at most {MESSAGE_BYTES_MAX // 2}, not {getattr(self, name)}")
