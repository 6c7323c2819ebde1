"""Why live differs from batch: only another definition can be a cause, and only if it makes the difference zero."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import duckdb
import pytest

from quality.causes import DEFINITION, CannotRun, explain, of_magnitudes, rows_by_definition
from quality.errors import ReconciliationFailed
from quality.reconcile import COLUMNS, Comparison, Difference
from quality.reconcile_views import judge
from quality.run import Run

ROWS = (
    "select * from (values ('2011-12-05 08:26', 'DE', 2), ('2011-12-05 08:27', 'CH', 3)) t(moment, country, quantity)"
)
SQL = """
with kept as (select * from "warehouse"."events"."order_lines" where quantity > 1)
select region, sum(quantity)::bigint as units from kept join "warehouse"."main"."regions" using (country) group by all
"""
REGIONS = {
    "name": "regions",
    "tidemill_content": "country,region\nDE,north\nCH,south\n",
    "config": {"column_types": {"region": "varchar", "country": "varchar"}},
}
AGREES = Comparison("sales", "order_lines", 3, 5, 0, ())
DIFFERS = Comparison("sales", "order_lines", 3, 5, 2, (Difference("sales", "w", "", "units", "2", "1", "1"),) * 2)
RUN = Run("r1", "2011-12-05", "2011-12-05")


@pytest.fixture
def work_copy(tmp_path: Path) -> Path:
    file = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute(
            "create table regions as select * from (values ('DE', 'all'), ('CH', 'all')) t(country, region)"
        )
    return file


def test_a_definition_is_run_over_the_runs_rows_with_the_seeds_that_the_service_has(work_copy: Path):
    rows = rows_by_definition(SQL, ROWS, {"regions": REGIONS}, {"regions": "work.main.regions"}, work_copy)
    assert sorted(map(tuple, (row.values() for row in rows.to_pylist()))) == [("north", 2), ("south", 3)]
    # Of a service whose data folder is elsewhere, the run's own are taken.
    rows = rows_by_definition(SQL, ROWS, {}, {"regions": "work.main.regions"}, work_copy)
    assert rows.to_pylist() == [{"region": "all", "units": 5}]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        (SQL.replace("sum(quantity)", "sum(weight)"), "weight"),
        ("select from from from", "."),
        (SQL.replace("warehouse", "work"), "."),
    ],
)
def test_a_definition_that_cannot_be_run_says_why(work_copy: Path, sql: str, why: str):
    with pytest.raises(CannotRun, match=why) as caught:
        rows_by_definition(sql, ROWS, {"regions": REGIONS}, {}, work_copy)
    assert "\n" not in str(caught.value)


def test_what_differs_from_batch_alone_is_explained_and_does_not_stop():
    found = explain(AGREES, DIFFERS, ((), ()))
    assert (found.difference_count, found.explained, found.unexplained) == (2, 2, 0)
    assert {each.cause for each in found.differences} == {DEFINITION}
    view = judge(RUN, [found], [])["views"]["sales"]
    assert (view["differences"], view["explained"], view["causes"]) == (2, 2, {DEFINITION: 2})
    assert "live follows another definition than was built, and has its rows right" in view["note"]


def test_what_differs_from_its_own_definition_is_unexplained():
    found = explain(DIFFERS, AGREES, ((), ()))
    assert (found.explained, found.unexplained) == (0, 2)
    with pytest.raises(ReconciliationFailed, match="UNEXPLAINED: sales w UTC: units live 2, batch 1") as caught:
        judge(RUN, [found], [], report="reconciliation.json")
    assert "its rows are not those of that one either" in str(caught.value)
    (finding,) = caught.value.findings
    assert (finding.rows, len(finding.sample), finding.file) == (2, 2, "reconciliation.json")


def test_other_columns_are_one_difference():
    found = explain(AGREES, None, (["a BIGINT", "b VARCHAR"], ["a BIGINT"]))
    (difference,) = found.differences
    assert (difference.column, difference.live, difference.batch) == (COLUMNS, "a BIGINT, b VARCHAR", "a BIGINT")
    assert found.explained == 1


def test_a_changed_definition_that_changes_no_row_has_no_difference():
    found = explain(AGREES, AGREES, ((), ()))
    assert found == dataclasses.replace(AGREES, note=found.note)


def test_the_magnitude_of_a_sum_is_that_of_absolute_values():
    sql = (
        "select a, sum(x) as s, avg(x * y) filter (x > 0) as m, sum(distinct x) as d, count(*) as n from t group by all"
    )
    rows = duckdb.connect().sql(
        of_magnitudes(sql).replace("FROM t", "FROM (values (1, 2.0, -1.0), (1, -2.0, 1.0)) t(a, x, y)")
    )
    assert rows.fetchall() == [(1, 4, 2, 0, 2)]
