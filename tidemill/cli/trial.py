"""`tidemill test`: a live model run live and as batch over a sample of events, and compared."""

from __future__ import annotations

import base64
import itertools
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from tidemill.cli import options
from tidemill.cli.output import console, print_json
from tidemill.cli.project import Project, of_project
from tidemill.cli.tool import Line, Tool
from tidemill.lake import identifier, lake_files, lake_query, source_tables

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN_MAX = 5
_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where events are to come from. file: None for the lake, or for made-up ones."""

    file: Path | None
    entries: tuple[str, ...]
    timezone: str | None
    made_up: bool
    rows: int


@click.command(short_help="Run live models live and as batch over some events, and compare.")
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option("--input", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Take the first events of this file (Parquet, CSV, JSON lines).")  # fmt: skip
@click.option("--map", "entries", multiple=True, metavar="FIELD=SOURCE",
              help="With --input: where a field comes from; see `tidemill send --help`.")  # fmt: skip
@click.option("--timezone", metavar="ZONE", help="With --input: the zone of times that have none.")
@click.option("--made-up", is_flag=True, help="Make events up, although the lake has some.")
@click.option("--rows", type=click.IntRange(min=1), default=_ROWS, show_default=True, help="How many events.")
@click.option("--seed", type=click.IntRange(min=0), help="The same seed does all that is random the same way.")
@of_project
@options.as_json
def test(
    models: tuple[str, ...],
    *,
    project: Project,
    file: Path | None,
    entries: tuple[str, ...],
    timezone: str | None,
    made_up: bool,
    rows: int,
    seed: int | None,
    as_json: bool,
) -> int:
    """Run live models live and as batch over the same events, and compare the two, group by group.

    MODEL is a name or a file; without one, all live models are tested. The events come from --input, else from the
    data folder's lake (the newest), else they are made up by the contract. The live side takes them in random
    micro-batches with restarts and a seal in between. Needs no service, and no Airflow. Exit code 1: they differ.

    \b
    Examples:
      tidemill test sales_by_minute
      tidemill test --seed 7 --made-up --rows 20000
      tidemill test sales_by_hour --input online_retail.parquet --timezone Europe/London \\
          --map 'event_id=r{source_row}' --map invoiced_at=invoice_date
    """
    if file is None and (entries or timezone):
        raise click.UsageError("--map and --timezone say how --input is read, and there is none")
    asked = _Asked(file, entries, timezone, made_up, rows)
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    manifest = project.compiled(as_json)
    arguments = [f"--manifest={manifest}", f"--proto={project.proto}", f"--rows={rows}", f"--seed={seed}"]
    if models:
        arguments += project.model_names(manifest, models)
    agree = True
    for line in _trials(project, asked, arguments):
        if "model" in line:
            agree = agree and line["agrees"]
        if as_json:
            print_json(line)
        elif "model" in line:
            _show(line, project)
        else:
            console().print(_origin(line, asked), markup=False, style="dim")
    return 0 if agree else 1


def _trials(project: Project, asked: _Asked, arguments: Iterable[str]) -> Iterator[Line]:
    """What the service's own tool says of streams and models, after it was given events where there are some."""
    with (
        Tool("tidemill test", "ingest_service.live.trial", arguments) as tool,
        tempfile.TemporaryDirectory(prefix="tidemill-test-") as folder,
    ):
        first = tool.first()
        if first is None:
            return
        given = _events(project, asked, first["needs"], Path(folder))
        tool.tell({"given": {stream: str(file) for stream, (file, _) in given.items()}})
        for line in tool.lines():
            if "model" not in line:
                line["origin"] = given[line["stream"]][1] if line["stream"] in given else "made up"
            yield line


def _events(project: Project, asked: _Asked, needs: Mapping[str, Line], folder: Path) -> dict[str, tuple[Path, str]]:
    """Files of events by stream, each with where they come from: those of --input, or the newest of the lake."""
    import pyarrow as pa

    found: dict[str, tuple[Path, str]] = {}
    if asked.file is not None:
        if len(needs) != 1:
            listed = ", ".join(needs) or "none"
            raise click.UsageError(f"--input has events of one stream, and the models read: {listed}; name the models")
        ((stream, need),) = needs.items()
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(need["arrow_schema"])))
        batches = _of_file(asked, asked.file, schema, need["required"])
        return {stream: (_written(folder / stream, batches), str(asked.file))}
    if asked.made_up:
        return found
    for stream, need in needs.items():
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(need["arrow_schema"])))
        table = _of_lake(project, stream, schema, asked.rows)
        if table is not None and table.num_rows:
            found[stream] = (_written(folder / stream, table.to_batches()), "lake")
    return found


def _of_file(asked: _Asked, file: Path, schema: pa.Schema, required: Sequence[str]) -> list[pa.RecordBatch]:
    """The file's first rows in the contract's columns; raises InputError."""
    from tidemill.input import ColumnMap, InputFile

    source = InputFile(file, schema, required, ColumnMap.parse(asked.entries), asked.timezone)
    size = min(asked.rows, 25_000)
    batches = list(itertools.islice(source.batches(size), -(-asked.rows // size)))
    left = asked.rows
    taken = []
    for batch in batches:
        taken.append(batch.slice(0, left))
        left -= taken[-1].num_rows
    return taken


def _of_lake(project: Project, stream: str, schema: pa.Schema, rows: int) -> pa.Table | None:
    """The newest rows of the data folder's lake in the contract's columns; None where it has no such table."""
    table = project.folder.root / "lake" / stream
    if not table.is_dir():
        return None
    import duckdb

    columns = source_tables(project.root / "dbt_project" / "models" / "sources").get(stream)
    files = lake_files(str(table), None)
    if columns is None or not files or any(name not in columns for name in schema.names):
        return None
    newest = f"SELECT * FROM ({lake_query(files, columns, None)}) ORDER BY _offset DESC LIMIT {int(rows)}"  # noqa: S608
    shown = ", ".join(identifier(name) for name in schema.names)
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        return duck.sql(f"SELECT {shown} FROM ({newest}) ORDER BY _offset").to_arrow_table()  # noqa: S608 - quoted names


def _written(file: Path, batches: Sequence[pa.RecordBatch]) -> Path:
    import pyarrow as pa

    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return file


def _origin(line: Line, asked: _Asked) -> str:
    """Where a stream's events come from, and how to have the same again."""
    again = f"--seed {line['seed']}" + (f" --rows {asked.rows}" if asked.rows != _ROWS else "")
    if line["origin"] == "made up":
        what = f"{line['rows']:,} events made up by the contract (again: {again} --made-up)"
    elif line["origin"] == "lake":
        what = f"the newest {line['rows']:,} events of the lake (again: {again})"
    else:
        what = f"{line['rows']:,} events of {line['origin']} (again: {again})"
    if line.get("refused"):
        what += f"; {line['refused']:,} others break the contract"
    return f"{line['stream']}: {what}"


def _show(line: Line, project: Project) -> None:
    out = console()
    name = f"[bold]{escape(line['model'])}[/]"
    if line["problem"]:
        place = project.shown(line["path"])
        problem = line["problem"].replace(line["path"], place) if line["path"] in line["problem"] else line["problem"]
        out.print(f"[red]failed[/]  {name} ({escape(place)})")
        out.print(f"         {escape(problem)}")
        return
    if line["agrees"]:
        compared = f"{line['rows_compared']:,} rows at the end, {line['sealed_rows_compared']:,} at a seal"
        course = f"{line['micro_batches']:,} micro-batches, {line['restarts']} restarts"
        took = f"live {line['live_s']:.2f} s, batch {line['batch_s']:.2f} s"
        out.print(f"[green]agrees[/]  {name}: {compared}; {course}; {took}")
        return
    out.print(
        f"[red]differs[/] {name} ({escape(project.shown(line['path']))}): {line['difference_count']:,} differences in "
        f"{line['rows_compared']:,} rows at the end and {line['sealed_rows_compared']:,} rows at a seal"
    )
    for each in line["differences"][:_SHOWN_MAX]:
        group = ", ".join(f"{column}={value}" for column, value in each["group"].items())
        where = f"{each['at']}, {group}" if group else each["at"]
        out.print(f"         {where}: {each['column']}: live {each['live']}, batch {each['batch']}", markup=False)
    more = line["difference_count"] - min(_SHOWN_MAX, len(line["differences"]))
    if more:
        out.print(f"         and {more:,} more")
