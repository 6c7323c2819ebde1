"""Random SQL expressions of a given kind over given columns: most of them cannot fail, whatever the event.

Left out on purpose is what differs between rows that DuckDB groups together (the text or the reciprocal of a zero with
a sign): where such a value is a group's, either row may speak for it, in batch as well.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

INT, DEC, DBL, STR, BOOL, TIME, DATE = "int", "dec", "dbl", "str", "bool", "time", "date"
KINDS = (INT, DEC, DBL, STR, BOOL, TIME, DATE)
OTHER = "other"
"""Of a type that hardly any function takes: fit to be grouped by, counted, and picked from."""


class Role(Enum):
    """What a column is to the view beyond its value."""

    NONE = 0
    OFFSET = 1
    EVENT_TIME = 2


@dataclass(frozen=True)
class Column:
    """A column in scope. name: without quotes. sources: the names by which its relation can qualify it.

    text: SQL that stands for it, where it is not a column but an aggregate or a group's expression.
    """

    name: str
    kind: str
    sources: tuple[str, ...] = ()
    role: Role = Role.NONE
    must_qualify: bool = False
    text: str = ""

    def as_named(self, name: str) -> Column:
        """The same column as another relation shows it."""
        return replace(self, name=name, sources=(), must_qualify=False)


def quoted(name: str) -> str:
    """A name in quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


_TEXTS = ("", "France", "a'b", "x:y", "-", "日本", "--no comment", "{{ }}", "%", "null")
_INTS = ("0", "1", "-1", "2", "7", "100", "9223372036854775807")
_DECIMALS = ("0.5", "1.500", "-0.001", "100.0")
_DOUBLES = ("0.5e0", "1e3", "-2.25e0", "1e-3")
_TIMES = ("timestamptz '2011-12-05 08:03:00+00'", "timestamptz '2011-12-04 12:00:00+00'")
_DATES = ("date '2011-12-05'", "date '2011-12-04'")
_INTERVALS = ("interval '1 minute'", "interval '90 seconds'", "interval 1 hour", "interval '1' day", "to_minutes(7)")
_COMPARISONS = ("=", "<>", "<", "<=", ">", ">=", "is distinct from", "is not distinct from", "!=")


class Expressions:
    """A grammar of expressions over one scope.

    wild: the share of operations that may fail on odd values (overflow, a cast, a division by zero): then batch fails,
    and live must stand still.
    """

    def __init__(self, rng: random.Random, columns: Sequence[Column], features: Counter[str], *, wild: float) -> None:
        self._rng = rng
        self.columns = list(columns)
        self._features = features
        self._wild = wild
        self._makers: dict[str, Callable[[int], str]] = {
            INT: self._int,
            DEC: self._dec,
            DBL: self._dbl,
            STR: self._str,
            BOOL: self._bool,
            TIME: self._time,
            DATE: self._date,
        }

    def of(self, kind: str, depth: int) -> str:
        """An expression of that kind."""
        if depth <= 0 or self._rng.random() < 0.15:
            return self.leaf(kind)
        if self._rng.random() < 0.25:
            return self._of_any_kind(kind, depth - 1)
        return self._makers[kind](depth - 1)

    def any(self, depth: int) -> tuple[str, str]:
        """An expression of any kind, and its kind."""
        kind = self._rng.choice(KINDS)
        return self.of(kind, depth), kind

    def varying(self, *kinds: str) -> tuple[str, str]:
        """An expression in which a column stands, and its kind."""
        while True:
            kind = self._rng.choice(kinds or KINDS)
            sql = self.of(kind, 2)
            if any(column.name.lower() in sql.lower() for column in self.columns):
                return sql, kind

    def other(self) -> str:
        """An expression of a type that no kind has."""
        return self._rng.choice(
            (
                f"cast({self.leaf(TIME)} as timestamp)",
                f"cast(cast({self.leaf(TIME)} as timestamp) as time)",
                f"encode({self.leaf(STR)})",
                f"try_cast({self.leaf(DBL)} as float)",
                f"try_cast({self.leaf(INT)} as utinyint)",
                f"try_cast({self.leaf(INT)} as uhugeint)",
                f"cast(md5({self.leaf(STR)}) as uuid)",
                f"try_cast({self.leaf(TIME)} as timestamp_ms)",
                f"hash({self.leaf(STR)})",
            )
        )

    def mostly(self, condition: str) -> str:
        """A condition that holds for three events in four, and where the given one does."""
        columns = [column for column in self.columns if column.kind in {INT, STR}]
        return f"({condition}) or hash({self.write(self._rng.choice(columns))}) % 4 <> 0" if columns else condition

    def leaf(self, kind: str) -> str:
        """A column, or a literal where there is none."""
        fitting = [column for column in self.columns if column.kind == kind]
        if fitting and self._rng.random() < 0.9:
            return self.write(self._rng.choice(fitting))
        return self.constant(kind)

    def constant(self, kind: str) -> str:
        """A literal, or NULL of that kind."""
        rng = self._rng
        if rng.random() < 0.05:
            return f"cast(null as {_TYPES[kind]})"
        choices = {INT: _INTS, DEC: _DECIMALS, DBL: _DOUBLES, TIME: _TIMES, DATE: _DATES, BOOL: ("true", "false")}
        return literal(rng.choice(_TEXTS)) if kind == STR else rng.choice(choices[kind])

    def write(self, column: Column) -> str:
        """A column's name as one may write it: qualified or not, quoted or in other letters."""
        rng = self._rng
        if column.text:
            return column.text
        plain = column.name.replace("_", "a").isalnum() and column.name.isascii() and column.name not in _RESERVED
        text = column.name if plain and rng.random() < 0.8 else quoted(column.name)
        if plain and column.name.islower() and rng.random() < 0.1:
            text = column.name.upper() if rng.random() < 0.5 else quoted(column.name.title())
            self._features["letter case"] += 1
        if column.sources and (column.must_qualify or rng.random() < 0.25):
            text = f"{rng.choice(column.sources)}.{text}"
            self._features["qualified column"] += 1
        return text

    def _pick(self, safe: Sequence[Callable[[], str]], wild: Sequence[Callable[[], str]] = ()) -> str:
        if wild and self._rng.random() < self._wild:
            self._features["may fail"] += 1
            return self._rng.choice(wild)()
        return self._rng.choice(safe)()

    def _of_any_kind(self, kind: str, depth: int) -> str:
        of, rng = self.of, self._rng
        return self._pick(
            [
                lambda: f"coalesce({of(kind, depth)}, {self.constant(kind)})",
                lambda: f"case when {of(BOOL, depth)} then {of(kind, depth)} else {of(kind, depth)} end",
                lambda: f"case when {of(BOOL, depth)} then {of(kind, depth)} end",
                lambda: f"if({of(BOOL, depth)}, {of(kind, depth)}, {self.leaf(kind)})",
                lambda: f"nullif({of(kind, depth)}, {self.constant(kind)})",
                lambda: f"({of(kind, depth)})",
                lambda: f"{rng.choice(('greatest', 'least'))}({self.leaf(kind)}, {self.leaf(kind)})",
                lambda: f"case {self.leaf(STR)} when 'France' then {self.leaf(kind)} else {self.constant(kind)} end",
            ]
        )

    def _int(self, depth: int) -> str:
        of, rng = self.of, self._rng
        return self._pick(
            [
                lambda: f"{self._operand(INT, depth)} % {rng.choice((2, 3, 10))}",
                lambda: f"{self._operand(INT, depth)} // {rng.choice((2, 7, 1000))}",
                lambda: f"cast({of(INT, depth)} as hugeint) {rng.choice('+-')} {self._operand(INT, depth)}",
                lambda: f"abs({of(INT, depth)}::hugeint)",
                lambda: f"length({of(STR, depth)})",
                lambda: f"strlen({of(STR, depth)})",
                lambda: f"sign({of(INT, depth)})",
                lambda: f"try_cast({of(STR, depth)} as bigint)",
                lambda: f"try_cast({of(DBL, depth)} as bigint)",
                lambda: f"try_cast({of(INT, depth)} as {rng.choice(('tinyint', 'integer', 'ubigint'))})",
                lambda: f"extract({rng.choice(('hour', 'minute', 'day'))} from {of(TIME, depth)})",
                lambda: f"date_part('dow', {of(DATE, depth)})",
                lambda: f"date_diff('minute', {self.constant(TIME)}, {self.leaf(TIME)})",
                lambda: f"cast({of(BOOL, depth)} as integer)",
                lambda: f"hash({of(STR, depth)}) % 5",
                lambda: f"instr({of(STR, depth)}, 'a')",
            ],
            [
                lambda: f"{self._operand(INT, depth)} * 3",
                lambda: f"{self._operand(INT, depth)} + {self._operand(INT, depth)}",
                lambda: f"100 // {self._operand(INT, depth)}",
                lambda: f"cast({of(INT, depth)} as smallint)",
                lambda: f"cast({of(STR, depth)} as bigint)",
                lambda: f"{self._operand(DBL, depth)}::bigint",
            ],
        )

    def _dec(self, depth: int) -> str:
        of = self.of
        return self._pick(
            [
                lambda: f"{self._operand(DEC, depth)} {self._rng.choice('+-')} {self.constant(DEC)}",
                lambda: f"round({of(DEC, depth)}, {self._rng.choice((0, 1, 2))})",
                lambda: f"abs({of(DEC, depth)})",
                lambda: f"-{self._operand(DEC, depth)}",
                lambda: f"{self._operand(DEC, depth)} % 2",
                lambda: f"try_cast({of(INT, depth)} as decimal(20,0))",
                lambda: f"try_cast({of(STR, depth)} as decimal(18,4))",
                lambda: f"try_cast({of(DEC, depth)} as decimal(18,2))",
                lambda: f"{self._columns_product()}",
            ],
            [
                lambda: f"cast({of(DEC, depth)} as decimal(5,1))",
                lambda: f"{self._operand(DEC, depth)} * {self._operand(DEC, depth)}",
                lambda: f"{self._operand(STR, depth)}::decimal(9,3)",
            ],
        )

    def _columns_product(self) -> str:
        """`quantity * unit_price`, where both are there."""
        by_name = {column.name: column for column in self.columns}
        if {"quantity", "unit_price"} <= by_name.keys():
            return f"{self.write(by_name['quantity'])} * {self.write(by_name['unit_price'])}"
        return self.leaf(DEC)

    def _dbl(self, depth: int) -> str:
        of, rng = self.of, self._rng
        return self._pick(
            [
                lambda: f"cast({of(INT, depth)} as double)",
                lambda: f"cast({of(DEC, depth)} as double)",
                lambda: f"{self._operand(DBL, depth)} {rng.choice('+-*')} {self._operand(DBL, depth)}",
                lambda: f"{self._operand(INT, depth)} / nullif({of(INT, depth)}, 0)",
                lambda: f"sqrt(abs({of(DBL, depth)}))",
                lambda: f"ln(abs({of(DBL, depth)}) + 1)",
                lambda: f"round({of(DBL, depth)}, 2)",
                lambda: f"floor({of(DBL, depth)})",
                lambda: f"epoch({of(TIME, depth)})",
                lambda: f"try_cast({of(STR, depth)} as double)",
                lambda: f"try_cast({of(DBL, depth)} as float)",
            ],
            [
                lambda: f"{self._operand(DBL, depth)} / {self._operand(DBL, depth)}",
                lambda: f"exp({of(DBL, depth)})",
                lambda: f"{self._operand(DBL, depth)}::float",
                lambda: f"cast({of(STR, depth)} as double)",
            ],
        )

    def _str(self, depth: int) -> str:
        of, rng = self.of, self._rng
        return self._pick(
            [
                lambda: f"{rng.choice(('upper', 'lower', 'trim', 'reverse', 'md5'))}({of(STR, depth)})",
                lambda: f"{self._operand(STR, depth)} || {self._operand(STR, depth)}",
                lambda: f"concat({of(STR, depth)}, ':', {of(INT, depth)})",
                lambda: f"substr({of(STR, depth)}, 1, 2)",
                lambda: f"left({of(STR, depth)}, 3)",
                lambda: f"replace({of(STR, depth)}, 'a', '''')",
                lambda: f"cast({of(rng.choice((INT, DEC, BOOL, DATE)), depth)} as varchar)",
                lambda: f"{self._operand(rng.choice((INT, DEC)), depth)}::varchar",
                lambda: f"strftime({of(TIME, depth)}, '%H:%M')",
                lambda: f"split_part({of(STR, depth)}, ':', 1)",
                lambda: f"regexp_replace({of(STR, depth)}, '[aeiou]', '\\0\\0')",
            ]
        )

    def _bool(self, depth: int) -> str:
        of, rng = self.of, self._rng
        kind = rng.choice(KINDS)
        return self._pick(
            [
                lambda: f"{self._operand(kind, depth)} {rng.choice(_COMPARISONS)} {self._operand(kind, depth)}",
                lambda: f"{self._operand(kind, depth)} {rng.choice(_COMPARISONS)} {self.constant(kind)}",
                lambda: f"{self._operand(kind, depth)} is {rng.choice(('', 'not '))}null",
                lambda: f"({of(BOOL, depth)} {rng.choice(('and', 'or'))} {of(BOOL, depth)})",
                lambda: f"not {self._operand(BOOL, depth)}",
                lambda: f"{self._operand(INT, depth)} between {self.constant(INT)} and {self.constant(INT)}",
                lambda: f"{self._operand(STR, depth)} {rng.choice(('in', 'not in'))} ('France', {self.constant(STR)})",
                lambda: f"{self._operand(STR, depth)} {rng.choice(('like', 'ilike'))} '%a%'",
                lambda: f"starts_with({of(STR, depth)}, 'F')",
                lambda: f"isnan({of(DBL, depth)})",
            ]
        )

    def _time(self, depth: int) -> str:
        of, rng = self.of, self._rng
        return self._pick(
            [
                lambda: f"date_trunc({rng.choice(_UNITS)}, {of(TIME, depth)})",
                lambda: f"time_bucket({rng.choice(_INTERVALS)}, {self.leaf(TIME)})",
                lambda: f"{self._operand(TIME, depth)} {rng.choice('+-')} {rng.choice(_INTERVALS)}",
                lambda: f"cast({of(DATE, depth)} as timestamptz)",
                lambda: f"try_cast({of(STR, depth)} as timestamptz)",
            ]
        )

    def _date(self, depth: int) -> str:
        of, rng = self.of, self._rng
        return self._pick(
            [
                lambda: f"cast({of(TIME, depth)} as date)",
                lambda: f"{self._operand(TIME, depth)}::date",
                lambda: f"{self._operand(DATE, depth)} {rng.choice('+-')} {rng.choice((1, 30))}",
                lambda: f"try_cast({of(STR, depth)} as date)",
                lambda: f"last_day({of(DATE, depth)})",
            ],
            [lambda: f"cast({of(STR, depth)} as date)"],
        )

    def _operand(self, kind: str, depth: int) -> str:
        """An expression that can stand beside an operator."""
        text = self.of(kind, depth)
        return text if text.replace("_", "a").replace(".", "a").isalnum() else f"({text})"


_UNITS = ("'minute'", "'hour'", "'day'", "'week'", "'month'", "'second'")
_TYPES = {
    INT: "bigint",
    DEC: "decimal(12,3)",
    DBL: "double",
    STR: "varchar",
    BOOL: "boolean",
    TIME: "timestamptz",
    DATE: "date",
}
_RESERVED = {"order", "group", "select", "all", "end", "when", "table", "desc"}
