"""The suites on the sources of the examples: good rows pass, and each wrong one is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from quality.config import DayConfig
from quality.errors import CheckFailed
from quality.gate import run_suites
from quality.run import Run
from quality.suites import source_suites

pytestmark = [
    # GX calls names that its libraries have renamed since; its release is pinned, and not ours to change.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:duckdb-engine doesn't yet support reflection on indices"),
]

REQUESTS = """
    create table web_requests as select 'r' || i as event_id, timestamptz '2011-12-05 08:00:00+00' as requested_at,
        'host' || i as host, 'GET' as method, '/' || i as url, 200::integer as status, 100::bigint as bytes,
        i::bigint as _offset, date '2011-12-05' as event_date from range(20) t(i)
"""
READINGS = """
    create table readings as select 'r' || i as event_id, timestamptz '2011-12-05 08:00:00+00' as measured_at,
        'here' as host, 'cpu' as sensor, 'used_percent' as metric, i::double as value, 'percent' as unit,
        i::bigint as _offset, date '2011-12-05' as event_date from range(20) t(i)
"""

Check = Callable[..., dict]


@pytest.fixture
def check(config: DayConfig, run: Run, tmp_path: Path) -> Check:
    """Runs the sources' suites over 20 good requests and readings, after a change of some of them."""

    def run_check(change: str, *, seal_offset: int = 20) -> dict:
        database = tmp_path / "source.duckdb"
        with duckdb.connect(str(database)) as connection:
            connection.execute("set TimeZone = 'UTC'")
            for statement in (REQUESTS, READINGS, change):
                connection.execute(statement)
        pin = dataclasses.replace(run.streams["payments"], seal_offset=seal_offset)
        pinned = dataclasses.replace(run, streams={"web_requests": pin, "readings": pin})
        return run_suites(config, pinned, database, source_suites(pinned))

    return run_check


def test_good_rows_pass(check: Check):
    result = check("select 1")
    assert (result["verdict"], result["checks"]) == ("passed", 25)


def test_a_stream_without_events_is_not_checked(check: Check):
    assert check("drop table web_requests; drop table readings", seal_offset=0)["checks"] == 0


@pytest.mark.parametrize(
    ("change", "stopped"),
    [
        ("update web_requests set status = 99", "source_web_requests.status.column_values_to_be_between"),
        ("update web_requests set bytes = -1", "source_web_requests.bytes.column_values_to_be_between"),
        (
            "update web_requests set method = 'get'",
            "source_web_requests.method_has_its_form.column_values_to_be_in_set",
        ),
        ("update web_requests set host = ''", "source_web_requests.host_has_its_length.column_values_to_be_in_set"),
        ("update web_requests set host = null", "source_web_requests.host_has_its_length.column_values_to_not_be_null"),
        ("update web_requests set event_id = 'r1'", "source_web_requests.event_id.column_values_to_be_unique"),
        ("update readings set value = 'nan'", "source_readings.value_is_finite.column_values_to_be_in_set"),
        ("update readings set unit = null", "source_readings.unit.column_values_to_not_be_null"),
        ("update readings set _offset = 7", "source_readings._offset.column_values_to_be_unique"),
    ],
)
def test_a_broken_promise_stops_the_day(check: Check, change: str, stopped: str):
    with pytest.raises(CheckFailed) as caught:
        check(f"{change} where _offset in (3, 4)")
    assert caught.value.checks == [stopped]
    # What is about a person is not told.
    assert "host=" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        ("update web_requests set status = 500", "source_web_requests.status.column_values_to_be_between"),
        ("update web_requests set url = 'x'", "source_web_requests.url_is_a_path.column_values_to_be_in_set"),
        (
            "update readings set value = 101",
            "source_readings.percentage_is_between_0_and_100.column_values_to_be_in_set",
        ),
        ("update readings set unit = 'bytes'", "source_readings.metric_has_its_unit.column_values_to_be_in_set"),
    ],
)
def test_what_is_odd_is_told(check: Check, change: str, warned: str):
    result = check(f"{change} where _offset = 3")
    assert [warning["name"] for warning in result["warnings"]] == [warned]
