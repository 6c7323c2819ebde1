"""The entrance for asyncio: a client of one service."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tidemill.aio.stream import AsyncStream
from tidemill.aio.threads import Threads
from tidemill.aio.view import AsyncView
from tidemill.client import client as blocking
from tidemill.client.ack import Rejected
from tidemill.client.applied import AppliedContract, AppliedView
from tidemill.client.credentials import Credentials
from tidemill.client.models import Export, LakeUpkeep, Quarantine, Replay, Seal, StreamStatus, ViewStatus
from tidemill.client.options import ProducerOptions
from tidemill.client.outbox import Outbox
from tidemill.errors import ClientClosed


class AsyncClient:
    """A client of one service; made by `connect`. To be used in one event loop: `async with`, or `open` and `close`."""

    def __init__(self, make: Callable[[], blocking.Client]) -> None:
        self._make = make
        self._opened: tuple[blocking.Client, Threads] | None = None
        self._streams: dict[str, AsyncStream] = {}

    async def open(self) -> Self:
        """Open the outbox, and wait for the service where that was asked for; raises as `tidemill.connect` does."""
        if self._opened is None:
            threads = Threads()
            try:
                self._opened = (await threads.run(self._make), threads)
            except BaseException:
                threads.close()
                raise
        return self

    @property
    def _client(self) -> blocking.Client:
        return self._parts()[0]

    def _parts(self) -> tuple[blocking.Client, Threads]:
        if self._opened is None:
            raise ClientClosed("the client is not open: use it in `async with`, or await its open() first")
        return self._opened

    @property
    def address(self) -> str:
        """The service's address."""
        return self._client.address

    @property
    def outbox(self) -> Outbox | None:
        """The outbox given to `connect`; its methods are quick, and block."""
        return self._client.outbox

    async def stream(
        self,
        name: str,
        *,
        on_rejected: Callable[[Rejected], None] | None = None,
        options: ProducerOptions | None = None,
        producer_id: str | None = None,
    ) -> AsyncStream:
        """The stream of that name; see `Client.stream`. `on_rejected` is called in the event loop."""
        client, threads = self._parts()
        plain = on_rejected is None and options is None and producer_id is None
        if plain and name in self._streams:
            return self._streams[name]
        tell = None if on_rejected is None else partial(threads.tell, on_rejected)
        made = await threads.run(client.stream, name, on_rejected=tell, options=options, producer_id=producer_id)
        stream = AsyncStream(made, threads)
        # Another task may have been faster.
        return self._streams.setdefault(name, stream) if plain else stream

    def view(self, name: str) -> AsyncView:
        """The live view of that name; whether it exists shows at the first query."""
        client, threads = self._parts()
        return AsyncView(client.view(name), threads)

    async def streams(self) -> list[StreamStatus]:
        """All streams, by name."""
        client, threads = self._parts()
        return await threads.run(client.streams)

    async def stream_status(self, name: str) -> StreamStatus:
        """Where a stream is now; raises NotFound."""
        client, threads = self._parts()
        return await threads.run(client.stream_status, name)

    async def views(self) -> list[ViewStatus]:
        """All live views, by name."""
        client, threads = self._parts()
        return await threads.run(client.views)

    async def seal(
        self,
        stream: str,
        date: dt.date,
        last_date: dt.date | None = None,
        *,
        force: bool = False,
        timeout_s: float = 60,
    ) -> Seal:
        """Seal a date (UTC), or the dates up to `last_date` as one; see `Client.seal`."""
        client, threads = self._parts()
        return await threads.run(client.seal, stream, date, last_date, force=force, timeout_s=timeout_s)

    async def export(self, stream: str, up_to: int = 0, *, timeout_s: float = 600) -> Export:
        """Bring the stream's lake table up to an offset (0: all that is durable); returns when it is there."""
        client, threads = self._parts()
        return await threads.run(client.export, stream, up_to, timeout_s=timeout_s)

    async def maintain_lake(
        self,
        stream: str,
        *,
        dates: Collection[dt.date] = (),
        compact_only: bool = False,
        keep_versions: Collection[int] = (),
        min_age_s: int | None = None,
        timeout_s: float = 3600,
    ) -> LakeUpkeep:
        """Compact dates of the lake table, and delete the files that nobody needs; see `Client.maintain_lake`."""
        client, threads = self._parts()
        return await threads.run(
            client.maintain_lake, stream, dates=dates, compact_only=compact_only, keep_versions=keep_versions,
            min_age_s=min_age_s, timeout_s=timeout_s,
        )  # fmt: skip

    async def quarantine(self, stream: str, limit: int = 100, *, ids: Sequence[str] = ()) -> Quarantine:
        """The newest rows of the stream that broke its contract, or those of `ids`; see `Client.quarantine`."""
        client, threads = self._parts()
        return await threads.run(client.quarantine, stream, limit, ids=ids)

    async def replay_quarantine(
        self, stream: str, ids: Sequence[str] = (), *, check_only: bool = False, timeout_s: float = 600
    ) -> Replay:
        """Append the quarantined rows that keep the contract now, each once; see `Client.replay_quarantine`."""
        client, threads = self._parts()
        return await threads.run(client.replay_quarantine, stream, ids, check_only=check_only, timeout_s=timeout_s)

    async def apply_contract(
        self, descriptors: bytes, message_type: str = "", *, check_only: bool = False, timeout_s: float = 60
    ) -> list[AppliedContract]:
        """Compare a changed contract with the one in force and put it in force; see `Client.apply_contract`."""
        client, threads = self._parts()
        return await threads.run(
            client.apply_contract, descriptors, message_type, check_only=check_only, timeout_s=timeout_s
        )

    async def apply_views(
        self, manifest: bytes, *, check_only: bool = False, timeout_s: float = 120
    ) -> list[AppliedView]:
        """Make a manifest's models the live views, also after a restart; see `Client.apply_views`."""
        client, threads = self._parts()
        return await threads.run(client.apply_views, manifest, check_only=check_only, timeout_s=timeout_s)

    async def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Wait until the service answers; raises ServiceUnavailable."""
        client, threads = self._parts()
        await threads.run(client.wait_ready, timeout_s)

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything sent over this client is acknowledged; raises as `Client.flush` does."""
        client, threads = self._parts()
        await threads.run(client.flush, timeout)

    async def close(self, timeout: float | None = None) -> None:
        """Flush all streams, then close the connection; raises the first failure. Idempotent."""
        if self._opened is None:
            return
        client, threads = self._opened
        try:
            await threads.run(client.close, timeout)
        finally:
            threads.close()
            self._opened = None

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After an error or a cancellation nobody waits for a service that may be gone.
            await self.close(timeout=5.0 if kind is not None else None)
        except Exception:
            if error is None:
                raise


def connect(
    address: str = blocking.DEFAULT_ADDRESS,
    *,
    timeout_s: float = 10.0,
    wait_s: float = 0.0,
    options: ProducerOptions | None = None,
    outbox: Path | str | None = None,
    api_key: str | None = None,
    tls: bool | str | os.PathLike[str] | None = None,
    credentials: Credentials | None = None,
) -> AsyncClient:
    """A client of the service at `address`, to be entered with `async with`; options as for `tidemill.connect`."""
    return AsyncClient(
        partial(
            blocking.connect, address, timeout_s=timeout_s, wait_s=wait_s, options=options, outbox=outbox,
            api_key=api_key, tls=tls, credentials=credentials,
        )
    )  # fmt: skip
