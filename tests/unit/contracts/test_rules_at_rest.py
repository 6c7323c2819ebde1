"""The rules in the dbt sources, as the day's SQL, against protovalidate: for every kind of rule, wherever it may stand.

A row that the service lets in never breaks them. A row that it refuses, written into the lake by hand, does, unless the
rule is listed as not checked.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import yaml

from ingest_service.contracts import Contract, Intake
from ingest_service.contracts.contract import message_class
from ingest_service.contracts.dbt_sources import dbt_source
from ingest_service.contracts.field_rules import stored_pattern
from ingest_service.contracts.wire_rows import WireRows
from quality.checked_tables import ROWS as VIEW
from quality.checked_tables import Rows, _condition
from quality.contract_suite import ContractSuite
from quality.suite import NoRowTwice
from tests.unit.contracts.test_every_rule import CASES, MESSAGES, ROWS, SEED, _row
from tests.unit.contracts.test_every_rule import contracts as contracts  # noqa: PLC0414 - a fixture

GROUPS = 8
TIMES = ("google.protobuf.Timestamp", "google.protobuf.Duration")


def stored(contract: Contract, messages: list[Any]) -> tuple[pa.Table, set[int]]:
    """All of these rows as the lake would have them, and which of them the service refuses."""
    now_us = time.time_ns() // 1000
    for message in messages:
        message.at.FromMicroseconds(now_us)
    sent = [message.SerializeToString() for message in messages]
    intake = Intake(contract)
    refused = {row.index for row in intake.from_proto(sent, now_us).quarantined}
    batch, malformed = intake._decoder.decode(sent)
    assert malformed == {}
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    rows = pa.Table.from_batches([intake._finish(WireRows(columns, batch.num_rows), {})])
    times = pa.array([now_us] * len(sent), pa.timestamp("us", tz="UTC"))
    rows = rows.append_column("_partition", pa.array([0] * len(sent), pa.int32()))
    rows = rows.append_column("_offset", pa.array(range(len(sent)), pa.int64())).append_column("_append_time", times)
    return rows.append_column("event_date", times.cast(pa.date32())), refused


def broken(suite: ContractSuite, rows: pa.Table) -> set[int]:
    """The offsets of the rows that break an expectation of the suite."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("lake", rows)
        connection.execute(f"create temp view {VIEW} as select * from lake")
        about = Rows("t", "t", "", "", "event_date", suite.event_time)
        wrong = " or ".join(f"not ({_condition(about, each)})" for each in suite.expectations)
        return {row[0] for row in connection.execute(f"select _offset from {VIEW} where {wrong}").fetchall()}


def suite_of(contract: Contract) -> ContractSuite:
    return ContractSuite(yaml.safe_load(dbt_source(contract))["sources"][0]["tables"][0])


@pytest.mark.parametrize("group", range(GROUPS))
def test_what_the_service_lets_in_keeps_the_rules_at_rest_and_what_it_refuses_breaks_them(
    contracts: dict[str, Contract], group: int
) -> None:
    checked = 0
    for index in range(group, len(CASES), GROUPS):
        case, chance, contract = CASES[index], random.Random(SEED + index), contracts[f"c{index}"]
        message = message_class(contract.descriptor())
        rows, refused = stored(contract, [_row(message, case, chance) for _ in range(ROWS)])
        suite = suite_of(contract)
        found = broken(suite, rows)
        told = f"{case}, seed {SEED}: {[(each.says, each.condition) for each in suite.expectations[5:]]}"
        assert found <= refused, f"{told}: {rows.slice(min(found - refused), 1).to_pylist()}"
        # Bounds of times are a microsecond wider, and so are these rules' edges.
        if not suite.not_checked and case.rule.type not in TIMES:
            assert refused <= found, f"{told}: {rows.slice(min(refused - found), 1).to_pylist()}"
            checked += bool(refused)
    # Most rules have a form in SQL, and each was broken.
    assert checked >= 20


@pytest.mark.parametrize("index", range(len(MESSAGES)))
def test_rules_of_a_whole_message_are_told_of(contracts: dict[str, Contract], index: int) -> None:
    (left_out,) = suite_of(contracts[f"m{index}"]).not_checked
    assert (left_out.subject, bool(left_out.rule)) == (f"m{index}", True)


def test_a_oneof_that_has_to_be_set(contracts: dict[str, Contract]) -> None:
    contract = contracts["oneof"]
    message: Any = message_class(contract.descriptor())
    rows, refused = stored(contract, [message(), message(a=0), message(b="")])
    assert broken(suite_of(contract), rows) == refused == {0}


def test_rows_changed_by_hand_are_found(contract: Contract, order_line: Any) -> None:
    now = int(time.time())
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    lines = [order_line(event_id=f"e{number}", invoiced_at=at) for number in range(12)]
    intake = Intake(contract)
    checked = intake.from_proto([line.SerializeToString() for line in lines], time.time_ns() // 1000)
    times = pa.array([now * 1_000_000] * 12, pa.timestamp("us", tz="UTC"))
    rows = pa.Table.from_batches([checked.rows]).append_column("_partition", pa.array([0] * 12, pa.int32()))
    rows = rows.append_column("_offset", pa.array(range(12), pa.int64())).append_column("_append_time", times)
    rows = rows.append_column("event_date", times.cast(pa.date32()))
    suite = suite_of(contract)
    assert broken(suite, rows) == set()
    with duckdb.connect(":memory:") as connection:
        connection.register("sent", rows)
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("create table lake as select * from sent")
        for offset, change in enumerate(
            ("event_id = 'e11'", "invoice_no = 'x'", "quantity = 0", "customer_id = 0", "country = repeat('x', 65)",
             "event_date = event_date - 1", "unit_price = null", "_append_time = null",
             "description = repeat('ä', 201)")
        ):  # fmt: skip
            connection.execute(f"update lake set {change} where _offset = {offset}")
        changed = connection.sql("select * from lake").to_arrow_table()
    assert broken(suite, changed) == {*range(9), 11}


@pytest.mark.parametrize(
    ("pattern", "kept", "text"),
    [
        (r"^[A-Z]?[0-9]{6}$", r"^[A-Z]?[0-9]{6}$", "A123456"),
        (r"^\d{2}[\d.]\.$", r"^[\p{Nd}]{2}[\p{Nd}.]\.$", "٣1٣."),
        (r"^a\sb$", r"^a[\t\n\v\f\r\x{85}\p{Z}]b$", "a\u00a0b"),
        (r"\w", None, ""),
        (r"\D", None, ""),
        ("(?i)a", None, ""),
    ],
)
def test_a_pattern_is_kept_where_it_means_the_same(pattern: str, kept: str | None, text: str) -> None:
    assert stored_pattern(pattern) == kept
    if kept:
        assert duckdb.execute("select regexp_matches($1, $2)", [text, kept]).fetchall() == [(True,)]


def test_the_generated_sources_are_those_of_this_project() -> None:
    sources = Path(__file__).parents[3] / "dbt_project" / "models" / "sources"
    for file in sources.glob("*.yml"):
        for source in yaml.safe_load(file.read_text(encoding="utf-8"))["sources"]:
            for table in source["tables"]:
                if "stream" in table.get("config", {}).get("meta", {}):
                    suite = ContractSuite(table)
                    assert any(isinstance(each, NoRowTwice) for each in suite.expectations)
                    assert suite.not_checked == ()
