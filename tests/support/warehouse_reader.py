"""A process that reads a published warehouse again and again: `python -m support.warehouse_reader FILE HOW THREADS`.

HOW: "connect" opens the file as any DuckDB client does; "attach" attaches it to a DuckDB in memory. Each read opens the
file, asks it for the totals of two marts and for the number of its publications, and closes it.

It prints `seen N` when a read is the first to find N publications, until its standard input ends; then each thread
reads once more, and a last line is JSON: reads, errors, disagreements, last (what the last reads found).
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

TOTALS = """select
    (select sum(revenue) from fct_orders), (select count(*) from fct_orders),
    (select sum(revenue) from fct_daily_sales), (select sum(orders) from fct_daily_sales)"""
PUBLICATIONS = "select count(*) from tidemill_published"


@contextmanager
def opened(file: str, how: str) -> Iterator[Any]:
    """The file as it is now."""
    if how == "connect":
        with duckdb.connect(file, read_only=True) as connection:
            yield connection
        return
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"attach '{file}' as warehouse (read_only)")
        connection.execute("use warehouse")
        yield connection


class Readers:
    """Threads that read until they are stopped."""

    def __init__(self, file: str, how: str) -> None:
        self._file, self._how = file, how
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._seen = -1
        self.reads, self.errors, self.disagreements, self.last = 0, [], [], []  # type: ignore[var-annotated]

    def run(self, threads: int) -> None:
        running = [threading.Thread(target=self._loop) for _ in range(threads)]
        for thread in running:
            thread.start()
        sys.stdin.read()
        self._stopping.set()
        for thread in running:
            thread.join()

    def _loop(self) -> None:
        before = 0
        while not self._stopping.is_set():
            before = self._read(before)
        self.last.append(self._read(before))

    def _read(self, before: int) -> int:
        try:
            with opened(self._file, self._how) as connection:
                # Two questions, each a transaction of its own: it is the file that does not change.
                ((revenue, orders, of_days, orders_of_days),) = connection.execute(TOTALS).fetchall()
                ((publications,),) = connection.execute(PUBLICATIONS).fetchall()
                ((again,),) = connection.execute("select sum(revenue) from fct_daily_sales").fetchall()
        except duckdb.Error as error:
            self.errors.append(str(error))
            return before
        with self._lock:
            self.reads += 1
            if (revenue, orders, revenue) != (of_days, orders_of_days, again) or publications < before:
                self.disagreements.append(str((revenue, orders, of_days, orders_of_days, again, before, publications)))
            if publications > self._seen:
                self._seen = publications
                print("seen", publications, flush=True)
        return int(publications)


def main(file: str, how: str, threads: str) -> None:
    """Read until the standard input ends."""
    readers = Readers(file, how)
    readers.run(int(threads))
    found = {"reads": readers.reads, "errors": readers.errors[:3], "disagreements": readers.disagreements[:3]}
    print(json.dumps({**found, "last": readers.last}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
