"""Names of what a project is made of: which can be one, and what follows from them."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

from tidemill.local.errors import NameRefused

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FOLDERS = {"dags", "dbt_project", "proto", "suites", "tests"}
"""The project's own folders: a stub package beside them may not have their names."""
_OURS = {"ingest_service", "orchestration", "quality", "tidemill"}


def check_name(what: str, name: str) -> str:
    """Take a name of a stream or a model: it stands in SQL, in file names and in URLs. Raises NameRefused."""
    if not _NAME.fullmatch(name):
        like = snake(name)
        hint = f", such as {like}" if _NAME.fullmatch(like) and like != name else ""
        raise NameRefused(
            f"{what} is named by lower case letters, digits and underscores, a letter first, at most 63{hint}; "
            f"came {name!r}"
        )
    if name in _words_of_sql():
        raise NameRefused(f"{name!r} is a word of SQL: choose another name for {what}, such as {name}_events")
    return name


def check_domain(name: str, project: Path) -> str:
    """Take a domain: it names a folder of proto/, and the package of its stubs in the project. Raises NameRefused."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise NameRefused(
            "a domain names a Python package: lower case letters, digits and underscores, a letter first, and no word "
            f"of Python; came {name!r}"
        )
    taken = ""
    if name in _FOLDERS:
        taken = "a folder of the project itself"
    elif name in sys.stdlib_module_names:
        taken = "a module of Python itself"
    elif name in _OURS:
        taken = "a package of Tidemill"
    elif (place := _package(name)) is not None and not _is_here(place, project):
        taken = f"a package that is installed ({place})"
    if taken:
        raise NameRefused(
            f"the stubs of domain {name!r} would be a package of that name, which is {taken}: choose another one with "
            "--domain"
        )
    return name


def snake(text: str) -> str:
    """A text as a name, as far as that goes: "My shop-2" gives my_shop_2."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def project_name(folder: Path) -> str:
    """What dbt calls the project in a folder."""
    name = snake(folder.name)[:50]
    return name if name[:1].isalpha() else f"project_{name}".rstrip("_")


def singular(stream: str) -> str:
    """What one event of a stream is called: payments gives payment, page_views page_view."""
    if stream.endswith("ies") and len(stream) > 4:
        return f"{stream[:-3]}y"
    if re.search(r"(ss|x|ch|sh)es$", stream):
        return stream[:-2]
    return stream[:-1] if re.search(r"[^su]s$", stream) and len(stream) > 2 else stream


def message_name(stream: str) -> str:
    """The protobuf message of a stream's events: page_views gives PageView."""
    return "".join(word.capitalize() for word in singular(stream).split("_"))


def _words_of_sql() -> set[str]:
    """What DuckDB does not take as a name without quotes."""
    import duckdb

    with duckdb.connect() as duck:
        found = duck.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'")
        return {name for (name,) in found.fetchall()}


def _is_here(place: Path, project: Path) -> bool:
    """Whether a package is the project's own, or found only because of the folder that Python was started in."""
    started_in = Path.cwd().resolve()
    only_here = place.is_relative_to(started_in) and not place.is_relative_to(Path(sys.prefix).resolve())
    return only_here or place.is_relative_to(project.resolve())


def _package(name: str) -> Path | None:
    """Where a package of this name would be imported from now; None where there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = [spec.origin] if spec.origin and spec.has_location else list(spec.submodule_search_locations or ())
    return Path(places[0]).resolve() if places else Path(name)
