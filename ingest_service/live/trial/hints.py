"""What models compare events with: made-up events should have such values now and then, or nothing comes of them."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from ingest_service.live.manifest import LiveModel

_SEED_ROWS_MAX = 50


@dataclass(frozen=True, slots=True)
class Hints:
    """The literals of models, and the first cells of the seeds that they join; each once, in a fixed order."""

    texts: tuple[str, ...] = ()
    numbers: tuple[Decimal, ...] = ()

    @classmethod
    def of(cls, models: Iterable[LiveModel]) -> Hints:
        """Those of some models; of SQL that is not understood there are none."""
        texts: dict[str, None] = {}
        numbers: dict[Decimal, None] = {}
        for model in models:
            for literal in (each for tree in parsed(model.sql) for each in tree.find_all(exp.Literal)):
                _add(str(literal.this), texts, numbers)
            for seed in model.seeds.values():
                rows = csv.reader(
                    io.StringIO(seed.content.removeprefix("\ufeff"), newline=""), delimiter=seed.delimiter
                )
                for cell in itertools.chain.from_iterable(itertools.islice(rows, 1, 1 + _SEED_ROWS_MAX)):
                    _add(cell, texts, numbers)
        return cls(tuple(texts), tuple(numbers))


@lru_cache(maxsize=256)
def parsed(sql: str) -> tuple[exp.Expression, ...]:
    """The trees of some SQL; none where it is not understood."""
    try:
        return tuple(tree for tree in sqlglot.parse(sql, dialect="duckdb") if tree is not None)
    except SqlglotError:
        return ()


def _add(text: str, texts: dict[str, None], numbers: dict[Decimal, None]) -> None:
    texts.setdefault(text)
    try:
        number = Decimal(text)
    except InvalidOperation:
        return
    if number.is_finite() and abs(number) < Decimal(10) ** 18:
        numbers.setdefault(number)
