"""Makes the tables that the checks look at: a suite's rows, with a column for each expectation that says if it holds.

Great Expectations asks several queries for each expectation. Here the rows are read once, from Parquet or from the work
copy, every condition is evaluated in that one pass, and what GX asks for afterwards are counts of booleans in a scratch
database: 1 million rows and 40 expectations in about 2 s instead of 10.
"""

# ruff: noqa: S608 - SQL is put together here: names and dates are ours or quoted, conditions are the project's own.

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from quality.suite import (
    AsUsual,
    Expectation,
    MartSuite,
    NoRowTwice,
    NotChecked,
    OfDates,
    OfRows,
    ShareOfRun,
    SourceSuite,
)
from tidemill.lake import identifier, literal

ROWS = "tidemill_rows"
"""The view of the rows that a suite is about, which its conditions are evaluated over."""


@dataclass(frozen=True)
class Rows:
    """Rows that suites are about. table: the scratch table they are put into; about: stream or model, for people.

    query: the rows of the run's dates. history: the same rows of all dates, for what is usual. date: SQL of a row's
    date, empty where it has none. hidden: columns about persons, which no sample shows.
    """

    table: str
    about: str
    query: str
    history: str
    date: str
    event_time: str = ""
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Check:
    """One expectation, as a column of booleans in a table; or one of Great Expectations' own (`native`).

    shown: columns that a sample has beside the key. failing: a query of the rows that break it, whole. problem: why it
    cannot be evaluated; then there is no such column.
    """

    suite: str
    name: str
    severity: str
    subject: str
    says: str
    column: str
    shown: tuple[str, ...]
    failing: str = ""
    observed: str = ""
    problem: str = ""
    native: Any = None


@dataclass(frozen=True)
class CheckedTable:
    """A scratch table and the checks of one suite on it. name: what the results are kept under.

    relation: the table as the connection that made it knows it, quoted; table: its name in the scratch database. key:
    columns that identify a row in a sample.
    """

    name: str
    table: str
    relation: str
    key: tuple[str, ...]
    checks: tuple[Check, ...]
    not_checked: tuple[NotChecked, ...] = field(default=())


def make_tables(
    connection: Any,
    target: str,
    rows: Rows,
    suites: Sequence[SourceSuite | MartSuite],
    dates: Sequence[dt.date],
    shares: Mapping[str, tuple[int, int]] | None = None,
) -> list[CheckedTable]:
    """Make the scratch tables of suites that are about the same rows; give one for each suite and grain.

    connection: where the rows can be read; target: the scratch database in it, quoted. shares: what was counted since
    the last published run, name → rows of it, rows in all.
    """
    derived = {name: sql for suite in suites for name, sql in suite.columns.items()}
    more = "".join(f", ({sql}) as {identifier(name)}" for name, sql in derived.items())
    connection.execute(f"create or replace temp view {ROWS} as select *{more} from ({rows.query})")
    columns = {row[0]: row[1] for row in connection.execute(f"describe {ROWS}").fetchall()}
    rows = replace(rows, history=f"select *{more} from ({rows.history})")
    made = _row_tables(connection, target, rows, suites, columns)
    for suite in suites:
        by_date = [each for each in suite.expectations if isinstance(each, OfDates | AsUsual | ShareOfRun)]
        if by_date:
            made.append(_date_table(connection, target, rows, suite, by_date, dates, shares or {}))
    return made


def _row_tables(
    connection: Any, target: str, rows: Rows, suites: Sequence[SourceSuite | MartSuite], columns: Mapping[str, str]
) -> list[CheckedTable]:
    """One table for all suites: the rows are read once."""
    taken = {name.lower() for name in columns}
    tables, conditions = [], {}
    relation = f"{target}.{identifier(rows.table)}"
    for suite in suites:
        checks = []
        for each in suite.expectations:
            if isinstance(each, OfRows | NoRowTwice):
                condition = _condition(rows, each)
                column = _unused(each.name, taken)
                problem = _problem(connection, condition)
                checks.append(_check(rows, suite, each, column, condition, columns, problem))
                if not problem:
                    conditions[column] = condition
            elif not isinstance(each, Expectation):
                checks.append(Check(suite.name, "", "", rows.about, "", "", (), native=each))
        if checks:
            missing = tuple(getattr(suite, "not_checked", ()))
            tables.append(CheckedTable(suite.name, rows.table, relation, _key(suite, columns), tuple(checks), missing))
    if tables:
        kept = _kept(tables, columns)
        # Without a condition that fails there would be no table: an error in the data itself is found one by one.
        _create(connection, relation, kept, conditions, tables)
    return tables


def _create(
    connection: Any,
    relation: str,
    kept: Iterable[str],
    conditions: dict[str, str],
    tables: list[CheckedTable],
) -> None:
    import duckdb

    chosen = [*kept, *(f"({condition}) as {identifier(column)}" for column, condition in conditions.items())]
    try:
        connection.execute(f"create table {relation} as select {', '.join(chosen or ['1'])} from {ROWS}")
    except duckdb.IOException:
        raise  # A file of the lake: no condition is at fault.
    except duckdb.Error:
        bad = {
            column: problem
            for column, condition in conditions.items()
            if (problem := _problem(connection, condition, True))
        }
        if not bad:
            raise
        for place, checked in enumerate(tables):
            checks = tuple(
                replace(check, problem=bad[check.column]) if check.column in bad else check for check in checked.checks
            )
            tables[place] = replace(checked, checks=checks)
        left = {column: condition for column, condition in conditions.items() if column not in bad}
        _create(connection, relation, kept, left, tables)


def _problem(connection: Any, condition: str, whole: bool = False) -> str:
    """Say why a condition cannot be evaluated, over no row or over all of them; "" when it can."""
    import duckdb

    scope = f"where not ({condition})" if whole else "limit 0"
    try:
        connection.execute(f"select ({condition}) from {ROWS} {scope}").fetchall()
    except duckdb.IOException:
        raise
    except duckdb.Error as error:
        return str(error).strip().split("\n")[0]
    return ""


def _condition(rows: Rows, each: OfRows | NoRowTwice) -> str:
    if isinstance(each, OfRows):
        return each.condition.replace("{event_time}", identifier(rows.event_time))
    names = ", ".join(identifier(name) for name in each.columns)
    value = f"({names})" if len(each.columns) > 1 else names
    there = " and ".join(f"{identifier(name)} is not null" for name in each.columns)
    twice = f"select {value} from {ROWS} where {there} group by {names} having count(*) > 1"
    # NULL, where one of several values is: such a row is equal to none.
    return f"case when {there} then {value} not in ({twice}) end"


def _check(
    rows: Rows,
    suite: SourceSuite | MartSuite,
    each: OfRows | NoRowTwice,
    column: str,
    condition: str,
    columns: Mapping[str, str],
    problem: str,
) -> Check:
    about = each.columns or _columns_in(condition, columns)
    named = ", ".join(about)
    return Check(
        suite=suite.name,
        name=each.name,
        severity=each.severity,
        subject=f"{rows.about}.{named}" if len(about) == 1 else f"{rows.about} ({named})" if about else rows.about,
        says=each.says,
        column=column,
        shown=tuple(name for name in about if name in columns and name not in rows.hidden),
        failing=f"select * from {ROWS} where not ({condition})",
        problem=problem,
    )


def _columns_in(condition: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Give the columns that a condition names, in its order; none when it cannot be read."""
    import sqlglot

    try:
        tree = sqlglot.parse_one(condition, dialect="duckdb")
    except sqlglot.errors.SqlglotError:
        return ()
    known = {name.lower(): name for name in columns}
    named = [known[each.name.lower()] for each in tree.find_all(sqlglot.exp.Column) if each.name.lower() in known]
    return tuple(dict.fromkeys(named))


def _kept(tables: list[CheckedTable], columns: Mapping[str, str]) -> list[str]:
    """Give the columns that a sample needs, as SQL; all of them where an expectation of GX's own may ask for any."""
    if any(check.native is not None for table in tables for check in table.checks):
        return [identifier(name) for name in columns]
    wanted = {name for table in tables for name in (*table.key, *(n for check in table.checks for n in check.shown))}
    # Decimals as text: GX makes doubles of them.
    return [
        f"cast({identifier(name)} as varchar) as {identifier(name)}" if kind.startswith("DECIMAL") else identifier(name)
        for name, kind in columns.items()
        if name in wanted
    ]


def _key(suite: SourceSuite | MartSuite, columns: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in suite.key if name in columns)


def _unused(name: str, taken: set[str]) -> str:
    column, number = name, 1
    while column.lower() in taken:
        number += 1
        column = f"{name}_{number}"
    taken.add(column.lower())
    return column


def _date_table(
    connection: Any,
    target: str,
    rows: Rows,
    suite: SourceSuite | MartSuite,
    expectations: Sequence[OfDates | AsUsual | ShareOfRun],
    dates: Sequence[dt.date],
    shares: Mapping[str, tuple[int, int]],
) -> CheckedTable:
    """Make a table of one row a date: each value, what is usual, and whether that is as expected."""
    import duckdb

    name, date = f"{suite.name}_by_date", f"cast({rows.date} as date)"
    whole = f"{target}.{identifier(name)}"
    listed = ", ".join(f"(date {literal(str(each))})" for each in dates)
    connection.execute(f'create table {whole} as select * from (values {listed}) t("date")')
    taken, checks = {"date"}, []
    for each in expectations:
        column = _unused(each.name, taken)
        value, usual = _unused(f"{each.name}_value", taken), _unused(f"{each.name}_usual", taken)
        kind = {column: "boolean", value: "double", usual: "double"}
        for added, type_ in kind.items():
            connection.execute(f"alter table {whole} add column {identifier(added)} {type_}")
        shown: tuple[str, ...] = (value,)
        problem = observed = ""
        try:
            if isinstance(each, ShareOfRun):
                observed = _fill_share(connection, whole, each, column, value, dates[-1], shares)
            elif isinstance(each, OfDates):
                values = f"select {date} as d, {each.value} as v from {ROWS} group by 1"
                connection.execute(f"update {whole} set {identifier(value)} = v from ({values}) where d = date")
                if each.empty is not None:
                    connection.execute(
                        f"update {whole} set {identifier(value)} = coalesce({identifier(value)}, {each.empty!r})"
                    )
                connection.execute(
                    f"update {whole} set {identifier(column)} = {_within(value, each.at_least, each.at_most)}"
                )
            else:
                shown = (value, usual)
                _fill_usual(connection, whole, each, rows, date, dates, column, value, usual)
            observed = observed or _observed(connection, whole, value, usual, len(dates))
        except duckdb.IOException:
            raise
        except duckdb.Error as error:
            problem = str(error).strip().split("\n")[0]
        failing = f"select date, {', '.join(identifier(n) for n in shown)} from {whole} where not {identifier(column)}"
        checks.append(
            Check(
                suite.name, each.name, each.severity, rows.about, each.says, column, shown, failing, observed, problem
            )
        )
    return CheckedTable(name, name, whole, ("date",), tuple(checks))


def _fill_share(
    connection: Any,
    whole: str,
    each: ShareOfRun,
    column: str,
    value: str,
    last: dt.date,
    shares: Mapping[str, tuple[int, int]],
) -> str:
    part, total = shares.get(each.count, (0, 0))
    if total:
        connection.execute(
            f"update {whole} set {identifier(value)} = ?, {identifier(column)} = ? where date = ?",
            [part / total, part <= each.at_most * total, last],
        )
    return f"{part:,} of {total:,}"


def _fill_usual(
    connection: Any,
    whole: str,
    each: AsUsual,
    rows: Rows,
    date: str,
    dates: Sequence[dt.date],
    column: str,
    value: str,
    usual: str,
) -> None:
    before = {day: [day - dt.timedelta(weeks=week) for week in range(1, each.weeks + 1)] for day in dates}
    wanted = sorted({*dates, *(earlier for days in before.values() for earlier in days)})
    listed = ", ".join(f"date {literal(str(day))}" for day in wanted)
    found = connection.execute(
        f"select {date} as d, cast({each.value} as double) as v from ({rows.history}) "
        f"where {date} in ({listed}) group by 1"
    ).fetchall()
    values = {day: number for day, number in found if number is not None}
    for day in dates:
        earlier = sorted(values[other] for other in before[day] if other in values)
        now = values.get(day, each.empty)
        typical = _median(earlier) if len(earlier) >= each.weeks_min else None
        good = None if typical is None or now is None else abs(now - typical) <= each.within * abs(typical)
        connection.execute(
            f"update {whole} set {identifier(value)} = ?, {identifier(usual)} = ?, {identifier(column)} = ? "
            "where date = ?",
            [now, typical, good, day],
        )


def _median(values: list[float]) -> float:
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _observed(connection: Any, whole: str, value: str, usual: str, dates: int) -> str:
    """Say what was found, where it is about one date: it is worth knowing on a good day too."""
    if dates != 1:
        return ""
    ((now, typical),) = connection.execute(f"select {identifier(value)}, {identifier(usual)} from {whole}").fetchall()
    if now is None:
        return "nothing"
    return f"{now:,.10g}" if typical is None else f"{now:,.10g}, usually {typical:,.10g}"


def _within(value: str, at_least: float | None, at_most: float | None) -> str:
    name = identifier(value)
    bounds = [f"{name} >= {at_least!r}"] if at_least is not None else []
    bounds += [f"{name} <= {at_most!r}"] if at_most is not None else []
    return " and ".join(bounds)
