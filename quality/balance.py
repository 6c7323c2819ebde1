"""The balance: counts that were taken independently of each other, and must be equal.

producers' own count = received          by producers that count
received             = appended + duplicate + quarantined
appended             = lake rows         below the log's count, in all and for each date
seal offset          = lake rows below it, each offset once (offsets are dense, from 0)
lake rows            = staging rows + rows that staging filters by rule
"""

# ruff: noqa: S608 - SQL is put together here: names are quoted, numbers are numbers.

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from quality.config import DayConfig
from quality.errors import BalanceFailed
from quality.lake import pinned_lake
from quality.run import Pin, Run
from tidemill.lake import identifier


@dataclass(frozen=True)
class Line:
    """One line of the balance: two numbers that must be equal, and what each of them counts."""

    stream: str
    left: str
    left_rows: int
    right: str
    right_rows: int

    @property
    def balanced(self) -> bool:
        """Both numbers are equal."""
        return self.left_rows == self.right_rows

    def __str__(self) -> str:
        sign = "=" if self.balanced else "≠"
        text = f"{self.stream}: {self.left} {self.left_rows:,} {sign} {self.right} {self.right_rows:,}"
        return text if self.balanced else f"{text} (difference {self.left_rows - self.right_rows:+,})"


def balance_lake(config: DayConfig, run: Run) -> list[dict[str, Any]]:
    """Compare the producers' count, the log's counters and the lake's rows; give every line.

    Raises BalanceFailed naming each line that does not balance.
    """
    lines: list[Line] = []
    with pinned_lake(config, run) as connection:
        for stream, pin in run.fresh.items():
            lines += _log_lines(stream, pin)
            lines += _lake_lines(connection, run, stream, pin)
    return _checked(lines)


def balance_staging(config: DayConfig, run: Run) -> list[dict[str, Any]]:
    """Compare the lake's rows below the seal offset with what staging kept and filtered; give every line.

    Staging models say what they filtered in `staging_filtered`. Raises BalanceFailed naming the line.
    """
    import duckdb

    lines: list[Line] = []
    with duckdb.connect(str(config.work_copy(run.run_id)), read_only=True) as connection:
        try:
            rows = connection.execute("select stream, model, lake_rows, filtered_rows from staging_filtered").fetchall()
        except duckdb.CatalogException:
            return []  # a project whose staging says nothing of what it filters
        for stream, model, lake_rows, filtered in rows:
            kept = _number(connection, f"select count(*) from {identifier(model)}")
            lines += [
                Line(stream, "seal offset", run.streams[stream].seal_offset, "lake rows that dbt read", lake_rows),
                Line(stream, "lake rows", lake_rows, f"{model} {kept:,} + filtered {filtered:,} =", kept + filtered),
            ]
    return _checked(lines)


def _log_lines(stream: str, pin: Pin) -> list[Line]:
    counts = pin.counts
    taken = counts["appended"] + counts["duplicate"] + counts["quarantined"]
    parts = (
        f"appended {counts['appended']:,} + duplicate {counts['duplicate']:,} + quarantined {counts['quarantined']:,} ="
    )
    return [
        Line(stream, "sent by the producers' own count", counts["sent"], "received", counts["received_counted"]),
        Line(stream, "received", counts["received"], parts, taken),
    ]


def _lake_lines(connection: Any, run: Run, stream: str, pin: Pin) -> list[Line]:
    view = identifier(stream)
    appended, below = pin.counts["appended"], pin.seal_offset
    in_lake = _number(connection, f"select count(*) from {view} where _offset < {int(appended)}")
    sealed = _number(connection, f"select count(*) from {view} where _offset < {int(below)}")
    distinct = _number(connection, f"select count(distinct _offset) from {view} where _offset < {int(below)}")
    lines = [
        Line(stream, "appended", appended, "lake rows", in_lake),
        Line(stream, "seal offset", below, "lake rows below it", sealed),
        Line(stream, "seal offset", below, "different offsets below it", distinct),
    ]
    by_date = dict(
        connection.execute(
            f"select cast(event_date as varchar), count(*) from {view} where _offset < {int(appended)} group by all"
        ).fetchall()
    )
    logged: dict[str, int] = pin.counts["appended_by_date"]
    in_run = [date for date in sorted(logged.keys() | by_date.keys()) if run.date <= date <= run.last_date]
    dates = run.date if run.date == run.last_date else f"{run.date} to {run.last_date}"
    lines.append(
        Line(
            stream,
            f"appended on {dates}",
            sum(logged.get(date, 0) for date in in_run),
            "lake rows",
            sum(by_date.get(date, 0) for date in in_run),
        )
    )
    # Every other date must agree too; only those that do not are worth a line.
    each = [
        Line(stream, f"appended on {date}", logged.get(date, 0), "lake rows", by_date.get(date, 0))
        for date in sorted(logged.keys() | by_date.keys())
    ]
    return lines + [line for line in each if not line.balanced]


def _number(connection: Any, sql: str) -> int:
    return int(connection.execute(sql).fetchall()[0][0])


def _checked(lines: list[Line]) -> list[dict[str, Any]]:
    wrong = [str(line) for line in lines if not line.balanced]
    if wrong:
        raise BalanceFailed("the balance does not add up: " + "; ".join(wrong), wrong)
    return [{**asdict(line), "text": str(line)} for line in lines]
