"""What a producer counts, independently of the service."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tidemill.client.ack import Verdict
from tidemill.v1 import append_pb2


@dataclass(frozen=True, slots=True)
class SendCounts:
    """What a producer has sent, and what came of it; in rows. `late` ones are among the appended."""

    sent: int = 0
    acknowledged: int = 0
    appended: int = 0
    duplicate: int = 0
    quarantined: int = 0
    late: int = 0
    failed: int = 0


def with_acknowledged(counts: SendCounts, rows: int, response: append_pb2.AppendResponse) -> SendCounts:
    """The counts with one more batch that was acknowledged."""
    kinds = [int(verdict.verdict) for verdict in response.verdicts]
    return replace(
        counts,
        acknowledged=counts.acknowledged + rows,
        appended=counts.appended + response.rows_appended,
        duplicate=counts.duplicate + kinds.count(Verdict.DUPLICATE.value),
        quarantined=counts.quarantined + kinds.count(Verdict.QUARANTINED.value),
        late=counts.late + kinds.count(Verdict.LATE.value),
    )
