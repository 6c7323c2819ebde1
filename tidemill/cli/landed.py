"""`tidemill import`: what lies in the landing folder, without Airflow. The work is done by a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tidemill.cli import options
from tidemill.cli.quality_tool import run_quality_tool


@click.command("import", short_help="Import what lies in a landing folder, each file once.")
@click.argument("landing", metavar="[LANDING]", envvar="TIDEMILL_LANDING")
@options.project_data
@options.address
@options.project
@options.as_json
def import_files(landing: str, data: Path | None, address: str, project: Path | None, as_json: bool) -> int:
    """Import the files that lie in LANDING (a folder, or s3://bucket/prefix), each once by its content.

    LANDING/STREAM/FILE goes to STREAM, then to LANDING/STREAM/done; a bad file goes to LANDING/STREAM/failed, with the
    reason. What is still being written waits for the next time. Exit code 1 when a file could not be imported.

    \b
    Example:
      tidemill import /srv/landing
    """
    return run_quality_tool(
        "tidemill import", "quality.landing", [], needs="yaml", data=data, project=project, address=address,
        settings={"TIDEMILL_LANDING": landing}, show=None if as_json else _line,
    )  # fmt: skip


def _line(result: dict[str, Any]) -> str:
    """What became of a file, for people."""
    named = f"{result['stream']}/{result['file']}"
    if result["state"] == "sent":
        counts = ", ".join(f"{result[name]:,} {name}" for name in ("appended", "duplicate", "quarantined", "late"))
        return f"{named}: {result['rows']:,} rows sent: {counts}"
    if result["state"] == "duplicate":
        return f"{named}: imported before, as {result['imported_as']}"
    if result["state"] == "failed":
        return f"{named}: {result['error']}"
    return f"{named}: {result['state']}{': ' + result['why'] if result.get('why') else ''}"
