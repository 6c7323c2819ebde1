"""How a project's people write down what they expect of its events and marts: Python files in the folder `suites`.

    '''What a shop's lines have to be, beyond what their contract says.'''

    from quality.suite import STOP, WARN, SourceSuite, holds, late_share, no_future_events, no_nulls, usual_rows

    suite = SourceSuite(
        "order_lines",
        no_future_events(STOP),
        no_nulls(WARN, "customer_id"),
        holds(WARN, "unit_price > 0"),
        holds(WARN, "regexp_full_match(stock_code, '[0-9]{5}[A-Za-z]*')", says="stock_code is a product's"),
        usual_rows(WARN, within=0.5),
        late_share(WARN, at_most=0.01),
    )

A `SourceSuite` is about a stream's rows of the run's dates, below the seal; a `MartSuite` about a model that dbt built.
What a contract promises is checked without being written down again (`quality.contract_suite`).

Each expectation has a severity: `STOP` is a promise; broken, nothing is published. `WARN` is a fact worth knowing, and
the day goes on. Conditions are DuckDB SQL, over the columns of the stream or model; NULL keeps every condition but that
of `no_nulls`. Beside those of this module, any expectation of Great Expectations may be given.
"""

# ruff: noqa: S608 - SQL is put together here, of what a project's own people wrote.

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


class Severity(enum.StrEnum):
    """What comes of an expectation that is not met."""

    STOP = "STOP"
    WARN = "WARN"


STOP, WARN = Severity.STOP, Severity.WARN

NAME = re.compile(r"[a-z][a-z0-9_]{0,79}")
"""What suites and expectations are called; files are named by them."""
FUTURE_S = 300.0
"""How far an event's time may lie after its append time by default, in seconds: the service's own default."""


@dataclass(frozen=True)
class Expectation:
    """What every expectation has. name: unique in its suite; says: what is expected, in words."""

    severity: Severity
    name: str
    says: str


@dataclass(frozen=True)
class OfRows(Expectation):
    """Expects a condition of every row. columns: what it is about; found in the condition when empty.

    `{event_time}` in the condition stands for the stream's event time.
    """

    condition: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoRowTwice(Expectation):
    """Expects that no two rows have the same values; a row with a NULL among them is equal to none."""

    columns: tuple[str, ...]


@dataclass(frozen=True)
class OfDates(Expectation):
    """Expects a value, aggregated over each date's rows, to lie between bounds. A date without rows: `empty`."""

    value: str
    at_least: float | None
    at_most: float | None
    empty: float | None = None


@dataclass(frozen=True)
class AsUsual(Expectation):
    """Expects a value to be near its median over the same weekday of earlier weeks, when enough of them had rows.

    empty: the value of a date without rows; None where there is none.
    """

    value: str
    within: float
    weeks: int
    weeks_min: int
    empty: float | None = None


@dataclass(frozen=True)
class ShareOfRun(Expectation):
    """Expects that of what came since the last published run no more than a share ended as `count` says."""

    count: str
    of: str
    at_most: float


def holds(severity: Severity, condition: str, *, says: str = "", name: str = "", columns: Sequence[str] = ()) -> OfRows:
    """Expect a condition of every row, such as `"unit_price > 0"`. A row for which it is NULL keeps it.

    says: the condition in words; name: what its file of failing rows is called; columns: what a sample shows of a row
    that breaks it. By default all three are made from the condition.
    """
    text = " ".join(condition.split())
    return OfRows(_severity(severity, "holds"), _named(name, says or text), says or text, condition, tuple(columns))


def no_nulls(severity: Severity, *columns: str) -> OfRows:
    """Expect a value in each of these columns."""
    condition = " and ".join(f'"{column}" is not null' for column in _columns(columns, "no_nulls"))
    says = f"{_listed(columns)} {'have' if len(columns) > 1 else 'has'} a value"
    return OfRows(_severity(severity, "no_nulls"), _named("", says), says, condition, columns)


def one_of(severity: Severity, column: str, *values: str | float) -> OfRows:
    """Expect one of these values in a column, or NULL."""
    listed = ", ".join(_sql(value) for value in values)
    says = f"{column} is one of {', '.join(map(str, values))}"
    return OfRows(_severity(severity, "one_of"), f"{column}_is_known", says, f'"{column}" in ({listed})', (column,))


def refers_to(severity: Severity, column: str, model: str, to: str) -> OfRows:
    """Expect each value of a column, or NULL, to stand in another model's column `to` (in a `MartSuite`)."""
    # Said of NULL by itself: SQL leaves it open, but for an empty table, which it says NULL is not in.
    known = f'select "{to}" from "{model}" where "{to}" is not null'
    condition = f'case when "{column}" is not null then "{column}" in ({known}) end'
    says = f"{column} is in {model}.{to}"
    return OfRows(_severity(severity, "refers_to"), _named("", says), says, condition, (column,))


def unique(severity: Severity, *columns: str) -> NoRowTwice:
    """Expect no two rows with the same values in these columns, among the rows of the run's dates."""
    says = f"no {_listed(_columns(columns, 'unique'))} twice"
    return NoRowTwice(_severity(severity, "unique"), _named("", says), says, columns)


def no_future_events(severity: Severity, *, within_s: float = FUTURE_S) -> OfRows:
    """Expect no event to have happened more than `within_s` seconds after the log took it (in a `SourceSuite`)."""
    condition = f"{{event_time}} <= _append_time + {float(within_s)!r} * interval 1 second"
    says = f"no event lies more than {within_s:g} s after its append time"
    return OfRows(_severity(severity, "no_future_events"), "no_future_events", says, condition, ("_append_time",))


def row_count(severity: Severity, *, at_least: int | None = None, at_most: int | None = None) -> OfDates:
    """Expect so many rows on each date."""
    says = f"{_span(at_least, at_most, 'row_count')} rows a date"
    return OfDates(_severity(severity, "row_count"), "rows", says, "count(*)", at_least, at_most, empty=0)


def by_date(
    severity: Severity,
    value: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    says: str = "",
    name: str = "",
) -> OfDates:
    """Expect an aggregate over each date's rows to lie between bounds, such as `"sum(revenue)"`."""
    says = says or f"{value} of a date is {_span(at_least, at_most, 'by_date')}"
    return OfDates(_severity(severity, "by_date"), _named(name, value), says, value, at_least, at_most)


def usual_rows(severity: Severity, *, within: float, weeks: int = 4, weeks_min: int = 2) -> AsUsual:
    """Expect about as many rows as on the same weekday of the `weeks` weeks before.

    within: how far the number may lie from their median, as a share of it: 0.5 is from half to one and a half times.
    weeks_min: of fewer weeks with rows nothing is expected.
    """
    rows = usual(severity, "count(*)", within=within, weeks=weeks, weeks_min=weeks_min, name="usual_rows", says="rows")
    return replace(rows, empty=0)


def usual(
    severity: Severity, value: str, *, within: float, weeks: int = 4, weeks_min: int = 2, says: str = "", name: str = ""
) -> AsUsual:
    """Expect an aggregate over a date's rows to be near that of the same weekday before; as `usual_rows`."""
    if not within > 0 or not 1 <= weeks_min <= weeks <= 52:
        came = f"within {within}, weeks_min {weeks_min}, weeks {weeks}"
        raise ValueError(f"usual: expected within above 0, and weeks_min from 1 to weeks, at most 52; came {came}")
    text = f"{says or value} within {within:.0%} of the usual on the same weekday, over {weeks} weeks"
    return AsUsual(_severity(severity, "usual"), _named(name, f"usual {value}"), text, value, within, weeks, weeks_min)


def quarantined_share(severity: Severity, *, at_most: float) -> ShareOfRun:
    """Expect at most this share (0 to 1) of the rows received since the last published run in quarantine."""
    says = f"at most {_percent(at_most, 'quarantined_share')} of the rows received since the last run are in quarantine"
    return ShareOfRun(
        _severity(severity, "quarantined_share"), "quarantined_share", says, "quarantined", "received", at_most
    )


def late_share(severity: Severity, *, at_most: float) -> ShareOfRun:
    """Expect at most this share (0 to 1) of the rows appended since the last published run to have come late."""
    says = f"at most {_percent(at_most, 'late_share')} of the rows appended since the last run came late"
    return ShareOfRun(_severity(severity, "late_share"), "late_share", says, "late", "appended", at_most)


class _Suite:
    """Expectations on one thing. subject: the stream or model; name: what results are kept under."""

    prefix = ""

    def __init__(
        self, subject: str, expectations: Sequence[Any], key: Sequence[str], columns: Mapping[str, str], name: str
    ) -> None:
        if not isinstance(subject, str) or not subject:
            raise TypeError(f"{type(self).__name__}: expected a name first, came {subject!r}")
        self.subject = subject
        self.expectations = tuple(expectations)
        self.key = tuple(key)
        self.columns = dict(columns)
        self.name = f"{self.prefix}_{name or subject}"
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"{type(self).__name__} {subject!r}: expected a name of lower case letters, digits and underscores, "
                f"came {name or subject!r}; say name=…"
            )
        for each in self.expectations:
            # Great Expectations' own are not imported here: that takes seconds.
            if not isinstance(each, Expectation) and not hasattr(each, "expectation_type"):
                raise TypeError(f"{type(self).__name__} {subject!r}: expected expectations, came {each!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.subject!r}, {len(self.expectations)} expectations)"


class SourceSuite(_Suite):
    """Expectations on a stream's rows of the run's dates, below the seal.

    columns: more columns, by SQL over those of the stream, for expectations to name. key: what identifies a row in a
    sample. name: to have several suites of one stream.
    """

    prefix = "source"

    def __init__(
        self,
        stream: str,
        *expectations: Any,
        columns: Mapping[str, str] | None = None,
        key: Sequence[str] = ("_offset",),
        name: str = "",
    ) -> None:
        super().__init__(stream, expectations, key, columns or {}, name)

    @property
    def stream(self) -> str:
        """The stream."""
        return self.subject


class MartSuite(_Suite):
    """Expectations on a model that the run built.

    date: the column (or SQL) that says which date a row is of: then only rows of the run's dates are looked at, and
    `row_count`, `by_date` and `usual` are by it. query: rows of this query instead of the model's, over any models.
    """

    prefix = "marts"

    def __init__(
        self,
        model: str,
        *expectations: Any,
        date: str = "",
        query: str = "",
        columns: Mapping[str, str] | None = None,
        key: Sequence[str] = (),
        name: str = "",
    ) -> None:
        super().__init__(model, expectations, key, columns or {}, name)
        self.date = date
        self.query = query
        for each in self.expectations:
            if isinstance(each, ShareOfRun):
                raise TypeError(f"MartSuite {model!r}: {each.name} is about a stream; put it into a SourceSuite")
            if isinstance(each, OfDates | AsUsual) and not date:
                raise TypeError(f"MartSuite {model!r}: {each.name} is by date; say date=… with the column of the date")


@dataclass(frozen=True)
class NotChecked:
    """A rule of a contract that has no form in SQL: it was checked when the rows arrived, and is not at rest."""

    subject: str
    rule: str


@dataclass
class Suites:
    """A project's suites, in the order of their files' names and of their places in them."""

    sources: list[SourceSuite] = field(default_factory=list)
    marts: list[MartSuite] = field(default_factory=list)


def _severity(severity: Severity, function: str) -> Severity:
    if not isinstance(severity, Severity):
        raise TypeError(f"{function}: expected STOP or WARN first, came {severity!r}")
    return severity


def _columns(columns: Sequence[str], function: str) -> Sequence[str]:
    if not columns:
        raise TypeError(f"{function}: expected one column or more, came none")
    return columns


def _named(name: str, text: str) -> str:
    """Give the name, or one made from a text."""
    if name:
        if not NAME.fullmatch(name):
            raise ValueError(f"expected a name of lower case letters, digits and underscores, came {name!r}")
        return name
    for sign, word in ((">=", " at least "), ("<=", " at most "), ("<>", " not "), (">", " above "), ("<", " below ")):
        text = text.replace(sign, word)
    made = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:64].strip("_")
    return made if made[:1].isalpha() else f"is_{made}".rstrip("_")


def _listed(columns: Sequence[str]) -> str:
    return columns[0] if len(columns) == 1 else f"({', '.join(columns)})"


def _span(at_least: float | None, at_most: float | None, function: str) -> str:
    bounds = [f"at least {at_least:,}"] if at_least is not None else []
    bounds += [f"at most {at_most:,}"] if at_most is not None else []
    if not bounds:
        raise TypeError(f"{function}: expected at_least=… or at_most=…, came neither")
    return " and ".join(bounds)


def _percent(share: float, function: str) -> str:
    if not 0 <= share <= 1:
        raise ValueError(f"{function}: expected at_most as a share from 0 to 1, came {share!r}")
    return f"{100 * share:g} %"


def _sql(value: str | float) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)
