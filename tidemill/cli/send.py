"""`tidemill send`: a file's rows into a stream."""

from __future__ import annotations

from pathlib import Path

import click

import tidemill
from tidemill.cli import options
from tidemill.cli.output import console, print_json
from tidemill.cli.progress import SendSummary, send_with_progress
from tidemill.input import PART_OPTIONS, ColumnMap, InputFile, file_identity, parts


@click.command(
    short_help="Send a file's rows to a stream.",
    epilog="Rows that break the contract are quarantined, with the reason, the others appended: that is exit code 0.",
)
@click.argument("stream_name", metavar="STREAM")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--map",
    "entries",
    multiple=True,
    metavar="FIELD=SOURCE",
    help="Where a field comes from: a column (invoice_no=InvoiceNo), a template of columns (event_id=r{source_row}) "
    "or a constant (country='France'). May be given several times; columns of a field's own name need none.",
)
@click.option("--timezone", metavar="ZONE", help="The zone of times that have none, such as Europe/London.")
@click.option("--again", is_flag=True, help="Send all rows, although this file may have been sent before.")
@options.address
@options.as_json
def send(
    stream_name: str,
    file: Path,
    entries: tuple[str, ...],
    timezone: str | None,
    again: bool,
    address: str,
    as_json: bool,
) -> None:
    """Send the rows of FILE (Parquet, CSV or JSON lines, by its name) to STREAM.

    Started again with the same file it goes on where it stopped, and sends no row twice, however it was ended.

    \b
    Example:
      tidemill send order_lines online_retail.parquet --timezone Europe/London \\
          --map 'event_id=r{source_row}' --map invoiced_at=invoice_date
    """
    columns = ColumnMap.parse(entries)
    out = console()
    out.quiet = as_json
    with tidemill.connect(address, options=PART_OPTIONS) as tm:
        # Which columns the file has to have, the contract says; no event is sent over this stream object.
        contract = tm.stream(stream_name)
        source = InputFile(file, contract.schema, contract.contract.required, columns, timezone)
        producer_id = None if again else file_identity(file, stream_name, source.mapping, timezone)
        # Rejected rows are told in the summary, one by one: the log need not say it again.
        stream = tm.stream(stream_name, on_rejected=lambda row: None, producer_id=producer_id)  # noqa: ARG005
        first = stream.resumed.next_sequence if stream.resumed else 0
        before = stream.resumed.rows_sent if stream.resumed else 0
        if before:
            out.print(f"{before:,} rows of {file.name} were sent before; going on behind them", markup=False)
        summary = send_with_progress(
            stream,
            source.batches() if again else parts(source.batches(), first, file),
            None if source.rows is None else max(0, source.rows - before),
            out,
            label=f"{file.name} → {stream_name}",
            first_row=before,
        )
        if as_json:
            _print_json(stream_name, file, summary, before)
            return
        for line in _lines(file, summary, before):
            out.print(line, markup=False)
        for line in source.report.notes():
            out.print(line, markup=False)


def _lines(file: Path, summary: SendSummary, before: int) -> list[str]:
    if before and not summary.sent:
        return [f"{file.name} was sent already: all of its {before:,} rows. To send it anew: --again"]
    return summary.lines()


def _print_json(stream: str, file: Path, summary: SendSummary, before: int) -> None:
    print_json(
        {
            "stream": stream,
            "file": str(file),
            "rows_sent_before": before,
            "already_sent": bool(before and not summary.sent),
            "rows_per_s": summary.rows_per_s,
            "summary": summary,
        }
    )
