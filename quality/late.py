"""The ledger of late rows: appended to a published date at or above the seal offset that it was published with.

Nothing is written down for it: the log counts its rows by date, the warehouse holds how many of them it was published
with. So the next publication of a date marks it, and nothing else does.
"""

from __future__ import annotations

from quality.config import DayConfig
from quality.lake import streams_of
from quality.publish import published_dates
from quality.service import connected


def pending(config: DayConfig) -> dict[str, dict[str, int]]:
    """Give stream → date (ISO form) → late rows that are in no publication of that date; cheap. Raises ServiceFailed.

    A stream that the service does not have any more, or that dbt reads no more, has none.
    """
    published = published_dates(config)
    if not published:
        return {}
    with connected(config) as client:
        counted = {status.stream: status.counts.appended_by_date for status in client.streams()}
    found: dict[str, dict[str, int]] = {}
    for stream, date, _, _, rows in published:
        late = counted.get(stream, {}).get(date, 0) - rows
        if late > 0:
            found.setdefault(stream, {})[str(date)] = late
    # No run could take these in, nor what else it was to take in with them.
    known = streams_of(config) if found else {}
    return {stream: dates for stream, dates in found.items() if stream in known}
