"""The names that users may rely on: frozen, documented, importable without what only some of them need."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from unit.repo import python_reference

import tidemill
import tidemill.aio
from tidemill import errors

TWINS = [
    (tidemill.Client, tidemill.aio.AsyncClient),
    (tidemill.Stream, tidemill.aio.AsyncStream),
    (tidemill.View, tidemill.aio.AsyncView),
    (tidemill.connect, tidemill.aio.connect),
]
# Done by the stream itself, without waiting for anything.
NOT_IN_ASYNCIO = {"serialize"}


def test_names_and_signatures_are_those_of_the_reference() -> None:
    again = f"run: {Path(sys.executable).name} tests/unit/repo/python_reference.py, and say it in CHANGELOG.md"
    assert python_reference.FILE.read_text(encoding="utf-8").split() == python_reference.reference().split(), again


def test_every_name_is_there() -> None:
    assert [name for name in tidemill.__all__ if not hasattr(tidemill, name)] == []
    assert len(set(tidemill.__all__)) == len(tidemill.__all__)
    kinds = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert kinds <= set(tidemill.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tidemill.nothing  # noqa: B018
    assert (Path(tidemill.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize(("kind", "twin"), TWINS)
def test_asyncio_has_the_same_names_and_options(kind: Any, twin: Any) -> None:
    if not isinstance(kind, type):
        assert options(kind) == options(twin)
        return
    names = {name for name in dir(kind) if not name.startswith("_")} - NOT_IN_ASYNCIO
    assert {name for name in names if not hasattr(twin, name)} == set()
    for name in names:
        if inspect.isfunction(getattr(kind, name)):
            assert options(getattr(kind, name)) == options(getattr(twin, name)), name


def options(function: Any) -> list[tuple[str, object]]:
    return [(each.name, each.default) for each in inspect.signature(function).parameters.values()]


def test_the_light_sdk_needs_grpc_and_protobuf_alone() -> None:
    code = """
import sys
for name in ("pyarrow", "pandas", "duckdb", "click", "rich", "numpy", "google.rpc", "ingest_service"):
    sys.modules[name] = None
import tidemill, tidemill.aio, tidemill.testing
for name in tidemill.__all__:
    getattr(tidemill, name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
