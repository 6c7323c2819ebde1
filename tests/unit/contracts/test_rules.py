"""Every kind of rule at the edge where valid turns invalid: the kernels' verdict is protovalidate's."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import protovalidate
import pytest

from ingest_service.contracts import Contract, Intake, load_contracts, rules
from ingest_service.contracts.contract import message_class

UNSET = object()
TIME = "google.protobuf.Timestamp"
ZERO_OK = "ignore = IGNORE_IF_ZERO_VALUE"
AT = dt.datetime(2011, 12, 9, tzinfo=dt.UTC)
FILLING = 40
"""Valid rows around the rows in question: so many that the kernels are used."""


@dataclass(frozen=True)
class Case:
    """A field `n` with rules, values on either side of them, and whether it takes protovalidate to prove them."""

    field: str
    valid: list[Any]
    invalid: list[Any]
    rule: str
    asked: bool = False


def case(kind: str, given: str, valid: list[Any], invalid: list[Any], rule: str, *, asked: bool = False) -> Case:
    options = ", ".join(f"(buf.validate.field).{each}" for each in given.split("; "))
    return Case(f"{kind} n = 2 [{options}];", valid, invalid, rule, asked)


CASES = [
    case("string", "string.min_len = 2", ["ab", "äö", "🌊🌊"], ["", "a", "🌊", UNSET], "string.min_len"),
    case("string", "string.max_len = 3", ["", "abc", "äöü", "🌊🌊🌊"], ["abcd", "🌊🌊🌊🌊"], "string.max_len"),
    case("string", "string.len = 2", ["ab", "äö"], ["", "a", "abc"], "string.len"),
    case("string", "string.min_bytes = 2", ["ab", "ä"], ["a", ""], "string.min_bytes"),
    case("string", "string.max_bytes = 2", ["ab", "ä"], ["abc", "äb"], "string.max_bytes"),
    case("string", "string.len_bytes = 2", ["ab", "ä"], ["a", "äb"], "string.len_bytes"),
    case("string", r"string.pattern = '^[A-Z]?[0-9]{2}$'", ["C12", "12"], ["C123", "12\n", ""], "string.pattern"),
    case("string", r"string.pattern = '^.\\d$'", ["x1", "ä1"], ["x", "\n1"], "string.pattern"),
    case("string", r"string.pattern = '^\\D$'", ["x"], ["1"], "string.pattern", asked=True),
    case("string", "string.pattern = '(?i)^abc$'", ["ABC"], ["abd"], "string.pattern", asked=True),
    case("string", "string.prefix = 'ab'", ["ab", "abc"], ["", "ba", "Ab"], "string.prefix"),
    case("string", "string.suffix = 'ab'", ["ab", "cab"], ["", "ba"], "string.suffix"),
    case("string", "string.contains = 'a.b'", ["xa.bx"], ["", "axb"], "string.contains"),
    case("string", "string.not_contains = 'ab'", ["", "ba"], ["xab"], "string.not_contains"),
    case("string", "string.const = 'ab'", ["ab"], ["", "AB"], "string.const"),
    case("string", "string = { in: ['a', 'b'] }", ["a", "b"], ["", "c"], "string.in"),
    case("string", "string = { not_in: ['a', 'b'] }", ["", "c"], ["a", "b"], "string.not_in"),
    case("string", "string.email = true", ["a@b.example"], ["a"], "string.email"),
    case("string", "required = true", ["a"], ["", UNSET], "required"),
    case("optional string", "required = true", ["a", ""], [UNSET], "required"),
    case("optional string", "string.min_len = 1", ["a", UNSET], [""], "string.min_len"),
    case("optional string", "string = { in: ['a'] }", ["a", UNSET], ["", "b"], "string.in"),
    case("optional string", "string = { not_in: ['a'] }", ["b", UNSET, ""], ["a"], "string.not_in"),
    case("string", f"{ZERO_OK}; string.min_len = 2", ["ab", "", UNSET], ["a"], "string.min_len"),
    case("optional string", f"{ZERO_OK}; string.min_len = 2", ["ab", UNSET], ["a", ""], "string.min_len"),
    case("string", "ignore = IGNORE_ALWAYS; string.min_len = 2", ["ab", "", "a"], [], ""),
    case("int64", "int64 = { gte: -5, lte: 5 }", [-5, 5, 0, UNSET], [-6, 6, 2**63 - 1, -(2**63)], "int64.gte_lte"),
    case("int64", "int64 = { gt: -5, lt: 5 }", [-4, 4], [-5, 5], "int64.gt_lt"),
    case("int64", "int64 = { gt: 5, lt: -5 }", [6, -6], [5, -5, 0], "int64.gt_lt_exclusive"),
    case("int64", "int64 = { gt: 0 }", [1], [0, UNSET, -1], "int64.gt"),
    case("optional int64", "int64.gt = 0", [1, UNSET], [0, -1], "int64.gt"),
    case("int64", "int64 = { not_in: [0] }", [1, -1], [0, UNSET], "int64.not_in"),
    case("int64", "int64 = { in: [1, 2] }", [1, 2], [0, 3], "int64.in"),
    case("int64", "int64.const = 7", [7], [0, 8], "int64.const"),
    case("int64", "required = true", [1, -1], [0, UNSET], "required"),
    case("int32", "int32.lt = 10", [9, -(2**31)], [10, 2**31 - 1], "int32.lt"),
    case("uint32", "uint32.gte = 3000000000", [3_000_000_000, 2**32 - 1], [2_999_999_999, 0], "uint32.gte"),
    case("uint64", "uint64.lte = 18446744073709551614", [0, 2**64 - 2], [2**64 - 1], "uint64.lte"),
    case("sint64", "sint64.lt = 0", [-1], [0], "sint64.lt"),
    case("fixed32", "fixed32 = { not_in: [1, 2] }", [0, 3], [1, 2], "fixed32.not_in"),
    case("sfixed64", "sfixed64.gt = -1", [0], [-1], "sfixed64.gt"),
    case("double", "double = { gt: 0.5 }", [0.51, math.inf], [0.5, math.nan, -math.inf], "double.gt"),
    case("double", "double = { lte: 1 }", [1.0, -math.inf], [1.1, math.nan, math.inf], "double.lte"),
    case("double", "double.finite = true", [0.0, 1e308], [math.inf, math.nan], "double.finite"),
    case("float", "float.const = 0", [0.0, -0.0], [1.0, math.nan], "float.const"),
    case("float", "float = { not_in: [0] }", [1.0, math.nan], [0.0, -0.0], "float.not_in"),
    case("bool", "bool.const = true", [True], [False, UNSET], "bool.const"),
    case("bytes", "bytes.min_len = 2", [b"ab"], [b"a", b""], "bytes.min_len"),
    case("bytes", "bytes.max_len = 2", [b"ab"], [b"abc"], "bytes.max_len"),
    case("bytes", "bytes.len = 2", [b"\xff\xfe"], [b"abc"], "bytes.len"),
    case("bytes", "bytes = { in: ['a'] }", [b"a"], [b"b"], "bytes.in"),
    case("bytes", "bytes.prefix = 'a'", [b"ab"], [b"ba"], "bytes.prefix", asked=True),
    case("Kind", "enum.defined_only = true", [0, 1], [2], "enum.defined_only"),
    case("Kind", "enum = { not_in: [0] }", [1, 7], [0, UNSET], "enum.not_in"),
    case("Kind", "enum.const = 1", [1], [0], "enum.const"),
    case(TIME, "required = true", [AT], [UNSET], "required"),
    case(TIME, "timestamp.gt = { seconds: 1000 }", [1001, 1000.001, UNSET], [1000, 999], "timestamp.gt"),
    case(TIME, "timestamp.lte = { seconds: 1000, nanos: 500 }", [999.999, UNSET], [1001], "timestamp.lte"),
    case(TIME, "timestamp.lt_now = true", [1000], [9_999_999_999], "timestamp.lt_now"),
    case("int64", "cel = { id: 'even', expression: 'this % 2 == 0' }", [2, 0], [1], "even", asked=True),
]  # fmt: skip


@pytest.fixture(scope="module")
def contracts(tmp_path_factory: pytest.TempPathFactory, proto_text: Callable[..., str]) -> dict[str, Contract]:
    root: Path = tmp_path_factory.mktemp("proto")
    stream = 'option (tidemill.v1.stream) = {{ name: "t{}" event_time: "at" }};'
    messages = [
        f"message T{index} {{ {stream.format(index)} google.protobuf.Timestamp at = 1; {each.field} }}"
        for index, each in enumerate(CASES)
    ]
    text = proto_text("enum Kind { KIND_UNSPECIFIED = 0; KIND_ONE = 1; }\n" + "\n".join(messages))
    (root / "cases.proto").write_text(text, encoding="utf-8")
    loaded = load_contracts(root)
    assert loaded.problems == ()
    return loaded.contracts


@pytest.mark.parametrize("index", range(len(CASES)), ids=[each.field for each in CASES])
def test_verdicts_are_protovalidates(contracts: dict[str, Contract], now_us: int, index: int) -> None:
    each = CASES[index]
    contract = contracts[f"t{index}"]
    intake = Intake(contract)
    message = message_class(contract.descriptor())
    assert intake._proofs.complete
    rows = [_row(message, value) for value in [each.valid[0]] * FILLING + each.valid + each.invalid]
    wrong = [(i, [v.proto.rule_id for v in protovalidate.collect_violations(row)]) for i, row in enumerate(rows)]
    expected = [(i, ids[0]) for i, ids in wrong if ids]
    checked = intake.from_proto([row.SerializeToString() for row in rows], now_us)
    assert [(row.index, row.rule) for row in checked.quarantined] == expected
    valid = FILLING + len(each.valid)
    assert expected == [(valid + i, each.rule) for i in range(len(each.invalid))]
    assert all(row.field == "n" and "came" in row.message for row in checked.quarantined)
    assert checked.rows.num_rows == valid
    assert checked.rows.schema == contract.schema


@pytest.mark.parametrize("index", range(len(CASES)), ids=[each.field for each in CASES])
def test_kernels_prove_what_they_can(
    contracts: dict[str, Contract], monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    """Valid rows, nulls included, are proven without asking protovalidate, or by asking once for each value."""
    each = CASES[index]
    asked: list[Any] = []

    class Counting:
        def collect_violations(self, message: Any) -> list[Any]:
            asked.append(message)
            return list(protovalidate.collect_violations(message))

    monkeypatch.setattr(rules, "Validator", Counting)
    intake = Intake(contracts[f"t{index}"])
    message = message_class(contracts[f"t{index}"].descriptor())
    batch, _ = intake._decoder.decode([_row(message, value).SerializeToString() for value in each.valid * FILLING])
    proven = intake._proofs.prove(dict(zip(batch.schema.names, batch.columns, strict=True)), batch.num_rows)
    assert proven is None
    assert 0 < len(asked) <= len(each.valid) if each.asked else not asked


def _row(message: Any, value: Any) -> Any:
    row = message(at=AT)
    if value is UNSET:
        return row
    if isinstance(value, int | float) and row.DESCRIPTOR.fields_by_name["n"].message_type is not None:
        row.n.FromMicroseconds(int(value * 1_000_000))
    elif isinstance(value, dt.datetime):
        row.n.FromDatetime(value)
    else:
        row.n = value
    return row


def test_rules_about_the_whole_message_come_last(
    write_protos: Callable[..., Path], proto_text: Callable[..., str], now_us: int
) -> None:
    text = """message T { option (tidemill.v1.stream) = { name: "t" event_time: "at" };
      option (buf.validate.message).cel = { id: "ordered" message: "a below b" expression: "this.a < this.b" };
      google.protobuf.Timestamp at = 1; int64 a = 2; int64 b = 3 [(buf.validate.field).int64.lt = 10]; }"""
    contract = load_contracts(write_protos(t=proto_text(text))).contracts["t"]
    intake, message = Intake(contract), message_class(contract.descriptor())
    rows: list[Any] = [message(a=1, b=2), message(a=2, b=1), message(a=20, b=11)] * FILLING
    for row in rows:
        row.at.FromMicroseconds(now_us)
    checked = intake.from_proto([row.SerializeToString() for row in rows], now_us)
    assert [(row.rule, row.field, row.message) for row in checked.quarantined[:2]] == [
        ("ordered", "", "expected of the row: a below b"),
        ("int64.lt", "b", "must be less than 10, came 11"),
    ]
    assert checked.rows.num_rows == FILLING


def test_a_rule_that_fails_quarantines_the_row(
    write_protos: Callable[..., Path], proto_text: Callable[..., str], now_us: int
) -> None:
    text = """message T { option (tidemill.v1.stream) = { name: "t" event_time: "at" };
      google.protobuf.Timestamp at = 1;
      int64 n = 2 [(buf.validate.field).cel = { id: "share" message: "a share" expression: "100 / this > 1" }]; }"""
    contract = load_contracts(write_protos(t=proto_text(text))).contracts["t"]
    intake, message = Intake(contract), message_class(contract.descriptor())
    rows: list[Any] = [message(n=7), message(n=0), message(n=100)]
    for row in rows:
        row.at.FromMicroseconds(now_us)
    checked = intake.from_proto([row.SerializeToString() for row in rows], now_us)
    assert [(row.index, row.rule) for row in checked.quarantined] == [(1, "tidemill.rule_failed"), (2, "share")]
    assert "expected rules that can judge the row, but one failed" in checked.quarantined[0].message
