"""The project that a command works on: its models, its contracts, and where they are compiled."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tidemill.cli import options
from tidemill.cli.output import console
from tidemill.local.folder import DataFolder, find_project
from tidemill.local.live_models import compile_models

Decorated = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Project:
    """Where an author's models and contracts are, and where they are compiled."""

    root: Path
    proto: Path
    folder: DataFolder

    @classmethod
    def at(cls, project: Path | None, proto: Path | None, data: Path | None) -> Project:
        """The project of the options; raises ProjectMissing."""
        root = find_project(project)
        return cls(root, proto or root / "proto", DataFolder.at(data, root))

    def compiled(self, quiet: bool) -> Path:
        """The live manifest of the models as they are now. Raises CompileFailed, MissingExtra, FolderBusy."""
        screen = console()
        if quiet or not screen.is_terminal:
            return compile_models(self.root, self.folder)
        with screen.status("compiling the live models with dbt"):
            return compile_models(self.root, self.folder)

    def shown(self, file: str) -> str:
        """A file of the dbt project as it is named from here."""
        path = self.root / "dbt_project" / file
        relative = os.path.relpath(path)
        return str(path) if relative.startswith(os.pardir + os.sep + os.pardir) else relative

    def model_names(self, manifest: Path, given: Sequence[str]) -> list[str]:
        """The names of live models that are given by name or by file; all of them where none is given."""
        nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
        models = {node.get("alias") or node["name"]: node for node in nodes if node["resource_type"] == "model"}
        by_file = {
            (self.root / "dbt_project" / node["original_file_path"]).resolve(): name for name, node in models.items()
        }
        names = []
        for each in given:
            name = each if each in models else by_file.get(Path(each).resolve())
            if name is None:
                known = ", ".join(sorted(models)) or "none"
                tag = "; a model is live by `tags=['live']` in its config" if Path(each).exists() else ""
                raise click.ClickException(f"there is no live model {each}; the live models are: {known}{tag}")
            names.append(name)
        return names or sorted(models)


def of_project(command: Decorated) -> Decorated:
    """The options --project, --proto and --data, as one argument `project`."""

    @functools.wraps(command)
    def with_project(*args: Any, project: Path | None, proto: Path | None, data: Path | None, **others: Any) -> Any:
        return command(*args, project=Project.at(project, proto, data), **others)

    folder = click.Path(file_okay=False, path_type=Path)
    decorators = (
        options.project,
        click.option("--proto", type=folder, metavar="DIR",
                     help="The folder of the contracts.  [default: proto in the project]"),
        click.option("--data", type=folder, envvar="TIDEMILL_DATA", show_envvar=True, metavar="DIR",
                     help="The data folder, where dbt compiles.  [default: .tidemill in the project]"),
    )  # fmt: skip
    decorated: Decorated = with_project
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return decorated
