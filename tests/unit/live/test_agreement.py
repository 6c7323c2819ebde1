"""Random models and random events in random micro-batches, with restarts between: live equals batch."""

from __future__ import annotations

import datetime as dt
import math
import random
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from ingest_service.log.records import Rows

NEW_SEED = random.SystemRandom().randrange(10**9)
SEEDS = [*range(12), NEW_SEED]  # the last one is new each time; its test's name says it

GROUPS = [
    "time_bucket(interval '1 minute', invoiced_at)",
    "date_trunc('hour', invoiced_at)",
    "event_date",
    "country",
    "upper(country)",
    "customer_id % 3",
    "weight",
    "unit_price",
    "quantity > 10",
    "coalesce(country, '') || '|' || coalesce(customer_id::varchar, '')",
]
AGGREGATES = [
    "count(*)",
    "count(customer_id)",
    "sum(quantity)",
    "sum(quantity * unit_price)",
    "sum(abs(weight))",
    "avg(quantity)",
    "avg(unit_price)",
    "min(weight)",
    "max(weight)",
    "min(country)",
    "max(invoiced_at)",
    "min(unit_price)",
    "count(distinct customer_id)",
    "count(distinct country)",
    "count(distinct weight)",
    "count(distinct unit_price) filter (where quantity > 0)",
    "sum(quantity) filter (where country is not null)",
    "sum(quantity)::double / count(*)",
    "coalesce(sum(unit_price), 0) - coalesce(min(unit_price), 0)",
    "case when count(*) > 3 then 'many' else 'few' end",
    "max(quantity)::hugeint - min(quantity)",
]
WHERES = ["", "where quantity <> 0", "where country is not null and weight > 0", "where unit_price between -5 and 5"]
COUNTRIES = [None, "", "France", "france", "Île", "-", "3:a", "a'b\"c", "\n", " ", "日本", "x" * 50]
WEIGHTS = [None, 0.0, -0.0, math.nan, math.inf, 1.5, 0.1, -2.25, 1e300, 5e-324]
QUANTITIES = [None, 0, 1, -1, 7, 2**63 - 1, -(2**63), 12]
PRICES = [
    None,
    Decimal("0.000"),
    Decimal("-1.500"),
    Decimal("999999999.999"),
    Decimal("-999999999.999"),
    Decimal("2.5"),
]


def random_model(rng: random.Random, source: str) -> str:
    groups = rng.sample(GROUPS, rng.randint(0, 3))
    aggregates = rng.sample(AGGREGATES, rng.randint(1, 6))
    items = [f"{sql} as g{i}" for i, sql in enumerate(groups)] + [f"{sql} as a{i}" for i, sql in enumerate(aggregates)]
    rng.shuffle(items)
    where = rng.choice(WHERES)
    group = "group by all" if groups and rng.random() < 0.5 else f"group by {', '.join(groups)}" if groups else ""
    if rng.random() < 0.4:
        return f"with lines as (select * from {source} {where}) select {', '.join(items)} from lines {group}"
    return f"select {', '.join(items)} from {source} {where} {group}"


def random_line(rng: random.Random, kit: Any) -> dict[str, Any]:
    # Most events are near in time and few have extreme values; late ones come a day behind.
    late = dt.timedelta(days=rng.choice([0, 0, 0, 1]))
    at = kit.START + dt.timedelta(seconds=rng.randrange(600), microseconds=rng.randrange(10**6)) - late
    return {
        "event_id": "e",
        "quantity": rng.choice(QUANTITIES) if rng.random() < 0.3 else rng.randint(1, 20),
        "unit_price": rng.choice(PRICES),
        "weight": rng.choice(WEIGHTS) if rng.random() < 0.5 else rng.random(),
        "invoiced_at": at,
        "customer_id": rng.choice([None, 1, 2, 3, 40, 500]),
        "country": rng.choice(COUNTRIES),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_live_equals_batch(kit: Any, seed: int) -> None:
    rng = random.Random(seed)
    sql = random_model(rng, kit.SOURCE)
    print(f"seed {seed}: {sql}")
    for _ in range(rng.randint(1, 3)):  # restarts
        with kit.view(sql) as view:
            for _ in range(rng.randint(1, 6)):
                view.apply([kit.log.append([random_line(rng, kit) for _ in range(rng.choice([1, 2, 5, 40]))])])
        kit.assert_agrees(sql)


@pytest.mark.parametrize("seed", SEEDS[-4:])
def test_batches_that_overlap_what_is_covered_change_nothing(kit: Any, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(5):
        kit.log.append([random_line(rng, kit) for _ in range(10)])
    rows = kit.log.table().combine_chunks().to_batches()[0]
    covered = 0
    while covered < 50:
        with kit.view() as view:
            covered = view.offset
            start, end = rng.randint(0, covered), rng.randint(covered, 50)
            view.apply([Rows(rows.slice(start, end - start), start, end)])
            kit.assert_agrees(below=view.offset)


def doubled(entries: list[Any], at: int) -> list[Any]:
    return [*entries[: at + 1], *entries[at:]]


def dropped(entries: list[Any], at: int) -> list[Any]:
    return [*entries[:at], *entries[at + 1 :]]


def wrong_value(entries: list[Any], at: int) -> list[Any]:
    batch = entries[at].batch
    index = batch.schema.get_field_index("quantity")
    more = pa.array([v + 1 for v in batch.column(index).to_pylist()], pa.int64())
    return [*entries[:at], Rows(batch.set_column(index, batch.schema.field(index), more), 0, 0), *entries[at + 1 :]]


@pytest.mark.parametrize("fault", [doubled, dropped, wrong_value])
def test_a_planted_fault_is_found(kit: Any, fault: Any) -> None:
    """The comparison that every test here relies on sees what it must see."""
    for minute in range(6):
        kit.log.append([kit.line(minute % 3, quantity=2, customer_id=minute) for _ in range(4)])
    offset, renumbered = 0, []
    for entry in fault(kit.log.entries, 3):  # offsets without a gap, so that the view itself can notice nothing
        renumbered.append(Rows(entry.batch, offset, offset + entry.batch.num_rows))
        offset += entry.batch.num_rows
    with kit.view() as view:
        view.apply(renumbered)
    with pytest.raises(AssertionError, match="live"):
        kit.assert_agrees()


def test_a_gap_in_the_offsets_stops_the_view(kit: Any) -> None:
    for minute in range(3):
        kit.log.append([kit.line(minute)])
    with kit.view() as view, pytest.raises(Exception, match="expected the row at offset 1, and the log gave 2"):
        view.apply([kit.log.entries[0], kit.log.entries[2]])
