"""`tidemill send`: a file's rows into a stream."""

from __future__ import annotations

from pathlib import Path

import click

import tidemill
from tidemill.cli import options
from tidemill.cli.output import console, print_json
from tidemill.cli.progress import send_with_progress


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
@options.address
@options.as_json
def send(
    stream_name: str, file: Path, entries: tuple[str, ...], timezone: str | None, address: str, as_json: bool
) -> None:
    """Send the rows of FILE (Parquet, CSV or JSON lines, by its name) to STREAM.

    \b
    Example:
      tidemill send order_lines online_retail.parquet --timezone Europe/London \\
          --map 'event_id=r{source_row}' --map invoiced_at=invoice_date
    """
    from tidemill.input import ColumnMap, InputFile

    columns = ColumnMap.parse(entries)
    out = console()
    # Told in the summary, row by row: the log need not say it again.
    with tidemill.connect(address) as tm:
        stream = tm.stream(stream_name, on_rejected=lambda row: None)  # noqa: ARG005
        source = InputFile(file, stream.schema, stream.contract.required, columns, timezone)
        out.quiet = as_json
        summary = send_with_progress(stream, source.batches(), source.rows, out, label=f"{file.name} → {stream_name}")
        if as_json:
            print_json({"stream": stream_name, "file": str(file), "rows_per_s": summary.rows_per_s, "summary": summary})
            return
        for line in (*summary.lines(), *source.report.notes()):
            out.print(line, markup=False)
