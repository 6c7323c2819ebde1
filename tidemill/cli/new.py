"""`tidemill new`: one more stream, model, view or suite in a project."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from tidemill.cli import options
from tidemill.cli.contract import describe_contracts, generate_from_contracts
from tidemill.cli.init import FILTERED, stream_values
from tidemill.cli.output import console, print_json
from tidemill.errors import MissingExtra
from tidemill.local.folder import find_project
from tidemill.local.names import check_domain, check_name
from tidemill.local.templates import fragment, rendered, write_files

_LAYERS = {"staging": ("stg_",), "intermediate": ("int_",), "marts": ("fct_", "dim_")}
_WIDTHS = {
    "minute": ("2026-01-01 08:26:00", "2026-01-01 08:26:59.999999", "2026-01-01 08:27:00"),
    "hour": ("2026-01-01 08:00:00", "2026-01-01 08:59:59.999999", "2026-01-01 09:00:00"),
    "day": ("2026-01-01 00:00:00", "2026-01-01 23:59:59.999999", "2026-01-02 00:00:00"),
}
"""A window's start, its last instant, and the next one's start: what the view's unit test stands on."""
_SYSTEM = {"_partition", "_offset", "_append_time", "event_date"}


@click.group()
def new() -> None:
    """Add to a project: files to begin with, which are yours from then on. What is there is never written over."""


@new.command(short_help="A stream: contract, stubs, dbt source, staging model, test.")
@click.argument("name")
@click.option(
    "--domain", metavar="NAME", help="What the stream belongs to: proto/NAME/v1.  [default: the stream's name]"
)
@options.project
@options.as_json
def stream(name: str, *, domain: str | None, project: Path | None, as_json: bool) -> None:
    """Make the stream NAME: its contract, what is made from it, a staging model and a test.

    \b
    Examples:
      tidemill new stream page_views
      tidemill new stream clicks --domain web_shop
    """
    root = find_project(project)
    check_name("a stream", name)
    domain = check_domain(domain or name, root)
    there = {line["stream"]: line["file"] for line in describe_contracts(root / "proto") if "stream" in line}
    if name in there:
        raise click.ClickException(f"there is a stream {name} already: proto/{there[name]}")
    _check_relation(root, name)
    values = stream_values(name, domain)
    made = [*write_files(root, rendered("stream", values)).made]
    changed = _count_filtered(root, name, fragment("staging_filtered.sql", values))
    made += sorted(generate_from_contracts(root)["changes"])
    contract = f"proto/{domain}/v1/{values['event']}.proto"
    _report(root, made, as_json=as_json, changed=changed, steps=(
        f"change {contract} to what your events are, then `make proto`",
        f"change stg_{name} and tests/test_{name}.py with it",
        f"tidemill new view NAME --stream {name}",
        "start the service again: it opens new streams when it starts",
    ))  # fmt: skip


@new.command(short_help="A live view of a stream.")
@click.argument("name")
@click.option("--stream", "of", required=True, metavar="NAME", help="The stream whose events it follows.")
@click.option("--by", multiple=True, metavar="COLUMN", help="Group by it; may be given several times.")
@click.option("--window", type=click.Choice(list(_WIDTHS)), default="minute", show_default=True, help="Its windows.")
@options.project
@options.as_json
def view(name: str, *, of: str, by: tuple[str, ...], window: str, project: Path | None, as_json: bool) -> None:
    """Make the live model NAME, which counts a stream's events by window, with its description and unit test.

    \b
    Examples:
      tidemill new view payments_by_hour --stream payments --window hour --by kind
    """
    root = find_project(project)
    check_name("a view", name)
    source = _source(root, of)
    groups = [_group(source, column) for column in dict.fromkeys(by)]
    _check_relation(root, name)
    start, last, following = _WIDTHS[window]
    values = {
        "name": name,
        "stream": of,
        "event_time": source.event_time,
        "width": window,
        "grain": _and([window, *(group.name for group in groups)]),
        "key": ", ".join(["window_start", *(group.name for group in groups)]),
        "group_sql": "".join(f"    {group.name},\n" for group in groups),
        "group_values": "".join(f", {group.sample} as {group.name}" for group in groups),
        "group_yml": "".join(_described(dataclasses.replace(group, type="")) for group in groups),
        "start": start,
        "last": last,
        "next": following,
    }
    made = write_files(root, rendered("view", values)).made
    _report(root, made, as_json=as_json, steps=(
        "change the .sql to what you want to see, and the .yml with it",
        f"tidemill view check {name}     what the view would be, or why it can't be one",
        f"tidemill test {name}           live against batch, over some events",
        "tidemill view apply --wait     puts it in force in a running service",
    ))  # fmt: skip


@new.command(short_help="A dbt model.")
@click.argument("name")
@click.option("--layer", type=click.Choice(list(_LAYERS)), help="Where it belongs.  [default: by the name's beginning]")
@click.option("--from", "parent", metavar="MODEL", help="What it reads.  [default: the only staging model]")
@options.project
@options.as_json
def model(name: str, *, layer: str | None, parent: str | None, project: Path | None, as_json: bool) -> None:
    """Make the dbt model NAME over another model, with its description.

    Names begin with their layer: stg_ (staging), int_ (intermediate), fct_ or dim_ (marts). A fct_ model begins as
    counts by date, another one with the columns of what it reads.

    \b
    Examples:
      tidemill new model fct_refunds --from stg_payments
      tidemill new model int_first_payments --from stg_payments
    """
    root = find_project(project)
    check_name("a model", name)
    layer = layer or _layer(name)
    known = _models(root)
    _check_relation(root, name)
    parent = parent or _only_staging(known)
    if parent not in known:
        raise click.ClickException(f"there is no model {parent}; --from takes one of: {', '.join(sorted(known))}")
    made = write_files(root, _model_files(name, layer, parent, known[parent])).made
    _report(root, made, as_json=as_json, steps=(
        "change the .sql to what it should say, and the .yml with it: its grain, its key, each column",
        "make test     builds it with everything else",
    ))  # fmt: skip


@new.command(short_help="A suite: what has to hold before anything is published.")
@click.argument("name")
@click.option("--stream", "of", metavar="NAME", help="It is about this stream's events.")
@click.option("--model", "about", metavar="MODEL", help="It is about this model's rows.")
@options.project
@options.as_json
def suite(name: str, *, of: str | None, about: str | None, project: Path | None, as_json: bool) -> None:
    """Make suites/NAME.py: expectations on a stream's events or on a model's rows, to begin with.

    \b
    Examples:
      tidemill new suite refunds --model fct_refunds
      tidemill new suite page_views --stream page_views
    """
    root = find_project(project)
    check_name("a suite", name)
    if (of is None) == (about is None):
        raise click.UsageError("what is it about? Say one of --stream NAME and --model MODEL")
    if of is not None:
        _source(root, of)
        files = rendered("source_suite", {"name": name, "subject": of, "named": _named(name, of)})
    else:
        assert about is not None
        files = rendered("mart_suite", _mart_values(name, about, _models(root)))
    made = write_files(root, files).made
    _report(root, made, as_json=as_json, steps=(
        f"change suites/{name}.py to what you expect; the next run of a day checks it",
    ))  # fmt: skip


def _mart_values(name: str, model: str, known: Mapping[str, list[_Column]]) -> dict[str, str]:
    if model not in known:
        raise click.ClickException(f"there is no model {model}; --model takes one of: {', '.join(sorted(known))}")
    columns = [column.name for column in known[model]]
    if not columns:
        raise click.ClickException(f"{model} has no .yml that describes its columns: write one first")
    dated = "event_date" in columns
    return {
        "name": name,
        "subject": model,
        "column": columns[0],
        "imported": "WARN, MartSuite, no_nulls, row_count" if dated else "MartSuite, no_nulls",
        "more": '    row_count(WARN, at_least=1),\n    date="event_date",\n' if dated else "",
        "named": _named(name, model),
    }


def _named(name: str, subject: str) -> str:
    """A suite's results are kept under its subject's name, unless it says another."""
    return "" if name == subject else f'    name="{name}",\n'


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    type: str
    description: str

    @property
    def sample(self) -> str:
        """A value of its type, in SQL."""
        return f"cast({'true' if self.type == 'BOOLEAN' else _SAMPLES.get(self.type, '1')} as {self.type.lower()})"


_SAMPLES = {"VARCHAR": "'a'", "DATE": "'2026-01-01'", "TIMESTAMP WITH TIME ZONE": "'2026-01-01 00:00:00+00'"}


@dataclass(frozen=True, slots=True)
class _Source:
    stream: str
    event_time: str
    columns: Mapping[str, _Column]


def _source(root: Path, stream: str) -> _Source:
    """A stream as dbt's generated source has it. Raises ClickException where there is none."""
    sources = root / "dbt_project" / "models" / "sources"
    tables = {
        table["name"]: table
        for file in sorted(sources.glob("*.yml"))
        for source in _yaml(file).get("sources", ())
        if source["name"] == "events"
        for table in source.get("tables", ())
    }
    if stream not in tables:
        raise click.ClickException(
            f"there is no stream {stream}: --stream takes one of: {', '.join(sorted(tables)) or 'none'}. "
            "A contract that is new has its source by `make proto`"
        )
    found = tables[stream]
    columns = [_Column(each["name"], each["data_type"], each["description"]) for each in found["columns"]]
    return _Source(stream, found["config"]["event_time"], {column.name: column for column in columns})


def _group(source: _Source, name: str) -> _Column:
    column = source.columns.get(name)
    if column is None or name in _SYSTEM or name == source.event_time or column.type.endswith(("[]", ")[]")):
        fit = [each for each in source.columns if each not in _SYSTEM and each != source.event_time]
        raise click.ClickException(f"--by takes a column of {source.stream}: {', '.join(fit)}; came {name}")
    return column


def _models(root: Path) -> dict[str, list[_Column]]:
    """The project's models by name, each with the columns that its .yml describes."""
    models = root / "dbt_project" / "models"
    found: dict[str, list[_Column]] = {file.stem: [] for file in sorted(models.rglob("*.sql"))}
    for file in sorted(models.rglob("*.yml")):
        for each in _yaml(file).get("models") or ():
            columns = each.get("columns") or ()
            found[each["name"]] = [
                _Column(
                    column["name"],
                    str(column.get("data_type") or ""),
                    " ".join(str(column.get("description") or "").split()),
                )
                for column in columns
            ]
    return found


def _model_files(name: str, layer: str, parent: str, columns: list[_Column]) -> dict[str, str]:
    values = {"name": name, "layer": layer, "parent": parent}
    if name.startswith("fct_") and any(column.name == "event_date" for column in columns):
        return rendered("daily", values)
    return rendered("copy", {
        **values,
        "description": f"One row per row of {parent}.",
        "columns_sql": ",\n".join(f"    {column.name}" for column in columns) or "    *",
        "columns_yml": "".join(_described(column) for column in columns).rstrip() or "      []",
        "contract": "    config:\n      contract: {enforced: true}\n" if _has_types(columns) else "",
    })  # fmt: skip


def _has_types(columns: Iterable[_Column]) -> bool:
    """Whether dbt can hold a model to its .yml: the type of each column is known."""
    columns = list(columns)
    return bool(columns) and all(column.type for column in columns)


def _described(column: _Column) -> str:
    """A column in a model's .yml, with its type where that is known."""
    kind = f"        data_type: {column.type}\n" if column.type else ""
    text = json.dumps(column.description, ensure_ascii=False)
    return f"      - name: {column.name}\n{kind}        description: {text}\n"


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _layer(name: str) -> str:
    for layer, beginnings in _LAYERS.items():
        if name.startswith(beginnings):
            return layer
    raise click.UsageError(
        f"which layer is {name} of? A model's name begins with stg_, int_, fct_ or dim_; or say it with --layer"
    )


def _only_staging(known: Mapping[str, object]) -> str:
    staging = sorted(name for name in known if name.startswith("stg_"))
    if len(staging) != 1:
        raise click.UsageError(f"what does it read? Say it with --from: {', '.join(staging) or 'a model'}")
    return staging[0]


def _check_relation(root: Path, name: str) -> None:
    """Raise a ClickException where the warehouse has something of that name: models, seeds and streams share names."""
    folder = root / "dbt_project"
    there = [file for part in ("models", "seeds") for file in sorted((folder / part).rglob(f"{name}.*"))]
    if there:
        raise click.ClickException(
            f"the warehouse has a {name} already ({there[0].relative_to(root)}): choose another name"
        )


def _count_filtered(root: Path, stream: str, text: str) -> list[str]:
    """Let the balance count what the new staging model leaves out; the files that were changed for it."""
    file = root / FILTERED
    before = file.read_text(encoding="utf-8").rstrip() if file.exists() else ""
    if f"'{stream}' as stream" in before:
        return []
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{before}\nunion all\n{text}" if before else text, encoding="utf-8")
    return [FILTERED]


def _yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingExtra("tidemill new", "batch") from error
    try:
        return dict(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise click.ClickException(f"{file} is no YAML that dbt could read: {' '.join(str(error).split())}") from error


def _report(
    root: Path, made: Iterable[str], *, as_json: bool, changed: Iterable[str] = (), steps: Iterable[str] = ()
) -> None:
    made, changed, steps = list(made), list(changed), list(steps)
    if as_json:
        print_json({"project": str(root), "made": made, "changed": changed, "next": steps})
        return
    out = console()
    for path in made:
        out.print(f"[green]made[/]     {escape(path)}")
    for path in changed:
        out.print(f"[yellow]changed[/]  {escape(path)}")
    out.print("\nnext:")
    for step in steps:
        out.print(f"  {step}", markup=False)
