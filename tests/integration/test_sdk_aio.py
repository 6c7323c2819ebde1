"""`tidemill.aio` against the real service: the same promises, and the event loop never waits for them."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tidemill
import tidemill.aio

MakeId = Callable[[], str]


def line(event_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": event_id, "invoice_no": "536365", "stock_code": "A", "quantity": 1, "unit_price": Decimal("1.5"),
        "invoiced_at": dt.datetime(2011, 12, 5, tzinfo=dt.UTC), "country": "UK", **changes,
    }  # fmt: skip


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 120))


def test_acks_are_awaited(shared_ingest: Any, event_id: MakeId) -> None:
    rejected: list[tidemill.Rejected] = []

    async def use() -> None:
        async with tidemill.aio.connect(shared_ingest.address) as tm:
            assert await tm.stream("order_lines") is await tm.stream("order_lines")
            lines = await tm.stream("order_lines", on_rejected=rejected.append)
            good, bad, late = [await lines.send(line(event_id(), quantity=quantity)) for quantity in (1, 0, 2)]
            first, last = await asyncio.gather(good, late)
            assert (first.verdict, last.offset) == (tidemill.Verdict.APPENDED, first.offset + 1)
            with pytest.raises(tidemill.RowQuarantined):
                await bad
            assert [row.field for row in rejected] == ["quantity"]
            assert await good is not None
            assert good.done()
            message = lines.message(**{**line(event_id()), "unit_price": "1.5"})
            assert (await (await lines.send(message))).verdict is tidemill.Verdict.APPENDED
            with pytest.raises(tidemill.BadEvent, match="no field 'quantiti'"):
                await lines.send({"quantiti": 1})
            assert (await lines.flush()).quarantined == 1
            assert (await lines.status()).durable_offset > last.offset

    run(use())


def test_many_tasks_send_at_once(ingest: Any, event_id: MakeId) -> None:
    options = tidemill.ProducerOptions(batch_rows=200, in_flight_rows=1_000)

    async def use() -> None:
        async with tidemill.aio.connect(ingest.address, options=options) as tm:
            lines = await tm.stream("order_lines")

            async def one() -> int | None:
                acked = await (await lines.send(line(event_id())))
                return acked.offset

            offsets = await asyncio.gather(*(one() for _ in range(10_000)))
            assert sorted(offsets) == list(range(10_000))
            assert lines.counts().appended == 10_000

    run(use())


def test_sending_waits_while_the_service_is_away_and_the_loop_stays_free(ingest: Any, event_id: MakeId) -> None:
    async def use() -> None:
        options = tidemill.ProducerOptions(batch_rows=10, in_flight_rows=50)
        async with tidemill.aio.connect(ingest.address, options=options) as tm:
            lines = await tm.stream("order_lines")
            await (await lines.send(line(event_id())))
            ingest.kill()
            sending = asyncio.create_task(send_all(lines))
            while lines.counts().sent < 50:
                await asyncio.sleep(0.001)
            done, _ = await asyncio.wait({sending}, timeout=0.2)
            # That this line is reached shows that the loop is free.
            assert not done, "more was taken than may be unacknowledged"
            await asyncio.to_thread(ingest.start)
            acks = await sending
            assert [(await ack).offset for ack in acks] == list(range(1, 201))

    async def send_all(lines: tidemill.aio.AsyncStream) -> list[tidemill.aio.AsyncAck]:
        return [await lines.send(line(event_id())) for _ in range(200)]

    run(use())


def test_tables_prepared_events_and_views(ingest: Any, event_id: MakeId) -> None:
    async def use() -> None:
        async with tidemill.aio.connect(ingest.address) as tm:
            lines, view = await tm.stream("order_lines"), tm.view("sales_by_minute")
            acked = await (await lines.send_table(pd.DataFrame([line(event_id()) for _ in range(3)])))
            assert (acked.rows, acked.appended) == (3, 3)
            events = [lines.message(**{**line(event_id()), "unit_price": "1.5"}).SerializeToString() for _ in range(5)]
            ack = await lines.send_many(events)
            rows = await view.query(after=ack, country="UK")
            assert rows.rows()[0]["lines"] == 8
            assert (await view.status()).rows == 1
            assert [each.stream for each in await tm.streams()] == ["order_lines", "readings", "web_requests"]
            assert [each.view for each in await tm.views()] == ["sales_by_minute"]
            assert (await tm.export("order_lines")).lake_offset == 8
            assert (await tm.quarantine("order_lines")).total == 0
            with pytest.raises(tidemill.NotFound):
                await tm.stream("nowhere")

    run(use())


def test_rows_are_read_as_they_come(ingest: Any, event_id: MakeId) -> None:
    async def use() -> None:
        async with tidemill.aio.connect(ingest.address) as tm:
            lines = await tm.stream("order_lines")
            for number in range(100):
                await lines.send(line(f"e{number}"))
            await lines.flush()
            read = [event.event_id async for event in lines.read(from_offset=10, limit=50)]
            assert read == [f"e{number}" for number in range(10, 60)]
            batches = [batch async for batch in lines.read_arrow(columns=["event_id"])]
            assert sum(batch.num_rows for batch in batches) == 100

            async with lines.read(from_end=True, follow=True) as following:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(following), 0.1)
                await lines.send(line("new"))
                await lines.flush()
                assert (await anext(following)).event_id == "new", "a wait that was given up lost a row"
                assert following.next_offset == 101
                waiting = asyncio.ensure_future(anext(following, None))
                await asyncio.sleep(0)
            assert await waiting is None

    run(use())


def test_with_an_outbox_what_send_returned_for_is_on_disk(ingest: Any, tmp_path: Path, event_id: MakeId) -> None:
    outbox = tmp_path / "till.outbox"
    options = tidemill.ProducerOptions(retry_for_s=0.1)

    async def leave() -> None:
        async with tidemill.aio.connect(ingest.address, outbox=outbox, options=options) as tm:
            lines = await tm.stream("order_lines")
            ingest.kill()
            await asyncio.gather(*(lines.send(line(event_id())) for _ in range(500)))
            assert tm.outbox is not None
            assert tm.outbox.pending_rows == 500

    async def deliver() -> None:
        async with tidemill.aio.connect(ingest.address, outbox=outbox, wait_s=10) as tm:
            await tm.flush(60)
            assert (await tm.stream_status("order_lines")).counts.appended == 500

    run(leave())
    ingest.start()
    run(deliver())


def test_a_client_that_is_not_open_says_so(shared_ingest: Any) -> None:
    async def use() -> None:
        client = tidemill.aio.connect(shared_ingest.address)
        with pytest.raises(tidemill.ClientClosed, match="not open"):
            await client.streams()
        await client.close()
        assert (await client.open()).address == shared_ingest.address
        await client.close()
        with pytest.raises(tidemill.ClientClosed):
            await client.streams()
        with pytest.raises(tidemill.ServiceUnavailable):
            await tidemill.aio.connect("127.0.0.1:1", wait_s=0.1).open()
        with pytest.raises(KeyError):
            async with tidemill.aio.connect(shared_ingest.address):
                raise KeyError("the user's own")

    run(use())


def test_who_gives_up_waiting_ends_it_for_nobody_else(ingest: Any, event_id: MakeId) -> None:
    async def use() -> None:
        async with tidemill.aio.connect(ingest.address) as tm:
            lines = await tm.stream("order_lines")
            ingest.kill()
            ack = await lines.send(line(event_id()))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ack, 0.05)
            await asyncio.to_thread(ingest.start)
            assert (await ack).offset == 0

    run(use())
