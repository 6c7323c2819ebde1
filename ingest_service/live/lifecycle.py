"""Finds a view's tables again, or makes them: what happens to a view between one definition, or start, and the next."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from ingest_service.errors import ViewRefused
from ingest_service.live.feed import LogLike
from ingest_service.live.manifest import LiveModel
from ingest_service.live.plan import FORMAT, MergePlan, plan_view
from ingest_service.live.store import Checkpoint, Store, StoredView, WriteTransaction
from ingest_service.live.tables import REBUILD, ViewTables
from ingest_service.live.view import LiveView

_log = logging.getLogger(__name__)


def set_up(plan: MergePlan, store: Store, log: LogLike, duck: Any) -> LiveView:
    """The view at its checkpoint.

    The same definition goes on where it was. A new view, or one whose tables are gone, starts at offset 0; so does one
    that covers more than the log has: it was the view of another log, of which this one is an earlier copy. A changed
    definition starts at offset 0 in tables of its own (`is_rebuilding`), while the old ones still serve; a rebuild
    that was interrupted goes on.

    Raises ViewRefused when the store has a table of the view's name that is not a live view's.
    """
    description, model = plan.description, plan.model.to_json()
    with store.write() as transaction:
        stored = transaction.load(description.view)
        tables, rebuild = ViewTables.of(description), ViewTables.of(description, rebuild=True)
        if stored is None:
            _check_free(transaction, tables, plan.model.path)
        if stored is not None and stored.checkpoint.offset > log.durable_offset:
            _log.warning(
                "live view %s covers %d events, and its log has %d: it is made again",
                description.view, stored.checkpoint.offset, log.durable_offset,
            )  # fmt: skip
            for name in (description.view, rebuild.name):
                transaction.drop(name)
            transaction.forget_reconciled(description.view)
            stored = None
        if stored is None or not _is_whole(transaction, stored, ViewTables.of(stored.description)):
            build = _new_build()
            checkpoint = transaction.create(tables, model, build)
        elif stored.description.definition_hash == description.definition_hash:
            transaction.drop(rebuild.name)
            transaction.describe(tables, model)
            checkpoint, build = stored.checkpoint, stored.build
        else:
            tables = rebuild
            checkpoint, build = _rebuilt_so_far(transaction, rebuild, model, stored, log.durable_offset)
    return _opened(plan, tables, checkpoint, build, store, log, duck)


def begin_rebuild(plan: MergePlan, store: Store, log: LogLike, duck: Any) -> LiveView:
    """The view at offset 0, in tables of its own; what an earlier rebuild left is dropped."""
    rebuild = ViewTables.of(plan.description, rebuild=True)
    with store.write() as transaction:
        stored = transaction.load(plan.description.view)
        expired_before_us = stored.checkpoint.expired_before_us if stored else None
        build = _new_build()
        checkpoint = transaction.create(rebuild, plan.model.to_json(), build, expired_before_us)
    return _opened(plan, rebuild, checkpoint, build, store, log, duck)


def open_serving(name: str, store: Store, logs: Mapping[str, LogLike], duck: Any) -> LiveView | None:
    """The view as the store has it, by the definition that made it, to go on with it while another one is rebuilt.

    None when that definition cannot be followed any more: then its rows stay as they are.
    """
    with store.read() as transaction:
        stored = transaction.load(name)
    if stored is None or stored.description.format != FORMAT:
        return None
    try:
        plan = plan_view(LiveModel.from_json(stored.model), logs, duck)
    except ViewRefused:
        return None
    if plan.description.definition_hash != stored.description.definition_hash:
        return None
    log = logs[plan.description.stream]
    return _opened(plan, ViewTables.of(stored.description), stored.checkpoint, stored.build, store, log, duck)


def swap_in(view: LiveView, store: Store) -> None:
    """Puts a rebuilt view in place of the old one; readers see the one or the other."""
    with store.write() as transaction:
        stored = transaction.load(view.name)
        # It may have been done before, by a transaction of which the answer was lost.
        if stored is None or stored.build != view.build:
            transaction.swap(view.name)
    view.tables = ViewTables.of(view.plan.description)


def is_rebuilding(view: LiveView) -> bool:
    """Whether a view still fills tables of its own beside the ones that serve."""
    return view.tables.name == view.name + REBUILD


def _opened(
    plan: MergePlan, tables: ViewTables, checkpoint: Checkpoint, build: str, store: Store, log: LogLike, duck: Any
) -> LiveView:
    view = LiveView(plan, tables, checkpoint, store, duck, log, build=build)
    view.start()
    return view


def _new_build() -> str:
    return uuid.uuid4().hex[:12]


def _is_whole(transaction: WriteTransaction, stored: StoredView, tables: ViewTables) -> bool:
    return stored.description.format == FORMAT and not transaction.missing(tables)


def _check_free(transaction: WriteTransaction, tables: ViewTables, path: str) -> None:
    missing = transaction.missing(tables)
    foreign = [table.name for table in tables.all if table.name not in missing]
    if foreign:
        raise ViewRefused(
            f"{path}: the store has a table {foreign[0]} already, and it is no live view's; rename the model, or drop "
            "the table if nobody needs it"
        )


def _rebuilt_so_far(
    transaction: WriteTransaction, rebuild: ViewTables, model: str, serving: StoredView, durable_offset: int
) -> tuple[Checkpoint, str]:
    stored = transaction.load(rebuild.name)
    same = stored is not None and stored.description.definition_hash == rebuild.description.definition_hash
    is_of_log = stored is not None and stored.checkpoint.offset <= durable_offset
    if stored is not None and same and is_of_log and _is_whole(transaction, stored, rebuild):
        return stored.checkpoint, stored.build
    build = _new_build()
    return transaction.create(rebuild, model, build, serving.checkpoint.expired_before_us), build
