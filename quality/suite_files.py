"""Loads a project's suites: every Python file of its folder `suites`, by its path.

The files are run as they are: whoever may write them may do what the day may do, as with dbt's models and DAG files.
Nothing of them stays behind in this process but the suites that they define, and no file is written beside them.
"""

from __future__ import annotations

import sys
import traceback
import types
from pathlib import Path

from quality.errors import ConfigWrong
from quality.suite import MartSuite, SourceSuite, Suites


def load_suites(folder: Path) -> Suites:
    """Give the suites that the folder's files define, in the files' order; none without the folder.

    Files whose names begin with an underscore are no suites. Raises ConfigWrong, in one line: file, line, what.
    """
    found = Suites()
    owners: dict[str, Path] = {}
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        for suite in _suites_of(folder, path):
            if suite.name in owners:
                raise ConfigWrong(
                    f"{_shown(path)}: a suite {suite.name!r} is in {_shown(owners[suite.name])} already: "
                    "give one of them another name=…"
                )
            owners[suite.name] = path
            if isinstance(suite, SourceSuite):
                found.sources.append(suite)
            else:
                found.marts.append(suite)
    return found


def _suites_of(folder: Path, path: Path) -> list[SourceSuite | MartSuite]:
    """Run one file; give the suites among its names, each once."""
    if folder.resolve() not in path.resolve().parents:
        raise ConfigWrong(f"{_shown(path)}: expected a file of {folder}, found a link to {path.resolve()}")
    name = f"tidemill_suites_{path.stem}"
    module = types.ModuleType(name)
    module.__file__ = str(path)
    # While it runs: dataclasses look up the module that they are of.
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102
    except SyntaxError as error:
        raise ConfigWrong(
            f"{_shown(path)}, line {error.lineno}: {error.msg}. Correct it, and run the checks again"
        ) from error
    except (Exception, SystemExit) as error:
        line = next(
            (each.lineno for each in reversed(traceback.extract_tb(error.__traceback__)) if each.filename == str(path)),
            1,
        )
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigWrong(f"{_shown(path)}, line {line}: {what}. Correct it, and run the checks again") from error
    finally:
        del sys.modules[name]
    values = list(vars(module).values())
    listed = [each for value in values for each in (value if isinstance(value, list | tuple) else [value])]
    suites = [each for each in listed if isinstance(each, SourceSuite | MartSuite)]
    if not suites:
        raise ConfigWrong(
            f"{_shown(path)}: expected a SourceSuite or a MartSuite, found none; the name of a file that is no suite "
            "begins with _"
        )
    return list(dict.fromkeys(suites))


def _shown(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
