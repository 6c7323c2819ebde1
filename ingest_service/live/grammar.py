"""The part of SQL in which a live view can be written: reads a model's SQL, and refuses what lies outside.

One SELECT with aggregates, over one stream. Before it there may be CTEs and subqueries without aggregation, each a
plain SELECT … FROM … WHERE …; after it, only `select * from` it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from ingest_service.live.duck import BATCH
from ingest_service.live.functions import Functions
from ingest_service.live.manifest import LiveModel, relation_of
from ingest_service.live.refusal import Refusal

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
    "joins": (
        "a join",
        "the other side's rows change too, and only the stream's arrive here",
        "join in a model that reads this one",
    ),
    "laterals": ("LATERAL", "it is a join", _DOWNSTREAM),
    "windows": ("WINDOW", "window functions see all rows at once", _DOWNSTREAM),
    "sample": ("SAMPLE", "it picks other rows each time", "filter by a hash of a column"),
    "pivots": ("PIVOT", "its columns depend on the rows", "write one aggregate with `filter (where …)` a column"),
}
_PLAIN_SELECT = {"kind", "hint", "expressions", "from_", "where", "group", "with_", "operation_modifiers", "exclude"}
_PLAIN_TABLE = {"this", "db", "catalog", "alias"}

# What an expression may not contain.
_NODES: tuple[tuple[type[exp.Expression], tuple[str, str, str]], ...] = (
    (exp.Window, ("a window function", "it sees all rows at once", "aggregate with `group by`, or " + _DOWNSTREAM)),
    (exp.Subquery, ("a subquery in an expression", "its rows change with every event", _DOWNSTREAM)),
    (exp.Query, ("a subquery in an expression", "its rows change with every event", _DOWNSTREAM)),
    (exp.Explode, ("UNNEST", "it makes several rows of one event", "make them events of their own")),
    (exp.Unnest, ("UNNEST", "it makes several rows of one event", "make them events of their own")),
    (exp.WithinGroup, ("an ordered aggregate", "its order needs all rows", "use min or max")),
    (exp.Order, ("ORDER BY in an aggregate", "its order needs all rows", "use min or max")),
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

    select: the one SELECT that aggregates, with its CTEs; the batch's table stands in place of the stream's source.
    stream: the stream that it reads.
    """

    select: exp.Select
    stream: str


class Grammar:
    """Reads one model."""

    def __init__(self, model: LiveModel, functions: Functions) -> None:
        self._model = model
        self._functions = functions
        self.refusal = Refusal(model)
        self._streams: set[str] = set()

    def read(self) -> ModelQuery:
        """The model's query; raises ViewRefused with the first thing that lies outside the grammar."""
        select = self._unwrap(self._parse())
        self._check_select(select, aggregates=True, ctes=self._ctes(select))
        if not self._streams:
            raise self.refusal.at(select, "a model without a stream", "no event changes it", f"read {self._sources()}")
        return ModelQuery(select, self._streams.pop())

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

    def _ctes(self, select: exp.Select) -> set[str]:
        """Checks the CTEs in their order, each of which may use those before it; gives their names."""
        names: set[str] = set()
        with_ = select.args.get("with_")
        if with_ is not None and with_.args.get("recursive"):
            raise self.refusal.at(with_, "WITH RECURSIVE", "it reads its own result", _DOWNSTREAM)
        for cte in select.ctes:
            self._check_select(self._as_select(cte.this), aggregates=False, ctes=names)
            names.add(cte.alias.lower())
        return names

    def _check_select(self, select: exp.Select, *, aggregates: bool, ctes: set[str]) -> None:
        if not aggregates:
            ctes = ctes | self._ctes(select)
        for key, value in select.args.items():
            if value and key not in _PLAIN_SELECT:
                clause = _CLAUSES.get(key, (key.upper(), "it is not known how to merge it", _DOWNSTREAM))
                raise self.refusal.at(value[0] if isinstance(value, list) else value, *clause)
        self._check_from(select, ctes)
        parts = [*select.expressions, select.args.get("where"), select.args.get("group")]
        for part in filter(None, parts):
            self._check_expression(part, aggregates=aggregates)
        if aggregates:
            self._check_aggregation(select)

    def _check_from(self, select: exp.Select, ctes: set[str]) -> None:
        from_ = select.args.get("from_")
        if from_ is None:
            raise self.refusal.at(select, "a SELECT without FROM", "no event changes it", f"read {self._sources()}")
        source = from_.this
        for key, value in source.args.items():
            if value and key not in _PLAIN_TABLE:
                clause = _CLAUSES.get(key, (key.upper(), "it is not known how to merge it", _DOWNSTREAM))
                raise self.refusal.at(value[0] if isinstance(value, list) else value, *clause)
        if isinstance(source, exp.Subquery):
            self._check_select(self._as_select(source.this), aggregates=False, ctes=ctes)
        elif not (isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier)):
            raise self.refusal.at(
                source, f"reading {source.sql('duckdb')}", "only a stream's rows arrive", f"read {self._sources()}"
            )
        elif len(source.parts) > 1 or source.name.lower() not in ctes:
            self._take_source(source)

    def _take_source(self, table: exp.Table) -> None:
        """Puts the batch where the stream's source stands."""
        stream = self._model.streams.get(relation_of(table))
        if stream is None:
            raise self.refusal.at(
                table,
                f"reading {table.sql('duckdb')}",
                "it is no stream's source",
                f"read {self._sources()} directly, without a model between",
            )
        if self._streams:
            raise self.refusal.at(
                table, "reading a stream twice", "their rows arrive one after another", "read one stream once"
            )
        self._streams.add(stream)
        batch = exp.to_table(BATCH)
        batch.set("alias", table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
        table.replace(batch)

    def _check_expression(self, part: exp.Expression, *, aggregates: bool) -> None:
        for node in part.walk():
            for kind, clause in _NODES:
                if isinstance(node, kind):
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

    def _check_aggregation(self, select: exp.Select) -> None:
        for item in select.expressions:
            inner = item.unalias()
            if isinstance(inner, exp.Star | exp.Columns) or (
                isinstance(inner, exp.Column) and isinstance(inner.this, exp.Star)
            ):
                raise self.refusal.at(
                    inner, "`*` in the select list", "a view's columns are declared", "name the columns"
                )
            for call in self.aggregates(item):
                if any(other is not call and self._functions.is_aggregate(other) for other in call.walk()):
                    raise self.refusal.at(
                        call,
                        f"an aggregate in an aggregate ({call.sql('duckdb')})",
                        "there is one aggregation",
                        _DOWNSTREAM,
                    )
        group = select.args.get("group")
        if group is None and not any(True for item in select.expressions for _ in self.aggregates(item)):
            raise self.refusal.at(
                select,
                "a SELECT without aggregation",
                "the view would hold every event",
                "add aggregates such as count(*), and `group by all`",
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
