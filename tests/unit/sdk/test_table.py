"""Tables: cast to the contract where nothing is lost; where something would be, refused with column and value."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from tidemill.client.contract import Contract
from tidemill.client.table import cast, fit, ipc_bytes, slices
from tidemill.errors import BadTable

DECIMAL = pa.decimal128(12, 3)
TIME = pa.timestamp("us", "UTC")


def table(rows: int = 3, **changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "country": ["UK"] * rows,
        "event_id": [f"e{row}" for row in range(rows)],
        "invoice_no": ["536365"] * rows,
        "stock_code": ["A"] * rows,
        "quantity": pa.array(range(1, rows + 1), pa.int16()),
        "unit_price": ["2.55"] * rows,
        "invoiced_at": [dt.datetime(2011, 7, 1, tzinfo=dt.UTC)] * rows,
    }
    columns.update(changes)
    return pa.table({name: values for name, values in columns.items() if values is not None})


def test_columns_come_in_the_contracts_order_and_types(schema: pa.Schema, order_lines: Contract) -> None:
    fitted = fit(table().to_batches()[0], schema, order_lines.required)
    assert fitted.schema.names == [name for name in schema.names if name not in {"description", "customer_id"}]
    assert fitted.schema.field("unit_price").type == DECIMAL
    assert fitted.column("quantity").to_pylist() == [1, 2, 3]


def test_slices_keep_both_bounds(schema: pa.Schema, order_lines: Contract) -> None:
    parts = list(slices(table(100), schema, order_lines.required, 30, 1 << 20))
    assert [part.num_rows for part in parts] == [30, 30, 30, 10]
    row_bytes = parts[0].nbytes // 30
    assert max(part.num_rows for part in slices(table(100), schema, order_lines.required, 30, 5 * row_bytes)) <= 5
    assert all(part.num_rows == 1 for part in slices(table(4), schema, order_lines.required, 30, 1))
    assert pa.ipc.open_stream(ipc_bytes(parts[-1])).read_all().num_rows == 10


def test_a_pandas_frame_is_taken_without_its_index(schema: pa.Schema, order_lines: Contract) -> None:
    frame = table().to_pandas()
    frame["customer_id"] = [17850.0, None, 3.0]
    frame.index = pd.Index([7, 8, 9])
    (part,) = slices(frame, schema, order_lines.required, 100, 1 << 20)
    assert part.column("customer_id").to_pylist() == [17850, None, 3]
    assert part.column("unit_price").to_pylist() == [Decimal("2.550")] * 3


@pytest.mark.parametrize(
    ("values", "wanted", "expected"),
    [
        (pa.array(["17850", None, "17850.0"]), pa.int64(), [17850, None, 17850]),
        (pa.array([2.55, 0.1, None]), DECIMAL, [Decimal("2.550"), Decimal("0.100"), None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), pa.string(), ["a", "b", "a"]),
        (pa.array(["a"], pa.large_string()), pa.string(), ["a"]),
        (pa.array([1, 2], pa.uint8()), pa.int64(), [1, 2]),
        (pa.array(["x", "1"]), DECIMAL, ["x", "1"]),  # the service says of "x" what is wrong with it
    ],
)
def test_what_fits_is_cast(values: pa.Array, wanted: pa.DataType, expected: list[Any]) -> None:
    assert cast(values, wanted, "c").to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "wanted", "said"),
    [
        (pa.array(["1"] * 5 + ["x"] + ["1"]), pa.int64(), r"column 'c', row 5 \(from 0\): expected int64, came 'x'"),
        (pa.array([1.0, 2.5]), pa.int64(), "row 1 .*came 2.5"),
        (pa.array([0.12345]), DECIMAL, "cannot become decimal.*without rounding"),
        (pa.array([1e30]), DECIMAL, "row 0"),
        (pa.array([dt.datetime(2011, 7, 1)]), TIME, "times with a time zone.*--timezone"),  # noqa: DTZ001
        (pa.array([True]), TIME, "expected timestamp"),
    ],
)
def test_what_does_not_fit_is_named(values: pa.Array, wanted: pa.DataType, said: str) -> None:
    with pytest.raises(BadTable, match=said):
        cast(values, wanted, "c")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (table(invoice=["1", "2", "3"]), "no column 'invoice'.*did you mean 'invoice_no'"),
        (table(quantity=None, country=None), "needs the columns quantity, country; the table has"),
        ([{"event_id": "1"}], "expected an Arrow table.*came list"),
    ],
)
def test_wrong_tables_are_refused(schema: pa.Schema, order_lines: Contract, made: object, said: str) -> None:
    with pytest.raises(BadTable, match=said):
        list(slices(made, schema, order_lines.required, 10, 1 << 20))
