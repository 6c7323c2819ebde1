"""Finds a view's tables again, or makes them: what happens to a view between one run of the service and the next."""

from __future__ import annotations

from typing import Any

from ingest_service.errors import ViewRefused
from ingest_service.live.feed import LogLike
from ingest_service.live.plan import MergePlan
from ingest_service.live.store import Checkpoint, Store, WriteTransaction
from ingest_service.live.tables import REBUILD, ViewTables
from ingest_service.live.view import LiveView


def set_up(plan: MergePlan, path: str, store: Store, log: LogLike, duck: Any, distinct_values_max: int) -> LiveView:
    """The view at its checkpoint.

    The same definition goes on where it was. A new view, or one whose tables are gone, starts at offset 0. A changed
    definition starts at offset 0 in tables of its own, while the old ones still serve (`rebuilding`); a rebuild that
    was interrupted goes on.

    Raises ViewRefused when the store has a table of the view's name that is not a live view's.
    """
    description = plan.description
    with store.write() as transaction:
        stored = transaction.load(description.view)
        tables, rebuild = ViewTables.of(description), ViewTables.of(description, rebuild=True)
        if stored is None:
            _check_free(transaction, tables, path)
        if stored is None or transaction.missing(ViewTables.of(stored.description)):
            transaction.create(tables)
            checkpoint = Checkpoint()
        elif stored.description.definition_hash == description.definition_hash:
            transaction.drop(rebuild.name)
            checkpoint = stored.checkpoint
        else:
            tables, checkpoint = rebuild, _rebuilt_so_far(transaction, rebuild)
    view = LiveView(plan, tables, checkpoint, store, duck, log, distinct_values_max=distinct_values_max)
    view.start()
    return view


def _check_free(transaction: WriteTransaction, tables: ViewTables, path: str) -> None:
    missing = transaction.missing(tables)
    foreign = [table.name for table in tables.all if table.name not in missing]
    if foreign:
        raise ViewRefused(
            f"{path}: the store has a table {foreign[0]} already, and it is no live view's; rename the model, or drop "
            "the table if nobody needs it"
        )


def _rebuilt_so_far(transaction: WriteTransaction, rebuild: ViewTables) -> Checkpoint:
    stored = transaction.load(rebuild.name)
    same = stored is not None and stored.description.definition_hash == rebuild.description.definition_hash
    if stored is not None and same and not transaction.missing(rebuild):
        return stored.checkpoint
    transaction.create(rebuild)
    return Checkpoint()


def swap_in(view: LiveView, store: Store) -> None:
    """Puts a rebuilt view in place of the old one; readers see the one or the other."""
    with store.write() as transaction:
        transaction.swap(view.name)
    view.tables = ViewTables.of(view.plan.description)


def is_rebuilding(view: LiveView) -> bool:
    """Whether a view still fills tables of its own beside the ones that serve."""
    return view.tables.name == view.name + REBUILD
