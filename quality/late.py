"""The ledger of late rows: appended to a published date at or above the seal offset that it was published with.

Nothing is written down for it: the log counts its rows by date, the warehouse holds how many of them it was published
with. So the next publication of a date marks it, and nothing else does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from quality.config import DayConfig
from quality.lake import streams_of
from quality.publish import published_dates
from quality.service import connected


def pending(config: DayConfig) -> dict[str, dict[str, int]]:
    """Give stream → date (ISO form) → late rows that are in no publication of that date; cheap. Raises ServiceFailed.

    A stream that the service does not have any more, or that dbt reads no more, has none.
    """
    published = published_dates(config)
    counted = _counted(config) if published else {}
    found: dict[str, dict[str, int]] = {}
    for stream, date, _, _, rows in published:
        late = counted.get(stream, {}).get(date, 0) - rows
        if late > 0:
            found.setdefault(stream, {})[str(date)] = late
    return _of_known_streams(config, found)


def left_out(config: DayConfig) -> dict[str, dict[str, int]]:
    """Give stream → date (ISO form) → rows on dates that were published, but never with this stream.

    By a run of chosen streams, or before the stream was there. Raises ServiceFailed.
    """
    published = published_dates(config)
    dates = {date for _, date, _, _, _ in published}
    with_stream = {(stream, date) for stream, date, _, _, _ in published}
    found: dict[str, dict[str, int]] = {}
    for stream, rows_by_date in (_counted(config) if dates else {}).items():
        for date, rows in rows_by_date.items():
            if rows and date in dates and (stream, date) not in with_stream:
                found.setdefault(stream, {})[str(date)] = rows
    return _of_known_streams(config, found)


def _counted(config: DayConfig) -> dict[str, Mapping[dt.date, int]]:
    with connected(config) as client:
        return {status.stream: status.counts.appended_by_date for status in client.streams()}


def _of_known_streams(config: DayConfig, found: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Leave out what no run could take in, nor what else it was to take in with it."""
    known = streams_of(config) if found else {}
    return {stream: dates for stream, dates in found.items() if stream in known}
