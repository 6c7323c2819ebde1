"""Tells which column of a view says when its row's window begins, and whether windows stay inside one UTC day."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlglot import exp

from ingest_service.live.functions import call_name

_WHOLE_SECONDS = {"second", "minute", "hour", "day"}
_SUB_SECOND = {"microsecond", "millisecond"}
_DAY = dt.timedelta(days=1)
# Units of date_trunc that an interval can have, and into how many further days their windows reach.
_DAYS = {**dict.fromkeys(_WHOLE_SECONDS | _SUB_SECOND, 0), "week": 6, "month": 30, "quarter": 91, "year": 365}


@dataclass(frozen=True, slots=True)
class Window:
    """A group expression that is a tumbling window over the event time.

    inside_a_day: every window lies within one UTC day. whole_seconds: windows start at whole seconds.
    width: an SQL interval, as long as a window; "" when it is not known. days_max: into how many further days it may
    reach.
    """

    inside_a_day: bool
    whole_seconds: bool
    width: str = ""
    days_max: int = 0


def window_of(expression: exp.Expression, select: exp.Select, event_time: str) -> Window | None:
    """The window that a group expression is, or None when it is none over the event time."""
    column = _time_argument(expression)
    if column is None or not is_source_column(column, select, event_time):
        if isinstance(expression, exp.Column) and is_source_column(expression, select, "event_date"):
            return Window(inside_a_day=True, whole_seconds=True, width="INTERVAL '1 day'")
        return None
    if isinstance(expression, exp.Cast):
        return Window(inside_a_day=True, whole_seconds=True, width="INTERVAL '1 day'")
    if call_name(expression) == "date_trunc":
        unit = expression.args["unit"].name.lower().rstrip("s") if expression.args.get("unit") else ""
        days = _DAYS.get(unit)
        width = f"INTERVAL '{'3 months' if unit == 'quarter' else f'1 {unit}'}'" if days is not None else ""
        return Window(unit in _WHOLE_SECONDS | _SUB_SECOND, unit not in _SUB_SECOND, width, days or 0)
    width_ = _width(expression.this)
    # time_bucket counts from a midnight, so widths that divide a day never cross one; an origin may shift them.
    shifted = any(value for key, value in expression.args.items() if key not in {"this", "expression"})
    if width_ is None or width_ <= dt.timedelta():
        return Window(inside_a_day=False, whole_seconds=False)
    interval = f"INTERVAL '{width_ // dt.timedelta(microseconds=1)} microseconds'"
    inside = not shifted and _DAY % width_ == dt.timedelta()
    days_max = 0 if inside else -(-width_ // _DAY)
    return Window(inside, not shifted and width_.microseconds == 0, interval, days_max)


def _time_argument(expression: exp.Expression) -> exp.Column | None:
    """The column that a window expression cuts into windows."""
    if isinstance(expression, exp.Cast):
        argument = expression.this if expression.to.this == exp.DataType.Type.DATE else None
    elif call_name(expression) == "date_trunc":
        argument = expression.this
    elif call_name(expression) == "time_bucket":
        argument = expression.args.get("expression")
    else:
        return None
    return argument if isinstance(argument, exp.Column) else None


def is_source_column(column: exp.Column, select: exp.Select, name: str) -> bool:
    """Whether a column of a SELECT is the source's column of that name, followed through CTEs and subqueries."""
    inner = _inner(select)
    if column.table and column.table.lower() != select.args["from_"].this.alias_or_name.lower():
        return False  # a seed's
    if inner is None:
        return str(column.name).lower() == name.lower()
    for item in inner.expressions:
        if item.alias_or_name.lower() == column.name.lower():
            source = item.unalias()
            return isinstance(source, exp.Column) and is_source_column(source, inner, name)
    shown = any(_star_shows(item, str(column.name), inner) for item in inner.expressions)
    return shown and is_source_column(exp.column(column.name), inner, name)


def _star_shows(item: exp.Expression, name: str, select: exp.Select) -> bool:
    """Whether an item of a SELECT is a star by which a column of what it reads, not of a seed, is shown unchanged."""
    star = item.this if isinstance(item, exp.Column) else item
    if not isinstance(star, exp.Star):
        return False
    of_seed = isinstance(item, exp.Column) and item.table.lower() != select.args["from_"].this.alias_or_name.lower()
    others = {other.alias.lower() for key in ("replace", "rename") for other in star.args.get(key) or ()}
    return not of_seed and name.lower() not in others


def _inner(select: exp.Select) -> exp.Select | None:
    """The SELECT that a SELECT reads from, or None when it reads the source."""
    source = select.args["from_"].this
    if isinstance(source, exp.Subquery):
        return source.this if isinstance(source.this, exp.Select) else None
    scope: exp.Expression | None = select
    while scope is not None:
        for cte in scope.ctes if isinstance(scope, exp.Select) else ():
            if cte.alias.lower() == source.name.lower() and isinstance(cte.this, exp.Select) and cte.this is not select:
                return cte.this
        scope = scope.parent
    return None


def _width(interval: exp.Expression) -> dt.timedelta | None:
    """A literal interval of fixed length."""
    if isinstance(interval, exp.Cast):  # '1 minute'::interval
        parts = interval.this.name.split()
        number, unit = parts if len(parts) == 2 else ("", "")
    elif isinstance(interval, exp.Interval) and interval.this is not None and interval.unit is not None:
        number, unit = interval.this.name, interval.unit.name
    else:
        return None
    unit = unit.lower().rstrip("s") + "s"
    if not number.isdigit() or unit not in {
        "microseconds",
        "milliseconds",
        "seconds",
        "minutes",
        "hours",
        "days",
        "weeks",
    }:
        return None
    return dt.timedelta(**{unit: int(number)})
