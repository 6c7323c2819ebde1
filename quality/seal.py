"""Seals the dates of a run in the streams that dbt reads, and pins what the run reads of the lake."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quality.config import DayConfig
from quality.errors import ConfigWrong, RunWrong
from quality.lake import streams_of
from quality.publish import published_pins
from quality.run import Pin, Run, load_run
from quality.service import connected

if TYPE_CHECKING:
    from tidemill import Client, StreamStatus


def chosen_streams(config: DayConfig, streams: Collection[str] | None) -> list[str]:
    """Give the streams that dbt reads, or those of them that are named; ConfigWrong and RunWrong name what is not."""
    known = sorted(streams_of(config))
    if not known:
        raise ConfigWrong(f"expected dbt sources with a stream in {config.sources}; found none. Run `make proto`")
    unknown = sorted(set(streams or ()) - set(known))
    if unknown:
        raise RunWrong(f"expected streams of {', '.join(known)}; came {', '.join(unknown)}")
    return sorted(streams) if streams else known


def look(config: DayConfig, last: dt.date, streams: Collection[str] | None) -> dict[str, str]:
    """Tell which streams the last date is not complete in, and why; nothing is changed. Raises ServiceFailed."""
    waiting = {}
    with connected(config) as client:
        for stream in chosen_streams(config, streams):
            status = client.stream_status(stream)
            if status.watermark is None:
                if not _has_passed(last):
                    waiting[stream] = f"it has no event, and {last} has not passed"
            elif status.watermark < _end(last):
                waiting[stream] = f"its watermark is {status.watermark:%Y-%m-%d %H:%M:%S} UTC"
    return waiting


def seal_streams(
    config: DayConfig, first: dt.date, last: dt.date, streams: Collection[str] | None, *, force: bool
) -> dict[str, Pin]:
    """Seal the dates in each chosen stream; stream → pin, not yet exported. The others keep their published pins.

    Order, for each chosen stream:
    1. seal: rows of the dates from the seal offset S on are late;
    2. ask what the log has counted: `appended` is also the next offset, as offsets are dense.
    A stream that has never had an event has no watermark; its dates are complete once they have passed.
    Raises ServiceFailed, also when a date is not complete and `force` is not set.
    """
    chosen = chosen_streams(config, streams)
    published = published_pins(config)
    with connected(config) as client:
        pins = {stream: _seal_stream(client, stream, first, last, force=force) for stream in chosen}
    for stream in sorted(streams_of(config).keys() - pins.keys()):
        # Never published: nothing of it is read.
        pins[stream] = published.get(stream, Pin(0, str(config.data / "lake" / stream), 0, fresh=False))
    return pins


def pins_of(config: DayConfig, run_id: str, first: dt.date, last: dt.date) -> dict[str, Pin]:
    """Give the pins of an earlier run, to build some of its dates from the very same rows. Raises RunWrong."""
    earlier = load_run(config, run_id)
    if not (earlier.first <= first and last <= earlier.last):
        raise RunWrong(
            f"run {run_id} is of {earlier.date} to {earlier.last_date}; expected dates among those, came "
            f"{first} to {last}"
        )
    if not earlier.streams or not all(pin.exported for pin in earlier.streams.values()):
        raise RunWrong(f"run {run_id} has pinned no lake version: it ended before its export")
    return earlier.streams


def export_streams(config: DayConfig, run: Run) -> dict[str, Pin]:
    """Bring the lake up to the seals, compact the run's dates, and pin the version; stream → pin.

    Exported up to what the log had counted: it lies at or above S, so the version holds what the run reads, and the
    rows below the count can be compared with the log's own numbers although events keep coming. Raises ServiceFailed.
    """
    pins = dict(run.streams)
    with connected(config) as client:
        for stream, pin in run.fresh.items():
            up_to = max(pin.seal_offset, int(pin.counts["appended"]))
            client.export(stream, up_to=up_to)
            client.maintain_lake(stream, dates=run.dates, compact_only=True)
            # Where it is now, of one moment: the service exports by itself, too.
            export = client.export(stream, up_to=up_to)
            # One sorted file a date: what this run and all later ones read of it, they read faster.
            version = client.maintain_lake(stream, dates=run.dates, compact_only=True).lake_version
            lake = dataclasses.replace(
                pin, lake_uri=export.lake_uri, lake_version=version, lake_offset=export.lake_offset
            )
            pins[stream] = dataclasses.replace(lake, lake_uri=_absolute(config, stream, lake))
    return pins


def _absolute(config: DayConfig, stream: str, pin: Pin) -> str:
    """Give the table's place so that it can be found from any folder: a relative one is relative to the service's."""
    if "://" in pin.lake_uri or Path(pin.lake_uri).is_absolute():
        return pin.lake_uri
    return str(config.data / "lake" / stream)


def _seal_stream(client: Client, stream: str, first: dt.date, last: dt.date, *, force: bool) -> Pin:
    unused = client.stream_status(stream).watermark is None
    sealed = client.seal(stream, first, last, force=force or (unused and _has_passed(last)))  # 1
    sealed_at = sealed.sealed_at.isoformat() if sealed.sealed_at else ""
    return Pin(sealed.seal_offset, counts=counts_of(client.stream_status(stream)), sealed_at=sealed_at)  # 2


def counts_of(status: StreamStatus) -> dict[str, Any]:
    """Give what a stream's log has counted, fit for JSON, and the version of the contract in force."""
    by_date = {str(date): rows for date, rows in status.counts.appended_by_date.items()}
    counts = {**dataclasses.asdict(status.counts), "appended_by_date": by_date}
    return {**counts, "contract_version": status.contract_version}


def _has_passed(date: dt.date) -> bool:
    return dt.datetime.now(dt.UTC).date() > date


def _end(date: dt.date) -> dt.datetime:
    return dt.datetime.combine(date + dt.timedelta(days=1), dt.time(), dt.UTC)
