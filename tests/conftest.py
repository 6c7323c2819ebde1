"""Which tests share a process when several run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, and all that use the one Airflow of tests/dags: their fixtures are dear."""
    for item in items:
        file = item.path.relative_to(ROOT)
        group = "dags" if file.parts[0] == "dags" else str(file)
        item.add_marker(pytest.mark.xdist_group(group))
