"""Events that are made up: they keep their contract, whatever its rules, and have what a trial needs."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support import every_kind

from ingest_service.contracts import Contract, load_contracts
from ingest_service.live.manifest import LiveModel
from ingest_service.live.seeds import Seed
from ingest_service.live.trial.events import EventMaker, NoEvents
from ingest_service.live.trial.hints import Hints
from ingest_service.live.trial.pattern import PatternText
from tests.unit.contracts.rule_kinds import rules

PROTO = Path(__file__).parents[3] / "proto"
SEED = random.SystemRandom().randrange(2**31)
HEAD = """syntax = "proto3"; package made.v1;
import "buf/validate/validate.proto"; import "tidemill/v1/options.proto"; import "google/protobuf/any.proto";
import "google/protobuf/duration.proto"; import "google/protobuf/field_mask.proto";
import "google/protobuf/timestamp.proto";
"""
HELPERS = """
enum Kind { KIND_UNSPECIFIED = 0; KIND_ONE = 1; KIND_TWO = 2; }
message Inner { int64 a = 1; }
message Strict { int64 a = 1 [(buf.validate.field).int64.gt = 0]; }
"""
STREAM = 'option (tidemill.v1.stream) = { name: "%s" event_time: "at" }; google.protobuf.Timestamp at = 1;'


def contract_of(folder: Path, body: str) -> Contract:
    (folder / "made.proto").write_text(f"{HEAD}{HELPERS}message Made {{ {STREAM % 'made'} {body} }}", encoding="utf-8")
    loaded = load_contracts(folder)
    assert not loaded.problems, loaded.problems
    return loaded.contracts["made"]


def table_of(contract: Contract, rows: int = 300, hints: Hints | None = None, seed: int = SEED) -> Any:
    return EventMaker(contract, hints or Hints(), random.Random(seed)).table(rows)


@pytest.fixture(scope="module")
def contracts() -> dict[str, Contract]:
    return load_contracts(PROTO).contracts


@pytest.mark.parametrize("stream", ["order_lines", "web_requests", "readings"])
def test_each_of_the_projects_streams_has_events(contracts: dict[str, Contract], stream: str) -> None:
    contract = contracts[stream]
    table = table_of(contract, 1_000)
    assert table.schema == contract.schema
    assert table.num_rows == 1_000, f"seed {SEED}"
    assert len(set(table[contract.event_id].to_pylist())) == 1_000
    times = table[contract.event_time].to_pylist()
    assert times != sorted(times), "some are out of order"
    assert Counter(time.replace(second=0, microsecond=0) for time in times).most_common(1)[0][1] > 10, "minutes fill"


def test_text_comes_again_and_optional_fields_are_left_out(contracts: dict[str, Contract]) -> None:
    table = table_of(contracts["order_lines"], 1_000)
    assert max(Counter(table["country"].to_pylist()).values()) > 50, f"seed {SEED}"
    assert 20 < table["customer_id"].null_count < 500
    quantities = set(table["quantity"].to_pylist())
    assert 0 not in quantities
    assert min(quantities) < 0 < max(quantities)


def test_a_seed_makes_the_same_events(contracts: dict[str, Contract]) -> None:
    contract = contracts["order_lines"]
    assert table_of(contract).equals(table_of(contract))
    assert not table_of(contract).equals(table_of(contract, seed=SEED + 1))


def test_literals_and_seeds_of_models_come_up(contracts: dict[str, Contract]) -> None:
    seed = Seed("regions", "seeds/regions.csv", "country,region\nPeru,South\n", (), ",")
    sql = "select count(*) from s where starts_with(invoice_no, 'Q') and quantity >= 4321 and stock_code = 'POST'"
    model = LiveModel("m", "m.sql", sql, sql, "table", None, {("s",): "order_lines"}, {("r",): seed})
    hints = Hints.of([model])
    assert {"Q", "POST", "Peru", "South"} <= set(hints.texts)
    assert Decimal(4321) in hints.numbers
    table = table_of(contracts["order_lines"], 2_000, hints)
    assert "Peru" in table["country"].to_pylist(), f"seed {SEED}"
    assert "POST" in table["stock_code"].to_pylist(), f"seed {SEED}"
    assert {4320, 4321, 4322} & set(table["quantity"].to_pylist()), f"seed {SEED}"
    assert any(number.startswith("Q") for number in table["invoice_no"].to_pylist()), f"seed {SEED}"


def test_sql_that_is_not_understood_has_no_hints() -> None:
    model = LiveModel("m", "m.sql", "select 'a' from (", "", "table", None, {})
    assert Hints.of([model]) == Hints()


def test_every_kind_of_field_gets_values(tmp_path: Path) -> None:
    (tmp_path / "every.proto").write_text(every_kind.proto(), encoding="utf-8")
    loaded = load_contracts(tmp_path)
    table = table_of(loaded.contracts["every_kind"], 200)
    assert table.num_rows == 200
    empty = [name for name in table.schema.names if table[name].null_count == 200]
    assert not empty, f"seed {SEED}"


def ruled() -> Iterator[tuple[int, Any]]:
    for number, rule in enumerate(rules()):
        if "[rule" not in rule.given and not rule.type.endswith((".Any", ".FieldMask")):
            yield number, rule


def test_values_are_found_for_every_kind_of_rule(tmp_path: Path) -> None:
    chosen = dict(ruled())
    for start in range(0, len(chosen), 16):
        messages = [
            f"message T{number} {{ {STREAM % f'c{number}'} {rule.type} n = 2 "
            f"{f'[(buf.validate.field) = {{ {rule.given} }}]' if rule.given else ''}; }}"
            for number, rule in list(chosen.items())[start : start + 16]
        ]
        helpers = HELPERS if not start else ""
        imports = 'import "made_0.proto";' if start else ""
        (tmp_path / f"made_{start}.proto").write_text("\n".join([HEAD, imports, helpers, *messages]), encoding="utf-8")
    loaded = load_contracts(tmp_path)
    assert not loaded.problems, loaded.problems
    for number, rule in chosen.items():
        maker = EventMaker(loaded.contracts[f"c{number}"], Hints(), random.Random(SEED))
        assert maker.table(20).num_rows == 20, f"{rule.type} {rule.given} with seed {SEED}"
        assert maker._pools["n"], f"{rule.type} {rule.given} with seed {SEED}"


def test_a_required_oneof_has_one_member(tmp_path: Path) -> None:
    one = "oneof o { option (buf.validate.oneof).required = true; int64 a = 2; string b = 3; }"
    table = table_of(contract_of(tmp_path, one))
    given = [(a is None, b is None) for a, b in zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)]
    assert set(given) == {(True, False), (False, True)}, f"seed {SEED}"


def test_a_field_that_nothing_is_found_for_is_named(tmp_path: Path) -> None:
    never = """string odd = 2 [(buf.validate.field).cel = {
        id: 'odd' message: 'is odd' expression: "this.startsWith('zzyzx') && this.size() == 77" }];"""
    with pytest.raises(NoEvents, match=r"keeps the rules of made\.v1\.Made\.odd .*give real events with --input"):
        table_of(contract_of(tmp_path, never))


def test_an_optional_field_that_nothing_is_found_for_is_left_out(tmp_path: Path) -> None:
    never = "optional string odd = 2 [(buf.validate.field).string.pattern = '^\\\\p{Greek}+$'];"
    table = table_of(contract_of(tmp_path, never))
    assert table["odd"].null_count == table.num_rows


def test_a_rule_about_several_fields_that_hardly_any_event_keeps_is_named(tmp_path: Path) -> None:
    whole = """option (buf.validate.message).cel = { id: 'sum' message: 'a is 31 times b'
        expression: 'this.a == 31 * this.b + 7' }; int64 a = 2; int64 b = 3;"""
    with pytest.raises(NoEvents, match=r"of 300 events .* only \d+ keep its contract .*a is 31 times b"):
        table_of(contract_of(tmp_path, whole))


def test_a_rule_about_several_fields_that_most_keep_only_costs_events(tmp_path: Path) -> None:
    whole = """option (buf.validate.message).cel = { id: 'differ' message: 'a and b differ'
        expression: 'this.a != this.b' }; bool a = 2; int64 b = 4; int64 c = 3;""".replace("this.a !", "this.c !")
    table = table_of(contract_of(tmp_path, whole))
    assert 150 <= table.num_rows <= 300


@pytest.mark.parametrize(
    "pattern",
    [
        "^[A-Z]?[0-9]{6}$", "^[a-z][a-z0-9_]{0,39}$", "^(GET|HEAD|POST)$", "^a+b*c?$", "^[^a-z]{3}$", "^\\d{4}-\\d{2}$",
        "^(ab|c(d|e)){2,3}$", "^.{2}$", "^\\w+@\\w+\\.(com|org)$", "x*?y", "^[^\\n]$", "^(?:a{2}){3}$", "^\\S+$",
    ],
)  # fmt: skip
def test_patterns_are_matched_by_what_is_made_of_them(pattern: str) -> None:
    texts = PatternText(pattern, "Ca", random.Random(SEED))
    for _ in range(50):
        text = texts.make()
        assert re.fullmatch(pattern.replace("x*?y", ".*x*?y.*"), text), f"{text!r} of {pattern!r} with seed {SEED}"


@pytest.mark.parametrize("pattern", ["(", "(a)\\1", "[^\\x00-\\U0010ffff]", "(?=a)b"])
def test_patterns_that_no_text_is_made_of_are_errors(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        PatternText(pattern, "", random.Random(SEED)).make()
