"""Seals the dates of a run in every stream that dbt reads, and pins what the run reads of the lake."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from quality.config import DayConfig
from quality.errors import ConfigWrong
from quality.lake import streams_of
from quality.run import Pin
from quality.service import connected

if TYPE_CHECKING:
    from tidemill import Client


def seal_streams(config: DayConfig, first: dt.date, last: dt.date, *, force: bool) -> dict[str, Pin]:
    """Seal the dates in each stream of the dbt sources, export its lake and pin it; stream → pin.

    Order, for each stream:
    1. seal: rows of the dates from the seal offset S on are late;
    2. ask what the log has counted: `appended` is also the next offset, as offsets are dense;
    3. export up to that count. It lies at or above S, so the version holds what the run reads, and the rows below the
       count can be compared with the log's own numbers although events keep coming.
    A stream that has never had an event has no watermark; its dates are complete once they have passed.
    Raises ServiceFailed, also when a date is not complete and `force` is not set.
    """
    streams = sorted(streams_of(config))
    if not streams:
        raise ConfigWrong(f"expected dbt sources with a stream in {config.sources}; found none. Run `make proto`")
    with connected(config) as client:
        pins = {stream: _seal_stream(client, stream, first, last, force=force) for stream in streams}
    return {stream: dataclasses.replace(pin, lake_uri=_absolute(config, stream, pin)) for stream, pin in pins.items()}


def _absolute(config: DayConfig, stream: str, pin: Pin) -> str:
    """Give the table's place so that it can be found from any folder: a relative one is relative to the service's."""
    if "://" in pin.lake_uri or Path(pin.lake_uri).is_absolute():
        return pin.lake_uri
    return str(config.data / "lake" / stream)


def _seal_stream(client: Client, stream: str, first: dt.date, last: dt.date, *, force: bool) -> Pin:
    unused = client.stream_status(stream).watermark is None
    passed = dt.datetime.now(dt.UTC).date() > last
    sealed = client.seal(stream, first, last, force=force or (unused and passed))  # 1
    counts = client.stream_status(stream).counts  # 2
    export = client.export(stream, up_to=max(sealed.seal_offset, counts.appended))  # 3
    return Pin(
        seal_offset=sealed.seal_offset,
        lake_uri=export.lake_uri,
        lake_version=export.lake_version,
        lake_offset=export.lake_offset,
        counts={
            **dataclasses.asdict(counts),
            "appended_by_date": {str(date): rows for date, rows in counts.appended_by_date.items()},
        },
    )
