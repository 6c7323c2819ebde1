"""Rows as lines of words, and values as JSON holds them without loss."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal


def words(row: Mapping[str, object], names: Iterable[str]) -> list[str]:
    """A row's values as `name=value`, those that are NULL left out."""
    return [f"{name}={_word(plain(row[name]))}" for name in names if row[name] is not None]


def _word(value: object) -> str:
    """A value on a line of words: text that is no plain word is quoted, and what a terminal would obey is escaped."""
    if isinstance(value, str):
        is_word = value.isprintable() and not set(value) & set(" \"'=")
        return value if is_word and value else json.dumps(value, ensure_ascii=not value.isprintable())
    return json.dumps(value, ensure_ascii=True)


def plain(value: object) -> object:
    """A value as JSON holds it without loss: exact numbers and times as text, bytes as hexadecimal digits."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    shown = value
    match value:
        case Decimal():
            shown = format(value, "f")
        case bytes():
            shown = value.hex()
        case dt.datetime():
            shown = value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
        case dt.date():
            shown = value.isoformat()
        case float() if not math.isfinite(value):
            shown = str(value)
    return shown
