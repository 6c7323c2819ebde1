"""What can be said of a live view at any time."""

from __future__ import annotations

from dataclasses import dataclass

from ingest_service.live.description import ViewColumn


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """Where a live view is; the fields are those of tidemill/v1/views.proto.

    offset: the view covers everything strictly below it. lag: durable events that it does not cover yet.
    error: why it stands still, or "". A model that was refused has a name and an error, and nothing else.
    """

    view: str
    stream: str = ""
    offset: int = 0
    lag: int = 0
    rows: int = 0
    group_columns: tuple[str, ...] = ()
    window_column: str = ""
    error: str = ""
    definition_hash: str = ""
    columns: tuple[ViewColumn, ...] = ()


@dataclass(frozen=True, slots=True)
class ViewPosition:
    """Where a live view is: its stream, the offset it covers, and why it stands still ("" while it follows)."""

    stream: str
    offset: int
    error: str
