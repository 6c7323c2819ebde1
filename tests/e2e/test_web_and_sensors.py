"""A day of a real web server's requests, and this machine's own readings, beside a shop that is closed.

The requests go through the three live views of them, each against its dbt table, minute by minute. Of the three
streams one has the day's events, one has today's, and one has none: the daily run takes that as it is.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from support.both_sides import LiveRows, compare, live_rows

import tidemill
from quality import day
from quality.config import DayConfig
from tidemill.local.folder import DataFolder
from tidemill.local.stack import Stack

ROOT = Path(__file__).parents[2]
FILE = ROOT.parent / "shared" / "data" / "nasa_http_19950801.parquet"
TOTALS = {"requests": 33_996, "bytes": 529_321_719, "hosts": 2_582, "urls": 2_220, "ok": 30_745, "not_found": 243}
"""The control totals of shared/data/README.md."""
VIEWS = {"traffic_by_minute": 886, "responses_by_minute": 886, "request_errors": 244}
"""The live views of the stream, and how many windows of each are compared (of events: rows)."""

pytestmark = [
    pytest.mark.skipif(not FILE.is_file(), reason=f"the real data set is absent: {FILE.name} beside the project"),
    pytest.mark.filterwarnings("default"),  # dbt's and Great Expectations' own, in this process
]


def tidemill_command(*arguments: str) -> dict[str, object]:
    """Run a command as a user does; what it told as JSON."""
    command = [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())", *arguments]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """The stack with its service, which took the whole file and two rounds of readings."""
    folder = DataFolder(tmp_path_factory.mktemp("web") / "data")
    with Stack(folder, ROOT, scheduled=False) as stack:
        address = ["--address", stack.start_service()]
        mapped = ["--map", "event_id=n{source_row}", "--map", "status=response"]
        sent = tidemill_command("send", "web_requests", str(FILE), *mapped, *address)["summary"]
        assert (sent["appended"], sent["duplicate"], sent["quarantined"]) == (TOTALS["requests"], 0, 0)
        measured = tidemill_command("collect", "host", "--host", "here", "--count", "2", "--interval", "0.1", *address)
        assert measured["summary"]["appended"] == measured["summary"]["sent"]
        yield stack


@pytest.fixture(scope="module")
def live(stack) -> dict[str, LiveRows]:
    """Every view's rows once it covers the day; taken before windows may leave, which reconciled ones do."""
    with tidemill.connect(stack.address) as tm:
        return {name: live_rows(tm, name, TOTALS["requests"], wait_s=120) for name in VIEWS}


@pytest.fixture(scope="module")
def run(stack, live):
    """All stages of the day."""
    config = DayConfig(stack.folder.root, ROOT, stack.address)
    results = {"seal": day.seal(config, "web", "1995-08-01", force=True)}
    stages = ("export", "check_sources", "balance", "build", "check_marts", "reconcile", "publish", "document")
    for stage in stages:
        results[stage] = getattr(day, stage)(config, "web")
    return results


def test_streams_without_events_of_the_date_hold_nothing_up(run):
    streams = run["seal"]["streams"]
    assert {name: pin["seal_offset"] for name, pin in streams.items() if name != "readings"} == {
        "order_lines": 0,
        "web_requests": TOTALS["requests"],
    }
    assert streams["readings"]["seal_offset"] > 0
    warned = [warning["name"] for warning in run["check_sources"]["warnings"]]
    assert "source_readings.rows" in warned
    assert not any(name.startswith("source_order_lines") for name in warned)
    assert run["publish"]["published_at"]


@pytest.mark.parametrize("name", VIEWS)
def test_live_equals_batch_in_every_window(run, name, capsys):
    view = run["reconcile"]["views"][name]
    with capsys.disabled():
        print(f"\n{name}: {view['windows']:,} windows, {view['rows']:,} rows compared by the daily run, "
              f"{view['differences']:,} differences", end=" ")  # fmt: skip
    assert view["differences"] == 0
    assert view["windows"] == VIEWS[name]


@pytest.mark.parametrize("name", VIEWS)
def test_live_equals_batch_by_a_comparison_of_another_make(run, stack, live, name):
    compared = compare(stack.folder.warehouse, live[name])
    assert compared.wrong == {}
    assert compared.windows == VIEWS[name]


def test_the_other_comparison_finds_what_differs(run, stack, live, tmp_path):
    changed = tmp_path / "warehouse.duckdb"
    shutil.copyfile(stack.folder.warehouse, changed)
    with duckdb.connect(str(changed)) as connection:
        connection.execute("update responses_by_minute set bytes = bytes + 1 where hosts = 1 and status = 302")
        ((bytes_changed,),) = connection.execute(
            "select count(*) from responses_by_minute where hosts = 1 and status = 302"
        ).fetchall()
        connection.execute("delete from responses_by_minute where status = 403")
        connection.execute(
            "update responses_by_minute set hosts = null where status = 200 and window_start = "
            "(select min(window_start) from responses_by_minute where status = 200)"
        )
    wrong = compare(changed, live["responses_by_minute"]).wrong
    assert wrong == {"(row)": 1, "bytes": bytes_changed, "hosts": 1}


def test_the_live_views_hold_the_control_totals(live):
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        for name, each in live.items():
            connection.register(name, each.rows)
        assert connection.execute(
            "select sum(requests), sum(bytes), sum(errors) from traffic_by_minute"
        ).fetchall() == [(TOTALS["requests"], TOTALS["bytes"], 244)]
        assert connection.execute(
            "select sum(requests), sum(bytes), sum(requests) filter (status = 200), "
            "sum(requests) filter (status = 404) from responses_by_minute"
        ).fetchall() == [(TOTALS["requests"], TOTALS["bytes"], TOTALS["ok"], TOTALS["not_found"])]
        assert connection.execute("select count(*), min(status) from request_errors").fetchall() == [(244, 403)]
        # Estimates, minute by minute beside the truth.
        connection.register("source", duckdb.read_parquet(str(FILE), connection=connection))
        ((minutes, worst),) = connection.execute(
            "select count(*), max(abs(hosts - truth) / truth) from traffic_by_minute join (select "
            "date_trunc('minute', requested_at) as window_start, count(distinct host) as truth from source "
            "group by all) using (window_start)"
        ).fetchall()
    assert minutes == VIEWS["traffic_by_minute"]
    # Minutes have few hosts: there HyperLogLog is as good as exact.
    assert worst < 0.25


def test_no_host_is_shown(stack, live, run):
    with duckdb.connect() as connection:
        connection.register("source", duckdb.read_parquet(str(FILE), connection=connection))
        hosts = {host for (host,) in connection.execute("select distinct host from source").fetchall()}
        urls = "\n".join(url for (url,) in connection.execute("select distinct url from source").fetchall())
    assert len(hosts) == TOTALS["hosts"]
    for each in live.values():
        shown = {value for column in each.rows.columns for value in column.to_pylist() if isinstance(value, str)}
        assert shown & hosts == set()
    # Nor kept beside the views: by its hash alone is it known there. (One host's name also stands in URLs.)
    named = [host.encode() for host in hosts if len(host) > 12 and host not in urls]
    assert len(named) > 2_000
    for file in stack.folder.live.glob("live.sqlite*"):
        content = file.read_bytes()
        assert [host for host in named if host in content] == []


def test_errors_are_told_by_event(live):
    rows = live["request_errors"].rows.to_pylist()
    offsets = [row["_offset"] for row in rows]
    assert len(set(offsets)) == len(offsets)
    with duckdb.connect() as connection:
        connection.register("source", duckdb.read_parquet(str(FILE), connection=connection))
        expected = connection.execute(
            "select source_row - 1, url, response from source where response >= 400 order by 1"
        ).fetchall()
    assert sorted((row["_offset"], row["url"], row["status"]) for row in rows) == expected


def test_readings_are_seen_by_minute(stack, run):
    with tidemill.connect(stack.address) as tm:
        offset = tm.stream_status("readings").durable_offset
        rows = tm.view("readings_by_minute").query(after=offset, wait_s=60, host="here").rows()
    assert {row["sensor"] for row in rows} >= {"cpu", "memory", "disk"}
    assert sum(row["readings"] for row in rows) == offset
    for row in rows:
        assert row["value_min"] <= row["value_last"] <= row["value_max"]
        assert row["value_min"] <= row["value_avg"] * (1 + 1e-9)
    assert run["reconcile"]["views"]["readings_by_minute"]["differences"] == 0
