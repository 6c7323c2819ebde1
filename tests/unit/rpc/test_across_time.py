"""Views across time by the API, the SDK and the command line, over a warehouse published beside the service."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from support.published import publish
from unit.rpc.view_service import ServedViews, manifest, sale, serving

import tidemill
import tidemill.aio
from tidemill.cli import main
from tidemill.v1 import views_pb2

VIEWS = {
    "by_minute": """select time_bucket(interval '1 minute', at) as window_start, country, count(*) as sales,
        sum(units) as units from "warehouse"."events"."sales" group by all""",
    "by_country": """select country, count(*) as sales from "warehouse"."events"."sales" group by all""",
}
DAY, NEXT = dt.date(2023, 11, 14), dt.date(2023, 11, 15)
SALES = (sale(units=2), {**sale(), "at": "2023-11-15T08:00:30Z"})


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[ServedViews]:
    """A service that took a sale on each of two days; what it has published is up to the test."""
    with serving(tmp_path, manifest(VIEWS)) as shop:
        acks = [shop.tm.stream("sales").send(sale) for sale in SALES]
        assert [ack.result(30).offset for ack in acks] == [0, 1]
        yield shop


def publish_day(folder: Path, shop: ServedViews, *, definition: str = "") -> None:
    """Publish the first of the two days, of which batch has 20 units: so it is told from live."""
    rows = shop.tm.view("by_minute").query(after=2, order_by="window_start", limit=1).rows()
    row = {**rows[0], "units": 20}
    types = pa.schema(
        {"window_start": pa.timestamp("us", "UTC"), "country": pa.string(), "sales": pa.int64(), "units": pa.int64()}
    )
    by = definition or shop.tm.view("by_minute").status().definition_hash
    file = folder / "data" / "warehouse" / "warehouse.duckdb"
    publish(file, {"by_minute": pa.Table.from_pylist([row], types)}, {("by_minute", DAY): (1, by)})


@pytest.mark.parametrize("arrow", [True, False])
def test_batch_and_live_are_one_answer(shop: ServedViews, tmp_path: Path, arrow: bool) -> None:
    view = shop.tm.view("by_minute")
    rows = view.query(across_time=True, after=2, order_by="window_start", arrow=arrow)
    assert [(row["units"], row["_source"]) for row in rows] == [(2, "live"), (1, "live")]
    assert (rows.published_at, rows.batch_dates, rows.last_batch_date, rows.stale_dates) == (None, 0, None, 0)

    publish_day(tmp_path, shop)
    rows = view.query(across_time=True, order_by="window_start", arrow=arrow, window_state=True)
    assert [(row["units"], row["_source"]) for row in rows] == [(20, "batch"), (1, "live")]
    assert [column.name for column in rows.columns][-2:] == ["_window_state", "_source"]
    assert (rows.batch_dates, rows.last_batch_date, rows.stale_dates, rows.offset) == (1, DAY, 0, 2)
    assert rows.published_at is not None
    assert abs(dt.datetime.now(dt.UTC) - rows.published_at) < dt.timedelta(hours=1)
    assert [row["units"] for row in view.query(across_time=True, _source="live", arrow=arrow)] == [1]
    assert [row["units"] for row in view.query(order_by="window_start", arrow=arrow)] == [2, 1]


def test_a_view_without_windows_is_live(shop: ServedViews, tmp_path: Path) -> None:
    publish_day(tmp_path, shop)
    rows = shop.tm.view("by_country").query(across_time=True, after=2)
    assert rows.rows() == [{"country": "France", "sales": 2, "_source": "live"}]
    assert (rows.published_at, rows.batch_dates) == (None, 0)


def test_the_same_in_asyncio(shop: ServedViews, tmp_path: Path) -> None:
    publish_day(tmp_path, shop)

    async def ask() -> Any:
        async with tidemill.aio.connect(shop.address) as tm:
            return await tm.view("by_minute").query(across_time=True, order_by="window_start")

    assert [row["_source"] for row in asyncio.run(ask())] == ["batch", "live"]


def test_a_sealed_copy_is_not_read_across_time(shop: ServedViews) -> None:
    with pytest.raises(grpc.RpcError, match="a sealed copy is of live alone") as raised:
        shop.stub.QueryView(views_pb2.QueryViewRequest(view="by_minute", sealed_date=str(DAY), across_time=True))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_warehouse_that_cannot_be_read_says_so(shop: ServedViews, tmp_path: Path) -> None:
    publish_day(tmp_path, shop)
    (tmp_path / "data" / "warehouse" / "warehouse.duckdb").write_bytes(b"no database")
    with pytest.raises(grpc.RpcError, match=r"the published warehouse .* cannot be opened") as raised:
        shop.stub.QueryView(views_pb2.QueryViewRequest(view="by_minute", across_time=True))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert shop.tm.view("by_minute").query(after=2).offset == 2


def test_the_command_line_says_where_batch_ends(
    shop: ServedViews, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["view", "query", "by_minute", "--across-time", "--order-by", "window_start", "--address", shop.address]
    assert main([*asked, "--after", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "2 rows: 0 of batch, 2 live, the log's below offset 2", "no date of this view comes from batch",
    ]  # fmt: skip
    publish_day(tmp_path, shop)
    assert main(asked) == 0
    header, first, second, counts, boundary = capsys.readouterr().out.splitlines()
    assert header.split()[-2:] == ["_window_state", "_source"]
    assert (first.split()[-3:], second.split()[-3:]) == (["20", "closed", "batch"], ["1", "open", "live"])
    assert counts == "2 rows: 1 of batch, 1 live, the log's below offset 2"
    assert boundary.startswith("batch: 1 date up to 2023-11-14, published 20")
    assert main([*asked, "--json"]) == 0
    assert [json.loads(line)["_source"] for line in capsys.readouterr().out.splitlines()] == ["batch", "live"]


def test_of_an_earlier_definition_live_has_the_rows(shop: ServedViews, tmp_path: Path) -> None:
    publish_day(tmp_path, shop, definition="earlier")
    rows = shop.tm.view("by_minute").query(across_time=True, order_by="window_start")
    assert [(row["units"], row["_source"]) for row in rows] == [(2, "live"), (1, "live")]
    assert (rows.batch_dates, rows.published_at is not None) == (0, True)
