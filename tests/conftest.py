"""How the tests are shared out among processes: a file to one of them, and all of tests/dags, which has one Airflow."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give pytest-xdist's scheduler a place's group: what is set up for it is set up once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "tests/dags" if file.startswith("tests/dags/") else file

    return ByFile(config, log)
