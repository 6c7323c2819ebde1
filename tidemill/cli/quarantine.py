"""`tidemill quarantine`: rows that broke their contract."""

from __future__ import annotations

import json

import click
from rich.markup import escape

import tidemill
from tidemill.cli import options
from tidemill.cli.output import console, print_json, print_rows, show
from tidemill.client.contract import Contract

_COLUMNS = ("id", "time", "field", "rule", "reason")


@click.group()
def quarantine() -> None:
    """Rows that broke their contract: they are kept, with the reason."""


@quarantine.command("list")
@click.argument("stream_name", metavar="STREAM")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Rows at the most, the newest."
)
@options.address
@options.as_json
def list_(stream_name: str, limit: int, address: str, as_json: bool) -> None:
    """The newest rows in quarantine, oldest of them first."""
    with tidemill.connect(address) as tm:
        found = tm.quarantine(stream_name, limit)
    if as_json:
        for row in found.rows:
            print_json(row)
        return
    rows = [
        {"id": row.id, "time": row.append_time, "field": row.field, "rule": row.rule, "reason": row.message}
        for row in found.rows
    ]
    print_rows(rows, _COLUMNS, as_json=False)
    console().print(f"[dim]{len(rows):,} of {found.total:,} rows[/dim]")


@quarantine.command("show")
@click.argument("stream_name", metavar="STREAM")
@click.argument("row_id", metavar="ID")
@options.address
@options.as_json
def show_(stream_name: str, row_id: str, address: str, as_json: bool) -> None:
    """One row: the rule that it broke, who sent it, and its fields as they were sent."""
    with tidemill.connect(address) as tm:
        (row,) = tm.quarantine(stream_name, ids=[row_id]).rows
        event = _event(tm.stream(stream_name).contract, row.event)
    if as_json:
        print_json({"row": row, "event": event})
        return
    out = console()
    for label, value in (
        ("id", row.id),
        ("time", row.append_time),
        ("broke", f"{row.rule} ({row.field})" if row.field else row.rule),
        ("reason", row.message),
        ("sent by", f"{row.producer_id or 'a producer without a name'}, batch {row.sequence}, row {row.index}"),
        ("replayed", row.replayed),
    ):
        out.print(f"[bold]{label}[/bold]: {escape(show(value))}")
    out.print(json.dumps(event, indent=2, ensure_ascii=False), markup=False)


@quarantine.command("replay")
@click.argument("stream_name", metavar="STREAM")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--check-only", is_flag=True, help="Say what would become of the rows; append nothing.")
@options.address
@options.as_json
def replay(stream_name: str, ids: tuple[str, ...], check_only: bool, address: str, as_json: bool) -> None:
    """Append the rows that keep the contract now, each once: those of the ids, or all. The others stay."""
    with tidemill.connect(address) as tm:
        done = tm.replay_quarantine(stream_name, ids, check_only=check_only)
    if as_json:
        print_json(done)
        return
    would = "would be appended" if check_only else "appended"
    console().print(
        f"{done.checked:,} rows: {done.appended:,} {would}, {done.duplicate:,} duplicates of rows appended since, "
        f"{done.still_broken:,} still break the contract"
    )


def _event(contract: Contract, payload: bytes) -> object:
    """The row's fields by name; of what can't be decoded, its bytes in hexadecimal."""
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError

    if payload.startswith(b"{"):
        return json.loads(payload)
    try:
        message = contract.message.FromString(payload)
    except DecodeError:
        return {"bytes": payload.hex()}
    return MessageToDict(message, preserving_proto_field_name=True)
