"""The Airflow plugin: what it adds to Airflow's pages. Entry point `tidemill` of the group `airflow.plugins`.

Every component of Airflow loads its plugins; the pages themselves (`orchestration.pages`) are imported by the API
server alone, when it asks for them.
"""

from __future__ import annotations

import functools
from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/tidemill"
"""Where the pages are, below Airflow's own address."""


def _view(name: str, route: str, page: str, destination: str, icon: str) -> dict[str, Any]:
    """Describe one page for Airflow. Addresses are relative: Airflow may live below a path of its host."""
    here = PREFIX.removeprefix("/")
    return {
        "name": name,
        "url_route": route,
        "href": f"{here}/{page}",
        "destination": destination,
        "nav_top_level": destination == "nav",
        "icon": f"{here}/static/{icon}.svg",
        "icon_dark_mode": f"{here}/static/{icon}-dark.svg",
    }


class TidemillPlugin(AirflowPlugin):
    """Days, dbt docs and data docs in the navigation, the days on a DAG's page, the report on a run's page."""

    name = "tidemill"
    external_views = [  # noqa: RUF012 - Airflow's own declaration
        _view("Days", "days", "days", "nav", "days"),
        _view("dbt docs", "dbt-docs", "docs/dbt/", "nav", "dbt-docs"),
        _view("Data docs", "data-docs", "docs/data/", "nav", "data-docs"),
        _view("Days", "dates", "days?dag={DAG_ID}", "dag", "days"),
        _view("Run report", "run-report", "runs/{DAG_ID}/{RUN_ID}", "dag_run", "report"),
    ]

    @functools.cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """The pages' application, once; imported here, as scheduler, triggerer and workers have no use for it."""
        from orchestration.pages.app import make_app

        return [{"name": self.name, "url_prefix": PREFIX, "app": make_app()}]
