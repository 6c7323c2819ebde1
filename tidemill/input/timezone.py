"""Local times without a zone, as the moments that they name.

When clocks are put back, an hour happens twice: its times are taken for the first. When they are put forward, an hour
does not happen: its times are taken for the moment the hour was skipped. Both are counted, so that nothing is silent.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import InputError

UTC_US = pa.timestamp("us", tz="UTC")


@dataclass(slots=True)
class ZoneReport:
    """How many times were ambiguous (taken for the first of two) or did not exist (taken for the skip)."""

    ambiguous: int = 0
    nonexistent: int = 0


def to_utc(times: pa.Array, zone: str, report: ZoneReport) -> pa.Array:
    """Times without a zone as timestamp[us, UTC]; counts into `report`. Raises InputError for an unknown zone."""
    naive = times.cast(pa.timestamp("us"))
    try:
        early = _assume(naive, zone, "earliest")
        late = _assume(naive, zone, "latest")
    except pa.ArrowInvalid as error:
        raise InputError(f"the time zone {zone!r} is not known; give a name such as Europe/London ({error})") from None
    odd = pc.fill_null(pc.not_equal(early, late), False)
    odd_count = pc.sum(odd).as_py() or 0
    if not odd_count:
        return early.cast(UTC_US)
    # A time that exists reads the same on the local clock afterwards.
    exists = pc.equal(pc.local_timestamp(late), naive)
    nonexistent = pc.sum(pc.and_(odd, pc.invert(pc.fill_null(exists, True)))).as_py() or 0
    report.nonexistent += nonexistent
    report.ambiguous += odd_count - nonexistent
    return pc.if_else(exists, early, late).cast(UTC_US)


def check_zone(zone: str) -> None:
    """Raise InputError when there is no such zone."""
    to_utc(pa.array([0], pa.timestamp("us")), zone, ZoneReport())


def _assume(naive: pa.Array, zone: str, choice: str) -> pa.Array:
    return pc.assume_timezone(naive, timezone=zone, ambiguous=choice, nonexistent=choice)
