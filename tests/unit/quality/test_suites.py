"""The project's own suites, and those that its contracts give: good rows pass, and each wrong one is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable, write_deltalake
from support.lakes import order_lines

from quality.config import DayConfig
from quality.errors import CheckFailed
from quality.gate import check_lake
from quality.run import Pin, Run, save_run

pytestmark = [
    # GX calls names that its libraries have renamed since; its release is pinned, and not ours to change.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:duckdb-engine doesn't yet support reflection on indices"),
]
ROOT = Path(__file__).parents[3]

COMMON = """
    0::integer as _partition, i::bigint as _offset, timestamptz '2011-12-05 08:00:01+00' as _append_time,
    date '2011-12-05' as event_date from range(40) t(i)
"""
REQUESTS = f"""
    select 'r' || i as event_id, timestamptz '2011-12-05 08:00:00+00' as requested_at, 'host' || i as host,
        'GET' as method, '/' || i as url, 200::integer as status, 100::bigint as bytes, {COMMON}
"""
READINGS = f"""
    select 'r' || i as event_id, timestamptz '2011-12-05 08:00:00+00' as measured_at, 'here' as host, 'cpu' as sensor,
        'used_percent' as metric, i::double as value, 'percent' as unit, {COMMON}
"""

Check = Callable[..., dict]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs all source suites of this project over 40 good requests and readings, after a change of some of them."""
    config = DayConfig(tmp_path / "data", ROOT, "localhost:1")

    def run_check(change: str = "set TimeZone = 'UTC'", *, seal_offset: int = 40, counts: dict | None = None) -> dict:
        with duckdb.connect(":memory:") as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"create table web_requests as {REQUESTS}")
            connection.execute(f"create table readings as {READINGS}")
            connection.execute(change)
            pins = {}
            for stream in ("web_requests", "readings"):
                uri = tmp_path / "lake" / stream
                rows = connection.sql(f"select * from {stream}").to_arrow_table()
                write_deltalake(str(uri), rows, partition_by=["event_date"], mode="overwrite")
                pins[stream] = Pin(seal_offset, str(uri), DeltaTable(str(uri)).version(), 40, counts or {})
        run = Run("r1", "2011-12-05", "2011-12-05", pins)
        save_run(config, run)
        return check_lake(config, run)

    return run_check


def test_good_rows_pass(check: Check):
    result = check()
    assert (result["verdict"], result["warnings"], result["not_checked"]) == ("passed", [], [])
    suites = {each["suite"] for each in result["results"]}
    assert suites == {
        "contract_web_requests", "source_web_requests", "contract_readings", "source_readings",
    }  # fmt: skip


def test_a_stream_without_events_is_not_checked(check: Check):
    assert check(seal_offset=0)["checks"] == 0


BROKEN = {
    "update web_requests set status = 99 where _offset = 1": "contract_web_requests.status_is_in_range",
    "update web_requests set bytes = -1 where _offset = 2": "contract_web_requests.bytes_is_in_range",
    "update web_requests set method = 'get' where _offset = 3": "contract_web_requests.method_has_its_form",
    "update web_requests set host = '' where _offset = 4": "contract_web_requests.host_has_its_len",
    "update web_requests set host = null where _offset = 5": "contract_web_requests.host_has_a_value",
    "update web_requests set event_id = 'r0' where _offset = 6": "contract_web_requests.event_id_once",
    "update readings set value = 'nan' where _offset = 7": "contract_readings.value_is_finite",
    "update readings set unit = null where _offset = 8": "contract_readings.unit_has_a_value",
    "update readings set _offset = 9 where _offset = 10": "contract_readings.offset_once",
    "update readings set measured_at = timestamptz '2011-12-04 23:00:00+00' where _offset = 11": (
        "contract_readings.event_date_is_that_of_event_time"
    ),
    "update readings set measured_at = timestamptz '2011-12-05 08:06:00+00' where _offset = 12": (
        "source_readings.no_future_events"
    ),
}
"""A change of one row by hand, and the check that finds it."""


def test_a_broken_promise_stops_the_day_and_its_rows_are_kept(check: Check):
    with pytest.raises(CheckFailed) as caught:
        check("; ".join(BROKEN))
    assert sorted(caught.value.checks) == sorted(BROKEN.values())
    # What is about a person is not told.
    assert "host=" not in str(caught.value)
    twice = {"contract_web_requests.event_id_once", "contract_readings.offset_once"}
    for finding in caught.value.findings:
        rows = duckdb.sql(f"select * from read_parquet('{finding.file}')")
        assert {"event_id", "_offset", "event_date"} <= set(rows.columns), "whole rows"
        assert len(rows.fetchall()) == finding.rows == (2 if finding.name in twice else 1)


def test_what_is_odd_is_told(check: Check):
    result = check(
        "update web_requests set status = 500 where _offset = 1; update web_requests set url = 'x' where _offset = 2; "
        "update readings set value = 101 where _offset = 1; update readings set unit = 'bytes' where _offset = 2"
    )
    assert [warning["name"] for warning in result["warnings"]] == [
        "source_web_requests.the_server_answered",
        "source_web_requests.url_is_a_path",
        "source_web_requests.server_errors",
        "source_readings.a_percentage_is_between_0_and_100",
        "source_readings.a_metric_has_its_unit",
    ]
    (server_errors,) = [each for each in result["warnings"] if each["name"].endswith("server_errors")]
    assert server_errors["observed"] == "0.025"
    assert [each["name"] for each in check("delete from readings")["warnings"]] == ["source_readings.rows"]


def test_too_many_quarantined_and_late_rows_are_told(check: Check):
    good = {"received": 1000, "quarantined": 10, "appended": 990, "late": 20}
    assert check(counts=good)["warnings"] == []
    warned = check(counts=good | {"quarantined": 11, "late": 50})["warnings"]
    assert [(each["name"], each["observed"]) for each in warned] == [
        ("source_web_requests.quarantined_share", "11 of 1,000"),
        ("source_web_requests.late_share", "50 of 990"),
        ("source_readings.quarantined_share", "11 of 1,000"),
        ("source_readings.late_share", "50 of 990"),
    ]


def test_a_later_contract_in_force_makes_the_projects_rules_warn(check: Check):
    counts = {"contract_version": 2}
    warned = check("update web_requests set status = 999 where _offset = 3", counts=counts)["warnings"]
    assert "contract_web_requests.status_is_in_range" in [each["name"] for each in warned]


def test_the_lines_of_a_shop_are_real(tmp_path: Path):
    config = DayConfig(tmp_path / "data", ROOT, "localhost:1")
    lines = order_lines(4_000, [4, 5, 6])
    uri = tmp_path / "lake"
    write_deltalake(str(uri), lines, partition_by=["event_date"])
    run = Run("r1", "2011-12-05", "2011-12-06", {"order_lines": Pin(3_900, str(uri), 0, 4_000)})
    save_run(config, run)
    result = check_lake(config, run)
    assert result["verdict"].startswith("passed with ")
    warned = {each["name"]: each for each in result["warnings"]}
    missing = warned["source_order_lines.customer_id_has_a_value"]
    with duckdb.connect(":memory:") as connection:
        connection.register("sent", lines.slice(0, 3_900))
        counted = connection.execute(
            "select count(*), count(*) filter (customer_id is null) from sent where event_date >= '2011-12-05'"
        ).fetchall()
    assert [(missing["rows"], missing["unexpected_rows"])] == counted
    assert missing["sample"][0].keys() == {"_offset", "event_id"}
