"""Every row of the real set keeps the contract: what is odd about it is for the checks to report."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ingest_service.contracts import Intake

ROWS, QUANTITY = 541_909, 5_176_450
NOW_US = 1_323_518_400_000_000
"""2011-12-10 12:00 UTC, the day after the last of them."""
REVENUE = Decimal("9747747.934")
BATCH = 50_000


@pytest.fixture(scope="module")
def lines(repo: Path) -> pa.Table:
    """The file with the contract's columns; the shop's own time is that of London."""
    file = repo.parent / "shared" / "data" / "online_retail.parquet"
    if not file.exists():
        pytest.skip(f"the real set is not there: expected it at {file.relative_to(repo.parent)} beside the project")
    source = pq.read_table(file)
    local = source["invoice_date"].cast(pa.timestamp("us"))
    return pa.table(
        {
            "event_id": pc.binary_join_element_wise("r", source["source_row"].cast(pa.string()), ""),
            "invoice_no": source["invoice_no"],
            "stock_code": source["stock_code"],
            "description": source["description"],
            "quantity": source["quantity"].cast(pa.int64()),
            "unit_price": source["unit_price"],
            "invoiced_at": pc.assume_timezone(local, "Europe/London"),
            "customer_id": source["customer_id"].cast(pa.int64()),
            "country": source["country"],
        }
    )


def test_every_row_is_valid_as_arrow(intake: Intake, lines: pa.Table, ipc: Callable[..., bytes]) -> None:
    taken = []
    for start in range(0, lines.num_rows, BATCH):
        checked = intake.from_arrow(ipc(lines.slice(start, BATCH).combine_chunks()), NOW_US)
        assert checked.quarantined == ()
        taken.append(checked.rows)
    rows = pa.Table.from_batches(taken)
    assert rows.num_rows == ROWS
    assert pc.sum(rows["quantity"]).as_py() == QUANTITY
    exact = pc.multiply(rows["unit_price"].cast(pa.decimal128(18, 3)), rows["quantity"].cast(pa.decimal128(19, 0)))
    assert pc.sum(exact).as_py() == REVENUE


def test_a_busy_day_is_valid_as_messages(intake: Intake, lines: pa.Table, order_line: Callable[..., Any]) -> None:
    """One date as protobuf, field by field: all 541,909 rows this way would only take longer."""
    day = pc.strftime(lines["invoiced_at"], "%Y-%m-%d")
    dated = lines.filter(pc.equal(day, "2011-12-05"))
    assert dated.num_rows == 5_331
    sent = [order_line(**row | {"unit_price": str(row["unit_price"])}).SerializeToString() for row in dated.to_pylist()]
    checked = intake.from_proto(sent, NOW_US)
    assert checked.quarantined == ()
    assert checked.rows.to_pylist() == dated.to_pylist()
