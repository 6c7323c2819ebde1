"""Readers of the published warehouse, who read it all the time, while one day after another is published."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb
import pytest

from quality.config import DayConfig
from quality.publish import last_published, publish, take_copy
from quality.run import Run

TESTS = Path(__file__).parents[1]
FIRST = dt.date(2011, 12, 1)
PUBLICATIONS = 20
ORDERS = 500
# 50 in all: threads that share a process, and a few processes with one each.
READERS = [("attach", 22), ("connect", 22), *[("attach", 1)] * 3, *[("connect", 1)] * 3]


@pytest.fixture
def config(tmp_path: Path) -> DayConfig:
    project = tmp_path / "dbt_project"
    project.mkdir()
    (project / "dbt_project.yml").write_text("name: shop\n")
    return DayConfig(tmp_path / "data", project, "localhost:1")


class Reader:
    """A process with readers in it."""

    def __init__(self, file: Path, how: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.warehouse_reader", str(file), how, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(TESTS)},
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def wait_for(self, publications: int) -> None:
        """Until one of its readers has found so many publications."""
        for line in self._stdout:
            if int(line.split()[1]) >= publications:
                return
        pytest.fail(f"a reader ended before it saw publication {publications}")

    def stop(self) -> dict:
        """Let its readers read once more; what all of them found."""
        self._stdin.close()
        *_, last = self._stdout
        return json.loads(last)

    @contextmanager
    def running(self) -> Iterator[Reader]:
        try:
            yield self
        finally:
            self._stdin.close()
            self._process.kill()
            self._process.wait()
            self._stdout.close()


def publish_day(config: DayConfig, number: int) -> None:
    """A day's build and publication: its orders, and what is summed up from all of them."""
    date = FIRST + dt.timedelta(number)
    run = Run(f"run-{number}", str(date), str(date))
    take_copy(config, run.run_id)
    with duckdb.connect(str(config.work_copy(run.run_id))) as connection:
        connection.execute(
            "create table if not exists fct_orders (order_date date, number bigint, revenue decimal(18,3))"
        )
        connection.execute(
            "insert into fct_orders select ?, range, (hash(range, ?) % 100000) / 1000 from range(?)",
            [date, number, ORDERS],
        )
        connection.execute(
            "create or replace table fct_daily_sales as select order_date, count(*) as orders, sum(revenue) as revenue "
            "from fct_orders group by all"
        )
    publish(config, run)


def test_fifty_readers_see_whole_publications_without_an_error(config: DayConfig) -> None:
    publish_day(config, 0)
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(config.warehouse, how, threads).running()) for how, threads in READERS]
        assert sum(threads for _, threads in READERS) == 50
        for reader in readers:
            reader.wait_for(1)
        for number in range(1, PUBLICATIONS + 1):
            publish_day(config, number)
            # Each process is in the middle of reading when the next one comes.
            for reader in readers:
                reader.wait_for(number + 1)
        found = [reader.stop() for reader in readers]
    assert [each["errors"] for each in found] == [[]] * len(found)
    assert [each["disagreements"] for each in found] == [[]] * len(found)
    assert {seen for each in found for seen in each["last"]} == {PUBLICATIONS + 1}
    assert all(each["reads"] >= PUBLICATIONS for each in found)
    print(f"{sum(each['reads'] for each in found):,} reads")


def test_a_connection_that_stays_open_keeps_its_publication(config: DayConfig) -> None:
    def orders(connection: duckdb.DuckDBPyConnection) -> int:
        return connection.execute("select count(*) from fct_orders").fetchall()[0][0]

    publish_day(config, 0)
    file = str(config.warehouse)
    with duckdb.connect(file, read_only=True) as held, duckdb.connect(":memory:") as attached:
        attached.execute(f"attach '{file}' as warehouse (read_only)")
        attached.execute("use warehouse")
        publish_day(config, 1)
        assert (orders(held), orders(attached)) == (ORDERS, ORDERS)
        # What docs/query-the-warehouse.md says: each version is another file, whatever the process still holds.
        with duckdb.connect(file, read_only=True) as again:
            assert orders(again) == 2 * ORDERS
        attached.execute("use memory")
        attached.execute("detach warehouse")
        attached.execute(f"attach '{file}' as warehouse (read_only)")
        attached.execute("use warehouse")
        assert (orders(held), orders(attached)) == (ORDERS, 2 * ORDERS)
        said = attached.execute("select run_id from tidemill_published order by published_at").fetchall()
    assert said == [("run-0",), ("run-1",)]
    published = last_published(config)
    assert published is not None
    assert published["run_id"] == "run-1"
