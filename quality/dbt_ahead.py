"""dbt made ready before processes are forked: what it builds at its first use takes longer than most of a day's models.

At first use dbt generates code and JSON schemas for each of its classes: 2 s, and again in every process. Forks of a
process in which that was done have it: a day's six dbt invocations take about a quarter less.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

# One of each kind that a project may have.
_PROJECT = {
    "dbt_project.yml": """
name: ahead
version: "1.0"
config-version: 2
profile: ahead
flags: {send_anonymous_usage_stats: false}
""",
    "profiles.yml": """
ahead:
  target: dev
  outputs:
    dev: {type: duckdb, path: ":memory:", threads: 1}
""",
    "seeds/seed.csv": "id\n1\n",
    "models/model.sql": "{{ config(materialized='table') }} select id from {{ ref('seed') }}",
    "models/model.yml": """
models:
  - name: model
    columns:
      - {name: id, data_type: integer, data_tests: [not_null, unique]}
unit_tests:
  - name: one_row
    model: model
    given:
      - {input: ref('seed'), rows: [{id: 1}]}
    expect: {rows: [{id: 1}]}
sources:
  - {name: source, tables: [{name: table}]}
groups:
  - {name: group, owner: {name: nobody}}
exposures:
  - {name: exposure, type: dashboard, owner: {name: nobody}, depends_on: [ref('model')]}
""",
}


def warm_up() -> bool:
    """Let dbt parse a project of one model, in a folder that is removed again; tells whether it did. Never raises."""
    try:
        with tempfile.TemporaryDirectory(prefix="tidemill-dbt-") as folder:
            return _parse(Path(folder))
    except OSError:
        # Such as a full disk: then each process does it by itself, as before.
        return False


def _parse(folder: Path) -> bool:
    from dbt.cli.main import dbtRunner

    from quality.dbt_project import close_files

    for name, text in _PROJECT.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    places = ["--project-dir", str(folder), "--profiles-dir", str(folder), "--target-path", str(folder / "target")]
    # The static parser is left out: it starts threads, a fork has none of them, and would wait for them for ever.
    result = dbtRunner().invoke(["parse", *places, "--log-path", str(folder / "logs"), "--no-static-parser", "--quiet"])
    close_files()
    return bool(result.success)
