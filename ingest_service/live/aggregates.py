"""What each aggregate keeps between micro-batches, how two such states become one, and what is seen of them.

Adding an aggregate means adding an entry to `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

DOUBLE_TOLERANCE = 1e-9
"""Sums of doubles depend on the order of rows; live and batch may differ by this much, relative to batch."""


@dataclass(frozen=True)
class State:
    """One number or value that is kept for each group.

    partial: the aggregate that makes it from the rows of a batch.
    merge: the DuckDB aggregate that makes one of several.
    is_count_of_set: the partial is a list of distinct values; the store keeps the set, and the state is its size.
    """

    partial: exp.Expression
    merge: str
    is_count_of_set: bool = False


@dataclass(frozen=True)
class Kind:
    """An aggregate function: its states, and what is seen, as an expression over columns that hold them."""

    states: Callable[[exp.Expression, exp.Expression | None], tuple[State, ...]]
    final: Callable[[list[exp.Column]], exp.Expression]
    exact: Callable[[str], bool]


def _call(name: str, argument: exp.Expression, where: exp.Expression | None) -> exp.Expression:
    call = exp.Anonymous(this=name, expressions=[argument.copy()])
    return call if where is None else exp.Filter(this=call, expression=exp.Where(this=where.copy()))


def _simple(name: str, merge: str) -> Callable[[exp.Expression, exp.Expression | None], tuple[State, ...]]:
    return lambda argument, where: (State(_call(name, argument, where), merge),)


def _distinct(argument: exp.Expression, where: exp.Expression | None) -> tuple[State, ...]:
    present = exp.Not(this=exp.Is(this=exp.paren(argument.copy()), expression=exp.Null()))
    condition = present if where is None else exp.and_(where.copy(), present)
    values = exp.Distinct(expressions=[argument.copy()])
    return (State(_call("list", values, condition), "sum", is_count_of_set=True),)


def _average(argument: exp.Expression, where: exp.Expression | None) -> tuple[State, ...]:
    return State(_call("sum", argument, where), "sum"), State(_call("count", argument, where), "sum")


def _quotient(states: list[exp.Column]) -> exp.Expression:
    return exp.Div(this=exp.cast(states[0], "double", dialect="duckdb"), expression=states[1])


def _same(states: list[exp.Column]) -> exp.Expression:
    return states[0]


def _always(_: str) -> bool:
    return True


_KINDS: dict[str, Kind] = {
    "count": Kind(_simple("count", "sum"), _same, _always),
    "count_star": Kind(_simple("count", "sum"), _same, _always),
    "sum": Kind(_simple("sum", "sum"), _same, lambda duckdb_type: duckdb_type != "DOUBLE"),
    "min": Kind(_simple("min", "min"), _same, _always),
    "max": Kind(_simple("max", "max"), _same, _always),
    "avg": Kind(_average, _quotient, lambda _: False),
    "mean": Kind(_average, _quotient, lambda _: False),
}
_COUNT_DISTINCT = Kind(_distinct, _same, _always)

KNOWN = "count, sum, min, max, avg and count(distinct …)"


@dataclass(frozen=True)
class Aggregate:
    """One aggregate call of a model."""

    kind: Kind
    argument: exp.Expression
    where: exp.Expression | None

    @classmethod
    def of(cls, name: str, call: exp.Expression) -> Aggregate | str:
        """The aggregate that a call is, or the reason why it cannot be one."""
        where = call.parent.expression.this if isinstance(call.parent, exp.Filter) else None
        arguments = _arguments(call)
        if name not in _KINDS:
            return f"only {KNOWN} can be merged"
        if name in {"count", "count_star"} and not arguments:
            return cls(_KINDS["count"], exp.Star(), where)
        if len(arguments) != 1:
            return f"{name} takes one argument here"
        if not isinstance(arguments[0], exp.Distinct):
            return cls(_KINDS[name], arguments[0], where)
        if name != "count" or len(arguments[0].expressions) != 1:
            return "of the aggregates with DISTINCT only count, of one expression, can be merged"
        return cls(_COUNT_DISTINCT, arguments[0].expressions[0], where)


def _arguments(call: exp.Expression) -> list[exp.Expression]:
    first = call.args.get("this")
    own = [first] if isinstance(first, exp.Expression) else []
    more = call.args.get("expressions") or []
    rest = call.args.get("expression")
    return [*own, *more, *([rest] if isinstance(rest, exp.Expression) else [])]
