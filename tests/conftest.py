"""How the tests are shared out among processes: a file to one of them, and all of tests/dags, which has one Airflow."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name each test's group for pytest-xdist, so that what a file sets up is set up once."""
    for item in items:
        place = item.path.relative_to(TESTS)
        group = "dags" if place.parts[0] == "dags" else str(place)
        item.add_marker(pytest.mark.xdist_group(group))
