"""The SDK against the real service."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from support.slow_link import slow_link

import tidemill
from retail.v1 import order_line_pb2
from tidemill.simulate import simulate_day

MakeId = Callable[[], str]


@pytest.fixture
def tm(shared_ingest: Any) -> Iterator[tidemill.Client]:
    with tidemill.connect(shared_ingest.address) as client:
        yield client


def line(event_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "invoice_no": "536365",
        "stock_code": "85123A",
        "quantity": 6,
        "unit_price": Decimal("2.550"),
        "invoiced_at": dt.datetime(2011, 12, 5, 8, 26, tzinfo=dt.UTC),
        "country": "United Kingdom",
        **changes,
    }


def test_a_dict_event_is_durable_once_acknowledged(tm: tidemill.Client, event_id: MakeId) -> None:
    stream = tm.stream("order_lines")
    acked = stream.send(line(event_id())).result(30)
    assert (acked.verdict, acked.replayed) == (tidemill.Verdict.APPENDED, False)
    assert acked.offset is not None
    assert stream.status().durable_offset > acked.offset


def test_typed_events_of_either_class_are_taken(tm: tidemill.Client, event_id: MakeId) -> None:
    stream = tm.stream("order_lines")
    for make in (stream.message, order_line_pb2.OrderLine):
        event = make(
            event_id=event_id(), invoice_no="536365", stock_code="A", quantity=1, unit_price="1.5", country="France"
        )
        event.invoiced_at.FromDatetime(dt.datetime(2011, 12, 5, 8, 26))  # noqa: DTZ001 - protobuf means UTC
        assert stream.send(event).result(30).verdict is tidemill.Verdict.APPENDED


def test_another_message_is_refused(tm: tidemill.Client) -> None:
    from google.protobuf import timestamp_pb2

    with pytest.raises(
        tidemill.BadEvent, match=r"takes retail\.v1\.OrderLine or a dict, came google\.protobuf\.Timestamp"
    ):
        tm.stream("order_lines").send(timestamp_pb2.Timestamp())


def test_a_row_that_breaks_its_contract_is_refused_alone(tm: tidemill.Client, event_id: MakeId) -> None:
    rejected: list[tidemill.Rejected] = []
    stream = tm.stream("order_lines", on_rejected=rejected.append)
    acks = [stream.send(line(event_id(), quantity=quantity)) for quantity in (1, 0, 2)]
    assert acks[0].result(30).verdict is tidemill.Verdict.APPENDED
    with pytest.raises(tidemill.RowQuarantined) as raised:
        acks[1].result(30)
    assert (raised.value.field, raised.value.rule) == ("quantity", "int64.not_in")
    assert acks[2].result(30).offset == (acks[0].result().offset or 0) + 1
    assert [(row.field, row.rule) for row in rejected] == [("quantity", "int64.not_in")]
    kept = tm.quarantine("order_lines", 1).rows[0]
    assert (kept.field, kept.rule) == ("quantity", "int64.not_in")


def test_an_event_id_is_appended_once(tm: tidemill.Client, event_id: MakeId) -> None:
    stream = tm.stream("order_lines")
    event = line(event_id())
    first, second = stream.send(event).result(30), stream.send(event).result(30)
    assert (second.verdict, second.offset) == (tidemill.Verdict.DUPLICATE, None)
    assert second.after_offset > (first.offset or 0)


def test_an_unknown_stream_is_named_with_those_there_are(tm: tidemill.Client) -> None:
    with pytest.raises(tidemill.NotFound, match="no stream 'orders'; the streams are: order_lines"):
        tm.stream("orders")


def test_tables_of_every_kind(tm: tidemill.Client, event_id: MakeId) -> None:
    stream = tm.stream("order_lines")
    for make in (
        pa.Table.from_pylist,
        pd.DataFrame,
        pl.DataFrame,
        lambda rows: pa.Table.from_pylist(rows).to_reader(),
        lambda rows: iter([pa.Table.from_pylist(rows)]),
    ):
        table = make([line(event_id()), line(event_id(), quantity=0), line(event_id())])
        acked = stream.send_table(table).result(30)
        assert (acked.rows, acked.appended, acked.quarantined) == (3, 2, 1)
        (verdict,) = acked.verdicts
        assert (verdict.index, verdict.field, verdict.rule) == (1, "quantity", "int64.not_in")


def test_prepared_events(tm: tidemill.Client, event_id: MakeId) -> None:
    stream = tm.stream("order_lines")
    events = [stream.serialize(line(event_id())) for _ in range(12_000)]
    acked = stream.send_many(events).result(30)
    assert (acked.rows, acked.appended) == (12_000, 12_000)
    assert stream.send_serialized(events[0]).result(30).verdict is tidemill.Verdict.DUPLICATE


def test_bytes_that_are_no_event_are_quarantined(tm: tidemill.Client) -> None:
    acked = tm.stream("order_lines").send_many([b"\xff\xff\xff"]).result(30)
    assert (acked.appended, acked.quarantined) == (0, 1)


def test_a_simulated_day_is_counted_the_same_on_both_sides(ingest: Any) -> None:
    day = simulate_day(dt.date(2025, 3, 4), seed=5, lines=5_000)
    with tidemill.connect(ingest.address) as tm:
        acked = tm.stream("order_lines").send_table(day.table).result(60)
        status = tm.stream_status("order_lines")
    truth = day.truth
    assert (acked.appended, acked.duplicate, acked.quarantined) == (truth.good, truth.resent, truth.broken)
    counts = status.counts
    assert (counts.sent, counts.received) == (truth.sent, truth.sent)
    assert (counts.appended, counts.duplicate, counts.quarantined) == (truth.good, truth.resent, truth.broken)
    assert counts.appended_by_date == {day.date: truth.good}


def test_reading_your_own_writes(ingest: Any, event_id: MakeId) -> None:
    with tidemill.connect(ingest.address) as tm:
        stream, view = tm.stream("order_lines"), tm.view("sales_by_minute")
        for country, quantity in (("France", 2), ("Spain", 3), ("France", 4)):
            ack = stream.send(line(event_id(), country=country, quantity=quantity, customer_id=12345))
        rows = view.query(after=ack, country="France")
        assert rows.offset >= 3
        moment = dt.datetime(2011, 12, 5, 8, 26, tzinfo=dt.UTC)
        assert rows.rows() == [
            {"window_start": moment, "country": "France", "lines": 2, "revenue": Decimal("15.300"), "customers": 1}
        ]
        for arrow in (True, False):
            ordered = view.query(order_by="-country", arrow=arrow)
            assert [row["country"] for row in ordered] == ["Spain", "France"]
            assert len(ordered) == 2
        assert rows.rows() == view.query(country="France", arrow=False).rows()
        assert view.query(where=[("revenue", ">", Decimal("10"))], limit=1).to_pandas()["country"].tolist() == [
            "France"
        ]
        assert view.query(window_start=moment, order_by=["country"]).to_arrow()["lines"].to_pylist() == [2, 1]
        assert view.status().rows == 2
        assert [each.view for each in tm.views()] == ["sales_by_minute"]


def test_wrong_queries_say_what_is_wrong(tm: tidemill.Client) -> None:
    view = tm.view("sales_by_minute")
    with pytest.raises(tidemill.NotFound, match=r"no live view 'sales'.*sales_by_minute"):
        tm.view("sales").query()
    with pytest.raises(tidemill.NotFound, match="sales_by_minute"):
        tm.view("sales").status()
    with pytest.raises(tidemill.RequestRefused, match="shop"):
        view.query(shop="A")
    with pytest.raises(tidemill.BadQuery, match="no operator 'like'"):
        view.query(where=[("country", "like", "F%")])
    with pytest.raises(tidemill.BadQuery, match="no time zone"):
        view.query(window_start=dt.datetime(2011, 12, 5))  # noqa: DTZ001
    with pytest.raises(tidemill.ServiceBusy):
        view.query(after=1 << 40, wait_s=0.05)


def test_a_sealed_date_keeps_its_copy_and_makes_rows_late(ingest: Any, event_id: MakeId) -> None:
    date = dt.date(2011, 12, 5)
    with tidemill.connect(ingest.address) as tm:
        stream, view = tm.stream("order_lines"), tm.view("sales_by_minute")
        stream.send(line(event_id(), quantity=1)).result(30)
        seal = tm.seal("order_lines", date, force=True)
        late = stream.send(line(event_id(), quantity=10)).result(30)
        assert (late.verdict, late.offset) == (tidemill.Verdict.LATE, seal.seal_offset)
        assert view.sealed(date, date, seal.seal_offset)["revenue"].to_pylist() == [Decimal("2.550")]
        assert view.query(after=late).rows()[0]["revenue"] == Decimal("28.050")
        export = tm.export("order_lines")
        assert export.lake_offset == 2
        status = stream.status()
        assert (status.lake_offset, status.counts.late) == (2, 1)
        assert [(each.date, each.seal_offset) for each in status.seals] == [(date, 1)]


def test_an_unfinished_date_is_not_sealed(tm: tidemill.Client) -> None:
    with pytest.raises(tidemill.RequestRefused) as raised:
        tm.seal("order_lines", dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1))
    assert "\n" not in str(raised.value)


def test_a_client_that_is_closed_says_so(shared_ingest: Any, event_id: MakeId) -> None:
    client = tidemill.connect(shared_ingest.address)
    stream = client.stream("order_lines")
    client.close()
    client.close()
    with pytest.raises(tidemill.ClientClosed):
        client.stream("order_lines")
    with pytest.raises(tidemill.ClientClosed):
        stream.send(line(event_id()))
    with pytest.raises(tidemill.ClientClosed):
        client.streams()


def test_a_service_far_away_is_reached(shared_ingest: Any, event_id: MakeId) -> None:
    """Half a second for each round trip: a connection takes two of them before the first answer."""
    with (
        slow_link(shared_ingest.port, 0.25) as port,
        tidemill.connect(f"127.0.0.1:{port}") as tm,
    ):
        assert "order_lines" in [each.stream for each in tm.streams()]
        assert tm.stream("order_lines").send(line(event_id())).result(30).verdict is tidemill.Verdict.APPENDED


def test_an_error_in_the_block_is_the_one_that_is_raised(shared_ingest: Any, event_id: MakeId) -> None:
    acks = []

    def use() -> None:
        with tidemill.connect(shared_ingest.address) as client:
            acks.append(client.stream("order_lines").send(line(event_id())))
            raise KeyError("the user's own")

    with pytest.raises(KeyError):
        use()
    assert acks[0].done()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_compressed_or_not_the_same_arrives(ingest: Any, event_id: MakeId, compression: Any) -> None:
    options = tidemill.ProducerOptions(compression=compression)
    with tidemill.connect(ingest.address, options=options) as tm:
        stream = tm.stream("order_lines")
        for number in range(500):
            stream.send(line(event_id(), quantity=number + 1))
        stream.send_table(pa.Table.from_pylist([line(event_id(), quantity=501)]))
        assert stream.flush(30).appended == 501
        assert [row.quantity for row in stream.read(columns=["quantity"])] == list(range(1, 502))


def test_a_producer_goes_on_where_an_earlier_one_stopped(ingest: Any, event_id: MakeId) -> None:
    with tidemill.connect(ingest.address) as tm:
        first = tm.stream("order_lines", producer_id="till-7")
        assert first.resumed is not None
        assert (first.resumed.known, first.resumed.next_sequence, first.resumed.rows_sent) == (False, 0, 0)
        for _ in range(3):
            first.send(line(event_id())).result(30)
        assert first.producer_state("nobody").known is False
        state = first.producer_state("till-7")
        assert (state.known, state.next_sequence, state.rows_sent, state.after_offset) == (True, 3, 3, 3)
        assert state.last_append_time is not None
    ingest.stop()
    ingest.start()
    with tidemill.connect(ingest.address, wait_s=30) as tm:
        second = tm.stream("order_lines", producer_id="till-7")
        assert second.resumed is not None
        assert second.resumed.rows_sent == 3
        acked = second.send(line(event_id())).result(30)
        assert (acked.offset, acked.replayed) == (3, False)
        assert second.producer_state("till-7").rows_sent == 4
        assert tm.stream_status("order_lines").counts.sent == 4


def test_two_under_one_name_are_told(ingest: Any, event_id: MakeId) -> None:
    """A batch under a number that was taken is that batch again, whoever sends it: the ack says so."""
    with tidemill.connect(ingest.address) as tm:
        one, other = (tm.stream("order_lines", producer_id="till-7") for _ in range(2))
        assert not one.send(line(event_id())).result(30).replayed
        assert other.send(line(event_id())).result(30).replayed
        assert tm.stream_status("order_lines").counts.appended == 1


def test_a_producer_id_and_an_outbox_exclude_each_other(ingest: Any, tmp_path: Path) -> None:
    with (
        tidemill.connect(ingest.address, outbox=tmp_path / "outbox") as tm,
        pytest.raises(tidemill.TidemillError, match="either a producer_id or an outbox"),
    ):
        tm.stream("order_lines", producer_id="till-7")
