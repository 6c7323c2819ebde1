"""Random aggregate calls over a scope, and what it takes to judge those that are not exact."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from support.random_expressions import BOOL, DATE, DBL, DEC, INT, KINDS, OTHER, TIME, Column, Expressions, Role

QUANTILES = ("0.5", "0.95", "0.9", "0.99", "0.25", "0.05", "0.01", "0", "1", "0.333")
_SPREADS = ("var_samp", "var_pop", "variance", "stddev_samp", "stddev_pop", "stddev")


@dataclass(frozen=True)
class Scale:
    """What rounding is relative to, where results are small differences of large numbers.

    sql: an aggregate over the same rows. of: "sum" (the sum of magnitudes), "square" (the mean square), "root" (the
    same of a root of a difference), or "quantile" (the sorted finite values, of which the result is about the q-th).
    """

    sql: str
    of: str
    quantile: float = 0.0


@dataclass(frozen=True)
class Call:
    """An aggregate call. scale: None when it is exact; approximate: it has to stand alone in its column."""

    sql: str
    kind: str
    scale: Scale | None = None
    approximate: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether live must be equal to batch, so that anything may be computed from it."""
        return self.scale is None and not self.approximate


class Aggregates:
    """Makes aggregate calls. off: names of functions that are not to be used."""

    def __init__(
        self, rng: random.Random, expressions: Expressions, features: Counter[str], off: frozenset[str], *, total: bool
    ) -> None:
        """`total`: whether `_offset` tells all rows apart, so that first and last mean one row."""
        self._rng = rng
        self._expressions = expressions
        self._features = features
        self._offset = next((c for c in expressions.columns if c.role is Role.OFFSET), None)
        makers: dict[str, Callable[[], Call]] = {
            "count": self._count,
            "count_if": self._count_if,
            "sum": self._sum,
            "sum of doubles": self._sum_of_doubles,
            "extreme": self._extreme,
            "avg": self._avg,
            "bool": self._bool,
            "spread": self._spread,
            "count(distinct)": self._count_distinct,
            "approx_count_distinct": self._approx_count_distinct,
            "approx_quantile": self._approx_quantile,
        }
        if self._offset is not None and total:
            makers |= {"first": self._ordered, "arg_min": self._arg}
        self._makers = {name: maker for name, maker in makers.items() if name not in off}

    def call(self, *, exact: bool = False) -> Call:
        """A random call; `exact`: one whose result may be used in an expression."""
        while True:
            name = self._rng.choice(list(self._makers))
            call = self._makers[name]()
            if not exact or call.is_exact:
                self._features[f"aggregate {name}"] += 1
                return call

    def _argument(self, *kinds: str) -> tuple[str, str]:
        if not kinds and self._rng.random() < 0.08:
            self._features["other type"] += 1
            return self._expressions.other(), OTHER
        kind = self._rng.choice(kinds or KINDS)
        depth = self._rng.choice((0, 0, 0, 1, 2))
        return self._expressions.of(kind, depth), kind

    def _filter(self) -> str:
        """The condition of a FILTER, or nothing."""
        if self._rng.random() < 0.7:
            return ""
        self._features["filter"] += 1
        condition = self._expressions.of(BOOL, 2)
        return self._expressions.mostly(condition) if self._rng.random() < 0.6 else condition

    def _call(self, name: str, argument: str, kind: str) -> Call:
        return Call(_filtered(f"{self._written(name)}({argument})", self._filter()), kind)

    def _written(self, name: str) -> str:
        return name.upper() if self._rng.random() < 0.1 else name

    def _count(self) -> Call:
        return self._call("count", self._rng.choice(("*", "*", "", *(self._argument()[0],) * 4)), INT)

    def _count_if(self) -> Call:
        return self._call(self._rng.choice(("count_if", "countif")), self._argument(BOOL)[0], INT)

    def _sum(self) -> Call:
        argument, kind = self._argument(INT, DEC, INT, DEC, BOOL)
        return self._call("sum", argument, DEC if kind == DEC else INT)

    def _sum_of_doubles(self) -> Call:
        argument, _ = self._argument(DBL)
        if self._rng.random() < 0.5:
            argument = f"abs({argument})"
        where = self._filter()
        return Call(_filtered(f"sum({argument})", where), DBL, _finite(f"sum(abs({argument}))", argument, where, "sum"))

    def _extreme(self) -> Call:
        argument, kind = self._argument()
        return self._call(self._rng.choice(("min", "max")), argument, kind)

    def _avg(self) -> Call:
        argument, _ = self._argument(INT, DEC, DBL)
        where = self._filter()
        value = f"cast({argument} as double)"
        scale = _finite(f"avg(abs({value}))", value, where, "sum")
        return Call(_filtered(f"{self._rng.choice(('avg', 'mean'))}({argument})", where), DBL, scale)

    def _bool(self) -> Call:
        return self._call(self._rng.choice(("bool_and", "bool_or")), self._argument(BOOL)[0], BOOL)

    def _spread(self) -> Call:
        name = self._rng.choice(_SPREADS)
        argument, _ = self._argument(INT, DEC, DBL)
        where = self._filter()
        value = f"cast({argument} as double)"
        scale = _finite(f"avg(({value}) * ({value}))", value, where, "root" if name.startswith("std") else "square")
        return Call(_filtered(f"{name}({argument})", where), DBL, scale)

    def _count_distinct(self) -> Call:
        return self._call("count", f"distinct {self._argument()[0]}", INT)

    def _approx_count_distinct(self) -> Call:
        call = self._call("approx_count_distinct", self._argument()[0], INT)
        return Call(call.sql, INT, None, approximate=True)

    def _approx_quantile(self) -> Call:
        argument, kind = self._argument(INT, DEC, DBL, DBL, TIME, DATE)
        quantile, where = self._rng.choice(QUANTILES), self._filter()
        call = _filtered(f"approx_quantile({argument}, {quantile})", where)
        # Infinite and NaN are not counted; times have their microseconds, dates their days.
        value = {TIME: f"epoch_us({argument})", DATE: f"datediff('day', date '1970-01-01', {argument})"}.get(
            kind, argument
        )
        finite = f"isfinite(cast({value} as double))" + (f" and ({where})" if where else "")
        ranked = f"list(cast({value} as double)) filter (where {finite})"
        return Call(call, kind, Scale(ranked, "quantile", float(quantile)), approximate=True)

    def _ordered(self) -> Call:
        """first or last of rows in an order whose last key is the offset."""
        argument, kind = self._argument()
        keys = [f"{self._expressions.varying()[0]}{self._direction()}" for _ in range(self._rng.choice((0, 1, 1, 2)))]
        order = ", ".join([*keys, self._offset_text() + self._direction()])
        return self._call(self._rng.choice(("first", "last")), f"{argument} order by {order}", kind)

    def _direction(self) -> str:
        return self._rng.choice(("", "", " desc", " asc")) + self._rng.choice(("", "", " nulls first", " nulls last"))

    def _arg(self) -> Call:
        argument, kind = self._argument()
        name = self._rng.choice(("arg_min", "arg_max", "min_by", "max_by"))
        keys = [self._expressions.varying()[0] for _ in range(self._rng.choice((0, 1, 1, 2)))]
        row = ", ".join([*keys, self._offset_text()])
        by = f"({row})" if keys and self._rng.random() < 0.7 else f"row({row})" if keys else row
        return self._call(name, f"{argument}, {by}", kind)

    def _offset_text(self) -> str:
        assert self._offset is not None
        return self._expressions.write(self._offset)


def _filtered(call: str, where: str) -> str:
    return f"{call} filter (where {where})" if where else call


def _finite(aggregate: str, value: str, where: str, of: str) -> Scale:
    condition = f"isfinite(cast({value} as double))" + (f" and ({where})" if where else "")
    return Scale(_filtered(aggregate, condition), of)


def as_column(call: Call) -> Column:
    """A call as something that an expression may be made of."""
    return Column("", call.kind, text=call.sql)
