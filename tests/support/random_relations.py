"""What a random model reads: the stream, through CTEs, subqueries and joins to seeds, each with a scope of columns."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from support.random_events import SEEDS
from support.random_expressions import BOOL, DATE, DBL, DEC, INT, STR, TIME, Column, Expressions, Role, quoted

SOURCE = '"db"."schema"."order_lines"'
"""The stream's relation in compiled SQL."""
COLUMNS = (
    Column("event_id", STR),
    Column("quantity", INT),
    Column("small", INT),
    Column("unit_price", DEC),
    Column("amount", DEC),
    Column("weight", DBL),
    Column("ratio", DBL),
    Column("gift", BOOL),
    Column("invoiced_at", TIME, role=Role.EVENT_TIME),
    Column("paid_at", TIME),
    Column("customer_id", INT),
    Column("country", STR),
    Column("note", STR),
    Column("_partition", INT),
    Column("_offset", INT, role=Role.OFFSET),
    Column("_append_time", TIME),
    Column("event_date", DATE),
)
"""The stream's columns, its system columns included."""
_SEED_KINDS = {"varchar": STR, "integer": INT, "bigint": INT, "decimal(6,3)": DEC, "date": DATE, "double": DBL}
_SEED_KINDS |= {"boolean": BOOL}
ODD_NAMES = ("order", "Größe", "a b", 'in"ner', "sum", "Mixed", "group", "x")


class RandomRelations:
    """Makes what FROM reads. off: features not to be used, by the names by which they are counted."""

    def __init__(self, rng: random.Random, *, off: frozenset[str] = frozenset(), wild: float = 0.01) -> None:
        self._rng = rng
        self._off = off
        self._wild = wild
        self._features: Counter[str] = Counter()
        self._seeds: list[str] = []
        self._total = True
        self._names = 0

    def _layers(self) -> tuple[list[str], str, list[Column]]:
        """CTEs, what FROM reads, and the columns that it shows."""
        relation, columns = self._source()
        ctes: list[str] = []
        for _ in range(self._rng.choice((0, 0, 0, 1, 1, 2, 3))):
            if not self._may("layer", 1.0):
                break
            shown, selected = self._layer(relation, columns)
            alias = self._new_name("lines")
            if self._may("cte", 0.6):
                ctes.append(f"{alias} as ({self._gap()}{selected})")
                relation, columns = self._aliased(alias, shown)
            else:
                self._features["subquery"] += 1
                written = f" as {alias}" if self._rng.random() < 0.7 else f" {alias}"
                relation, columns = f"({selected}){written}", self._qualified(shown, alias)
        return ctes, relation, columns

    def _source(self) -> tuple[str, list[Column]]:
        chance = self._rng.random()
        if chance < 0.5:
            sources = ("order_lines", '"order_lines"', SOURCE)
            return SOURCE, [replace(column, sources=sources) for column in COLUMNS]
        return self._aliased(SOURCE, COLUMNS, always=True)

    def _aliased(self, relation: str, columns: Sequence[Column], *, always: bool = False) -> tuple[str, list[Column]]:
        if not always and self._rng.random() < 0.6:
            return relation, self._qualified(columns, relation)
        self._features["table alias"] += 1
        alias = self._new_name("t")
        return f"{relation}{' as ' if self._rng.random() < 0.6 else ' '}{alias}", self._qualified(columns, alias)

    @staticmethod
    def _qualified(columns: Sequence[Column], alias: str) -> list[Column]:
        return [replace(column, sources=(alias,), must_qualify=False) for column in columns]

    def _layer(self, relation: str, columns: list[Column]) -> tuple[list[Column], str]:
        """A SELECT without aggregation: the columns that it shows, and its text."""
        columns, join = self._maybe_join(columns, 0.12)
        expressions = self._expressions(columns)
        where = self._where(expressions)
        shown, items = (
            self._star(expressions, joined=bool(join)) if self._rng.random() < 0.5 else self._list(expressions)
        )
        for _ in range(self._rng.choice((0, 1, 1, 2))):
            sql, kind = expressions.any(3)
            name = self._new_name(self._rng.choice(("c", "c", "c", *ODD_NAMES)))
            items.append(f"{sql} as {quoted(name)}")
            shown.append(Column(name, kind))
            if self._rng.random() < 0.5:
                self._features["alias reused"] += 1
                expressions.columns.append(Column(name, kind))
        return shown, f"select {', '.join(items)}{self._gap()}from {relation}{join}{where}"

    def _star(self, expressions: Expressions, *, joined: bool) -> tuple[list[Column], list[str]]:
        own = [column for column in expressions.columns if column.sources == expressions.columns[0].sources]
        source = next(iter(own[0].sources), "")
        chance = self._rng.random()
        if joined or (source and chance < 0.3):
            self._features["t.*"] += 1
            return [c.as_named(c.name) for c in own], [f"{source}.*"]
        if chance < 0.5 and self._may("* exclude", 1.0):
            left_out = self._rng.choice([c for c in own if c.role is Role.NONE])
            return [c.as_named(c.name) for c in own if c is not left_out], [f"* exclude ({quoted(left_out.name)})"]
        if chance < 0.65 and self._may("* replace", 1.0):
            other = self._rng.choice([c for c in own if c.role is Role.NONE])
            return [c.as_named(c.name) for c in own], [
                f"* replace ({expressions.of(other.kind, 2)} as {quoted(other.name)})"
            ]
        self._features["*"] += 1
        return [c.as_named(c.name) for c in own], ["*"]

    def _list(self, expressions: Expressions) -> tuple[list[Column], list[str]]:
        """Some of the columns, a few by other names. What the view needs keeps its own."""
        shown, items, taken = [], [], set()
        for column in expressions.columns:
            needed = column.role is not Role.NONE and self._rng.random() < 0.9
            if column.name.lower() in taken or not (needed or self._rng.random() < 0.7):
                continue
            name = column.name
            if not needed and self._rng.random() < 0.25:
                name = self._new_name(self._rng.choice(("renamed", *ODD_NAMES)))
                self._features["renamed column"] += 1
            taken.add(column.name.lower())
            renamed = name != column.name or self._rng.random() < 0.3
            items.append(f"{expressions.write(column)} as {quoted(name)}" if renamed else expressions.write(column))
            # A column's own letters are what counts, in whichever it was written.
            shown.append(column.as_named(name))
        return shown, items or ["1 as one"]

    # Joins.

    def _maybe_join(self, columns: list[Column], chance: float) -> tuple[list[Column], str]:
        if not self._may("join", chance):
            return columns, ""
        text = ""
        for _ in range(self._rng.choice((1, 1, 1, 2))):
            columns, more = self._join(columns)
            text += more
        return columns, text

    def _join(self, columns: list[Column]) -> tuple[list[Column], str]:
        rng = self._rng
        name = rng.choice(list(SEEDS))
        key = "customer_id" if name == "customers" else "country"
        alias = self._new_name("s") if rng.random() < 0.7 else name
        left = [c for c in columns if c.kind == (STR if key == "country" else INT)]
        same = [c for c in left if c.name == key and not c.must_qualify]
        if not left or any(alias in column.sources for column in columns):
            return columns, ""
        kinds = ["left join", "left outer join", "anti join"]
        if any(column.name == key for column in left):  # other columns hardly find a row
            kinds += ["join", "inner join", "semi join", "left join"]
        kind = rng.choice(kinds)
        self._seeds.append(name)
        self._features[f"join {kind.split()[0].replace('join', 'inner')}"] += 1
        types = SEEDS[name][0]
        taken = {column.name.lower() for column in columns}
        seed = [Column(c, _SEED_KINDS[t], (alias,), must_qualify=c.lower() in taken) for c, t in types.items()]
        using = bool(same) and rng.random() < 0.4
        condition, is_equality = (f"using ({key})", True) if using else self._condition(columns, seed, left, key)
        self._features["using" if using else "on"] += 1
        relation = f'"db"."schema"."{name}"'
        text = f"\n{kind} {relation}{'' if alias == name else ' as ' + alias} {condition}"
        if kind.startswith(("semi", "anti")):
            return columns, text
        self._total = self._total and name == "rates" and is_equality
        seed_names = {column.name.lower() for column in seed}
        merged = [
            replace(c, must_qualify=c.must_qualify or (c.name.lower() in seed_names and not (using and c.name == key)))
            for c in columns
        ]
        return [*merged, *(column for column in seed if not (using and column.name == key))], text

    def _condition(self, columns: list[Column], seed: list[Column], left: list[Column], key: str) -> tuple[str, bool]:
        """What stands after ON, and whether the seed's key has to be equal to something."""
        seed_names = {column.name.lower() for column in seed}
        ours = [replace(c, must_qualify=c.must_qualify or c.name.lower() in seed_names) for c in columns]
        theirs = [replace(c, must_qualify=True) for c in seed]
        # What fails on a seed's rows alone fails in batch even where no event meets them.
        expressions = Expressions(self._rng, [*ours, *theirs], self._features, wild=0)
        usual = [c for c in left if c.name == key] or left
        wanted = self._rng.choice(usual)
        mine = next(c for c in ours if (c.name, c.sources) == (wanted.name, wanted.sources))
        a, b = expressions.write(mine), expressions.write(next(c for c in theirs if c.name == key))
        chance = self._rng.random()
        if chance < 0.5:
            condition, is_equality = f"{a} = {b}", True
        elif chance < 0.65:
            condition, is_equality = f"{b} = {a}", True
        elif chance < 0.8:
            condition, is_equality = f"{a} is not distinct from {b}", False
        else:
            loose = f"upper({a}) = upper({b})" if left[0].kind == STR else f"abs({a} % 3) = {b} % 3"
            condition, is_equality = loose, False
        if self._rng.random() < 0.3:
            condition += f" and {expressions.of(BOOL, 2)}"
        return f"on {condition}", is_equality

    # Small things.

    def _expressions(self, columns: Sequence[Column]) -> Expressions:
        return Expressions(self._rng, columns, self._features, wild=self._wild)

    def _where(self, expressions: Expressions) -> str:
        if self._rng.random() < 0.55:
            return ""
        self._features["where"] += 1
        # Most conditions that come out of the grammar keep hardly any row; one that rarely holds is joined by OR.
        condition = expressions.of(BOOL, 3)
        if self._rng.random() < 0.85:
            condition = expressions.mostly(condition)
        return f"{self._gap()}{self._word('where')} {condition}"

    def _with(self, ctes: Sequence[str]) -> str:
        return f"{self._word('with')} {', '.join(ctes)}\n" if ctes else ""

    def _may(self, feature: str, chance: float) -> bool:
        if feature in self._off or self._rng.random() >= chance:
            return False
        self._features[feature] += 1
        return True

    def _has(self, columns: Sequence[Column], role: Role) -> bool:
        own = {Role.OFFSET: "_offset", Role.EVENT_TIME: "invoiced_at"}[role]
        return any(column.role is role and column.name == own and not column.must_qualify for column in columns)

    def _new_name(self, stem: str) -> str:
        self._names += 1
        return f"{stem}{self._names}"

    def _word(self, word: str) -> str:
        return word.upper() if self._rng.random() < 0.1 else word

    def _gap(self) -> str:
        chance = self._rng.random()
        if chance < 0.05:
            self._features["comment"] += 1
            return self._rng.choice(
                (" /* it's; a -- comment */ ", "\n-- one 'line; /* \n", "\n  -- {{ no }} jinja\n  ")
            )
        return "\n" if chance < 0.3 else " "
