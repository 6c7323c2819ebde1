"""Operations on the tree of a model's last SELECT."""

from __future__ import annotations

from sqlglot import exp


def normal_sql(node: exp.Expression) -> str:
    """A node's SQL without what does not matter: layout, comments, letter case of names."""

    def lower(part: exp.Expression) -> exp.Expression:
        return exp.to_identifier(part.name.lower(), quoted=False) if isinstance(part, exp.Identifier) else part

    return str(node.copy().transform(lower).sql("duckdb", comments=False))


def scope_sql(select: exp.Select) -> str:
    """A query that yields the columns which the SELECT can name: those of what it reads."""
    scope = exp.Select(expressions=[exp.Star()], from_=select.args["from_"].copy())
    for key in ("with_", "joins"):
        value = select.args.get(key)
        if value:
            scope.set(key, [each.copy() for each in value] if isinstance(value, list) else value.copy())
    return str(scope.sql("duckdb"))


def relation_queries(select: exp.Select) -> dict[str, str]:
    """For each relation that the SELECT reads, by the name it has there, a query that yields its columns."""
    queries = {}
    for relation in [select.args["from_"].this, *(join.this for join in select.args.get("joins") or ())]:
        query = exp.Select(expressions=[exp.Star()], from_=exp.From(this=relation.copy()))
        if select.args.get("with_"):
            query.set("with_", select.args["with_"].copy())
        queries[relation.alias_or_name.lower()] = str(query.sql("duckdb"))
    return queries


def plain_columns(select: exp.Select, scope: set[str], shared: set[str]) -> None:
    """Makes every name in the SELECT the name of a column of what it reads, without qualifier where that is enough.

    DuckDB lets later parts of a SELECT use the aliases of earlier ones, unless a column has that name. The merge plan
    takes the select list apart, so such an alias is replaced by what it stands for.
    scope: the columns of what it reads; shared: those that several of its relations have, which stay qualified.
    """
    aliases: dict[str, exp.Expression] = {}

    def plain(node: exp.Expression) -> exp.Expression:
        if not isinstance(node, exp.Column):
            return node
        name = node.name.lower()
        if node.table:
            return node if name in shared else exp.Column(this=node.this.copy())
        meant = aliases.get(name)
        return node if meant is None or name in scope else exp.paren(meant.copy())

    items = []
    for item in select.expressions:
        items.append(item.transform(plain))
        if isinstance(item, exp.Alias):
            aliases[item.alias.lower()] = items[-1].unalias()
    select.set("expressions", items)
    for key in ("where", "group"):
        if select.args.get(key):
            select.set(key, select.args[key].transform(plain))


def group_expressions(select: exp.Select) -> list[exp.Expression]:
    """What an explicit GROUP BY names; a number stands for its column of the select list. [] for `group by all`."""
    group = select.args.get("group")
    found = []
    for expression in group.expressions if group is not None else ():
        inner = expression.unnest()  # an alias that was replaced stands in parentheses
        if isinstance(inner, exp.Literal) and not inner.is_string:
            found.append(select.expressions[int(inner.name) - 1].unalias().unnest())
        elif not (isinstance(inner, exp.Column) and inner.name.lower() == "all"):
            found.append(inner)
    return found
