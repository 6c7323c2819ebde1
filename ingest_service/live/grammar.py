"""The part of SQL in which a live view can be written: reads a model's SQL, and refuses what lies outside.

One SELECT over one stream, with aggregates, or without: then the view's rows are events. Before it there may be CTEs
and subqueries without aggregation, each a plain SELECT … FROM … WHERE …; after it, only `select * from` it. A SELECT
may join seeds, whose rows do not change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from ingest_service.live.duck import BATCH
from ingest_service.live.functions import Functions
from ingest_service.live.manifest import LiveModel, relation_of
from ingest_service.live.refusal import Refusal
from ingest_service.live.seeds import Seed

# It warns of what other databases would make of the SQL.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

_WHOLE = "a later event could change rows that were already decided, or the answer depends on all rows at once"
_DOWNSTREAM = "do it in a model that reads this one"

# What a SELECT may not have: key in sqlglot's tree → construct, why, what would work.
_CLAUSES: dict[str, tuple[str, str, str]] = {
    "having": (
        "HAVING",
        "a group that fails it now may pass it with the next event",
        "filter where the view is read, or " + _DOWNSTREAM,
    ),
    "order": ("ORDER BY", "a table has no order", "sort where the view is read"),
    "limit": ("LIMIT", _WHOLE, "limit where the view is read"),
    "offset": ("OFFSET", _WHOLE, "limit where the view is read"),
    "qualify": ("QUALIFY", "window functions see all rows at once", _DOWNSTREAM),
    "distinct": ("DISTINCT", "it is a grouping in disguise", "write `group by all` instead"),
    "laterals": ("LATERAL", "it is a join", _DOWNSTREAM),
    "windows": ("WINDOW", "window functions see all rows at once", _DOWNSTREAM),
    "sample": ("SAMPLE", "it picks other rows each time", "filter by a hash of a column"),
    "pivots": ("PIVOT", "its columns depend on the rows", "write one aggregate with `filter (where …)` a column"),
}
_PLAIN_SELECT = {
    *("kind", "hint", "expressions", "from_", "joins", "where", "group", "with_", "operation_modifiers", "exclude")
}
_PLAIN_TABLE = {"this", "db", "catalog", "alias"}
_PLAIN_JOIN = {"this", "side", "kind", "on", "using"}
_JOINS = {("", ""), ("", "INNER"), ("LEFT", ""), ("LEFT", "OUTER"), ("", "SEMI"), ("", "ANTI"), ("", "CROSS")}

# What an expression may not contain.
_NODES: tuple[tuple[type[exp.Expression], tuple[str, str, str]], ...] = (
    (exp.Window, ("a window function", "it sees all rows at once", "aggregate with `group by`, or " + _DOWNSTREAM)),
    (exp.Subquery, ("a subquery in an expression", "its rows change with every event", _DOWNSTREAM)),
    (exp.Query, ("a subquery in an expression", "its rows change with every event", _DOWNSTREAM)),
    (exp.Explode, ("UNNEST", "it makes several rows of one event", "make them events of their own")),
    (exp.Unnest, ("UNNEST", "it makes several rows of one event", "make them events of their own")),
    (exp.WithinGroup, ("an ordered aggregate", "its order needs all rows", "use min or max")),
    (exp.Order, ("ORDER BY in an aggregate", "its order needs all rows", "use min, max, first or last")),
    (exp.IgnoreNulls, ("IGNORE NULLS", "this aggregate depends on the order of rows", "use min or max")),
    (exp.RespectNulls, ("RESPECT NULLS", "this aggregate depends on the order of rows", "use min or max")),
    (exp.Rollup, ("ROLLUP", "it groups in several ways at once", "write a model for each grouping")),
    (exp.Cube, ("CUBE", "it groups in several ways at once", "write a model for each grouping")),
    (exp.GroupingSets, ("GROUPING SETS", "it groups in several ways at once", "write a model for each grouping")),
    (exp.Placeholder, ("a parameter", "nobody gives its value", "write the value")),
    (exp.Parameter, ("a parameter", "nobody gives its value", "write the value")),
)  # fmt: skip


@dataclass(frozen=True)
class ModelQuery:
    """A model's SQL that is inside the grammar.

    select: the last SELECT, with its CTEs; the batch's table stands in place of the stream's source, and a seed's own
    table in place of the seed. stream: the stream that it reads. seeds: those that it joins. is_of_events: it does not
    aggregate.
    """

    select: exp.Select
    stream: str
    seeds: tuple[Seed, ...]
    is_of_events: bool


class Grammar:
    """Reads one model."""

    def __init__(self, model: LiveModel, functions: Functions) -> None:
        self._model = model
        self._functions = functions
        self.refusal = Refusal(model)
        self._streams: set[str] = set()
        self._seeds: dict[str, Seed] = {}

    def read(self) -> ModelQuery:
        """The model's query; raises ViewRefused with the first thing that lies outside the grammar."""
        select = self._unwrap(self._parse())
        reads_stream = self._check_select(select, is_last=True, ctes=self._ctes(select))
        if not reads_stream:
            raise self.refusal.at(select, "a model without a stream", "no event changes it", f"read {self._sources()}")
        group = select.args.get("group")
        aggregates = any(True for item in select.expressions for _ in self.aggregates(item))
        return ModelQuery(select, self._streams.pop(), tuple(self._seeds.values()), group is None and not aggregates)

    def _parse(self) -> exp.Select:
        try:
            trees = [tree for tree in sqlglot.parse(self._model.sql, dialect="duckdb") if tree is not None]
        except (ParseError, TokenError) as error:
            first = (getattr(error, "errors", None) or [{"line": None, "col": None, "description": str(error)}])[0]
            text = f"this SQL is not understood: {first['description']}"
            raise self.refusal.at_position(first["line"], first["col"], text) from error
        if len(trees) != 1 or not isinstance(trees[0], exp.Query):
            raise self.refusal.at(
                trees[-1] if trees else None, "anything but one SELECT", "a model is one query", "write one SELECT"
            )
        return self._as_select(trees[0])

    def _as_select(self, tree: exp.Expression) -> exp.Select:
        while isinstance(tree, exp.Subquery):
            tree = tree.this
        if isinstance(tree, exp.SetOperation):
            raise self.refusal.at(
                tree,
                tree.key.upper(),
                "each branch would aggregate on its own",
                "filter with `filter (where …)`, or " + _DOWNSTREAM,
            )
        if not isinstance(tree, exp.Select):
            raise self.refusal.at(tree, tree.key.upper(), "it is no SELECT", "write one SELECT")
        return tree

    def _unwrap(self, select: exp.Select) -> exp.Select:
        """Takes off the `select * from final` with which dbt models like to end."""
        while self._is_bare_star(select):
            source = select.args["from_"].this
            ctes = list(select.ctes)
            if isinstance(source, exp.Subquery):
                inner = self._as_select(source.this)
            elif (
                isinstance(source, exp.Table)
                and ctes
                and source.name.lower() == ctes[-1].alias.lower()
                and not source.db
            ):
                inner = self._as_select(ctes.pop().this)
            else:
                break
            if ctes:
                inner.set("with_", exp.With(expressions=[*ctes, *inner.ctes]))
            inner.pop()
            select = inner
        return select

    @staticmethod
    def _is_bare_star(select: exp.Select) -> bool:
        present = {key for key, value in select.args.items() if value}
        star = (
            len(select.expressions) == 1
            and isinstance(select.expressions[0], exp.Star)
            and not any(select.expressions[0].args.values())
        )
        return star and present <= {"expressions", "from_", "with_"} and "from_" in present

    def _ctes(self, select: exp.Select) -> dict[str, bool]:
        """Checks the CTEs in their order, each of which may use those before it; which of them read the stream."""
        known: dict[str, bool] = {}
        with_ = select.args.get("with_")
        if with_ is not None and with_.args.get("recursive"):
            raise self.refusal.at(with_, "WITH RECURSIVE", "it reads its own result", _DOWNSTREAM)
        for cte in select.ctes:
            known[cte.alias.lower()] = self._check_select(self._as_select(cte.this), is_last=False, ctes=known)
        return known

    def _check_select(self, select: exp.Select, *, is_last: bool, ctes: dict[str, bool]) -> bool:
        """Checks one SELECT; whether the stream's rows come through it. `is_last`: it may aggregate."""
        if not is_last:
            ctes = ctes | self._ctes(select)
        for key, value in select.args.items():
            if value and key not in _PLAIN_SELECT:
                clause = _CLAUSES.get(key, (key.upper(), "it is not known how to merge it", _DOWNSTREAM))
                raise self.refusal.at(value[0] if isinstance(value, list) else value, *clause)
        from_ = select.args.get("from_")
        if from_ is None:
            raise self.refusal.at(select, "a SELECT without FROM", "no event changes it", f"read {self._sources()}")
        reads_stream = self._check_relation(from_.this, ctes)
        for join in select.args.get("joins") or ():
            self._check_join(join, ctes, reads_stream=reads_stream)
        parts = [*select.expressions, select.args.get("where"), select.args.get("group")]
        for part in filter(None, parts):
            self._check_expression(part, aggregates=is_last)
        if is_last:
            self._check_aggregation(select)
        elif select.args.get("group"):
            what, why = "grouping before the aggregation", "a group may get more rows with every event"
            raise self.refusal.at(select.args["group"], what, why, "group once, in the last SELECT")
        return reads_stream

    def _check_join(self, join: exp.Join, ctes: dict[str, bool], *, reads_stream: bool) -> None:
        """A join keeps its place for every later event as long as only the stream's side of it grows."""
        way = str(join.args.get("side") or "").upper(), str(join.args.get("kind") or "").upper()
        more = [key for key, value in join.args.items() if value and key not in _PLAIN_JOIN]
        if way not in _JOINS or more:
            words = " ".join(filter(None, (*way, str(join.args.get("method") or "").upper())))
            raise self.refusal.at(
                join, f"{words or 'such a'} JOIN", _WHOLE, "write JOIN or LEFT JOIN, with the stream on the left"
            )
        if self._check_relation(join.this, ctes):
            if reads_stream:
                what, why = "joining a stream", "the other side's rows change too"
                raise self.refusal.at(join, what, why, "join in a model that reads this one, or join a seed")
            what, why = "joining a stream to a seed", "the seed's rows would have to wait for later events"
            raise self.refusal.at(join, what, why, "put the stream into FROM, and join the seed to it")
        if join.args.get("on") is not None:
            self._check_expression(join.args["on"], aggregates=False)

    def _check_relation(self, source: exp.Expression, ctes: dict[str, bool]) -> bool:
        """What stands behind FROM or JOIN; whether the stream's rows come through it."""
        for key, value in source.args.items():
            if value and key not in _PLAIN_TABLE:
                clause = _CLAUSES.get(key, (key.upper(), "it is not known how to merge it", _DOWNSTREAM))
                raise self.refusal.at(value[0] if isinstance(value, list) else value, *clause)
        if isinstance(source, exp.Subquery):
            return self._check_select(self._as_select(source.this), is_last=False, ctes=ctes)
        if not (isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier)):
            raise self.refusal.at(
                source, f"reading {source.sql('duckdb')}", "only a stream's rows arrive", f"read {self._sources()}"
            )
        if len(source.parts) == 1 and source.name.lower() in ctes:
            return ctes[source.name.lower()]
        return self._take_table(source)

    def _take_table(self, table: exp.Table) -> bool:
        """Puts the batch where the stream's source stands, or a seed's table; whether it is a stream."""
        relation = relation_of(table)
        stream, seed = self._model.streams.get(relation), self._model.seeds.get(relation)
        if stream is None and seed is None:
            raise self.refusal.at(
                table,
                f"reading {table.sql('duckdb')}",
                "it is no stream's source, and no seed",
                f"read {self._sources()} directly, without a model between",
            )
        if stream is not None and self._streams:
            raise self.refusal.at(
                table, "reading a stream twice", "their rows arrive one after another", "read one stream once"
            )
        if seed is not None:
            self._seeds[seed.table] = seed
        self._streams |= {stream} if stream is not None else set()
        taken = exp.to_table(BATCH if seed is None else seed.table)
        taken.set("alias", table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.replace(taken)
        return stream is not None

    def _check_expression(self, part: exp.Expression, *, aggregates: bool) -> None:
        for node in part.walk():
            for kind, clause in _NODES:
                if isinstance(node, kind) and not self._orders_rows(node):
                    raise self.refusal.at(node, *clause)
            if isinstance(node, exp.Column) and len(node.parts) > 2:
                node.set("db", None)  # "db"."schema"."table".column: the batch's alias is the table's name
                node.set("catalog", None)
            if self._functions.is_unstable(node):
                raise self.refusal.at(
                    node,
                    f"{node.sql('duckdb').lower()}",
                    "its value depends on when it is asked",
                    "use a column: _append_time is when the log took the event",
                )
            if not aggregates and self._functions.is_aggregate(node):
                raise self.refusal.at(
                    node,
                    f"aggregating twice ({node.sql('duckdb')})",
                    "there is one aggregation, and this one stands before it",
                    _DOWNSTREAM,
                )

    @staticmethod
    def _orders_rows(node: exp.Expression) -> bool:
        """Whether it is the order of the rows that first or last take; `Aggregate` sees that it is a total one."""
        return isinstance(node, exp.Order) and isinstance(node.parent, exp.First | exp.Last)

    def _check_aggregation(self, select: exp.Select) -> None:
        for item in select.expressions:
            for call in self.aggregates(item):
                if any(other is not call and self._functions.is_aggregate(other) for other in call.walk()):
                    raise self.refusal.at(
                        call,
                        f"an aggregate in an aggregate ({call.sql('duckdb')})",
                        "there is one aggregation",
                        _DOWNSTREAM,
                    )
        where = select.args.get("where")
        for node in where.walk() if where is not None else ():
            if self._functions.is_aggregate(node):
                raise self.refusal.at(node, "an aggregate in WHERE", "WHERE comes before it", "use `filter (where …)`")

    def aggregates(self, item: exp.Expression) -> Iterator[exp.Expression]:
        """The aggregate calls in a select item, from the outside in."""
        return (node for node in item.walk() if self._functions.is_aggregate(node))

    def _sources(self) -> str:
        return " or ".join(sorted({".".join(relation) for relation in self._model.streams})) or "a source of a stream"
