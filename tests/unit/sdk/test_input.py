"""Files: formats, the map of columns, local times, and one line for whatever is wrong."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tidemill.client.contract import Contract
from tidemill.errors import InputError
from tidemill.input import ColumnMap, InputFile

UTC = dt.UTC
RETAIL = ["event_id=r{source_row}", "invoiced_at=invoice_date"]


def shop_table() -> pa.Table:
    return pa.table(
        {
            "source_row": [1, 2, 3],
            "invoice_no": ["536365", "C536379", "536380"],
            "stock_code": ["85123A", "D", "22961"],
            "description": ["WHITE, HEART ", None, "JAM"],
            "quantity": pa.array([6, -1, 24], pa.int32()),
            "invoice_date": pa.array(
                [dt.datetime(2011, 7, 1, 0, 26), dt.datetime(2011, 12, 1, 9, 41), None],  # noqa: DTZ001
                pa.timestamp("us"),
            ),
            "unit_price": pa.array([Decimal("2.55"), Decimal("27.50"), Decimal("1.45")], pa.decimal128(12, 3)),
            "customer_id": pa.array([17850, None, 14527], pa.int32()),
            "country": ["United Kingdom"] * 3,
        }
    )


@pytest.fixture(params=["parquet", "csv", "jsonl"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"shop's file.{request.param}"
    table = shop_table()
    if request.param == "parquet":
        pq.write_table(table, path)
    elif request.param == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        rows = [json.dumps(row, default=str) for row in table.to_pylist()]
        path.write_text("\n".join(rows))
    return path


def opened(
    path: Path, schema: pa.Schema, contract: Contract, entries: list[str], timezone: str | None = "Europe/London"
) -> InputFile:
    return InputFile(path, schema, contract.required, ColumnMap.parse(entries), timezone)


def test_every_format_gives_the_same_rows(file: Path, schema: pa.Schema, order_lines: Contract) -> None:
    source = opened(file, schema, order_lines, RETAIL)
    rows = pa.Table.from_batches(source.batches()).to_pylist()
    assert rows[0] == {
        "event_id": "r1",
        "invoice_no": "536365",
        "stock_code": "85123A",
        "description": "WHITE, HEART ",
        "quantity": 6,
        "unit_price": Decimal("2.550"),
        "invoiced_at": dt.datetime(2011, 6, 30, 23, 26, tzinfo=UTC),  # summer time
        "customer_id": 17850,
        "country": "United Kingdom",
    }
    assert rows[1]["invoiced_at"] == dt.datetime(2011, 12, 1, 9, 41, tzinfo=UTC)
    assert (rows[1]["description"], rows[1]["customer_id"]) == (None, None)
    assert source.report.rows == 3
    assert source.dates("invoiced_at") == {dt.date(2011, 6, 30): 1, dt.date(2011, 12, 1): 1}


def test_batches_are_bounded(file: Path, schema: pa.Schema, order_lines: Contract) -> None:
    source = opened(file, schema, order_lines, RETAIL)
    assert sum(batch.num_rows for batch in source.batches(rows_max=2)) == 3


def test_names_match_by_sound(schema: pa.Schema, order_lines: Contract, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "EventId,InvoiceNo,Stock Code,quantity,UNIT-PRICE,invoicedAt,Country\n"
        "1,536365,A,6,2.550,2011-07-01T00:00:00Z,UK\n"
    )
    (batch,) = opened(path, schema, order_lines, [], None).batches()
    assert batch.to_pylist()[0]["unit_price"] == Decimal("2.55")
    assert batch.to_pylist()[0]["event_id"] == "1"


def test_templates_and_constants(schema: pa.Schema, order_lines: Contract, tmp_path: Path) -> None:
    path = tmp_path / "shop.parquet"
    pq.write_table(shop_table(), path)
    entries = [
        "event_id={invoice_no}/{source_row}",
        "country='Far away'",
        "invoiced_at=invoice_date",
        "description={customer_id}",
    ]
    (batch,) = opened(path, schema, order_lines, entries).batches()
    assert batch.column("event_id").to_pylist() == ["536365/1", "C536379/2", "536380/3"]
    assert batch.column("country").to_pylist() == ["Far away"] * 3
    assert batch.column("description").to_pylist() == ["17850", None, "14527"]


def test_clocks_put_back_and_forward_are_counted(schema: pa.Schema, order_lines: Contract, tmp_path: Path) -> None:
    path = tmp_path / "shop.parquet"
    times = [dt.datetime(2011, 10, 30, 1, 30), dt.datetime(2011, 3, 27, 1, 30), dt.datetime(2011, 3, 27, 0, 59)]  # noqa: DTZ001
    table = shop_table()
    pq.write_table(table.set_column(5, "invoice_date", pa.array(times, pa.timestamp("us"))), path)
    source = opened(path, schema, order_lines, RETAIL)
    (batch,) = source.batches()
    assert batch.column("invoiced_at").to_pylist() == [
        dt.datetime(2011, 10, 30, 0, 30, tzinfo=UTC),  # the first of the two
        dt.datetime(2011, 3, 27, 1, 0, tzinfo=UTC),  # when the hour was skipped
        dt.datetime(2011, 3, 27, 0, 59, tzinfo=UTC),
    ]
    assert (source.report.zone.ambiguous, source.report.zone.nonexistent) == (1, 1)
    assert len(source.report.notes()) == 2


@pytest.mark.parametrize(
    ("entries", "timezone", "said"),
    [
        (RETAIL, None, "have no time zone.*2011-07-01 00:26:00.*--timezone"),
        (RETAIL, "Europe/Lodnon", "time zone 'Europe/Lodnon' is not known"),
        (["invoiced_at=invoice_date"], "UTC", "has no column for event_id; it has source_row, .*--map event_id="),
        ([*RETAIL, "invoice_no=invocie_no"], "UTC", "no column 'invocie_no'.*did you mean 'invoice_no'"),
        ([*RETAIL, "invoice=invoice_no"], "UTC", "contract has no field 'invoice'; did you mean 'invoice_no'"),
        ([*RETAIL, "quantity=stock_code"], "UTC", "column 'quantity', row 0.*expected int64, came '85123A'"),
        (["invoice_no"], "UTC", "expected FIELD=COLUMN"),
        (["country=a", "country=b"], "UTC", "says twice"),
        ([*RETAIL[:1], "invoiced_at=country"], "UTC", "expected timestamp.*came 'United Kingdom'"),
    ],
)
def test_what_is_wrong_is_one_line(
    entries: list[str], timezone: str | None, said: str, schema: pa.Schema, order_lines: Contract, tmp_path: Path
) -> None:
    path = tmp_path / "shop.parquet"
    pq.write_table(shop_table(), path)
    with pytest.raises(InputError, match=said) as raised:
        list(opened(path, schema, order_lines, entries, timezone).batches())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "there is no file"),
        ("shop.xlsx", b"x", "expected a name that ends in .parquet"),
        ("bad.parquet", b"x" * 100, "cannot be read: .*[Pp]arquet"),
        ("bad.csv", b"\x00\xff\xfe\x01\n" * 50, "cannot be read"),
        ("bad.jsonl", b'{"a": 1}\n{"a":', "cannot be read: .*JSON"),
        ("empty.csv", b"", "cannot be read|has no column"),
    ],
)
def test_files_that_cannot_be_read(
    name: str, content: bytes | None, said: str, schema: pa.Schema, order_lines: Contract, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said) as raised:
        list(opened(path, schema, order_lines, []).batches())
    assert "\n" not in str(raised.value)


def test_a_folder_is_no_file(schema: pa.Schema, order_lines: Contract, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        opened(tmp_path, schema, order_lines, [])
