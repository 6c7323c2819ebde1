"""Random models over the whole grammar of live views, as dbt would compile them.

Not made on purpose, since DuckDB itself answers differently from run to run: see random_expressions, and first, last,
arg_min and arg_max where a join has made several rows of one event.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from support.random_aggregates import Aggregates, Call, Scale, as_column
from support.random_events import SEEDS
from support.random_expressions import (
    BOOL,
    DATE,
    DBL,
    DEC,
    INT,
    STR,
    TIME,
    Column,
    Expressions,
    Role,
    quoted,
)

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
_SHARED = {"small", "ratio", "gift", "customer_id", "country", "note", "event_date", "region", "zone", "segment"}
_SEED_KINDS = {"varchar": STR, "integer": INT, "bigint": INT, "decimal(6,3)": DEC, "date": DATE, "double": DBL}
_SEED_KINDS |= {"boolean": BOOL}
_ODD_NAMES = ("order", "Größe", "a b", 'in"ner', "sum", "Mixed", "group", "x")
_INSIDE_A_DAY = (
    "time_bucket(interval '1 minute', {})",
    "time_bucket('5 minutes'::interval, {})",
    "time_bucket(interval 6 hour, {})",
    "time_bucket(interval '1 day', {})",
    "date_trunc('minute', {})",
    "date_trunc('hour', {})",
    "date_trunc('day', {})",
    "cast({} as date)",
    "{}::date",
)
_OTHER_WINDOWS = (
    "time_bucket(interval '7 minutes', {})",
    "time_bucket(interval '1 week', {})",
    "time_bucket(interval '1 month', {})",
    "time_bucket(interval '1 hour', {}, interval '30 minutes')",
    "date_trunc('week', {})",
    "date_trunc('month', {})",
    "date_trunc('second', {})",
    "{} + interval '1 hour'",
    "extract(hour from {})",
)


@dataclass(frozen=True)
class Item:
    """A column of the select list. alias: "" for none, which only plain columns have. call: a bare aggregate."""

    sql: str
    alias: str
    is_group: bool = False
    call: Call | None = None
    scale: Scale | None = None

    @property
    def shown(self) -> str:
        """As the select list has it."""
        return (
            f"{self.sql} as {quoted(self.alias) if not self.alias.isidentifier() else self.alias}"
            if self.alias
            else self.sql
        )


@dataclass(frozen=True)
class Model:
    """A model in parts, so that a failing one can be made smaller.

    head, tail: what stands before and after the select list, with {items} and {groups} between. grouping: how GROUP BY
    names its groups. features: what was made, counted. total: whether offsets tell the rows apart.
    """

    before: str
    after: str
    items: tuple[Item, ...]
    grouping: str
    materialized: str
    seeds: tuple[str, ...]
    features: Counter[str] = field(hash=False, compare=False)
    end: str = ""

    @property
    def is_per_event(self) -> bool:
        """Whether its rows are events."""
        return self.grouping == "per event"

    @property
    def sql(self) -> str:
        """The model's SQL."""
        return self._select([item.shown for item in self.items])

    @property
    def judging_sql(self) -> str:
        """The same, with the columns behind it that say how exact each column of `scales` has to be."""
        more = [f"{scale.sql} as scale__{i}" for i, scale in self.scales.items()]
        return self._select([item.shown for item in self.items] + more)

    @property
    def scales(self) -> dict[int, Scale]:
        """By the number of the column."""
        return {i: item.scale for i, item in enumerate(self.items) if item.scale is not None}

    def without(self, index: int) -> Model:
        """The same without one of its columns."""
        return replace(self, items=self.items[:index] + self.items[index + 1 :])

    def _select(self, shown: Sequence[str]) -> str:
        return f"{self.before}{', '.join(shown)} {self.after}{self._group_by()}{self.end}"

    def _group_by(self) -> str:
        groups = [(i + 1, item) for i, item in enumerate(self.items) if item.is_group]
        if not groups or self.is_per_event:
            return ""
        if self.grouping == "all":
            return " group by all"
        names = {
            "ordinals": lambda i, _: str(i),
            "expressions": lambda _, item: item.sql,
            "aliases": lambda _, item: quoted(item.alias) if item.alias else item.sql,
            "mixed": lambda i, item: str(i) if i % 2 else item.sql,
        }
        return " group by " + ", ".join(names[self.grouping](i, item) for i, item in groups)


class RandomModels:
    """Makes models. off: features not to be used, by the names that `Model.features` counts."""

    def __init__(self, rng: random.Random, *, off: frozenset[str] = frozenset(), wild: float = 0.01) -> None:
        self._rng = rng
        self._off = off
        self._wild = wild
        self._features: Counter[str] = Counter()
        self._seeds: list[str] = []
        self._total = True
        self._names = 0

    def model(self) -> Model:
        """One that the generator believes to be inside the grammar; DuckDB has not seen it."""
        self._features, self._seeds, self._total, self._names = Counter(), [], True, 0
        ctes, from_, columns = self._layers()
        columns, join = self._maybe_join(columns, 0.25)
        expressions = self._expressions(columns)
        where = self._where(expressions)
        per_event = self._total and self._has(columns, Role.OFFSET) and self._has(columns, Role.EVENT_TIME)
        if per_event and self._may("per event", 0.15):
            items, grouping, materialized = self._event_items(expressions), "per event", "table"
        else:
            items, grouping, materialized = self._aggregate_items(expressions)
        select, gap = self._word("select"), self._gap()
        before = self._with(ctes) + select + gap
        after = f"{self._gap()}{self._word('from')} {from_}{join}{where}"
        end = ""
        if self._may("select * from final", 0.15):
            if self._rng.random() < 0.5:
                before, end = f"select * from ({before}", f"{self._gap()})"
            else:
                before = f"{self._word('with')} {', '.join([*ctes, f'final as ({select}{gap}'])}"
                end = ")\nselect * from final"
        seeds = tuple(sorted(set(self._seeds)))
        return Model(before, after, items, grouping, materialized, seeds, self._features, end)

    # What is read.

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
            name = self._new_name(self._rng.choice(("c", "c", "c", *_ODD_NAMES)))
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
                name = self._new_name(self._rng.choice(("renamed", *_ODD_NAMES)))
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

    # What is shown.

    def _event_items(self, expressions: Expressions) -> tuple[Item, ...]:
        needed = [c for c in expressions.columns if c.role is not Role.NONE]
        items = [Item(expressions.write(column), "", is_group=column.role is Role.OFFSET) for column in needed]
        items = [
            replace(item, alias=column.name) if item.sql != column.name else item
            for item, column in zip(items, needed, strict=True)
        ]
        for i in range(self._rng.randint(0, 5)):
            items.append(Item(expressions.any(3)[0], f"v{i}"))
        self._rng.shuffle(items)
        return tuple(items)

    def _aggregate_items(self, expressions: Expressions) -> tuple[tuple[Item, ...], str, str]:
        rng = self._rng
        scope = {column.name.lower() for column in expressions.columns}
        aggregates = Aggregates(rng, expressions, self._features, self._off, total=self._total)
        windows, groups, kinds = [], [], []
        for i in range(rng.choice((0, 1, 1, 2, 2, 3))):
            sql, kind, window = self._group(expressions)
            taken = {group.alias.lower() for group in groups}
            groups.append(Item(sql, self._alias(f"g{i}", sql, scope, taken), is_group=True))
            windows.append(window)
            kinds.append(kind)
        grouping = rng.choice(("all", "all", "ordinals", "expressions", "aliases", "mixed"))
        if grouping in {"aliases", "mixed", "expressions"}:
            # A column's name is the column, so such an alias would mean another group.
            groups = [
                replace(g, alias=g.alias if g.alias.lower() not in scope else f"g{i}_") for i, g in enumerate(groups)
            ]
        self._features[f"group by {grouping if groups else 'nothing'}"] += 1
        bare = [
            Column("", kind, text=group.sql)
            for group, kind in zip(groups, kinds, strict=True)
            # Of 0.0 and -0.0 either may stand for the group. `group by all` takes no such mixture.
            if kind != DBL and grouping != "all"
        ]
        items = [self._aggregate(aggregates, bare, i) for i in range(rng.randint(1, 6))]
        shown = [*groups, *items]
        rng.shuffle(shown)
        if self._may("alias of an aggregate reused", 0.1):
            shown.append(Item("n_lines + 1", "one_more"))
            shown.insert(0, Item("count(*)", "n_lines"))
        by_day = "inside a day" in windows and "other" not in windows
        materialized = "incremental" if by_day and rng.random() < 0.5 else "table"
        return tuple(shown), grouping, materialized

    def _group(self, expressions: Expressions) -> tuple[str, str, str]:
        """A group's expression, its kind, and what window it is: "inside a day", "other", or none."""
        times = [c for c in expressions.columns if c.role is Role.EVENT_TIME]
        chance = self._rng.random()
        if times and chance < 0.4:
            self._features["window inside a day"] += 1
            window = self._rng.choice(_INSIDE_A_DAY)
            return (
                window.format(expressions.write(times[0])),
                DATE if "date)" in window or "::date" in window else TIME,
                "inside a day",
            )
        if times and chance < 0.5:
            self._features["other window"] += 1
            window = self._rng.choice(_OTHER_WINDOWS)
            return window.format(expressions.write(times[0])), INT if "extract" in window else TIME, "other"
        if chance < 0.75:
            # A group of one event shows little of how states are merged.
            shared = [column for column in expressions.columns if column.name in _SHARED]
            column = self._rng.choice(shared if shared and self._rng.random() < 0.7 else expressions.columns)
            return expressions.write(column), column.kind, ""
        self._features["group expression"] += 1
        return *expressions.varying(), ""

    def _alias(self, usual: str, sql: str, scope: set[str], taken: set[str]) -> str:
        chance = self._rng.random()
        if chance < 0.1:
            self._features["odd name"] += 1
            return f"{self._rng.choice(_ODD_NAMES)} {usual}"
        if chance < 0.2 and sql.lower() not in scope:
            self._features["alias hides a column"] += 1
            return next(name for name in ("country", "note", "weight", "quantity") if name not in taken)
        return usual

    def _aggregate(self, aggregates: Aggregates, groups: list[Column], number: int) -> Item:
        rng, name = self._rng, f"a{number}"
        chance = rng.random()
        if chance < 0.7 or "expression over aggregates" in self._off:
            call = aggregates.call()
            return Item(call.sql, name, call=call, scale=call.scale)
        self._features["expression over aggregates"] += 1
        if chance < 0.78:
            return self._inexact_expression(aggregates, name)
        calls = [aggregates.call(exact=True) for _ in range(rng.randint(1, 3))]
        # Of doubles the sign of a zero may differ, and so may what is computed from it.
        columns = [as_column(call) for call in calls if call.kind != DBL] + rng.sample(groups, min(len(groups), 1))
        if not any(call.kind != DBL for call in calls):
            return Item(calls[0].sql, name, call=calls[0])
        expressions = Expressions(rng, columns, self._features, wild=self._wild)
        for _ in range(20):
            sql, _ = expressions.any(3)
            if any(call.sql in sql for call in calls):
                return Item(sql, name)
        return Item(calls[0].sql, name, call=calls[0])

    def _inexact_expression(self, aggregates: Aggregates, name: str) -> Item:
        """Of rounded sums only what rounding passes through: no comparison and no cast to a whole number."""
        while True:
            call = aggregates.call()
            if call.scale is not None and call.scale.of == "sum":
                break
        text = self._rng.choice(("{} * 2", "-({})", "coalesce({}, 0)", "abs({})", "{} + count(*)", "round({}, 30)"))
        if "+" in text:
            return Item(text.format(call.sql), name, scale=replace(call.scale, sql=f"{call.scale.sql} + count(*)"))
        return Item(text.format(call.sql), name, scale=replace(call.scale, sql=f"2 * {call.scale.sql}"))

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
