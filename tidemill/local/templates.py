"""The files that a project begins with, and what is added to it: templates in `tidemill/templates`, rendered.

A template's file ends in `.tmpl`, so that no tool takes it for what it will be. `[[ name ]]` in it, and `__name__` in
its path, stand for a value: dbt's Jinja, make and GitHub's workflows have signs of their own. What this repository's
own project has just so is taken from there: in a wheel it stands in `templates/shared`, put there when it is built
(`pyproject.toml`); elsewhere beside this package.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill.local.errors import ProjectFileThere

_HERE = Path(__file__).resolve().parents[1] / "templates"
_SUFFIX = ".tmpl"
_VALUE = re.compile(r"\[\[ (\w+) \]\]")
_SHARED = (
    ".sqlfluff",
    "dbt_project/profiles.yml",
    "dbt_project/macros/begin_date.sql",
    "dbt_project/macros/forget_told_runs.sql",
    "dbt_project/models/marts/fct_quarantined_rows.sql",
    "dbt_project/models/marts/fct_quarantined_rows.yml",
    "dbt_project/models/operations",
    "dbt_project/models/sources/operations.yml",
    "dbt_project/models/staging/staging_filtered.yml",
    "dbt_project/tests/generic/never_null.sql",
    "dbt_project/tests/generic/unique_together.sql",
)
"""Files and folders of this repository's own project; the same list stands in pyproject.toml."""

Files = dict[str, str]
"""Texts by path below the project's folder."""


@dataclass(frozen=True, slots=True)
class Written:
    """Files that were made, and those that were there already and stay as they are."""

    made: tuple[str, ...]
    kept: tuple[str, ...]


def rendered(kind: str, values: Mapping[str, str]) -> Files:
    """The files of one kind of thing: a folder of `tidemill/templates`."""
    root = _HERE / kind
    found = sorted(file for file in root.rglob(f"*{_SUFFIX}") if file.is_file())
    return {_path(file.relative_to(root), values): fill(file.read_text(encoding="utf-8"), values) for file in found}


def fragment(name: str, values: Mapping[str, str]) -> str:
    """A text that becomes a part of a file; `name` is its path in `tidemill/templates`, without `.tmpl`."""
    return fill((_HERE / f"{name}{_SUFFIX}").read_text(encoding="utf-8"), values)


def shared_files() -> Files:
    """What every project has just as this repository's own has it. Raises FileNotFoundError where some of it is not."""
    packed = _HERE / "shared"
    root = packed if packed.is_dir() else _HERE.parents[1]
    found: Files = {}
    for name in _SHARED:
        place = root / name
        if not place.exists():
            raise FileNotFoundError(errno.ENOENT, "this installation lacks a file of every project", str(place))
        files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
        found |= {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files}
    return found


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its values put in; one that is not given is a bug."""
    return _VALUE.sub(lambda match: values[match[1]], text)


def write_files(root: Path, files: Mapping[str, str], *, keep: bool = False) -> Written:
    """Write files that are not there yet; never changes one that is.

    keep: leave those that are there; otherwise nothing is written when one is. Raises ProjectFileThere.
    """
    there = tuple(path for path in files if (root / path).exists() or (root / path).is_symlink())
    if there and not keep:
        raise ProjectFileThere(
            f"{listed(there)} {'is' if len(there) == 1 else 'are'} there already: choose another name, or move "
            f"{'it' if len(there) == 1 else 'them'} away"
        )
    made = [path for path in files if path not in there]
    for path in made:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8", newline="\n") as out:
            out.write(files[path])
    return Written(tuple(made), there)


def listed(names: Iterable[str], shown_max: int = 3) -> str:
    """Some names, and how many more there are."""
    names = list(names)
    more = len(names) - shown_max
    return ", ".join(names[:shown_max]) + (f" and {more} more" if more > 0 else "")


def _path(template: Path, values: Mapping[str, str]) -> str:
    path = template.as_posix().removesuffix(_SUFFIX)
    for name, value in values.items():
        path = path.replace(f"__{name}__", value)
    return path
