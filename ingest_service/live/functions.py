"""What DuckDB says of its own functions: which aggregate, and which answer differently each time they are asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.tokens import TokenType

# Written without parentheses, so they stand in no list of functions; `age` of one argument counts from today.
_CLOCK_WORDS = frozenset(
    {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
    | {"current_user", "session_user", "user", "current_role", "current_catalog", "current_schema"}
)


@dataclass(frozen=True)
class Functions:
    """DuckDB's functions by name, in lower case."""

    aggregates: frozenset[str]
    unstable: frozenset[str]

    @classmethod
    def read(cls, duck: Any) -> Functions:
        """Asks a DuckDB connection."""
        rows = duck.execute(
            "SELECT DISTINCT lower(function_name), function_type, stability, lower(macro_definition) "
            "FROM duckdb_functions()"
        ).fetchall()
        aggregates = {name for name, kind, _, _ in rows if kind == "aggregate"}
        # A scalar function of the same name (list, first) is not meant where an aggregate is.
        unstable = {name for name, kind, stability, _ in rows if kind == "scalar" and stability != "CONSISTENT"}
        unstable |= _CLOCK_WORDS
        for name, kind, _, definition in rows:
            words = set(re.findall(r"\w+", definition or ""))
            if kind == "macro" and words & unstable:
                unstable.add(name)
            elif kind == "macro" and aggregates.intersection(re.findall(r"(\w+)\(", definition or "")):
                aggregates.add(name)
        return cls(frozenset(aggregates), frozenset(unstable))

    def is_aggregate(self, node: exp.Expression) -> bool:
        """Whether a node is a call of an aggregate function."""
        return call_name(node) in self.aggregates

    def is_unstable(self, node: exp.Expression) -> bool:
        """Whether a node's value depends on when, where or how often it is computed."""
        name = call_name(node)
        return name in self.unstable or (name == "age" and len(node.args.get("expressions") or ()) == 1)


def call_name(node: exp.Expression) -> str | None:
    """The DuckDB function that a node calls, in lower case, or None when it is no call.

    The tree has classes for hundreds of functions, operators among them; only how a node is written in DuckDB's
    dialect says which function it is.
    """
    if not isinstance(node, exp.Func):
        return None
    tokens = sqlglot.tokenize(node.sql("duckdb", comments=False), dialect="duckdb")
    if len(tokens) == 1:
        return str(tokens[0].text).lower()
    if tokens[1].token_type is not TokenType.L_PAREN or tokens[-1].token_type is not TokenType.R_PAREN:
        return None
    depth = 0
    for token in tokens[1:-1]:
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
        if depth == 0:  # the first parenthesis closes before the end: an operator between calls
            return None
    return str(tokens[0].text).lower()
