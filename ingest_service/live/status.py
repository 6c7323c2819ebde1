"""What can be said of a live view at any time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ingest_service.live.description import ViewColumn


class ViewState(StrEnum):
    """What a view does at present."""

    FOLLOWING = "following"  # it takes in events as they arrive
    REBUILDING = "rebuilding"  # rows of a new definition, or new rows of the same, are made beside those that serve
    STOPPED = "stopped"  # something in its rows, or in its store, keeps it from going on
    REFUSED = "refused"  # its model cannot be a live view


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """Where a live view is; the fields are those of tidemill/v1/views.proto.

    offset: the view covers everything strictly below it. lag: durable events that it does not cover yet; lag_ms: for
    how long it has not covered all of them. watermark_us: µs since 1970 UTC. retain_s: how long windows are kept after
    their end; 0: for ever. expired_before_us: windows (for views of events: rows) that began before it have left.
    error: why it stands still, or why its rebuild failed, or "". rebuild_offset: how far a rebuild is; None: there is
    none. sql: the compiled model. bounds_sql: see `ViewDescription`. A model that was refused has a name, a state and
    an error, and nothing else.
    """

    view: str
    state: ViewState = ViewState.FOLLOWING
    stream: str = ""
    offset: int = 0
    lag: int = 0
    lag_ms: int = 0
    rows: int = 0
    group_columns: tuple[str, ...] = ()
    window_column: str = ""
    watermark_us: int | None = None
    retain_s: int = 0
    expired_before_us: int | None = None
    error: str = ""
    rebuild_offset: int | None = None
    definition_hash: str = ""
    columns: tuple[ViewColumn, ...] = ()
    sql: str = ""
    bounds_sql: str = ""


@dataclass(frozen=True, slots=True)
class ViewPosition:
    """Where a live view is: its stream, the offset it covers, and why it stands still ("" while it follows)."""

    stream: str
    offset: int
    error: str


class Change(StrEnum):
    """What a new manifest means for a view."""

    ADDED = "added"
    CHANGED = "changed"  # another definition: it is rebuilt while the old one serves
    SAME = "same"  # one that had stopped is tried again from its checkpoint
    REMOVED = "removed"
    REFUSED = "refused"  # the model cannot be a live view; what served under this name goes on


@dataclass(frozen=True, slots=True)
class ViewChange:
    """What became, or would become, of one view; problem: why it was refused, or ""."""

    view: str
    change: Change
    problem: str = ""
