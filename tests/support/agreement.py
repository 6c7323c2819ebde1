"""Compares a live view with DuckDB over all rows, by the exactness that the design states.

Equal are exact columns: NULL is NULL, NaN is NaN, and 0.0 is -0.0, of which either may stand for a group. A column with
a relative tolerance may differ by that share of batch's value. Where a result is a small difference of large numbers,
no tolerance relative to the result can hold, in any order of rows: then, if the caller knows how large the numbers
were (`Yardstick`), that counts instead:

- a sum, or an average, of doubles: 1e-9 of the sum, or average, of their magnitudes;
- a variance: 1e-6 of it and 1e-12 of the mean square: the first counts where the spread is more than a thousandth of
  the mean;
- a standard deviation: 1e-6 of it and 1e-6 of the root of the mean square.

Where these magnitudes themselves are beyond 1e300 sums may overflow in one order and not in another: nothing is said.
An approximate quantile lies between the values whose ranks are rank_error, and one row, from the one asked for; a value
counts as another when they differ by less than 1e-9 of it, or by 1e-300, since digests are made of doubles.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from ingest_service.live.description import ViewColumn

Row = tuple[Any, ...]
VALUE_SLACK = 1e-9
_BEYOND = 1e300
_MEAN_SQUARE = 1e-12


class Disagreement(AssertionError):
    """Live and batch differ by more than the design allows."""


@dataclass(frozen=True)
class Yardstick:
    """How large the numbers were that a column of one row is made of; see `of` in random_aggregates.Scale."""

    of: str
    value: Any
    quantile: float = 0.0


def compare(
    live: pa.Table,
    batch: pa.Table,
    columns: Sequence[ViewColumn],
    group_columns: Sequence[str],
    yardsticks: Mapping[Row, Mapping[str, Yardstick]] | None = None,
) -> int:
    """Raises Disagreement unless both have the same rows; gives their number.

    yardsticks: by a row's group values (`keys_of`) and the column's name.
    """
    _same("columns", live.schema.names, batch.schema.names)
    _same("types", live.schema.types, batch.schema.types)
    left, right = rows_by_key(live, group_columns, "live"), rows_by_key(batch, group_columns, "batch")
    missing, extra = [key for key in right if key not in left], [key for key in left if key not in right]
    if missing or extra:
        raise Disagreement(
            f"{len(left)} rows live, {len(right)} rows in batch; only in batch: {missing[:3]}; only live: {extra[:3]}"
        )
    for key, there in right.items():
        for column, a, b in zip(columns, left[key], there, strict=True):
            yardstick = (yardsticks or {}).get(key, {}).get(column.name)
            if not _agrees(a, b, column, yardstick):
                raise Disagreement(
                    f"{column.name} ({column.type}): live {a!r}, batch {b!r}, in the row {there}"
                    + (f", by {yardstick}" if yardstick else "")
                )
    return len(right)


def rows_by_key(table: pa.Table, group_columns: Sequence[str], where: str) -> dict[Row, Row]:
    """A table's rows as plain values, by their group's values; two rows of a group are a Disagreement."""
    values = [_plain(column) for column in table.columns]
    places = [table.schema.names.index(name) for name in group_columns]
    found: dict[Row, Row] = {}
    for row in zip(*values, strict=True):
        key = tuple(_canonical(row[i]) for i in places)
        if key in found:
            raise Disagreement(f"the group {key} comes twice in {where}: {found[key]} and {row}")
        found[key] = row
    return found


def _same(what: str, live: Any, batch: Any) -> None:
    if live != batch:
        raise Disagreement(f"the {what} differ: live {live}, batch {batch}")


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """Times as numbers: Python's own do not reach as far as DuckDB's."""
    if pt.is_timestamp(column.type) or pt.is_time64(column.type):
        column = column.cast(pa.int64())
    elif pt.is_date32(column.type):
        column = column.cast(pa.int32())
    values = list(column.to_pylist())
    if isinstance(column.type, pa.OpaqueType) and column.type.type_name in {"hugeint", "uhugeint"}:
        signed = column.type.type_name == "hugeint"
        return [value and int.from_bytes(value, "little", signed=signed) for value in values]
    return values


def _canonical(value: Any) -> Any:
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value + 0.0  # -0.0 + 0.0 is 0.0
    return value


def _agrees(live: Any, batch: Any, column: ViewColumn, yardstick: Yardstick | None) -> bool:
    if column.rank_error and yardstick is not None and yardstick.of == "quantile":
        return _is_about(live, yardstick, column.rank_error)
    if column.exact or live is None or batch is None or not isinstance(batch, float):
        return bool(_canonical(live) == _canonical(batch))
    magnitude = yardstick.value if yardstick is not None and yardstick.value is not None else 0.0
    if not magnitude < _BEYOND:
        return True
    if not (math.isfinite(live) and math.isfinite(batch)):
        return bool(_canonical(live) == _canonical(batch))
    return bool(abs(live - batch) <= column.relative_tolerance * abs(batch) + _floor(column, yardstick, magnitude))


def _floor(column: ViewColumn, yardstick: Yardstick | None, magnitude: float) -> float:
    """By how much results may differ however small they are."""
    of = yardstick.of if yardstick is not None else ""
    if of == "square":
        return _MEAN_SQUARE * magnitude
    if of == "root":
        return math.sqrt(_MEAN_SQUARE * magnitude)
    return column.relative_tolerance * magnitude


def is_between(live: Any, low: Any, high: Any) -> bool:
    """Whether an approximate quantile lies between two values, give or take what digests of doubles lose."""
    if low is None or high is None or live is None:
        return live is None and low is None and high is None
    slack = VALUE_SLACK * abs(float(live)) + 1e-300
    return float(low) - slack <= float(live) <= float(high) + slack


def _is_about(live: Any, yardstick: Yardstick, rank_error: float) -> bool:
    """Whether a value's ranks reach to within the rank error, and one row, of the one that was asked for."""
    values = sorted(value for value in yardstick.value or [] if math.isfinite(value))
    if not values or live is None:
        return not values and live is None
    slack = VALUE_SLACK * abs(float(live)) + 1e-300
    below = bisect.bisect_left(values, float(live) - slack) / len(values)
    up_to = bisect.bisect_right(values, float(live) + slack) / len(values)
    allowed = rank_error + 1 / len(values)
    return below - allowed <= yardstick.quantile <= up_to + allowed
