"""SIGKILL of the service while its live views follow, are rebuilt and are swapped in, under load.

After each kill the store is looked at as it was left, and every view's answer once the service is back: both are of a
prefix of the log, and in the end of all of it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from integration.conftest import IngestProcess
from support.live_faults import SOURCE, Models, assert_prefix, assert_same, batch_rows, manifest

import tidemill
from ingest_service.live.duck import open_duck
from ingest_service.live.store import Store
from ingest_service.log import Seal

ROUNDS = 6
SOAK_ROUNDS = 150
TABLES, TABLE_ROWS = 12, 500
"""What is sent in each round."""
DAY = dt.date(2011, 12, 5)
START = dt.datetime(2011, 12, 5, 22, 0, tzinfo=dt.UTC)

BY_MINUTE = f"""
select time_bucket(interval '1 minute', invoiced_at) as window_start, country, count(*) as lines,
    sum(quantity * unit_price) as revenue, count(distinct customer_id) as customers
from {SOURCE} where quantity > 0 group by all
"""
BY_CUSTOMER = f"""
select customer_id, count(*) as lines, arg_max(country, (invoiced_at, _offset)) as last_country,
    approx_count_distinct(stock_code) as articles, avg(unit_price) as price
from {SOURCE} group by all
"""
RETURNS = f"select _offset, invoiced_at, customer_id, quantity from {SOURCE} where quantity < 0"
TOTALS = f"select count(*) as lines, sum(quantity) as units from {SOURCE}"

FIRST: Models = {"by_minute": BY_MINUTE, "by_customer": BY_CUSTOMER, "returns": RETURNS, "totals": TOTALS}
SECOND: Models = {
    "by_minute": BY_MINUTE.replace("where quantity > 0", "").replace("as revenue", "as turnover"),
    "by_customer": BY_CUSTOMER,
    "returns": RETURNS.replace("quantity < 0", "quantity < -1").replace("quantity from", "quantity, country from"),
    "by_article": f"select stock_code, max(unit_price) as dearest, count(*) as lines from {SOURCE} group by all",
}
"""Two definitions changed, one view gone, one view more."""


class Scene:
    """A service with live views, who sends to it, and all that is known of its log."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        (folder / "manifest.json").write_bytes(manifest(FIRST))
        self.ingest = IngestProcess(folder, folder / "manifest.json")
        self.duck = open_duck()
        self.found: Counter[str] = Counter()
        self.seals: list[Seal] = []
        self._closing = contextlib.ExitStack()
        self._closing.callback(self.duck.close)
        self._threads = self._closing.enter_context(ThreadPoolExecutor(1))
        self._closing.callback(self.ingest.kill)
        self.ingest.start()
        options = tidemill.ProducerOptions(retry_for_s=120)
        self.tm = self._closing.enter_context(tidemill.connect(self.ingest.address, options=options))
        self.stream = self.tm.stream("order_lines")
        self._ids = itertools.count()
        self._batches: list[pa.RecordBatch] = []
        self._read = self._copies = 0

    def close(self) -> None:
        self._closing.close()

    # What happens.

    def send(self, tables: int = TABLES) -> Any:
        """Begin to send; the future is done when all of it is acknowledged, with the offset behind it."""
        made = [self._table() for _ in range(tables)]

        def run() -> int:
            acks = [self.stream.send_table(table) for table in made]
            return max(ack.result(120).after_offset for ack in acks)

        return self._threads.submit(run)

    def _table(self) -> pa.Table:
        pick, rows = self.chance.choices, TABLE_ROWS
        times = [START + dt.timedelta(seconds=self.chance.randrange(4 * 3600)) for _ in range(rows)]
        return pa.table(
            {
                "event_id": [f"line-{next(self._ids)}" for _ in range(rows)],
                "invoice_no": ["536365"] * rows,
                "stock_code": [f"A{number}" for number in pick(range(300), k=rows)],
                "quantity": pick([-3, -1, 1, 2, 5, 1_000_000], k=rows),
                "unit_price": pick(["1.250", "0.001", "-2.000", "999999999.999"], k=rows),
                "invoiced_at": times,
                "customer_id": pick([None, *range(1, 500)], k=rows),
                "country": pick(["France", "Spain", "Île\n", "日本"], k=rows),
            }
        )

    def offsets(self) -> dict[str, int]:
        """How far each table is, rebuilds included: read out of the database while it is written."""
        connection = sqlite3.connect(self.ingest.data / "live" / "live.sqlite")
        try:
            return dict(connection.execute("select view, next_offset from tidemill_views").fetchall())
        finally:
            connection.close()

    def seal(self) -> None:
        seal = self.tm.seal("order_lines", DAY, DAY + dt.timedelta(days=1), force=True)
        self.seals.append(Seal(seal.date, seal.last_date, seal.seal_offset, 0))

    def kill(self) -> None:
        """SIGKILL; the store as it was left; and a start."""
        self.ingest.kill()
        self._copies += 1
        copy = self.folder / f"copy{self._copies}"
        copy.mkdir()
        for name in ("live.sqlite", "live.sqlite-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(self.ingest.data / "live" / name, copy)
        self.ingest.program = IngestProcess.program
        self.ingest.start()
        self.tm.wait_ready(60)
        self.check_copy(copy)
        shutil.rmtree(copy)

    # What must be.

    def rows(self) -> pa.Table:
        """The log's rows by now."""
        self._batches += self.stream.read_arrow(from_offset=self._read)
        table = pa.Table.from_batches(self._batches)
        self._read = table.num_rows
        assert table["_offset"].combine_chunks().equals(pa.array(range(self._read), pa.int64()))
        return table

    def check_copy(self, copy: Path) -> None:
        rows = self.rows()
        store = Store(f"sqlite:///{copy}/live.sqlite")
        try:
            offsets = assert_prefix(store, rows, self.seals, [FIRST, SECOND], self.duck)
        finally:
            store.close()
        rebuilding = any("__rebuild" in name for name in offsets)
        self.found["while rebuilding" if rebuilding else "while following"] += 1

    def check_answers(self) -> None:
        """Every view's answer is DuckDB's over the rows below its offset."""
        for view in self.tm.views():
            assert view.state is not tidemill.ViewState.REFUSED, view
            answer = self.tm.view(view.view).query()
            rows = self.rows().slice(0, answer.offset)
            live = answer.to_arrow()
            answers = [batch_rows(self.duck, each[view.view], rows) for each in (FIRST, SECOND) if view.view in each]
            batch = next(each for each in answers if each.schema.names == live.schema.names)
            columns = self.tm.view(view.view).status().columns
            if [column.name for column in columns] == live.schema.names:  # it was not swapped in between
                assert_same(live, batch, columns, f"{view.view} at {answer.offset}")

    def check_whole(self, models: Models) -> None:
        """All views cover all of the log by these models, and are right."""
        end = self.stream.status().durable_offset
        for name in models:
            self.tm.view(name).query(after=end, wait_s=60, limit=1)
        deadline_s = time.monotonic() + 60
        while any(view.rebuild_offset is not None or view.error for view in self.tm.views()):
            assert time.monotonic() < deadline_s, self.tm.views()
            time.sleep(0.01)
        views = self.tm.views()
        assert [(view.view, view.offset, view.error) for view in views] == [(name, end, "") for name in sorted(models)]
        for view in views:
            assert [view.sql] == [models[view.view]]
        self.check_answers()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    scene = Scene(tmp_path, seed)
    yield scene
    scene.close()


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(SOAK_ROUNDS, marks=pytest.mark.soak)])
def test_views_are_of_a_prefix_whenever_the_service_is_killed(scene: Scene, rounds: int) -> None:
    chance, models = scene.chance, FIRST
    for number in range(rounds):
        begun = scene.offsets()["by_customer"]
        sent = scene.send()
        what = ["follow", "rebuild", "apply", "seal"][number % 4]
        # At a moment that is not the same each time: by what a view covers, and by how often was looked after that.
        threshold = begun + chance.random() * TABLES * TABLE_ROWS
        while scene.offsets().get("by_customer", 0) < threshold:
            pass
        if what == "rebuild":
            for name in ("returns", "by_customer"):
                scene.tm.view(name).rebuild()
        elif what == "apply":
            models = SECOND if models is FIRST else FIRST
            scene.tm.apply_views(manifest(models))
        elif what == "seal":
            scene.seal()
        for _ in range(chance.randrange(200)):
            scene.offsets()
        scene.kill()
        scene.check_answers()
        sent.result(120)
    scene.check_whole(models)
    print(dict(scene.found))
    assert scene.found["while rebuilding"] > 0


# At one statement.

KILL = """
import os, runpy, signal, sys
import sqlalchemy

event, begins, left = sys.argv[1], sys.argv[2], int(sys.argv[3])

def strike(connection, cursor=None, statement="", *_):
    global left
    if statement.strip().startswith(begins):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sqlalchemy.event.listen(sqlalchemy.Engine, event, strike)
sys.argv = ["ingest_service", *sys.argv[4:]]
runpy.run_module("ingest_service", run_name="__main__", alter_sys=True)
"""
STATEMENTS = [
    ("before_cursor_execute", "ALTER TABLE", 0),  # the swap
    ("after_cursor_execute", "ALTER TABLE", 2),
    ("before_cursor_execute", "CREATE TABLE", 3),
    ("after_cursor_execute", "UPDATE tidemill_views", 3),
]
SOAK_STATEMENTS = [
    *(("before_cursor_execute", "ALTER TABLE", number) for number in range(1, 8)),
    *(("after_cursor_execute", "ALTER TABLE", number) for number in (0, 1, *range(3, 8))),
    *(("after_cursor_execute", "UPDATE tidemill_views", number) for number in range(4, 20)),
    *(
        ("after_cursor_execute", begins, number)
        for begins in ("CREATE", "DELETE", "DROP", "INSERT")
        for number in range(12)
    ),
    *(("commit", "", number) for number in range(0, 60, 2)),
]
"""Following, a swap, and what `apply` adds and removes: transactions that are cut off at each of their statements."""


def soak(parameters: list[tuple[str, str, int]]) -> list[Any]:
    return [pytest.param(*each, marks=pytest.mark.soak) for each in parameters]


@pytest.mark.parametrize(("event", "begins", "number"), [*STATEMENTS, *soak(SOAK_STATEMENTS)])
def test_views_are_of_a_prefix_when_the_service_is_killed_at_a_statement(
    scene: Scene, event: str, begins: str, number: int
) -> None:
    scene.tm.view("totals").query(after=scene.send(4).result(60), wait_s=60)
    scene.seal()
    scene.ingest.stop()
    scene.ingest.program = ("-c", KILL, event, begins, str(number))
    with contextlib.suppress(pytest.fail.Exception, tidemill.TidemillError):  # it may not get so far as to listen
        scene.ingest.start()
        scene.tm.wait_ready(30)
        sent = scene.send(2)
        while not (sent.done() or scene.ingest.has_ended()):
            time.sleep(0.001)
        scene.tm.apply_views(manifest(SECOND))
        scene.seal()
        scene.tm.view("by_customer").rebuild()
    assert scene.ingest.has_ended(60), "it never came to that statement"
    scene.kill()
    scene.check_answers()
    scene.check_whole(SECOND if "by_article" in {view.view for view in scene.tm.views()} else FIRST)
