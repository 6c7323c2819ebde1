"""`tidemill init`: a project of one's own."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import click
from rich.markup import escape

import tidemill
from tidemill.cli import options
from tidemill.cli.contract import generate_from_contracts, require_tools
from tidemill.cli.output import console, print_json
from tidemill.local.names import check_domain, check_name, message_name, project_name, singular
from tidemill.local.templates import Files, fragment, listed, rendered, shared_files, write_files

STREAM = "payments"
FILTERED = "dbt_project/models/staging/staging_filtered.sql"
_MAY_BE_THERE = {".git"}


@click.command(short_help="Make a project of your own.")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--stream", default=STREAM, show_default=True, metavar="NAME", help="Its first stream.")
@click.option(
    "--domain", metavar="NAME", help="What the stream belongs to: proto/NAME/v1.  [default: the stream's name]"
)
@click.option("--force", is_flag=True, help="Also into a folder with files; none of them is changed.")
@options.as_json
def init(folder: Path, *, stream: str, domain: str | None, force: bool, as_json: bool) -> None:
    """Make a project in DIR: a contract, dbt models, a live view, checks, DAGs, tests, a CI workflow.

    Everything in it is yours: later versions of Tidemill change none of its files.

    \b
    Examples:
      tidemill init shop
      tidemill init shop --stream page_views --domain web_shop
    """
    place = folder.absolute()
    check_name("a stream", stream)
    domain = check_domain(domain or stream, place)
    _check_folder(folder, force=force)
    require_tools("tidemill init")
    files = _files(place, stream, domain)
    if any(Path(path).stem == stream and path.startswith("dbt_project/models/") for path in files):
        raise click.ClickException(f"every project has a model {stream}: choose another name for the stream")
    written = write_files(place, files, keep=True)
    generated = sorted(generate_from_contracts(place)["changes"])
    steps = _next_steps(folder, stream)
    if as_json:
        print_json({"project": str(place), "made": [*written.made, *generated], "kept": written.kept, "next": steps})
        return
    out = console()
    kept = f"; {len(written.kept)} were there and stay as they are" if written.kept else ""
    out.print(
        f"[bold]{escape(str(folder))}[/] is a Tidemill project: {len(written.made) + len(generated)} files made{kept}"
    )
    for path, what in _tour(stream, domain).items():
        out.print(f"  {path:22}[dim]{what}[/]")
    out.print("\nnext:")
    width = max(map(len, steps))
    for step, what in steps.items():
        out.print(f"  [bold]{escape(step.ljust(width))}[/]  [dim]{what}[/]")


def stream_values(stream: str, domain: str) -> dict[str, str]:
    """What the templates of a stream are filled with."""
    return {"stream": stream, "domain": domain, "event": singular(stream), "message": message_name(stream)}


def _files(place: Path, stream: str, domain: str) -> Files:
    values = {
        **stream_values(stream, domain),
        "title": place.name,
        "project": project_name(place),
        "version": tidemill.__version__,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    return {
        **shared_files(),
        **rendered("project", values),
        **rendered("stream", values),
        FILTERED: fragment("staging_filtered.sql", values),
    }


def _check_folder(folder: Path, *, force: bool) -> None:
    """Raise a ClickException for a folder that has files in it: they are somebody's."""
    there = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    there = [name for name in there if name not in _MAY_BE_THERE]
    if not there or force:
        return
    if {"proto", "dbt_project"} <= set(there):
        raise click.ClickException(
            f"{folder} is a Tidemill project already: `tidemill new` adds to it; --force makes what init makes and it "
            "does not have, and changes nothing"
        )
    raise click.ClickException(
        f"{folder} is not empty ({listed(there)}): name a new folder, or add --force; no file that is there is changed"
    )


def _tour(stream: str, domain: str) -> dict[str, str]:
    return {
        f"proto/{domain}/": f"the contract of the stream {stream}: change it to what your events are",
        f"{domain}/": "stubs of it, for programs that send typed messages",
        "dbt_project/": f"the models: staging, marts, the live view {stream}_by_minute",
        "suites/": "what has to hold before anything is published",
        "dags/": "what Airflow runs",
        "tests/": "run by make test: no network, no Airflow",
        ".github/workflows/": "the same in CI",
    }


def _next_steps(folder: Path, stream: str) -> dict[str, str]:
    """Commands to type next, each with what it is for."""
    steps = {}
    if folder.absolute() != Path.cwd():
        place = str(folder) if folder.is_absolute() else os.path.relpath(folder)
        steps[f"cd {shlex.quote(place)}"] = ""
    # An environment that is not active: its commands are told by their place.
    first = shutil.which("python3")
    active = first is not None and Path(first).parent == Path(sys.executable).parent
    named = "" if active else f" PYTHON={shlex.quote(sys.executable)}"
    steps[f"make test{named}"] = "the contract, the live view against batch, a whole day: about a minute"
    steps[f"make up{named}"] = "all parts until Ctrl-C"
    steps["tidemill new view NAME --stream " + stream] = "the next live view; also: new stream, new model, new suite"
    return steps
