"""Where batch ends and live begins in a view that is read across time: by the UTC date on which a window begins.

The dates that were reconciled and published come from batch, all others from live. No row is missing and none comes
twice, although both sides change at any time, as they are read in this order:

    1. the live store's snapshot begins
    2. the published warehouse is opened: what it says of its dates, and their rows, are of one file
    3. the live rows of all other dates are read, of the snapshot of 1

What is published between 1 and 2 comes from batch, and its live rows are left out. A date that is not published at 2
was not at 1: as windows leave the live table only once their date was published, and then confirmed to the service, the
snapshot of 1 has them. In the other order, a date could be published and leave the live table between the two.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ingest_service.errors import BatchMissing
from ingest_service.live.description import ViewDescription
from ingest_service.warehouse import BatchTable, Publication

_DAY_US = 86_400_000_000
_EPOCH = dt.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Boundary:
    """Which dates of a view come from batch.

    dates: in their order. relation: their table, in SQL; "" when no date comes from it. stale_dates: how many of them
    were reconciled by an earlier definition, and have left the live table. published_at_us: µs since 1970 UTC.
    """

    dates: tuple[dt.date, ...] = ()
    relation: str = ""
    stale_dates: int = 0
    published_at_us: int | None = None


def boundary_of(
    description: ViewDescription,
    confirmed: Iterable[str],
    expired_before_us: int | None,
    publication: Publication | None,
) -> Boundary:
    """The boundary of a view; confirmed: the dates of which the live table's store knows that they were found equal.

    A view without windows is never complete by dates: it is live as a whole. Of windows whose length is not known,
    those alone come from batch that have left the live table.

    Raises BatchMissing when windows have left the live table, and the publication has no rows of them in the view's
    columns.
    """
    if not description.window_column:
        return Boundary()
    table = publication.table(description.view) if publication else None
    published = publication.reconciled(description.view) if publication else {}
    whole = _whole(published, description.window_days_max)
    gone = _Gone(expired_before_us)
    fresh = {date for date in whole if _is_fresh(date, published, table, description)}
    if not description.window_width:
        fresh = {date for date in fresh if date in gone}
    stale = {date for date in whole - fresh if date in gone and _has_types(table, description)}
    known = whole | _whole(map(dt.date.fromisoformat, confirmed), description.window_days_max)
    missing = {date for date in known if date in gone} - fresh - stale
    if missing or (expired_before_us is not None and not known):
        raise BatchMissing(_reason(description, missing, table, publication))
    dates = tuple(sorted(fresh | stale))
    return Boundary(
        dates=dates,
        relation=table.relation if table and dates else "",
        stale_dates=len(stale),
        published_at_us=publication.published_at_us() if publication else None,
    )


@dataclass(frozen=True, slots=True)
class _Gone:
    """The dates whose windows have left the live table."""

    before_us: int | None

    def __contains__(self, date: dt.date) -> bool:
        return self.before_us is not None and (date - _EPOCH).days * _DAY_US < self.before_us


def _whole(dates: Iterable[dt.date], days_max: int) -> set[dt.date]:
    """The dates of which every window is complete: one that reaches into later dates needs these, too."""
    known = set(dates)
    return {date for date in known if all(date + dt.timedelta(days) in known for days in range(1, days_max + 1))}


def _is_fresh(
    date: dt.date, published: dict[dt.date, str], table: BatchTable | None, description: ViewDescription
) -> bool:
    """Whether a date's rows in batch are by the very definition that the live table follows.

    Of another, live has the rows that are wanted. By a publication that says no definition, the columns tell.
    """
    dates = [date + dt.timedelta(days) for days in range(description.window_days_max + 1)]
    definitions = {published[each] for each in dates}
    if definitions == {description.definition_hash}:
        return table is not None and all(column.name in table.types for column in description.columns)
    return definitions <= {"", description.definition_hash} and _has_types(table, description)


def _has_types(table: BatchTable | None, description: ViewDescription) -> bool:
    return table is not None and table.types == {column.name: column.type for column in description.columns}


def _reason(
    description: ViewDescription,
    missing: Collection[dt.date],
    table: BatchTable | None,
    publication: Publication | None,
) -> str:
    view = description.view
    which = f"windows of {min(missing)} to {max(missing)}" if missing else "old windows"
    if publication is None:
        why = "there is no published warehouse that would have them: restore it from a backup"
    elif table is None or _has_types(table, description):
        why = f"the published warehouse does not have them: restore a later one from a backup, or publish {view} again"
    else:
        why = f"the published warehouse has them {_other_columns(table, description)}: publish {view} with full refresh"
    return f"{view} cannot be read across time: {which} have left its live table, and {why}; or leave across_time out"


def _other_columns(table: BatchTable, description: ViewDescription) -> str:
    for column in description.columns:
        if column.name not in table.types:
            return f"without the column {column.name}"
        if table.types[column.name] != column.type:
            return f"with {column.name} as {table.types[column.name]}, not as {column.type}"
    names = {column.name for column in description.columns}
    return f"with a column {next(name for name in table.types if name not in names)} more"
