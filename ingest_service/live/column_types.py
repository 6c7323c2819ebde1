"""How a DuckDB column stands in a store that knows fewer types: as what, and by which SQL it goes in and comes out.

The store may be any SQL database, and anyone may read it. Integers, doubles and booleans are what they are. Everything
else is text that DuckDB casts back to the same value: decimals and HUGEINT by all their digits, times as ISO 8601 in
UTC with a fixed number of digits, so that their text sorts as they do.
"""

from __future__ import annotations

import re
from enum import StrEnum

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_DOUBLES = {"FLOAT", "DOUBLE"}
_TEXTS = {"UBIGINT", "HUGEINT", "UHUGEINT", "UUID", "TIME", "BLOB", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}
_DECIMAL = re.compile(r"DECIMAL\(\d+,\d+\)")


class StoreForm(StrEnum):
    """What a column is in the store."""

    INTEGER = "integer"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    STRING = "string"  # text in itself
    TEXT = "text"  # a value of another type, written as DuckDB writes it; its text does not sort as it does
    INSTANT = "instant"  # TIMESTAMP WITH TIME ZONE as ISO text in UTC
    LOCAL_TIME = "local_time"  # TIMESTAMP without a zone, as ISO text
    DATE = "date"

    @property
    def sorts_in_store(self) -> bool:
        """Whether the store compares these values as DuckDB does."""
        return self in {StoreForm.INTEGER, StoreForm.INSTANT, StoreForm.LOCAL_TIME, StoreForm.DATE}


_FORMS = {
    "BOOLEAN": StoreForm.BOOLEAN,
    "VARCHAR": StoreForm.STRING,
    "TIMESTAMP WITH TIME ZONE": StoreForm.INSTANT,
    "TIMESTAMP": StoreForm.LOCAL_TIME,
    "DATE": StoreForm.DATE,
    **dict.fromkeys(_INTEGERS, StoreForm.INTEGER),
    **dict.fromkeys(_DOUBLES, StoreForm.DOUBLE),
    **dict.fromkeys(_TEXTS, StoreForm.TEXT),
}


def store_form(duckdb_type: str) -> StoreForm | None:
    """What a column of that type is in the store, or None for a type that a live view cannot have (lists, structs)."""
    return StoreForm.TEXT if _DECIMAL.fullmatch(duckdb_type) else _FORMS.get(duckdb_type)


def is_floating(duckdb_type: str) -> bool:
    """Whether values of that type have NaN and a negative zero."""
    return duckdb_type in _DOUBLES


def to_store(expression: str, form: StoreForm, whole_seconds: bool = False) -> str:
    """DuckDB SQL that makes of an expression what the store keeps.

    whole_seconds: the times are known to have no fraction (starts of windows), so none is written.
    """
    if form in {StoreForm.TEXT, StoreForm.DATE}:
        return f"CAST({expression} AS VARCHAR)"
    if form in {StoreForm.INSTANT, StoreForm.LOCAL_TIME}:
        fraction = "" if whole_seconds else ".%f"
        zone = "Z" if form is StoreForm.INSTANT else ""
        duckdb_type = "TIMESTAMPTZ" if form is StoreForm.INSTANT else "TIMESTAMP"
        # strftime writes years outside of 1 to 9999 in a way that no cast reads again; DuckDB's own text does.
        return (
            f"CASE WHEN {expression} >= {duckdb_type} '0001-01-01' AND {expression} < {duckdb_type} '10000-01-01' "
            f"THEN strftime({expression}, '%Y-%m-%dT%H:%M:%S{fraction}{zone}') ELSE CAST({expression} AS VARCHAR) END"
        )
    return expression


def exact_text(expression: str, duckdb_type: str) -> str:
    """DuckDB SQL whose text casts back to the same value of that type, NaN, infinities and minus zero included.

    DuckDB 2.0 writes some doubles wrong when they are cast to VARCHAR (2⁸¹ as 2⁸²), but not with printf.
    """
    return f"printf('%.17g', {expression})" if duckdb_type == "DOUBLE" else f"CAST({expression} AS VARCHAR)"


def doubles_text(expression: str) -> str:
    """The same for a list of doubles, none of them NULL."""
    return f"'[' || array_to_string(list_transform({expression}, lambda n: printf('%.17g', n)), ', ') || ']'"


def canonical_text(expression: str, duckdb_type: str) -> str:
    """DuckDB SQL whose text is equal exactly for values that DuckDB groups together; NULL stays NULL."""
    text = exact_text(expression, duckdb_type)
    if is_floating(duckdb_type):
        return f"CASE WHEN isnan({expression}) THEN 'nan' WHEN {expression} = 0 THEN '0' ELSE {text} END"
    return text


def quote(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
