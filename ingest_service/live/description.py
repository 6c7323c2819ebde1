"""What is known of a view without its plan: kept in the store beside its rows, so that old rows stay readable."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ingest_service.live.column_types import StoreForm


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """A column of a view.

    type: its DuckDB type. exact: live and batch must be equal; otherwise they may differ by relative_tolerance,
    relative to batch. rank_error: of an approximate quantile q; live lies between the exact ones of q less and plus it.
    """

    name: str
    type: str
    exact: bool
    relative_tolerance: float
    rank_error: float = 0.0


@dataclass(frozen=True, slots=True)
class ViewDescription:
    """A view's definition, as far as its rows need it.

    forms: what each column is in the store. whole_seconds: columns whose times are written without a fraction.
    states: how many state columns each group has. value_sets: which of them count a set that is kept as well.
    window_width: an SQL interval, how long a window is; "" for no windows, or when it is not known. window_days_max:
    into how many further days a window may reach. is_of_events: a row is an event, its window the event's instant.
    sql: the compiled model. bounds_sql: for approximate quantiles, a query over the relation `tidemill_batch`, the
    stream's rows, and seeds as `tidemill_seed_NAME`: the group columns, and for each such column its `NAME__low` and
    `NAME__high`; "" when there are none. format: of the store's tables.
    """

    view: str
    stream: str
    definition_hash: str
    columns: tuple[ViewColumn, ...]
    forms: tuple[StoreForm, ...]
    whole_seconds: tuple[str, ...]
    group_columns: tuple[str, ...]
    window_column: str
    states: int
    value_sets: tuple[int, ...]
    window_width: str = ""
    window_days_max: int = 0
    is_of_events: bool = False
    sql: str = ""
    bounds_sql: str = ""
    format: int = 0

    def to_json(self) -> str:
        """The description as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ViewDescription:
        """The description that `to_json` wrote; fields that an earlier release did not have are at their defaults."""
        fields = json.loads(text)
        fields["columns"] = tuple(ViewColumn(**column) for column in fields["columns"])
        fields["forms"] = tuple(StoreForm(form) for form in fields["forms"])
        for name in ("whole_seconds", "group_columns", "value_sets"):
            fields[name] = tuple(fields[name])
        return cls(**fields)
