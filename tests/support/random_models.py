"""Random models over the whole grammar of live views, as dbt would compile them.

Not made on purpose, since DuckDB itself answers differently from run to run: see random_expressions, and first, last,
arg_min and arg_max where a join has made several rows of one event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from support.random_aggregates import Aggregates, Call, Scale, as_column
from support.random_expressions import (
    DATE,
    DBL,
    INT,
    OTHER,
    TIME,
    Column,
    Expressions,
    Role,
    quoted,
)
from support.random_relations import ODD_NAMES, RandomRelations

_SHARED = {"small", "ratio", "gift", "customer_id", "country", "note", "event_date", "region", "zone", "segment"}
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
    def name(self) -> str:
        """What DuckDB calls it."""
        return self.alias or self.sql

    @property
    def shown(self) -> str:
        """As the select list has it."""
        if not self.alias:
            return self.sql
        return f"{self.sql} as {self.alias if self.alias.isidentifier() else quoted(self.alias)}"


@dataclass(frozen=True)
class Model:
    """A model in parts, so that a failing one can be made smaller.

    before, after: what stands around the select list; end: what stands behind GROUP BY. grouping: how GROUP BY names
    its groups. features: what was made, counted.
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


class RandomModels(RandomRelations):
    """Makes models. off: features not to be used, by the names that `Model.features` counts."""

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
        times = [column.name.lower() for column in expressions.columns if column.role is Role.EVENT_TIME]
        windows, groups, kinds = [], [], []
        for i in range(rng.choice((0, 1, 1, 2, 2, 3))):
            sql, kind, window = self._group(expressions)
            taken = {group.name.lower() for group in groups}
            groups.append(Item(sql, self._alias(f"g{i}", sql, scope, taken), is_group=True))
            windows.append(window or ("other" if any(name in sql.lower() for name in times) else ""))
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
        if chance < 0.8:
            self._features["other type"] += 1
            return expressions.other(), OTHER, ""
        self._features["group expression"] += 1
        return *expressions.varying(), ""

    def _alias(self, usual: str, sql: str, scope: set[str], taken: set[str]) -> str:
        chance = self._rng.random()
        if chance < 0.15 and sql.isidentifier() and sql.lower() not in taken:
            self._features["no alias"] += 1
            return ""
        if chance < 0.1:
            self._features["odd name"] += 1
            return f"{self._rng.choice(ODD_NAMES)} {usual}"
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
