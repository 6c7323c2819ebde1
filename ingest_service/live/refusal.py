"""Says why a model cannot be a live view, and where in its file the reason stands."""

from __future__ import annotations

from sqlglot import exp

from ingest_service.errors import ViewRefused
from ingest_service.live.manifest import LiveModel


class Refusal:
    """Makes the refusals of one model: file, line and column, what is wrong, why, and what would work."""

    def __init__(self, model: LiveModel) -> None:
        self._model = model

    def at(self, node: exp.Expression | None, what: str, why: str, instead: str) -> ViewRefused:
        """A refusal that points at a node of the compiled SQL's tree."""
        line, column = _position(node)
        return self.at_position(line, column, f"{what} cannot be kept up to date as events arrive: {why}; {instead}")

    def at_position(self, line: int | None, column: int | None, text: str) -> ViewRefused:
        """A refusal at a line and column of the compiled SQL (from 1), as far as they are known."""
        return ViewRefused(f"{self._place(line, column)}: {text}")

    def _place(self, line: int | None, column: int | None) -> str:
        if line is None:
            return self._model.path
        compiled = _line(self._model.sql, line)
        if _line(self._model.raw_sql, line) == compiled:
            return f"{self._model.path}:{line}:{column}"
        # Jinja changes line numbers, so the file's line is found by its text; only one that is there once is sure.
        same = [i for i, text in enumerate(self._model.raw_sql.splitlines(), 1) if text == compiled]
        if len(same) == 1:
            return f"{self._model.path}:{same[0]}:{column}"
        return f"{self._model.path} (line {line}, column {column} of its compiled SQL)"


def _line(sql: str, number: int) -> str | None:
    lines = sql.splitlines()
    return lines[number - 1] if 0 < number <= len(lines) else None


def _position(node: exp.Expression | None) -> tuple[int | None, int | None]:
    """Where the node starts; where the parser kept no place, that of its parts or else of what it stands in."""
    while node is not None:
        metas = [part.meta for part in node.walk() if "line" in part.meta]
        if metas:
            return min((meta["line"], meta["col"] - (meta["end"] - meta["start"])) for meta in metas)
        node = node.parent
    return None, None
