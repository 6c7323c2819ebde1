"""The tables of a live view in the store, as SQLAlchemy sees them; the same for SQLite and PostgreSQL.

For a view `v`: `v`, its visible rows by `_key`, with `_changed`, the offset that the commit reached which last changed
the row, and `_corrected`, whether one changed it after its window had closed; `v__state`, the groups' states as text;
`v__distinct`, the values that count(distinct …) has seen; `v__sealed`, copies of visible rows, each made at a seal.
While a view is rebuilt, the new tables are called `v__rebuild`, `v__rebuild__state` and so on, until they take the old
ones' place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from ingest_service.errors import ViewRefused
from ingest_service.live.column_types import StoreForm
from ingest_service.live.description import ViewDescription

REBUILD = "__rebuild"
_PARTS = ("__state", "__distinct", "__sealed")
_OWN_COLUMNS = {
    "_key", "_changed", "_corrected", "_window_state", "_source", "_first_date", "_last_date", "_seal_offset",
}  # fmt: skip
_NAME_LENGTH_MAX = 63 - len(REBUILD) - len("__distinct")  # PostgreSQL cuts longer names


class StoredDouble(sa.types.TypeDecorator[float]):
    """A double that keeps NaN on SQLite, which would make it NULL: there it is the text 'NaN'."""

    impl = sa.Double
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Any:
        """On SQLite, NaN goes in as text."""
        if dialect.name != "sqlite":
            return super().bind_processor(dialect)
        return lambda value: "NaN" if value is not None and math.isnan(value) else value

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        """On SQLite, that text comes out as NaN."""
        if dialect.name != "sqlite":
            return super().result_processor(dialect, coltype)
        return lambda value: math.nan if value == "NaN" else value


_TYPES: dict[StoreForm, sa.types.TypeEngine[Any]] = {
    StoreForm.INTEGER: sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
    StoreForm.DOUBLE: StoredDouble(),
    StoreForm.BOOLEAN: sa.Boolean(),
}

_FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")  # which takes True and False as they are

bookkeeping = sa.MetaData()

checkpoints = sa.Table(
    "tidemill_views",
    bookkeeping,
    sa.Column("view", sa.Text, primary_key=True),
    sa.Column("stream", sa.Text, nullable=False),
    sa.Column("definition_hash", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("event_time_max_us", sa.BigInteger),
    sa.Column("append_time_max_us", sa.BigInteger),
    sa.Column("watermark_us", sa.BigInteger),
    sa.Column("expired_before_us", sa.BigInteger),
    sa.Column("build", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
)
"""One row a view, by the name of its visible table: what it is, and the offset that its rows cover. `build` is another
one for each time that its rows were made from the first event on, `model` what they are made by."""

seals = sa.Table(
    "tidemill_seals",
    bookkeeping,
    sa.Column("view", sa.Text, primary_key=True),
    sa.Column("first_date", sa.Text, primary_key=True),
    sa.Column("last_date", sa.Text, primary_key=True),
    sa.Column("seal_offset", sa.BigInteger, primary_key=True),
)
"""One row for each copy of sealed rows, so that a date without rows is known to be sealed too."""


reconciled = sa.Table(
    "tidemill_reconciled",
    bookkeeping,
    sa.Column("view", sa.Text, primary_key=True),
    sa.Column("date", sa.Text, primary_key=True),
    sa.Column("seal_offset", sa.BigInteger, nullable=False),
)
"""Up to which seal a view's windows of a date were found equal to batch: what must be known before they leave it."""


@dataclass(frozen=True)
class ViewTables:
    """The tables of one view."""

    name: str
    description: ViewDescription
    visible: sa.Table
    state: sa.Table
    distinct: sa.Table
    sealed: sa.Table

    @classmethod
    def of(cls, description: ViewDescription, *, rebuild: bool = False) -> ViewTables:
        """The tables of a view, or those in which it is rebuilt; the same objects each time.

        SQLAlchemy keeps what it compiled by table object: new ones for each query would cost more than the query.
        """
        return _tables(description, rebuild)

    @classmethod
    def build(cls, description: ViewDescription, rebuild: bool) -> ViewTables:
        """Makes the table objects; `of` keeps them."""
        name = description.view + (REBUILD if rebuild else "")
        metadata = sa.MetaData()
        states = [sa.Column(f"s{i}", sa.Text) for i in range(description.states)]
        seal: list[sa.Column[Any]] = [sa.Column(c, t, primary_key=True) for c, t in _SEAL_COLUMNS]
        changes: tuple[sa.Column[Any], ...] = (
            sa.Column("_changed", sa.BigInteger, nullable=False),
            sa.Column("_corrected", _FLAG, nullable=False),
        )
        values: list[sa.Column[Any]] = [
            sa.Column("state", sa.Integer, primary_key=True),
            sa.Column("value", sa.Text, primary_key=True),
        ]
        return cls(
            name,
            description,
            sa.Table(name, metadata, *_visible(description), _key(), *changes, sqlite_with_rowid=False),
            sa.Table(f"{name}__state", metadata, _key(), *states, sqlite_with_rowid=False),
            sa.Table(f"{name}__distinct", metadata, _key(), *values, sqlite_with_rowid=False),
            sa.Table(f"{name}__sealed", metadata, *seal, _key(), *_visible(description), sqlite_with_rowid=False),
        )

    @property
    def all(self) -> list[sa.Table]:
        """The view's tables."""
        return [self.visible, self.state, self.distinct, self.sealed]

    @property
    def visible_columns(self) -> list[sa.Column[Any]]:
        """The visible table's columns but for its key, in the model's order."""
        return [self.visible.c[column.name] for column in self.description.columns]


@lru_cache(maxsize=256)
def _tables(description: ViewDescription, rebuild: bool) -> ViewTables:
    return ViewTables.build(description, rebuild)


_SEAL_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("_first_date", sa.Text),
    ("_last_date", sa.Text),
    ("_seal_offset", sa.BigInteger),
)


def _key() -> sa.Column[str]:
    return sa.Column("_key", sa.Text, primary_key=True)


def _visible(description: ViewDescription) -> list[sa.Column[Any]]:
    pairs = zip(description.columns, description.forms, strict=True)
    return [sa.Column(column.name, _TYPES.get(form, sa.Text())) for column, form in pairs]


def check_names(description: ViewDescription, path: str, others: Iterable[str]) -> None:
    """Refuses a view whose tables or columns would clash with others'; `others` are the names of the other views."""
    name = description.view
    if name.lower().startswith(("tidemill_", "sqlite_")):
        raise ViewRefused(
            f"{path}: a live view's name may not begin with tidemill_ or sqlite_; rename the model {name}"
        )
    if len(name) > _NAME_LENGTH_MAX:
        raise ViewRefused(f"{path}: the name {name} is longer than {_NAME_LENGTH_MAX} characters; rename the model")
    taken = {other.lower() + part: other for other in others for part in ("", *_table_parts())}
    for part in ("", *_table_parts()):
        if name.lower() + part in taken:
            other = taken[name.lower() + part]
            raise ViewRefused(
                f"{path}: the tables of {name} would clash with those of the live view {other}; rename one"
            )
    columns = [column.name.lower() for column in description.columns]
    for column in columns:
        if column in _OWN_COLUMNS or columns.count(column) > 1:
            why = "twice" if columns.count(column) > 1 else "and Tidemill keeps a column of that name itself"
            raise ViewRefused(f"{path}: the model has a column {column} {why}; give it another alias")


def _table_parts() -> list[str]:
    return [*_PARTS, REBUILD, *(REBUILD + part for part in _PARTS)]
