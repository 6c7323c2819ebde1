"""What each aggregate keeps between micro-batches, how two such states become one, and what is seen of them.

Adding an aggregate means adding an entry to `_KINDS`. Where DuckDB's own state of an aggregate can be kept
(EXPORT_STATE, `combine_aggr`, `finalize`), it is: live and batch are then the same estimator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlglot import exp

from ingest_service.live.column_types import doubles_text

DOUBLE_TOLERANCE = 1e-9
"""Sums of doubles depend on the order of rows; live and batch may differ by this much, relative to batch."""
SPREAD_TOLERANCE = 1e-6
"""The same for variances and standard deviations: they are small differences of large numbers."""

_REGISTERS = "STRUCT(precision UTINYINT, registers UTINYINT[])"
_SPREAD = "STRUCT(count UBIGINT, mean DOUBLE, dsquared DOUBLE)"
_CENTROIDS = "STRUCT(count UBIGINT, min DOUBLE, max DOUBLE, centroids STRUCT(mean DOUBLE, weight DOUBLE)[])"
# HyperLogLog's precision and registers, each below 70, as one character each: a third of what a list would take.
_REGISTERS_TEXT = "chr(48 + {s}.precision) || array_to_string(list_transform({s}.registers, lambda r: chr(48 + r)), '')"
_TEXT_REGISTERS = (
    "CASE WHEN {s} IS NOT NULL THEN {{'precision': CAST(ascii({s}) - 48 AS UTINYINT), 'registers': "
    "list_transform(string_split(substr({s}, 2), ''), lambda c: CAST(ascii(c) - 48 AS UTINYINT))}} END"
)
# A digest as one list of numbers: count, smallest, largest, the means, the weights; read sooner than a STRUCT's text.
_CENTROIDS_TEXT = doubles_text(
    "[CAST({s}.count AS DOUBLE), {s}.min, {s}.max] || list_transform({s}.centroids, lambda c: c.mean) || "
    "list_transform({s}.centroids, lambda c: c.weight)"
)
_SPREAD_TEXT = doubles_text("[CAST({s}.count AS DOUBLE), {s}.mean, {s}.dsquared]")
_TEXT_SPREAD = (
    "CASE WHEN {s} IS NOT NULL THEN list_transform([CAST({s} AS DOUBLE[])], lambda n: "
    "{{'count': CAST(n[1] AS UBIGINT), 'mean': n[2], 'dsquared': n[3]}})[1] END"
)
# The list of one is there to give the numbers a name, so that they are read once.
_TEXT_CENTROIDS = (
    "CASE WHEN {s} IS NOT NULL THEN list_transform([CAST({s} AS DOUBLE[])], lambda n: "
    "{{'count': CAST(n[1] AS UBIGINT), "
    "'min': n[2], 'max': n[3], 'centroids': list_transform(list_zip(n[4:3 + (len(n) - 3) // 2], "
    "n[4 + (len(n) - 3) // 2:]), lambda c: {{'mean': c[1], 'weight': c[2]}})}})[1] END"
)


@dataclass(frozen=True)
class State:
    """One number or value that is kept for each group.

    partial: the aggregate that makes it from the rows of a batch.
    merge: the DuckDB aggregate that makes one of several; {s} is the state, {0}, {1} … those of the same aggregate.
    struct: the type to which a state of DuckDB's own is cast, to be kept.
    text, parse: how it becomes text that the store keeps ("": as its type does), and a value of {type} again.
    is_count_of_set: the partial is a list of distinct values; the store keeps the set, and the state is its size.
    """

    partial: exp.Expression
    merge: str
    struct: str | None = None
    text: str = ""
    parse: str = "CAST({s} AS {type})"
    is_count_of_set: bool = False


@dataclass(frozen=True)
class Bounds:
    """How an approximate quantile is judged: between two of the sorted values.

    low, high: SQL over the model's rows. rank_error: how far, as a share of the rows, from the exact rank.
    """

    low: str
    high: str
    rank_error: float


@dataclass(frozen=True)
class Aggregate:
    """One aggregate call of a model: its states, and what is seen of them.

    final: an expression over the columns that hold the states. tolerance: by how much live and batch may differ,
    relative to batch, given the type of the first state; 0: not at all. needs_total_order: of equal rows it would take
    any.
    """

    states: tuple[State, ...]
    final: Callable[[Sequence[str]], str]
    tolerance: Callable[[str], float]
    bounds: Bounds | None = None
    needs_total_order: bool = False

    @classmethod
    def of(cls, name: str, call: exp.Expression, result_type: str, is_offset: IsOffset) -> Aggregate | str:
        """The aggregate that a call is, or the reason why it cannot be one, with what would work."""
        where = call.parent.expression.this if isinstance(call.parent, exp.Filter) else None
        arguments = _arguments(call)
        if name in {"count", "count_star"} and not arguments:
            arguments = [exp.Star()]
        if name not in _KINDS:
            return f"only {', '.join(sorted(KNOWN))} can be merged; {_ELSEWHERE}"
        if any(isinstance(argument, exp.Distinct) for argument in arguments):
            return _count_distinct(name, arguments[0].expressions, where)
        count, make = _KINDS[name]
        if len(arguments) != count:
            return f"{name} takes {count} argument{'s' * (count > 1)} here; {_ELSEWHERE}"
        return make(_Call(name, arguments, where, result_type, is_offset))


IsOffset = Callable[[exp.Expression], bool]
_ELSEWHERE = "compute anything else in a model that reads this one or the lake"


@dataclass(frozen=True)
class _Call:
    name: str
    arguments: list[exp.Expression]
    where: exp.Expression | None
    result_type: str
    is_offset: IsOffset

    def state(self, function: str = "", argument: exp.Expression | None = None) -> exp.Expression:
        """A call of that function over the argument, with this call's filter."""
        argument = self.arguments[0] if argument is None else argument
        return _filtered(exp.Anonymous(this=function or self.name, expressions=[argument.copy()]), self.where)


_Made = Aggregate | str


def _filtered(call: exp.Expression, where: exp.Expression | None) -> exp.Expression:
    return call if where is None else exp.Filter(this=call, expression=exp.Where(this=where.copy()))


def _sql(node: exp.Expression) -> str:
    return str(node.sql("duckdb", comments=False))


def _exact(_: str) -> float:
    return 0.0


def _first_state(states: Sequence[str]) -> str:
    return states[0]


def _plain(function: str, merge: str) -> Callable[[_Call], _Made]:
    """An aggregate that is its own state."""
    return lambda call: Aggregate((State(call.state(function), f"{merge}({{s}})"),), _first_state, _exact)


def _sum(call: _Call) -> _Made:
    # DECIMAL, HUGEINT: exact.
    return Aggregate(
        (State(call.state(), "sum({s})"),), _first_state, lambda kept: DOUBLE_TOLERANCE if kept == "DOUBLE" else 0.0
    )


def _average(call: _Call) -> _Made:
    states = State(call.state("sum"), "sum({s})"), State(call.state("count"), "sum({s})")
    return Aggregate(states, lambda s: f"CAST({s[0]} AS DOUBLE) / {s[1]}", lambda _: DOUBLE_TOLERANCE)


def _count_distinct(name: str, values: list[exp.Expression], where: exp.Expression | None) -> _Made:
    if name != "count" or len(values) != 1:
        return f"of the aggregates with DISTINCT only count, of one expression, can be merged; {_ELSEWHERE}"
    present = exp.Not(this=exp.Is(this=exp.paren(values[0].copy()), expression=exp.Null()))
    condition = present if where is None else exp.and_(where.copy(), present)
    partial = exp.Anonymous(this="list", expressions=[exp.Distinct(expressions=[values[0].copy()])])
    return Aggregate((State(_filtered(partial, condition), "sum({s})", is_count_of_set=True),), _first_state, _exact)


def _exported(call: exp.Expression) -> exp.Expression:
    """The call's state instead of its result; sqlglot does not know EXPORT_STATE."""
    return exp.Var(this=f"{_sql(call)} EXPORT_STATE")


def _merge(function: str, types: str, constants: str = "") -> str:
    return f"combine_aggr(to_aggregate_state({{s}}, '{function}', [{types}]{constants}))"


def _spread(function: str) -> Callable[[_Call], _Made]:
    """Variances and their roots: one state of all, Chan's parallel variance in DuckDB."""

    def make(call: _Call) -> _Made:
        state = State(
            _exported(call.state("var_samp")), _merge("var_samp", "'DOUBLE'"), _SPREAD, _SPREAD_TEXT, _TEXT_SPREAD
        )
        return Aggregate(
            (state,),
            lambda s: f"finalize(to_aggregate_state({s[0]}, '{function}', ['DOUBLE']))",
            lambda _: SPREAD_TOLERANCE,
        )

    return make


def _approximate_count(call: _Call) -> _Made:
    """DuckDB's HyperLogLog: its registers are maxima, so live is equal to batch whatever the order of rows."""
    merge = _merge("approx_count_distinct", "'BIGINT'")
    state = State(_exported(call.state()), merge, _REGISTERS, _REGISTERS_TEXT, _TEXT_REGISTERS)
    final = "coalesce(finalize(to_aggregate_state({0}, 'approx_count_distinct', ['BIGINT'])), 0)"
    return Aggregate((state,), lambda s: final.format(*s), _exact)


def _approximate_quantile(call: _Call) -> _Made:
    """DuckDB's t-digest. Numbers are digested by their logarithm: ranks stay, and no magnitude hides another.

    Rank error: measured over 26 distributions, many merges and orders of arrival (docs/adr/0015).
    """
    value, position = call.arguments
    try:
        quantile = float(position.name if isinstance(position, exp.Literal) else "")
    except ValueError:
        return "its quantile is no number; write one between 0 and 1, for several one column each"
    is_number = _NUMBER.fullmatch(call.result_type) is not None
    argument, kind = value, call.result_type
    if is_number:
        x = f"CAST({_sql(value)} AS DOUBLE)"
        argument = exp.Var(this=f"CASE WHEN {x} = 0 THEN 0 ELSE sign({x}) * (ln(abs({x})) + {_LOG_SHIFT}) END")
        kind = "DOUBLE"
    # The digest is the same for all quantiles, so several of one value share it.
    partial = exp.Anonymous(this="approx_quantile", expressions=[argument.copy(), exp.Literal.number("0.5")])
    types = f"'{kind}', 'FLOAT'"
    merge = _merge("approx_quantile", types, ", [NULL, 0.5]")
    exported = _exported(_filtered(partial, call.where))
    state = State(exported, merge, _CENTROIDS, _CENTROIDS_TEXT, _TEXT_CENTROIDS)
    constants = f", [NULL, {quantile}]"

    def final(states: Sequence[str]) -> str:
        found = f"finalize(to_aggregate_state({_MENDED.format(s=states[0])}, 'approx_quantile', [{types}]{constants}))"
        if not is_number:
            return found
        back = f"CASE WHEN abs({found}) < 0.5 THEN 0 ELSE sign({found}) * exp(abs({found}) - {_LOG_SHIFT}) END"
        # The largest numbers may come back larger by a part in 10¹², than their type can hold.
        return f"coalesce(TRY_CAST({back} AS {call.result_type}), CAST(({back}) * (1 - 1e-9) AS {call.result_type}))"

    return Aggregate((state,), final, _exact, _bounds(call, quantile, is_number=is_number))


# DuckDB 2.0 looks for a digest's largest value among the positive ones alone; without any it is left at this number.
_MENDED = (
    "CASE WHEN {s} IS NOT NULL THEN {{'count': {s}.count, 'min': {s}.min, 'max': "
    "CASE WHEN {s}.max > 2.2250738585072014e-308 THEN {s}.max ELSE {s}.centroids[len({s}.centroids)].mean END, "
    "'centroids': {s}.centroids}} END"
)
_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DECIMAL\(.*\)|DOUBLE|FLOAT")
_LOG_SHIFT = 746  # above -ln of the smallest double: every image has its number's sign


def _bounds(call: _Call, quantile: float, *, is_number: bool) -> Bounds:
    """The values at the ranks between which the estimate must lie; infinite and NaN are not digested."""
    error = round(0.01 + 0.2 * quantile * (1 - quantile), 6)
    value = _sql(call.arguments[0])
    present = [f"({value}) IS NOT NULL"]
    if is_number:
        present.append(f"isfinite(CAST({value} AS DOUBLE))")
    if call.where is not None:
        present.append(f"({_sql(call.where)})")
    rows = f"list_sort(list({value}) FILTER (WHERE {' AND '.join(present)}))"
    # One rank more on either side: the digest interpolates between neighbours.
    low = f"greatest(1, ceil(len({rows}) * {max(0.0, quantile - error):.6f})::BIGINT - 1)"
    high = f"least(len({rows}), ceil(len({rows}) * {min(1.0, quantile + error):.6f})::BIGINT + 1)"
    return Bounds(f"({rows})[{low}]", f"({rows})[{high}]", error)


def _ordered(call: _Call) -> _Made:
    """first and last, of rows in a total order."""
    order = call.arguments[0]
    if not isinstance(order, exp.Order) or not call.is_offset(order.expressions[-1].this):
        return f"rows that are equal in its order could come either way; write {call.name}(… order by …, _offset)"
    keys = [(each.this, bool(each.args.get("desc")), bool(each.args.get("nulls_first"))) for each in order.expressions]
    return _in_order(call.name, order.this, keys, None if call.where is None else _sql(call.where))


def _extreme(call: _Call) -> _Made:
    """arg_min and arg_max: the first row, by a total order, of those that have the value."""
    value, by = call.arguments
    keys = by.expressions if _is_row(by) else [by]
    if not keys or not call.is_offset(keys[-1]):
        return (
            f"of rows that are equal in its order any could be taken; write {call.name}({_sql(value)}, "
            f"({_sql(by)}, _offset))"
        )
    is_max = call.name in {"arg_max", "max_by", "argmax"}
    # In a row, NULL counts as larger than all values.
    ordered = [(key, is_max, is_max) for key in keys]
    conditions = [f"({_sql(value)}) IS NOT NULL", *([f"({_sql(call.where)})"] if call.where is not None else [])]
    return _in_order("first", value, ordered, " AND ".join(conditions))


def _is_row(node: exp.Expression) -> bool:
    return isinstance(node, exp.Tuple) or (isinstance(node, exp.Anonymous) and str(node.this).lower() == "row")


def _in_order(
    function: str, value: exp.Expression, keys: Sequence[tuple[exp.Expression, bool, bool]], where: str | None
) -> Aggregate:
    """States: the keys of the row that is taken, then its value. A group whose offset is NULL has no such row."""
    direction = [
        f"{'DESC' if desc else 'ASC'} NULLS {'FIRST' if nulls_first else 'LAST'}" for _, desc, nulls_first in keys
    ]
    of_rows = ", ".join(f"{_sql(key)} {way}" for (key, _, _), way in zip(keys, direction, strict=True))
    of_states = ", ".join(f"{{{i}}} {way}" for i, way in enumerate(direction))
    chosen = f" FILTER (WHERE {where})" if where else ""
    merge = f"{function}({{s}} ORDER BY {of_states}) FILTER (WHERE {{{len(keys) - 1}}} IS NOT NULL)"
    parts = [*(key for key, _, _ in keys), value]
    states = [State(exp.Var(this=f"{function}({_sql(part)} ORDER BY {of_rows}){chosen}"), merge) for part in parts]
    return Aggregate(tuple(states), lambda s: s[-1], _exact, needs_total_order=True)


_KINDS: dict[str, tuple[int, Callable[[_Call], _Made]]] = {
    "count": (1, _plain("count", "sum")),
    "count_star": (1, _plain("count", "sum")),
    "count_if": (1, _plain("count_if", "sum")),
    "countif": (1, _plain("count_if", "sum")),
    "sum": (1, _sum),
    "min": (1, _plain("min", "min")),
    "max": (1, _plain("max", "max")),
    "bool_and": (1, _plain("bool_and", "bool_and")),
    "bool_or": (1, _plain("bool_or", "bool_or")),
    "avg": (1, _average),
    "mean": (1, _average),
    "approx_count_distinct": (1, _approximate_count),
    "approx_quantile": (2, _approximate_quantile),
    "first": (1, _ordered),
    "last": (1, _ordered),
    **dict.fromkeys(("arg_min", "arg_max", "min_by", "max_by", "argmin", "argmax"), (2, _extreme)),
    **{name: (1, _spread(name)) for name in ("var_samp", "var_pop", "stddev_samp", "stddev_pop")},
    "variance": (1, _spread("var_samp")),
    "stddev": (1, _spread("stddev_samp")),
}
KNOWN = {*_KINDS, "count(distinct …)"} - {"count_star", "countif", "argmin", "argmax", "mean", "min_by", "max_by"}


def _arguments(call: exp.Expression) -> list[exp.Expression]:
    """What a call is given, in order, whichever class sqlglot has for it."""
    found: list[exp.Expression] = []
    for value in (call.args.get(name) for name in call.arg_types):
        found += [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, exp.Expression)]
    return found
