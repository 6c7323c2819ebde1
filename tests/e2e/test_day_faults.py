"""Faults of the day, each put in on purpose, each with the end that is expected: the service, dbt and checks are real.

What needs Airflow (a killed scheduler, alerts, late rows that start a run) is in tests/dags; a dbt that is killed, a
full disk, rows that come late are in tests/integration/test_day_runs.py.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support.warehouse import content_hash

import tidemill
from quality import day
from quality.config import DayConfig
from quality.errors import ModelFailed, QualityError, ReconciliationFailed, ServiceFailed
from quality.publish import last_published
from quality.run import load_run
from quality.whole_day import run_day, ticket_of
from tidemill.local.folder import DataFolder
from tidemill.local.service import SERVICE
from tidemill.local.stack import Stack
from tidemill.simulate import simulate_day

ROOT = Path(__file__).parents[2]
VIEW = "sales_by_minute"
LINES = 600
KILLS = 3

pytestmark = [
    # dbt and GX call names that their libraries have renamed since; both releases are pinned, and not ours to change.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:duckdb-engine doesn't yet support reflection on indices"),
]


class Shop:
    """A running service over a project of its own, and its days."""

    def __init__(self, stack: Stack, project: Path) -> None:
        self.stack, self.project = stack, project
        self.config = DayConfig(stack.folder.root, project, stack.address)
        self._date = dt.date(2026, 2, 28)
        self._runs = 0

    def next_date(self) -> dt.date:
        self._date += dt.timedelta(days=1)
        return self._date

    def send(self, rows: pa.Table) -> int:
        """Send rows and wait until the view covers them; how many were appended."""
        with tidemill.connect(self.stack.address, timeout_s=60) as client:
            stream = client.stream("order_lines", on_rejected=lambda row: None)
            ack = stream.send_table(rows).result(60)
            client.view(VIEW).query(after=ack, limit=1)
            return ack.appended

    def new_day(self) -> dt.date:
        """A date with events."""
        date = self.next_date()
        self.send(simulate_day(date, seed=date.day, lines=LINES).table)
        return date

    def run(self, date: dt.date, run_id: str = "") -> dict[str, Any]:
        """Run a date, from its turn to its documents."""
        self._runs += 1
        ticket = ticket_of(str(date), None, force=True, run_id=run_id or f"fault-{self._runs}")
        return run_day(self.config, ticket, lambda stage, text: None)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the published warehouse, as a reader does."""
        with duckdb.connect(str(self.config.warehouse), read_only=True) as connection:
            connection.execute("set timezone = 'UTC'")
            return connection.execute(sql).fetchall()

    def live_store(self) -> sqlite3.Connection:
        return sqlite3.connect(self.stack.folder.live / "live.sqlite", timeout=30)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("faults")
    project = folder / "project"
    for part in ("proto", "dbt_project", "suites"):
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("target", "logs", "__pycache__"))
    data = DataFolder(folder / "data")
    with Stack(data, project, scheduled=False) as stack:
        stack.start_service()
        yield Shop(stack, project)


@pytest.fixture
def nothing_published(shop: Shop) -> Iterator[None]:
    """Readers see the same publication, and the same rows, after the test as before it."""
    before = last_published(shop.config), content_hash(shop.config.warehouse)
    yield
    assert (last_published(shop.config), content_hash(shop.config.warehouse)) == before


def test_a_batch_that_breaks_its_contract_is_counted_and_told(shop: Shop) -> None:
    date = shop.new_day()
    bad = simulate_day(date, seed=99, lines=300).table
    bad = bad.set_column(
        bad.schema.get_field_index("quantity"), "quantity", pa.array([0] * bad.num_rows, bad.field("quantity").type)
    )
    bad = bad.set_column(
        bad.schema.get_field_index("event_id"), "event_id", pc.binary_join_element_wise("bad-", bad["event_id"], "")
    )
    assert shop.send(bad) == 0
    result = shop.run(date)
    assert result["published_at"]
    run = load_run(shop.config, result["run_id"])
    counts = run.streams["order_lines"].counts
    assert counts["quarantined"] >= 300
    lines = run.result("balance")["balance"]
    assert all(line["left_rows"] == line["right_rows"] for line in lines)
    told = [check for check in run.result("check_sources")["results"] if not check["success"]]
    assert any("quarantine" in check["text"].lower() for check in told), told
    rows = shop.ask("select count(*), min(rule), max(field) from fct_quarantined_rows where field = 'quantity'")
    assert rows[0][0] >= 300
    assert shop.ask(f"select sum(lines) from fct_daily_sales where sales_date = '{date}'")[0][0] < 1.1 * LINES


@pytest.mark.usefixtures("nothing_published")
def test_a_failing_test_of_a_mart_stops_the_day_with_its_rows(shop: Shop) -> None:
    test = shop.project / "dbt_project" / "tests" / "no_such_sale.sql"
    test.write_text("select order_date, invoice_no from {{ ref('fct_orders') }} where revenue > 0\n")
    date = shop.new_day()
    try:
        with pytest.raises(
            ModelFailed, match=r"test no_such_sale failed.*such as .*invoice_no=.*failed.*parquet"
        ) as told:
            shop.run(date, "mart-test")
    finally:
        test.unlink()
    failure = load_run(shop.config, "mart-test").failures[-1]
    assert failure["stage"] == "dbt.marts"
    assert "no_such_sale" in str(told.value)
    with duckdb.connect() as connection:
        kept = connection.execute(
            "select count(*) from read_parquet(?)",
            [str(shop.config.run_folder("mart-test") / "failed" / "no_such_sale.parquet")],
        ).fetchall()
    assert kept[0][0] > 10


def test_a_service_that_is_killed_while_it_seals_loses_no_row(shop: Shop) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    date = shop.new_day()
    told = []
    # Fewer than the supervisor takes in a row before it gives a process up.
    for attempt in range(KILLS):
        pid = next(status.pid for status in shop.stack.supervisor.status() if status.name == SERVICE)
        assert pid is not None
        killer = threading.Timer(chance.uniform(0, 0.03), os.kill, (pid, signal.SIGKILL))
        killer.start()
        try:
            day.seal(shop.config, f"sealing-{attempt}", str(date), force=True)
            day.export(shop.config, f"sealing-{attempt}")
            told.append("sealed")
        except ServiceFailed as error:
            told.append("failed" if error.retryable else f"refused: {error}")
        killer.join()
        wait_for(lambda: serves(shop.stack.address))
    assert "failed" in told, f"no kill hit: {told}"
    assert set(told) <= {"failed", "sealed"}
    assert shop.run(date)["published_at"]
    sent = simulate_day(date, seed=date.day, lines=LINES).truth.good
    assert shop.ask(f"select sum(lines) from fct_daily_sales where sales_date = '{date}'") == [(sent,)]


@pytest.mark.usefixtures("nothing_published")
def test_a_checkpoint_set_back_by_hand_is_found(shop: Shop) -> None:
    date = shop.new_day()
    back = 50
    with contextlib.closing(shop.live_store()) as store, store:
        changed = store.execute("update tidemill_views set next_offset = next_offset - ? where view = ?", (back, VIEW))
        assert changed.rowcount == 1
    shop.send(simulate_day(date, seed=77, lines=20).table)
    with pytest.raises(ReconciliationFailed) as found:
        shop.run(date, "set-back")
    assert f"UNEXPLAINED: {VIEW} {date}" in str(found.value)
    assert "difference" in str(found.value)
    assert found.value.views == [VIEW]
    rebuild(shop)


@pytest.mark.usefixtures("nothing_published")
def test_a_live_row_changed_by_hand_is_found_by_view_window_and_amount(shop: Shop) -> None:
    date = shop.new_day()
    with contextlib.closing(shop.live_store()) as store, store:
        key, window, country, revenue = store.execute(
            f"select _key, window_start, country, revenue from {VIEW} where window_start >= ? order by _key limit 1",
            (str(date),),
        ).fetchone()
        store.execute(f"update {VIEW} set revenue = ? where _key = ?", (str(float(revenue) + 12.5), key))
    with pytest.raises(
        ReconciliationFailed, match=rf"{VIEW} {window[:16].replace('T', ' ')} UTC, country={country}: revenue.*12\.5"
    ):
        shop.run(date, "by-hand")
    rebuild(shop)


def test_a_lake_file_that_is_lost_is_named_and_nothing_is_published(shop: Shop) -> None:
    date = shop.new_day()
    before = last_published(shop.config), content_hash(shop.config.warehouse)
    # Pinned and compacted by a run that goes no further.
    day.seal(shop.config, "lost", str(date), force=True)
    day.export(shop.config, "lost")
    (lost,) = (shop.config.data / "lake" / "order_lines" / f"event_date={date}").glob("*.parquet")
    kept = lost.read_bytes()
    lost.unlink()
    with pytest.raises(QualityError, match=lost.name):
        day.check_sources(shop.config, "lost")
    with pytest.raises(QualityError, match=lost.name):
        day.balance(shop.config, "lost")
    assert (last_published(shop.config), content_hash(shop.config.warehouse)) == before
    lost.write_bytes(kept)
    assert shop.run(date)["published_at"]


def test_a_definition_changed_at_noon_is_waited_for_or_explained(shop: Shop) -> None:
    date = shop.next_date()
    rows = simulate_day(date, seed=date.day, lines=LINES).table
    half = rows.num_rows // 2
    shop.send(rows.slice(0, half))
    model = shop.project / "dbt_project" / "models" / "live" / f"{VIEW}.sql"
    before = model.read_text()
    try:
        model.write_text(before.replace("where quantity > 0", "where quantity > 0 and country <> 'United Kingdom'"))
        apply(shop)
        shop.send(rows.slice(half))
        result = shop.run(date, "noon")
        assert result["published_at"]
        view = load_run(shop.config, "noon").result("reconcile")["views"][VIEW]
        assert view["compared"]
        assert view["differences"] == view.get("explained", 0)
        # Changed and not applied: live goes on by the definition of before, and what that makes of the very rows that
        # batch read is live's copy, to the row. So the difference is explained, and the day is published.
        model.write_text(before)
        assert shop.run(date, "not-applied")["published_at"]
        view = load_run(shop.config, "not-applied").result("reconcile")["views"][VIEW]
        assert view["differences"] == view["explained"] > 0
        assert view["causes"] == {"definition changed": view["differences"]}
    finally:
        model.write_text(before)
        apply(shop)
    assert shop.run(date)["published_at"]


def apply(shop: Shop) -> None:
    """What `tidemill view apply` does: compile the project's live models and put them in force."""
    command = [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())", "view", "apply"]
    options = ["--project", shop.project, "--data", shop.config.data, "--address", shop.config.address]
    done = subprocess.run([*command, *map(str, options)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def rebuild(shop: Shop) -> None:
    """Make the view anew from the log, and wait for it."""
    with tidemill.connect(shop.stack.address, timeout_s=60) as client:
        client.view(VIEW).rebuild()
        wait_for(lambda: client.view(VIEW).status().state == tidemill.ViewState.FOLLOWING)


def serves(address: str) -> bool:
    try:
        with tidemill.connect(address, timeout_s=5) as client:
            return bool(client.views())
    except tidemill.TidemillError:
        return False


def text_of(file: Path) -> str:
    return file.read_text(errors="replace") if file.is_file() else ""


def wait_for(ready: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)
