"""What has to be true before dates are sealed."""

from __future__ import annotations

import datetime as dt

from ingest_service.errors import BadRequest, NotComplete

SEAL_DAYS_MAX = 3660
"""The longest range of dates that is sealed at once, in days."""


def check_range(first: dt.date, last: dt.date) -> None:
    """Raises BadRequest for what is no range of dates, or a longer one than SEAL_DAYS_MAX."""
    if not 0 <= (last - first).days < SEAL_DAYS_MAX:
        raise BadRequest(f"expected a first and a last date, at most {SEAL_DAYS_MAX} days; came {first} and {last}")


def check_complete(stream: str, last: dt.date, watermark_us: int | None) -> None:
    """Raises NotComplete while the watermark (µs since 1970 UTC; None: no event yet) has not passed the date's end."""
    end = dt.datetime.combine(last + dt.timedelta(days=1), dt.time(), dt.UTC)
    if watermark_us is None or watermark_us < int(end.timestamp() * 1_000_000):
        at = "no event yet" if watermark_us is None else _text(watermark_us)
        raise NotComplete(
            f"stream {stream!r}: {last} is not complete: expected the watermark to have passed its end, it is at {at}. "
            "Wait, or seal with force: rows of the date that come later are then late"
        )


def _text(time_us: int) -> str:
    return dt.datetime.fromtimestamp(time_us / 1_000_000, dt.UTC).isoformat(sep=" ", timespec="seconds")
