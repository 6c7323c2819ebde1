"""`tidemill stream`: streams as the service tells them."""

from __future__ import annotations

import click

import tidemill
from tidemill.cli import options
from tidemill.cli.output import console, print_json, print_rows, show
from tidemill.client.models import StreamStatus


@click.group()
def stream() -> None:
    """Streams: what they hold, and what their contracts are."""


@stream.command("list")
@options.address
@options.as_json
def list_(address: str, as_json: bool) -> None:
    """All streams with their counts."""
    with tidemill.connect(address) as tm:
        streams = tm.streams()
    if as_json:
        for status in streams:
            print_json(status)
        return
    print_rows([stream_row(status) for status in streams], list(STREAM_COLUMNS), as_json=False)


@stream.command("show")
@click.argument("name", metavar="STREAM")
@options.address
@options.as_json
def show_(name: str, address: str, as_json: bool) -> None:
    """One stream: its contract's fields, counts, seals, and where its lake table is."""
    with tidemill.connect(address) as tm:
        opened = tm.stream(name)
        status, contract, schema = opened.status(), opened.contract, opened.schema
    fields = [
        {"field": f.name, "type": str(f.type), "required": f.name in contract.required, "is": _role(f.name, contract)}
        for f in schema
    ]
    if as_json:
        print_json({"status": status, "message_type": contract.message_type, "fields": fields})
        return
    out = console()
    out.print(f"{name}: {contract.message_type}, contract version {contract.version}", markup=False)
    print_rows(fields, ["field", "type", "required", "is"], as_json=False)
    out.print()
    for label, value in stream_row(status).items():
        out.print(f"{label}: {show(value)}", markup=False)
    out.print(f"lake: {status.lake_uri}, version {status.lake_version:,}", markup=False)
    out.print(
        f"log: {status.segments:,} segments, {_size(status.log_bytes)}, rows from offset {status.log_start_offset:,} on"
    )
    rates = status.rates
    out.print(
        f"rows/s: {rates.rows_per_s_10s:,.1f} (10 s), {rates.rows_per_s_1m:,.1f} (1 min), "
        f"{rates.rows_per_s_15m:,.1f} (15 min)"
    )
    for label, problem in (("takes no events", status.error), ("the lake does not follow", status.lake_error)):
        if problem:
            out.print(f"{label}: {problem}", markup=False)
    for seal in status.seals:
        dates = str(seal.date) if seal.date == seal.last_date else f"{seal.date} … {seal.last_date}"
        out.print(f"sealed: {dates} at offset {seal.seal_offset:,}", markup=False)


STREAM_COLUMNS = (
    "stream", "durable", "in lake", "rows/s", "watermark", "sent", "appended", "duplicate", "quarantined", "late",
    "seals", "problem",
)  # fmt: skip


def stream_row(status: StreamStatus) -> dict[str, object]:
    """A stream's status as a line of a table."""
    counts = status.counts
    values = (
        status.stream, status.durable_offset, status.lake_offset, round(status.rates.rows_per_s_1m), status.watermark,
        counts.sent, counts.appended, counts.duplicate, counts.quarantined, counts.late, len(status.seals),
        status.error or status.lake_error,
    )  # fmt: skip
    return dict(zip(STREAM_COLUMNS, values, strict=True))


def _size(size_bytes: int) -> str:
    """Bytes in the unit that people would use."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _role(name: str, contract: object) -> str:
    roles = {getattr(contract, "event_id", ""): "event id", getattr(contract, "event_time", ""): "event time"}
    return roles.get(name, "")
