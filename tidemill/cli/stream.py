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
    out.print(f"lake: {status.lake_uri}", markup=False)
    for seal in status.seals:
        dates = str(seal.date) if seal.date == seal.last_date else f"{seal.date} … {seal.last_date}"
        out.print(f"sealed: {dates} at offset {seal.seal_offset:,}", markup=False)


STREAM_COLUMNS = (
    "stream", "durable", "in lake", "watermark", "sent", "appended", "duplicate", "quarantined", "late", "seals",
)  # fmt: skip


def stream_row(status: StreamStatus) -> dict[str, object]:
    """A stream's status as a line of a table."""
    counts = status.counts
    values = (
        status.stream, status.durable_offset, status.lake_offset, status.watermark, counts.sent, counts.appended,
        counts.duplicate, counts.quarantined, counts.late, len(status.seals),
    )  # fmt: skip
    return dict(zip(STREAM_COLUMNS, values, strict=True))


def _role(name: str, contract: object) -> str:
    roles = {getattr(contract, "event_id", ""): "event id", getattr(contract, "event_time", ""): "event time"}
    return roles.get(name, "")
