"""Live models before they are put in force: `python -m ingest_service.live.check`.

    --manifest FILE  the live manifest
    --proto DIR      the folder of the contracts
    [MODEL …]        which models; all of the manifest where none is named

Says one JSON object a line: of each model what its view would be, or where and why it is refused, and of each file that
is no contract although it should be (`problem`). The exit status is 1 where a model is refused. `tidemill view check`
shows it to people.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingest_service.contracts import load_contracts
from ingest_service.errors import ConfigError, IngestError, ViewRefused
from ingest_service.live.description import ViewColumn, ViewDescription
from ingest_service.live.duck import open_duck
from ingest_service.live.feed import ReaderLike
from ingest_service.live.manifest import LiveModel, read_manifest
from ingest_service.live.plan import plan_view
from ingest_service.live.tables import check_names
from ingest_service.log.records import LogSpec, with_system_columns

Line = dict[str, Any]
_COMPILED = re.compile(r" \(line (\d+), column (\d+) of its compiled SQL\)")
_PLACE = re.compile(r":(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class _ContractOnly:
    """What a plan needs to know of a stream's log, where there is a contract and no log."""

    spec: LogSpec
    schema: pa.Schema
    durable_offset: int = 0
    watermark_us: int | None = None

    def reader(self, from_offset: int, columns: Sequence[str] | None = None) -> ReaderLike:
        """None: there is nothing to read."""
        raise NotImplementedError


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; gives the exit status."""
    parser = argparse.ArgumentParser(prog="check", description="Tell of live models before they are put in force.")
    parser.add_argument("--manifest", type=Path, required=True, help="the live manifest")
    parser.add_argument("--proto", type=Path, default=Path("proto"), help="folder of the contracts (default: proto)")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="which models (default: all)")
    options = parser.parse_args(arguments)
    fine = True
    try:
        for line in checked(options.manifest, options.proto, options.models):
            fine = fine and not ("problem" in line and "model" in line)
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    except IngestError as error:
        sys.stderr.write(f"tidemill: {error}\n")
        return 1
    return 0 if fine else 1


def checked(manifest: Path, proto: Path, names: Sequence[str] = ()) -> Iterator[Line]:
    """A line for each wrong contract file, and for each of the models; a name's clash counts with any model.

    Raises ConfigError when the manifest is none, or has no model of such a name.
    """
    models = read_manifest(manifest)
    unknown = [name for name in names if name not in {model.name for model in models}]
    if unknown:
        listed = ", ".join(model.name for model in models) or "none"
        raise ConfigError(f"there is no live model {unknown[0]}; the live models are: {listed}")
    loaded = load_contracts(proto)
    for problem in loaded.problems:
        yield {"file": problem.file, "problem": problem.text}
    logs = {}
    for stream, contract in loaded.contracts.items():
        spec = contract.log_spec()
        logs[stream] = _ContractOnly(spec, with_system_columns(spec.schema))
    duck = open_duck()
    accepted: list[str] = []
    for model in models:
        try:
            plan = plan_view(model, logs, duck)
            check_names(plan.description, model.path, accepted)
        except ViewRefused as error:
            line = refused(model, str(error))
        else:
            accepted.append(model.name)
            line = accepted_as(model, plan.description)
        if not names or model.name in names:
            yield line


def keep_stdout() -> None:
    """Keep this process's stdout for what Python writes; what else is written there goes to stderr.

    DuckDB takes `python -m` of a module below a package that imports it for a notebook, and shows its progress there.
    """
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)


def accepted_as(model: LiveModel, description: ViewDescription) -> Line:
    """What a model's view would be."""
    return {
        "model": model.name,
        "file": model.path,
        "stream": description.stream,
        "group_columns": list(description.group_columns),
        "window_column": description.window_column,
        "window_width": description.window_width,
        "is_of_events": description.is_of_events,
        "retain_s": model.options.retain_s,
        "definition_hash": description.definition_hash,
        "columns": [
            {
                "name": column.name,
                "type": column.type,
                "in_grain": column.name in description.group_columns,
                "exact": column.exact,
                "relative_tolerance": column.relative_tolerance,
                "rank_error": column.rank_error,
                "compared": how_compared(column),
            }
            for column in description.columns
        ],
    }


def how_compared(column: ViewColumn) -> str:
    """How exactly live and batch are compared in a column, in words."""
    if column.exact:
        return "equal"
    if column.rank_error:
        return f"between the exact quantiles {column.rank_error:g} of rank below and above"
    return f"within {column.relative_tolerance:g}, relative to batch"


def refused(model: LiveModel, problem: str) -> Line:
    """Where and why a model is refused; the place is in its file, or else in its compiled SQL (`compiled`: true)."""
    line: Line = {"model": model.name, "file": model.path, "line": None, "column": None, "compiled": False}
    if problem.startswith(model.path):
        rest = problem[len(model.path) :]
        compiled, place = _COMPILED.match(rest), _PLACE.match(rest)
        found = compiled or place
        if found is not None:
            line |= {"line": int(found[1]), "column": int(found[2]), "compiled": compiled is not None}
            rest = rest[found.end() :]
        problem = rest.removeprefix(":").strip()
    return {**line, "problem": problem}


if __name__ == "__main__":
    keep_stdout()
    sys.exit(main())
