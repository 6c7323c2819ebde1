"""Live views, as their readers use them in asyncio."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tidemill.aio.ack import AsyncAck, AsyncTableAck
from tidemill.aio.threads import Threads
from tidemill.aio.watch import AsyncWatch
from tidemill.client.models import ViewStatus
from tidemill.client.view import After, Condition, View, ViewRows

if TYPE_CHECKING:
    import pyarrow as pa


class AsyncView:
    """One live view; made by `AsyncClient.view`."""

    def __init__(self, view: View, threads: Threads) -> None:
        self._view = view
        self._threads = threads

    @property
    def name(self) -> str:
        """The view's name."""
        return self._view.name

    async def status(self) -> ViewStatus:
        """Where the view is now; raises NotFound."""
        return await self._threads.run(self._view.status)

    async def query(
        self,
        *,
        after: After | AsyncAck | AsyncTableAck = None,
        where: Iterable[Condition] = (),
        order_by: str | Sequence[str] = (),
        limit: int = 0,
        wait_s: float = 10.0,
        arrow: bool | None = None,
        window_state: bool = False,
        across_time: bool = False,
        **equal: object,
    ) -> ViewRows:
        """The view's rows for which every condition holds; see `View.query`."""
        covered = await after if isinstance(after, AsyncAck | AsyncTableAck) else after
        return await self._threads.run(
            self._view.query,
            after=covered, where=where, order_by=order_by, limit=limit, wait_s=wait_s, arrow=arrow,
            window_state=window_state, across_time=across_time, **equal,
        )  # fmt: skip

    async def sealed(
        self,
        first_date: dt.date,
        last_date: dt.date,
        seal_offset: int,
        *,
        wait_s: float = 60.0,
        where: Iterable[Condition] = (),
        order_by: str | Sequence[str] = (),
        limit: int = 0,
    ) -> pa.Table:
        """The rows as they were copied when these dates were sealed; see `View.sealed`."""
        return await self._threads.run(
            self._view.sealed, first_date, last_date, seal_offset, wait_s=wait_s, where=where, order_by=order_by,
            limit=limit,
        )  # fmt: skip

    def watch(
        self,
        *,
        where: Iterable[Condition] = (),
        resume: str | None = None,
        only_new: bool = False,
        arrow: bool | None = None,
        **equal: object,
    ) -> AsyncWatch:
        """The view's changes as they are committed, for `async for`; see `View.watch`."""
        return AsyncWatch(self._view.watch(where=where, resume=resume, only_new=only_new, arrow=arrow, **equal))

    async def rebuild(self) -> None:
        """Make the view's rows anew from the stream's first event on; see `View.rebuild`."""
        await self._threads.run(self._view.rebuild)

    async def confirm_reconciled(self, first_date: dt.date, last_date: dt.date, seal_offset: int) -> None:
        """Say that the copy of these dates agrees with batch; see `View.confirm_reconciled`."""
        await self._threads.run(self._view.confirm_reconciled, first_date, last_date, seal_offset)
