"""The SDK for asyncio: the same client, whose waiting never blocks the event loop.

    import tidemill.aio

    async with tidemill.aio.connect("localhost:7433") as tm:
        lines = await tm.stream("order_lines")
        ack = await lines.send({"invoice_no": "536365", ...})   # waits only while too much is unacknowledged
        acked = await ack                                       # waits until it is on disk
        async for event in lines.read(from_offset=acked.offset):
            print(event)

Owns no delivery of its own: it is a thin face over `tidemill.client`, whose producer has threads that no event loop
needs to wait for. What takes long (questions to the service, encoding tables) runs in a few threads of the client's.
Options, acks' contents and exceptions are the same. Main types: `AsyncClient`, `AsyncStream`, `AsyncView`, `AsyncAck`.
"""

from __future__ import annotations

from tidemill.aio.ack import AsyncAck, AsyncTableAck
from tidemill.aio.client import AsyncClient, connect
from tidemill.aio.reading import AsyncReading
from tidemill.aio.stream import AsyncStream
from tidemill.aio.view import AsyncView
from tidemill.aio.watch import AsyncWatch

__all__ = [
    "AsyncAck", "AsyncClient", "AsyncReading", "AsyncStream", "AsyncTableAck", "AsyncView", "AsyncWatch", "connect",
]  # fmt: skip
