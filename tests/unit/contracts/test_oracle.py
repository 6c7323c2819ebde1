"""On generated rows, both ways in give the verdict of protovalidate and of Tidemill's own rules, written out here."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import protovalidate
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest_service.contracts import Intake

FIELDS = [
    *("event_id", "invoice_no", "stock_code", "description", "quantity"),
    *("unit_price", "invoiced_at", "customer_id", "country"),
]
NOW = dt.datetime(2011, 12, 9, 12, 0, tzinfo=dt.UTC)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "event_id": st.one_of(texts, st.just(""), st.just("x" * 64), st.just("ä" * 65)),
    "invoice_no": st.one_of(
        st.from_regex(r"\A[A-Z]?[0-9]{5,7}\Z"), st.sampled_from(["", "536365\n", "c536365", "٣٣٣٣٣٣"])
    ),
    "stock_code": st.one_of(texts, st.just("x" * 33)),
    "description": st.one_of(st.none(), texts, st.just("🌊" * 200), st.just("🌊" * 201)),
    "quantity": st.one_of(
        st.integers(-5, 5),
        st.sampled_from([10**6, 10**6 + 1, -(10**6), -(10**6) - 1]),
        st.integers(-(2**63), 2**63 - 1),
    ),
    "unit_price": st.one_of(
        st.decimals(-(10**10), 10**10, places=3).map(str),
        st.decimals(-10, 10, places=4).map(str),
        st.sampled_from(["", "1e3", "-0", "+1", "1.", ".1", "999999999.999", "1000000000"]),
        texts,
    ),
    "invoiced_at": st.one_of(
        st.none(),
        st.datetimes(timezones=st.just(dt.UTC)),
        st.integers(-2, 2).map(lambda us: NOW + dt.timedelta(minutes=5, microseconds=us)),
    ),
    "customer_id": st.one_of(st.none(), st.integers(-2, 2), st.integers(-(2**63), 2**63 - 1)),
    "country": st.one_of(texts, st.just("x" * 64), st.just("x" * 65)),
}
GOOD: dict[str, Any] = {
    "event_id": "r1", "invoice_no": "536365", "stock_code": "85123A", "description": None, "quantity": 6,
    "unit_price": "2.550", "invoiced_at": NOW, "customer_id": None, "country": "France",
}  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """A good row with up to three values drawn anew: about half of the rows are invalid."""
    changed = draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique=True))
    return GOOD | {name: draw(VALUES[name]) for name in changed}


def expected(message: Any) -> tuple[str, str] | None:
    """The verdict as the contract's author would give it by hand: rule and field."""
    found = [(FIELDS.index(v.proto.field.elements[0].field_name), 0, v.proto.rule_id) for v in violations(message)]
    if not _is_decimal(message.unit_price):
        found.append((FIELDS.index("unit_price"), 1, "tidemill.decimal"))
    if message.HasField("invoiced_at") and message.invoiced_at.ToDatetime(dt.UTC) > NOW + dt.timedelta(minutes=5):
        found.append((FIELDS.index("invoiced_at"), 1, "tidemill.future"))
    if not message.event_id:
        found.append((FIELDS.index("event_id"), 1, "tidemill.event_id"))
    if not found:
        return None
    index, _, rule = min(found, key=lambda each: each[:2])
    return rule, FIELDS[index]


def violations(message: Any) -> list[Any]:
    return list(protovalidate.collect_violations(message))


def _is_decimal(text: str) -> bool:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return False
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text, re.ASCII):
        return False
    whole = text.lstrip("-").partition(".")[0]
    return len(whole) <= 9 and int(value.as_tuple().exponent) >= -3


@pytest.fixture(scope="module")
def tally() -> list[int]:
    """Rows seen, and rows rejected."""
    return [0, 0]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(batch=st.lists(rows(), min_size=1, max_size=60))
def test_verdicts_on_generated_rows(
    intake: Intake,
    order_line: Callable[..., Any],
    ipc: Callable[..., bytes],
    now_us: int,
    tally: list[int],
    batch: list[dict[str, Any]],
) -> None:
    messages = [order_line(**row) for row in batch]
    verdicts = [(index, *verdict) for index, message in enumerate(messages) if (verdict := expected(message))]
    checked = intake.from_proto([message.SerializeToString() for message in messages], now_us)
    assert [(row.index, row.rule, row.field) for row in checked.quarantined] == verdicts
    assert checked.rows.num_rows == len(batch) - len(verdicts)
    rejected = {index for index, *_ in verdicts}
    kept = [row for index, row in enumerate(batch) if index not in rejected]
    assert checked.rows.to_pylist() == [row | {"unit_price": Decimal(row["unit_price"])} for row in kept]

    types = {"quantity": pa.int64(), "customer_id": pa.int64(), "invoiced_at": pa.timestamp("us", tz="UTC")}
    table = pa.table({name: pa.array([row[name] for row in batch], types.get(name, pa.string())) for name in FIELDS})
    from_arrow = intake.from_arrow(ipc(table.combine_chunks()), now_us)
    assert [(row.index, row.rule, row.field) for row in from_arrow.quarantined] == verdicts
    assert from_arrow.rows == checked.rows
    tally[0] += len(batch)
    tally[1] += len(verdicts)


def test_a_good_part_of_the_generated_rows_was_rejected(tally: list[int]) -> None:
    seen, rejected = tally
    if not seen:
        pytest.skip("runs after test_verdicts_on_generated_rows")
    assert 0.3 < rejected / seen < 0.9, (seen, rejected)
